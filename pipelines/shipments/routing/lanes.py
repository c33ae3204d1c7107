"""Lanes as a graph: which carrier brings goods from node to node by which mode, and how long that takes.

Learnt from shipment events up to a moment, nothing later. A leg lasts from a shipment's last event at one node to its
first at the next; what lies between the first and the last event at a node is its handling there. A carrier's times
on a lane are drawn towards all carriers' times on it by that mode, and these towards the mode's speed over the
great-circle distance (an ordinary shrinkage: so many legs of one's own against so many of the usual).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array
from scipy.sparse.csgraph import yen

from pipelines.contracts.tables import TIME
from pipelines.operations.settings import RoutingSettings
from pipelines.shipments.routing.durations import Duration, Place, distance_km

COLUMNS = ("shipment_id", "event_time", "node", "carrier_id", "mode")
UNKNOWN, ROAD = "unknown", "road"
PATHS = 2
"""Ways of one carrier and mode that are looked at, the quickest first."""

HOUR_US = 3_600_000_000.0
_SHORTEST = 1e-6
"""Hours of a lane that takes no time."""


class Key(NamedTuple):
    """Who carries, and how."""

    carrier_id: str
    mode: str


@dataclass(frozen=True)
class Way:
    """A way from node to node: `keys[i]` brings the goods from `nodes[i]` to `nodes[i + 1]`, `km[i]` far."""

    nodes: tuple[str, ...]
    keys: tuple[Key, ...]
    km: tuple[float, ...]
    takes: Duration

    @property
    def via(self) -> tuple[str, ...]:
        """The nodes between."""
        return self.nodes[1:-1]


@dataclass(frozen=True)
class _View:
    """The lanes of one carrier and mode: a graph, and the same as a matrix of hours with its rows by node."""

    graph: nx.DiGraph
    rows: Mapping[str, int]
    hours: csr_array

    def paths(self, here: str, there: str) -> list[tuple[str, ...]]:
        """Up to `PATHS` ways without a circle, the quickest first (J. Y. Yen, Management Science 17, 1971); none where
        a node is not among them."""
        if here not in self.rows or there not in self.rows:
            return []
        begin, end = self.rows[here], self.rows[there]
        found, before = yen(self.hours, begin, end, PATHS, return_predecessors=True)
        names, paths = list(self.rows), []
        for step in before[: len(found)].tolist():
            path = [end]
            while path[-1] != begin:
                path.append(step[path[-1]])
            paths.append(tuple(names[row] for row in reversed(path)))
        return paths


@dataclass
class _Tally:
    legs: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def shrunk(self, usual: Duration, weight: float) -> Duration:
        """What so many legs say, with what is usual counting as `weight` legs."""
        count = self.legs + weight
        if count <= 0.0:
            return usual
        mean = (self.total + weight * usual.hours) / count
        within = self.squares - self.total**2 / self.legs if self.legs else 0.0
        apart = self.legs * weight / count * (self.total / self.legs - usual.hours) ** 2 if self.legs else 0.0
        return Duration(mean, (max(within, 0.0) + weight * usual.variance + apart) / count)


@dataclass
class Lanes:
    """What is known of ways, as of a moment.

    Attributes:
        graph: an edge for each lane, carrier and mode, with its `takes`, `km` and number of `legs`.
        handling: time at a node.
    """

    settings: RoutingSettings
    places: Mapping[str, Place]
    as_of: datetime
    graph: nx.MultiDiGraph = field(default_factory=nx.MultiDiGraph)
    handling: dict[str, Duration] = field(default_factory=dict)
    _views: dict[Key | None, _View] = field(default_factory=dict)
    _ways: dict[tuple[str, str], tuple[Way, ...]] = field(default_factory=dict)

    def km(self, here: str, there: str) -> float | None:
        """Great-circle distance; None where a place is not known."""
        if here in self.places and there in self.places:
            return distance_km(self.places[here], self.places[there])
        return None

    def speed(self, mode: str) -> float:
        """Kilometres an hour of a mode."""
        return self.settings.speeds_kmh.get(mode, self.settings.speeds_kmh.get(ROAD, 50.0))

    def by_distance(self, km: float, speed: float) -> Duration:
        """How long a distance takes where nothing else is known."""
        hours = max(km / speed, 0.1)
        return Duration(hours, (self.settings.variation * hours) ** 2)

    def handled(self, node: str) -> Duration:
        """Time at a node between two legs."""
        usual = self.settings.handling_hours
        return self.handling.get(node, Duration(usual, (self.settings.variation * usual) ** 2))

    def ways(self, here: str, there: str) -> tuple[Way, ...]:
        """The quickest ways of each carrier and mode, and the quickest of all; those that are alike once."""
        if (here, there) not in self._ways:
            found = {} if here == there else {(way.nodes, way.keys): way for way in self._search(here, there)}
            self._ways[here, there] = tuple(found.values())
        return self._ways[here, there]

    def _search(self, here: str, there: str) -> list[Way]:
        if not self._views:
            self._views = _views(self.graph)
        found = []
        for view in self._views.values():
            found += [self._way(view.graph, path) for path in view.paths(here, there)]
        return found

    def _way(self, graph: nx.DiGraph, nodes: tuple[str, ...]) -> Way:
        edges = [graph.edges[step] for step in pairwise(nodes)]
        takes = sum((edge["takes"] for edge in edges[1:]), edges[0]["takes"])
        takes = sum((self.handled(node) for node in nodes[1:-1]), takes)
        return Way(nodes, tuple(edge["key"] for edge in edges), tuple(edge["km"] for edge in edges), takes)


def learn_lanes(events: pa.Table, places: Mapping[str, Place], settings: RoutingSettings, moment: datetime) -> Lanes:
    """The lanes that shipment events up to a moment show.

    Args:
        events: with `COLUMNS`, in any order.
        places: latitude and longitude by node, where they are known.
    """
    lanes = Lanes(settings, places, moment)
    events = events.filter(pc.less_equal(events["event_time"], pa.scalar(moment, TIME)))
    legs, stays = _legs(events)
    by_mode, by_lane, by_carrier = (defaultdict[Any, _Tally](_Tally) for _ in range(3))
    for (here, there, carrier_id, mode), tally in legs.items():
        by_carrier[here, there, Key(carrier_id, mode)] = tally
        for wider in (by_lane[here, there, mode], by_mode[mode]):
            wider.legs += tally.legs
            wider.total += tally.total
            wider.squares += tally.squares
    weight = settings.shrinkage_legs
    for (here, there, key), tally in by_carrier.items():
        km = lanes.km(here, there)
        usual = _of_mode(by_mode[key.mode], settings) if km is None else lanes.by_distance(km, lanes.speed(key.mode))
        takes = tally.shrunk(by_lane[here, there, key.mode].shrunk(usual, weight), weight)
        far = takes.hours * lanes.speed(key.mode) if km is None else km
        lanes.graph.add_edge(here, there, key=key, takes=takes, hours=takes.hours, km=far, legs=int(tally.legs))
    usual = Duration(settings.handling_hours, (settings.variation * settings.handling_hours) ** 2)
    lanes.handling = {node: tally.shrunk(usual, weight) for node, tally in stays.items()}
    return lanes


def _of_mode(tally: _Tally, settings: RoutingSettings) -> Duration:
    hours = max(tally.total / tally.legs, 0.1)
    return Duration(hours, (settings.variation * hours) ** 2)


def _views(graph: nx.MultiDiGraph) -> dict[Key | None, _View]:
    """The graph of each carrier and mode, and under None the quickest of all between each two nodes."""
    views: dict[Key | None, nx.DiGraph] = defaultdict(nx.DiGraph)
    for here, there, key, edge in graph.edges(keys=True, data=True):
        told = {**edge, "key": key}
        views[key].add_edge(here, there, **told)
        quickest = views[None]
        if not quickest.has_edge(here, there) or edge["hours"] < quickest.edges[here, there]["hours"]:
            quickest.add_edge(here, there, **told)
    return {key: _view(view) for key, view in views.items()}


def _view(graph: nx.DiGraph) -> _View:
    rows = {node: row for row, node in enumerate(graph)}
    hours = csr_array(nx.to_scipy_sparse_array(graph, weight="hours"))
    # A matrix has no lane where it has no hours; and the search is written for narrow indices.
    hours.data = np.maximum(hours.data, _SHORTEST)
    hours.indices, hours.indptr = hours.indices.astype(np.int32), hours.indptr.astype(np.int32)
    return _View(graph, rows, hours)


def _legs(events: pa.Table) -> tuple[dict[tuple[str, str, str, str], _Tally], dict[str, _Tally]]:
    """Times from node to node by (from, to, carrier, mode), and times at nodes: vectorised, for there are many."""
    if events.num_rows == 0:
        return {}, {}
    ships, _ = _codes(events["shipment_id"])
    nodes, names = _codes(events["node"])
    carriers, carrier_names = _codes(events["carrier_id"])
    modes, mode_names = _codes(events["mode"])
    times = events["event_time"].cast(pa.int64()).to_numpy()
    order = np.lexsort((times, ships))
    ships, nodes, carriers, modes, times = (column[order] for column in (ships, nodes, carriers, modes, times))
    new_run = np.ones(len(ships), bool)
    new_run[1:] = (ships[1:] != ships[:-1]) | (nodes[1:] != nodes[:-1])
    first = np.flatnonzero(new_run)
    last = np.append(first[1:], len(ships)) - 1
    same = ships[last[:-1]] == ships[first[1:]]
    ends, begins = last[:-1][same], first[1:][same]
    hours = (times[begins] - times[ends]) / HOUR_US
    told = (nodes[ends], nodes[begins], carriers[begins], modes[begins])
    legs = {
        (names[one], names[two], carrier_names[three], mode_names[four]): tally
        for (one, two, three, four), tally in _tallies(told, hours)
    }
    # Where a shipment is now, or has come to, nobody knows yet how long it will stay.
    stayed = np.append(same, False)
    stays = _tallies((nodes[first[stayed]],), (times[last[stayed]] - times[first[stayed]]) / HOUR_US)
    return legs, {names[node]: tally for (node,), tally in stays}


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    encoded = pc.fill_null(column.cast(pa.string()), UNKNOWN).combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def _tallies(keys: tuple[np.ndarray, ...], hours: np.ndarray) -> list[tuple[tuple[int, ...], _Tally]]:
    if not len(hours):
        return []
    groups, member = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)
    member = member.ravel()
    counts, totals, squares = (np.bincount(member, weights, len(groups)) for weights in (None, hours, hours**2))
    return [
        (tuple(group), _Tally(float(count), float(total), float(square)))
        for group, count, total, square in zip(groups.tolist(), counts, totals, squares, strict=True)
    ]
