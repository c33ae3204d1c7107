"""What an alert rule is, and the register of those that exist.

A new rule is one file in `pipelines/anomalies/rules` with a class under `@register`; the setting `anomalies.rules`
names it. The contract test runs over everything registered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from pipelines.anomalies.view import View
from pipelines.contracts.alerts import HIGH
from pipelines.errors import UsageError
from pipelines.plugins import import_all

CERTAIN = float("inf")
"""Surprise of what is a fact, not a matter of chance: told whatever the budget."""
RARE = 2.0
"""Findings of less surprise (1 in 100) are nothing to speak of."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as usual.

    Attributes:
        subject: what it is about: a series `location|sku`, a location, a supplier; the same as long as it lasts.
        surprise: -log10 of the chance of something so unusual where all is well.
        message: for a planner: what was expected, what was found, what it may be.
        details: facts for programs; JSON values.
    """

    subject: str
    surprise: float
    message: str
    severity: str = HIGH
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What a rule saw: of so many subjects looked at, those that are unusual."""

    tested: int
    findings: list[Finding] = field(default_factory=list)


class Rule(Protocol):
    """A rule looks at what is known at a moment and at nothing else: the same view gives the same findings."""

    name: ClassVar[str]

    def look(self, view: View) -> Look:
        """Findings with a surprise of at least `RARE`, each subject once; an empty view has none."""
        ...


Class = TypeVar("Class", bound=type[Rule])
_REGISTERED: dict[str, type[Rule]] = {}


def register(rule: Class) -> Class:
    """Make a rule known under its name."""
    _REGISTERED[rule.name] = rule
    return rule


def registered() -> tuple[str, ...]:
    """Names of all rules."""
    from pipelines.anomalies import rules

    import_all(rules)
    return tuple(sorted(_REGISTERED))


def create(names: Sequence[str]) -> list[Rule]:
    """The rules of these names.

    Raises:
        UsageError: no such rule; lists those that exist.
    """
    known = registered()
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"anomalies.rules names {', '.join(unknown)}; expected some of: {', '.join(known)}")
    return [_REGISTERED[name]() for name in names]


def surprise(chance: float) -> float:
    """-log10 of a probability, at most 300."""
    return float(-np.log10(max(chance, 1e-300)))
