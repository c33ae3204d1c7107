"""The console script in a test's own process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from pipelines.contracts import topics
from pipelines.io import kafka
from pipelines.operations.cli.app import main
from pipelines.operations.settings import Settings

Ran = tuple[int | str | None, str, list]


def runner(group: str, settings: Settings, monkeypatch, capsys) -> Callable[..., Ran]:
    """Runs `stockcast GROUP ...`; gives its exit code, what it said, and the order statuses that it sent."""
    sent: list = []

    def send(_, topic, messages):
        assert topic == topics.ORDER_STATUS
        sent.extend((key, json.loads(value)) for key, value in messages)

    monkeypatch.setattr(kafka, "send", send)

    def run(*arguments: str) -> Ran:
        sent.clear()
        monkeypatch.setattr(sys, "argv", ["stockcast", group, *arguments, "--set", f"home={settings.home}"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err, list(sent)

    return run
