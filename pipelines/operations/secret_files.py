"""Secrets from the environment (through the settings) or from files that only their owner can read."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from pipelines.errors import UsageError


def read_secret_file(path: str, setting: str) -> str:
    """The text of a secret file.

    Raises:
        UsageError: it cannot be read, or others can read it.
    """
    file = Path(path)
    try:
        mode = file.stat().st_mode
        if mode & 0o077:
            raise UsageError(f"{setting}: others than its owner have rights to {path} ({mode & 0o777:o}); chmod 600 it")
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{setting}: {path} cannot be read ({error}); name a text file with mode 600") from None


def secret_of(value: SecretStr | None, file: str | None, setting: str) -> str | None:
    """A secret given as itself or as a file; None where neither is.

    Raises:
        UsageError: both are, it is empty, or the file is not fit.
    """
    if value is not None and file is not None:
        raise UsageError(f"{setting} and {setting}_file are both set; keep one")
    secret = value.get_secret_value() if value is not None else None
    if file is not None:
        secret = read_secret_file(file, f"{setting}_file")
    if secret is not None and not secret:
        raise UsageError(f"{setting} is empty; leave it out or give a secret")
    return secret
