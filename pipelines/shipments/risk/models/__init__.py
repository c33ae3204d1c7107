"""One model of lateness a file; each registers itself with `pipelines.shipments.risk.plugins`."""
