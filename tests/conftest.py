"""Shared fixtures: one Spark session and one real broker per run, a fresh home per test."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

# Small matrices on two cores beside a broker and Spark: a thread more only waits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault(
    "PYSPARK_SUBMIT_ARGS",
    "--master local[2] --driver-memory 2g --conf spark.ui.enabled=false"
    " --conf spark.sql.shuffle.partitions=2 --conf spark.default.parallelism=2 pyspark-shell",
)

from pipelines.io.delta import Tables
from pipelines.operations import broker as embedded
from pipelines.operations.session import open_session
from pipelines.operations.settings import Settings, load_settings

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def spark():
    """The run's one Spark session, with Delta."""
    session = open_session("stockcast-tests")
    yield session
    session.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a fresh home that nobody else uses; no broker behind them."""
    return load_settings(overrides=[f"home={tmp_path / 'home'}", "kafka.bootstrap_servers=127.0.0.1:1"])


@pytest.fixture
def tables(settings: Settings) -> Tables:
    """The tables of the fresh home."""
    return Tables(settings)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The run's one real broker: settings that reach it."""
    home = tmp_path_factory.mktemp("broker-home")
    settings = load_settings(
        overrides=[f"home={home}", f"kafka.bootstrap_servers=127.0.0.1:{free_port()}", "broker.heap_mb=384"]
    )
    embedded.start(settings)
    yield settings
    embedded.stop(settings)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the project; the test is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data are not here: {SHARED_DATA}")
    return SHARED_DATA
