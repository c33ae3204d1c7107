"""Demand to forecasts: engines, backtest, choice per series, hourly profile, publishing, model registry."""
