"""Versions and aliases, on a real MLflow store in SQLite."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from pipelines.errors import UsageError
from pipelines.forecasting.registry import AS_OF, COMPLETE, FORECAST_VERSION
from pipelines.forecasting.tracking import start_run

NOW = datetime(2024, 3, 30, 2, 0, tzinfo=UTC)


@pytest.fixture
def night(settings):
    """Register a model of a training that made the given forecast version."""

    def register(forecast_version: str, wape: float):
        run = start_run(settings, forecast_version, {"as_of": "2024-03-29"})
        run.log_results({"wape": wape, "mase": float("nan")}, {}, {})
        tags = {AS_OF: "2024-03-29", FORECAST_VERSION: forecast_version, COMPLETE: "yes"}
        return run, run.registry.add(run.run_id, tags)

    return register


def test_a_new_version_is_challenger_and_the_alias_champion_moves_both_ways(night):
    # given two nights
    run, first = night("f-1", 0.20)
    registry = run.registry
    assert registry.champion() is None
    registry.make_champion(first, NOW)
    run, second = night("f-2", 0.19)
    # then the newest is challenger, the first still champion
    newest, oldest = registry.versions()
    assert (newest.version, newest.aliases, newest.promoted_at) == (second, ("challenger",), None)
    assert (oldest.version, oldest.aliases) == (first, ("champion",))
    assert newest.evidence.wape == pytest.approx(0.19)
    assert (newest.forecast_version, newest.as_of, newest.complete) == ("f-2", date(2024, 3, 29), True)
    # when it is promoted, and rolled back
    registry.make_champion(second, NOW)
    assert registry.champion().version == second
    registry.make_champion(first, NOW)
    assert registry.champion().version == first
    # and a number that is not finite was not logged
    assert "mase" not in run.client.get_run(run.run_id).data.metrics


def test_a_version_is_found_by_number_alias_and_forecast_version_or_refused_by_name(night):
    run, first = night("f-1", 0.20)
    assert {run.registry.version(name).version for name in (first, "challenger", "f-1")} == {first}
    with pytest.raises(UsageError, match="no version f-9"):
        run.registry.version("f-9")


def test_a_registry_without_any_model_is_empty(settings):
    run = start_run(settings, "night", {})
    assert run.registry.versions() == []
    assert run.registry.champion() is None
