"""Every error that Stockcast raises on purpose: what was expected, what was found, what to do."""

from __future__ import annotations


class StockcastError(Exception):
    """An error whose message is meant for the person at the terminal. Jobs exit with `exit_code`."""

    exit_code = 1


class UsageError(StockcastError):
    """The command line or the configuration is wrong; nothing was started."""

    exit_code = 2


class CatalogError(UsageError):
    """The reference data has errors; the catalog in force stays."""


class BrokerError(StockcastError):
    """The Kafka broker cannot be started or reached."""


class OwnershipError(StockcastError):
    """Another process owns the writes of a table."""


class SourceGapError(StockcastError):
    """Kafka no longer holds records that were never read, or a topic was recreated."""


class CheckpointError(StockcastError):
    """A stream's checkpoint is damaged, belongs to another query, or is older than the tables."""


class StorageError(StockcastError):
    """The disk under `home` takes no more."""


class PublishingError(StockcastError):
    """A new version is incomplete or malformed; the version in force stays."""


class MissingDataError(StockcastError):
    """A step was started before the data that it needs exist."""


class UnknownOrderError(StockcastError):
    """There is no such order."""


class OrderConflictError(StockcastError):
    """The order is in a state in which this cannot be decided any more."""


class UnknownShipmentError(UnknownOrderError):
    """There is no such shipment, or no such way for it."""


class RerouteConflictError(OrderConflictError):
    """The shipment is where it cannot be sent that way any more."""


class KeyReusedError(StockcastError):
    """An idempotency key came again with another request; nothing was done."""


class LeakageError(UsageError):
    """A column tells what is to be predicted: it cannot have been known beforehand."""
