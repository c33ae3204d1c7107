"""Every job: --help, exit codes, and errors that a person can act on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import OwnershipError
from pipelines.io.ownership import ownership

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "jobs").glob("*.py"))
STREAMING = {"ingest_events", "restock", "relay_orders", "send_orders", "aggregate_totals", "track_shipments", "live"}
STREAMING |= {"watch_anomalies"}
NIGHTLY = {"cluster_network", "train_shipment_risk", "aggregate_demand", "train_forecasts", "plan_inventory", "nightly"}


def main_of(path):
    spec = importlib.util.spec_from_file_location(f"job_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_help_names_the_common_options(path, capsys):
    with pytest.raises(SystemExit) as ended:
        main_of(path)(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--config" in shown
    assert "--set" in shown
    assert ("--once" in shown) == (path.stem in STREAMING)
    assert ("--as-of" in shown) == (path.stem in NIGHTLY)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_wrong_setting_ends_with_2_before_anything_starts(path, capsys):
    source = ["--source", "nowhere"] if path.stem == "load_catalog" else []
    assert main_of(path)([*source, "--set", "kafka.bootstrap=x"]) == 2
    assert "unknown key kafka.bootstrap" in capsys.readouterr().err


def test_an_unknown_option_ends_with_2():
    with pytest.raises(SystemExit) as ended:
        main_of(ROOT / "jobs" / "nightly.py")(["--frobnicate"])
    assert ended.value.code == 2


def test_a_date_that_is_none_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main_of(ROOT / "jobs" / "nightly.py")(["--as-of", "yesterday"])
    assert ended.value.code == 2
    assert "YYYY-MM-DD" in capsys.readouterr().err


def test_every_job_is_known_to_these_tests():
    assert {path.stem for path in JOBS} == STREAMING | NIGHTLY | {
        "load_catalog",
        "refresh_forecasts",
        "maintain_tables",
        "learn_policies",
    }


def test_a_second_owner_refuses_to_start_and_names_the_first(settings):
    # given another process that owns the tables
    holder = (
        "import sys, time\n"
        "from pipelines.io.ownership import ownership\n"
        "from pipelines.operations.settings import load_settings\n"
        f"with ownership(load_settings(overrides=['home={settings.home}']), 'restock'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout.readline().strip() == "held"
        # when this one wants them too
        with pytest.raises(OwnershipError) as caught, ownership(settings, "restock", "ingest_events"):
            pass
        # then it is told who has them, and holds nothing itself
        assert str(process.pid) in str(caught.value)
        with ownership(settings, "ingest_events"):
            pass
    finally:
        process.kill()
        process.wait()
    # and when the owner was killed, nothing stale is left
    with ownership(settings, "restock"):
        pass
