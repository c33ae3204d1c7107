"""How good a ranking and how true the probabilities of lateness are."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score


def scores(late: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """PR-AUC (average precision), ROC-AUC, Brier score and the rate of late ones; both classes must be there."""
    return {
        "pr_auc": float(average_precision_score(late, probability)),
        "roc_auc": float(roc_auc_score(late, probability)),
        "brier": float(brier_score_loss(late, probability)),
        "late": float(np.mean(late)),
    }


def calibration_table(late: np.ndarray, probability: np.ndarray, groups: int = 5) -> pd.DataFrame:
    """Rows sorted by probability in groups of about equal size: their number, mean probability and rate of late."""
    rank = pd.Series(probability).rank(method="first")
    group = np.ceil(rank / len(rank) * groups).astype(int)
    frame = pd.DataFrame({"group": group, "predicted": probability, "late": np.asarray(late, float)})
    table = frame.groupby("group").agg(rows=("late", "size"), predicted=("predicted", "mean"), late=("late", "mean"))
    return table.reset_index(drop=True)


def key_rates(keys: np.ndarray, late: np.ndarray, asked: np.ndarray, prior: float = 20.0) -> np.ndarray:
    """The baseline: each key's rate of late ones in the past, shrunk to that of all by `prior` rows' worth."""
    table = pd.DataFrame({"key": keys, "late": np.asarray(late, float)}).groupby("key")["late"].agg(["sum", "size"])
    everybody = float(np.mean(late))
    rates = (table["sum"] + prior * everybody) / (table["size"] + prior)
    return pd.Series(asked).map(rates).fillna(everybody).to_numpy(float)
