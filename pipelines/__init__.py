"""Stockcast: demand forecasts, stockout flags and restock orders from a retail chain's event streams."""

__version__ = "0.1.0"
