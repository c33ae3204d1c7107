"""The search for planted secrets finds them in every kind of file that a run leaves behind."""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.secret_scan import find

SECRET = 'pass"word\\of the test'


def parquet(path, value):
    pq.write_table(pa.table({"text": [value], "bytes": [value.encode()]}), path, compression="zstd")


def sqlite(path, value):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE params (value TEXT)")
        database.execute("INSERT INTO params VALUES (?)", (value,))


WRITERS = {
    "a log": lambda path, value: path.write_text(f"connected with {value}\n"),
    "JSON": lambda path, value: path.write_text(json.dumps({"properties": {"a": value}})),
    "JSON within JSON": lambda path, value: path.write_text(json.dumps({"event": json.dumps({"a": value})})),
    "base64": lambda path, value: path.write_bytes(base64.b64encode(value.encode())),
    "Parquet": parquet,
    "gzip": lambda path, value: path.write_bytes(gzip.compress(value.encode())),
    "SQLite": sqlite,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_secret_is_found_in(kind, tmp_path):
    (tmp_path / "deep").mkdir()
    WRITERS[kind](tmp_path / "deep" / "file", SECRET)
    found, looked = find({"password": SECRET}, tmp_path)
    assert found
    assert looked >= 1


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_found_where_there_is_no_secret(kind, tmp_path):
    WRITERS[kind](tmp_path / "file", "harmless")
    assert find({"password": SECRET}, tmp_path)[0] == []


def test_a_secret_is_found_in_what_a_server_answered(tmp_path):
    assert find({"password": SECRET}, tmp_path, {"/environment": f"<td>{SECRET}</td>".encode()})[0] == [
        "password (plain) in /environment"
    ]
