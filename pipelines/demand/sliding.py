"""From the facts of tumbling windows to the totals of all windows, sliding ones included, and what changed in them.

A sliding window's units and revenue are the sums of its tumbling windows'. So are its orders, less those of tickets
that sold in more than one of them. Such a ticket counts where its latest earlier sale lies before the window: once.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import DEMAND_TOTALS, TIME
from pipelines.demand.windows import MEASURES, Facts, Shape

KEYS = ("scope", "window_start", "window_end")

_TOTALS = ("orders", "units", "revenue")

Counts = npt.NDArray[np.int64]


def totals_of(facts: Facts, numbers: Collection[int], shape: Shape) -> pa.Table:
    """Totals of every window that contains one of the given tumbling windows.

    Args:
        facts: per scope and region, of the tumbling windows that `shape.needed` names.
        numbers: tumbling windows, by their number since the epoch.

    Returns:
        Rows of `gold/demand_totals` for all scopes and windows with a sale.
    """
    needed = np.array(shape.needed(numbers), dtype=np.int64)
    scopes = facts.totals.group_by(["scope", "region"]).aggregate([])
    place_of = {name: place for place, name in enumerate(scopes["scope"].to_pylist())}
    rows, columns = _places(facts.totals, place_of), np.searchsorted(needed, _ints(facts.totals, "period"))
    so_far = {}
    for name in MEASURES:
        per_window = np.zeros((len(place_of), len(needed) + 1), dtype=np.int64)
        per_window[rows, columns + 1] = _ints(facts.totals, name)
        so_far[name] = per_window.cumsum(axis=1)
    parts = []
    for length in shape.lengths:
        starts = np.array(shape.starts(numbers, length), dtype=np.int64)
        at = np.searchsorted(needed, starts)
        found = {name: sums[:, at + length] - sums[:, at] for name, sums in so_far.items()}
        found["orders"] -= _counted_again(facts.repeats, place_of, needed, length)[:, at]
        scope, start = np.nonzero(found["orders"])
        parts.append(
            pa.table(
                {
                    "scope": scopes["scope"].take(pa.array(scope)),
                    "region": scopes["region"].take(pa.array(scope)),
                    "window_start": _times(starts[start], shape),
                    "window_end": _times(starts[start] + length, shape),
                    "orders": found["orders"][scope, start],
                    "units": found["units"][scope, start],
                    "revenue": _money(found["cents"][scope, start]),
                }
            )
            .select(DEMAND_TOTALS.schema.names)
            .cast(DEMAND_TOTALS.schema)
        )
    return pa.concat_tables(parts)


def _counted_again(repeats: pa.Table, place_of: dict[str, int], needed: Counts, length: int) -> Counts:
    """Per scope and window of this length (by its first tumbling window): tickets that its sum has too often."""
    period, distance, tickets = (_ints(repeats, name) for name in ("period", "distance", "tickets"))
    rows = _places(repeats, place_of)
    # A window that starts from `first` to `last` contains both the sale and the earlier one.
    first = np.searchsorted(needed, period - length + 1)
    last = np.searchsorted(needed, period - distance, side="right")
    within = first < last
    change = np.zeros((len(place_of), len(needed) + 1), dtype=np.int64)
    np.add.at(change, (rows[within], first[within]), tickets[within])
    np.subtract.at(change, (rows[within], last[within]), tickets[within])
    found: Counts = change.cumsum(axis=1)
    return found


def _places(rows: pa.Table, place_of: dict[str, int]) -> Counts:
    encoded = rows["scope"].combine_chunks().dictionary_encode()
    places = np.array([place_of[name] for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    found: Counts = places[np.asarray(encoded.indices)]
    return found


def _ints(rows: pa.Table, name: str) -> Counts:
    return np.asarray(rows[name].to_numpy(), dtype=np.int64)


def _times(numbers: Counts, shape: Shape) -> pa.Array:
    return pa.array(numbers * shape.windows.microseconds, pa.int64()).cast(TIME)


def _money(cents: Counts) -> pa.Array:
    hundredth = pa.scalar(Decimal("0.01"), pa.decimal128(3, 2))
    return pc.multiply(pa.array(cents, pa.int64()).cast(pa.decimal128(19, 0)), hundredth)


def touched_bounds(numbers: Collection[int], shape: Shape) -> pa.Table:
    """`window_start` and `window_end` of every window that contains one of the given tumbling windows."""
    parts = []
    for length in shape.lengths:
        starts = np.array(shape.starts(numbers, length), dtype=np.int64)
        parts.append(pa.table({"window_start": _times(starts, shape), "window_end": _times(starts + length, shape)}))
    return pa.concat_tables(parts)


def changed_totals(before: pa.Table, after: pa.Table, touched: pa.Table) -> pa.Table:
    """The rows by which `before` has to be updated.

    Args:
        before: rows of `gold/demand_totals`; rows of untouched windows are ignored.
        after: the touched windows' rows as computed anew.
        touched: `touched_bounds`.

    Returns:
        New and changed rows, by window and scope; zeros for a scope that no longer has a share in a
        touched window (its last location moved to another region, or its sales were taken back).
    """
    of_touched = before.join(touched, keys=list(touched.column_names), join_type="left semi")
    both = of_touched.join(after, keys=list(KEYS), join_type="full outer", right_suffix="_new")
    nothing = {name: pa.scalar(0, DEMAND_TOTALS.schema.field(name).type) for name in _TOTALS}
    new = {name: pc.fill_null(both[f"{name}_new"], nothing[name]) for name in _TOTALS}
    new["region"] = pc.coalesce(both["region_new"], both["region"])
    differs = pc.is_null(both["orders"])
    for name in _TOTALS:
        differs = pc.or_(differs, pc.fill_null(pc.not_equal(both[name], new[name]), True))
    # Stored before there were regions, or of a scope that has none: null.
    moved = pc.not_equal(pc.fill_null(both["region"], ""), pc.fill_null(new["region"], ""))
    rows = pa.table({name: new.get(name, both[name]) for name in DEMAND_TOTALS.schema.names})
    order = [("window_start", "ascending"), ("window_end", "ascending"), ("scope", "ascending")]
    return rows.filter(pc.or_(differs, moved)).sort_by(order).cast(DEMAND_TOTALS.schema)


def message(row: dict[str, Any]) -> bytes:
    """A row as the JSON of a message on `demand.totals`; a location's says its region too."""
    times = {name: row[name].strftime("%Y-%m-%dT%H:%M:%SZ") for name in ("window_start", "window_end")}
    said = {name: value for name, value in row.items() if name != "region" or value is not None}
    return orjson.dumps({**said, **times, "revenue": float(row["revenue"])})
