"""MLflow, from the driver only: one run a training, nested runs for a few series, the model that serves them all."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from pipelines.contracts.tables import QUANTILE_COLUMNS, Table
from pipelines.forecasting.files import copy_package, sha256
from pipelines.forecasting.registry import AS_OF, FORECAST_VERSION, Registry
from pipelines.forecasting.series_file import write_series
from pipelines.forecasting.trained import SCORES, TRAINED_SERIES
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

log = logging.getLogger("stockcast.forecasting")

SERIES_FILE = "series.parquet"
SERIES_COLUMNS = (
    *("location_id", "sku", "category", "status", "model", "reason", "observations"),
    *SCORES,
    "parameters",
)
_LIBRARIES = ("prophet", "pyspark", "delta-spark", "numpy", "pandas", "scipy", "mlflow")
_SERVING = (
    *("mlflow", "prophet", "numpy", "pandas", "scipy", "pyarrow", "pydantic", "pyyaml", "threadpoolctl", "holidays"),
    *("numba", "statsforecast", "hierarchicalforecast"),
)
_EXPORT_ROWS = 1024


@dataclass(frozen=True)
class Delta:
    """A Delta table at one version, as MLflow's data sets name it; `digest` changes with every commit."""

    name: str
    uri: str
    version: int
    digest: str
    schema: str

    @classmethod
    def of(cls, tables: Tables, table: Table) -> Delta:
        """The table's newest version."""
        handle = tables.handle(table)
        version = handle.version()
        digest = hashlib.sha256(f"{handle.metadata().id}@{version}".encode()).hexdigest()[:32]
        columns = [{"name": field.name, "type": str(field.type)} for field in table.schema]
        return cls(table.name, tables.uri(table), version, digest, json.dumps(columns))


@dataclass(frozen=True)
class SeriesPage:
    """What a nested run shows of one series; `why` it was chosen."""

    location_id: str
    sku: str
    why: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    figures: Mapping[str, Figure]
    note: str = ""


@dataclass(frozen=True)
class Tracking:
    """An open run. Each method may raise whatever MLflow raises."""

    client: MlflowClient
    run_id: str
    experiment_id: str
    registry: Registry

    def log_results(self, metrics: Mapping[str, float], tags: Mapping[str, str], figures: Mapping[str, Figure]) -> None:
        """Metrics that are numbers, tags, and figures by file name."""
        self._log(self.run_id, metrics, tags, figures)

    def log_data(self, tables: Sequence[tuple[str, Delta]]) -> None:
        """Delta tables at their versions as the run's data sets, each with what it is to the training."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for context, table in tables:
            source = {"path": table.uri, "delta_table_version": table.version}
            named = Dataset(table.name, table.digest, "delta_table", json.dumps(source), table.schema)
            inputs.append(DatasetInput(named, [InputTag("mlflow.data.context", context)]))
        self.client.log_inputs(self.run_id, inputs)

    def log_series(self, page: SeriesPage) -> str:
        """A nested run for one series; returns its id."""
        from mlflow.entities import Param

        tags = {"mlflow.parentRunId": self.run_id, "why": page.why}
        if page.note:
            tags["mlflow.note.content"] = page.note
        run = self.client.create_run(self.experiment_id, run_name=f"{page.location_id} {page.sku}", tags=tags)
        params = {"location_id": page.location_id, "sku": page.sku, **page.params}
        self.client.log_batch(run.info.run_id, params=[Param(name, value) for name, value in params.items()])
        self._log(run.info.run_id, page.metrics, {}, page.figures)
        self.client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def register(self, tables: Tables, as_of: str, horizon: int, forecast_version: str = "") -> str:
        """Log the table of series with its parameters inside a pyfunc model, register that, and make it the
        challenger; returns the model's version. The table's SHA-256 is a tag of run and version."""
        with tempfile.TemporaryDirectory(prefix="stockcast-model-") as folder:
            series = Path(folder) / SERIES_FILE
            count = export_series(tables, series)
            digest = sha256(series)
            _save_model(Path(folder) / "model", series, digest, as_of, horizon)
            self.client.log_artifacts(self.run_id, str(Path(folder) / "model"), "model")
        trained = Delta.of(tables, TRAINED_SERIES)
        self.log_data([("results", trained)])
        digests = {"series_sha256": digest, "series_table": f"{trained.name}@{trained.version}", "series": str(count)}
        self._log(self.run_id, {}, digests, {})
        return self.registry.add(self.run_id, {**digests, AS_OF: as_of, FORECAST_VERSION: forecast_version})

    def tag(self, name: str, value: str) -> None:
        """Set one tag of the run."""
        self.client.set_tag(self.run_id, name, value)

    def finish(self, succeeded: bool) -> None:
        """Close the run."""
        self.client.set_terminated(self.run_id, "FINISHED" if succeeded else "FAILED")

    def _log(
        self, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str], figures: Mapping[str, Figure]
    ) -> None:
        from mlflow.entities import Metric, RunTag

        timestamp = self.client.get_run(run_id).info.start_time
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, value, timestamp, 0) for name, value in metrics.items() if math.isfinite(value)],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        for name, figure in figures.items():
            self.client.log_figure(run_id, figure, f"figures/{name}.png")


def connect(settings: Settings) -> MlflowClient:
    """A client of the tracking server of the settings, quiet and quick to give up."""
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

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    uri = tracking_uri(settings)
    return MlflowClient(uri, uri)


def start_run(settings: Settings, name: str, params: Mapping[str, Any]) -> Tracking:
    """Open a run, its experiment made where it does not exist; may raise whatever MLflow raises."""
    client = connect(settings)
    from mlflow.entities import Param

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
    return Tracking(client, run.info.run_id, experiment_id, registry(settings, client))


def registry(settings: Settings, client: MlflowClient) -> Registry:
    """The registered model of the settings."""
    return Registry(client, settings.mlflow.registered_model)


def tracking_uri(settings: Settings) -> str:
    """Where runs are tracked: as configured, else SQLite under `home`."""
    if settings.mlflow.tracking_uri is not None:
        return settings.mlflow.tracking_uri
    settings.home_path.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{settings.home_path / 'mlflow.db'}"


def export_series(tables: Tables, path: Path) -> int:
    """Copy the newest training's series with their parameters into one file, a batch at a time; their number."""
    schema = pa.schema([TRAINED_SERIES.schema.field(name) for name in SERIES_COLUMNS])
    dataset = tables.handle(TRAINED_SERIES).to_pyarrow_dataset()
    batches = dataset.to_batches(
        columns=list(SERIES_COLUMNS), batch_size=_EXPORT_ROWS, batch_readahead=2, fragment_readahead=1
    )
    return write_series(batches, schema, path)


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
        model_config={"sha256": digest, "as_of": as_of, "horizon": horizon},
        signature=signature,
        input_example=example,
        pip_requirements=[f"{library}=={version}" for library, version in _installed(_SERVING).items()],
    )


def _installed(libraries: Sequence[str]) -> dict[str, str]:
    found = {}
    for library in libraries:
        try:
            found[library] = library_version(library)
        except PackageNotFoundError:
            log.debug("%s is not installed: the served model does without", library)
    return found
