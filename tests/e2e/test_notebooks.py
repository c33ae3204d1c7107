"""The notebooks run from top to bottom on a small home, and say what to do where there is none."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib.image
import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from pipelines.contracts.tables import INVENTORY_POLICIES, ORDERS, SOURCING
from pipelines.io.delta import Tables
from pipelines.operations.settings import load_settings
from tests.e2e.prepared_home import prepare

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ONE_SERIES = NOTEBOOKS / "04_one_series.ipynb"
CODE_LINES = 100


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of a home with a history, forecasts, policies and orders."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    return prepare(load_settings(overrides=[f"home={home}", "planning.paths=500"]))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_kept_short_and_without_outputs(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip() and line[0] != "#"]
    assert cells
    assert len(lines) < CODE_LINES
    assert any("from pipelines" in line for line in lines)
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}


def test_one_series_shows_its_forecast_its_stock_and_why_it_was_ordered(
    prepared: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a home in which some series have orders
    orders, policies = prepared.read(ORDERS).to_pandas(), prepared.read(INVENTORY_POLICIES).to_pandas()
    ordered = policies.merge(orders[["location_id", "sku"]]).assign(mean=lambda frame: frame.cumulative_mean.str[-1])
    best = ordered.loc[ordered["mean"].idxmax()]
    assert 1 < len(ordered) < prepared.read(SOURCING).num_rows

    # when the notebook is run
    outputs = run(ONE_SERIES, home_of(prepared), monkeypatch)

    # then it shows the best seller of them, in two pictures that are not empty, and explains its orders
    (table,) = shown(outputs, "text/html")
    assert f"({best.sku}) at {best.location_id}" in table
    pictures = [matplotlib.image.imread(io.BytesIO(base64.b64decode(png))) for png in shown(outputs, "image/png")]
    assert len(pictures) == 2
    for picture in pictures:
        height, width = picture.shape[:2]
        assert width > 1000
        assert height > 400
        assert 0.02 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.5
    explanations = shown(outputs, "text/markdown")
    mine = orders[(orders.location_id == best.location_id) & (orders.sku == best.sku)]
    assert len(explanations) == len(mine) > 0
    for order, text in zip(mine.sort_values("created_at").itertuples(), explanations, strict=True):
        assert order.explanation in text
        assert f"{order.quantity} units from {order.supplier_id}" in text


def test_one_series_takes_any_series_also_one_without_orders(prepared: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = prepared.read(ORDERS, ["location_id", "sku"]).to_pylist()
    sourced = prepared.read(SOURCING, ["location_id", "sku"]).to_pylist()
    other = next(series for series in sourced if series not in orders)

    outputs = run(ONE_SERIES, home_of(prepared), monkeypatch, series=(other["location_id"], other["sku"]))

    assert f"({other['sku']}) at {other['location_id']}" in shown(outputs, "text/html")[0]
    assert len(shown(outputs, "image/png")) == 2
    assert shown(outputs, "text/markdown") == []


def test_one_series_without_tables_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellExecutionError, match=r"silver/stock_movements is missing.*make demo.*STOCKCAST_HOME"):
        run(ONE_SERIES, str(tmp_path / "nothing"), monkeypatch)


@pytest.mark.parametrize(
    ("name", "said", "pictures"),
    [
        ("01_explore_demand", ["a simulated chain", "lost for want of stock"], 4),
        ("02_diagnose_series", ["a simulated chain", "parameters fitted here", "WAPE in sample"], 3),
        ("03_compare_models", ["a simulated chain", "cutoffs 20", "seasonal_naive", "prophet_batched"], 1),
        ("06_where_deliveries_get_stuck", ["a simulated chain", "came late", "implied_hours"], 3),
        ("07_add_your_own_model", ["kept: parameters are json", "fading_mean", "series won"], 1),
    ],
)
def test_without_tables_the_others_simulate_a_chain(
    name: str, said: list[str], pictures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = run(NOTEBOOKS / f"{name}.ipynb", str(tmp_path / "nothing"), monkeypatch)
    text = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    text += "".join(shown(outputs, "text/plain"))
    for part in said:
        assert part in text
    found = [matplotlib.image.imread(io.BytesIO(base64.b64decode(png))) for png in shown(outputs, "image/png")]
    assert len(found) == pictures
    for picture in found:
        assert 0.005 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.5


def home_of(tables: Tables) -> str:
    return tables.uri(ORDERS).removesuffix(f"/tables/{ORDERS.name}")


def run(
    path: Path, home: str, monkeypatch: pytest.MonkeyPatch, series: tuple[str, str] | None = None
) -> list[dict[str, Any]]:
    """Execute a notebook in a kernel of its own, in its own folder as Jupyter does; returns all outputs."""
    monkeypatch.setenv("STOCKCAST_HOME", home)
    notebook = nbformat.read(path, as_version=4)
    if series is not None:
        (cell,) = [cell for cell in notebook.cells if cell.source.startswith("series = None")]
        cell.source = cell.source.replace("series = None", f"series = {series!r}", 1)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(outputs: list[dict[str, Any]], kind: str) -> list[str]:
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]
