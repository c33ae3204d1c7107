"""Category profiles by kind of location: from the tables, for new series, and from no later night than may be known."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts.tables import NETWORK_CLUSTERS, QUANTILES
from pipelines.forecasting.category import category_profiles
from pipelines.forecasting.engines import EngineOptions, create
from pipelines.forecasting.frames import category_statistics
from pipelines.forecasting.series import from_matrix
from pipelines.network.kinds import location_kinds

END = date(2024, 3, 31)
BUSY, QUIET = ("b-1", "b-2", "b-3"), ("q-1", "q-2", "q-3", "q-4")
KINDS = {**dict.fromkeys(BUSY, 1), **dict.fromkeys(QUIET, 0)}


@pytest.fixture(scope="module")
def daily() -> pd.DataFrame:
    """Tea everywhere, forty a day in busy shops, most on Saturdays, and four in quiet ones; rice in one busy shop."""
    rows = []
    for place in KINDS:
        for back in range(56):
            day = END - timedelta(days=back)
            units = 4 if place in QUIET else 70 if day.weekday() == 5 else 35
            rows.append((place, "tea", day, units + back % 2))
    rows += [("b-1", "rice", END - timedelta(days=back), 9) for back in range(56)]
    return pd.DataFrame(rows, columns=["location_id", "sku", "date", "demand"]).assign(in_stock_fraction=1.0)


@pytest.fixture(scope="module")
def statistics(spark, daily):
    products = spark.createDataFrame([("tea", "drinks"), ("rice", "food")], "sku string, category string")
    first = END - timedelta(days=55)
    frame = spark.createDataFrame(daily)
    return lambda kinds: category_statistics(frame, products, first, kinds).toPandas()


def forecast(profiles, location_id, category):
    """A week of a series without any history."""
    batch = from_matrix(np.full((1, 9), np.nan), END, [(location_id, "new")])
    batch = type(batch)(**{**vars(batch), "category": (category,)})
    found = create("category_profile", EngineOptions(profiles=profiles)).fit_forecast(batch, 7, QUANTILES)
    return found.yhat[0]


def test_a_new_series_is_like_those_of_its_kind_of_location(statistics):
    found = category_profiles(statistics(KINDS), KINDS)
    # then in a busy shop it sells like tea in busy shops, with their Saturday; in a quiet one like tea in quiet ones
    busy, quiet = forecast(found, "b-2", "drinks"), forecast(found, "q-2", "drinks")
    assert busy.mean() == pytest.approx(40.5, rel=0.02)
    assert busy[5] / busy[0] == pytest.approx(2.0, rel=0.1)
    assert quiet.mean() == pytest.approx(4.5, rel=0.02)
    assert quiet.max() / quiet.min() < 1.1
    # and where its kind is not known, or hardly sells the category, like all that are
    everywhere = category_profiles(statistics({}))
    assert forecast(found, "new-1", "drinks") == pytest.approx(forecast(everywhere, "new-1", "drinks"))
    assert forecast(found, "b-2", "food") == pytest.approx(forecast(everywhere, "b-2", "food"))
    assert found.of_kind.keys() == {(0, "drinks"), (1, "drinks")}


def test_on_the_first_night_profiles_are_those_of_all_locations(statistics, tables):
    kinds = location_kinds(tables, END)
    assert kinds == {}
    rows = statistics(kinds)
    assert rows["kind"].isna().all()
    assert rows.set_index("category").series.to_dict() == {"drinks": 7, "food": 1}
    found = category_profiles(rows, kinds)
    assert found.of_kind == {}
    assert found["drinks"].level == pytest.approx(4.5)


def test_the_profiles_of_all_locations_do_not_depend_on_kinds(statistics):
    with_kinds, without = category_profiles(statistics(KINDS), KINDS), category_profiles(statistics(None))
    for category in ("drinks", "food"):
        one, other = with_kinds[category], without[category]
        assert (one.level, one.dispersion) == pytest.approx((other.level, other.dispersion))
        np.testing.assert_allclose(one.weekday, other.weekday)


def test_kinds_are_those_of_a_night_that_may_be_known(tables):
    common = {"silhouette": 0.6, "stability": 0.9, "as_of": END, "clustered_at": datetime(2024, 4, 1, tzinfo=UTC)}
    rows = [{"kind": "location", "member": name, "cluster": kind, "clusters": 2, **common}
            for name, kind in KINDS.items()]  # fmt: skip
    rows.append({"kind": "supplier", "member": "u-1", "cluster": 1, "clusters": 2, **common})
    tables.overwrite(NETWORK_CLUSTERS, pa.Table.from_pylist(rows, schema=NETWORK_CLUSTERS.schema))
    assert location_kinds(tables, END) == location_kinds(tables, END + timedelta(days=1)) == KINDS
    assert location_kinds(tables, END - timedelta(days=1)) == {}
    # where all are alike there is nothing to tell
    alike = [{**row, "cluster": 0, "clusters": 1} for row in rows]
    tables.overwrite(NETWORK_CLUSTERS, pa.Table.from_pylist(alike, schema=NETWORK_CLUSTERS.schema))
    assert location_kinds(tables, END) == {}
