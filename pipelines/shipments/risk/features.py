"""What is known of a shipment when its lateness is predicted, as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipelines.shipments.risk.columns import DATE, DELIVERED, NUMBER, ORDER, SCHEDULED
from pipelines.shipments.risk.history import HALF_LIVES, histories
from pipelines.shipments.risk.neighbours import MARK, neighbours

CALENDAR = "calendar"


def prediction_days(rows: pd.DataFrame, notice_days: float) -> np.ndarray:
    """The day of each row's prediction: `notice_days` before it is due."""
    return rows[SCHEDULED].to_numpy(float) - notice_days


def last_known(outcomes: pd.DataFrame) -> float:
    """The last day that outcomes tell of, where nothing else says so: of the last delivery."""
    return float(np.nanmax(outcomes[DELIVERED].to_numpy(float), initial=-np.inf))


def features(rows: pd.DataFrame, at: np.ndarray, outcomes: pd.DataFrame, horizon: float | None = None) -> pd.DataFrame:
    """One row of numbers for each of `rows`, from what was known before the day `at`.

    The rows' own outcomes are not looked at, whether or not `outcomes` contains them, nor those of their orders.
    Milestones later than `at` are unknown. `horizon`: the last day that `outcomes` knows of; None: `last_known`.
    """
    horizon = last_known(outcomes) if horizon is None else horizon
    found = {f"{CALENDAR}: {name}": values for name, values in _calendar(rows[SCHEDULED].to_numpy(float)).items()}
    for name in _named(rows, NUMBER):
        values = rows[NUMBER + name].to_numpy(float)
        found[name] = np.sign(values) * np.log1p(np.abs(values))
    for name in _named(rows, DATE):
        day = rows[DATE + name].to_numpy(float)
        found[f"days since {name}"] = np.where(day < at, rows[SCHEDULED].to_numpy(float) - day, np.nan)
    found |= _of_the_order(rows)
    found |= neighbours(rows, at, outcomes, horizon)
    found |= histories(rows, at, outcomes, horizon)
    return pd.DataFrame(found)


def is_history(feature: str) -> bool:
    """Whether a feature is a rate, a delay or a weight of a key's past."""
    return subject(feature).endswith(" history")


def rates(names: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Places of the rates of late ones, long and short: of everything, and of the first key against that."""
    found = [place for place, name in enumerate(names) if is_history(name) and name.split(" ")[-2] == "late"]
    lives = len(HALF_LIVES)
    return tuple(found[:lives]), tuple(found[lives : 2 * lives])


def subject(feature: str) -> str:
    """What a feature is about: features of one subject are explained together."""
    words = feature.split(" ")
    if words[0] == f"{CALENDAR}:":
        return CALENDAR
    for mark in ("late", "delay", "weight"):
        if mark in words[1:] and (words[-1] == mark or words[-1].isdigit()):
            return " ".join(words[: words.index(mark, 1)]) + " history"
    if MARK in words[1:]:
        return " ".join(words[: words.index(MARK) + 1])
    return "order" if words[0] == ORDER else feature


def _calendar(day: np.ndarray) -> dict[str, np.ndarray]:
    dates = pd.DatetimeIndex(day.astype("datetime64[D]"))
    return {
        "month": dates.month.to_numpy(float),
        "weekday": dates.dayofweek.to_numpy(float),
        "day of month": dates.day.to_numpy(float),
        "days to month's end": (dates.days_in_month - dates.day).to_numpy(float),
    }


def _of_the_order(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Lines of the same order as it was placed: how many, and its numbers' sums."""
    if rows[ORDER].is_unique:
        return {}
    grouped = rows.groupby(ORDER, sort=False)
    found = {"order lines": grouped[SCHEDULED].transform("size").to_numpy(float)}
    for name in _named(rows, NUMBER):
        total = grouped[NUMBER + name].transform("sum").to_numpy(float)
        found[f"order total {name}"] = np.sign(total) * np.log1p(np.abs(total))
    return found


def _named(rows: pd.DataFrame, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in map(str, rows.columns) if name.startswith(prefix)]
