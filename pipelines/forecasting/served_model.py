"""The registered model: forecasts of any trained series from its parameters. MLflow loads it from this file.

Nothing is unpickled: the artefact is a Parquet table of JSON parameters, refused where its SHA-256 is not the
one that was recorded with the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from pipelines.contracts.tables import QUANTILE_COLUMNS, QUANTILES
from pipelines.forecasting.replaying import replay_many, replayer
from pipelines.forecasting.series import Floats, Integers, future_dates
from pipelines.forecasting.series_file import SeriesFile

CHUNK = 2048
"""Series whose parameters are held at a time."""


class ForecastModel(PythonModel):
    """Rows of (location_id, sku, horizon) in; a row per day after the training's last one out."""

    def load_context(self, context: Any) -> None:
        """Open the table of parameters.

        Raises:
            PublishingError: the file is not the one that was logged.
        """
        self.series = SeriesFile(context.artifacts["series"], context.model_config["sha256"])
        self.end = date.fromisoformat(context.model_config["as_of"])
        self._warm_up(int(context.model_config["horizon"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Forecasts of the series asked for, in their order.

        Raises:
            KeyError: a series that was not trained; names it.
        """
        location_id, sku = (model_input[name].to_numpy(object) for name in ("location_id", "sku"))
        horizon = model_input["horizon"].to_numpy(np.int64)
        rows = self.series.find(location_id.tolist(), sku.tolist())
        first = np.concatenate([[0], np.cumsum(horizon)])
        yhat, quantiles = np.empty(first[-1]), np.empty((first[-1], len(QUANTILES)))
        for asked, steps, values, spread in self._replayed(rows, horizon):
            cells = first[asked][:, None] + np.arange(steps)
            yhat[cells], quantiles[cells] = values, spread
        step = np.arange(first[-1]) - np.repeat(first[:-1], horizon)
        days = np.array([day.isoformat() for day in future_dates(self.end, int(horizon.max(initial=0)))], object)
        return pd.DataFrame(
            {
                "location_id": np.repeat(location_id, horizon),
                "sku": np.repeat(sku, horizon),
                "target_date": days[step],
                "yhat": yhat,
                **dict(zip(QUANTILE_COLUMNS, quantiles.T, strict=True)),
            }
        )

    def _warm_up(self, horizon: int) -> None:
        """Replay one series of each engine: the first one asked for should not wait for imports, compilation and
        tables."""
        for name, parameters in self.series.one_of_each_model():
            replay_many(replayer(name), [parameters], horizon, QUANTILES)

    def _replayed(self, rows: Integers, horizon: Integers) -> Iterator[tuple[Integers, int, Floats, Floats]]:
        """Which of the asked series, their horizon, yhat and quantiles: grouped by engine and horizon."""
        by_place = np.argsort(rows, kind="stable")
        for start in range(0, len(rows), CHUNK):
            asked = by_place[start : start + CHUNK]
            read = self.series.read(rows[asked], ["model", "parameters"])
            model = np.array(read.column("model").to_pylist(), object)
            parameters = np.array(read.column("parameters").to_pylist(), object)
            if (parameters == "{}").any():
                raise KeyError("a series is asked for that could not be forecast: its status in the training is failed")
            for name, steps in sorted(set(zip(model, horizon[asked].tolist(), strict=True))):
                chosen = (model == name) & (horizon[asked] == steps)
                yield asked[chosen], steps, *replay_many(replayer(name), parameters[chosen].tolist(), steps, QUANTILES)


set_model(ForecastModel())
