"""The nightly look at the network: `gold/lead_times` and `gold/network_clusters`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import (
    DAILY_DEMAND,
    LEAD_TIMES,
    LOCATIONS,
    NETWORK_CLUSTERS,
    ORDERS,
    PRODUCTS,
    SHIPMENTS,
    SOURCING,
    SUPPLIERS,
)
from pipelines.errors import MissingDataError
from pipelines.inventory.lead_times import LeadTimeRecords, Stated, lead_time_points
from pipelines.inventory.planning_inputs import lead_time_records
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.network.clusters import Clustering, Labels, cluster, keep_labels
from pipelines.network.kinds import LOCATION
from pipelines.network.profiles import (
    LOCATION_FEATURES,
    SUPPLIER_FEATURES,
    coordinates,
    location_profiles,
    supplier_profiles,
)
from pipelines.network.words import Feature, describe
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.network")

SUPPLIER = "supplier"
LOOK_BACK_DAYS = 365


@dataclass(frozen=True)
class NetworkReport:
    """What was found: the clusters of each kind of member, in words, with their sizes."""

    as_of: date
    lanes: int
    suppliers: Mapping[str, int]
    locations: Mapping[str, int]

    def __str__(self) -> str:
        parts = [
            f"{sum(found.values())} {what} of {len(found)} kinds: "
            + ", ".join(f"{count} × {line}" for line, count in found.items())
            for what, found in (("suppliers", self.suppliers), ("locations", self.locations))
            if found
        ]
        return f"as of {self.as_of}: {self.lanes} lanes; " + "; ".join(parts)


def cluster_network(settings: Settings, tables: Tables, as_of: date | None, now: datetime) -> NetworkReport:
    """Bring both tables up to the end of `as_of` (None: the newest day in `gold/daily_demand`).

    Raises:
        MissingDataError: there is no catalog.
        OwnershipError: another process is at it.
    """
    with ownership(settings, NETWORK_CLUSTERS.owner):
        if tables.read(SUPPLIERS, ("supplier_id",)).num_rows == 0:
            raise MissingDataError("the catalog has no suppliers; load one first (jobs/load_catalog.py)")
        as_of = as_of or tables.largest(DAILY_DEMAND, "date") or now.date()
        records = lead_time_records(tables, as_of)
        lanes = lead_times(tables.read(SOURCING).to_pandas(), records, as_of, now)
        tables.overwrite(LEAD_TIMES, lanes)
        before = tables.read(NETWORK_CLUSTERS).to_pandas()
        suppliers, locations = _suppliers(tables, records), _locations(tables, as_of)
        found = [
            _rows(SUPPLIER, suppliers.rename(columns={"supplier_id": "member"}), SUPPLIER_FEATURES, before),
            _rows(LOCATION, locations.rename(columns={"location_id": "member"}), LOCATION_FEATURES, before),
        ]
        rows = pd.concat(found, ignore_index=True).assign(as_of=as_of, clustered_at=now)
        schema = NETWORK_CLUSTERS.schema
        tables.overwrite(
            NETWORK_CLUSTERS, pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
        )
    report = NetworkReport(as_of, lanes.num_rows, *(_sizes(part) for part in found))
    log.info("%s", report)
    return report


def lead_times(sourcing: pd.DataFrame, records: LeadTimeRecords, as_of: date, now: datetime) -> pa.Table:
    """`gold/lead_times`: a row a lane that is sourced, observed lead times drawn towards the supplier's and the stated.

    Args:
        sourcing: supplier_id, location_id, lead_time_days, lead_time_std_days.
    """
    lanes = sourcing.groupby(["supplier_id", "location_id"], as_index=False)[
        ["lead_time_days", "lead_time_std_days"]
    ].mean()
    stated = Stated(
        lanes.supplier_id.to_numpy(object),
        lanes.location_id.to_numpy(object),
        lanes.lead_time_days.to_numpy(float),
        lanes.lead_time_std_days.to_numpy(float),
    )
    points = lead_time_points(records, stated)
    seen = pd.DataFrame({"supplier_id": records.supplier, "location_id": records.location, "arrived": records.arrived})
    counts = seen.groupby(["supplier_id", "location_id"]).arrived.agg(["size", "sum"])
    index = pd.MultiIndex.from_frame(lanes[["supplier_id", "location_id"]])
    counts = counts.reindex(index).fillna(0).astype("int64")
    low, middle, high = np.percentile(points, [10, 50, 90], axis=1)
    columns = {
        "supplier_id": lanes.supplier_id,
        "location_id": lanes.location_id,
        "orders": counts["size"].to_numpy(),
        "arrived": counts["sum"].to_numpy(),
        "mean_days": points.mean(axis=1),
        "std_days": points.std(axis=1),
        "q10_days": low,
        "q50_days": middle,
        "q90_days": high,
        "stated_days": lanes.lead_time_days,
        "stated_std_days": lanes.lead_time_std_days,
    }
    frame = pd.DataFrame(columns).assign(as_of=as_of, observed_at=now)
    return pa.Table.from_pandas(frame[LEAD_TIMES.schema.names], schema=LEAD_TIMES.schema, preserve_index=False)


def _suppliers(tables: Tables, records: LeadTimeRecords) -> pd.DataFrame:
    suppliers, sourcing, products = (tables.read(table).to_pandas() for table in (SUPPLIERS, SOURCING, PRODUCTS))
    orders = tables.read(ORDERS, ("supplier_id", "state", "quantity", "received")).to_pandas()
    shipments = tables.read(SHIPMENTS, ("supplier_id", "promised", "delivered")).to_pandas()
    return supplier_profiles(suppliers, sourcing, products, records, orders, shipments)


def _locations(tables: Tables, as_of: date) -> pd.DataFrame:
    recent = pc.field("date") > pa.scalar(as_of - timedelta(days=LOOK_BACK_DAYS), pa.date32())
    until = pc.field("date") <= pa.scalar(as_of, pa.date32())
    daily = tables.read(DAILY_DEMAND, ("location_id", "sku", "date", "demand"), recent & until).to_pandas()
    return location_profiles(tables.read(LOCATIONS).to_pandas(), daily, tables.read(PRODUCTS).to_pandas(), as_of)


def _rows(kind: str, profiles: pd.DataFrame, features: Mapping[str, Feature], before: pd.DataFrame) -> pd.DataFrame:
    found = cluster(coordinates(profiles, features))
    labels = _numbered(found, profiles.member, before[before.kind == kind])
    lines = describe(profiles, labels, features)
    numbers = profiles[list(features)]
    return pd.DataFrame(
        {
            "kind": kind,
            "member": profiles.member,
            "region": profiles.region,
            "cluster": labels,
            "clusters": found.count,
            "silhouette": found.silhouette,
            "stability": found.stability,
            "description": [lines[label] for label in labels.tolist()],
            "features": [list(row.items()) for row in numbers.astype(float).to_dict("records")],
        }
    )


def _numbered(found: Clustering, members: pd.Series, before: pd.DataFrame) -> Labels:
    known = before.set_index("member").cluster.reindex(members).fillna(-1).to_numpy(np.int64)
    return keep_labels(found.labels, known)


def _sizes(rows: pd.DataFrame) -> dict[str, int]:
    return {str(line): int(count) for line, count in rows.groupby("description").size().items()}
