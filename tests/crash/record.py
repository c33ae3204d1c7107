"""What the generator recorded: which messages it sent, and which of them the broker acknowledged where."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.generator import read_lines

Place = tuple[str, int, int]
"""Topic, partition and offset."""
Content = tuple[str, bytes | None, bytes | None]
"""Topic, key and value."""


@dataclass
class SentRecord:
    """The generator's own account.

    Attributes:
        acknowledged: what the broker acknowledged, by place.
        verdicts: of each content that was sent or may have been, what should become of it: the verdict, and the event
            that it is about.
    """

    acknowledged: dict[Place, Content] = field(default_factory=dict)
    verdicts: dict[Content, tuple[str, str | None]] = field(default_factory=dict)
    failed: int = 0


def read_record(path: Path) -> SentRecord:
    """Read a generator's record."""
    record, sent = SentRecord(), {}
    for line in read_lines(path):
        if "n" in line:
            value = None if line["value"] is None else base64.b64decode(line["value"])
            content = sent[line["n"]] = (line["topic"], line["key"].encode(), value)
            record.verdicts[content] = (line["verdict"], line["event_id"])
        elif "ack" in line:
            content = sent[line["ack"]]
            record.acknowledged[(content[0], line["partition"], line["offset"])] = content
        elif "failed" in line:
            record.failed += 1
    return record
