"""Arrays of many series as Arrow's lists, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.forecasting.series import Floats, Integers

Present = npt.NDArray[np.bool_]


def numbers(values: Floats) -> pa.Array[Any]:
    """(n,) numbers; null where not finite."""
    return pa.array(values, pa.float64(), mask=~np.isfinite(values))


def lists(values: Floats, present: Present, type_: Any = None) -> pa.Array[Any]:
    """A list a row of (n, ...), flattened; null where absent."""
    flat = values.reshape(len(values), -1)
    return pa.ListArray.from_arrays(
        _offsets(present, flat.shape[1]), pa.array(flat[present].ravel(), type_ or pa.float64(), from_pandas=True)
    )


def one_list(values: Integers, count: int) -> pa.Array[Any]:
    """`count` rows, the first of which holds all the values; null in the others."""
    return pa.array([values] + [None] * (count - 1) if count else [], pa.list_(pa.int64()))


def structs(columns: dict[str, Floats], present: Present) -> pa.Array[Any]:
    """A list of structs a row, from fields (n, h); null where absent."""
    parts = [pa.array(values[present].ravel()) for values in columns.values()]
    width = next(iter(columns.values())).shape[1]
    return pa.ListArray.from_arrays(_offsets(present, width), pa.StructArray.from_arrays(parts, names=tuple(columns)))


def matrix(table: pa.Table, name: str, shape: tuple[int, ...]) -> Floats:
    """(n, *shape) the lists of a column; NaN for a null, in a list or for a whole one."""
    column = table.column(name).combine_chunks()
    out = np.full((table.num_rows, *shape), np.nan)
    present = np.asarray(column.is_valid())
    flat = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    out[present] = np.asarray(flat, float).reshape(-1, *shape)
    return out


def _offsets(present: Present, width: int) -> pa.Array[Any]:
    """Offsets of lists of `width` items; null where absent."""
    ends = np.concatenate([[0], np.cumsum(np.where(present, width, 0))])
    return pa.array(ends, pa.int32(), mask=np.concatenate([~present, [False]]))
