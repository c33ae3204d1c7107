"""The nightly plan: the published forecasts and the catalog in, a new published version of all policies out."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.contracts.tables import (
    FORECASTS as FORECASTS_TABLE,
)
from pipelines.contracts.tables import (
    INVENTORY_POLICIES,
    PLANNING,
    PRODUCTS,
    SERVICE_CORRECTIONS,
    SOURCING,
    SUPPLIERS,
)
from pipelines.errors import MissingDataError, PublishingError
from pipelines.inventory.health_report import Row, report_health
from pipelines.inventory.planned_together import Together, together
from pipelines.inventory.planning_inputs import (
    LEAD_TIME_POINTS,
    ORDER_WINDOWS,
    error_correlation,
    lead_time_records,
    with_calendars,
    with_corrected_service,
    with_lead_times,
)
from pipelines.inventory.policies import get_policy
from pipelines.inventory.series_planning import (
    CHUNK,
    FORECAST_VALUES,
    PRODUCT_TERMS,
    SERIES,
    SERIES_SCHEMA,
    TERMS_SCHEMA,
    Plan,
    group_forecasts,
    plan_series,
    with_terms,
)
from pipelines.inventory.stock_health import RiskLimits
from pipelines.inventory.warehouse_demand import with_warehouses
from pipelines.io.delta import Tables, spark_schema
from pipelines.io.ownership import ownership
from pipelines.io.published import FORECASTS, POLICIES, Published, in_force, publish
from pipelines.operations.failpoints import failpoint
from pipelines.operations.settings import PlanningSettings, Settings

log = logging.getLogger("stockcast.inventory")

REVISION = 3
"""Of the computation: raised when the same inputs give other levels, so that they get another version."""

EXAMPLES = 5
_VERSION = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Left:
    """Series that were left out: how many, and the first few as `location_id|sku`."""

    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count} ({', '.join(self.examples)}{more})" if self.count else "0"


@dataclass(frozen=True)
class PlanningReport:
    """What a plan came to.

    Attributes:
        policies: series with a policy.
        median_cover_days: median over series with demand of the reorder point, in days of expected demand.
        by_constraint: policies by what decided their order's size.
        without_sourcing: forecast, but nobody to buy from.
        without_forecast: sourced, but never sold or not forecast.
        health: rows of `gold/stock_health`.
    """

    policy_version: str
    forecast_version: str
    as_of: date
    policies: int
    median_cover_days: float
    by_constraint: dict[str, int]
    without_sourcing: Left
    without_forecast: Left
    health: tuple[Row, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        bound = ", ".join(f"{count} by {name}" for name, count in self.by_constraint.items())
        return (
            f"{self.policies} policies {self.policy_version} from forecasts {self.forecast_version} (data up to "
            f"{self.as_of}); reorder point covers {self.median_cover_days:.1f} days (median); order size decided: "
            f"{bound or 'none'}; forecasts without sourcing: {self.without_sourcing}; sourcing without forecast: "
            f"{self.without_forecast}"
        )


def plan(
    spark: SparkSession | None, settings: Settings, tables: Tables, as_of: date | None, now: datetime
) -> PlanningReport:
    """Plan every sourced series from the published forecasts, and put the new policies in force.

    The version names its inputs (forecasts, sourcing, costs, planning settings), so planning again replaces
    the same version. The old policies stay in force until the new ones are complete and checked.

    Args:
        spark: plans on its executors, the forecasts never in one memory, where there are more series than
            `planning.driver_series`; for fewer, or with None, this process plans, which is faster.
        as_of: the last day whose data may be used; None for whatever the published forecasts have used.
        now: recorded as the time of planning and publishing.

    Raises:
        MissingDataError: no forecasts are published, they use later data than `as_of`, or nothing is sourced.
        PublishingError: the forecasts or the new policies are malformed; the policies in force stay.
        OwnershipError: another process is planning.
        UsageError: `planning.method` names no policy.
    """
    get_policy(settings.planning.method)
    with ownership(settings, PLANNING, "publishing"):
        forecast = _forecast_in_force(tables, as_of)
        terms = with_lead_times(
            _read_terms(tables, forecast.as_of + timedelta(days=1)), lead_time_records(tables, forecast.as_of)
        )
        if settings.planning.correct_service:
            terms = _with_achieved_service(tables, terms, forecast.as_of)
        correlation = error_correlation(tables, forecast.version)
        shared = together(tables, settings.planning, terms, forecast.as_of, forecast.version)
        made = Plan(
            policy_version=policy_version(forecast, terms, settings.planning, correlation, shared.digest),
            forecast_version=forecast.version,
            as_of=forecast.as_of,
            method=settings.planning.method,
            paths=settings.planning.paths,
            created_at=now,
            correlation=correlation,
        )
        forecast_keys = _with_warehouse_keys(_forecast_keys(tables, forecast), shared)
        sourced = forecast_keys.join(terms.select(SERIES), keys=list(SERIES), join_type="inner")
        if sourced.num_rows == 0:
            raise MissingDataError(
                f"none of the {forecast_keys.num_rows} forecast series is in the catalog's sourcing "
                f"({terms.num_rows} rows); load a catalog that matches (jobs/load_catalog.py)"
            )
        few = sourced.num_rows <= settings.planning.driver_series
        distributed = None if few or shared.served else spark
        _write(distributed, tables, made, terms, sourced.num_rows, shared)
        written = _read_levels(tables, made.policy_version)
        check_policies(written, sourced)
        failpoint("plan.before_switch")
        publish(tables, Published(POLICIES, made.policy_version, forecast.as_of, None, now))
        _delete_old_versions(tables, settings.planning.versions_kept, made.policy_version)
        limits = RiskLimits(*settings.restock.money_at_risk)
        health = report_health(tables, settings.planning, limits, made.policy_version, forecast.as_of)
    report = _report(made, written, forecast_keys, terms.select(SERIES), health)
    log.info("%s", report)
    return report


def needs_executors(settings: Settings, tables: Tables) -> bool:
    """Whether there are more series to plan than one process should: open a Spark session for `plan` then."""
    return bool(tables.read(SOURCING, columns=SERIES).num_rows > settings.planning.driver_series)


def policy_version(
    forecast: Published,
    terms: pa.Table,
    planning: PlanningSettings,
    correlation: float,
    shared: str | None = None,
) -> str:
    """`p-YYYYMMDD-<hash>` of everything that decides the policies; sorts by the forecasts' day.

    Args:
        shared: digest of what is planned over all series together; it decides too.
    """
    decisive = planning.model_dump(mode="json", exclude={"versions_kept", "driver_series", "dead_after_days"})
    sink = pa.BufferOutputStream()
    readable = terms
    for name in (LEAD_TIME_POINTS, ORDER_WINDOWS):
        place = readable.schema.get_field_index(name)
        numbers = readable[name] if name == LEAD_TIME_POINTS else readable[name].cast(pa.list_(pa.int64()))
        readable = readable.set_column(place, name, pc.binary_join(numbers.cast(pa.list_(pa.string())), " "))
    pa.csv.write_csv(readable.sort_by([(name, "ascending") for name in SERIES]), sink)
    digest = hashlib.sha256(
        json.dumps(
            [REVISION, forecast.version, forecast.as_of.isoformat(), correlation, decisive, shared], sort_keys=True
        ).encode()
    )
    digest.update(sink.getvalue())
    return f"p-{forecast.as_of:%Y%m%d}-{digest.hexdigest()[:10]}"


def check_policies(written: pa.Table, expected: pa.Table) -> None:
    """Whether the new version may be put in force.

    Args:
        written: location_id, sku, reorder_point, order_up_to, safety_stock of the version.
        expected: location_id and sku of every series that must be there, once.

    Raises:
        PublishingError: a series is missing or there twice, or its levels are not finite, s < 0, or S <= s.
    """
    missing = expected.join(written.select(SERIES), keys=list(SERIES), join_type="left anti")
    if missing.num_rows or written.num_rows != expected.num_rows:
        raise PublishingError(
            f"expected one policy for each of {expected.num_rows} series, found {written.num_rows} policies; "
            f"missing: {_left(missing)}; the policies in force stay"
        )
    wrong = written.filter(
        pc.fill_null(
            pc.invert(
                pc.and_(
                    pc.is_finite(written["safety_stock"]),
                    pc.and_(
                        pc.greater_equal(written["reorder_point"], 0),
                        pc.greater(written["order_up_to"], written["reorder_point"]),
                    ),
                )
            ),
            True,
        )
    )
    if wrong.num_rows:
        raise PublishingError(
            "expected finite levels with 0 <= reorder point < order-up-to level; otherwise in "
            f"{_left(wrong)}; the policies in force stay"
        )


# Reading. ---------------------------------------------------------------------------------------------------


def _forecast_in_force(tables: Tables, as_of: date | None) -> Published:
    forecast = in_force(tables, FORECASTS)
    if forecast is None:
        raise MissingDataError("no forecasts are published yet; train first (jobs/train_forecasts.py)")
    if as_of is not None and forecast.as_of > as_of:
        raise MissingDataError(
            f"the published forecasts {forecast.version} use data up to {forecast.as_of}, later than --as-of "
            f"{as_of}; train as of that day first (jobs/train_forecasts.py --as-of {as_of})"
        )
    if as_of is not None and forecast.as_of < as_of:
        log.warning(
            "planning with forecasts from data up to %s, older than %s: they are the newest published",
            forecast.as_of,
            as_of,
        )
    return forecast


def _read_terms(tables: Tables, first: date) -> pa.Table:
    """Sourcing rows with their product's cost: `TERMS_SCHEMA` but for the observed lead times.

    Args:
        first: the first day that is planned for.
    """
    products = tables.read(PRODUCTS, columns=PRODUCT_TERMS)
    terms = with_calendars(
        tables.read(SOURCING).join(products, keys="sku", join_type="left outer"), tables.read(SUPPLIERS), first
    )
    if terms.num_rows == 0:
        raise MissingDataError("the catalog has no sourcing; load one first (jobs/load_catalog.py)")
    known = pa.schema([field for field in TERMS_SCHEMA if field.name != LEAD_TIME_POINTS])
    return terms.select(known.names).cast(known)


def _with_achieved_service(tables: Tables, terms: pa.Table, as_of: date) -> pa.Table:
    products = tables.read(PRODUCTS, ("sku", "category")).to_pylist()
    known = tables.read(SERVICE_CORRECTIONS, where=pc.field("as_of") <= pa.scalar(as_of))
    return with_corrected_service(terms, known, {row["sku"]: row["category"] for row in products})


def _day_rows(forecast_version: str) -> pc.Expression:
    return (pc.field("forecast_version") == forecast_version) & (pc.field("grain") == "day")


def _forecast_keys(tables: Tables, forecast: Published) -> pa.Table:
    """location_id and sku of every series of the version."""
    first = datetime.combine(forecast.as_of + timedelta(days=1), datetime.min.time())
    on_first_day = pc.field("target_time") == pa.scalar(first).cast(pa.timestamp("us", tz="UTC"))
    keys = tables.read(FORECASTS_TABLE, columns=SERIES, where=_day_rows(forecast.version) & on_first_day)
    if keys.num_rows == 0:
        raise MissingDataError(
            f"the published forecasts {forecast.version} have no day rows for {first:%Y-%m-%d}; train again "
            "(jobs/train_forecasts.py)"
        )
    return keys


def _with_warehouse_keys(keys: pa.Table, shared: Together) -> pa.Table:
    """Also of warehouses, whose demand is that of the stores which they serve and which are forecast."""
    forecast = set(zip(keys["location_id"].to_pylist(), keys["sku"].to_pylist(), strict=True))
    more = sorted({(shared.served[key], key[1]) for key in forecast if key in shared.served} - forecast)
    added = pa.table({name: [key[place] for key in more] for place, name in enumerate(SERIES)}, schema=keys.schema)
    return pa.concat_tables([keys, added])


def _read_levels(tables: Tables, version: str) -> pa.Table:
    columns = (
        *SERIES,
        *("reorder_point", "order_up_to", "safety_stock", "lead_time_days", "review_days", "binding_constraint"),
    )
    return tables.read(INVENTORY_POLICIES, columns=columns, partition=version)


# Writing. ---------------------------------------------------------------------------------------------------


def _write(
    spark: SparkSession | None,
    tables: Tables,
    made: Plan,
    terms: pa.Table,
    series: int,
    shared: Together,
) -> None:
    """Write the version in one commit, in place of itself where it exists.

    What is planned over all series together is planned in this process.
    """
    predicate = f"policy_version = '{_safe(made.policy_version)}'"
    if spark is not None:
        frame = planned_frame(spark, tables, made, terms, series)
        try:
            if not shared.is_needed:
                tables.overwrite_frame(INVENTORY_POLICIES, frame, predicate)
                return
            rows = frame.toArrow().cast(INVENTORY_POLICIES.schema)
        except PySparkException as error:
            raise _as_raised_on_an_executor(error) from error
    else:
        columns = (*SERIES, "target_time", *FORECAST_VALUES)
        forecasts = tables.read(FORECASTS_TABLE, columns=columns, where=_day_rows(made.forecast_version))
        forecasts = with_warehouses(forecasts, shared.served, shared.between_stores)
        rows = plan_series(with_terms(group_forecasts(forecasts), terms), made)
    tables.overwrite(INVENTORY_POLICIES, shared.finish(rows, made.policy_version), predicate)


def planned_frame(spark: SparkSession, tables: Tables, made: Plan, terms: pa.Table, series: int) -> DataFrame:
    """The policies as a DataFrame: forecasts grouped by series, joined to their terms, planned on executors.

    Args:
        series: how many to expect; decides the number of tasks.
    """
    days = F.sort_array(F.collect_list(F.struct("target_time", *FORECAST_VALUES)))
    grouped = (
        tables.frame(spark, FORECASTS_TABLE)
        .where((F.col("forecast_version") == made.forecast_version) & (F.col("grain") == "day"))
        .groupBy(*SERIES)
        .agg(days.alias("days"))
    )
    tasks = max(1, min(4 * spark.sparkContext.defaultParallelism, -(-series // CHUNK)))
    joined = (
        grouped.join(spark.createDataFrame(terms), on=list(SERIES), how="inner")
        .select(
            *TERMS_SCHEMA.names,
            *(F.col(f"days.{name}").alias(name) for name in ("target_time", *FORECAST_VALUES)),
        )
        .repartition(tasks, *SERIES)
    )

    def planned(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pa.Table.from_batches([batch]).select(SERIES_SCHEMA.names).cast(SERIES_SCHEMA)
            yield from plan_series(rows, made).to_batches()

    return joined.mapInArrow(planned, spark_schema(INVENTORY_POLICIES))


def _as_raised_on_an_executor(error: PySparkException) -> Exception:
    """The `PublishingError` that planning raised there, without Spark's trace around it; else the error itself."""
    found = re.search(rf"{PublishingError.__name__}: (.+)", str(error))
    return PublishingError(found.group(1)) if found else error


def _delete_old_versions(tables: Tables, kept: int, current: str) -> None:
    """Delete all but the `kept` newest versions (by the time of planning); never the one in force."""
    if len(tables.handle(INVENTORY_POLICIES).partitions()) <= kept:
        return
    rows = tables.read(INVENTORY_POLICIES, columns=("policy_version", "created_at"))
    newest = rows.group_by("policy_version").aggregate([("created_at", "max")])
    ordered = newest.sort_by([("created_at_max", "descending"), ("policy_version", "descending")])
    old = [version for version in ordered["policy_version"].to_pylist()[kept:] if version != current]
    if old:
        names = ", ".join(f"'{_safe(version)}'" for version in old)
        tables.delete(INVENTORY_POLICIES, f"policy_version IN ({names})")
        log.info("deleted %d policy versions beyond the newest %d", len(old), kept)


def _safe(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise PublishingError(f"a version of letters, digits, dots and dashes was expected, found {version!r}")
    return version


# Reporting. -------------------------------------------------------------------------------------------------


def _report(
    made: Plan, written: pa.Table, forecast_keys: pa.Table, sourced_keys: pa.Table, health: list[Row]
) -> PlanningReport:
    reorder_point = written["reorder_point"].to_numpy()
    expected = reorder_point - written["safety_stock"].to_numpy()
    interval = written["lead_time_days"].to_numpy() + written["review_days"].to_numpy()
    selling = expected > 1e-6
    cover = reorder_point[selling] * interval[selling] / expected[selling]
    counts = written.group_by("binding_constraint").aggregate([([], "count_all")])
    by_constraint = dict(zip(counts["binding_constraint"].to_pylist(), counts["count_all"].to_pylist(), strict=True))
    return PlanningReport(
        policy_version=made.policy_version,
        forecast_version=made.forecast_version,
        as_of=made.as_of,
        policies=written.num_rows,
        median_cover_days=float(np.median(cover)) if selling.any() else 0.0,
        by_constraint=dict(sorted(by_constraint.items(), key=lambda item: (-item[1], item[0]))),
        without_sourcing=_left(forecast_keys.join(sourced_keys, keys=list(SERIES), join_type="left anti")),
        without_forecast=_left(sourced_keys.join(forecast_keys, keys=list(SERIES), join_type="left anti")),
        health=tuple(health),
    )


def _left(keys: pa.Table) -> Left:
    names = sorted("|".join(row) for row in zip(*(keys[name].to_pylist() for name in SERIES), strict=True))
    return Left(len(names), tuple(names[:EXAMPLES]))
