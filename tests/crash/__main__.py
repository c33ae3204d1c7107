"""`make crash-test`: kills, then the faults that must be found."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.crash import report
from tests.crash.mutants import MUTANTS
from tests.crash.runs import run_kills, run_mutant
from tests.crash.schedule import DECK


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=DECK)
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; default: by chance")
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--no-mutants", action="store_true")
    parser.add_argument("--mutants", nargs="*", default=list(MUTANTS), choices=list(MUTANTS))
    parser.add_argument("--home", type=Path, help="keep the chain here; default: a folder that goes when all is well")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    home = options.home or Path(tempfile.mkdtemp(prefix="stockcast-crash-"))
    command = f"make crash-test KILLS={options.kills} SEED={seed}"
    say(f"{command}; home {home}")

    def keep(title: str, *parts: str) -> None:
        if options.results != Path("-"):
            report.write(options.results, title, command, parts)

    failed = violated = False
    if options.kills:
        found = run_kills(home / "kills", seed, options.kills, say, options.series)
        say("\n".join(("", report.summary(found), *found.violations, "", report.table(found))))
        keep(f"{options.kills} kills", report.summary(found), report.table(found), *found.violations)
        violated = bool(found.violations)
        failed = violated or bool(found.missed)
    if not options.no_mutants and not violated:
        caught = {name: run_mutant(home / name, name, seed, say) for name in options.mutants}
        say(f"\n{report.mutants_table(caught)}")
        keep("Faults put in", report.mutants_table(caught))
        failed = failed or not all(caught.values())
    if failed:
        say(f"\nFAILED with seed {seed}; what is left is in {home}")
        return 1
    if options.home is None:
        shutil.rmtree(home)
    return 0


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
