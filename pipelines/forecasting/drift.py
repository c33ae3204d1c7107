"""Published forecasts against what came since, and demand against its own past: pure arithmetic on arrays.

A limit counts as crossed only where it is exceeded by more than twice the sampling error of what is measured:
a category of five series is not reported for what chance alone does to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from pipelines.forecasting.metrics import ratio
from pipelines.forecasting.series import Floats, Integers
from pipelines.operations.settings import DriftSettings

NOMINAL_COVERAGE = 0.8
FEWEST_DAYS = 7
"""A series with fewer scored days gives no signal: the fewer they are, the larger chance makes it."""
SMALLEST_SAMPLE = 50
"""Fewer series than this have no stability index: it would measure chance."""
BINS = 10
ALL = "all"


@dataclass(frozen=True)
class Window:
    """The last W days of published forecasts of n series; NaN where a day was not forecast or not observable.

    Attributes:
        keys: (n,) `location_id|sku`, sorted and distinct.
        end: the last column's day.
        actual, yhat: (n, W) units a day.
        covered: (n, W) 1 where the 80 % interval held, 0 where not.
    """

    keys: npt.NDArray[np.object_]
    end: date
    actual: Floats
    yhat: Floats
    covered: Floats

    @property
    def days(self) -> int:
        """W."""
        return int(self.actual.shape[1])

    @classmethod
    def empty(cls, end: date, days: int) -> Window:
        """No series yet."""
        nothing = np.empty((0, days))
        return cls(np.empty(0, object), end, nothing, nothing, nothing)

    def moved(self, end: date) -> Window:
        """The same days as seen from another last day; those that leave the window are forgotten."""
        shift = (end - self.end).days

        def shifted(values: Floats) -> Floats:
            if shift <= 0:
                return values if shift == 0 else np.roll(_blank(values, slice(shift, None)), -shift, axis=1)
            return np.roll(_blank(values, slice(0, min(shift, self.days))), -shift, axis=1)

        return Window(self.keys, end, shifted(self.actual), shifted(self.yhat), shifted(self.covered))

    def with_scored(self, scored: Window) -> Window:
        """The window that ends with `scored`'s last day, in which the days that `scored` knows are its own."""
        old, keys = self.moved(scored.end), np.union1d(self.keys, scored.keys)
        merged = []
        for name in ("actual", "yhat", "covered"):
            values = np.full((len(keys), self.days), np.nan)
            values[np.searchsorted(keys, old.keys)] = getattr(old, name)
            rows, width = np.searchsorted(keys, scored.keys), min(scored.days, self.days)
            newest = values[rows]
            known = np.isfinite(scored.yhat[:, -width:])
            newest[:, -width:] = np.where(known, getattr(scored, name)[:, -width:], newest[:, -width:])
            values[rows] = newest
            merged.append(values)
        return Window(keys, scored.end, *merged)

    def only(self, keys: npt.NDArray[np.object_]) -> Window:
        """The series that are among `keys` and were scored on some day."""
        return self.take(np.flatnonzero(np.isin(self.keys, keys) & np.isfinite(self.error).any(axis=1)))

    def take(self, rows: Integers) -> Window:
        """The named rows."""
        return Window(self.keys[rows], self.end, self.actual[rows], self.yhat[rows], self.covered[rows])

    @property
    def error(self) -> Floats:
        """(n, W) forecast minus actual; NaN where not scored."""
        return self.yhat - self.actual


@dataclass(frozen=True)
class Drift:
    """One scope's figures, in the columns of `gold/forecast_drift`; NaN where unknown."""

    scope: str
    series: int
    scored_days: int
    WAPE: float
    bias: float
    coverage: float
    tracking_signal: float
    signalling_share: float
    level_change: float
    stability_index: float
    warning: str | None


def tracking_signal(error: Floats, smoothing: float) -> Floats:
    """(n,) Trigg's (1964, "Monitoring a forecasting system") smoothed error over smoothed absolute error, -1 to 1.

    Both averages start at zero, so that the start cancels; days that are NaN are left out.

    Args:
        error: (n, W) the newest last.
        smoothing: α, the weight of the newest day.

    Returns:
        NaN with fewer than `FEWEST_DAYS` days or errors that are all zero.
    """
    known = np.isfinite(error)
    weight, values = _weights(known, smoothing), np.where(known, error, 0.0)
    signal = ratio((weight * values).sum(axis=1), (weight * np.abs(values)).sum(axis=1))
    return np.where(known.sum(axis=1) >= FEWEST_DAYS, signal, np.nan)


def signal_limits(error: Floats, smoothing: float, limit: float) -> Floats:
    """(n,) the limit of |tracking signal| that is as hard to cross as `limit` is after many days.

    Independent normal errors give the signal a variance of about π/2 · Σw²/(Σw)² with the days' weights w, of which
    the second factor tends to α/(2-α): after many days and for α = 0.1 a limit of 0.6 is two standard deviations,
    after ten days they are 0.86. Above 1 there is no signal yet.
    """
    weight = _weights(np.isfinite(error), smoothing)
    return limit * np.sqrt(ratio((weight**2).sum(axis=1), weight.sum(axis=1) ** 2) * (2 - smoothing) / smoothing)


def level_change(weeks: Floats) -> Floats:
    """(n,) the last week's distance from the mean of those before it, in their standard deviations.

    Args:
        weeks: (n, k) units a week, k at least 3. The deviation is at least that of a Poisson count.
    """
    before, last = weeks[:, :-1], weeks[:, -1]
    mean = before.mean(axis=1)
    spread = np.maximum(before.std(axis=1, ddof=1), np.sqrt(mean)) * np.sqrt(1 + 1 / before.shape[1])
    return ratio(last - mean, spread)


def stability_index(before: Floats, after: Floats, bins: int = BINS) -> float:
    """Population stability index of two samples: Σ (a - b) ln(a / b) over the shares in the first one's quantiles.

    Half a unit is added to each count, so that an empty bin is finite. By the usual reading up to 0.1 is stable
    and above 0.25 has shifted; chance alone gives about 2 · (bins - 1) / n.

    Returns:
        NaN for samples of fewer than `SMALLEST_SAMPLE`.
    """
    if min(len(before), len(after)) < SMALLEST_SAMPLE:
        return float("nan")
    edges = np.unique(np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1]))
    expected, found = (
        np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1) + 0.5
        for sample in (before, after)
    )
    b, a = expected / expected.sum(), found / found.sum()
    return float(np.sum((a - b) * np.log(a / b)))


def measure(
    window: Window,
    window_category: Sequence[str],
    weeks: Floats,
    weeks_category: Sequence[str],
    settings: DriftSettings,
) -> list[Drift]:
    """Figures of the whole chain (scope `all`) and of each category, worst first within the categories.

    Args:
        window: what was scored; `window_category` of its n series.
        weeks: (m, 9) units of each series in the last nine weeks, the newest last; `weeks_category` of its m series.
    """
    names, code = np.unique(np.array([*window_category, *weeks_category], object), return_inverse=True)
    scored, demanded = code[: len(window_category)], code[len(window_category) :]
    # How far each series' signal is beyond its own limit: above 1 it signals.
    signal = np.abs(tracking_signal(window.error, settings.smoothing)) / signal_limits(
        window.error, settings.smoothing, settings.tracking_signal_limit
    )
    whole = _scope(ALL, window, signal, weeks, settings)
    parts = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(scored == number)
        parts.append(_scope(str(name), window.take(rows), signal[rows], weeks[demanded == number], settings))
    return [whole, *sorted(parts, key=lambda part: (part.warning is None, part.scope))]


def _scope(name: str, window: Window, signal: Floats, weeks: Floats, settings: DriftSettings) -> Drift:
    known = np.isfinite(window.error)
    error, actual = np.where(known, window.error, 0.0), np.where(known, window.actual, 0.0)
    days, units = int(known.sum()), float(actual.sum())
    daily = np.where(known.any(axis=0), error.sum(axis=0), np.nan)[None]
    signalled = signal[np.isfinite(signal)]
    found = {
        "WAPE": _quotient(float(np.abs(error).sum()), units),
        "bias": _quotient(float(error.sum()), units),
        "coverage": _quotient(float(np.where(known, window.covered, 0.0).sum()), days),
        "tracking_signal": float(tracking_signal(daily, settings.smoothing)[0]),
        "signalling_share": _quotient(float((signalled > 1).sum()), len(signalled)),
        "level_change": float(level_change(weeks.sum(axis=0, keepdims=True))[0]) if len(weeks) else float("nan"),
        "stability_index": stability_index(weeks[:, :4].mean(axis=1), weeks[:, -4:].mean(axis=1)),
    }
    noise = {
        "bias": _ratio_error(error.sum(axis=1), actual.sum(axis=1)),
        "coverage": _deviation(NOMINAL_COVERAGE, days),
        "signalling_share": _deviation(settings.signalling_share_limit, len(signalled)),
    }
    return Drift(
        scope=name, series=len(window.keys), scored_days=days, **found, warning=_warning(found, noise, settings)
    )


def _warning(found: dict[str, float], noise: dict[str, float], settings: DriftSettings) -> str | None:
    """The limits that were crossed, in words; comparisons with NaN are false."""
    told = []
    if abs(found["coverage"] - NOMINAL_COVERAGE) > settings.coverage_tolerance + 2 * noise["coverage"]:
        told.append(f"the 80 % interval covered {found['coverage']:.0%}")
    if abs(found["bias"]) > settings.bias_limit + 2 * noise["bias"]:
        told.append(f"forecasts were {abs(found['bias']):.0%} too {'high' if found['bias'] > 0 else 'low'}")
    if found["signalling_share"] > settings.signalling_share_limit + 2 * noise["signalling_share"]:
        told.append(f"{found['signalling_share']:.0%} of the series miss on one side again and again")
    if abs(found["level_change"]) > settings.level_change_limit:
        told.append(f"last week's demand is {found['level_change']:+.1f} standard deviations from the eight before")
    if found["stability_index"] > settings.stability_index_limit:
        told.append(f"the series' levels have shifted (stability index {found['stability_index']:.2f})")
    return "; ".join(told) or None


def _weights(known: npt.NDArray[np.bool_], smoothing: float) -> Floats:
    """(n, W) weights of exponential smoothing: 1 for each row's newest known day, 0 where it is not known."""
    age = known[:, ::-1].cumsum(axis=1)[:, ::-1] - 1
    return np.where(known, (1 - smoothing) ** age, 0.0)


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("nan")


def _ratio_error(numerator: Floats, denominator: Floats) -> float:
    """Standard error of Σ numerator / Σ denominator over a sample of series; NaN for fewer than two."""
    total, count = float(denominator.sum()), int((denominator > 0).sum())
    if count < 2 or total <= 0:
        return float("nan")
    rest = numerator - float(numerator.sum()) / total * denominator
    return float(np.sqrt(np.square(rest).sum() * count / (count - 1)) / total)


def _deviation(share: float, count: int) -> float:
    return float(np.sqrt(share * (1 - share) / count)) if count else float("nan")


def _blank(values: Floats, columns: slice) -> Floats:
    blanked = values.copy()
    blanked[:, columns] = np.nan
    return blanked
