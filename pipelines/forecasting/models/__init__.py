"""One forecasting model a file; each registers itself with `pipelines.forecasting.engines`."""
