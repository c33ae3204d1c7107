"""Lateness of shipments on the public delivery file, from rolling origins, against what a model must beat."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from bench.harness import Options, say
from bench.lateness_data import MAPPING, public_deliveries
from bench.report import foot
from pipelines.shipments.risk.columns import canonical
from pipelines.shipments.risk.evaluation import FOLLOWED, Judged, baselines, judged, origins
from pipelines.shipments.risk.plugins import DEFAULT
from pipelines.shipments.risk.scores import calibration_table
from pipelines.shipments.risk.training import Learning

Rows = dict[str, Any]


def measure(options: Options) -> Rows:
    """Scores by model and origin, and the default's calibration over all origins.

    Raises:
        SystemExit: the data are not there.
    """
    if options.data is None:
        raise SystemExit("the lateness part needs the folder of the delivery file: BENCH_DATA or --data")
    frame = public_deliveries(options.data)
    rows: list[dict[str, Any]] = []
    predictions: dict[str, list[Judged]] = {}
    for origin in origins(canonical(frame, MAPPING)):
        start = time.monotonic()
        for one in baselines(frame, MAPPING, origin):
            rows.append(_row(one))
        for one in judged(frame, MAPPING, origin, Learning(model=DEFAULT)):
            rows.append(_row(one))
            predictions.setdefault(one.name, []).append(one)
        say(f"origin {origin.cutoff}: {time.monotonic() - start:.0f} s")
    default = predictions[f"{DEFAULT}, {FOLLOWED}"]
    truth, told = (np.concatenate([getattr(one, what) for one in default]) for what in ("late", "probability"))
    table = calibration_table(truth, told, 10)
    return {"rows": rows, "calibration": table.to_dict("records"), "predictions": len(truth)}


def _row(one: Judged) -> dict[str, Any]:
    bounded = np.clip(one.probability, 1e-4, 1 - 1e-4)
    told = {"told": float(one.probability.mean()), "log_loss": float(log_loss(one.late, bounded))}
    return {"model": one.name, **{name: str(day) for name, day in asdict(one.origin).items()}, **one.scores, **told}


def section(_: Options, results: Rows, command: str) -> str:
    """The tables of `bench/RESULTS.md`."""
    found = pd.DataFrame(results["rows"])
    means = found.groupby("model", sort=False)[["pr_auc", "roc_auc", "brier", "log_loss", "told", "late"]].mean()
    spans = list(dict.fromkeys(zip(found["cutoff"], found["end"], strict=True)))
    lines = [
        "| mean over origins | PR-AUC | ROC-AUC | Brier | log loss | told | late |",
        "|---|" + "---:|" * 6,
        *(
            f"| {name} | {row.pr_auc:.3f} | {row.roc_auc:.3f} | {row.brier:.4f} | {row.log_loss:.3f} | {row.told:.3f} "
            f"| {row.late:.3f} |"
            for name, row in zip(means.index, means.itertuples(), strict=True)
        ),
        "",
        "| PR-AUC / Brier | " + " | ".join(f"after {cutoff}" for cutoff, _ in spans) + " |",
        "|---|" + "---:|" * len(spans),
    ]
    for name, part in found.groupby("model", sort=False):
        cells = [f"{row.pr_auc:.3f} / {row.brier:.3f}" for row in part.itertuples()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    rates = found.drop_duplicates("cutoff")["late"]
    lines += [
        "| late | " + " | ".join(f"{rate:.3f}" for rate in rates) + " |",
        "",
        "| told, mean of a tenth | " + " | ".join(f"{row['predicted']:.3f}" for row in results["calibration"]) + " |",
        "|---|" + "---:|" * len(results["calibration"]),
        "| late | " + " | ".join(f"{row['late']:.3f}" for row in results["calibration"]) + " |",
    ]
    text = "\n".join(lines)
    return f"""
## Lateness of shipments: rolling origins on a public delivery file

Learnt from what was known at each origin, tried on the order lines due in the two years after it (one after the last
origin), each predicted on the day before it was due. Followed: histories, neighbours and the rate go on with every
outcome from the day on which it is known, the fit stays. Frozen: nothing is known after the origin. The supplier-rate
table and the plain gradient boosting (scikit-learn as it comes, every column and the calendar) are frozen. The
calibration is of the default, followed, over {results["predictions"]:,} predictions in tenths of equal size.

{text}

{foot(command)}"""
