"""Policies and positions."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts.tables.base import PLANNING, RESTOCK, TIME, Table, schema_of, text

INVENTORY_POLICIES = Table(
    "gold/inventory_policies",
    schema_of(
        **text("location_id sku policy_version forecast_version"),
        reorder_point=pa.int64(),
        order_up_to=pa.int64(),
        safety_stock=pa.float64(),
        lead_time_days=pa.float64(),
        lead_time_std_days=pa.float64(),
        review_days=pa.float64(),
        service_level=pa.float64(),
        method=pa.string(),
        binding_constraint=pa.string(),
        supplier_id=pa.string(),
        pack_size=pa.int64(),
        minimum_order=pa.int64(),
        unit_cost=pa.float64(),
        unit_price=pa.float64(),
        as_of=pa.date32(),
        cumulative_mean=pa.list_(pa.float64()),
        cumulative_std=pa.list_(pa.float64()),
        correlation=pa.float64(),
        created_at=TIME,
        maximum_order=pa.int64(),
        allowance=pa.int64(),
        **text("allowance_reason transfer_offer transfer_source"),
        transfer_quantity=pa.int64(),
        transfer_days=pa.float64(),
        transfer_cost=pa.float64(),
        transfer_reason=pa.string(),
        order_windows=pa.list_(TIME),
    ),
    PLANNING,
    partition_by=("policy_version",),
)
"""`cumulative_mean[k]` and `cumulative_std[k]`: units demanded over the first k+1 days after `as_of`; `correlation`:
between any two days' deviations.

What may be null: `maximum_order` and `allowance`, units that may be bought in a day (why, in `allowance_reason`:
budget or warehouse_shortage); an offer of a sibling's excess, which is taken at most once (`transfer_offer` tells one
from the next); `order_windows`, from when until when the supplier takes orders, in turn."""

OPEN_ORDERS = pa.list_(
    pa.struct(
        [
            pa.field("order_id", pa.string()),
            pa.field("outstanding", pa.int64()),
            pa.field("received", pa.int64()),
            pa.field("expected_receipt", TIME),
            pa.field("reported_received", TIME),
            pa.field("state", pa.string()),
            pa.field("released", pa.bool_()),
            pa.field("quantity", pa.int64()),
            pa.field("quantity_time", TIME),
            pa.field("promised_time", TIME),
        ]
    )
)

BOUGHT = pa.list_(pa.struct([pa.field("order_id", pa.string()), pa.field("quantity", pa.int64())]))

INVENTORY_POSITIONS = Table(
    "gold/inventory_positions",
    schema_of(
        location_id=pa.string(),
        sku=pa.string(),
        on_hand=pa.int64(),
        on_order=pa.int64(),
        last_event_time=TIME,
        count_time=TIME,
        count_event_id=pa.string(),
        counted=pa.int64(),
        open_orders=OPEN_ORDERS,
        flag_severity=pa.string(),
        hold_until=TIME,
        sequence=pa.int64(),
        offer_taken=pa.string(),
        bought_day=pa.int64(),
        bought=BOUGHT,
        flag_chance=pa.string(),
        lost_units=pa.float64(),
        lost_margin=pa.float64(),
    ),
    RESTOCK,
)
"""Also the restock stage's own state: a row set complete up to the ledger's `sequence`. `offer_taken`: the last offer
of a transfer that was used; `bought`: units by order that count against a cap on `bought_day` (days since 1970);
`flag_severity`, `flag_chance`: how bad running out before the next possible receipt would be, and how likely;
`lost_units`, `lost_margin`: what is expected to be lost by it (null below the threshold of a flag, the margin also
where cost or price is unknown)."""

STOCK_HEALTH = Table(
    "gold/stock_health",
    schema_of(
        **text("location_id sku kind severity"),
        on_hand=pa.int64(),
        on_order=pa.int64(),
        cover_days=pa.float64(),
        units=pa.float64(),
        value=pa.float64(),
        probability=pa.float64(),
        **text("message policy_version"),
        opened_on=pa.date32(),
        closed_on=pa.date32(),
    ),
    PLANNING,
)
"""What each night found of the stock: `stockout_risk` (`units` and `value`: demand and margin expected to be lost
before the next possible receipt), `overstock` and `dead_stock` (`units` too many, and what was paid for them). A row
that a night does not find any more is closed by it, and gone with the next; `closed_on` is null while it lasts."""

POLICY_CANDIDATES = Table(
    "gold/policy_candidates",
    schema_of(
        **text("location_id sku method"),
        as_of=pa.date32(),
        reorder_point=pa.int64(),
        order_up_to=pa.int64(),
        daily_cost=pa.float64(),
        fill_rate=pa.float64(),
        champion=pa.bool_(),
        run_id=pa.string(),
    ),
    "learn_policies",
)
"""Levels of the classical and of the learnt methods side by side, for the day after `as_of`, with what a day cost with
each in the replay's newest half (holding, ordering, lost margin). `champion`: the method that cost the least in all."""

SERVICE_CORRECTIONS = Table(
    "gold/service_corrections",
    schema_of(category=pa.string(), wanted=pa.float64(), shift=pa.float64(), as_of=pa.date32()),
    "learn_policies",
)
"""What to add to the normal score of a wanted service level, by category of products, so that it is achieved: learnt
from a replay of the classical policy; the empty category is for those that were not seen."""
