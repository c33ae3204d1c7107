"""A broker of its own for each end-to-end test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.operations import broker
from pipelines.operations.settings import Settings, load_settings
from tests.conftest import free_port


@pytest.fixture
def chain(tmp_path) -> Iterator[Settings]:
    """Settings of a fresh home with a running broker."""
    settings = load_settings(
        overrides=[
            f"home={tmp_path / 'home'}",
            f"kafka.bootstrap_servers=127.0.0.1:{free_port()}",
            "broker.heap_mb=384",
            "forecast.uncertainty_samples=100",
        ]
    )
    broker.start(settings)
    yield settings
    broker.stop(settings)
