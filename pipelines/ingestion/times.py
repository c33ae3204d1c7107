"""RFC 3339 times with a zone, as microseconds since 1970-01-01T00:00:00Z."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EARLIEST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND

_RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:(\d{2})(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def parse_time(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time; finer digits are cut off.

    A leap second (23:59:60) counts as the first instant of the next minute, as in POSIX time.

    Raises:
        ValueError: not RFC 3339, no zone, or no such date.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError("expected RFC 3339 with a zone, such as 2026-01-31T08:30:00Z")
    leap = 0
    if match.group(1) == "60":
        start = match.start(1)
        text, leap = f"{text[:start]}59{text[start + 2 :]}", 1_000_000
    instant = datetime.fromisoformat(text.upper())
    microseconds = (instant - EPOCH) // MICROSECOND + leap
    if not EARLIEST <= microseconds <= LATEST:
        raise ValueError("in UTC it lies outside the years 1 to 9999")
    return microseconds


def format_time(microseconds: int) -> str:
    """RFC 3339 in UTC, with as many digits as needed."""
    text = (EPOCH + timedelta(microseconds=microseconds)).isoformat()
    return text.removesuffix("+00:00") + "Z"


def as_datetime(microseconds: int) -> datetime:
    """The instant as an aware datetime in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def as_microseconds(instant: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (instant - EPOCH) // MICROSECOND
