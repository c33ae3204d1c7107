from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from pipelines.forecasting.engines import EngineOptions, create
from pipelines.forecasting.reconciliation import hierarchy, mint_shrink, reconciling_factors

CELLS = [("europe", "tea"), ("europe", "bread"), ("asia", "tea"), ("asia", "bread")]
AS_OF = date(2024, 3, 31)


class TestMint:
    def given(self, seed: int = 1):
        tree = hierarchy(CELLS)
        rng = np.random.default_rng(seed)
        truth = rng.uniform(5, 50, (len(CELLS), 1)) * np.ones((1, 6))
        scale = np.r_[2.0, np.full(4, 1.5), np.full(4, 6.0)][:, None]
        base = tree.summing @ truth + scale * rng.normal(size=(9, 6))
        return tree, truth, base, scale * rng.normal(size=(9, 60))

    def test_the_hierarchy_has_chain_regions_categories_and_cells(self):
        tree = hierarchy(CELLS)
        assert tree.upper == ("global", "region asia", "region europe", "category bread", "category tea")
        np.testing.assert_array_equal(tree.summing[0], [1, 1, 1, 1])
        np.testing.assert_array_equal(tree.summing[-4:], np.eye(4))
        assert tree.summing[1:].sum() == 4 + 4 + 4

    def test_forecasts_are_coherent_and_not_negative(self):
        tree, _, base, residuals = self.given()
        base[-1] = -5.0
        found = mint_shrink(tree.summing, base, residuals)
        np.testing.assert_allclose(found, tree.summing @ found[-4:], rtol=0, atol=1e-9)
        assert found.min() >= 0

    def test_coherent_forecasts_stay_as_they_are(self):
        tree, truth, _, residuals = self.given()
        found = mint_shrink(tree.summing, tree.summing @ truth, residuals)
        np.testing.assert_allclose(found, tree.summing @ truth, rtol=1e-6)

    def test_precise_totals_make_imprecise_cells_better(self):
        better = []
        for seed in range(10):
            tree, truth, base, residuals = self.given(seed)
            found = mint_shrink(tree.summing, base, residuals)[-4:]
            better.append(np.abs(found - truth).mean() / np.abs(base[-4:] - truth).mean())
        assert np.mean(better) < 0.9


class TestFactors:
    def frames(self, factor: float):
        """Cells whose series' forecasts are `factor` times what their weekly pattern says, with noisy backtests."""
        rng = np.random.default_rng(3)
        days = pd.date_range("2023-06-01", "2024-04-28")
        level = dict(zip(CELLS, (20.0, 40.0, 60.0, 80.0), strict=True))
        rows = []
        for (region, category), mean in level.items():
            units = mean * (1 + 0.3 * np.sin(2 * np.pi * days.dayofweek / 7)) + rng.normal(0, 0.5, len(days))
            rows.append(pd.DataFrame({"date": days, "region": region, "category": category, "demand": units}))
        demand = pd.concat(rows, ignore_index=True)
        past, future = demand[demand["date"] <= "2024-03-31"], demand[demand["date"] > "2024-03-31"]
        cells = future.assign(yhat=factor * future["demand"]).drop(columns="demand")
        tested = past[past["date"] > "2024-03-03"]
        errors = tested.assign(errors=tested["demand"] * rng.normal(0, 0.3, len(tested))).drop(columns="demand")
        return cells, errors, past

    @pytest.mark.parametrize("factor", [0.8, 1.25])
    def test_cells_move_towards_what_their_totals_say(self, factor):
        cells, errors, past = self.frames(factor)
        found = reconciling_factors(cells, errors, past, create("seasonal_naive", EngineOptions()), AS_OF)
        assert len(found) == len(cells)
        assert (found.groupby(["region", "category"])["factor"].count() == 28).all()
        assert found["factor"].mean() == pytest.approx(1 / factor, abs=0.08)

    def test_cells_that_agree_with_their_totals_stay(self):
        cells, errors, past = self.frames(1.0)
        found = reconciling_factors(cells, errors, past, create("seasonal_naive", EngineOptions()), AS_OF)
        np.testing.assert_allclose(found["factor"], 1, atol=0.05)
