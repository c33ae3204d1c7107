"""Ledger to demand: what was asked for in each hour and day, and for how much of it there was stock to sell.

All functions are pure functions of the *set* of ledger rows: neither the order of arrival nor the layout of
the files changes a result. Instants are handled as whole microseconds since the epoch and periods by their
number since the epoch, so that no session time zone plays a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.contracts.tables import DAILY_DEMAND, HOURLY_DEMAND, Table

SERIES = ("location_id", "sku")

OBSERVING_KINDS = ("count", "receipt", "transfer_in")
"""Ledger kinds that tell of stock on hand. Before the first of them nothing is known of a series' stock."""

CENT = "0.01"


@dataclass(frozen=True)
class Period:
    """A grain of demand: the table that holds it, its column for the start of a period, and its length."""

    table: Table
    column: str
    microseconds: int

    def number(self, time: str) -> Column:
        """The number, since the epoch, of the UTC period that the timestamp column `time` falls in."""
        return F.expr(
            f"(unix_micros({time}) - pmod(unix_micros({time}), {self.microseconds}L)) div {self.microseconds}L"
        )

    def start(self, number: str) -> Column:
        """The start of the period with this number, in the type of the table's column."""
        if self.column == "date":
            return F.date_from_unix_date(F.col(number).cast("int"))
        return F.timestamp_micros(F.col(number) * self.microseconds)


HOUR = Period(HOURLY_DEMAND, "hour", 3_600_000_000)
DAY = Period(DAILY_DEMAND, "date", 24 * 3_600_000_000)


def until(ledger: DataFrame, as_of: date | None) -> DataFrame:
    """The ledger's rows up to the end (UTC) of day `as_of`; all rows for None."""
    if as_of is None:
        return ledger
    end = datetime.combine(as_of + timedelta(days=1), datetime.min.time(), UTC)
    return ledger.where(F.col("event_time") < F.lit(end))


def revenue_cents() -> Column:
    """Revenue of one sale in cents: quantity times unit price, rounded half up, exact in decimals.

    No price, or one that no `decimal(18, 2)` can hold, counts as 0.
    """
    price = F.col("unit_price").try_cast("decimal(18,6)")
    amount = (F.col("quantity").try_cast("decimal(18,0)") * price).try_cast("decimal(18,2)")
    return F.coalesce((amount * 100).cast("decimal(18,0)").cast("long"), F.lit(0).cast("long"))


def as_money(cents: str) -> Column:
    """A sum of cents as `decimal(18, 2)`."""
    return (F.col(cents).cast("decimal(18,0)") * F.lit(CENT).cast("decimal(3,2)")).cast("decimal(18,2)")


def hourly_demand(ledger: DataFrame) -> DataFrame:
    """Demand per location, SKU and UTC hour (`gold/hourly_demand`); see `demand_per`."""
    return demand_per(HOUR, hourly_sales(ledger), stockouts(ledger))


def daily_demand(ledger: DataFrame) -> DataFrame:
    """Demand per location, SKU and UTC day (`gold/daily_demand`); see `demand_per`."""
    return demand_per(DAY, daily_sales(hourly_sales(ledger)), stockouts(ledger))


def hourly_sales(ledger: DataFrame) -> DataFrame:
    """Units and money per series and hour with sales or returns.

    Returns:
        location_id, sku, `period` (the hour's number since the epoch), `demand`, `returned` and `promoted`
        (units), `cents`.
    """
    is_sale = F.col("kind") == "sale"
    on_promotion = is_sale & F.coalesce(F.col("promotion"), F.lit(False))
    return (
        ledger.where(F.col("kind").isin("sale", "return"))
        .withColumn("period", HOUR.number("event_time"))
        .groupBy(*SERIES, "period")
        .agg(
            F.sum(F.when(is_sale, F.col("quantity")).otherwise(0)).alias("demand"),
            F.sum(F.when(is_sale, 0).otherwise(F.col("quantity"))).alias("returned"),
            F.sum(F.when(on_promotion, F.col("quantity")).otherwise(0)).alias("promoted"),
            F.sum(F.when(is_sale, revenue_cents()).otherwise(0)).alias("cents"),
        )
    )


def daily_sales(per_hour: DataFrame) -> DataFrame:
    """`hourly_sales` summed per UTC day."""
    return (
        per_hour.withColumn("period", F.expr("(period - pmod(period, 24L)) div 24L"))
        .groupBy(*SERIES, "period")
        .agg(*(F.sum(name).alias(name) for name in ("demand", "returned", "promoted", "cents")))
    )


def demand_per(period: Period, sales: DataFrame, out_of_stock: DataFrame) -> DataFrame:
    """Demand per location, SKU and period, without gaps from a series' first sale to its last.

    `demand` is gross: the units of all sales. `returned` holds the units of returns and never lessens
    demand; returns before the first or after the last period with a sale belong to no row. `promotion_share`
    is the share of the sold units that were on promotion (0 where nothing was sold), `revenue` that of the
    sales, `in_stock_fraction` the share of the period's time in which on-hand stock was above zero.

    Args:
        sales: `hourly_sales` or `daily_sales` of a ledger.
        out_of_stock: `stockouts` of the same ledger.

    Returns:
        The columns of `period.table`.
    """
    sold = sales.where("demand > 0")
    ranges = sold.groupBy(*SERIES).agg(F.min("period").alias("first"), F.max("period").alias("last"))
    measures = (
        _every_period(ranges)
        .unionByName(sales, allowMissingColumns=True)
        .unionByName(_time_out_of_stock(period, out_of_stock, ranges), allowMissingColumns=True)
        .groupBy(*SERIES, "period")
        .agg(
            F.max("in_range").alias("in_range"),
            *(
                F.coalesce(F.sum(name), F.lit(0)).alias(name)
                for name in ("demand", "returned", "promoted", "cents", "out_micros")
            ),
        )
        .where("in_range")
    )
    return measures.select(
        *SERIES,
        period.start("period").alias(period.column),
        "demand",
        "returned",
        F.when(F.col("demand") > 0, F.col("promoted") / F.col("demand")).otherwise(0.0).alias("promotion_share"),
        as_money("cents").alias("revenue"),
        (1.0 - F.col("out_micros") / period.microseconds).alias("in_stock_fraction"),
    )


def _every_period(ranges: DataFrame) -> DataFrame:
    """One row per series and period from the first to the last with a sale."""
    return ranges.select(*SERIES, F.explode(F.sequence("first", "last")).alias("period"), F.lit(True).alias("in_range"))


def stockouts(ledger: DataFrame) -> DataFrame:
    """The intervals in which a series' stock is known and not above zero.

    On hand at an instant is the latest count by (event_time, event_id) plus the changes strictly after it;
    without a count, all changes. Before a series' first count or receipt its stock is unknown, and no
    interval covers that time: sales prove that there was something to sell.

    Returns:
        location_id, sku, `out_from` and `out_to` (microseconds since the epoch; `out_to` is null where the
        stockout has not ended). Intervals of a series do not overlap and none is empty.
    """
    in_order = Window.partitionBy(*SERIES).orderBy("event_time", "event_id")
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    is_count = F.col("kind") == "count"
    states = (
        ledger.select(*SERIES, "event_time", "event_id", "kind", "quantity", "change")
        .withColumn("changed", F.sum(F.coalesce(F.col("change"), F.lit(0))).over(so_far))
        .withColumn(
            "counted",
            F.last(F.when(is_count, F.col("quantity") - F.col("changed")), ignorenulls=True).over(so_far),
        )
        .withColumn("observed", F.max(F.col("kind").isin(*OBSERVING_KINDS)).over(so_far))
        .withColumn("level", F.coalesce(F.col("counted"), F.lit(0)) + F.col("changed"))
        .withColumn("out", F.col("observed") & (F.col("level") <= 0))
    )
    turns = states.withColumn("was_out", F.lag("out", 1, False).over(in_order)).where("out <> was_out")
    return (
        turns.select(
            *SERIES,
            "out",
            F.unix_micros("event_time").alias("out_from"),
            F.unix_micros(F.lead("event_time").over(in_order)).alias("out_to"),
        )
        .where("out AND (out_to IS NULL OR out_to > out_from)")
        .drop("out")
    )


def _time_out_of_stock(period: Period, out_of_stock: DataFrame, ranges: DataFrame) -> DataFrame:
    """Microseconds out of stock per series and period, one row per interval and period that it touches."""
    length = F.lit(period.microseconds)
    begins = F.greatest("out_from", F.col("first") * length)
    ends = F.least("out_to", (F.col("last") + 1) * length)
    period_number = F.expr(f"sequence(begins div {period.microseconds}L, (ends - 1) div {period.microseconds}L)")
    starts = F.col("period") * length
    return (
        out_of_stock.join(ranges, on=list(SERIES), how="inner")
        .select(*SERIES, begins.alias("begins"), ends.alias("ends"))
        .where("begins < ends")
        .select(*SERIES, "begins", "ends", F.explode(period_number).alias("period"))
        .select(
            *SERIES,
            "period",
            (F.least("ends", starts + length) - F.greatest("begins", starts)).alias("out_micros"),
        )
    )
