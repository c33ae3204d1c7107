"""Risk pooled over products that stand in for each other: a group needs less safety stock than its parts (Eppen 1979).

Where a share α of the customers takes another product of the group when theirs is missing, the safety stock ss of each
becomes ss (1 - α (1 - σ / Σσᵢ)), σ being the deviation of the group's demand and σᵢ those of its products', their
errors taken as independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from scipy.special import ndtr, ndtri

from pipelines.contracts.tables import INVENTORY_POLICIES
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.policies import NO_DEMAND, SHELF_LIFE

_LEFT_ALONE = frozenset({NO_DEMAND, SHELF_LIFE})


def pooling_factor(deviation: FloatArray, share: float) -> float:
    """What is left of each product's safety stock in a group, 1 for one product alone.

    Args:
        deviation: of each product's demand, (n,). share: of the customers who take another one.
    """
    total = float(deviation.sum())
    if total <= 0:
        return 1.0
    return 1.0 - share * (1.0 - float(np.sqrt((deviation**2).sum())) / total)


def pool_substitutes(policies: pa.Table, group_of: Mapping[str, str | None], share: float) -> pa.Table:
    """Policies with the safety stock of substitutes lowered: reorder point and order-up-to level alike.

    The service level becomes what the product has by itself then, on the scale of normal scores; with its substitutes
    the service stays what was wanted.

    Args:
        group_of: the group of each sku; None for a product that nothing stands in for.
    """
    read = {name: policies[name].to_pylist() for name in ("location_id", "sku", "binding_constraint")}
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, (location, sku, binding) in enumerate(zip(*read.values(), strict=True)):
        group = group_of.get(sku)
        if group is not None and binding not in _LEFT_ALONE:
            groups[location, group].append(row)
    deviation = np.array([values[-1] if values else 0.0 for values in policies["cumulative_std"].to_pylist()])
    factor = np.ones(policies.num_rows)
    for rows in groups.values():
        factor[rows] = pooling_factor(deviation[rows], share)
    point, up_to = (policies[name].to_numpy().astype(np.int64) for name in ("reorder_point", "order_up_to"))
    safety, service = policies["safety_stock"].to_numpy(), policies["service_level"].to_numpy()
    fewer = np.minimum(np.floor(np.maximum(safety, 0.0) * (1 - factor)), point).astype(np.int64)
    kept = np.divide(safety - fewer, safety, out=np.ones_like(safety), where=fewer > 0)
    alone = np.where(fewer > 0, ndtr(ndtri(service) * kept), service)
    new = {"reorder_point": point - fewer, "order_up_to": up_to - fewer, "safety_stock": safety - fewer}
    for name, values in (new | {"service_level": alone}).items():
        place = INVENTORY_POLICIES.schema.get_field_index(name)
        policies = policies.set_column(place, INVENTORY_POLICIES.schema.field(name), pa.array(values))
    return policies
