"""What can be set, with its default and its meaning: frozen models, one a section."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from pipelines.errors import UsageError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(_Section):
    """How to reach Kafka, and how Stockcast's topics are made where they do not exist."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="host:port, comma-separated")
    partitions: int = Field(2, ge=1, description="partitions of the topics that Stockcast creates")
    replication_factor: int = Field(1, ge=1)
    security_protocol: str = Field("PLAINTEXT", pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")
    sasl_mechanism: str = Field("SCRAM-SHA-512", pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$")
    username: str | None = Field(None, description="with a SASL protocol; one of its own for each job")
    password: SecretStr | None = Field(None, description="its password; from the environment or a 0600 file")
    password_file: str | None = Field(None, description="0600, holds the password")
    ca_file: str | None = Field(None, description="PEM with the authorities that the brokers' certificates come from")
    client: dict[str, str] = Field(
        default_factory=dict, description="further settings of every client, dotted names; no secrets"
    )


class BrokerSettings(_Section):
    """The embedded single-node broker."""

    heap_mb: int = Field(512, ge=128)
    start_timeout_seconds: float = Field(60.0, gt=0)


class IngestSettings(_Section):
    """Kafka to bronze, ledger and quarantine."""

    deduplication_days: float = Field(7.0, gt=0, description="how long an event id is remembered")
    future_tolerance_seconds: float = Field(300.0, ge=0)
    earliest_event_time: str = Field("2000-01-01T00:00:00Z", description="older events are quarantined")
    largest_quantity: int = Field(10_000_000, ge=1, description="larger quantities are quarantined")
    largest_value_bytes: int = Field(262_144, ge=1024)
    max_offsets_per_trigger: int = Field(100_000, ge=1)
    trigger_seconds: float = Field(0.0, ge=0, description="0: the next batch starts at once")
    broker_patience_seconds: float = Field(300.0, ge=60, description="a broker that is away is waited for so long")
    watch_seconds: float = Field(2.0, gt=0, description="between two looks at topics, catalog and alerts")
    alert_bad_share: float = Field(0.01, ge=0, lt=1, description="of a topic's records; more set aside is an alert")
    alert_window_minutes: float = Field(5.0, gt=0, description="over which that share is taken")


CANDIDATES: dict[str, tuple[str, ...]] = {
    "smooth": ("default", "pooled", "prophet_batched", "moving_average", "seasonal_naive", "ets", "theta"),
    "erratic": ("default", "pooled", "prophet_batched", "moving_average", "seasonal_naive", "ets", "theta"),
    "intermittent": ("pooled", "tsb", "sba", "default", "moving_average"),
    "lumpy": ("pooled", "tsb", "sba", "default", "moving_average"),
}


class ForecastSettings(_Section):
    """Nightly training."""

    engine: str = Field("pooled", description="a registered model: pipelines.forecasting.engines")
    candidates: dict[str, tuple[str, ...]] = Field(
        default_factory=lambda: dict(CANDIDATES),
        description="models that compete for each demand class, the first one favoured; default: forecast.engine",
    )
    ensemble: tuple[str, ...] = Field(
        ("prophet_batched", "pooled", "moving_average"), description="models whose median is median_ensemble"
    )
    sampled: dict[str, float] = Field(
        default_factory=lambda: {"ets": 0.02, "theta": 0.02},
        description="models that compete for this share of the series only, since they take their time",
    )
    backtest_cutoffs: int = Field(3, ge=1, le=24, description="days from which the past is forecast again")
    backtest_spacing_days: int | None = Field(None, ge=1, description="days between them; None: the horizon")
    switch_margin: float = Field(
        0.02, ge=0, description="a series' model gives way to one whose loss is less by this share at least"
    )
    switch_noise: float = Field(2.0, ge=0, description="and by so many standard errors of the difference")
    calibration: str = Field(
        "conformal", pattern="^(conformal|none)$", description="quantiles as the backtests of all series want them"
    )
    predecessors: dict[str, str] = Field(
        default_factory=dict, description="new sku: the old sku whose history it goes on from"
    )
    horizon_days: int = Field(28, ge=1, le=366)
    hourly_horizon_hours: int = Field(72, ge=0, le=28 * 24)
    hourly_method: str = Field(
        "direct",
        pattern="^(profile|direct)$",
        description="hours of a day by the category's profile, or by the series' own hours leaning on it",
    )
    hourly_coherent: bool = Field(True, description="hours add up to their day; false: direct hours keep their level")
    minimum_history_days: int = Field(60, ge=14, description="shorter series get the fallback")
    profile_weeks: int = Field(8, ge=1, description="history behind the intraday profile")
    history_days: int = Field(1461, ge=30, description="the longest history a model is fitted to")
    censoring: str = Field(
        "impute",
        pattern="^(none|mask|impute)$",
        description="days partly without stock: as sold, unknown, or completed by the demand expected in the rest",
    )
    censoring_floor: float = Field(
        0.05, ge=0, le=1, description="impute: a day of whose demand less than this share met stock is unknown"
    )
    reconciliation: str = Field(
        "bottom_up",
        pattern="^(bottom_up|mint_shrink)$",
        description="totals are sums of series, or series are scaled by MinT of series' sums and forecast totals",
    )
    seasonality_mode: str = Field("multiplicative", pattern="^(additive|multiplicative)$")
    growth: str = Field("linear", pattern="^(linear|flat|logistic)$", description="trend of the Prophet models")
    capacity_factor: float = Field(1.5, gt=1, description="logistic growth: capacity over the largest demand seen")
    mcmc_samples: int = Field(0, ge=0, description="above 0: Prophet samples its posterior, very slowly")
    holidays_country: str | None = Field(None, description="ISO code; None: no holidays")
    uncertainty_samples: int = Field(300, ge=50)
    batch_series: int = Field(256, ge=1, description="series per call on an executor")
    versions_kept: int = Field(14, ge=2)


class PlanningSettings(_Section):
    """Reorder points and order-up-to levels."""

    method: str = Field("order_up_to", description="a registered policy: pipelines.inventory.policies")
    paths: int = Field(2000, ge=100, description="sampled demand paths behind a distribution")
    default_service_level: float = Field(0.95, gt=0, lt=1)
    versions_kept: int = Field(14, ge=2)
    driver_series: int = Field(50_000, ge=0, description="more series than this are planned on Spark's executors")
    daily_budget: float | None = Field(
        None, ge=0, description="money that all purchases of a day may cost together; null: no limit"
    )
    transfer_cost: float | None = Field(
        None, ge=0, description="money per transfer between locations of a region; null: there are none"
    )
    transfer_unit_cost: float = Field(0.0, ge=0, description="money per unit that is transferred, besides")
    transfer_days: float = Field(1.0, gt=0, description="how long a transfer takes")
    correct_service: bool = Field(
        False, description="plan with what achieves the service wanted, as jobs/learn_policies.py found it"
    )
    use_learned: bool = Field(False, description="levels of gold/policy_candidates where a learnt method is cheapest")
    substitution_share: float = Field(
        0.0, ge=0, le=1, description="customers who take another product of the group when theirs is missing"
    )
    dead_after_days: float = Field(90.0, gt=0, description="stock of which nothing sold for so long is dead")


class RestockSettings(_Section):
    """Flags and orders."""

    flag_probability: float = Field(0.2, gt=0, lt=1, description="flag above this chance of running out")
    high_probability: float = Field(0.5, gt=0, lt=1)
    critical_probability: float = Field(0.8, gt=0, lt=1)
    money_at_risk: tuple[float, float, float] = Field(
        (10.0, 50.0, 250.0),
        description="margin expected to be lost by a series from which on its risk is medium, high, critical",
    )
    hold_hours_after_rejection: float = Field(24.0, ge=0, description="no new order for the series meanwhile")
    receipt_grace_hours: float = Field(
        24.0, ge=0, description="an order reported as received counts as on order until its receipt, at most so long"
    )
    stale_forecast_hours: float = Field(36.0, gt=0, description="orders from older forecasts say so")
    replace_forecast_after_days: float = Field(
        7.0, gt=0, description="older forecasts give way to a fixed rule: mean daily demand"
    )
    snapshot_seconds: float = Field(5.0, ge=0, description="positions are saved at least this often")
    catch_up_rows: int = Field(200_000, ge=1000, description="ledger rows per step when behind")
    recent_changes: int = Field(64, ge=0, description="changes remembered per series for late counts")


class OrdersSettings(_Section):
    """Which orders a person must approve, and for how long they wait."""

    approval_value: float | None = Field(
        None, ge=0, description="orders worth more (units times unit cost) wait for approval; null: none does"
    )
    expiry_hours: float = Field(48.0, gt=0, description="a proposal that nobody decided on expires after so long")


class ApiSettings(_Section):
    """The order API. Without any token everybody who reaches it may decide, so it is then bound to loopback only."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8321, ge=0, le=65535, description="0: any that is free")
    read_token: SecretStr | None = Field(None, description="may look; from the environment or a 0600 file")
    approve_token: SecretStr | None = Field(None, description="may look and decide; likewise")
    tokens_file: str | None = Field(None, description="0600, a line each: read|approve NAME TOKEN")
    webhook_secret: SecretStr | None = Field(
        None, description="Standard Webhooks secret (whsec_...) of suppliers' status reports; null: none are taken"
    )
    webhook_secret_file: str | None = Field(None, description="0600, holds the secret")
    largest_body_bytes: int = Field(65_536, ge=1024)


class DashboardSettings(_Section):
    """The dashboard. Its people and tokens are those of the order API (`api.*_token`, `api.tokens_file`)."""

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback only with tokens")
    port: int = Field(8322, ge=0, le=65535, description="0: any that is free")
    poll_seconds: float = Field(
        0.3, gt=0, le=10, description="between two looks at the tables, for all viewers at once"
    )
    probe_seconds: float = Field(2.0, gt=0, description="between two looks at Kafka: lag, relay, alerts")
    shown_decisions: int = Field(50, ge=1, le=1000, description="most lines under what needs a decision")
    mlflow_url: str | None = Field(None, description="where people reach MLflow's pages; null: no links")


class AlertWebhookSettings(_Section):
    """Where alerts are sent by HTTP, in the Standard Webhooks form. No URL: they leave on `alerts` only."""

    url: str | None = Field(None, description="each alert is POSTed here; never taken from data")
    secret: SecretStr | None = Field(
        None, description="Standard Webhooks secret (whsec_...) that alerts are signed with"
    )
    secret_file: str | None = Field(None, description="0600, holds the secret")
    timeout_seconds: float = Field(10.0, gt=0)
    first_pause_seconds: float = Field(0.5, gt=0, description="before the first repetition; doubles from then on")
    largest_pause_seconds: float = Field(60.0, gt=0)
    give_up_hours: float = Field(24.0, gt=0, description="an alert that was refused for so long is left out")
    allowed_private_hosts: tuple[str, ...] = Field(
        (), description="host names that may lie at private or loopback addresses"
    )


class SupplierApiSettings(_Section):
    """Where orders are sent by HTTP. No URL: they leave on `restock.orders` only."""

    url: str | None = Field(None, description="each order is POSTed here; never taken from data")
    secret: SecretStr | None = Field(
        None, description="Standard Webhooks secret (whsec_...) that orders are signed with"
    )
    secret_file: str | None = Field(None, description="0600, holds the secret")
    timeout_seconds: float = Field(10.0, gt=0)
    concurrency: int = Field(8, ge=1, le=64, description="orders in flight at a time")
    first_pause_seconds: float = Field(0.5, gt=0, description="before the first repetition; doubles from then on")
    largest_pause_seconds: float = Field(60.0, gt=0)
    retry_seconds: float = Field(300.0, gt=0, description="tried for longer, an order raises an alert and is tried on")
    allowed_private_hosts: tuple[str, ...] = Field(
        (), description="host names that may lie at private or loopback addresses"
    )


MOST_HOPS = 168
"""A sale falls into so many sliding windows of a length at most: a week of hours."""


class TotalsSettings(_Section):
    """Live totals per region and for the whole chain. A change of windows or scopes needs the totals anew."""

    window_minutes: int = Field(60, ge=1, le=1440)
    sliding_minutes: tuple[int, ...] = Field(
        (), description="lengths of sliding windows as well, multiples of window_minutes, by which they slide"
    )
    locations: bool = Field(False, description="totals of each location as well, with the scope location:ID")
    trigger_seconds: float = Field(10.0, ge=0)
    publish: bool = Field(True, description="send changed totals to demand.totals; false: store them only")

    @model_validator(mode="after")
    def _sliding_windows_are_made_of_tumbling_ones(self) -> TotalsSettings:
        lengths = self.sliding_minutes
        most = MOST_HOPS * self.window_minutes
        fitting = all(length % self.window_minutes == 0 and self.window_minutes < length <= most for length in lengths)
        if not fitting or len(set(lengths)) < len(lengths):
            raise ValueError(
                f"sliding_minutes are {list(lengths)}; expected different multiples of window_minutes "
                f"({self.window_minutes}), larger than it and up to {most}"
            )
        return self


class ShipmentsSettings(_Section):
    """Tracking of shipments."""

    save_seconds: float = Field(2.0, ge=0, description="changed shipments are saved at least this often")
    catch_up_rows: int = Field(100_000, ge=1000, description="events per step when behind")
    announce_hours: float = Field(6.0, ge=0, description="orders hear of an arrival that has moved by so much")
    late_hours: float = Field(12.0, ge=0, description="alert when so much behind the promise")
    late_probability: float = Field(0.5, gt=0, le=1, description="or when late with this chance")
    look_seconds: float = Field(300.0, gt=0, description="how often bottlenecks are looked for")
    risk_model: str = Field("ensemble", description="one of pipelines/shipments/risk/models")


class AnomaliesSettings(_Section):
    """Alert rules: a file each in pipelines/anomalies/rules."""

    rules: tuple[str, ...] = Field(
        (
            *("count_shrinkage", "demand_drift", "demand_outlier", "negative_stock", "phantom_stock", "price_error"),
            *("quantity_error", "supplier_slowdown"),
        ),
        description="those in force",
    )
    false_alarms_per_day: float = Field(1.0, gt=0, description="of all rules together; thresholds follow from it")
    look_seconds: float = Field(300.0, gt=0, description="how often the rules look")


class RoutingSettings(_Section):
    """Other ways for shipments at risk. Costs are in the catalog's currency; the contract has no freight costs, so
    these are an ordinary parcel and pallet carrier's order of magnitude: put your own in."""

    history_days: float = Field(365.0, gt=0, description="lanes are learnt from the events of so many days")
    learn_hours: float = Field(24.0, gt=0, description="and learnt anew so often")
    shrinkage_legs: float = Field(5.0, ge=0, description="a lane's own legs count against so many of what is usual")
    variation: float = Field(0.35, gt=0, description="deviation of an unknown leg's time, as a share of it")
    speeds_kmh: dict[str, float] = Field(
        default_factory=lambda: {"road": 50.0, "rail": 40.0, "sea": 25.0, "air": 300.0},
        description="by mode, door to door over the great-circle distance; other modes: as road",
    )
    handling_hours: float = Field(4.0, gt=0, description="at a node, where its own history says nothing")
    rebooking_hours: float = Field(4.0, ge=0, description="until goods leave another way than planned")
    fixed_costs: dict[str, float] = Field(
        default_factory=lambda: {"road": 40.0, "rail": 60.0, "sea": 80.0, "air": 120.0},
        description="money per leg, by mode; other modes: as road",
    )
    unit_km_costs: dict[str, float] = Field(
        default_factory=lambda: {"road": 0.0005, "rail": 0.0003, "sea": 0.0001, "air": 0.003},
        description="money per unit and kilometre, by mode; other modes: as road",
    )
    expedite_kmh: float = Field(80.0, gt=0, description="an express carrier, door to door")
    expedite_rebooking_hours: float = Field(2.0, ge=0, description="until it has the goods")
    expedite_surcharge: float = Field(150.0, ge=0, description="money per expedited consignment, besides road's costs")
    expedite_factor: float = Field(3.0, ge=1, description="and its unit-kilometres cost so much more than by road")
    shown_options: int = Field(6, ge=1, le=50, description="most alternatives kept for a shipment, the best first")
    thought_at_once: int = Field(
        50, ge=1, description="most shipments whose alternatives are thought of at one save, the most at stake first"
    )


class MaintenanceSettings(_Section):
    """Upkeep of the tables: by the process that owns them, between its own commits."""

    enabled: bool = Field(True, description="false: files and logs grow until jobs/maintain_tables.py is run")
    commits: int = Field(50, ge=2, description="a table is looked at again after so many commits")
    small_files: int = Field(24, ge=2, description="small files that are merged into a larger one")
    target_mb: float = Field(64.0, gt=0, description="size that files are merged up to")
    clean_minutes: float = Field(5.0, ge=0, description="least time between two removals of old files and log entries")
    retention_minutes: float = Field(
        60.0, gt=0, description="replaced files are kept so long; longer than the longest read of a live table takes"
    )
    log_retention_minutes: float = Field(
        10.0, gt=0, description="log entries are kept so long; each 1,000 of them add some 10 ms to a commit"
    )


class MlflowSettings(_Section):
    """Where training runs are tracked. No URI: SQLite and files under `home`."""

    tracking_uri: str | None = None
    experiment: str = "stockcast"
    registered_model: str = "stockcast-demand"


class TrackingSettings(_Section):
    """What a training's MLflow page shows beside its sums: a nested run with figures for a few series."""

    worst_series: int = Field(3, ge=0, le=100, description="nested runs of the series with the largest errors")
    sample_series: int = Field(2, ge=0, le=100, description="nested runs of a sample from the middle, with a fallback")


class PromotionSettings(_Section):
    """What a new model must show before its forecasts replace those in force."""

    gated: bool = Field(True, description="false: whatever is complete and sound goes into force")
    minimum_gain: float = Field(
        -0.02, gt=-1, lt=1, description="least cut of the champion's error on common days; below 0: allowed loss"
    )
    largest_bias: float = Field(0.15, gt=0, description="largest |Σ(forecast - actual)| / Σ actual of the backtest")
    lowest_coverage: float = Field(0.65, ge=0, le=1, description="of the 80 % interval in the backtest")
    highest_coverage: float = Field(
        0.99, ge=0, le=1, description="of the 80 % interval in the backtest; counts of slow movers always cover more"
    )
    longest_refusal_days: int = Field(
        7, ge=1, description="forecasts in force that are this much older are replaced whatever the gates say"
    )


class DriftSettings(_Section):
    """Published forecasts against what came: when a line is logged and a table row marked."""

    window_days: int = Field(28, ge=7, le=366, description="days of published forecasts that are remembered")
    smoothing: float = Field(0.1, gt=0, lt=1, description="of the tracking signal's two averages")
    tracking_signal_limit: float = Field(0.6, gt=0, le=1, description="a series signals above this |signal|")
    signalling_share_limit: float = Field(0.1, gt=0, le=1, description="share of a category's series that may signal")
    bias_limit: float = Field(0.15, gt=0)
    coverage_tolerance: float = Field(0.1, gt=0, le=0.5, description="distance of the coverage from 80 %")
    stability_index_limit: float = Field(0.25, gt=0, description="population stability index of the series' levels")
    level_change_limit: float = Field(4.0, gt=0, description="change of a category's week in standard deviations")


class MonitoringSettings(_Section):
    """Metrics for Prometheus, served by each streaming job while it runs."""

    enabled: bool = Field(False, description="serve metrics; a port that is taken stops nothing")
    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback only with a token")
    port: int = Field(9464, ge=0, le=65535, description="one of its own for each job on a machine; 0: any that is free")
    token: SecretStr | None = Field(None, description="whoever asks must bear it; from the environment or a 0600 file")
    token_file: str | None = Field(None, description="0600, holds the token")
    refresh_seconds: float = Field(10.0, ge=0, description="figures from tables and Kafka are taken at most so often")
    stalled_seconds: float = Field(
        300.0, gt=0, description="unhealthy: records or orders have waited for so long and nothing moves"
    )


class LoggingSettings(_Section):
    """What a job writes to standard error."""

    format: str = Field("text", pattern="^(text|json)$", description="lines for people, or a JSON object a line")


class Settings(_Section):
    """All of Stockcast's settings."""

    home: str = Field(".stockcast", description="folder or URI of tables, checkpoints and the broker's data")
    kafka: KafkaSettings = KafkaSettings()
    broker: BrokerSettings = BrokerSettings()
    ingest: IngestSettings = IngestSettings()
    forecast: ForecastSettings = ForecastSettings()
    planning: PlanningSettings = PlanningSettings()
    restock: RestockSettings = RestockSettings()
    orders: OrdersSettings = OrdersSettings()
    api: ApiSettings = ApiSettings()
    dashboard: DashboardSettings = DashboardSettings()
    alert_webhook: AlertWebhookSettings = AlertWebhookSettings()
    supplier_api: SupplierApiSettings = SupplierApiSettings()
    totals: TotalsSettings = TotalsSettings()
    shipments: ShipmentsSettings = ShipmentsSettings()
    routing: RoutingSettings = RoutingSettings()
    anomalies: AnomaliesSettings = AnomaliesSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    mlflow: MlflowSettings = MlflowSettings()
    tracking: TrackingSettings = TrackingSettings()
    promotion: PromotionSettings = PromotionSettings()
    drift: DriftSettings = DriftSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    logging: LoggingSettings = LoggingSettings()

    @property
    def home_path(self) -> Path:
        """`home` as a local folder; refused where it is a remote URI."""
        if "://" in self.home and not self.home.startswith("file://"):
            raise UsageError(f"home is {self.home}: this command needs a local folder")
        return Path(self.home.removeprefix("file://")).absolute()

    def under_home(self, *parts: str) -> str:
        """A path or URI below `home`."""
        if "://" in self.home:
            return "/".join((self.home.rstrip("/"), *parts))
        return str(self.home_path.joinpath(*parts))
