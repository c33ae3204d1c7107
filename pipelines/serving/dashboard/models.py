"""Champion and challenger, as MLflow's registry has them. Its library takes seconds to load, so it is asked late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings

SHOWN = 8


@dataclass(frozen=True)
class ModelVersions:
    """The newest versions as documents; `link` leads to the run of one, `command` starts MLflow's pages."""

    rows: list[dict[str, Any]]
    command: str


def model_versions(tables: Tables, settings: Settings) -> ModelVersions:
    """Ask the registry.

    Raises:
        StockcastError: MLflow does not answer.
    """
    from pipelines.forecasting.tracking import connect, tracking_uri
    from pipelines.operations.cli.models import described

    rows = described(settings, tables, SHOWN)
    client = connect(settings)
    for row in rows:
        run = row["run_id"]
        row["link"] = None
        if run and settings.dashboard.mlflow_url:
            experiment = client.get_run(run).info.experiment_id
            row["link"] = f"{settings.dashboard.mlflow_url.rstrip('/')}/#/experiments/{experiment}/runs/{run}"
    return ModelVersions(rows, f"mlflow ui --backend-store-uri {tracking_uri(settings)}")
