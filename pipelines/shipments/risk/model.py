"""A learned model of lateness: scores with reasons, stored as JSON and Parquet with their SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.errors import UsageError
from pipelines.forecasting.files import sha256
from pipelines.shipments.risk.calibration import Platt
from pipelines.shipments.risk.columns import DELIVERED, IDENTIFIER, KEY, SCHEDULED, ColumnMapping, canonical
from pipelines.shipments.risk.drift import Followed
from pipelines.shipments.risk.features import features, last_known, prediction_days, subject
from pipelines.shipments.risk.history import late
from pipelines.shipments.risk.plugins import Scorer, model_class
from pipelines.shipments.risk.trees import Trees

LEVELS = (0.1, 0.5, 0.9)
MODEL_FILE, OUTCOMES_FILE, FOLLOWED_FILE = "model.json", "outcomes.parquet", "followed.parquet"
RECENT = "recent outcomes"
REASONS = 3
_CHUNK = 512


@dataclass(frozen=True)
class RiskModel:
    """What `train_risk` learned.

    Attributes:
        kind: the registered name of the model of lateness, see `plugins`.
        names: features, in the order of the models.
        medians: of the training, what a feature is replaced by to see what it contributes.
        lateness: log-odds of being late; `delays`: days at the quantiles `LEVELS`.
        platt: from log-odds that follow the recent rate to probabilities.
        widening: days by which the interval is widened at both ends.
        outcomes: the canonical deliveries that histories and neighbours are taken from, those under way included.
        horizon: the last day that `outcomes` knows of.
        followed: predictions after the training with their outcomes, as far as they are known.
    """

    mapping: ColumnMapping
    kind: str
    names: tuple[str, ...]
    medians: tuple[float, ...]
    lateness: Scorer
    delays: tuple[Trees, ...]
    platt: Platt
    widening: float
    notice_days: float
    outcomes: pd.DataFrame
    horizon: float
    followed: Followed

    def score(
        self,
        frame: pd.DataFrame,
        *,
        known: pd.DataFrame | None = None,
        as_of: pd.Series | None = None,
        reasons: bool = True,
    ) -> pd.DataFrame:
        """Chance of being late and expected arrival of shipments, in the columns of the mapping.

        Args:
            frame: shipments; a `delivered` column, where there is one, is not looked at.
            known: deliveries after the training, in the same columns: they carry histories and the rate of late ones
                on, each from the day on which its outcome was known. Those under way belong to them. None: the state
                stands as it was at the end of the training.
            as_of: the day of each prediction; None: `notice_days` before the scheduled day.
            reasons: with the top reasons, which take most of the time.

        Returns:
            identifier, late_probability, expected_arrival, earliest_arrival, latest_arrival (80 % interval; days) and
            reasons (a list of texts), a row for each of `frame` with its index.
        """
        rows = canonical(frame, self.mapping)
        at = prediction_days(rows, self.notice_days) if as_of is None else _days(as_of)
        later = None if known is None else canonical(known, self.mapping)
        pool, horizon = self._pool(rows, later)
        x = self._features(rows, at, pool, horizon)
        log_odds, shift = self.lateness.log_odds(x), self._shift(rows, at, later, pool, horizon)
        probability = self.platt(log_odds + shift)
        delays = np.sort(np.column_stack([tree.sums(x) for tree in self.delays]), axis=1)
        due = rows[SCHEDULED].to_numpy(float)
        ends = (due + delays[:, 1], due + delays[:, 0] - self.widening, due + delays[:, -1] + self.widening)
        arrivals = [np.rint(end).astype("datetime64[D]").astype("datetime64[s]") for end in ends]
        scored = pd.DataFrame(
            {
                IDENTIFIER: rows[IDENTIFIER].to_numpy(),
                "late_probability": probability,
                **dict(zip(("expected_arrival", "earliest_arrival", "latest_arrival"), arrivals, strict=True)),
            },
            index=frame.index,
        )
        if reasons:
            scored["reasons"] = self._reasons(x, shift, probability, self.platt(log_odds))
        return scored

    def _pool(self, rows: pd.DataFrame, later: pd.DataFrame | None) -> tuple[pd.DataFrame, float]:
        """All deliveries that are known of, the rows themselves as under way, and the last day of knowledge."""
        mine, horizon = self.outcomes, self.horizon
        under_way = rows.assign(**{DELIVERED: np.nan})
        if later is None:
            # A shipment under way says more of itself than the training knew of it.
            if self.mapping.identifier is not None:
                mine = mine[mine[DELIVERED].notna() | ~mine[IDENTIFIER].isin(rows[IDENTIFIER])]
                under_way = under_way[~rows[IDENTIFIER].isin(mine[IDENTIFIER])]
            parts = [mine, under_way]
        else:
            # Whatever was still under way at the training's end is among the later ones.
            mine = mine[mine[DELIVERED].notna() | (mine[SCHEDULED] < horizon)]
            parts = [mine, later]
            if self.mapping.identifier is not None:
                parts[0] = mine[~mine[IDENTIFIER].isin(later[IDENTIFIER])]
                parts.append(under_way[~rows[IDENTIFIER].isin([*parts[0][IDENTIFIER], *later[IDENTIFIER]])])
            horizon = max(horizon, last_known(later))
        pool = pd.concat([part for part in parts if len(part)], ignore_index=True)
        return pool.reindex(columns=self.outcomes.columns), horizon

    def _features(self, rows: pd.DataFrame, at: np.ndarray, pool: pd.DataFrame, horizon: float) -> np.ndarray:
        return features(rows, at, pool, horizon).reindex(columns=list(self.names)).to_numpy(float)

    def _shift(
        self, rows: pd.DataFrame, at: np.ndarray, later: pd.DataFrame | None, pool: pd.DataFrame, horizon: float
    ) -> np.ndarray:
        followed, supplier = self.followed, first_key(rows)
        if later is not None:
            decided = later[(later[SCHEDULED] >= self.horizon) & (later[SCHEDULED] < horizon)]
            if len(decided):
                x = self._features(decided, prediction_days(decided, self.notice_days), pool, horizon)
                # Late or not is asked on the day after, for all alike: those that come early are known too soon.
                day = decided[SCHEDULED].to_numpy(float) + 1
                new = Followed(day, self.lateness.log_odds(x), late(decided), decided[supplier].to_numpy(str))
                followed = followed.and_later(new)
        return followed.shift(at, rows[supplier].to_numpy(str))

    def _reasons(self, x: np.ndarray, shift: np.ndarray, probability: np.ndarray, still: np.ndarray) -> list[list[str]]:
        """Subjects whose features, set to the training's median, would lower the chance of being late most.

        `still`: the probabilities without what the last outcomes changed.
        """
        subjects = np.array([subject(name) for name in self.names])
        medians = np.array(self.medians)
        kinds = list(dict.fromkeys(subjects.tolist()))
        gains = np.empty((len(x), len(kinds) + 1))
        masks = np.array([subjects == kind for kind in kinds])
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            # All subjects at once: a model is asked once.
            without = np.where(masks[:, None, :], medians, x[part]).reshape(-1, x.shape[1])
            log_odds = self.lateness.log_odds(without).reshape(len(kinds), -1).T
            gains[part, :-1] = probability[part, None] - self.platt(log_odds + shift[part, None])
        kinds.append(RECENT)
        gains[:, -1] = probability - still
        order = np.argsort(-np.abs(gains), axis=1, kind="stable")[:, :REASONS]
        return [
            [f"{kinds[place]}: {100 * gains[row, place]:+.1f} points" for place in places]
            for row, places in enumerate(order)
        ]

    # Files -----------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> str:
        """Write the model's files into an empty folder; returns the SHA-256 that loading asks for."""
        folder.mkdir(parents=True, exist_ok=True)
        self.outcomes.to_parquet(folder / OUTCOMES_FILE)
        self.followed.frame().to_parquet(folder / FOLLOWED_FILE)
        stored = {
            "mapping": self.mapping.model_dump(mode="json"),
            "kind": self.kind,
            "names": self.names,
            "medians": self.medians,
            "lateness": self.lateness.as_json(),
            "delays": [tree.as_json() for tree in self.delays],
            "platt": [self.platt.slope, self.platt.intercept],
            "widening": self.widening,
            "notice_days": self.notice_days,
            "horizon": self.horizon,
            "sha256": {name: sha256(folder / name) for name in (OUTCOMES_FILE, FOLLOWED_FILE)},
        }
        text = json.dumps(stored, allow_nan=False)
        (folder / MODEL_FILE).write_text(text, encoding="utf-8")
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def load(cls, folder: Path, digest: str) -> RiskModel:
        """Read a model that `save` wrote.

        Raises:
            UsageError: the files are not those that were saved.
        """
        text = (folder / MODEL_FILE).read_bytes()
        if (found := hashlib.sha256(text).hexdigest()) != digest:
            raise UsageError(f"{folder / MODEL_FILE} has SHA-256 {found}, expected {digest}: train again")
        stored = json.loads(text)
        for name, saved in stored["sha256"].items():
            if (found := sha256(folder / name)) != saved:
                raise UsageError(f"{folder / name} has SHA-256 {found}, not the one saved: train again")
        return cls(
            mapping=ColumnMapping.model_validate(stored["mapping"]),
            kind=stored["kind"],
            names=tuple(stored["names"]),
            medians=tuple(stored["medians"]),
            lateness=model_class(stored["kind"]).from_json(stored["lateness"]),
            delays=tuple(Trees.from_json(tree) for tree in stored["delays"]),
            platt=Platt(*stored["platt"]),
            widening=stored["widening"],
            notice_days=stored["notice_days"],
            outcomes=pd.read_parquet(folder / OUTCOMES_FILE),
            horizon=stored["horizon"],
            followed=Followed.of(pd.read_parquet(folder / FOLLOWED_FILE)),
        )


def first_key(rows: pd.DataFrame) -> str:
    """The column of the first key, the supplier, whose rate is followed."""
    return next(name for name in map(str, rows.columns) if name.startswith(KEY))


def _days(moments: pd.Series) -> np.ndarray:
    return pd.to_datetime(moments).to_numpy().astype("datetime64[D]").astype(float)
