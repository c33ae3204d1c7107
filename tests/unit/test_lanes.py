"""Lanes are learnt from what was known, and durations add up."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import islice

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import lognorm

from pipelines.contracts.tables import SHIPMENT_EVENTS
from pipelines.operations.settings import RoutingSettings
from pipelines.shipments.routing.durations import Arrival, Duration, distance_km
from pipelines.shipments.routing.lanes import COLUMNS, Key, learn_lanes

START = datetime(2024, 3, 1, tzinfo=UTC)
SETTINGS = RoutingSettings(shrinkage_legs=5.0, variation=0.5, speeds_kmh={"road": 50.0, "air": 500.0})
SCHEMA = pa.schema([SHIPMENT_EVENTS.schema.field(name) for name in COLUMNS])


def trips(*legs):
    """Events of trips (carrier, mode, [(node, hour it came, hour it left), ...], day)."""
    rows = []
    for number, (carrier, mode, nodes, day) in enumerate(legs):
        for node, came, left in nodes:
            for hour in (came, left):
                at = START + timedelta(days=day, hours=hour)
                rows.append({"shipment_id": f"s{number}", "event_time": at, "node": node, "carrier_id": carrier,
                             "mode": mode})  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def leg(carrier="c", mode="road", hours=10.0, day=0, here="a", there="b"):
    return carrier, mode, [(here, 0, 1), (there, 1 + hours, 1 + hours)], day


def takes(lanes, carrier="c", mode="road", here="a", there="b"):
    return lanes.graph.edges[here, there, Key(carrier, mode)]["takes"]


def test_with_a_long_history_a_lane_takes_what_it_took():
    hours = [8.0 + number % 5 for number in range(400)]
    events = trips(*(leg(hours=one, day=number) for number, one in enumerate(hours)))
    found = takes(learn_lanes(events, {}, SETTINGS, START + timedelta(days=999)))
    assert found.hours == pytest.approx(np.mean(hours), rel=0.01)
    assert found.std == pytest.approx(np.std(hours), rel=0.1)


def test_with_a_short_one_it_leans_on_the_modes_speed_over_the_distance():
    places = {"a": (50.0, 8.0), "b": (59.0, 8.0)}
    km = distance_km(places["a"], places["b"])
    assert km == pytest.approx(1000.8, abs=1)
    # one leg of 40 hours where 1,000 km take 20
    lanes = learn_lanes(trips(leg(hours=40.0)), places, SETTINGS, START + timedelta(days=9))
    assert 20.0 < takes(lanes).hours < 30.0
    more = learn_lanes(
        trips(*(leg(hours=40.0, day=day) for day in range(9))), places, SETTINGS, START + timedelta(days=30)
    )
    assert takes(lanes).hours < takes(more).hours < 40.0


def test_nothing_later_than_the_moment_is_known():
    events = trips(leg(hours=10.0), leg(hours=90.0, day=5), leg("late", day=5))
    then = learn_lanes(events, {}, SETTINGS, START + timedelta(days=2))
    until = learn_lanes(events.slice(0, 4), {}, SETTINGS, START + timedelta(days=2))
    assert takes(then) == takes(until)
    assert not then.graph.has_edge("a", "b", Key("late", "road"))
    # a leg that has begun and not ended is none yet
    assert learn_lanes(events, {}, SETTINGS, START + timedelta(hours=3)).graph.number_of_edges() == 0


def test_the_order_of_events_and_their_repetition_do_not_matter():
    events = trips(leg(hours=10.0), leg("d", hours=4.0), leg(hours=12.0, day=2))
    shuffled = events.take(np.random.default_rng(3).permutation(events.num_rows))
    first, second = (learn_lanes(one, {}, SETTINGS, START + timedelta(days=9)) for one in (events, shuffled))
    assert dict(first.graph.edges) == dict(second.graph.edges)
    assert first.handling == second.handling


def test_ways_of_each_carrier_and_the_quickest_of_all():
    events = trips(
        *(leg("slow", hours=50.0, day=day, there="z") for day in range(20)),
        *(leg("fast", hours=4.0, day=day, there="m") for day in range(20)),
        *(leg("fast", hours=5.0, day=day, here="m", there="z") for day in range(20)),
        *(leg("far", hours=99.0, day=day, here="q", there="z") for day in range(20)),
    )
    lanes = learn_lanes(events, {}, SETTINGS, START + timedelta(days=99))
    ways = {tuple(key.carrier_id for key in way.keys): way for way in lanes.ways("a", "z")}
    assert set(ways) == {("slow",), ("fast", "fast")}
    through = ways["fast", "fast"]
    assert through.via == ("m",)
    expected = takes(lanes, "fast", there="m").hours + takes(lanes, "fast", here="m", there="z").hours
    assert through.takes.hours == pytest.approx(expected + lanes.handled("m").hours)
    assert lanes.ways("z", "a") == lanes.ways("a", "a") == lanes.ways("a", "nowhere") == ()


@pytest.mark.parametrize("seed", range(8))
def test_the_two_quickest_ways_are_those_that_networkx_finds(seed):
    # given one carrier's trips between a dozen nodes
    chance = random.Random(seed)
    legs = [leg(hours=chance.uniform(1, 50), here=here, there=there)
            for here, there in (chance.sample("abcdefghijkl", 2) for _ in range(30))]  # fmt: skip
    lanes = learn_lanes(trips(*legs), {}, SETTINGS, START + timedelta(days=9))
    graph = nx.DiGraph()
    for here, there, edge in lanes.graph.edges(data=True):
        graph.add_edge(here, there, hours=edge["hours"])
    # then between any two it knows the same ways, and none where there is none
    for here in graph:
        for there in graph.nodes - {here}:
            expected = []
            if nx.has_path(graph, here, there):
                expected = list(islice(nx.shortest_simple_paths(graph, here, there, weight="hours"), 2))
            assert [list(way.nodes) for way in lanes.ways(here, there)] == expected


def test_a_duration_is_lognormal_with_its_mean_and_variance():
    spread = np.sqrt(np.log1p(9.0 / 100.0))
    law = lognorm(s=spread, scale=10.0 * np.exp(-(spread**2) / 2))
    one = Duration(10.0, 9.0)
    assert (law.mean(), law.std()) == (pytest.approx(10.0), pytest.approx(3.0))
    for share in (0.1, 0.5, 0.9):
        assert one.quantile(share) == pytest.approx(law.ppf(share))
        assert one.chance_within(law.ppf(share)) == pytest.approx(share)
    assert Duration(1.0, 4.0) + Duration(2.0, 5.0) == Duration(3.0, 9.0)
    assert Arrival(START, one).chance_by(START) == 0.0
    assert Duration(5.0, 0.0).chance_within(5.0) == 1.0
