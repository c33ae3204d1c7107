"""The policies of one version, by series, unpacked when first asked for."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from pipelines.contracts.tables import INVENTORY_POLICIES
from pipelines.errors import MissingDataError
from pipelines.ingestion.times import as_microseconds
from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.io.delta import Tables
from pipelines.restocking.live_policy import LivePolicy, TransferOffer

SeriesKey = tuple[str, str]


class PolicyBook:
    """All policies of a version: one Arrow table, and the rows in use as `LivePolicy`."""

    def __init__(self, version: str, rows: pa.Table) -> None:
        self.version = version
        self._rows = rows
        self._places: dict[SeriesKey, int] = {
            key: place
            for place, key in enumerate(
                zip(rows.column("location_id").to_pylist(), rows.column("sku").to_pylist(), strict=True)
            )
        }
        self._unpacked: dict[SeriesKey, LivePolicy] = {}

    @classmethod
    def load(cls, tables: Tables, version: str) -> PolicyBook:
        """Read a version.

        Raises:
            MissingDataError: no such version; it was deleted while the ledger behind it was still to be replayed.
        """
        rows = tables.read(INVENTORY_POLICIES, partition=version)
        if rows.num_rows == 0:
            raise MissingDataError(
                f"policy version {version} is no longer in gold/inventory_policies; raise planning.versions_kept, "
                "or plan again (jobs/plan_inventory.py)"
            )
        return cls(version, rows.combine_chunks())

    def __len__(self) -> int:
        return len(self._places)

    def keys(self) -> list[SeriesKey]:
        """The series that have a policy."""
        return list(self._places)

    @property
    def in_force_from(self) -> int:
        """The end of the last day that the forecasts know, in microseconds since 1970."""
        return _in_force_from(self._rows.column("as_of")[0].as_py())

    @property
    def forecast_version(self) -> str:
        """The forecasts behind the policies."""
        return str(self._rows.column("forecast_version")[0].as_py())

    def get(self, key: SeriesKey) -> LivePolicy | None:
        """The policy of a series; None where it has none."""
        policy = self._unpacked.get(key)
        if policy is None and (place := self._places.get(key)) is not None:
            policy = self._unpacked[key] = _unpack(self._rows.slice(place, 1).to_pylist()[0])
        return policy


def _in_force_from(as_of: date) -> int:
    return as_microseconds(datetime.combine(as_of + timedelta(days=1), datetime.min.time(), UTC))


def _unpack(row: dict[str, Any]) -> LivePolicy:
    return LivePolicy(
        policy_version=row["policy_version"],
        forecast_version=row["forecast_version"],
        supplier_id=row["supplier_id"],
        reorder_point=row["reorder_point"],
        order_up_to=row["order_up_to"],
        safety_stock=row["safety_stock"],
        lead_time_days=row["lead_time_days"],
        review_days=row["review_days"],
        service_level=row["service_level"],
        binding_constraint=row["binding_constraint"],
        pack_size=row["pack_size"],
        minimum_order=row["minimum_order"],
        in_force_from=_in_force_from(row["as_of"]),
        cumulative_mean=row["cumulative_mean"],
        cumulative_std=row["cumulative_std"],
        unit_cost=row["unit_cost"],
        unit_price=row["unit_price"],
        # Versions from before it was recorded were decided with the one presumed.
        correlation=LEVEL_CORRELATION if row["correlation"] is None else row["correlation"],
        maximum_order=row["maximum_order"] or 0,
        allowance=row["allowance"],
        allowance_reason=row["allowance_reason"] or "",
        transfer=_offer(row),
        order_windows=[as_microseconds(moment) for moment in row["order_windows"] or ()],
    )


def _offer(row: dict[str, Any]) -> TransferOffer | None:
    if row["transfer_offer"] is None:
        return None
    return TransferOffer(
        offer=row["transfer_offer"],
        source=row["transfer_source"],
        quantity=row["transfer_quantity"],
        days=row["transfer_days"],
        reason=row["transfer_reason"],
    )
