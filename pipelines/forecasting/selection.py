"""The choice of one model for each series, and its forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipelines.errors import UsageError
from pipelines.forecasting.demand_classes import MODELLED, demand_classes
from pipelines.forecasting.engines import Engine, EngineOptions, ForecastBatch, create, registered
from pipelines.forecasting.metrics import Scores
from pipelines.forecasting.models.median_ensemble import MedianEnsemble
from pipelines.forecasting.rolling import Flags, Task, Tested, backtest, training_scale, unsuitable
from pipelines.forecasting.series import Floats, Integers, SeriesBatch
from pipelines.operations.settings import ForecastSettings

OK, FALLBACK, FAILED = "ok", "fallback", "failed"
DEFAULT = "default"
"""Stands for `forecast.engine` in `forecast.candidates`."""
BASELINE, FALLBACK_MODEL = "seasonal_naive", "category_profile"


@dataclass(frozen=True)
class Competition:
    """Which models compete for a series, and what the winner must show.

    Attributes:
        engines: by name: all candidates, the baseline, and what ensembles combine.
        classes: demand class to candidates, the favoured one first.
        default: name of `forecast.engine`.
        fallback: forecasts what no model can be fitted to.
        sampled: share of the series that a costly candidate is tried on.
        margin: share by which a series' model must be beaten to give way; noise: standard errors, likewise.
        baseline: name of the engine that all scores are compared with.
    """

    engines: Mapping[str, Engine]
    classes: Mapping[str, tuple[str, ...]]
    default: str
    fallback: Engine
    sampled: Mapping[str, float] = field(default_factory=dict)
    margin: float = 0.02
    noise: float = 1.0
    baseline: str = BASELINE

    @property
    def names(self) -> tuple[str, ...]:
        """All candidates, in a fixed order."""
        return tuple(dict.fromkeys(name for names in self.classes.values() for name in names))


def competition(settings: ForecastSettings, options: EngineOptions) -> Competition:
    """The competition that the settings describe.

    Raises:
        UsageError: an engine or a demand class that does not exist; says which there are.
    """
    refuse_unknown_candidates(settings)
    classes = {name: _candidates(settings, name) for name in MODELLED}
    names = {BASELINE, *(name for candidates in classes.values() for name in candidates)}
    engines = {name: create(name, options) for name in sorted(names)}
    for engine in tuple(engines.values()):
        if isinstance(engine, MedianEnsemble):
            engines |= {name: create(name, options) for name in engine.members if name not in engines}
    return Competition(
        engines=engines,
        classes=classes,
        default=settings.engine,
        fallback=create(FALLBACK_MODEL, options),
        sampled=settings.sampled,
        margin=settings.switch_margin,
        noise=settings.switch_noise,
    )


def refuse_unknown_candidates(settings: ForecastSettings) -> None:
    """Raise `UsageError` where the settings name an engine or class that does not exist: before Spark starts."""
    create(settings.engine, EngineOptions())
    if unknown := sorted(set(settings.candidates) - set(MODELLED)):
        raise UsageError(f"forecast.candidates: no demand class {unknown[0]!r}; there are {', '.join(MODELLED)}")
    known = registered()
    wanted = [(f"forecast.candidates.{name}", engines) for name, engines in settings.candidates.items()]
    for setting, engines in (*wanted, ("forecast.ensemble", settings.ensemble), ("forecast.sampled", settings.sampled)):
        if missing := [name for name in engines if name not in known and name != DEFAULT]:
            raise UsageError(f"{setting} names {missing[0]!r}; expected {DEFAULT} or some of: {', '.join(known)}")
    if any("median_ensemble" in (settings.engine, *engines) for engines in settings.candidates.values()):
        _ = MedianEnsemble(EngineOptions(settings)).members


def _candidates(settings: ForecastSettings, demand_class: str) -> tuple[str, ...]:
    names = settings.candidates.get(demand_class) or (DEFAULT,)
    return tuple(dict.fromkeys(settings.engine if name == DEFAULT else name for name in names))


@dataclass(frozen=True)
class Outcome:
    """What training n series gave.

    Attributes:
        status, model, reason, demand_class: of each series; `attempted`: whether models were tried on it.
        default_failure: why `forecast.engine` could not forecast a series that it was tried on.
        tested: the backtest of what was chosen; `baseline`: seasonal naive's scores on the same days.
        scale: (n,) MASE's denominator.
        candidates: by name, every candidate's backtest of those series that it competed for, from which intervals
            are calibrated.
    """

    forecast: ForecastBatch
    status: tuple[str, ...]
    model: tuple[str, ...]
    reason: tuple[str | None, ...]
    demand_class: tuple[str, ...]
    attempted: tuple[bool, ...]
    default_failure: tuple[str | None, ...]
    tested: Tested
    baseline: Scores
    scale: Floats
    candidates: Mapping[str, Tested]


def train_batch(
    batch: SeriesBatch, contest: Competition, task: Task, previous: Sequence[str | None] | None = None
) -> Outcome:
    """Backtest all candidates on every series of a batch, choose, and forecast; never raises for a series.

    - A series that is too short, constant or without sales gets the fallback: status fallback.
    - Others get the candidate of their class with the least pinball loss over the cutoffs, if it beats the model of
      `previous` (yesterday's; else the class's first) by the margin and the noise: status ok. The reason says what
      was exchanged, by how much.
    - Where the chosen one fails, the next best takes its place, still ok; the reason says how it failed. Where all
      fail, the fallback does.
    - One that even the fallback fails on has no forecast: status failed.

    The scores reported are those of what was chosen; as the choice was made on the same days, they flatter slightly.
    """
    reasons = unsuitable(batch, task.minimum_days)
    classes = demand_classes(batch, task.minimum_days)
    attempted = np.array([reason is None for reason in reasons], bool)
    competing = _competing(batch, contest, classes, attempted)
    wanted = {**competing, contest.baseline: competing.get(contest.baseline, np.zeros_like(attempted)) | attempted}
    tested = backtest(contest.engines, wanted, batch, task)
    choice = _Choice(contest, competing, tested, task.probabilities, previous or (None,) * len(batch), classes)
    chosen, why = choice.made()
    forecast, model, default_failure = _forecast(batch, contest, task, choice, chosen, why)
    for place, failed in enumerate(default_failure):
        if failed is not None and failed not in (why[place] or ""):
            why[place] = "; ".join(part for part in (why[place], f"{contest.default} failed: {failed}") if part)
    reasons = [why[row] if attempted[row] else reasons[row] for row in range(len(batch))]
    rest = np.flatnonzero([name is None for name in model]).astype(np.int64)
    fallback = task.fit(contest.fallback, batch.take(rest))
    status = [OK] * len(batch)
    for row, failure in zip(rest, fallback.failures, strict=True):
        status[row], model[row] = (FALLBACK if failure is None else FAILED), contest.fallback.name
        if failure is not None:
            reasons[row] = f"{reasons[row]}; {contest.fallback.name} failed: {failure}"
    scale = training_scale(batch, task)
    names = tuple(name or contest.fallback.name for name in model)
    chosen_tests = _tested_of(tested, names, len(batch), task)
    compared = np.where(np.isfinite(chosen_tests.yhat), tested[contest.baseline].yhat, np.nan)
    return Outcome(
        forecast=forecast.with_rows(rest, fallback),
        status=tuple(status),
        model=names,
        reason=tuple(reasons),
        demand_class=classes,
        attempted=tuple(attempted.tolist()),
        default_failure=tuple(default_failure),
        tested=chosen_tests,
        baseline=replace(tested[contest.baseline], yhat=compared).scores(scale, task.probabilities),
        scale=scale,
        candidates={name: tested[name] for name in competing},
    )


def _competing(batch: SeriesBatch, contest: Competition, classes: Sequence[str], attempted: Flags) -> dict[str, Flags]:
    """(n,) by candidate, the series that it competes for."""
    drawn = batch.seeds / 2.0**32
    names = np.asarray(classes, object)
    out = {}
    for name in contest.names:
        mine = np.isin(names, [label for label, candidates in contest.classes.items() if name in candidates])
        out[name] = mine & attempted & (drawn < contest.sampled.get(name, 1.0))
    return out


def _tested_of(tested: Mapping[str, Tested], model: Sequence[str], count: int, task: Task) -> Tested:
    """Of each series, the backtest of its model."""
    out = Tested.nothing(count, task)
    names = np.asarray(model, object)
    for name, found in tested.items():
        rows = np.flatnonzero(names == name).astype(np.int64)
        if len(rows):
            out = out.with_rows(rows, found.take(rows))
    return out


class _Choice:
    """The choice for the series of a batch: losses (c, n, weeks) of c candidates, and who competes (c, n)."""

    def __init__(
        self,
        contest: Competition,
        competing: Mapping[str, Flags],
        tested: Mapping[str, Tested],
        probabilities: tuple[float, ...],
        previous: Sequence[str | None],
        classes: Sequence[str],
    ) -> None:
        self.names = tuple(competing)
        self.contest, self.tested = contest, tested
        self.competes = np.array([competing[name] for name in self.names], bool).reshape(len(self.names), -1)
        self.losses = np.array([tested[name].losses(probabilities) for name in self.names], float)
        days = [np.isfinite(tested[name].actual + tested[name].yhat).sum(axis=(1, 2)) for name in self.names]
        self.mean = _ratio(np.nansum(self.losses, axis=2), np.array(days, float))
        self.mean[~self.competes] = np.nan
        self.incumbent = np.array(
            [self._incumbent(row, previous[row], classes[row]) for row in range(self.competes.shape[1])], np.int64
        )

    def _incumbent(self, row: int, previous: str | None, demand_class: str) -> int:
        """The place of yesterday's model where it still competes, else of the first that does; -1 for none."""
        favoured = (previous, *self.contest.classes.get(demand_class, ()))
        places = [self.names.index(name) for name in favoured if name in self.names]
        return next((place for place in places if self.competes[place, row]), -1)

    def made(self) -> tuple[Integers, list[str | None]]:
        """(n,) places of the chosen candidates (-1: none competes), and reasons where it is not the incumbent."""
        place, gain = choose(self.losses, self.competes, self.incumbent, self.contest.margin, self.contest.noise)
        why: list[str | None] = [None] * len(place)
        for row in np.flatnonzero(place != self.incumbent):
            old, new = self.incumbent[row], place[row]
            if np.isfinite(gain[row]):
                why[row] = (
                    f"{self.names[new]} loses {self.mean[new, row]:.3g} a day (pinball) where {self.names[old]} "
                    f"loses {self.mean[old, row]:.3g}: {gain[row]:.0%} less"
                )
            else:
                why[row] = f"{self.names[old]} failed in the backtest: {self.tested[self.names[old]].failures[row]}"
        return place, why

    def next_best(self, row: int, without: set[int]) -> int:
        """The competing candidate of least loss apart from those named, those without a loss last; -1 for none."""
        left = [place for place in np.flatnonzero(self.competes[:, row]) if int(place) not in without]
        return int(min(left, key=lambda place: np.nan_to_num(self.mean[place, row], nan=np.inf), default=-1))


def choose(
    losses: Floats, competes: Flags, incumbent: Integers, margin: float, noise: float
) -> tuple[Integers, Floats]:
    """For each series, the candidate to forecast with.

    A challenger takes the incumbent's place if, over the weeks that both have a loss for, its sum is lower by the share
    `margin` of the incumbent's at least, and by `noise` standard errors of the weekly differences: the rule of one
    standard error (Breiman, Friedman, Olshen and Stone 1984) against choosing by luck among many. Of several, the one
    with the largest gain. An incumbent without any loss gives way to the least of those that have one.

    Args:
        losses: (c, n, weeks); NaN where there is none. competes: (c, n). incumbent: (n,) place, -1 for none.

    Returns:
        (n,) place of the chosen one, -1 where none competes; (n,) its gain as a share of the incumbent's loss, NaN
        where that had none.
    """
    count = losses.shape[1]
    rows = np.arange(count)
    held = losses[np.maximum(incumbent, 0), rows]
    difference = held[None] - losses
    known = np.isfinite(difference)
    weeks = known.sum(axis=2)
    total = np.where(known, difference, 0.0).sum(axis=2)
    spread = np.where(known, difference - _ratio(total, weeks)[:, :, None], 0.0)
    error = np.sqrt(_ratio((spread**2).sum(axis=2) * weeks, weeks - 1.0))
    gain = _ratio(total, np.where(known, held[None], 0.0).sum(axis=2))
    with np.errstate(invalid="ignore"):
        better = competes & (weeks > 0) & (gain > margin) & (total > noise * np.nan_to_num(error))
    best = np.where(better, gain, -np.inf)
    chosen = np.where(better.any(axis=0), best.argmax(axis=0), incumbent) if len(losses) else incumbent
    won = np.where(better.any(axis=0), best.max(axis=0), np.nan) if len(losses) else np.full(count, np.nan)
    scored = competes & np.isfinite(losses).any(axis=2)
    without = (incumbent >= 0) & ~np.isfinite(held).any(axis=1) & scored.any(axis=0)
    if without.any():
        least = np.where(scored, np.nansum(losses, axis=2), np.inf).argmin(axis=0)
        chosen = np.where(without, least, chosen)
    return np.asarray(chosen, np.int64), won


def _forecast(
    batch: SeriesBatch, contest: Competition, task: Task, choice: _Choice, chosen: Integers, why: list[str | None]
) -> tuple[ForecastBatch, list[str | None], list[str | None]]:
    """Forecasts by the chosen, or the next best where that fails; `why` is completed. Also the models' names (None:
    all failed) and what `forecast.engine` failed with."""
    forecast = task.nothing(len(batch), "no model was tried")
    model: list[str | None] = [None] * len(batch)
    default: list[str | None] = [None] * len(batch)
    if contest.default in choice.names:
        never = ~choice.tested[contest.default].there
        failures = choice.tested[contest.default].failures
        default = [failure if never[row] else None for row, failure in enumerate(failures)]
    tried: list[set[int]] = [set() for _ in range(len(batch))]
    open_rows = np.flatnonzero(chosen >= 0)
    chosen = chosen.copy()
    while len(open_rows):
        again = []
        for place in np.unique(chosen[open_rows]):
            name, rows = choice.names[place], open_rows[chosen[open_rows] == place].astype(np.int64)
            found = task.fit(contest.engines[name], batch.take(rows))
            forecast = forecast.with_rows(rows, found)
            for row, failure in zip(rows, found.failures, strict=True):
                model[row] = name if failure is None else None
                if name == contest.default:
                    default[row] = failure
                if failure is not None:
                    tried[row].add(int(place))
                    why[row] = "; ".join(part for part in (why[row], f"{name} failed: {failure}") if part)
                    chosen[row] = choice.next_best(row, tried[row])
                    again.append(row)
        open_rows = np.array([row for row in again if chosen[row] >= 0], np.int64)
    return forecast, model, default


def _ratio(numerator: Floats, denominator: Floats | Integers) -> Floats:
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
