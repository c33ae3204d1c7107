"""The data-driven newsvendor: the cost-optimal order-up-to level as a linear quantile of features, without a
distribution in between (Ban and Rudin 2019, The big data newsvendor)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from sklearn.linear_model import QuantileRegressor

from pipelines.errors import MissingDataError
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import Protection
from pipelines.inventory.learned.features import NAMES, Evenings, evenings, realised
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.candidates import LevelPaths, fill_levels
from pipelines.inventory.replay.history import History

PROBABILITIES = (0.5, 0.7, 0.85, 0.92, 0.96, 0.985, 0.997)
ROWS = 4000
PENALTY = 1e-4
_LEAST_ROWS = 200


@dataclass(frozen=True)
class QuantileModel:
    """Coefficients (q, f) of standardised features, for demand relative to what is expected."""

    coefficients: FloatArray
    centre: FloatArray
    scale: FloatArray

    def level(self, values: FloatArray, probability: FloatArray) -> FloatArray:
        """The quantile of each row's demand, relative to what is expected.

        Args:
            values: (m, f). probability: (m,); between the probabilities learnt, a line on normal scores.
        """
        found = np.maximum.accumulate(((values - self.centre) / self.scale) @ self.coefficients.T, axis=1)
        scores, wanted = ndtri(np.array(PROBABILITIES)), ndtri(probability)
        place = np.clip(np.searchsorted(scores, wanted) - 1, 0, len(scores) - 2)
        share = (wanted - scores[place]) / (scores[place + 1] - scores[place])
        rows = np.arange(len(values))
        low, high = found[rows, place], found[rows, place + 1]
        return np.asarray(np.maximum(low + share * (high - low), 0.0), np.float64)

    def to_json(self) -> str:
        """Everything, with the features' names: no pickle."""
        parts = {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}
        return json.dumps({"features": NAMES, "probabilities": PROBABILITIES, **parts})

    @classmethod
    def from_json(cls, text: str) -> QuantileModel:
        """The inverse."""
        read = json.loads(text)
        return cls(*(np.array(read[name], np.float64) for name in cls.__dataclass_fields__))


def learn_newsvendor(known: Evenings, sold: FloatArray, rng: np.random.Generator) -> QuantileModel:
    """Fit the quantiles by linear programs on a sample of evenings.

    Args:
        sold: (n, T) from `realised`.

    Raises:
        MissingDataError: too few evenings whose outcome is known.
    """
    place = np.flatnonzero(np.isfinite(sold) & (known.expected > 0.05))
    if place.size < _LEAST_ROWS:
        raise MissingDataError(
            f"levels are learnt from at least {_LEAST_ROWS} evenings whose outcome is known, found {place.size}"
        )
    chosen = rng.choice(place, min(ROWS, place.size), replace=False)
    values = known.values.reshape(-1, len(NAMES))[chosen]
    target = sold.ravel()[chosen] / known.expected.ravel()[chosen]
    centre, scale = values.mean(axis=0), values.std(axis=0)
    centre[0], varied = 0.0, scale > 1e-9
    scale[~varied] = 1.0
    standard = (values - centre) / scale
    coefficients = np.zeros((len(PROBABILITIES), len(NAMES)))
    for row, probability in enumerate(PROBABILITIES):
        columns = np.flatnonzero(varied)
        fitted = QuantileRegressor(quantile=probability, alpha=PENALTY, solver="highs").fit(
            standard[:, columns], target
        )
        coefficients[row, columns], coefficients[row, 0] = fitted.coef_, fitted.intercept_
    return QuantileModel(coefficients, centre, scale)


@dataclass(frozen=True)
class LearnedNewsvendor:
    """A candidate of the replay: learnt quantiles where the others have those of sampled demand."""

    name: str
    model: QuantileModel
    known: Evenings | None = None

    def levels(self, history: History, protection: Protection, terms: Terms, service: Sequence[float]) -> LevelPaths:
        """See `Candidate.levels`."""
        known = self.known or evenings(history, protection, terms)
        series, days = known.expected.shape
        out = LevelPaths(*(np.empty((len(service), series, days), np.int64) for _ in range(2)))
        for day in range(days):
            points = np.stack(
                [
                    known.expected[:, day] * self.model.level(known.values[:, day], np.full(series, probability))
                    for probability in service
                ]
            )
            fill_levels(out, day, points, known.daily[:, day], terms)
        return out


def outcomes(history: History, protection: Protection, terms: Terms) -> tuple[Evenings, FloatArray]:
    """What a model is learnt from."""
    return evenings(history, protection, terms), realised(history, protection)
