"""On real demand: planned levels need clearly less stock than the usual rule for the same fill rate, and keep their
service. A small part of `python -m bench inventory`, which replays all series over half a year."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from pipelines.inventory.replay.candidates import Planned, UsualRule
from pipelines.inventory.replay.history import Rolling
from pipelines.inventory.replay.laboratory import Assumed, from_file, history_of, rolled
from pipelines.inventory.replay.results import replay, stock_at
from pipelines.inventory.service_correction import learn_correction
from pipelines.operations.settings import ForecastSettings

DAYS = 184
HALF = timedelta(days=92)
SERVICE = (0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
FILL_RATES = (0.97, 0.98, 0.99, 0.995)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """The quarter that the correction is learnt in, the quarter that it is tried in, and what they are bought on."""
    from tests.conftest import SHARED_DATA

    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data are not here: {SHARED_DATA}")
    rows = pd.read_parquet(SHARED_DATA / "store_item_daily.parquet")
    path = tmp_path_factory.mktemp("sales") / "few.parquet"
    rows[(rows["store"] <= 2) & (rows["item"] <= 20)].to_parquet(path)
    batch = from_file(path)
    supply = Assumed(lead_times=(6, 7, 8), pack_size=6).supply(len(batch))
    forecasts = rolled(batch, DAYS, Rolling(pool_days=10_000), ForecastSettings())
    parts = [
        history_of(batch.until(end), forecasts, supply, 92, np.random.default_rng(seed))
        if end < batch.end
        else history_of(batch, forecasts, supply, 92, np.random.default_rng(seed))
        for seed, end in enumerate((batch.end - HALF, batch.end))
    ]
    return parts, supply


@pytest.mark.timeout(300)
def test_less_stock_for_the_same_fill_rate_and_the_service_that_was_wanted(replayed):
    (learning, testing), supply = replayed
    plain = Planned("planned", "periodic_base_stock", paths=512, correlation=0.0)
    tried = replay(learning, [plain], supply.protection, supply.terms, SERVICE)
    names = ["all"] * len(learning.batch)
    correction = learn_correction(
        SERVICE,
        [outcome.totals["served_cycles"] for outcome in tried],
        [outcome.totals["cycles"] for outcome in tried],
        names,
    )
    corrected = Planned(
        "corrected", "periodic_base_stock", 512, 0.0, adjust=lambda wanted: correction.plan_with(wanted, names)
    )

    outcomes = replay(testing, [plain, corrected], supply.protection, supply.terms, SERVICE)
    far = (0.2, 0.4, *SERVICE, 1 - 1e-5, 1 - 1e-8)
    outcomes += replay(testing, [UsualRule("usual")], supply.protection, supply.terms, far)

    saved = 1 - stock_at(outcomes, "planned", FILL_RATES) / stock_at(outcomes, "usual", FILL_RATES)
    assert (saved > 0.08).all(), saved
    for wanted in (0.9, 0.95, 0.98):
        achieved = next(item for item in outcomes if item.name == "corrected" and item.service == wanted)
        assert achieved.cycle_service == pytest.approx(wanted, abs=0.015)
