"""Compiled code is kept for packages in archives too, and thrown away when any source of it changes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipelines.forecasting import compiled

ROOT = Path(__file__).parents[2]
KERNEL = "pipelines/forecasting/compiled.py"
OTHER = "pipelines/forecasting/prophet_map/noise.py"

PROGRAM = """
import numpy as np
from pipelines.forecasting import compiled
assert compiled.product(np.ones((2, 3)), np.ones((3, 1))).tolist() == [[3.0], [3.0]]
print(compiled.__file__, sum(compiled.product.stats.cache_hits.values()), compiled.product.stats.cache_path)
"""


def archive(path: Path, change: str = "") -> Path:
    """The package as an archive, with something added to a module that `product` has nothing to do with."""
    with zipfile.ZipFile(path, "w") as target:
        for source in sorted((ROOT / "pipelines").rglob("*.py")):
            name = source.relative_to(ROOT).as_posix()
            target.writestr(name, source.read_text() + (change if name == OTHER else ""))
    return path


def run(package: Path, cache: Path) -> tuple[str, int, str]:
    """Where the package came from, whether its code did not have to be compiled, and where that is kept."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= {"PYTHONPATH": str(package), "XDG_CACHE_HOME": str(cache)}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=package.parent, env=environment, capture_output=True, text=True, check=True
    )
    origin, hits, kept = found.stdout.split()
    return origin, int(hits), kept


@pytest.fixture
def not_a_folder(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("")
    return path / "cache"


def test_an_archive_is_compiled_once_for_all_processes_and_places(tmp_path):
    # given the same package in two places, as two applications on a cluster have it
    one, other = archive(tmp_path / "one.zip"), archive(tmp_path / "other.zip")
    cache = tmp_path / "cache"
    assert run(one, cache)[:2] == (f"{one}/{KERNEL}", 0)
    # when another process takes it from the other place
    origin, hits, kept = run(other, cache)
    # then nothing is compiled
    assert (origin, hits) == (f"{other}/{KERNEL}", 1)
    assert kept.startswith(str(cache))
    # until any source of compiled functions changes: their code is compiled into their callers
    assert run(archive(tmp_path / "changed.zip", "\n# a change\n"), cache)[1] == 0


def test_where_the_user_has_no_place_it_is_kept_beside_the_archive(tmp_path, not_a_folder):
    package = archive(tmp_path / "package.zip")
    assert run(package, not_a_folder)[1] == 0
    _, hits, kept = run(package, not_a_folder)
    assert hits == 1
    assert kept.startswith(str(tmp_path))


def test_where_there_is_no_place_at_all_it_is_compiled_all_the_same(not_a_folder, monkeypatch):
    monkeypatch.setattr(compiled, "_folders", lambda *_: iter([not_a_folder]))

    @compiled.compiled
    def twice(value: float) -> float:
        return 2 * value

    assert twice(3.0) == 6.0
