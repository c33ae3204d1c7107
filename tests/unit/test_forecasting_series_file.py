"""The file of a model's series: any of them found, none missed, a damaged one refused."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts.tables import QUANTILE_COLUMNS, QUANTILES
from pipelines.errors import PublishingError
from pipelines.forecasting.engines import EngineOptions, create
from pipelines.forecasting.files import sha256
from pipelines.forecasting.replaying import replay_many
from pipelines.forecasting.series import from_matrix
from pipelines.forecasting.series_file import ROWS_PER_GROUP, SeriesFile, write_series
from pipelines.forecasting.served_model import ForecastModel

SCHEMA = pa.schema([(name, pa.string()) for name in ("location_id", "sku", "model", "parameters")])
COUNT = 5 * ROWS_PER_GROUP + 7


def rows(count: int = COUNT) -> pa.Table:
    """Series in no particular order, some ids beginning alike."""
    order = np.random.default_rng(3).permutation(count)
    return pa.table(
        {
            "location_id": [f"s{row % 11}" for row in order],
            "sku": [f"{row}" for row in order],
            "model": ["none"] * count,
            "parameters": [json.dumps({"row": int(row)}) for row in order],
        },
        schema=SCHEMA,
    )


@pytest.fixture
def path(tmp_path):
    """A file written from batches of odd sizes."""
    path = tmp_path / "series.parquet"
    assert write_series(iter(rows().to_batches(max_chunksize=37)), SCHEMA, path) == COUNT
    return path


def test_every_series_is_found_by_itself_and_together(path):
    file = SeriesFile(path, sha256(path))
    assert len(file) == COUNT
    for row in range(COUNT):
        assert json.loads(file.parameters(f"s{row % 11}", str(row))) == {"row": row}
    wanted = list(range(COUNT - 1, -1, -3))
    found = file.find([f"s{row % 11}" for row in wanted], [str(row) for row in wanted])
    read = file.read(found, ["sku", "parameters"])
    assert read.column("sku").to_pylist() == [str(row) for row in wanted]


@pytest.mark.parametrize("others", [0, 50], ids=["one by one", "many at once"])
def test_a_series_that_is_not_there_is_named(path, others):
    file = SeriesFile(path)
    known = [f"s{row % 11}" for row in range(others)], [str(row) for row in range(others)]
    with pytest.raises(KeyError, match=r"s1\|nothing is not among the 327 series"):
        file.find([*known[0], "s1"], [*known[1], "nothing"])
    # an id that only begins like a known one, and ids beyond the first and the last
    for location_id, sku in (("s1", "10"), ("", ""), ("zz", "1")):
        with pytest.raises(KeyError):
            file.find([location_id], [sku])


def test_a_changed_file_is_refused(path):
    digest = sha256(path)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(PublishingError, match=f"expected {digest}"):
        SeriesFile(path, digest)


def test_an_empty_file_opens(tmp_path):
    path = tmp_path / "series.parquet"
    write_series(iter(()), SCHEMA, path)
    assert len(SeriesFile(path)) == 0


# The model that serves it -----------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    """Two engines' forecasts of the same series, half of the file each, and the model that serves them."""
    batch = from_matrix(
        np.random.default_rng(5).poisson(9, (40, 70)).astype(float),
        pd.Timestamp("2024-03-29").date(),
        [("berlin", f"tea-{row:02d}") for row in range(40)],
    )
    names = ["seasonal_naive" if row % 2 else "category_profile" for row in range(40)]
    made = {name: create(name, EngineOptions()).fit_forecast(batch, 28, QUANTILES) for name in set(names)}
    table = pa.table(
        {
            "location_id": batch.location_id,
            "sku": batch.sku,
            "model": names,
            "parameters": [made[name].parameters[row] for row, name in enumerate(names)],
        },
        schema=SCHEMA,
    )
    path = tmp_path / "series.parquet"
    write_series(iter(table.to_batches()), SCHEMA, path)
    model = ForecastModel()
    config = {"sha256": sha256(path), "as_of": batch.end.isoformat(), "horizon": 28}
    model.load_context(SimpleNamespace(artifacts={"series": str(path)}, model_config=config))
    return batch, names, made, model


def test_any_mix_of_series_engines_and_horizons_is_answered_in_its_order(trained):
    batch, names, made, model = trained
    asked, horizons = [7, 2, 39, 2, 0], [3, 14, 1, 28, 14]
    question = pd.DataFrame({"location_id": "berlin", "sku": [batch.sku[row] for row in asked], "horizon": horizons})
    answer = model.predict(None, question)
    assert len(answer) == sum(horizons)
    place = 0
    for row, horizon in zip(asked, horizons, strict=True):
        part = answer.iloc[place : place + horizon]
        assert set(part["sku"]) == {batch.sku[row]}
        days = [(batch.end + timedelta(days=step + 1)).isoformat() for step in range(horizon)]
        assert part["target_date"].tolist() == days
        np.testing.assert_allclose(part["yhat"], made[names[row]].yhat[row, :horizon])
        np.testing.assert_allclose(part[list(QUANTILE_COLUMNS)], made[names[row]].quantiles[row, :horizon])
        place += horizon


def test_nothing_asked_is_nothing_answered(trained):
    question = pd.DataFrame({"location_id": [], "sku": [], "horizon": np.array([], np.int64)})
    assert len(trained[3].predict(None, question)) == 0


def test_an_engine_that_replays_many_at_once_is_asked_once():
    class Fast:
        name = "fast"
        calls = 0

        def replay_many(self, parameters, horizon, probabilities):
            self.calls += 1
            return np.zeros((len(parameters), horizon)), np.zeros((len(parameters), horizon, len(probabilities)))

        def replay(self, parameters, horizon, probabilities):
            raise AssertionError("one by one")

    engine = Fast()
    yhat, quantiles = replay_many(engine, ["{}"] * 9, 4, QUANTILES)
    assert (yhat.shape, quantiles.shape, engine.calls) == ((9, 4), (9, 4, 7), 1)
