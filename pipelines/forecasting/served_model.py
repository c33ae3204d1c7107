"""The registered model: forecasts of any trained series from its parameters. MLflow loads it from this file.

Nothing is unpickled: the artefact is a Parquet table of JSON parameters, refused where its SHA-256 is not the
one that was recorded with the model.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from pipelines.contracts.tables import QUANTILE_COLUMNS, QUANTILES
from pipelines.errors import PublishingError
from pipelines.forecasting.engines import EngineOptions, create
from pipelines.forecasting.files import sha256
from pipelines.forecasting.series import future_dates


class ForecastModel(PythonModel):
    """Rows of (location_id, sku, horizon) in; a row per day after the training's last one out."""

    def load_context(self, context: Any) -> None:
        """Open the table of parameters.

        Raises:
            PublishingError: the file is not the one that was logged.
        """
        path, expected = context.artifacts["series"], context.model_config["sha256"]
        found = sha256(path)
        if found != expected:
            raise PublishingError(
                f"the parameters of this model have SHA-256 {found}, expected {expected}: the file was changed "
                "or damaged; load another version, or train again"
            )
        table = pq.read_table(path, columns=["location_id", "sku", "model", "parameters"])
        keys = zip(table.column("location_id").to_pylist(), table.column("sku").to_pylist(), strict=True)
        self.rows = {key: row for row, key in enumerate(keys)}
        self.table = table
        self.end = date.fromisoformat(context.model_config["as_of"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Forecasts of the series asked for.

        Raises:
            KeyError: a series that was not trained; names it.
        """
        parts = [
            self._one(str(row["location_id"]), str(row["sku"]), int(row["horizon"]))
            for row in model_input.to_dict("records")
        ]
        return pd.concat(parts, ignore_index=True)

    def _one(self, location_id: str, sku: str, horizon: int) -> pd.DataFrame:
        if (location_id, sku) not in self.rows:
            raise KeyError(f"{location_id}|{sku} is not among the {len(self.rows)} series of this model")
        row = self.rows[location_id, sku]
        engine = create(self.table.column("model")[row].as_py(), EngineOptions())
        yhat, quantiles = engine.replay(self.table.column("parameters")[row].as_py(), horizon, QUANTILES)
        frame = pd.DataFrame(quantiles, columns=list(QUANTILE_COLUMNS))
        frame.insert(0, "yhat", yhat)
        frame.insert(0, "target_date", [day.isoformat() for day in future_dates(self.end, horizon)])
        frame.insert(0, "sku", sku)
        frame.insert(0, "location_id", location_id)
        return frame


set_model(ForecastModel())
