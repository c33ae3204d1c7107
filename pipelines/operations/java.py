"""Finding Java."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from pipelines.errors import StockcastError

OLDEST = 17


def java() -> str:
    """Path of a Java 17+ executable.

    Raises:
        StockcastError: none was found, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not found or not Path(found).exists():
        raise StockcastError(
            f"Java {OLDEST} or newer is needed and was not found; install a JRE (on Debian: "
            "apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
        )
    answer = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    if version is None or int(version.group(1)) < OLDEST:
        raise StockcastError(f"{found} is not Java {OLDEST} or newer:\n{answer.stderr.strip()}")
    return found
