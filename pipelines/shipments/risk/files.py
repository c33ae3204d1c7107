"""A delivery file of any company, and the YAML that says what its columns are."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pandas as pd
import yaml
from pydantic import ValidationError

from pipelines.errors import UsageError
from pipelines.shipments.risk.columns import DELIVERED, ColumnMapping, canonical
from pipelines.shipments.risk.deliveries import ARTEFACT
from pipelines.shipments.risk.features import last_known
from pipelines.shipments.risk.releasing import Source


def read_mapping(path: Path) -> ColumnMapping:
    """The mapping that a YAML file holds.

    Raises:
        UsageError: there is no such file, or it holds no mapping.
    """
    try:
        return ColumnMapping.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"the mapping of columns {path} cannot be read: {error.strerror}") from None
    except (ValidationError, yaml.YAMLError) as error:
        fields = ", ".join(ColumnMapping.model_fields)
        raise UsageError(f"{path} is no mapping of columns; expected the fields {fields}: {error}") from None


def read_deliveries(path: Path) -> pd.DataFrame:
    """A delivery file in Parquet or CSV.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the deliveries {path} cannot be read as Parquet or CSV: {error}") from None


def file_source(deliveries: Path, columns: Path) -> tuple[Source, date]:
    """What `releasing.release` learns from, under a name of its own, and the last day that the file tells of.

    Raises:
        UsageError: a file cannot be read, or they do not fit.
    """
    frame, mapping = read_deliveries(deliveries), read_mapping(columns)
    rows = canonical(frame, mapping)
    if rows[DELIVERED].isna().all():
        raise UsageError(f"no row of {deliveries} has a readable day in {mapping.delivered!r}; set date_formats")
    name = re.sub(r"[^a-z0-9]+", "_", deliveries.stem.lower()).strip("_") or "file"
    return Source(frame, mapping, f"{ARTEFACT}_{name}"), date.fromordinal(_EPOCH + int(last_known(rows)))


_EPOCH = date(1970, 1, 1).toordinal()
