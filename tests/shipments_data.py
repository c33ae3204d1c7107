"""Made delivery files whose truth is known: a slow supplier, a mode that turns bad, orders of several lines."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipelines.shipments.risk.columns import ColumnMapping

MAPPING = ColumnMapping(
    scheduled="promised_on",
    delivered="arrived_on",
    keys={"supplier": "haulier_client", "mode": "transport"},
    numbers={"weight": "kg"},
    milestones={"ordered": "booked_on"},
    order="purchase",
    identifier="consignment",
)
"""Of a company whose columns are called nothing like the public file's."""


def deliveries(count: int = 3000, seed: int = 1) -> pd.DataFrame:
    """Three years of deliveries in the columns of `MAPPING`; supplier `slow` is late half of the time, others 5 %."""
    chance = np.random.default_rng(seed)
    promised = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.sort(chance.integers(0, 1095, count)), "D")
    supplier = chance.choice(["slow", "good", "fine", "sound"], count)
    late = chance.random(count) < np.where(supplier == "slow", 0.5, 0.05)
    delay = np.where(late, chance.integers(2, 20, count), -chance.integers(0, 3, count))
    return pd.DataFrame(
        {
            "consignment": [f"c{number}" for number in range(count)],
            "purchase": [f"p{number // 3}" for number in range(count)],
            "promised_on": promised,
            "arrived_on": promised + pd.to_timedelta(delay, "D"),
            "booked_on": promised - pd.to_timedelta(chance.integers(20, 60, count), "D"),
            "haulier_client": supplier,
            "transport": chance.choice(["rail", "road"], count),
            "kg": np.where(chance.random(count) < 0.1, "weighed later", chance.integers(1, 500, count).astype(str)),
        }
    )
