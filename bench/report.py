"""bench/RESULTS.md: one section a part, replaced when the part is measured again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.harness import Options, environment, spread

RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """# Measured

Each section says the command that measures it again. Processor time is shared with whatever else runs: `others`
is how many of the cores were busy with something else meanwhile, so a row with a large value there is a noisy one.
"""

Result = dict[str, Any]
Results = dict[str, list[Result]]

NAMES = {
    "chained": "(c) owner's memory, chained to the ingest query",
    "second_query": "(c2) owner's memory, a query behind the ledger",
    "delta_light": "(b1) Delta table, merged by deltalake",
    "delta_spark": "(b2) Delta table, merged by Spark",
    "state_store": "(a) Spark's state store, transformWithState",
    "state_store_pandas": "(a2) Spark's state store, applyInPandasWithState",
    "kafka_streams": "Kafka Streams peer",
    "ingest_only": "ingest alone, to the committed ledger",
    "ours_additive": "prophet_batched, additive",
    "ours_multiplicative": "prophet_batched, multiplicative",
    "prophet_batch_additive": "prophet-batch 0.1.2, additive",
    "prophet_batch_multiplicative": "prophet-batch 0.1.2, multiplicative",
    "stock_additive": "stock Prophet 1.5, additive",
    "stock_multiplicative": "stock Prophet 1.5, multiplicative",
    "delta_ours_additive": "mapInArrow, prophet_batched, additive",
    "delta_ours_multiplicative": "mapInArrow, prophet_batched, multiplicative",
    "delta_stock": "applyInPandas, stock Prophet, additive",
}


def write(part: str, section: str, path: Path = RESULTS) -> None:
    """Put a part's section in place of its earlier one."""
    text = path.read_text() if path.exists() else HEAD
    block = f"<!-- {part} -->\n{section.strip()}\n<!-- /{part} -->\n"
    pattern = re.compile(rf"<!-- {part} -->.*?<!-- /{part} -->\n", re.DOTALL)
    path.write_text(pattern.sub(lambda _: block, text) if pattern.search(text) else f"{text.rstrip()}\n\n{block}")


def live_section(options: Options, results: Results, command: str) -> str:
    """The table of an event's way to its order."""
    columns: list[tuple[str, Callable[[Sequence[Result]], str]]] = [
        ("outbox p50, s", lambda rows: spread([row["outbox_p50"] for row in rows]).show()),
        ("outbox p99, s", lambda rows: spread([row["outbox_p99"] for row in rows]).show()),
        ("max, s", lambda rows: spread([row["outbox_max"] for row in rows]).show()),
        ("Kafka p50 / p99, s", _kafka),
        ("events/s decided", lambda rows: spread([row["events_per_second"] for row in rows]).show(0)),
        ("behind at the end", lambda rows: spread([row["behind"] for row in rows]).show(0)),
        ("cores", lambda rows: spread([row["cores"] for row in rows]).show()),
        ("others, cores", lambda rows: spread([row["others"] for row in rows]).show()),
        ("load", lambda rows: spread([row["load"] for row in rows]).show(1)),
    ]
    undrained = [NAMES[form] for form, rows in results.items() if not all(row["drained"] for row in rows)]
    late = f"Did not catch up within two minutes after the last event: {', '.join(undrained)}."
    notes = f"\n{late}\n" if undrained else ""
    return f"""
## Live state: from an event to its order

{options.rate:,.0f} events/s over {options.series:,} series for {options.seconds:.0f} s after {options.warm_up:.0f} s of
warm-up, {options.repetitions} repetitions, forms interleaved, each from an empty home with its own broker. Latency:
from the event's hand-over to the producer's client until the commit with its order is in the outbox's log (Kafka:
until a read-committed consumer has it; the relay runs in all of Stockcast's forms). Median of the repetitions, least
and most in brackets. Every series' final position was checked: no order missing, none doubled. `cores`: what the form
itself used, broker and producer not counted.

{_table(results, columns)}
{notes}
Where a micro-batch spends its time (median ms; the restock column is the second query, where there is one):

{_batches(results)}

{foot(command)}"""


def catch_up_section(options: Options, results: Results, command: str) -> str:
    """The table of catching up."""
    columns: list[tuple[str, Callable[[Sequence[Result]], str]]] = [
        ("events/s, cold start included", lambda rows: spread([row["events_per_second"] for row in rows]).show(0)),
        ("events/s once warm", lambda rows: spread([row["warm_events_per_second"] for row in rows]).show(0)),
        ("seconds", lambda rows: spread([row["seconds"] for row in rows]).show(1)),
        ("others, cores", lambda rows: spread([row["others"] for row in rows]).show()),
        ("load", lambda rows: spread([row["load"] for row in rows]).show(1)),
    ]
    return f"""
## Catching up: {options.events:,} events that wait in Kafka

Time from the start of the queries (session open, nothing warmed up) until all is decided and in the outbox; for
ingest alone, until all is in the ledger. Once warm: from the first batch's end to the last one's. Each from an empty
home, {options.repetitions} repetitions, interleaved. The peer's time counts from its first processed event to its last.

{_table(results, columns)}

{foot(command)}"""


def memory_section(_: Options, results: Results, command: str) -> str:
    """The table of bytes per series."""
    lines = ["| changes remembered | open orders | bytes a series | 10 million series |", "|---:|---:|---:|---:|"]
    for row in results["positions"]:
        whole = row["bytes"] * 10_000_000 / 2**30
        lines.append(f"| {row['changes']} | {row['orders']} | {row['bytes']:,} | {whole:,.0f} GiB |")
    table = "\n".join(lines)
    return f"""
## Memory: the live state of a series in the owner's process

{table}

{foot(command)}"""


def _kafka(rows: Sequence[Result]) -> str:
    return (
        f"{spread([row['kafka_p50'] for row in rows]).median:.2f} / {spread([row['kafka_p99'] for row in rows]).show()}"
    )


def _table(results: Results, columns: list[tuple[str, Callable[[Sequence[Result]], str]]]) -> str:
    lines = ["| form | " + " | ".join(name for name, _ in columns) + " |", "|---|" + "---:|" * len(columns)]
    for form, rows in results.items():
        if rows:
            lines.append(f"| {NAMES[form]} | " + " | ".join(show(rows) for _, show in columns) + " |")
    return "\n".join(lines)


def _batches(results: Results) -> str:
    parts = ("rows", "triggerExecution", "latestOffset", "queryPlanning", "walCommit", "addBatch", "commitOffsets")
    lines = ["| form | query | " + " | ".join(parts) + " |", "|---|---|" + "---:|" * len(parts)]
    for form, rows in results.items():
        for query in rows[0]["queries"] if rows else ():
            medians = [spread([row["queries"][query].get(part, 0) for row in rows]).median for part in parts]
            lines.append(f"| {NAMES[form]} | {query} | " + " | ".join(f"{value:,.0f}" for value in medians) + " |")
    return "\n".join(lines)


def foot(command: str) -> str:
    """The command that measures a section again, the day, and the machine."""
    return f"`{command}` · {time.strftime('%Y-%m-%d')} · {environment()}"
