"""Looking for planted secrets in everything that a run leaves behind, also where it is packed."""

from __future__ import annotations

import base64
import gzip
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def forms(secret: str) -> dict[str, bytes]:
    """How a secret may show: as it is, escaped as in JSON and shells, and in base64."""
    raw = secret.encode()
    escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
    return {
        "plain": raw,
        "escaped": escaped.encode(),
        "escaped twice": escaped.replace("\\", "\\\\").replace('"', '\\"').encode(),
        "in base64": base64.b64encode(raw),
    }


def find(secrets: dict[str, str], folder: Path, others: dict[str, bytes] | None = None) -> tuple[list[str], int]:
    """Where secrets are found, in words, and how many pieces were looked at.

    Args:
        secrets: by name.
        others: what else is to be searched, by name (answers of a server, command lines).
    """
    wanted = [(name, form, text) for name, secret in secrets.items() for form, text in forms(secret).items()]
    found, looked = [], 0
    for place, content in [*_contents(folder), *(others or {}).items()]:
        looked += 1
        found += [f"{name} ({form}) in {place}" for name, form, text in wanted if text in content]
    return found, looked


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        place = str(path.relative_to(folder))
        content = path.read_bytes()
        yield place, content
        if content.startswith(b"PAR1"):
            yield f"{place}, unpacked", _cells(pq.read_table(path))
        elif content.startswith(b"\x1f\x8b"):
            yield f"{place}, unpacked", gzip.decompress(content)
        elif content.startswith(b"x\x9c"):
            yield f"{place}, unpacked", zlib.decompress(content)
        elif content.startswith(b"SQLite format 3"):
            with sqlite3.connect(path) as database:
                yield f"{place}, dumped", "\n".join(database.iterdump()).encode()


def _cells(table: pa.Table) -> bytes:
    """Every value of a table."""
    return b"\n".join(
        value if isinstance(value, bytes) else str(value).encode()
        for column in table.columns
        for value in column.to_pylist()
    )
