"""On-hand stock is a function of the set of ledger rows: order, duplicates and cuts never matter."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.restocking.positions import Position

event = st.tuples(
    st.integers(0, 30),  # event time
    st.sampled_from(["count", "sale", "receipt"]),
    st.integers(0, 20),  # quantity
)


def expected_on_hand(rows):
    """Promise 2, word for word."""
    counts = [(time, name, quantity) for name, (time, kind, quantity) in rows if kind == "count"]
    since, level = (max(counts)[0], max(counts)[2]) if counts else (-1, 0)
    signs = {"sale": -1, "receipt": 1}
    return level + sum(signs[kind] * quantity for _, (time, kind, quantity) in rows if kind != "count" and time > since)


@settings(max_examples=400, deadline=None)
@given(
    rows=st.lists(event, max_size=25),
    order=st.randoms(),
    cuts=st.lists(st.integers(1, 6), max_size=25),
    memory=st.integers(0, 4),
)
def test_any_order_and_any_cut_give_the_same_stock(rows, order, cuts, memory):
    # given named rows in any order of arrival, and a position that remembers little
    named = [(f"e-{place:02d}", row) for place, row in enumerate(rows)]
    arriving = list(named)
    order.shuffle(arriving)
    position, ledger, step = Position("s", "p"), [], []
    remaining = list(cuts)

    def history(since):
        return [
            (time, {"sale": -1, "receipt": 1}[kind] * quantity)
            for _, (time, kind, quantity) in ledger
            if kind != "count" and time > since
        ]

    # when they are folded in, in steps
    for name, (time, kind, quantity) in arriving:
        if kind == "count":
            position.apply_count(time, name, quantity, history)
        else:
            position.apply_change(time, {"sale": -1, "receipt": 1}[kind] * quantity)
        step.append((name, (time, kind, quantity)))
        if remaining and len(step) >= remaining[0]:
            remaining.pop(0)
            position.settle(memory)
            ledger += step
            step = []

    # then the stock is what the promise says
    assert position.on_hand == expected_on_hand(named)
