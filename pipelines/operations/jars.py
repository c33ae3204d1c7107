"""The jars of Spark's connectors and of the broker, through the Ivy that ships in pyspark.

Run by `make setup`. Files land in `.jars/spark` and `.jars/broker`, each checked against
`conf/ivy/jars.sha256`; the virtual environment's Spark is then told where they are.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

from pipelines.errors import StockcastError
from pipelines.operations.java import java

ROOT = Path(__file__).parents[2]
JARS = ROOT / ".jars"
IVY = ROOT / "conf" / "ivy"


def checksums() -> dict[str, str]:
    """SHA-256 sums by path below `.jars`."""
    lines = (IVY / "jars.sha256").read_text(encoding="ascii").splitlines()
    return {path: digest for digest, path in (line.split() for line in lines)}


def unverified() -> list[str]:
    """Paths of the jars that are missing or differ from their sum."""
    return [
        path
        for path, digest in checksums().items()
        if not (JARS / path).is_file() or hashlib.sha256((JARS / path).read_bytes()).hexdigest() != digest
    ]


def fetch() -> None:
    """Fetch what is missing and verify all of it.

    Raises:
        StockcastError: Ivy failed, or a file differs from its sum; names the file.
    """
    if not unverified():
        return
    print("fetching the jars of Spark's connectors and the broker (about 65 MB) ...", flush=True)
    ivy = next((Path(pyspark.__file__).parent / "jars").glob("ivy-*.jar"))
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [
                java(), "-jar", str(ivy), "-warn",
                "-settings", str(IVY / "ivysettings.xml"),
                "-cache", cache,
                "-ivy", str(IVY / "ivy.xml"),
                "-retrieve", str(JARS / "[conf]" / "[artifact]-[revision].[ext]"),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise StockcastError(f"the jars could not be fetched:\n{(done.stdout + done.stderr)[-3000:]}")
    if wrong := unverified():
        raise StockcastError(
            f"these jars are missing or differ from conf/ivy/jars.sha256: {', '.join(wrong)}; "
            "delete .jars and try again"
        )


def configure_spark() -> None:
    """Write the configuration of the virtual environment's Spark: the project's own, where the jars are, and
    what suits one machine (memory of the driver, loopback only)."""
    target = Path(pyspark.__file__).parent / "conf"
    target.mkdir(exist_ok=True)
    defaults = (ROOT / "conf" / "spark-defaults.conf").read_text(encoding="utf-8")
    jars = ",".join(str(path) for path in sorted((JARS / "spark").glob("*.jar")))
    (target / "spark-defaults.conf").write_text(
        f"{defaults}\nspark.jars {jars}\nspark.driver.memory 2g\n", encoding="utf-8"
    )
    (target / "spark-env.sh").write_text("export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}\n", encoding="utf-8")
    shutil.copy(ROOT / "conf" / "log4j2.properties", target)


def main() -> int:
    """Fetch, verify, configure."""
    try:
        fetch()
    except StockcastError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    configure_spark()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
