"""Lead times of suppliers with few orders: drawn towards the stated ones, or first towards suppliers of their cluster.

A cluster's orders are taken relative to what each supplier states, times what this one states: in days alone, a quick
supplier would be drawn to a slow one's days.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.harness import Options, say
from bench.lateness_data import MAPPING, public_deliveries
from pipelines.inventory.lead_times import POINTS, LeadTimeRecords, Stated, lead_time_points
from pipelines.network.clusters import cluster
from pipelines.network.profiles import SUPPLIER_FEATURES, coordinates, supplier_profiles
from pipelines.shipments.risk.columns import canonical

CLUSTER_PRIOR, SUPPLIER_PRIOR, LANE_PRIOR = 20.0, 5.0, 10.0
CUTOFFS = tuple(f"{year}-01-01" for year in range(2008, 2013))
AHEAD_DAYS, BEHIND_DAYS = 365, 3 * 365
BANDS = ((0, 0, "none"), (1, 4, "1 to 4"), (5, 19, "5 to 19"), (20, 10**9, "20 and more"))
SIMULATED = 4
SUPPLIERS, LANES, TRIED = 60, 4, 40
THREE_KINDS, ONE_KIND = ((1.0, 0.1, 2.0), (1.6, 0.4, 4.0), (0.8, 0.2, 8.0)), ((1.0, 0.25, 4.0),)
"""Kinds of simulated suppliers: what they need of what they state, its variation, and what their products cost."""

NOW, KIN, EVERYBODY = "lane, supplier, stated", "and the supplier's cluster", "and all suppliers"
FORMS = (NOW, KIN, EVERYBODY)
_SHARES = (np.arange(POINTS) + 0.5) / POINTS

Row = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """What is known of orders at a moment, and how long the next ones took.

    Attributes:
        records: known orders. suppliers: names. stated: (mean, deviation) by supplier.
        unit_cost: by supplier. late: supplier_id, promised, delivered of known deliveries.
        next: supplier, location, days of those that are to be foretold.
    """

    data: str
    records: LeadTimeRecords
    stated: dict[str, tuple[float, float]]
    unit_cost: dict[str, float]
    late: pd.DataFrame
    next: pd.DataFrame


def measure(options: Options) -> list[Row]:
    """Continuous ranked probability score in days by data and known orders of the supplier."""
    scenes = [*simulated("three kinds of suppliers, simulated", THREE_KINDS, 0.08),
              *simulated("one kind of suppliers, simulated", ONE_KIND, 0.25)]  # fmt: skip
    if options.data is not None:
        scenes = [*real_scenes(options), *scenes]
    scored = pd.concat([_scored(scene) for scene in scenes])
    rows = []
    for data, part in scored.groupby("data", sort=False):
        say(f"clusters: {data}: {len(part)} orders")
        for least, most, name in BANDS:
            band = part[part.known.between(least, most)]
            if len(band):
                low, high = _interval(band)
                found = {form: float(band[form].mean()) for form in FORMS}
                rows.append({"data": data, "known": name, "orders": len(band), **found, "low": low, "high": high})
    return rows


def real_scenes(options: Options) -> Iterator[Scene]:
    """A year each, after what was known before it: an order is known from its day on, its arrival when it came."""
    assert options.data is not None
    rows = canonical(public_deliveries(options.data), MAPPING)
    rows = rows[rows["date.ordered"].notna() & rows["delivered"].notna()]
    keys = ["order", "key.supplier", "key.destination"]
    orders = rows.groupby(keys, as_index=False).agg(
        ordered=("date.ordered", "min"),
        promised=("scheduled", "min"),
        delivered=("delivered", "min"),
        price=("number.price", "mean"),
    )
    orders = orders.rename(columns={"key.supplier": "supplier", "key.destination": "location"})
    orders["days"], orders["stated"] = orders.delivered - orders.ordered, orders.promised - orders.ordered
    orders = orders[orders.days >= 0]
    for cutoff in CUTOFFS:
        day = int(np.datetime64(cutoff, "D").astype(int))
        past = orders[(orders.ordered < day) & (orders.ordered >= day - BEHIND_DAYS)]
        ahead = orders[(orders.ordered >= day) & (orders.ordered < day + AHEAD_DAYS)]
        arrived = (past.delivered < day).to_numpy()
        names = sorted({*past.supplier, *ahead.supplier})
        means = past.groupby("supplier").stated.mean().clip(lower=1.0)
        deviation = float((past.stated - past.groupby("supplier").stated.transform("mean")).std())
        came = past[arrived]
        yield Scene(
            "real deliveries",
            LeadTimeRecords(
                past.supplier.to_numpy(object),
                past.location.to_numpy(object),
                np.where(arrived, past.days, day - past.ordered).astype(float),
                arrived,
            ),
            {name: (float(means.get(name, past.stated.mean())), deviation) for name in names},
            past.groupby("supplier").price.mean().to_dict(),
            pd.DataFrame({"supplier_id": came.supplier, "promised": came.promised, "delivered": came.delivered}),
            ahead[["supplier", "location", "days"]],
        )


def simulated(data: str, kinds: tuple[tuple[float, float, float], ...], apart: float) -> Iterator[Scene]:
    """Suppliers of some kinds, half of them with up to six orders, the others with forty."""
    for seed in range(SIMULATED):
        rng = np.random.default_rng(seed)
        ratio, variation, cost = np.array(kinds)[rng.integers(0, len(kinds), SUPPLIERS)].T
        stated = rng.uniform(4, 14, SUPPLIERS)
        mean = stated * ratio * rng.lognormal(0, apart, SUPPLIERS)
        names = np.array([f"u-{number:02d}" for number in range(SUPPLIERS)], object)
        count = np.where(rng.random(SUPPLIERS) < 0.5, rng.integers(0, 7, SUPPLIERS), 40)
        of = np.repeat(np.arange(SUPPLIERS), count)
        tried = np.repeat(np.arange(SUPPLIERS), TRIED)
        days, later = (rng.gamma(variation[rows] ** -2, mean[rows] * variation[rows] ** 2) for rows in (of, tried))
        lanes, others = (rng.integers(0, LANES, len(rows)).astype(str).astype(object) for rows in (of, tried))
        yield Scene(
            data,
            LeadTimeRecords(names[of], lanes, days, np.ones(len(of), bool)),
            {name: (days, 0.15 * days) for name, days in zip(names, stated.tolist(), strict=True)},
            dict(zip(names, (cost * rng.lognormal(0, 0.2, SUPPLIERS)).tolist(), strict=True)),
            pd.DataFrame({"supplier_id": names[of], "promised": stated[of], "delivered": days}),
            pd.DataFrame({"supplier": names[tried], "location": others, "days": later}),
        )


def _scored(scene: Scene) -> pd.DataFrame:
    records, kinds = scene.records, _kinds(scene)
    means = {name: mean for name, (mean, _) in scene.stated.items()}
    relative = records.days / np.array([means[name] for name in records.supplier])
    kind_of = np.array([kinds[name] for name in records.supplier])
    pools = {kind: _points(relative[kind_of == kind], records.arrived[kind_of == kind]) for kind in set(kinds.values())}
    everybody = _points(relative, records.arrived)
    known = pd.Series(records.supplier[records.arrived]).value_counts()
    parts = []
    for (supplier, location), rows in scene.next.groupby(["supplier", "location"]):
        stated = Stated(
            *(np.array([name], object) for name in (supplier, location)),
            *(np.array([value]) for value in scene.stated[supplier]),
        )
        nothing = lead_time_points(LeadTimeRecords.none(), stated)[0]
        own = records.supplier == supplier
        lane = own & (records.location == location)
        levels = [(_points(records.days[of], records.arrived[of]), prior)
                  for of, prior in ((own, SUPPLIER_PRIOR), (lane, LANE_PRIOR))]  # fmt: skip
        scores = {}
        for form, pool in ((NOW, None), (KIN, pools[kinds[supplier]]), (EVERYBODY, everybody)):
            towards = nothing
            if pool is not None:
                towards = _mixture(nothing, [((pool[0] * means[supplier], pool[1], pool[2]), CLUSTER_PRIOR)])
            scores[form] = _crps(_mixture(towards, levels), rows.days.to_numpy(float))
        parts.append(pd.DataFrame({"supplier": supplier, "known": int(known.get(supplier, 0)), **scores}))
    return pd.concat(parts).assign(data=scene.data)


def _kinds(scene: Scene) -> dict[str, int]:
    """The cluster of each supplier, as a night would make it."""
    names = list(scene.stated)
    mean, deviation = zip(*scene.stated.values(), strict=True)
    sourcing = {"supplier_id": names, "sku": names, "lead_time_days": mean, "lead_time_std_days": deviation}
    products = {"sku": names, "unit_cost": [scene.unit_cost.get(name, np.nan) for name in names]}
    none = pd.DataFrame({"supplier_id": [], "state": [], "quantity": [], "received": []})
    table = supplier_profiles(
        pd.DataFrame({"supplier_id": names, "region": "r"}),
        pd.DataFrame(sourcing),
        pd.DataFrame(products),
        scene.records,
        none,
        scene.late,
    )
    return dict(zip(names, cluster(coordinates(table, SUPPLIER_FEATURES)).labels.tolist(), strict=True))


Weighted = tuple[np.ndarray, np.ndarray, float]


def _points(days: np.ndarray, arrived: np.ndarray) -> Weighted:
    """Distinct values, their probabilities with open orders counted in, and how many orders they rest on."""
    if not arrived.any():
        return np.empty(0), np.empty(0), 0.0
    values, counts = np.unique(days[arrived], return_counts=True)
    at_risk = len(days) - np.searchsorted(np.sort(days), values)
    left = np.cumprod(1.0 - counts / at_risk)
    shares = -np.diff(left, prepend=1.0)
    if left[-1] > 1e-12:
        values, shares = np.append(values, days.max()), np.append(shares, left[-1])
    return values, shares, float(arrived.sum())


def _mixture(towards: np.ndarray, levels: list[tuple[Weighted, float]]) -> np.ndarray:
    """(POINTS,) equally likely values of a distribution that leans on the levels, each by its orders."""
    values, weights = towards, np.full(len(towards), 1.0 / len(towards))
    for (atoms, shares, count), prior in levels:
        own = count / (count + prior)
        values, weights = np.concatenate([values, atoms]), np.concatenate([(1 - own) * weights, own * shares])
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    places = np.searchsorted(cumulative / cumulative[-1], _SHARES)
    return np.asarray(values[order][np.minimum(places, len(values) - 1)], float)


def _crps(points: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Of each outcome: E|X - y| - E|X - X'|/2."""
    spread = np.abs(points[:, None] - points[None, :]).mean() / 2
    return np.asarray(np.abs(points[None, :] - days[:, None]).mean(axis=1) - spread, float)


def _interval(band: pd.DataFrame, draws: int = 1000) -> tuple[float, float]:
    """90 % interval of the cluster's relative gain (negative: better), suppliers drawn again."""
    sums = band.groupby("supplier")[[KIN, NOW]].sum().to_numpy()
    rng = np.random.default_rng(0)
    drawn = sums[rng.integers(0, len(sums), (draws, len(sums)))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1] - 1, [5, 95])
    return float(low), float(high)
