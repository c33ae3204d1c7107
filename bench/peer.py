"""The Kafka Streams peer: the same topics and the same rule, by its own program, started by its `run.sh`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
from confluent_kafka.admin import NewTopic

from bench.harness import Scene
from bench.workload import ORDER_UP_TO, PEER_POLICIES, REORDER_POINT
from pipelines.contracts import topics
from pipelines.io import kafka

_LINE = re.compile(r"^(\d+) events=(\d+)", re.MULTILINE)


def build(peer: Path, work: Path) -> str | None:
    """Have the peer's script build it; returns why it cannot be measured, or None."""
    if not (peer / "run.sh").is_file():
        return f"no run.sh in {peer}"
    if not (work / "classes").is_dir():
        # It builds first, then fails to reach the broker that is not there, which is what we want.
        command = ["timeout", "300", "bash", str(peer / "run.sh"), "127.0.0.1:1", str(work)]
        with subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while run.poll() is None and not (work / "classes").is_dir():
                try:
                    run.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
            run.terminate()
    return None if (work / "classes").is_dir() else "it did not build (see ivy.log beside its classes)"


def start(scene: Scene, peer: Path, work: Path) -> subprocess.Popen[bytes]:
    """Publish the policies and start the peer; its lines go to `peer.log`."""
    admin = kafka.admin(scene.settings)
    for created in admin.create_topics([NewTopic(PEER_POLICIES, 1, 1)]).values():
        created.result()
    level = orjson.dumps({"reorder_point": REORDER_POINT, "order_up_to": ORDER_UP_TO})
    policies = ((topics.series_key(*key), level) for key in scene.options.workload.all_keys())
    kafka.send(kafka.producer(scene.settings), PEER_POLICIES, policies)
    state = scene.folder / "peer"
    state.mkdir()
    for name in ("classes", "jars"):
        (state / name).symlink_to(work / name)
    with open(scene.folder / "peer.log", "ab") as log:
        return subprocess.Popen(
            ["bash", str(peer / "run.sh"), scene.settings.kafka.bootstrap_servers, str(state)],
            env=_environment(), stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def processed(scene: Scene, at: float | None = None) -> int:
    """Events that the peer has processed, by its own count, up to a time (now)."""
    return max((events for moment, events in progress(scene) if at is None or moment <= at), default=0)


def progress(scene: Scene) -> list[tuple[float, int]]:
    """Events processed by time, by the peer's own count once a second."""
    lines = _LINE.findall((scene.folder / "peer.log").read_text())
    return [(int(moment) / 1000, int(events)) for moment, events in lines]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable}
