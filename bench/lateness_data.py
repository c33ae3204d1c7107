"""The public delivery file, and what its columns are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipelines.shipments.risk.columns import ColumnMapping

FILE = "scms_deliveries.parquet"
MAPPING = ColumnMapping(
    scheduled="scheduled delivery date",
    delivered="delivered to client date",
    keys={
        "supplier": "vendor",
        "destination": "country",
        "mode": "shipment mode",
        "site": "manufacturing site",
        "product": "molecule/test type",
        "class": "sub classification",
        "term": "vendor inco term",
        "project": "project code",
    },
    numbers={
        "quantity": "line item quantity",
        "value": "line item value",
        "price": "pack price",
        "weight": "weight (kilograms)",
        "freight": "freight cost (usd)",
    },
    milestones={"quoted": "pq first sent to client date", "ordered": "po sent to vendor date"},
    order="po / so #",
    identifier="id",
    date_formats=("%d-%b-%y", "%m/%d/%Y", "%m/%d/%y"),
)
"""Left out: the delivered and recorded dates, which are known afterwards, and the number of the shipping notice, which
is given out when a shipment leaves and so tells when it left."""


def public_deliveries(folder: Path) -> pd.DataFrame:
    """Order lines of a public-health supply chain."""
    return pd.read_parquet(folder / FILE)
