"""What is known of each supplier and each location, as numbers: pure, tables in, one row a member out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import numpy as np
import pandas as pd

from pipelines.inventory.lead_times import LeadTimeRecords
from pipelines.network.words import Feature

SUPPLIER_FEATURES = {
    "lead_time_days": Feature("long lead times", "short lead times", "{:.1f} days", 1.3, ratio=True),
    "lead_time_variation": Feature("unsteady lead times", "steady lead times", "variation {:.0%}", 0.15),
    "late_share": Feature("often late", "seldom late", "{:.0%} of deliveries late", 0.1),
    "fill_rate": Feature("delivers in full", "often delivers short", "{:.0%} of units", 0.05),
    "unit_cost": Feature("dear products", "cheap products", "{:.2f} a unit", 2.0, ratio=True),
}
LOCATION_FEATURES = {
    "volume": Feature("sells much", "sells little", "{:,.0f} units a day", 1.5, ratio=True),
    "variation": Feature("unsteady demand", "steady demand", "variation {:.0%}", 0.15),
    "weekend_share": Feature("busy at weekends", "busy on working days", "{:.0%} at weekends", 0.05),
    "seasonality": Feature("strong seasons", "hardly any season", "months vary by {:.0%}", 0.1),
    "assortment": Feature("wide assortment", "narrow assortment", "{:,.0f} products", 1.5, ratio=True),
}
CATEGORY_UNIT, DEGREES = 0.15, 5.0
"""Differences that matter: of a category's share, and on the map."""


def supplier_profiles(
    suppliers: pd.DataFrame,
    sourcing: pd.DataFrame,
    products: pd.DataFrame,
    records: LeadTimeRecords,
    orders: pd.DataFrame,
    shipments: pd.DataFrame,
) -> pd.DataFrame:
    """One row a supplier, in the order of the catalog; NaN where nothing is known.

    Args:
        orders: supplier_id, state, quantity, received; fill rate is that of orders which have come to their end.
        shipments: supplier_id, promised, delivered; late is later than first promised.

    Returns:
        supplier_id, region, orders, lead_time_days, lead_time_variation, late_share, fill_rate, unit_cost.
    """
    known = pd.DataFrame({"supplier_id": records.supplier, "days": records.days})[records.arrived]
    times = known.groupby("supplier_id").days.agg(["mean", "std", "size"])
    stated = sourcing.groupby("supplier_id")[["lead_time_days", "lead_time_std_days"]].mean()
    came = shipments.dropna(subset=["promised", "delivered"])
    late = (came.delivered > came.promised).groupby(came.supplier_id).mean()
    ended = orders[orders.state == "received"]
    units = ended.groupby("supplier_id")[["received", "quantity"]].sum()
    cost = sourcing.merge(products[["sku", "unit_cost"]], on="sku").groupby("supplier_id").unit_cost.mean()
    names = suppliers.supplier_id
    mean = times["mean"].reindex(names).fillna(stated.lead_time_days.reindex(names))
    deviation = times["std"].reindex(names).fillna(stated.lead_time_std_days.reindex(names))
    return pd.DataFrame(
        {
            "supplier_id": names.to_numpy(),
            "region": suppliers.region.to_numpy(),
            "orders": times["size"].reindex(names).fillna(0).to_numpy(int),
            "lead_time_days": mean.to_numpy(float),
            "lead_time_variation": (deviation / mean.where(mean > 0)).to_numpy(float),
            "late_share": late.reindex(names).to_numpy(float),
            "fill_rate": (units.received / units.quantity).clip(upper=1).reindex(names).to_numpy(float),
            "unit_cost": cost.reindex(names).to_numpy(float),
        }
    )


def location_profiles(
    locations: pd.DataFrame, daily: pd.DataFrame, products: pd.DataFrame, as_of: date
) -> pd.DataFrame:
    """One row a location, in the order of the catalog; NaN where it never sold.

    Args:
        daily: location_id, sku, date, demand of at most the last year.

    Returns:
        location_id, region, volume (units a day), variation (of its days), weekend_share, seasonality (of its months'
        means), assortment, latitude, longitude, and the share of each category (`category ...`).
    """
    names = locations.location_id
    days = daily.assign(date=pd.to_datetime(daily.date)).groupby(["location_id", "date"]).demand.sum().reset_index()
    spans = (pd.Timestamp(as_of) - days.groupby("location_id").date.min()).dt.days + 1
    total = days.groupby("location_id").demand.sum()
    volume = total / spans
    squares = (days.demand.astype(float) ** 2).groupby(days.location_id).sum() / spans
    weekend = days[days.date.dt.weekday >= 5].groupby("location_id").demand.sum() / total
    months = days.groupby(["location_id", days.date.dt.month]).demand.mean().groupby("location_id")
    mixed = daily.merge(products[["sku", "category"]], on="sku", how="left")
    by_category = mixed.groupby(["location_id", mixed.category.fillna("unknown")]).demand.sum().unstack(fill_value=0)
    shares = by_category.div(by_category.sum(axis=1), axis=0).add_prefix("category ")
    columns = {
        "volume": volume,
        "variation": np.sqrt((squares - volume**2).clip(lower=0)) / volume,
        "weekend_share": weekend,
        "seasonality": months.std(ddof=0) / months.mean(),
        "assortment": daily[daily.demand > 0].groupby("location_id").sku.nunique(),
        **dict(shares.items()),
    }
    table = pd.DataFrame({name: values.reindex(names).to_numpy(float) for name, values in columns.items()})
    table.insert(0, "location_id", names.to_numpy())
    table.insert(1, "region", locations.region.to_numpy())
    return table.assign(latitude=locations.latitude.to_numpy(float), longitude=locations.longitude.to_numpy(float))


def coordinates(profiles: pd.DataFrame, features: Mapping[str, Feature]) -> np.ndarray:
    """(n, p) what members are compared by: features, shares of categories and the place, in units that matter."""
    parts = [feature.coordinates(profiles[name].to_numpy(float)) for name, feature in features.items()]
    others = {name: DEGREES for name in ("latitude", "longitude") if name in profiles}
    others |= {str(name): CATEGORY_UNIT for name in profiles if str(name).startswith("category ")}
    parts += [profiles[name].to_numpy(float) / unit for name, unit in others.items()]
    return np.column_stack(parts)
