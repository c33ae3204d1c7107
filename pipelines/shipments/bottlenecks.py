"""Where shipments get stuck: stays at each node against the node's own history.

A node is a bottleneck when more of the shipments there than chance explains have stayed beyond the 95th percentile of
its finished stays: with K of L beyond, when P(K or more of L | 5 %) is below `OPENS`; or when fewer have left lately
than were to: with N gone, when P(N or fewer | E) is, E being the sum over all that were there of the hazard of leaving
that they went through (Nelson and Aalen's estimate of the node's own stays). It ends when both are above `CLOSES`.
Weekends have limits of their own. The queue is checked against Little's law, L = λW (Little 1961): the stay
that follows from arrivals and queue is told beside the usual one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom, poisson

from pipelines.shipments.tracking import TERMINAL

SHARE = 0.05
"""Of finished stays that were longer than the limit."""
OPENS, CLOSES = 1e-4, 0.1
FEWEST = 3
"""Shipments beyond the limit, below which nothing is said."""
PRIOR = 20.0
"""A node's own stays count half when there are so many; else those of all nodes."""
LEAVING = (timedelta(hours=24), timedelta(hours=48))
"""Spans in which leavings are counted."""
LOOK_BACK = timedelta(days=90)
ARRIVALS = timedelta(days=7)

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class NodeState:
    """How a node does.

    Attributes:
        queue: shipments there. beyond: of them, those that have stayed longer than their limit.
        usual_hours: median of its finished stays. limit_hours: their 95th percentile, of stays begun like today's.
        implied_hours: the stay that follows from queue and arrivals by Little's law; None without arrivals.
        chance: of so many beyond the limit if all were as usual.
        left, expected_left: in the span of `LEAVING` in which the fewest left for what was to be; chance_left: of it.
        chance_today: of so few in the shortest span.
    """

    node: str
    queue: int
    beyond: int
    usual_hours: float
    limit_hours: float
    implied_hours: float | None
    chance: float
    left: int = 0
    expected_left: float = 0.0
    chance_left: float = 1.0
    chance_today: float = 1.0

    @property
    def opens(self) -> bool:
        """Whether it is a bottleneck now."""
        return (self.beyond >= FEWEST and self.chance < OPENS) or self.chance_left < OPENS

    @property
    def closes(self) -> bool:
        """Whether one that was is none any more."""
        return self.chance > CLOSES and self.chance_today > CLOSES

    def tell(self) -> str:
        """In one line."""
        if self.chance_left < self.chance:
            return (
                f"{self.left} shipments left {self.node} lately where {self.expected_left:.0f} were to; {self.queue} "
                f"are there (usual stay: {self.usual_hours:.0f} h)"
            )
        implied = "" if self.implied_hours is None else f"; queue and arrivals imply {self.implied_hours:.0f} h"
        return (
            f"{self.beyond} of {self.queue} shipments at {self.node} have stayed longer than {self.limit_hours:.0f} h, "
            f"which one in twenty does (usual: {self.usual_hours:.0f} h{implied})"
        )


def stays(events: pd.DataFrame) -> pd.DataFrame:
    """Stays at nodes, from the first event at a node to the first elsewhere, or to the shipment's end.

    Args:
        events: shipment_id, event_time, node, status; any order; legal or not.

    Returns:
        shipment_id, node, entered, left (NaT: still there), in order of time.
    """
    rows = events.sort_values(["shipment_id", "event_time"], kind="stable").reset_index(drop=True)
    moved = (rows.node != rows.node.shift()) | (rows.shipment_id != rows.shipment_id.shift())
    number = moved.cumsum()
    found = rows.groupby(number, sort=True).agg(
        shipment_id=("shipment_id", "first"), node=("node", "first"), entered=("event_time", "first")
    )
    following = found.entered.shift(-1).where(found.shipment_id == found.shipment_id.shift(-1))
    ended = rows.event_time.where(rows.status.isin(TERMINAL)).groupby(number).min()
    found["left"] = following.fillna(ended)
    return found.sort_values("entered", kind="stable").reset_index(drop=True)


def node_states(found: pd.DataFrame, now: datetime) -> list[NodeState]:
    """Every node with shipments in it, as of now; of stays that had begun by then, nothing later is looked at."""
    known = found[(found.entered <= now) & (found.entered > now - LOOK_BACK)]
    left = known.left.where(known.left <= now)
    hours = (left.fillna(now) - known.entered).dt.total_seconds() / 3600
    known = known.assign(hours=hours, finished=left.notna(), weekend=known.entered.dt.weekday >= 5)
    here = known[~known.finished]
    limits = _limits(known[known.finished])
    if here.empty or limits.overall is None:
        return []
    recent = known[known.entered > now - ARRIVALS].groupby("node").size()
    overall = cumulative_hazard(known.hours, known.finished)
    states = []
    for node, rows in here.groupby("node"):
        limit = np.array([limits.of(str(node), bool(weekend)) for weekend in rows.weekend])
        beyond, queue = int((rows.hours.to_numpy() > limit).sum()), len(rows)
        of_node = known[known.node == node]
        own = cumulative_hazard(of_node.hours, of_node.finished) if of_node.finished.sum() >= PRIOR else overall
        arrivals = float(recent.get(node, 0)) / (ARRIVALS / HOUR)
        states.append(
            NodeState(
                node=str(node),
                queue=queue,
                beyond=beyond,
                usual_hours=limits.usual.get(str(node), float("nan")),
                limit_hours=float(np.median(limit)),
                implied_hours=queue / arrivals if arrivals else None,
                chance=float(binom.sf(beyond - 1, queue, SHARE)),
                **_leaving(of_node.assign(left=left[of_node.index]), own, now),
            )
        )
    return states


Hazard = tuple[np.ndarray, np.ndarray]
"""Minutes, ascending, and the cumulative hazard of leaving by then."""


def cumulative_hazard(hours: pd.Series, finished: pd.Series) -> Hazard:
    """Nelson and Aalen's estimate: leavings over those still there, summed over the hours stayed."""
    stayed, place = np.unique(_minutes(hours), return_inverse=True)
    at_risk = np.bincount(place)[::-1].cumsum()[::-1]
    left = np.bincount(place, weights=finished.to_numpy(float))
    return np.concatenate([[-1.0], stayed]), np.concatenate([[0.0], np.cumsum(left / at_risk)])


def _minutes(hours: pd.Series) -> np.ndarray:
    """Whole minutes: stays that are alike by design are alike in numbers."""
    return np.asarray(np.round(hours.to_numpy(float) * 60))


def _leaving(rows: pd.DataFrame, hazard: Hazard, now: datetime) -> dict[str, Any]:
    """How many left a node lately and how many were to, in the span in which that is the least likely."""
    found: list[tuple[float, int, float]] = []
    for span in LEAVING:
        begin = pd.Timestamp(now - span)
        there = rows[(rows.entered < begin) & ~(rows.left <= begin)]
        ends = there.left.fillna(pd.Timestamp(now))
        ages = [_minutes((moment - there.entered).dt.total_seconds() / 3600) for moment in (begin, ends)]
        passed = [hazard[1][np.searchsorted(hazard[0], age, side="right") - 1] for age in ages]
        expected, left = float((passed[1] - passed[0]).sum()), int(there.left.notna().sum())
        found.append((float(poisson.cdf(left, expected)), left, expected))
    chance, left, expected = min(found)
    return {
        "left": left,
        "expected_left": expected,
        "chance_left": min(len(LEAVING) * chance, 1.0),
        "chance_today": found[0][0],
    }


@dataclass(frozen=True)
class _Limits:
    """95th percentiles of finished stays by node and kind of day, drawn towards the node's and that of all."""

    overall: float | None
    by_node: Mapping[str, float]
    by_day: Mapping[tuple[str, bool], float]
    usual: Mapping[str, float]

    def of(self, node: str, weekend: bool) -> float:
        """The limit of a stay that began at a node on such a day."""
        return self.by_day.get((node, weekend), self.by_node.get(node, self.overall or 0.0))


def _limits(finished: pd.DataFrame) -> _Limits:
    if finished.empty:
        return _Limits(None, {}, {}, {})
    overall = float(finished.hours.quantile(1 - SHARE))
    by_node = {str(node): _drawn(rows.hours, overall) for node, rows in finished.groupby("node")}
    by_day = {
        (str(node), bool(weekend)): _drawn(rows.hours, by_node[str(node)])
        for (node, weekend), rows in finished.groupby(["node", "weekend"])
    }
    usual = {str(node): float(hours) for node, hours in finished.groupby("node").hours.median().items()}
    return _Limits(overall, by_node, by_day, usual)


def _drawn(hours: pd.Series, towards: float) -> float:
    own = len(hours) / (len(hours) + PRIOR)
    return own * float(hours.quantile(1 - SHARE)) + (1 - own) * towards


def changes(states: Iterable[NodeState], open_nodes: set[str]) -> tuple[list[NodeState], list[str]]:
    """Bottlenecks that begin, and nodes where one has ended; a node without shipments has none."""
    by_node = {state.node: state for state in states}
    begun = [state for state in by_node.values() if state.opens and state.node not in open_nodes]
    ended = sorted(node for node in open_nodes if node not in by_node or by_node[node].closes)
    return begun, ended
