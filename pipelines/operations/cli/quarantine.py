"""`stockcast quarantine`: what was set aside, why, and sending it again after a fix."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from pipelines.contracts.tables import QUARANTINE
from pipelines.ingestion.replay import send_again
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    settings_from,
    show_json,
    show_table,
    tell,
)

app = typer.Typer(help="Records that did not meet the contract.", no_args_is_help=True)

SHOWN_BYTES = 60

ReasonOption = Annotated[str | None, typer.Option(help="Only records set aside for this reason.")]


@app.command("list")
def list_records(
    config: ConfigOption = None,
    overrides: SetOption = None,
    reason: ReasonOption = None,
    limit: int = 20,
    json: JsonOption = False,
) -> None:
    """Counts by reason, and the newest records."""
    rows = Tables(settings_from(config, overrides)).read(QUARANTINE).sort_by([("quarantined_at", "descending")])
    found = [row for row in rows.to_pylist() if reason is None or row["reason"] == reason]
    counts = Counter((row["reason"], row["topic"], row["replayed_at"] is not None) for row in found)
    newest = [{**row, "key": _shown(row["key"]), "value": _shown(row["value"])} for row in found[:limit]]
    if json:
        show_json({"counts": [[*key, count] for key, count in counts.most_common()], "newest": newest})
        return
    show_table(
        f"{len(found)} records set aside",
        ["reason", "topic", "sent again", "records"],
        [[why, topic, "yes" if again else "", count] for (why, topic, again), count in counts.most_common()],
    )
    show_table(
        "newest",
        ["where", "why", "value"],
        [[f"{row['topic']}/{row['partition']}/{row['offset']}", row["detail"], row["value"]] for row in newest],
    )


@app.command()
def replay(
    config: ConfigOption = None,
    overrides: SetOption = None,
    reason: ReasonOption = None,
    json: JsonOption = False,
) -> None:
    """Send records to their topics again, as they were; the ingest stream marks them as replayed."""
    settings = settings_from(config, overrides)
    sent = send_again(Tables(settings), kafka.producer(settings), reason)
    tell(f"sent {sent} records again", {"sent": sent}, json)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    text = bytes(value[:SHOWN_BYTES]).decode("utf-8", "backslashreplace")
    printable = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return printable + ("…" if len(value) > SHOWN_BYTES else "")
