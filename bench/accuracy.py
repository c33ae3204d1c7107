"""Forecast accuracy from rolling origins: every registered model, and what the training makes of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np

from bench.accuracy_data import DataSet, data_sets
from bench.harness import Options, say
from bench.report import foot
from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.calibration import calibrate, corrected, corrections_of
from pipelines.forecasting.category import CategoryProfiles
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, create, fit_safely, registered
from pipelines.forecasting.fitted import dense_histograms, sparse_histograms
from pipelines.forecasting.metrics import naive_scale, pinball
from pipelines.forecasting.pooled.pools import learn_pools
from pipelines.forecasting.rolling import INTERVAL, Task
from pipelines.forecasting.selection import competition, train_batch
from pipelines.forecasting.series import SeriesBatch
from pipelines.operations.settings import ForecastSettings

CALL = 256
STOCK = "prophet"
NOT_COMPETING = ("category_profile",)
"""Forecasts what nothing else can, and is no candidate."""
PROCESSES = 2

Rows = dict[str, list[dict[str, Any]]]


def measure(options: Options) -> Rows:
    """Scores by data set, a row a model and cutoff. Stock Prophet forecasts every series, in two processes."""
    results: Rows = {}
    for data in data_sets(options.data, min(options.forecast_series, 500)):
        results[data.name] = []
        for cutoff in data.cutoffs:
            for row in scores_at(data, cutoff, _models()):
                results[data.name].append({"cutoff": cutoff.isoformat(), **row})
                say(f"{data.name} {cutoff}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    return results


def _models() -> list[str]:
    return [name for name in registered() if name not in NOT_COMPETING]


def scores_at(data: DataSet, cutoff: date, models: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row of scores for each of these models and for the whole training, from one cutoff."""
    known = data.batch.until(cutoff)
    settings = ForecastSettings(horizon_days=data.horizon)
    task = Task(data.horizon, settings.minimum_history_days, QUANTILES, settings.backtest_cutoffs)
    options = EngineOptions(settings, CategoryProfiles(), learn_pools(known, [*task.origins(cutoff), cutoff]))
    first = data.batch.days - (data.batch.end - cutoff).days
    actual = data.batch.demand[:, first : first + data.horizon]
    scale = naive_scale(known.demand)
    for name in models:
        started = time.perf_counter()
        found = _stock(known, options, task) if name == STOCK else _fit(name, known, options, task)
        yield {"model": name, **_scores(actual, found, scale), "seconds": time.perf_counter() - started}
    started = time.perf_counter()
    found, plain, chosen = _trained(known, options, task)
    seconds = time.perf_counter() - started
    told = ", ".join(f"{count} {name}" for name, count in chosen.most_common())
    yield {"model": "chosen per series", **_scores(actual, plain, scale), "seconds": seconds, "chosen": told}
    yield {"model": "chosen, calibrated", **_scores(actual, found, scale), "seconds": seconds}


def _calls(batch: SeriesBatch, size: int = CALL) -> Iterator[SeriesBatch]:
    for start in range(0, len(batch), size):
        yield batch.take(np.arange(start, min(start + size, len(batch))))


def _joined(parts: Sequence[ForecastBatch]) -> ForecastBatch:
    return ForecastBatch(
        np.concatenate([part.yhat for part in parts]),
        np.concatenate([part.quantiles for part in parts]),
        sum((part.parameters for part in parts), ()),
        sum((part.failures for part in parts), ()),
    )


def _fit(name: str, batch: SeriesBatch, options: EngineOptions, task: Task) -> ForecastBatch:
    engine = create(name, options)
    return _joined([fit_safely(engine, part, task.horizon, task.probabilities) for part in _calls(batch)])


def _stock(batch: SeriesBatch, options: EngineOptions, task: Task) -> ForecastBatch:
    plain = replace(options, pools=type(options.pools)())
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(_fit, STOCK, part, plain, task) for part in _calls(batch, 10)]
        return _joined([job.result() for job in jobs])


def _trained(
    batch: SeriesBatch, options: EngineOptions, task: Task
) -> tuple[ForecastBatch, ForecastBatch, Counter[str]]:
    """What a training gives: calibrated, and as the chosen models gave it; and how often each was chosen."""
    contest = competition(options.settings, options)
    parts = [train_batch(part, contest, task) for part in _calls(batch)]
    sums: Counter[int] = Counter()
    for part in parts:
        place, mass = sparse_histograms(part, contest.names, task)
        sums.update(dict(zip(place.tolist(), mass.tolist(), strict=True)))
    place = np.array(sorted(sums), np.int64)
    mass = np.array([sums[key] for key in place.tolist()], np.int64)
    learnt = calibrate(dense_histograms(place, mass, contest.names, task), task.probabilities)
    plain = _joined([part.forecast for part in parts])
    model = [name for part in parts for name in part.model]
    classes = [name for part in parts for name in part.demand_class]
    corrections, there = corrections_of(learnt.of, classes, model, task.probabilities)
    quantiles = plain.quantiles.copy()
    quantiles[there] = corrected(quantiles[there], corrections[there], task.probabilities)
    return replace(plain, quantiles=quantiles), plain, Counter(model)


def _scores(actual: np.ndarray, found: ForecastBatch, scale: np.ndarray) -> dict[str, Any]:
    """Pooled over all series and days that were forecast; MASE is the mean over the series."""
    days = np.isfinite(actual) & np.isfinite(found.yhat)
    error = np.where(days, found.yhat - actual, 0.0)
    low, high = (found.quantiles[..., QUANTILES.index(probability)] for probability in INTERVAL)
    units = np.where(days, actual, 0.0).sum()
    mase = np.abs(error).sum(axis=1) / np.where(days.any(axis=1) & (scale > 0), days.sum(axis=1) * scale, np.nan)
    return {
        "wape": float(np.abs(error).sum() / units),
        "mase": float(np.nanmean(mase)),
        "pinball": float(np.nansum(pinball(np.where(days, actual, np.nan), found.quantiles, QUANTILES)) / units),
        "bias": float(error.sum() / units),
        "coverage": float(((actual >= low) & (actual <= high))[days].mean()),
        "failed": int(sum(failure is not None for failure in found.failures)),
    }


def section(options: Options, results: Rows, command: str) -> str:
    """A table for each data set."""
    parts = []
    for name, rows in results.items():
        cutoffs = sorted({row["cutoff"] for row in rows})
        models = list(dict.fromkeys(row["model"] for row in rows))
        head = ["model", *(f"WAPE from {cutoff}" for cutoff in cutoffs), "WAPE", "MASE", "pinball", "bias", "80 %", "s"]
        lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        for model in models:
            mine = sorted((row for row in rows if row["model"] == model), key=lambda row: row["cutoff"])
            means = {key: np.mean([row[key] for row in mine]) for key in mine[0] if isinstance(mine[0][key], float)}
            cells = [model, *(f"{row['wape']:.3f}" for row in mine), f"{means['wape']:.4f}", f"{means['mase']:.3f}"]
            cells += [f"{means['pinball']:.4f}", f"{means['bias']:+.3f}", f"{means['coverage']:.1%}"]
            lines.append("| " + " | ".join([*cells, f"{means['seconds']:.1f}"]) + " |")
        told = "; ".join(f"from {row['cutoff']}: {row['chosen']}" for row in rows if "chosen" in row)
        parts.append(f"**{name}**\n\n" + "\n".join(lines) + f"\n\nChosen: {told}.")
    tables = "\n\n".join(parts)
    return f"""
## Accuracy from rolling origins

Every model forecasts from each cutoff, from nothing later; the real series 90 days (daily sales of stores and items),
the simulated ones 28 (`bench/accuracy_data.py` says how they are made). Means over the cutoffs; WAPE, bias and pinball
loss pool all series and are shares of what was demanded, MASE is the mean over the series, `80 %` is what the interval
covers. `chosen per series` is the whole training inside each cutoff: its own rolling-origin backtest of the default
candidates, the choice, and `calibrated` its corrected intervals. Seconds a cutoff, stock Prophet in two processes, the
others in one.

{tables}

{foot(command)}"""
