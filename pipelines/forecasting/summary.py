"""A training in a few numbers, pooled over its series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pipelines.forecasting.selection import FAILED, FALLBACK, OK


@dataclass(frozen=True)
class Summary:
    """Counts by status and model, and the backtest's pooled scores (NaN where nothing was scored).

    `wape` and `baseline_wape` pool the same series: Σ|y - ŷ| / Σ|y| of what was chosen and of seasonal naive.
    `mase` is the mean over the series.
    """

    status: dict[str, int]
    models: dict[str, int]
    wape: float
    baseline_wape: float
    mase: float
    bias: float
    coverage: float
    scored: int

    def metrics(self) -> dict[str, float]:
        """As flat numbers, for tracking."""
        return {
            "wape": self.wape,
            "baseline_wape": self.baseline_wape,
            "mase": self.mase,
            "bias": self.bias,
            "coverage": self.coverage,
            "scored_series": float(self.scored),
            "series": float(sum(self.status.values())),
            **{f"status.{name}": float(count) for name, count in self.status.items()},
            **{f"model.{name}": float(count) for name, count in self.models.items()},
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.status.items())
        return (
            f"{counts}; backtest of {self.scored} series: WAPE {self.wape:.3f} (seasonal naive "
            f"{self.baseline_wape:.3f}), bias {self.bias:+.3f}, 80 % interval covers {self.coverage:.0%}"
        )


def summarise(status: pd.DataFrame) -> Summary:
    """Pool the rows of a training (the scalar columns of `TRAINED_SERIES`)."""
    scored = status[status["days"].notna() & status["baseline_absolute_error"].notna()]
    sums = scored[["absolute_error", "baseline_absolute_error", "error", "actual", "covered", "days"]].sum()

    def share(numerator: str, denominator: str) -> float:
        return float(sums[numerator] / sums[denominator]) if sums[denominator] > 0 else float("nan")

    return Summary(
        status={name: int((status["status"] == name).sum()) for name in (OK, FALLBACK, FAILED)},
        models={str(name): int(count) for name, count in status["model"].value_counts().sort_index().items()},
        wape=share("absolute_error", "actual"),
        baseline_wape=share("baseline_absolute_error", "actual"),
        mase=float(scored["MASE"].mean()) if len(scored) else float("nan"),
        bias=share("error", "actual"),
        coverage=share("covered", "days"),
        scored=len(scored),
    )


def sample_keys(
    status: pd.DataFrame, count: int = 4, places: Sequence[float] = (0.0, 0.5, 1.0, 0.25, 0.75)
) -> list[tuple[str, str]]:
    """A sample of series that shows the range: by default the best, the median, the worst by WAPE, and a fallback.

    Args:
        places: ranks by WAPE, 0 to 1, the first ones taken where `count` is smaller.
    """
    scored = status.dropna(subset=["WAPE"]).sort_values(["WAPE", "location_id", "sku"])
    fallback = status[status["status"] == FALLBACK].sort_values(["location_id", "sku"])
    chosen = places[: max(count - (1 if len(fallback) else 0), 0)]
    rows = [scored.iloc[round(place * (len(scored) - 1))] for place in chosen if len(scored)]
    rows += [row for _, row in fallback.head(count - len(rows)).iterrows()]
    keys = [(str(row["location_id"]), str(row["sku"])) for row in rows]
    return list(dict.fromkeys(keys))


def worst_keys(status: pd.DataFrame, count: int) -> list[tuple[str, str]]:
    """The series with the largest errors for their size: Σ|y - ŷ| over √(days · Σ|y|).

    A Poisson count of any level has about 0.8 there, so that neither the largest series nor those of a few units
    come first, but those that a model could forecast better.
    """
    rows = worst_series(status, count)
    return [(str(row["location_id"]), str(row["sku"])) for _, row in rows.iterrows()]


def worst_series(status: pd.DataFrame, count: int) -> pd.DataFrame:
    """Those series' rows of `status`, worst first, with that measure as `error_for_its_size`."""
    scored = status[(status["days"] > 0) & (status["actual"] > 0)]
    size = (scored["days"] * scored["actual"]) ** 0.5
    ranked = scored.assign(error_for_its_size=scored["absolute_error"] / size)
    return ranked.sort_values(["error_for_its_size", "location_id", "sku"], ascending=[False, True, True]).head(count)
