"""Log lines: text by default, JSON by a setting, and what they are about."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime

import pytest

from pipelines.errors import StockcastError
from pipelines.operations import logs
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.logs import about

log = logging.getLogger("stockcast.test")


@pytest.fixture(autouse=True)
def as_before():
    """The root logger as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def job(capsys, run, *arguments: str) -> tuple[int, list[str]]:
    """A job's exit code and what it wrote to standard error."""
    code = run_job("Test.", run, argv=list(arguments))
    return code, capsys.readouterr().err.splitlines()


def work(_: JobArguments) -> None:
    with about(query="ingest", batch=7):
        log.info("two\nlines, %d records", 5)
        with about(version="f-1"):
            log.warning("inside")
    log.info("outside")


def test_text_is_the_default(capsys):
    code, lines = job(capsys, work)
    assert (code, len(lines)) == (0, 4)
    assert lines[0].endswith("INFO    stockcast.test  two")


def test_json_lines_say_what_they_are_about(capsys):
    began = datetime.now(UTC)
    code, lines = job(capsys, work, "--set", "logging.format=json")
    first, inside, outside = map(json.loads, lines)
    assert code == 0
    assert (first["level"], first["logger"]) == ("INFO", "stockcast.test")
    assert first["message"] == "two\nlines, 5 records"
    assert abs((datetime.fromisoformat(first["time"]) - began).total_seconds()) < 60
    assert (first["query"], first["batch"], first.get("version")) == ("ingest", 7, None)
    assert (inside["query"], inside["batch"], inside["version"]) == ("ingest", 7, "f-1")
    assert not {"query", "batch", "version"} & set(outside)


@pytest.mark.parametrize(
    ("error", "expected", "trace"),
    [
        (StockcastError("the disk is full; free space"), "the disk is full; free space", False),
        (ValueError("odd"), "ValueError: odd", True),
    ],
    ids=["one that a person can mend", "another"],
)
def test_an_end_by_an_error_is_a_line_too(capsys, error, expected, trace):
    def fail(_: JobArguments) -> None:
        raise error

    code, lines = job(capsys, fail, "--set", "logging.format=json")
    (entry,) = map(json.loads, lines)
    assert (code, entry["level"], entry["message"]) == (1, "ERROR", expected)
    assert ("Traceback" in entry.get("exception", "")) is trace


def test_another_thread_is_about_something_else(capsys):
    def run(_: JobArguments) -> None:
        with about(query="ingest"):
            other = threading.Thread(target=lambda: log.info("beside"))
            other.start()
            other.join()

    _, lines = job(capsys, run, "--set", "logging.format=json")
    assert "query" not in json.loads(lines[0])


def test_the_form_of_the_newest_job_holds(capsys):
    job(capsys, work, "--set", "logging.format=json")
    assert logs.is_json()
    _, lines = job(capsys, work)
    assert not logs.is_json()
    assert len(lines) == 4
