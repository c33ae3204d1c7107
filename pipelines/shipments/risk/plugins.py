"""What a model of lateness is, and the register of those that exist.

A new model is one file in `pipelines/shipments/risk/models` with a class under `@register("its_name")`; the setting
`shipments.risk_model` names it. The contract test runs over everything registered. Histories, calibration, the
following of a changing rate, intervals, reasons and files are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from pipelines.errors import UsageError
from pipelines.plugins import import_all


@dataclass(frozen=True)
class Lesson:
    """What a model learns from.

    Attributes:
        names: of the features, see `features.features`.
        x: (n, features); NaN is unknown.
        late: 1 or 0.
        weight: of each row; newer ones weigh more.
        seeds, iterations: how much work may be done, for models that have a choice.
    """

    names: Sequence[str]
    x: np.ndarray
    late: np.ndarray
    weight: np.ndarray
    seeds: int = 2
    iterations: int = 150


class Scorer(Protocol):
    """A model of lateness."""

    @classmethod
    def fit(cls, lesson: Lesson) -> Self:
        """Learn. The same lesson gives the same model."""
        ...

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        """Log-odds of being late of rows of (n, features); finite, whatever is unknown. A row's do not depend on the
        other rows."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Numbers, texts and lists only; no NaN or infinity."""
        ...

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `as_json` gave."""
        ...


DEFAULT = "ensemble"

Class = TypeVar("Class", bound=type[Scorer])
_REGISTERED: dict[str, type[Scorer]] = {}


def register(name: str) -> Callable[[Class], Class]:
    """Make a model's class known under `name`."""

    def known(model: Class) -> Class:
        _REGISTERED[name] = model
        return model

    return known


def registered() -> tuple[str, ...]:
    """Names of all models."""
    from pipelines.shipments.risk import models

    import_all(models)
    return tuple(sorted(_REGISTERED))


def model_class(name: str) -> type[Scorer]:
    """The model of that name.

    Raises:
        UsageError: there is none; lists those that exist.
    """
    known = registered()
    if name not in known:
        raise UsageError(f"shipments.risk_model is {name!r}; expected one of: {', '.join(known)}")
    return _REGISTERED[name]
