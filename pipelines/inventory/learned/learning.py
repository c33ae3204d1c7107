"""Learnt levels against tuned classical ones: learnt and tuned on one half of a replay, judged by cost on the other."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from pipelines.contracts.tables import POLICY_CANDIDATES, SERVICE_CORRECTIONS
from pipelines.errors import MissingDataError
from pipelines.forecasting.tracking import start_run
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.learned.features import evenings, realised
from pipelines.inventory.learned.newsvendor import LearnedNewsvendor, QuantileModel, learn_newsvendor
from pipelines.inventory.learned.policy_search import SearchedPolicy, search_policy
from pipelines.inventory.replay.candidates import Candidate, LevelPaths, Planned
from pipelines.inventory.replay.history import History, Rolling
from pipelines.inventory.replay.laboratory import SETTLING_DAYS, Supply, from_home, history_of, rolled
from pipelines.inventory.replay.results import Outcome, buying_of, play
from pipelines.inventory.service_correction import ServiceCorrection, learn_correction
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.inventory")

SERVICE = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.9995)
"""Service levels that each method is tuned over: for a cost, the service is not given but found."""
LEARNT_DAYS = 240
"""Of the newest past: half to learn and tune in, half to judge in."""
CLASSICAL, NEWSVENDOR, SEARCHED = "order_up_to", "learned_newsvendor", "policy_search"


@dataclass(frozen=True)
class Judged:
    """A method, tuned before and judged after.

    Attributes:
        service: the level it was tuned to. cost: (n,) money a day of each series in the newer half.
        outcome: its replay there. last: levels (n,) of the last evening, reorder point and order-up-to.
    """

    method: str
    service: float
    cost: FloatArray
    outcome: Outcome
    last: tuple[FloatArray, FloatArray]

    @property
    def total(self) -> float:
        """Money a day, all series together."""
        return float(self.cost.sum())


@dataclass(frozen=True)
class Learnt:
    """All methods, judged; the models; the champion: the learnt one only where it beats the tuned classical one."""

    methods: tuple[Judged, ...]
    model: QuantileModel
    rule: FloatArray
    as_of: date
    correction: ServiceCorrection

    @property
    def champion(self) -> Judged:
        """The method of the least cost."""
        return min(self.methods, key=lambda judged: judged.total)

    def __str__(self) -> str:
        told = ", ".join(
            f"{judged.method} {judged.total:.2f} (fill rate {judged.outcome.fill_rate:.4f})" for judged in self.methods
        )
        return f"cost a day as of {self.as_of}: {told}; champion {self.champion.method}"


def halves(history: History) -> tuple[History, History]:
    """The older half, to learn and tune in, and the newer one to judge in; no day is measured in both.

    The newer half begins with days in which its stock settles, which are the end of the older one.
    """
    measured = history.batch.end - history.measured
    middle = history.measured + timedelta(days=(measured.days + 1) // 2)
    days = (middle - history.start).days
    older = replace(
        history,
        batch=history.batch.until(middle - timedelta(days=1)),
        lead_time=history.lead_time[:, :days],
        open_days=None if history.open_days is None else history.open_days[:, :days],
    )
    begin = max(middle - timedelta(days=SETTLING_DAYS), history.start)
    skip = (begin - history.start).days
    newer = replace(
        history,
        start=begin,
        measured=middle,
        lead_time=history.lead_time[:, skip:],
        open_days=None if history.open_days is None else history.open_days[:, skip:],
    )
    return older, newer


def learn_levels(history: History, supply: Supply, rng: np.random.Generator, generations: int = 10) -> Learnt:
    """Learn and tune in the older half, judge in the newer one.

    Raises:
        MissingDataError: too little history to learn from.
    """
    older, newer = halves(history)
    protection, terms = supply.protection, supply.terms
    before, after = (evenings(half, protection, terms) for half in (older, newer))
    model = learn_newsvendor(before, realised(older, protection), rng)
    rule = search_policy(older, before, terms, rng, generations)
    contestants: list[tuple[Candidate, Candidate, Sequence[float]]] = [
        (Planned(CLASSICAL, CLASSICAL), Planned(CLASSICAL, CLASSICAL), SERVICE),
        (LearnedNewsvendor(NEWSVENDOR, model, before), LearnedNewsvendor(NEWSVENDOR, model, after), SERVICE),
        (SearchedPolicy(SEARCHED, rule, before), SearchedPolicy(SEARCHED, rule, after), (0.95,)),
    ]
    judged = tuple(_judge(tuned, tested, older, newer, supply, service) for tuned, tested, service in contestants)
    return Learnt(judged, model, rule, history.batch.end, _correction(history, supply))


def _correction(history: History, supply: Supply) -> ServiceCorrection:
    """What the classical policy must plan with for each category to achieve what is wanted, from the whole replay."""
    levels = Planned(CLASSICAL, CLASSICAL).levels(history, supply.protection, supply.terms, SERVICE)
    tried = play(history, CLASSICAL, levels, buying_of(supply.terms), SERVICE)
    served, cycles = ([outcome.totals[name] for outcome in tried] for name in ("served_cycles", "cycles"))
    return learn_correction(SERVICE, served, cycles, history.batch.category)


def correction_rows(correction: ServiceCorrection, as_of: date) -> pa.Table:
    """Rows of `gold/service_corrections`."""
    rows = [
        {"category": category, "wanted": float(wanted), "shift": float(shift), "as_of": as_of}
        for category, shifts in correction.shifts.items()
        for wanted, shift in zip(correction.wanted, shifts, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SERVICE_CORRECTIONS.schema)


def _judge(
    tuned: Candidate, tested: Candidate, older: History, newer: History, supply: Supply, service: Sequence[float]
) -> Judged:
    protection, terms = supply.protection, supply.terms
    buying = buying_of(terms)
    tried = play(older, tuned.name, tuned.levels(older, protection, terms, service), buying, service)
    best = min(tried, key=lambda outcome: float(daily_cost(outcome, supply).sum())).service
    levels: LevelPaths = tested.levels(newer, protection, terms, (best,))
    (outcome,) = play(newer, tested.name, levels, buying, (best,))
    last = (levels.reorder_point[0, :, -1].astype(float), levels.order_up_to[0, :, -1].astype(float))
    return Judged(tested.name, best, daily_cost(outcome, supply), outcome, last)


def daily_cost(outcome: Outcome, supply: Supply) -> FloatArray:
    """Money a day of each series: holding, ordering and lost margin, (n,)."""
    terms, totals = supply.terms, outcome.totals
    days = np.maximum(totals["days"], 1)
    held = totals["on_hand"] * np.nan_to_num(terms.holding_cost) / 365.0
    margin = np.maximum(np.nan_to_num(terms.unit_price - terms.unit_cost), 0.0)
    lost = (totals["demand"] - totals["sold"]) * margin
    return np.asarray((held + totals["orders"] * np.nan_to_num(terms.order_cost) + lost) / days, np.float64)


def learn_policies(
    settings: Settings, tables: Tables, days: int, seed: int = 1, progress: Callable[[date], None] = lambda _: None
) -> Learnt:
    """Learn from the home's last `days` days, track the run in MLflow and write `gold/policy_candidates`.

    Raises:
        MissingDataError, UsageError: there is too little history.
        OwnershipError: another process is learning.
    """
    with ownership(settings, POLICY_CANDIDATES.owner):
        batch, supply = from_home(tables)
        if not np.isfinite(supply.terms.holding_cost).all() or not (supply.terms.unit_price > 0).any():
            raise MissingDataError("levels are learnt by their cost; the catalog has no costs and prices")
        rolling = Rolling(engine=settings.forecast.engine)
        forecasts = rolled(batch, days, rolling, settings.forecast, progress)
        history = history_of(batch, forecasts, supply, days, np.random.default_rng(seed))
        learnt = learn_levels(history, supply, np.random.default_rng(seed))
        run_id = _track(settings, learnt, days)
        tables.overwrite(POLICY_CANDIDATES, candidate_rows(learnt, history, run_id))
        tables.overwrite(SERVICE_CORRECTIONS, correction_rows(learnt.correction, learnt.as_of))
    log.info("%s", learnt)
    return learnt


def candidate_rows(learnt: Learnt, history: History, run_id: str | None) -> pa.Table:
    """Rows of `gold/policy_candidates`."""
    size = len(history.batch)
    parts = [
        pa.table(
            {
                "location_id": list(history.batch.location_id),
                "sku": list(history.batch.sku),
                "method": [judged.method] * size,
                "as_of": [learnt.as_of] * size,
                "reorder_point": judged.last[0].astype(np.int64),
                "order_up_to": judged.last[1].astype(np.int64),
                "daily_cost": judged.cost,
                "fill_rate": judged.outcome.totals["sold"] / np.maximum(judged.outcome.totals["demand"], 1),
                "champion": [judged.method == learnt.champion.method] * size,
                "run_id": [run_id] * size,
            }
        ).cast(POLICY_CANDIDATES.schema)
        for judged in learnt.methods
    ]
    return pa.concat_tables(parts)


def _track(settings: Settings, learnt: Learnt, days: int) -> str | None:
    """Without MLflow the levels are written all the same."""
    try:
        run = start_run(settings, f"policies-{learnt.as_of}", {"as_of": learnt.as_of, "days": days})
        client, run_id = run.client, run.run_id
        for judged in learnt.methods:
            client.log_metric(run_id, f"daily_cost.{judged.method}", judged.total)
            client.log_metric(run_id, f"fill_rate.{judged.method}", judged.outcome.fill_rate)
        client.log_text(run_id, learnt.model.to_json(), "newsvendor.json")
        client.log_text(run_id, json.dumps(learnt.rule.tolist()), "policy_search.json")
        client.set_tag(run_id, "stockcast.kind", "policies")
        client.set_tag(run_id, "champion", learnt.champion.method)
        run.finish(succeeded=True)
    except Exception as error:  # MLflow raises whatever its store raises
        log.warning("MLflow does not answer, the learnt levels are not tracked: %s", error)
        return None
    return str(run_id)
