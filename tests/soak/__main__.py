"""`make soak`: run a soak, print what came of it, and put the table into bench/RESULTS.md."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench import report as results
from tests.conftest import free_port
from tests.soak.report import section
from tests.soak.run import Soak


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="under load")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--seed", type=int, default=1, help="of the events and the restarts")
    parser.add_argument("--folder", type=Path, help="for home, logs and samples; kept (a temporary one, removed)")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    chosen = parser.parse_args()
    # So that what was started is ended in an orderly way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="stockcast-soak-") as temporary:
        folder = (chosen.folder or Path(temporary)).absolute()
        report = Soak(folder, free_port(), chosen.minutes, chosen.rate, chosen.seed, say).run()
        (folder / "report.json").write_text(json.dumps(asdict(report)))
    text = section(report, f"make soak MINUTES={chosen.minutes:g} RATE={chosen.rate:g} SEED={chosen.seed}")
    print(text)
    if not chosen.no_write:
        results.write("soak", text)
    return 0 if report.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
