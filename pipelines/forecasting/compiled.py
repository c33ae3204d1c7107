"""Compiled array code: one decorator, so that every kernel is compiled with the same options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba
import numpy as np

from pipelines.forecasting.series import Floats

Function = TypeVar("Function", bound=Callable[..., object])

# Sums may be reordered, which is what lets the compiler use vector instructions; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


def compiled(function: Function) -> Function:
    """The function as machine code: compiled at its first call in a process, kept on disk where that is writable."""
    return cast("Function", numba.njit(fastmath=_FAST, error_model="numpy", nogil=True, cache=_cacheable())(function))


def _cacheable() -> bool:
    """Whether this package is a folder: numba keeps no compiled code beside a module inside an archive."""
    return Path(__file__).is_file()


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
