"""The kinds of locations that the last night found, for whoever plans by them."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import NETWORK_CLUSTERS
from pipelines.io.delta import Tables

LOCATION = "location"


def location_kinds(tables: Tables, as_of: date) -> dict[str, int]:
    """The cluster of each location, from no later data than `as_of`; none on the first night, and where all are alike.

    The table holds the newest clusters alone, so of an earlier day, as a backtest's cutoff, nothing is known.
    """
    known = pc.field("as_of") <= pa.scalar(as_of, pa.date32())
    several = pc.field("clusters") > 1
    rows = tables.read(NETWORK_CLUSTERS, ("member", "cluster"), (pc.field("kind") == LOCATION) & known & several)
    return dict(zip(rows["member"].to_pylist(), rows["cluster"].to_pylist(), strict=True))
