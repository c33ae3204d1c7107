"""MLflow, from the driver only: one run a training, the registered model, champion and challenger."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.contracts.tables import QUANTILE_COLUMNS
from pipelines.forecasting.files import copy_package, export
from pipelines.forecasting.trained import SCORES, TRAINED_SERIES
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

log = logging.getLogger("stockcast.forecasting")

CHAMPION, CHALLENGER = "champion", "challenger"
SERIES_FILE = "series.parquet"
SERIES_COLUMNS = (
    *("location_id", "sku", "category", "status", "model", "reason", "observations"),
    *SCORES,
    "parameters",
)
_LIBRARIES = ("prophet", "pyspark", "delta-spark", "numpy", "pandas", "scipy", "mlflow")
_SERVING = ("mlflow", "prophet", "numpy", "pandas", "scipy", "pyarrow", "pydantic", "pyyaml")


@dataclass(frozen=True)
class Tracking:
    """An open run. Each method may raise whatever MLflow raises."""

    client: MlflowClient
    run_id: str
    registered_model: str

    def log_results(self, metrics: Mapping[str, float], tags: Mapping[str, str], figures: Mapping[str, Figure]) -> None:
        """Metrics that are numbers, tags, and figures by file name."""
        from mlflow.entities import Metric, RunTag

        run = self.client.get_run(self.run_id)
        timestamp = run.info.start_time
        self.client.log_batch(
            self.run_id,
            metrics=[Metric(name, value, timestamp, 0) for name, value in metrics.items() if math.isfinite(value)],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        for name, figure in figures.items():
            self.client.log_figure(self.run_id, figure, f"figures/{name}.png")

    def register(self, tables: Tables, as_of: str, horizon: int) -> str:
        """Log the table of series with its parameters inside a pyfunc model, register that, and make it the
        challenger; returns the model's version. The table's SHA-256 is a tag of run and version."""
        with tempfile.TemporaryDirectory(prefix="stockcast-model-") as folder:
            series = Path(folder) / SERIES_FILE
            digest = export(tables, TRAINED_SERIES, SERIES_COLUMNS, series)
            _save_model(Path(folder) / "model", series, digest, as_of, horizon)
            self.client.log_artifacts(self.run_id, str(Path(folder) / "model"), "model")
        self.client.set_tag(self.run_id, "series_sha256", digest)
        if not self.client.search_registered_models(f"name = '{self.registered_model}'"):
            self.client.create_registered_model(self.registered_model)
        created = self.client.create_model_version(
            self.registered_model,
            source=f"runs:/{self.run_id}/model",
            run_id=self.run_id,
            tags={"series_sha256": digest, "as_of": as_of},
        )
        self.client.set_registered_model_alias(self.registered_model, CHALLENGER, created.version)
        return str(created.version)

    def promote(self, version: str, wape: float, tolerance: float) -> bool:
        """Make the version champion if its WAPE is at most the champion's times 1 + tolerance, or there is none.

        Both WAPEs are of each training's own backtest, the last horizon before its last day.
        """
        champion = self.client.get_registered_model(self.registered_model).aliases.get(CHAMPION)
        if champion is not None:
            run = self.client.get_model_version(self.registered_model, champion).run_id
            in_force = None if run is None else self.client.get_run(run).data.metrics.get("wape")
            if in_force is not None and not wape <= in_force * (1 + tolerance):
                log.warning(
                    "model version %s stays challenger: WAPE %.4f, the champion's (version %s) %.4f",
                    *(version, wape, champion, in_force),
                )
                return False
        self.client.set_registered_model_alias(self.registered_model, CHAMPION, version)
        return True

    def tag(self, name: str, value: str) -> None:
        """Set one tag of the run."""
        self.client.set_tag(self.run_id, name, value)

    def finish(self, succeeded: bool) -> None:
        """Close the run."""
        self.client.set_terminated(self.run_id, "FINISHED" if succeeded else "FAILED")


def start_run(settings: Settings, name: str, params: Mapping[str, Any]) -> Tracking:
    """Open a run, its experiment made where it does not exist; may raise whatever MLflow raises."""
    for variable, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # A server that is away must not hold up the forecasts for minutes.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    }.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient
    from mlflow.entities import Param

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    uri = tracking_uri(settings)
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(settings.mlflow.experiment)
    if experiment is None:
        local = settings.mlflow.tracking_uri is None
        location = (settings.home_path / "mlartifacts").as_uri() if local else None
        experiment_id = client.create_experiment(settings.mlflow.experiment, artifact_location=location)
    else:
        experiment_id = experiment.experiment_id
    run = client.create_run(experiment_id, run_name=name)
    values = {**params, **{f"version.{library}": library_version(library) for library in _LIBRARIES}}
    client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in values.items()])
    return Tracking(client, run.info.run_id, settings.mlflow.registered_model)


def tracking_uri(settings: Settings) -> str:
    """Where runs are tracked: as configured, else SQLite under `home`."""
    if settings.mlflow.tracking_uri is not None:
        return settings.mlflow.tracking_uri
    settings.home_path.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{settings.home_path / 'mlflow.db'}"


def _save_model(folder: Path, series: Path, digest: str, as_of: str, horizon: int) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    code = copy_package("pipelines", folder.with_name("code"))
    first = pd.read_parquet(series, columns=["location_id", "sku"]).head(1)
    example = first.assign(horizon=horizon)
    text = ("location_id", "sku", "target_date")
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "location_id"), ColSpec("string", "sku"), ColSpec("long", "horizon")]),
        outputs=Schema(
            [
                *(ColSpec("string", name) for name in text),
                *(ColSpec("double", name) for name in ("yhat", *QUANTILE_COLUMNS)),
            ]
        ),
    )
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=str(code / "forecasting" / "served_model.py"),
        artifacts={"series": str(series)},
        code_paths=[str(code)],
        model_config={"sha256": digest, "as_of": as_of},
        signature=signature,
        input_example=example,
        pip_requirements=[f"{library}=={library_version(library)}" for library in _SERVING],
    )
