"""Files of a training: written in pieces, named by what is in them."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def sha256(path: str | Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_package(package: str, folder: Path) -> Path:
    """Copy an importable package below `folder`, out of a wheel on the path too; returns the copy's folder."""
    copy = folder / package
    _copy_tree(files(package), copy)
    return copy


def _copy_tree(source: Traversable, target: Path) -> None:
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_file():
            (target / entry.name).write_bytes(entry.read_bytes())
        elif entry.name != "__pycache__":
            _copy_tree(entry, target / entry.name)
