"""Quantiles that hold: what the backtests of all series say of a model's quantiles, pooled, and put right.

A model's own quantiles give each past day's demand a probability integral transform, its place F(y) between 0 and 1 in
the distribution that was forecast. Were the quantiles right, these would be uniform. Where they are not, quantile p is
taken from the place below which a share p of the pooled places lay: distributional conformal prediction
(Chernozhukov, Wüthrich and Zhu 2021) in its split form, with the backtest as the calibration set; Kuleshov, Fenner and
Ermon (2018) call it recalibration. Each series keeps its own width; what is common to a demand class, a model and a
stretch of the horizon is corrected.

Only histograms of places leave the executors, so that memory does not grow with the number of series. Counts have
steps: a day's place is spread evenly between F(y - 1/2) and F(y + 1/2) (Czado, Gneiting and Held 2009, "Predictive
model assessment for count data"). The histograms are kept by cutoff: a correction is used only where one that was
learnt from the other cutoffs would have been better than none, and coverage is reported from such corrections alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from scipy import special

from pipelines.forecasting.compiled import compiled
from pipelines.forecasting.engines import monotone
from pipelines.forecasting.series import Floats, Integers

BUCKET_DAYS = (7, 28)
"""The horizon's stretches end with these days; the last has no end."""
BUCKETS = len(BUCKET_DAYS) + 1
EDGES = np.concatenate([[0.0], special.ndtr(np.linspace(-4.0, 4.0, 161)), [1.0]])
"""Of the histograms of places: equal steps of a normal score, so that tails are as fine as the middle."""
BINS = len(EDGES) - 1
UNIT = 1 << 16
"""What one day counts: masses are whole numbers, so that sums do not depend on their order."""
PRIOR_DAYS = 500.0
"""Days that a wider pool (the whole horizon, then no correction at all) counts beside a histogram's own."""
COUNTED_RANGE = 6.0
"""Quantiles that are counts with an 80 % interval no wider than this are left alone: of half a dozen counts none can be
moved by a few points, and seven quantiles say too little of the steps between them."""

KEY = "calibration"
"""Where a model's parameters hold the correction of its quantiles."""

Correction = Floats
"""(buckets, q) the probabilities to take the quantiles from, one row a stretch of the horizon."""


def buckets(horizon: int) -> Integers:
    """(h,) the stretch that each day ahead belongs to."""
    return np.searchsorted(np.asarray(BUCKET_DAYS), np.arange(1, horizon + 1)).astype(np.int64)


def place_histograms(actual: Floats, quantiles: Floats, probabilities: Sequence[float]) -> Integers:
    """(k, buckets, BINS) masses, in `UNIT`s, of the places of demand in its forecast distributions.

    Args:
        actual: (n, k, h), NaN where unknown. quantiles: (n, k, h, q), NaN where not forecast. Days whose quantiles
            are a few counts are left out, see `COUNTED_RANGE`.
    """
    count, cutoffs, horizon = actual.shape
    out = np.zeros((cutoffs, BUCKETS, BINS), np.int64)
    known = np.isfinite(actual) & np.isfinite(quantiles[..., 0]) & ~_few_counts(quantiles)
    if not known.any():
        return out
    cell = np.arange(cutoffs)[:, None] * BUCKETS + buckets(horizon)
    cells = np.broadcast_to(cell, (count, cutoffs, horizon))[known]
    y, q = actual[known], quantiles[known]
    score = special.ndtri(np.asarray(probabilities, float))
    low, high = places(y - 0.5, q, score), places(y + 0.5, q, score)
    _add_masses(low, np.maximum(high, low), cells, EDGES, UNIT, out.reshape(-1, BINS))
    return out


def places(values: Floats, quantiles: Floats, score: Floats) -> Floats:
    """(m,) probability below each value, by its (m, q) quantiles: normal scores are interpolated, and go on outside the
    outermost quantiles as steeply as between the two outermost ones a fifth of the distribution apart."""
    out = np.empty(len(values))
    _places(np.ascontiguousarray(values), np.ascontiguousarray(quantiles), score, out)
    return np.asarray(special.ndtr(out), float)


@compiled
def _places(values: Floats, quantiles: Floats, score: Floats, out: Floats) -> None:
    last = score.shape[0] - 1
    for row in range(values.shape[0]):
        y, q = values[row], quantiles[row]
        if y < q[0]:
            width = (q[2] - q[0]) / (score[2] - score[0])
            out[row] = score[0] + (y - q[0]) / width if width > 0.0 else -8.0
        elif y >= q[last]:
            width = (q[last] - q[last - 2]) / (score[last] - score[last - 2])
            out[row] = score[last] + (y - q[last]) / width if width > 0.0 else (8.0 if y > q[last] else score[last])
        else:
            place = 0
            while q[place + 1] <= y:
                place += 1
            share = (y - q[place]) / (q[place + 1] - q[place])
            out[row] = score[place] + share * (score[place + 1] - score[place])
        out[row] = min(max(out[row], -8.0), 8.0)


@compiled
def _add_masses(low: Floats, high: Floats, cell: Integers, edges: Floats, unit: int, out: Integers) -> None:
    for row in range(low.shape[0]):
        first = np.searchsorted(edges, low[row], side="right") - 1
        first = min(max(first, 0), out.shape[1] - 1)
        width, given = high[row] - low[row], 0
        place = first
        while place < out.shape[1] - 1 and edges[place + 1] < high[row]:
            part = int(unit * (edges[place + 1] - max(low[row], edges[place])) / width)
            out[cell[row], place] += part
            given += part
            place += 1
        out[cell[row], place] += unit - given


@dataclass(frozen=True)
class Calibration:
    """Corrections by demand class and model; what has none is right as it is, or nothing better is known.

    Attributes:
        of: from all cutoffs, for the days to come.
        without: by cutoff, from the other cutoffs alone: what coverage is honestly reported with.
        deviations: by demand class and model, the mean distance of places from uniform, uncorrected and corrected by
            the other cutoffs.
    """

    of: Mapping[tuple[str, str], Correction] = field(default_factory=dict)
    without: tuple[Mapping[tuple[str, str], Correction], ...] = ()
    deviations: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)


def calibrate(histograms: Mapping[tuple[str, str], Integers], probabilities: Sequence[float]) -> Calibration:
    """The corrections from histograms (k, buckets, BINS) by demand class and model.

    With one cutoff there is nothing to check a correction against, hence none is made.
    """
    final: dict[tuple[str, str], Correction] = {}
    deviations: dict[tuple[str, str], tuple[float, float]] = {}
    cutoffs = max((len(masses) for masses in histograms.values()), default=0)
    without: list[dict[tuple[str, str], Correction]] = [{} for _ in range(cutoffs)]
    for key, masses in sorted(histograms.items()):
        used = [place for place in range(len(masses)) if masses[place].any()]
        if len(used) < 2:
            continue
        others = {place: correction(masses.sum(axis=0) - masses[place], probabilities) for place in used}
        before = _deviation({place: np.tile(probabilities, (BUCKETS, 1)) for place in used}, masses, probabilities)
        after = _deviation(others, masses, probabilities)
        deviations[key] = (before, after)
        if after < before:
            final[key] = correction(masses.sum(axis=0), probabilities)
            for place, learnt in others.items():
                without[place][key] = learnt
    return Calibration(final, tuple(without), deviations)


def correction(masses: npt.NDArray[Any], probabilities: Sequence[float]) -> Correction:
    """(buckets, q) where the quantiles of each stretch are to be taken from, by its histogram (buckets, BINS)."""
    uniform = np.diff(EDGES)
    whole = _leaning(masses.sum(axis=0), uniform)
    rows = []
    for bucket in range(BUCKETS):
        share = np.concatenate([[0.0], np.cumsum(_leaning(masses[bucket], whole))])
        rows.append(np.interp(probabilities, share / share[-1], EDGES))
    return np.array(rows)


def _leaning(masses: npt.NDArray[Any], prior: Floats) -> Floats:
    """Shares of the bins, `PRIOR_DAYS` days of a prior added."""
    days = masses.astype(float) / UNIT
    return np.asarray((days + PRIOR_DAYS * prior) / (days.sum() + PRIOR_DAYS), float)


def _deviation(corrections: Mapping[int, Correction], masses: Integers, probabilities: Sequence[float]) -> float:
    """Root mean squared distance between p and the share of places below the corrected p, each cutoff's by its own."""
    squares, weights = 0.0, 0.0
    for place, learnt in corrections.items():
        for bucket in range(BUCKETS):
            days = float(masses[place, bucket].sum())
            if days == 0:
                continue
            share = np.concatenate([[0.0], np.cumsum(masses[place, bucket]) / days])
            found = np.interp(learnt[bucket], EDGES, share)
            squares += days * float(np.mean((found - np.asarray(probabilities)) ** 2))
            weights += days
    return float(np.sqrt(squares / weights)) if weights else 0.0


def corrected(quantiles: Floats, corrections: Floats, probabilities: Sequence[float]) -> Floats:
    """Quantiles taken from other places of the same distributions; non-negative, never crossing.

    Args:
        quantiles: (..., h, q). corrections: (..., buckets, q), of each series or one for all.
    """
    horizon = quantiles.shape[-2]
    wanted = special.ndtri(np.clip(corrections[..., buckets(horizon), :], 1e-9, 1 - 1e-9))
    wanted = np.broadcast_to(wanted, quantiles.shape)
    score = special.ndtri(np.asarray(probabilities, float))
    last = len(score) - 1
    place = np.clip(np.searchsorted(score, wanted, side="right") - 1, 0, last - 1)
    lower = np.take_along_axis(quantiles, place, axis=-1)
    slope = (np.take_along_axis(quantiles, place + 1, axis=-1) - lower) / (score[place + 1] - score[place])
    out = lower + slope * (wanted - score[place])
    # Outside, as steep as the outermost fifth: the last step alone is a count's, or none at all.
    first_slope = (quantiles[..., [2]] - quantiles[..., [0]]) / (score[2] - score[0])
    last_slope = (quantiles[..., [last]] - quantiles[..., [last - 2]]) / (score[last] - score[last - 2])
    out = np.where(wanted < score[0], quantiles[..., [0]] + first_slope * (wanted - score[0]), out)
    out = np.where(wanted > score[last], quantiles[..., [last]] + last_slope * (wanted - score[last]), out)
    return monotone(np.where(_few_counts(quantiles)[..., None], quantiles, out))


def _few_counts(quantiles: Floats) -> npt.NDArray[np.bool_]:
    """(...) whether a day's quantiles (..., q) are a few counts."""
    whole = (quantiles == np.rint(quantiles)).all(axis=-1)
    return np.asarray(whole & (quantiles[..., -2] - quantiles[..., 1] <= COUNTED_RANGE), bool)


def add_to_parameters(parameters: str, correction: Correction) -> str:
    """A model's parameters (a JSON object) with the correction of its quantiles: `replaying` applies it."""
    text = orjson.dumps({KEY: correction.tolist()}).decode()
    return text if parameters == "{}" else f"{parameters.rstrip()[:-1]},{text[1:]}"


def correction_in(parameters: str) -> Correction | None:
    """The correction that a model's parameters hold; None for none."""
    if f'"{KEY}"' not in parameters:
        return None
    return np.array(orjson.loads(parameters)[KEY], float)


def corrections_of(
    calibration: Mapping[tuple[str, str], Correction],
    demand_class: Sequence[str],
    model: Sequence[str],
    probabilities: Sequence[float],
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(n, buckets, q) each series' correction, and (n,) whether it has one."""
    none = np.tile(np.asarray(probabilities, float), (BUCKETS, 1))
    keys = list(zip(demand_class, model, strict=True))
    there = np.array([key in calibration for key in keys], bool)
    found = [calibration.get(key, none) for key in keys]
    return np.array(found, float).reshape(-1, BUCKETS, len(probabilities)), there
