"""New series: what a profile of the location's cluster tells of them, beside that of all locations."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from bench.accuracy_data import chain, real
from bench.harness import Options, say
from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.category import CategoryProfile, CategoryProfiles, category_profiles
from pipelines.forecasting.engines import EngineOptions, create
from pipelines.forecasting.metrics import pinball
from pipelines.forecasting.series import Floats, SeriesBatch
from pipelines.network.clusters import cluster
from pipelines.network.profiles import LOCATION_FEATURES, coordinates, location_profiles
from pipelines.operations.settings import ForecastSettings

ORIGINS = tuple(date(2015, 12, 31) + timedelta(days=days) for days in (0, 61, 122, 183, 244, 305))
KNOWN_DAYS = (0, 3, 7, 14)
HORIZON, NEW_SHARE, SERIES = 28, 0.2, 500
GROUP = 5
"""Products of a category that is wider than one product."""
YEAR = 365

ALL, KIND = "all locations", "the location's cluster"
SIZE, BOTH = "all, times the location's size", "the cluster's, times its size in it"

Row = dict[str, Any]


def measure(options: Options) -> list[Row]:
    """WAPE and pinball loss by data, days known, and profile, over all origins."""
    sets = {"simulated chain, by category": chain(SERIES)}
    if options.data is not None:
        products = real(options.data, SERIES)
        numbers = [int(sku.split("-")[1]) for sku in products.sku]
        groups = tuple(f"group-{number // GROUP}" for number in numbers)
        by_product, by_group = "real sales, by product", f"real sales, by {GROUP} products"
        sets = {by_product: products, by_group: replace(products, category=groups), **sets}
    rows = []
    for name, batch in sets.items():
        sums: dict[tuple[int, str], Floats] = {}
        counts = []
        for number, origin in enumerate(ORIGINS):
            counts.append(_origin(batch, origin, number, sums))
        say(f"clusters: {name}: {counts} kinds of locations")
        for (days, profile), (error, loss, actual) in sums.items():
            row = {"data": name, "days": days, "profile": profile, "wape": error / actual, "loss": loss / actual}
            rows.append({**row, "kinds": counts})
    return rows


def _origin(batch: SeriesBatch, origin: date, number: int, sums: dict[tuple[int, str], Floats]) -> int:
    """Add up one origin's errors; returns the number of clusters."""
    chance = np.random.default_rng(number)
    past = batch.until(origin)
    known = past.demand.copy()
    grown = np.flatnonzero(np.isfinite(known[:, -max(KNOWN_DAYS) - 1]))
    new = chance.choice(grown, round(NEW_SHARE * len(grown)), replace=False)
    days = np.array(KNOWN_DAYS)[np.arange(len(new)) % len(KNOWN_DAYS)]
    for row, count in zip(new, days, strict=True):
        known[row, : known.shape[1] - count] = np.nan
    past = replace(past, demand=known, start=np.minimum(known.shape[1], np.argmax(np.isfinite(known), axis=1)))
    column = batch.days - (batch.end - origin).days
    actual = batch.demand[new, column : column + HORIZON]
    kinds = _kinds(past)
    everywhere, by_kind = profiles_of(past, {}), profiles_of(past, kinds)
    sizes, within = _sizes(past, dict.fromkeys(kinds, 0)), _sizes(past, kinds)
    found = {ALL: _forecast(past.take(new), everywhere), KIND: _forecast(past.take(new), by_kind)}
    places = np.array(past.location_id)[new]
    for profile, profiles, size in ((SIZE, everywhere, sizes), (BOTH, by_kind, within)):
        yhat, quantiles = np.empty((len(new), HORIZON)), np.empty((len(new), HORIZON, len(QUANTILES)))
        for name in np.unique(places):
            rows = np.flatnonzero(places == name)
            yhat[rows], quantiles[rows] = _forecast(past.take(new[rows]), scaled(profiles, size[name]))
        found[profile] = yhat, quantiles
    for profile, (yhat, quantiles) in found.items():
        for count in KNOWN_DAYS:
            rows = days == count
            error, loss = np.abs(yhat - actual)[rows].sum(), pinball(actual[rows], quantiles[rows], QUANTILES).sum()
            told = np.array([error, loss, actual[rows].sum()])
            sums[count, profile] = sums.get((count, profile), np.zeros(3)) + told
    return len(set(kinds.values()))


def profiles_of(past: SeriesBatch, kinds: dict[str, int]) -> CategoryProfiles:
    """Category profiles, over all locations and by kind of location, from the numbers that
    `frames.category_statistics` makes of the tables."""
    weeks = 7 * ForecastSettings().profile_weeks
    sold = np.isfinite(past.demand[:, -weeks:]).any(axis=1)
    demand = past.demand[sold][:, -weeks:]
    weekday = (past.dates[-weeks:].astype(np.int64) + 3) % 7
    frame = pd.DataFrame({"category": np.array(past.category)[sold], "mean": np.nanmean(demand, axis=1)})
    frame["variance"] = np.nanvar(demand, axis=1)
    for day in range(7):
        frame[f"units_{day}"] = np.nansum(demand[:, weekday == day], axis=1)
        frame[f"days_{day}"] = np.isfinite(demand[:, weekday == day]).sum(axis=1)
    kind = pd.Series([kinds.get(name) for name in np.array(past.location_id)[sold]], dtype=float)
    both = pd.concat([frame.assign(kind=np.nan), frame.assign(kind=kind).dropna(subset="kind")])
    groups = both.groupby(["kind", "category"], dropna=False)
    statistics = groups[[f"{what}_{day}" for what in ("units", "days") for day in range(7)]].sum()
    total = groups["mean"].sum()
    statistics = statistics.assign(
        series=groups.size(),
        level=groups["mean"].median(),
        dispersion=groups["variance"].sum() / total.where(total > 0),
    )
    return category_profiles(statistics.reset_index(), kinds)


def scaled(profiles: CategoryProfiles, by: float) -> CategoryProfiles:
    """Profiles whose levels are so many times as high."""

    def one(profile: CategoryProfile) -> CategoryProfile:
        return replace(profile, level=profile.level * by)

    return replace(
        profiles,
        of={name: one(profile) for name, profile in profiles.of.items()},
        overall=one(profiles.overall),
        of_kind={name: one(profile) for name, profile in profiles.of_kind.items()},
    )


def _sizes(past: SeriesBatch, kinds: dict[str, int]) -> dict[str, float]:
    """What a location sells of a product, times what is usual among its kind: the median over its products."""
    weeks = 7 * ForecastSettings().profile_weeks
    recent = past.demand[:, -weeks:]
    rows = np.flatnonzero(np.isfinite(recent).sum(axis=1) >= weeks // 2)
    frame = pd.DataFrame({"place": np.array(past.location_id)[rows], "sku": np.array(past.sku)[rows]})
    frame["mean"] = np.nanmean(recent[rows], axis=1)
    frame["kind"] = [kinds[name] for name in frame["place"]]
    usual = frame.groupby(["kind", "sku"])["mean"].transform("median")
    relative = (frame["mean"] / usual.where(usual > 0)).groupby(frame["place"]).median()
    return {name: float(relative.get(name, 1.0)) for name in kinds}


def _kinds(past: SeriesBatch) -> dict[str, int]:
    """The cluster of each location, as a night would make it."""
    demand = past.demand[:, -YEAR:]
    row, column = np.nonzero(np.isfinite(demand))
    daily = pd.DataFrame(
        {
            "location_id": np.array(past.location_id)[row],
            "sku": np.array(past.sku)[row],
            "date": past.dates[-YEAR:][column],
            "demand": demand[row, column],
        }
    )
    names = sorted(set(past.location_id))
    blank = {"region": "r", "latitude": np.nan, "longitude": np.nan}
    products = pd.DataFrame({"sku": past.sku, "category": past.category}).drop_duplicates()
    table = location_profiles(pd.DataFrame({"location_id": names}).assign(**blank), daily, products, past.end)
    return dict(zip(names, cluster(coordinates(table, LOCATION_FEATURES)).labels.tolist(), strict=True))


def _forecast(batch: SeriesBatch, profiles: CategoryProfiles) -> tuple[Floats, Floats]:
    found = create("category_profile", EngineOptions(profiles=profiles)).fit_forecast(batch, HORIZON, QUANTILES)
    return found.yhat, found.quantiles
