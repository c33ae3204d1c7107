"""Identifiers that follow from what they name, so that a repetition is recognisable."""

from __future__ import annotations

from hashlib import sha256


def identifier(prefix: str, *parts: str) -> str:
    """A deterministic identifier: the prefix and 96 bits of a hash of the parts."""
    return f"{prefix}-{sha256('|'.join(parts).encode()).hexdigest()[:24]}"
