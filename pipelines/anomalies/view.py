"""What is known of the chain at a moment, as the rules look at it: nothing later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

DAY = timedelta(days=1)
LINE_COLUMNS = ("location_id", "sku", "event_time", "kind", "quantity", "unit_price")
COUNT_COLUMNS = ("location_id", "sku", "event_time", "expected", "counted")
SHIPMENT_COLUMNS = ("shipment_id", "supplier_id", "state", "started", "promised", "delivered")


def empty(columns: tuple[str, ...]) -> pd.DataFrame:
    """No rows."""
    return pd.DataFrame({name: [] for name in columns})


@dataclass(frozen=True, eq=False)
class DemandDays:
    """Demand of n series on the last d complete days beside what was forecast before each day; NaN: not known.

    Attributes:
        keys: n of `location|sku`. first: the first day.
        demand, mean, variance: (n, d) units, units, units². in_stock: (n, d) share of the day that there was stock.
        today_mean, today_variance: (n,) of the day that is not over.
    """

    keys: npt.NDArray[np.object_]
    first: date
    demand: Floats
    mean: Floats
    variance: Floats
    in_stock: Floats
    today_mean: Floats
    today_variance: Floats

    @classmethod
    def none(cls, first: date) -> DemandDays:
        """No series."""
        matrix, row = np.empty((0, 0)), np.empty(0)
        return cls(np.empty(0, object), first, matrix, matrix, matrix, matrix, row, row)

    @property
    def days(self) -> int:
        """How many days."""
        return int(self.demand.shape[1])

    def day(self, place: int) -> date:
        """The date of a column."""
        return self.first + place * DAY


@dataclass(frozen=True)
class Usual:
    """How things usually are, by what came before the lines that are looked at.

    Attributes:
        quantities: by (kind, sku): how many lines, and mean and standard deviation of the logarithm of their quantity.
        hours: by location: (25,) share of a day's units sold before each full UTC hour.
    """

    quantities: Mapping[tuple[str, str], tuple[int, float, float]] = field(default_factory=dict)
    hours: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """All that is known at `now`.

    Attributes:
        lines: `LINE_COLUMNS`, ledger rows of the last 24 hours.
        counts: `COUNT_COLUMNS`, counts of the last weeks, with what the books said before each.
        stock: on hand by `location|sku`.
        brought: by `location|sku`, when its stock was last brought or corrected, as far as it is remembered.
        shipments: `SHIPMENT_COLUMNS`, those begun in the last months.
        products: by sku: unit_cost, unit_price.
    """

    now: datetime
    demand: DemandDays
    lines: pd.DataFrame = field(default_factory=lambda: empty(LINE_COLUMNS))
    counts: pd.DataFrame = field(default_factory=lambda: empty(COUNT_COLUMNS))
    stock: Mapping[str, int] = field(default_factory=dict)
    brought: Mapping[str, datetime] = field(default_factory=dict)
    shipments: pd.DataFrame = field(default_factory=lambda: empty(SHIPMENT_COLUMNS))
    products: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    usual: Usual = field(default_factory=Usual)

    @property
    def midnight(self) -> datetime:
        """The beginning of the day that is not over, UTC."""
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0)

    def elapsed_share(self, location_id: str, since: datetime | None = None) -> float:
        """Of today's units, the share usually sold at a location from `since` (None: midnight) until now."""
        whole = self._share_by(location_id, self.now)
        return whole if since is None else max(whole - self._share_by(location_id, since), 0.0)

    def _share_by(self, location_id: str, moment: datetime) -> float:
        hours = (moment - self.midnight) / timedelta(hours=1)
        shares = self.usual.hours.get(location_id)
        return hours / 24 if shares is None else float(np.interp(hours, np.arange(25), shares))
