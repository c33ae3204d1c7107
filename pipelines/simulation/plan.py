"""What to simulate: sizes, dates, seed and shares of faults. A plan and its seed determine the whole history."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from pipelines.errors import UsageError

HOUR_MS = 3_600_000
HOURS_PER_DAY = 24
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Faults:
    """Shares of what goes wrong on the way, relative to the number of valid events.

    Attributes:
        duplicates: events sent again, byte for byte.
        late: events sent after events that happened later.
        malformed: further messages that no consumer can use (broken JSON, unknown products, tombstones ...).
        conflicts: event ids sent again with another quantity; the first one is the true one.
    """

    duplicates: float = 0.02
    late: float = 0.03
    malformed: float = 0.005
    conflicts: float = 0.0002

    def __post_init__(self) -> None:
        for field in fields(self):
            share = getattr(self, field.name)
            if not 0 <= share <= 0.5:
                raise UsageError(f"fault {field.name} is {share}; expected a share between 0 and 0.5")

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Faults from `name=share,...`; those not named keep their default, `none` switches all off.

        Raises:
            UsageError: an unknown name or something that is not a share.
        """
        if text == "none":
            return NO_FAULTS
        known = [field.name for field in fields(cls)]
        shares: dict[str, float] = {}
        for item in filter(None, text.split(",")):
            name, _, value = item.partition("=")
            if name not in known:
                raise UsageError(f"unknown fault {name!r}; expected some of {', '.join(known)}, or none")
            try:
                shares[name] = float(value)
            except ValueError:
                raise UsageError(f"fault {name}: {value!r} is not a share such as 0.02") from None
        return replace(cls(), **shares)


NO_FAULTS = Faults(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Plan:
    """A chain and the span of its history.

    Attributes:
        cutoff: the first UTC day that is no longer history; the live phase starts at its midnight.
        seed: the same plan with the same seed gives the same chain, demand and history.
        days: days of history before the cutoff.
        low_stock: series that are short of stock at the cutoff, so that the live phase has work at once.
    """

    cutoff: date
    seed: int = 7
    stores: int = 5
    products: int = 20
    days: int = 400
    low_stock: int = 4
    faults: Faults = Faults()

    def __post_init__(self) -> None:
        limits = {"stores": (1, 2000), "products": (1, 100_000), "days": (1, 3660), "seed": (0, 2**32 - 1)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; expected {low} to {high}")

    @classmethod
    def before(cls, today: date, live_days: int = 2, **sizes: Any) -> Plan:
        """A plan that leaves `live_days` days, today's unfinished one included, to the live phase.

        Raises:
            UsageError: less than one live day: history must end before now.
        """
        if live_days < 1:
            raise UsageError(f"live_days is {live_days}; expected 1 or more, since history ends before today")
        return cls(cutoff=today - timedelta(days=live_days - 1), **sizes)

    @property
    def start(self) -> date:
        """The first day of history."""
        return self.cutoff - timedelta(days=self.days)

    @property
    def start_hour(self) -> int:
        """The first hour of history, in hours since 1970."""
        return (self.start - _EPOCH).days * HOURS_PER_DAY

    @property
    def cutoff_hour(self) -> int:
        """The first hour of the live phase, in hours since 1970."""
        return (self.cutoff - _EPOCH).days * HOURS_PER_DAY

    @property
    def run(self) -> str:
        """A name of this plan that goes into every event id, so that two plans never share one."""
        return hashlib.blake2b(repr(self).encode(), digest_size=4).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The plan in JSON's types."""
        return {**asdict(self), "cutoff": self.cutoff.isoformat()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The inverse of `as_dict`."""
        cutoff, faults = date.fromisoformat(values["cutoff"]), Faults(**values["faults"])
        return cls(**{**values, "cutoff": cutoff, "faults": faults})


def random_stream(plan: Plan, stream: int, *index: int) -> np.random.Generator:
    """Random numbers that depend on nothing but the plan's seed, the stream and the index."""
    return np.random.default_rng([plan.seed, stream, *index])


CHAIN, MODEL, DEMAND, PROMOTIONS, STOCK, TICKETS, FAULTS, ORDERS = range(8)
"""The streams."""


def moment(milliseconds: int) -> datetime:
    """Milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
