"""What was sent, counted exactly: what a reconciliation of the tables is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.simulation.messages import CONFLICT, DUPLICATE, MALFORMED, TOMBSTONE, VALID, Message


@dataclass
class TopicCounts:
    """Messages of one topic: `messages` is the sum of the five counts after it.

    Attributes:
        valid: valid messages that are not repeats, which is also the number of distinct valid event ids.
        exact_duplicates: byte-for-byte repeats of a valid message.
        conflicting_duplicates: repeats of a valid event id with another payload.
        malformed: messages that are no valid event.
        tombstones: messages with a key and no value.
        late: valid messages that were held back behind later ones.
        malformed_kinds: `malformed` by kind.
    """

    messages: int = 0
    valid: int = 0
    exact_duplicates: int = 0
    conflicting_duplicates: int = 0
    malformed: int = 0
    tombstones: int = 0
    late: int = 0
    malformed_kinds: dict[str, int] = field(default_factory=dict)

    def add(self, message: Message) -> None:
        """Count a message."""
        self.messages += 1
        if message.label == VALID:
            self.valid += 1
            self.late += message.late
        elif message.label == DUPLICATE:
            self.exact_duplicates += 1
        elif message.label == CONFLICT:
            self.conflicting_duplicates += 1
        elif message.label == TOMBSTONE:
            self.tombstones += 1
        else:
            self.malformed += 1
            kind = message.label.removeprefix(f"{MALFORMED}:")
            self.malformed_kinds[kind] = self.malformed_kinds.get(kind, 0) + 1


@dataclass
class Manifest:
    """Everything sent for one plan so far, by topic."""

    topics: dict[str, TopicCounts] = field(default_factory=dict)
    orders_accepted: int = 0

    def add(self, message: Message) -> None:
        """Count a message that was sent."""
        if message.topic not in self.topics:
            self.topics[message.topic] = TopicCounts()
        self.topics[message.topic].add(message)

    @property
    def messages(self) -> int:
        """All messages."""
        return sum(counts.messages for counts in self.topics.values())

    def total(self, name: str) -> int:
        """The sum of one count over all topics."""
        return sum(getattr(counts, name) for counts in self.topics.values())

    def summary(self) -> str:
        """One line for people."""
        bad = self.total("malformed") + self.total("tombstones")
        repeats = self.total("exact_duplicates") + self.total("conflicting_duplicates")
        return (
            f"{self.messages:,} messages: {self.total('valid'):,} events ({self.total('late'):,} of them late), "
            f"{repeats:,} repeats, {bad:,} malformed; {self.orders_accepted:,} orders accepted"
        )

    def as_dict(self) -> dict[str, Any]:
        """The manifest in JSON's types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """The inverse of `as_dict`."""
        topics = {topic: TopicCounts(**counts) for topic, counts in values["topics"].items()}
        return cls(topics, values["orders_accepted"])
