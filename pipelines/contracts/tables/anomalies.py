"""What was unusual, from when to when, and how unusual things have been."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts.tables.base import TIME, Table, schema_of, text

ANOMALIES = Table(
    "gold/anomalies",
    schema_of(
        **text("rule subject"),
        opened_at=TIME,
        closed_at=TIME,
        surprise=pa.float64(),
        threshold=pa.float64(),
        **text("severity message details"),
    ),
    "watch_anomalies",
)
"""Episodes (`closed_at` null: lasting) and how they looked when they began. `surprise`: -log10 of the chance of
something so unusual where all is well (300: a fact); `threshold`: what the budget of false alarms asked for;
`details`: JSON."""

ANOMALY_SCORES = Table(
    "gold/anomaly_scores",
    schema_of(rule=pa.string(), day=pa.date32(), subject=pa.string(), surprise=pa.float64()),
    "watch_anomalies",
)
"""The largest scores of each rule and day of four weeks, from which thresholds follow. Subject "": the day itself."""
