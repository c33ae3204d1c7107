"""A Spark standalone cluster on loopback from the installed pyspark, and what is needed to submit to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyspark

from tests.short_spark import JVM

ROOT = Path(__file__).parents[2]
SPARK_CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"
SPARK_SUBMIT = Path(sys.prefix) / "bin" / "spark-submit"
KEPT_VARIABLES = ("PATH", "HOME", "JAVA_HOME", "LANG", "TZ", "TMPDIR")
START_SECONDS = 120
SWIFT = ("--conf", "spark.sql.shuffle.partitions=2", "--conf", "spark.ui.enabled=false")


def bare_environment(**further: str) -> dict[str, str]:
    """Nothing that could tell a process where this checkout is: no PYTHONPATH, no Spark or Stockcast variables."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, "SPARK_LOCAL_IP": "127.0.0.1", **further}


def build_wheel(folder: Path) -> tuple[Path, Path]:
    """The project's wheel, built offline from a copy of its sources, so that nothing old slips in; and its jobs."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name, place in (("pipelines", source), ("jobs", folder)):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(folder / "dist"), str(source)], check=True, cwd=folder, timeout=120)
    (wheel,) = (folder / "dist").glob("stockcast-*.whl")
    return wheel, folder / "jobs"


def python_without_the_project(folder: Path) -> Path:
    """A Python with this environment's packages, but without the project itself.

    The packages' folder is on its path as a plain entry, so the file in it by which an editable install
    points at the checkout is never read.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    packages = Path(pyspark.__file__).parents[1]
    (own,) = (folder / "lib").glob("python3*/site-packages")
    (own / "dependencies.pth").write_text(f"{packages}\n", encoding="utf-8")
    return folder / "bin" / "python"


@dataclass(frozen=True)
class Cluster:
    """A running master with its workers, and what its jobs run with.

    Attributes:
        url: for `--master`.
        status_url: where the master tells of itself in JSON.
        folder: logs and work folders, `worker-N/work` among them.
        python: of drivers and executors.
        wheel: for `--py-files`.
        jobs: the job files, with nothing beside them.
    """

    url: str
    status_url: str
    folder: Path
    python: Path
    wheel: Path
    jobs: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def status(self) -> dict[str, Any]:
        """What the master says of its workers and applications."""
        with urllib.request.urlopen(self.status_url, timeout=10) as answer:
            return dict(json.load(answer))

    def submit(
        self, job: str, *arguments: str, options: Sequence[str] = (), configured: bool = True, timeout: float = 600
    ) -> str:
        """`spark-submit` a job from an empty folder; returns its log.

        Args:
            configured: use the Spark that `make setup` has told of the jars; False: as with any other Spark, name
                the project's defaults and the jars on the command line.

        Raises:
            AssertionError: the job did not exit with 0; shows the end of its log.
        """
        folder = self.folder / "submitted-from"
        folder.mkdir(exist_ok=True)
        environment = bare_environment(PYSPARK_PYTHON=str(self.python), PYSPARK_DRIVER_PYTHON=str(self.python))
        if not configured:
            environment["SPARK_CONF_DIR"] = str(folder)
            jars = ",".join(map(str, sorted((ROOT / ".jars" / "spark").glob("*.jar"))))
            options = ["--properties-file", str(ROOT / "conf" / "spark-defaults.conf"), "--jars", jars, *options]
        machines = ["--driver-java-options", JVM, "--conf", f"spark.executor.extraJavaOptions={JVM}"]
        command = [SPARK_SUBMIT, "--master", self.url, "--py-files", self.wheel, *machines, *SWIFT, *options]
        done = subprocess.run(
            [*map(str, command), str(self.jobs / f"{job}.py"), *arguments],
            env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip
        log = done.stdout + done.stderr
        assert done.returncode == 0, f"{job} exited with {done.returncode}:\n{log[-4000:]}\n{self._executor_errors()}"
        return log

    def _executor_errors(self) -> str:
        logs = sorted(self.folder.glob("worker-*/work/app-*/*/stderr"), key=lambda path: path.stat().st_mtime)
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-2000:]}" for path in logs[-2:])


@contextmanager
def standalone_cluster(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """A master and workers with one core and 1 GB each; all of their processes are gone afterwards."""
    port, web_port = free_port(), free_port()
    url = f"spark://127.0.0.1:{port}"
    built = (python_without_the_project(folder / "python"), *build_wheel(folder / "wheel"))
    cluster = Cluster(url, f"http://127.0.0.1:{web_port}/json/", folder, *built)
    with ExitStack() as stack:
        master = ["master.Master", "--port", str(port), "--webui-port", str(web_port)]
        stack.enter_context(_daemon(cluster, "master", *master))
        _wait(lambda: cluster.status()["status"] == "ALIVE", cluster)
        for number in range(workers):
            size = ["--cores", "1", "--memory", "1g", "--webui-port", str(free_port())]
            stack.enter_context(_daemon(cluster, f"worker-{number}", "worker.Worker", *size, url))
        _wait(lambda: cluster.status()["aliveworkers"] == workers, cluster)
        yield cluster


@contextmanager
def _daemon(cluster: Cluster, name: str, main: str, *arguments: str) -> Iterator[None]:
    """A Spark daemon in a folder of its own. On leaving it and its children, the executors, are stopped by id."""
    folder = cluster.folder / name
    folder.mkdir(parents=True)
    environment = bare_environment(
        SPARK_DAEMON_MEMORY="256m",
        SPARK_DAEMON_JAVA_OPTS=JVM,
        SPARK_WORKER_DIR=str(folder / "work"),
        SPARK_LOCAL_DIRS=str(folder / "local"),
        SPARK_LOG_DIR=str(folder),
    )
    command = [str(SPARK_CLASS), f"org.apache.spark.deploy.{main}", "--host", "127.0.0.1", *arguments]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    cluster.processes.append(process)
    try:
        yield
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = [psutil.Process(process.pid)] if process.poll() is None else []
    family += [child for parent in family for child in parent.children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(timeout=10)


def _wait(ready: Any, cluster: Cluster) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if ready():
                return
        except (OSError, ValueError):  # nobody listens yet, or only the page is there and not yet its data
            pass
        if time.monotonic() > deadline or any(process.poll() is not None for process in cluster.processes):
            logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in cluster.folder.glob("*/log"))
            raise RuntimeError(f"the Spark cluster did not come up:\n{logs}")
        time.sleep(0.2)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
