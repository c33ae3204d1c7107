"""Compiled array code: one decorator, so that every kernel is compiled and kept in the same way."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

from pipelines.forecasting.series import Floats

Function = TypeVar("Function", bound=Callable[..., object])

# Sums may be reordered, which is what lets the compiler use vector instructions; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "arcp", "nsz"}

_NUMBA: Any = numba.config


class CompiledCode:
    """Where numba keeps a function's machine code, and when it is stale: numba's locator protocol.

    Numba by itself keeps nothing for code that comes from an archive, as on Spark's executors, where compiling would
    then cost every worker half a minute; and it takes a function to be unchanged while its own file is, although
    the functions that it calls are compiled into it. Here any change in the sources of compiled functions counts.
    """

    def __init__(self, folder: Path, file: str, line: int) -> None:
        # Numba names the file in its messages.
        self._folder, self._py_file, self._line = folder, file, line

    @classmethod
    def from_function(cls, function: Callable[..., object], file: str) -> CompiledCode | None:
        """The first folder that can be written to; None: there is none."""
        for folder in _folders(Path(file), function.__module__):
            locator = cls(folder, file, function.__code__.co_firstlineno)
            try:
                locator.ensure_cache_path()
            except OSError:
                continue
            return locator
        return None

    def ensure_cache_path(self) -> None:
        """Make the folder.

        Raises:
            OSError: it cannot be made or written to.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self._folder).close()

    def get_cache_path(self) -> str:
        """The folder."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """What the kept code must agree with."""
        return _sources()

    def get_disambiguator(self) -> str:
        """Tells functions of the same name in one file apart."""
        return str(self._line)


def compiled(function: Function) -> Function:
    """The function as machine code: compiled at its first call, kept on disk where that is possible."""
    before = _NUMBA.CACHE_LOCATOR_CLASSES
    _NUMBA.CACHE_LOCATOR_CLASSES = f"{CompiledCode.__module__}.{CompiledCode.__qualname__}"
    try:
        return _jit(function, keep=True)
    except RuntimeError:
        # There is no folder to keep it in.
        return _jit(function, keep=False)
    finally:
        _NUMBA.CACHE_LOCATOR_CLASSES = before


def _jit(function: Function, keep: bool) -> Function:
    return cast("Function", numba.njit(fastmath=_FAST, error_model="numpy", nogil=True, cache=keep)(function))


def _folders(file: Path, module: str) -> Iterator[Path]:
    """Beside the source; else the user's own cache, which outlives an executor; else beside the archive."""
    if _NUMBA.CACHE_DIR:
        yield Path(_NUMBA.CACHE_DIR, _sources()[:16], module)
    if file.is_file():
        yield file.parent / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(home, "stockcast", "compiled", _sources()[:16], module)
    for archive in file.parents:
        if archive.is_file():
            yield archive.with_name(f"{archive.name}.compiled") / module


@cache
def _sources() -> str:
    """A digest of all sources of the package that hold compiled functions."""
    digest = hashlib.sha256()
    folders = [resources.files("pipelines")]
    while folders:
        for entry in sorted(folders.pop().iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                text = entry.read_bytes()
                if b"@compiled" in text:
                    digest.update(text)
            elif entry.is_dir() and entry.name != "__pycache__":
                folders.append(entry)
    return digest.hexdigest()


@compiled
def product(rows: Floats, matrix: Floats) -> Floats:
    """(N, p) = (N, n) @ (n, p), each row the same to the last bit whatever other rows there are.

    A BLAS library chooses its order of summation by the shape of the whole.
    """
    out = np.zeros((rows.shape[0], matrix.shape[1]))
    for row in range(rows.shape[0]):
        for inner in range(rows.shape[1]):
            value = rows[row, inner]
            for column in range(matrix.shape[1]):
                out[row, column] += value * matrix[inner, column]
    return out
