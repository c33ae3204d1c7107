"""Settings: frozen models, filled from layers of YAML, the environment and `--set`; later layers win.

Layers, in order: the models' defaults, `conf/base.yaml`, then `conf/local.yaml` or the files named by
`--config`, then `STOCKCAST_HOME` and `STOCKCAST__SECTION__KEY` from the environment, then `--set a.b=value`.
"""

from pipelines.operations.settings.loading import conf_folder, load_settings
from pipelines.operations.settings.sections import (
    AlertWebhookSettings,
    AnomaliesSettings,
    ApiSettings,
    BrokerSettings,
    DashboardSettings,
    DriftSettings,
    ForecastSettings,
    IngestSettings,
    KafkaSettings,
    LoggingSettings,
    MaintenanceSettings,
    MlflowSettings,
    MonitoringSettings,
    OrdersSettings,
    PlanningSettings,
    PromotionSettings,
    RestockSettings,
    RoutingSettings,
    Settings,
    ShipmentsSettings,
    SupplierApiSettings,
    TotalsSettings,
    TrackingSettings,
)

__all__ = [
    "AlertWebhookSettings",
    "AnomaliesSettings",
    "ApiSettings",
    "BrokerSettings",
    "DashboardSettings",
    "DriftSettings",
    "ForecastSettings",
    "IngestSettings",
    "KafkaSettings",
    "LoggingSettings",
    "MaintenanceSettings",
    "MlflowSettings",
    "MonitoringSettings",
    "OrdersSettings",
    "PlanningSettings",
    "PromotionSettings",
    "RestockSettings",
    "RoutingSettings",
    "Settings",
    "ShipmentsSettings",
    "SupplierApiSettings",
    "TotalsSettings",
    "TrackingSettings",
    "conf_folder",
    "load_settings",
]
