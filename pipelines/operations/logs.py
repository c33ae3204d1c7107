"""Log lines: text for people, or a JSON object a line, with the query, batch and version that they are about."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson
import pyspark
from pyspark.sql import SparkSession

TEXT, JSON = "text", "json"
NOISY = ("py4j", "cmdstanpy", "prophet", "alembic", "mlflow", "matplotlib", "numba")
_SPARK = Path(pyspark.__file__).parent / "conf" / "log4j2.properties"
_SPARK_JSON = """
appender.console.layout.type = JsonTemplateLayout
appender.console.layout.eventTemplate = {"time": {"$resolver": "timestamp", "pattern": {"format": \
"yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "timeZone": "UTC"}}, "level": {"$resolver": "level", "field": "name"}, \
"logger": {"$resolver": "logger", "field": "name"}, "message": {"$resolver": "message", "stringified": true}, \
"exception": {"$resolver": "exception", "field": "stackTrace", "stackTrace": {"stringified": true}}}
"""
_SPARK_WITHOUT = """
status = error
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
"""
_ABOUT: ContextVar[Mapping[str, Any]] = ContextVar("about")


@contextmanager
def about(**what: Any) -> Iterator[None]:
    """What the lines of the block are about, in its own thread: `query`, `batch`, and `version` of what is in force."""
    token = _ABOUT.set({**_ABOUT.get({}), **what})
    try:
        yield
    finally:
        _ABOUT.reset(token)


class JsonLines(logging.Formatter):
    """A line as a JSON object: time (RFC 3339, UTC), level, logger, message, what it is about, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a line break in a message is escaped, so that it stays one."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_ABOUT.get({}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class LinesHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        self.stream = sys.stderr
        super().emit(record)


def configure(form: str, level: int) -> None:
    """Send log lines to standard error; done again, it takes the place of what was done before.

    Args:
        form: `logging.format`.
        level: least level shown.
    """
    handler = LinesHandler()
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonLines() if form == JSON else text)
    root = logging.getLogger()
    for before in [known for known in root.handlers if isinstance(known, LinesHandler)]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def is_json() -> bool:
    """Whether log lines are JSON."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def tell_spark(spark: SparkSession) -> None:
    """Have Spark's own log lines in the same form, from now on: its levels stay, its layout is another."""
    if not is_json():
        return
    jvm: Any = spark.sparkContext._jvm
    text = _SPARK.read_text(encoding="utf-8") if _SPARK.is_file() else _SPARK_WITHOUT
    kept = [line for line in text.splitlines() if not line.startswith("appender.console.layout")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "log4j2.properties")
        file.write_text("\n".join(kept) + _SPARK_JSON, encoding="utf-8")
        jvm.org.apache.logging.log4j.core.config.Configurator.reconfigure(jvm.java.io.File(str(file)).toURI())
