"""Lateness learned from the chain's own shipments, judged before it is believed, told of every shipment under way."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipelines.contracts.tables import INGEST_BATCHES, SHIPMENT_EVENTS, SHIPMENTS
from pipelines.errors import MissingDataError
from pipelines.io.published import in_force
from pipelines.operations.settings import ShipmentsSettings
from pipelines.shipments.risk.deliveries import ARTEFACT, RiskAssessor, load_model
from pipelines.shipments.risk.releasing import train_and_release
from pipelines.shipments.risk.training import Learning
from pipelines.shipments.tracker import ShipmentTracker
from tests.shipments_data import deliveries
from tests.unit.test_jobs import ROOT, main_of

AS_OF = date(2024, 5, 31)
NOW = datetime(2024, 6, 1, 8, tzinfo=UTC)
QUICK = Learning(seeds=1, slices=1, iterations=40)


def past(count: int = 800, seed: int = 4, slow: float = 0.6) -> pa.Table:
    """Shipments of a year: those of `tardy` late with the chance `slow`, all others with one of 5 %."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        supplier = f"u-{number % 5}" if number % 6 else "tardy"
        promised = NOW - timedelta(days=float(chance.uniform(1, 365)), hours=1)
        late = chance.random() < (slow if supplier == "tardy" else 0.05)
        delay = timedelta(days=float(chance.uniform(2, 9) if late else -chance.uniform(0, 2)))
        way = {
            "carrier_id": f"c-{number // 7 % 3}",
            "mode": "road",
            "origin": supplier,
            "destination": f"s-{number // 5 % 4}",
        }
        rows.append(
            {
                **{"shipment_id": f"h-{number}", "state": "delivered", "supplier_id": supplier, **way},
                **{"started": promised - timedelta(days=8), "promised": promised, "delivered": promised + delay},
                "sequence": number + 1,
            }
        )
    return pa.Table.from_pylist(rows, schema=SHIPMENTS.schema)


def test_a_released_model_judges_the_shipments_under_way(tables, settings):
    # given a year of deliveries, with one supplier that is often late
    tables.append(SHIPMENTS, past())
    report = train_and_release(settings, tables, AS_OF, NOW, QUICK)
    assert report.released
    assert report.challenger["roc_auc"] > 0.75
    assert report.challenger["brier"] < 1.05 * report.rates["brier"]
    # when three new shipments are on their way, one of them overdue
    tracker = ShipmentTracker(tables, ShipmentsSettings(), lambda: NOW, assess=RiskAssessor(settings, tables))
    tracker.resume()
    events = [
        {"shipment_id": "good", "supplier_id": "u-1", "eta": NOW + timedelta(days=5)},
        {"shipment_id": "bad", "supplier_id": "tardy", "eta": NOW + timedelta(days=5)},
        {"shipment_id": "gone", "supplier_id": "u-1", "eta": NOW - timedelta(days=2)},
    ]
    known = {"carrier_id": "c-1", "mode": "road", "destination": "s-1", "node": "plant", "status": "departed"}
    known |= {"event_time": NOW - timedelta(days=3)}
    rows = [
        {**known, **event, "origin": event["supplier_id"], "event_id": f"e{place}", "sequence": place}
        for place, event in enumerate(events, start=2000)
    ]
    tables.append(SHIPMENT_EVENTS, pa.Table.from_pylist(rows, schema=SHIPMENT_EVENTS.schema))
    batch = {"batch_id": 0, "topic": "shipments.events", "last_sequence": 2002}
    tables.append(INGEST_BATCHES, pa.Table.from_pylist([batch], schema=INGEST_BATCHES.schema))
    tracker.catch_up()
    tracker.save()
    # then the table says which will be late, when each comes, and why
    found = DeltaTable(f"{settings.home}/tables/gold/shipments").to_pyarrow_table().to_pylist()
    found = {row["shipment_id"]: row for row in found if row["state"] == "departed"}
    assert found["good"]["late_probability"] < 0.2
    assert 0.4 < found["bad"]["late_probability"] < 0.8
    assert found["bad"]["expected_arrival"] >= found["good"]["expected_arrival"]
    assert found["bad"]["latest_arrival"] > found["good"]["latest_arrival"]
    assert any(reason.startswith("supplier") for reason in found["bad"]["reasons"])
    assert found["gone"]["late_probability"] == 1.0
    for row in found.values():
        assert NOW <= row["earliest_arrival"] <= row["expected_arrival"] <= row["latest_arrival"]
    # and the training is a run in MLflow
    with sqlite3.connect(settings.home_path / "mlflow.db") as connection:
        metrics = {name for (name,) in connection.execute("select key from metrics")}
    assert {"pr_auc", "brier"} <= metrics


def test_a_worse_model_is_not_put_in_force_and_a_changed_file_is_not_read(tables, settings):
    # given a model in force
    tables.append(SHIPMENTS, past())
    first = train_and_release(settings, tables, AS_OF, NOW, QUICK)
    # when the next training has only the oldest of those deliveries, with their outcomes turned round
    chance = np.random.default_rng(1)
    rows = past().to_pylist()
    for row in rows:
        if row["promised"] < NOW - timedelta(days=90):
            delay = timedelta(days=float(chance.uniform(2, 9) if row["supplier_id"] != "tardy" else -1))
            row["delivered"] = row["promised"] + delay
    tables.overwrite(SHIPMENTS, pa.Table.from_pylist(rows, schema=SHIPMENTS.schema))
    second = train_and_release(settings, tables, AS_OF, NOW, QUICK)
    # then the first stays
    assert not second.released
    assert "not put in force" in str(second)
    assert in_force(tables, ARTEFACT).version == first.version
    # and when somebody changes its file, nothing is said of lateness instead of something wrong
    path = settings.home_path / "models" / ARTEFACT / first.version / "model.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    assessor = RiskAssessor(settings, tables)
    assert assessor({}, NOW) == {}
    assert assessor._model is None


def test_too_few_shipments_are_said_to_be(tables, settings):
    with pytest.raises(MissingDataError, match="track"):
        train_and_release(settings, tables, AS_OF, NOW)
    tables.append(SHIPMENTS, past(50))
    with pytest.raises(MissingDataError, match="not enough"):
        train_and_release(settings, tables, AS_OF, NOW)


def test_a_delivery_file_is_a_jobs_input(tables, settings, tmp_path):
    """Another company's names, dates in words, some columns missing: a mapping in YAML, and the chain's model stays."""
    # given deliveries of which hardly more is known than supplier, promised and actual day
    file = deliveries(700)[["consignment", "promised_on", "arrived_on", "haulier_client", "kg"]]
    file = file.assign(
        promised_on=file["promised_on"].dt.strftime("%d %b %Y"), arrived_on=file["arrived_on"].dt.strftime("%d %b %Y")
    ).rename(columns={"promised_on": "Zusage", "arrived_on": "Ankunft", "haulier_client": "Lieferant"})
    path, columns = tmp_path / "Lieferungen 2022.csv", tmp_path / "columns.yaml"
    file.to_csv(path, index=False)
    columns.write_text(
        "scheduled: Zusage\ndelivered: Ankunft\nkeys: {supplier: Lieferant}\nnumbers: {weight: kg}\n"
        "identifier: consignment\ndate_formats: ['%d %b %Y']\n"
    )
    job = main_of(ROOT / "jobs" / "train_shipment_risk.py")
    home = ["--set", f"home={settings.home}", "--set", "shipments.risk_model=logistic"]
    # when
    assert job([*home, "--deliveries", str(path), "--columns", str(columns)]) == 0
    # then its model is in force under its own name, and tells a slow supplier from others
    assert in_force(tables, ARTEFACT) is None
    version = in_force(tables, "shipment_risk_lieferungen_2022").version
    model = load_model(settings, version, "shipment_risk_lieferungen_2022")
    assert model.kind == "logistic"
    told = model.score(file.tail(80), reasons=False)["late_probability"].groupby(file["Lieferant"]).mean()
    assert told["slow"] > 2 * told.drop("slow").max()
    with sqlite3.connect(settings.home_path / "mlflow.db") as connection:
        kinds = {value for (value,) in connection.execute("select value from tags where key = 'stockcast.kind'")}
    assert kinds == {"shipment_risk_lieferungen_2022"}
    # and what does not fit is told
    assert job([*home, "--deliveries", str(path)]) == 2
    columns.write_text("planned: Zusage\n")
    assert job([*home, "--deliveries", str(path), "--columns", str(columns)]) == 2
