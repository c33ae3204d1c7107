"""On the public delivery file: above a supplier-rate table and a plain boosting, over the mean of several origins. A
part of `python -m bench lateness`, which has one origin more and the frozen form."""

from __future__ import annotations

from datetime import date

import pytest

from bench.lateness_data import MAPPING, public_deliveries
from pipelines.shipments.risk.evaluation import FOLLOWED, PLAIN, RATES, Origin, baselines, judged, mean_scores
from pipelines.shipments.risk.training import Learning

ORIGINS = [Origin(date(year, 12, 31), date(min(year + 2, 2013), 12, 31)) for year in (2010, 2011, 2012)]
QUICK = Learning(seeds=1, slices=0)


@pytest.mark.timeout(300)
def test_better_than_both_baselines_over_the_mean_of_origins(shared_data):
    frame = public_deliveries(shared_data)
    found = [one for origin in ORIGINS for one in baselines(frame, MAPPING, origin)]
    found += [one for origin in ORIGINS for one in judged(frame, MAPPING, origin, QUICK, [FOLLOWED])]
    means = mean_scores(found)
    ours = means[f"{QUICK.model}, {FOLLOWED}"]
    for baseline in (RATES, PLAIN):
        assert ours["pr_auc"] > means[baseline]["pr_auc"] + 0.1
        assert ours["roc_auc"] > means[baseline]["roc_auc"] + 0.05
        assert ours["brier"] < 0.95 * means[baseline]["brier"]
