"""What a message on `alerts` says, and when two of them are the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from pipelines.contracts.identifiers import identifier

CRITICAL, HIGH, LOW, INFO = "critical", "high", "low", "info"


@dataclass(frozen=True)
class Alert:
    """One message on `alerts`.

    Attributes:
        kind: what it is about, as a name that programs sort by.
        subject: the topic, order, or version concerned; the Kafka key.
        occasion: with kind and subject, what makes the alert this one: the same occasion has the same id.
        details: facts for programs; JSON values.
    """

    kind: str
    severity: str
    subject: str
    message: str
    event_time: datetime
    raised_at: datetime
    occasion: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def alert_id(self) -> str:
        """The same for the same occasion, however often it is told."""
        return identifier("a", self.kind, self.subject, self.occasion)

    def encode(self) -> bytes:
        """The message, with the contract's fields in its order."""
        return orjson.dumps(
            {
                "alert_id": self.alert_id,
                "kind": self.kind,
                "severity": self.severity,
                "subject": self.subject,
                "message": self.message,
                "event_time": self.event_time,
                "raised_at": self.raised_at,
                "details": self.details,
            },
            option=orjson.OPT_UTC_Z,
        )
