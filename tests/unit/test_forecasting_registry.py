"""Champion and challenger, on a real MLflow store in SQLite."""

from __future__ import annotations

import pytest

from pipelines.forecasting.tracking import CHAMPION, start_run


@pytest.fixture
def candidate(settings):
    """Register a model whose training had the given WAPE; returns its run and version."""

    def register(wape: float):
        run = start_run(settings, "night", {"as_of": "2024-03-29"})
        run.log_results({"wape": wape, "mase": float("nan")}, {}, {})
        name = settings.mlflow.registered_model
        if not run.client.search_registered_models(f"name = '{name}'"):
            run.client.create_registered_model(name)
        version = run.client.create_model_version(name, f"runs:/{run.run_id}/model", run.run_id).version
        return run, str(version)

    return register


def test_a_model_becomes_champion_only_if_it_is_no_worse_within_the_tolerance(candidate):
    def champion(run):
        return str(run.client.get_registered_model(run.registered_model).aliases[CHAMPION])

    # given no champion, the first becomes it
    run, first = candidate(0.20)
    assert run.promote(first, 0.20, tolerance=0.02)
    assert champion(run) == first
    # a worse one does not
    run, worse = candidate(0.21)
    assert not run.promote(worse, 0.21, tolerance=0.02)
    assert champion(run) == first
    # nor one that could not be scored
    assert not run.promote(worse, float("nan"), tolerance=0.02)
    # one that is worse within the tolerance does
    run, similar = candidate(0.203)
    assert run.promote(similar, 0.203, tolerance=0.02)
    assert champion(run) == similar
    # and numbers that are not finite were not logged
    assert "mase" not in run.client.get_run(run.run_id).data.metrics
