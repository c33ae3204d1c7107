"""The embedded broker: one real KRaft node from plain jars, on loopback, with its data under `home`."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

import psutil
from confluent_kafka import KafkaException

from pipelines.errors import BrokerError, UsageError
from pipelines.io import kafka
from pipelines.operations.jars import JARS
from pipelines.operations.java import java
from pipelines.operations.settings import Settings

LOOPBACK = {"127.0.0.1", "localhost"}


def _address(settings: Settings) -> tuple[str, int]:
    servers = settings.kafka.bootstrap_servers
    host, _, port = servers.partition(":")
    if "," in servers or host not in LOOPBACK or not port.isdigit():
        raise UsageError(
            f"kafka.bootstrap_servers is {servers}: the embedded broker listens on 127.0.0.1:PORT only; "
            "with a broker of your own there is nothing to start"
        )
    return "127.0.0.1", int(port)


def _folder(settings: Settings) -> Path:
    return settings.home_path / "broker"


def running(settings: Settings) -> int | None:
    """The process id of this home's broker; None where it does not run."""
    try:
        pid, started = (_folder(settings) / "pid").read_text().split()
        process = psutil.Process(int(pid))
        if f"{process.create_time():.2f}" == started and process.status() != psutil.STATUS_ZOMBIE:
            return int(pid)
    except (OSError, ValueError, psutil.NoSuchProcess):
        pass
    return None


def answers(settings: Settings, timeout: float = 2.0) -> bool:
    """Whether a broker answers at the configured address."""
    host, _, port = settings.kafka.bootstrap_servers.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except (OSError, ValueError):
        return False
    try:
        kafka.admin(settings).list_topics(timeout=timeout)
    except KafkaException:
        return False
    return True


def start(settings: Settings) -> int:
    """Start the broker unless it runs, wait until it answers, and create the topics.

    Returns:
        Its process id.

    Raises:
        BrokerError: the port is taken, Java is missing, or the broker did not come up; says what to do.
    """
    earlier = running(settings)
    pid = earlier or _launch(settings)
    deadline = time.monotonic() + settings.broker.start_timeout_seconds
    while not answers(settings):
        time.sleep(0.1)
        alive = running(settings) is not None
        if not alive and pid == earlier:
            # It was found dying: killed a moment ago, or on its way out by itself.
            pid = _launch(settings)
        elif not alive or time.monotonic() > deadline:
            tail = (_folder(settings) / "broker.log").read_text(errors="replace")[-2000:]
            raise BrokerError(f"the broker did not come up; the end of its log:\n{tail}")
    kafka.ensure_topics(settings)
    return pid


def _launch(settings: Settings) -> int:
    host, port = _address(settings)
    folder = _folder(settings)
    if not (JARS / "broker").is_dir():
        raise BrokerError("the broker's jars are missing; run `make setup`")
    executable = java()
    controller = folder / "controller.port"
    folder.mkdir(parents=True, exist_ok=True)
    if not controller.exists():
        controller.write_text(str(_free_port()))
    controller_port = int(controller.read_text())
    for taken in (port, controller_port):
        _refuse_taken(host, taken)
    config = folder / "server.properties"
    config.write_text(_properties(settings, host, port, controller_port))
    classpath = str(JARS / "broker" / "*")
    if not (folder / "data" / "meta.properties").exists():
        # The first byte is fixed: an id that begins with a dash reads as an option, one in 64 would.
        cluster = urlsafe_b64encode(b"S" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        formatted = subprocess.run(
            [
                executable, "-cp", classpath, "kafka.tools.StorageTool",
                "format", "--standalone", "-t", cluster, "-c", str(config),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if formatted.returncode != 0:
            raise BrokerError(f"the broker's storage could not be prepared:\n{formatted.stderr[-2000:]}")
    with open(folder / "broker.log", "ab") as log:
        process = subprocess.Popen(
            [
                executable,
                f"-Xmx{settings.broker.heap_mb}m",
                "-XX:+ExitOnOutOfMemoryError",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp", classpath, "kafka.Kafka", str(config),
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    created = psutil.Process(process.pid).create_time()
    (folder / "pid").write_text(f"{process.pid} {created:.2f}")
    return process.pid


def stop(settings: Settings, timeout: float = 30.0) -> bool:
    """Stop this home's broker in an orderly way; its data stay.

    Returns:
        Whether it was running.
    """
    pid = running(settings)
    if pid is None:
        return False
    process = psutil.Process(pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(timeout)
    (_folder(settings) / "pid").unlink(missing_ok=True)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuse_taken(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise BrokerError(
                f"port {port} on {host} is taken by another program; stop that, or choose another with "
                f"--set kafka.bootstrap_servers={host}:{port + 1000}"
            ) from None


def _properties(settings: Settings, host: str, port: int, controller_port: int) -> str:
    listeners = f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}"
    return "\n".join(
        f"{key}={value}"
        for key, value in {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"{host}:{controller_port}",
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.listener.names": "CONTROLLER",
            "log.dirs": _folder(settings) / "data",
            "num.network.threads": 2,
            "num.io.threads": 4,
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "log.retention.hours": 24 * 30,
            "log.segment.bytes": 64 * 1024 * 1024,
        }.items()
    )


def describe(settings: Settings) -> str:
    """One line on the broker's state."""
    pid = running(settings)
    if pid is None:
        elsewhere = " (another broker answers there)" if answers(settings) else ""
        return f"stopped; would listen on {settings.kafka.bootstrap_servers}{elsewhere}"
    memory = psutil.Process(pid).memory_info().rss // 2**20
    return f"running as process {pid} on {settings.kafka.bootstrap_servers}, {memory} MB, data in {_folder(settings)}"
