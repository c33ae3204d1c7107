"""The catalog is taken or refused as a whole, and every problem is named by table, row and value."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts.tables import CATALOG, CATALOG_TABLES, PRODUCTS, SOURCING
from pipelines.errors import CatalogError, OwnershipError
from pipelines.ingestion.catalog import (
    LISTED_PROBLEMS,
    load_catalog,
    read_sources,
)
from pipelines.ingestion.catalog_rules import validate_catalog
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings

PROJECT = Path(__file__).parents[2]
SAMPLE = PROJECT / "conf" / "catalog"

Frames = dict[str, pd.DataFrame]


def good() -> Frames:
    """A small catalog as CSV gives it: text everywhere."""
    return {
        "products": pd.DataFrame(
            {
                "sku": ["milk", "bread"],
                "name": ["Milk", "Bread"],
                "category": ["dairy", "bakery"],
                "unit_cost": ["0.5", "1"],
                "unit_price": ["1.10", "2.40"],
                "shelf_life_days": ["9", ""],
            }
        ),
        "locations": pd.DataFrame(
            {
                "location_id": ["s1", "w1"],
                "kind": ["store", "warehouse"],
                "region": ["north", "south"],
                "timezone": ["Europe/Berlin", "UTC"],
                "latitude": ["53.5", "-90"],
                "longitude": ["9.9", "180"],
            }
        ),
        "suppliers": pd.DataFrame({"supplier_id": ["sup"], "name": ["Supplier"], "region": ["north"]}),
        "sourcing": pd.DataFrame(
            {
                "location_id": ["s1", "s1"],
                "sku": ["milk", "bread"],
                "supplier_id": ["sup", "sup"],
                "lead_time_days": ["2", "1.5"],
                "pack_size": ["6", "10"],
                "service_level": ["0.99", ""],
            }
        ),
    }


def write_csv(folder: Path, frames: Frames) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def with_value(table: str, column: str, row: int, value: object) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frame = frames[table]
        if column not in frame:
            frame[column] = ""
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value

    return change


def repeat_row(table: str, row: int) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frames[table] = pd.concat([frames[table], frames[table].iloc[[row]]], ignore_index=True)

    return change


BAD_VALUES = [
    ("products", "sku", "../etc"),
    ("products", "sku", "a" * 65),
    ("products", "sku", ""),
    ("products", "name", ""),
    ("products", "category", "dai\x07ry"),
    ("products", "unit_cost", "-0.01"),
    ("products", "unit_cost", "cheap"),
    ("products", "unit_price", "inf"),
    ("products", "unit_price", "nan"),
    ("products", "shelf_life_days", "0"),
    ("products", "shelf_life_days", "1.5"),
    ("locations", "location_id", "store one"),
    ("locations", "kind", "kiosk"),
    ("locations", "region", "global"),
    ("locations", "region", "location:s1"),
    ("locations", "timezone", "Europe/Atlantis"),
    ("locations", "timezone", "../UTC"),
    ("locations", "latitude", "90.1"),
    ("locations", "latitude", "-91"),
    ("locations", "longitude", "180.5"),
    ("locations", "longitude", ""),
    ("suppliers", "supplier_id", "-sup"),
    ("suppliers", "name", " "),
    ("sourcing", "location_id", "nowhere"),
    ("sourcing", "sku", "cheese"),
    ("sourcing", "supplier_id", "w1"),
    ("sourcing", "lead_time_days", "0"),
    ("sourcing", "lead_time_days", "-3"),
    ("sourcing", "lead_time_std_days", "-1"),
    ("sourcing", "pack_size", "0"),
    ("sourcing", "pack_size", "2.5"),
    ("sourcing", "minimum_order", "-1"),
    ("sourcing", "order_cost", "-2"),
    ("sourcing", "holding_cost_rate", "-0.1"),
    ("sourcing", "service_level", "0"),
    ("sourcing", "service_level", "1"),
    ("sourcing", "review_days", "-1"),
]


@pytest.mark.parametrize(
    ("table", "column", "value"), BAD_VALUES, ids=[f"{t}.{c}={v[:12]!r}" for t, c, v in BAD_VALUES]
)
def test_a_bad_value_is_named_by_table_row_column_and_value(table: str, column: str, value: str) -> None:
    frames = good()
    with_value(table, column, 0, value)(frames)

    _, problems = validate_catalog(frames, 0.95)

    named = [problem for problem in problems if (problem.table, problem.column) == (table, column)]
    assert [(problem.row, problem.value) for problem in named] == [(1, value)]
    assert f"{table} row 1: {column} is " in str(named[0])


@pytest.mark.parametrize("table", ["products", "locations", "suppliers", "sourcing"])
def test_a_repeated_row_is_named_with_the_row_that_it_repeats(table: str) -> None:
    frames = good()
    repeat_row(table, 0)(frames)

    _, problems = validate_catalog(frames, 0.95)

    assert [(problem.table, problem.row) for problem in problems] == [(table, len(frames[table]))]
    assert "duplicate of row 1" in str(problems[0])


def test_a_second_supplier_for_a_product_at_a_location_is_a_duplicate() -> None:
    frames = good()
    frames["suppliers"].loc[1] = ["sup2", "Second", "south"]
    repeat_row("sourcing", 0)(frames)
    frames["sourcing"].loc[2, "supplier_id"] = "sup2"

    _, problems = validate_catalog(frames, 0.95)

    assert [str(problem) for problem in problems] == [
        "sourcing row 3: location_id|sku is 's1|milk'; duplicate of row 1"
    ]


def _drop_table(frames: Frames) -> None:
    del frames["suppliers"]


def _drop_column(frames: Frames) -> None:
    del frames["sourcing"]["lead_time_days"]


def _add_column(frames: Frames) -> None:
    frames["products"]["colour"] = "red"


def _twice(frames: Frames) -> None:
    frame = frames["locations"]
    frames["locations"] = pd.concat([frame, frame[["region"]]], axis=1)


def _empty(frames: Frames) -> None:
    frames["products"] = frames["products"].iloc[:0]
    frames["sourcing"] = frames["sourcing"].iloc[:0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(_drop_table, ("suppliers", "missing", "suppliers.csv"), id="file-missing"),
        pytest.param(_drop_column, ("sourcing", "lead_time_days is missing"), id="column-missing"),
        pytest.param(_add_column, ("products", "unknown column 'colour'"), id="column-unknown"),
        pytest.param(_twice, ("locations", "region occurs 2 times"), id="column-twice"),
        pytest.param(_empty, ("products", "has no rows"), id="no-products"),
    ],
)
def test_a_wrong_shape_is_named(change: Callable[[Frames], None], words: tuple[str, ...]) -> None:
    frames = good()
    change(frames)

    _, problems = validate_catalog(frames, 0.95)

    assert len(problems) == 1
    assert all(word in str(problems[0]) for word in words)


def test_all_problems_are_found_at_once() -> None:
    frames = good()
    with_value("products", "unit_cost", 1, "-1")(frames)
    with_value("locations", "kind", 0, "shop")(frames)
    with_value("sourcing", "pack_size", 0, "0")(frames)
    with_value("sourcing", "sku", 1, "cheese")(frames)

    _, problems = validate_catalog(frames, 0.95)

    assert [(problem.table, problem.row, problem.column) for problem in problems] == [
        ("products", 2, "unit_cost"),
        ("locations", 1, "kind"),
        ("sourcing", 1, "pack_size"),
        ("sourcing", 2, "sku"),
    ]


def test_absent_optional_columns_and_empty_values_get_their_defaults() -> None:
    found, problems = validate_catalog(good(), 0.9)

    assert problems == []
    assert found["sourcing"].schema == SOURCING.schema
    first, second = found["sourcing"].to_pylist()
    assert (first["service_level"], second["service_level"]) == (0.99, 0.9)
    assert {key: second[key] for key in list(second)[4:] if key != "service_level"} == {
        "lead_time_std_days": 0.0,
        "pack_size": 10,
        "minimum_order": 1,
        "order_cost": 0.0,
        "holding_cost_rate": 0.25,
        "review_days": 1.0,
        "maximum_order": None,
        "quantity_breaks": None,
    }
    assert [row["shelf_life_days"] for row in found["products"].to_pylist()] == [9, None]
    assert found["products"]["substitute_group"].null_count == 2


def test_parquet_types_are_judged_as_they_are() -> None:
    """Given typed values, numbered skus are taken by their digits and a bool is no number."""
    frames = good()
    frames["products"]["sku"] = [1, 2]
    frames["sourcing"]["sku"] = [1, 2]
    frames["products"]["unit_cost"] = [0.5, 1.0]
    frames["products"]["shelf_life_days"] = [9.0, None]

    found, problems = validate_catalog(frames, 0.95)
    frames["sourcing"]["pack_size"] = [True, True]
    _, worse = validate_catalog(frames, 0.95)

    assert problems == []
    assert found["products"]["sku"].to_pylist() == ["1", "2"]
    assert found["products"]["shelf_life_days"].to_pylist() == [9, None]
    assert [(problem.column, problem.row) for problem in worse] == [("pack_size", 1), ("pack_size", 2)]


def in_force(tables: Tables) -> dict[str, pa.Table]:
    return {table.name: tables.read(table) for table in CATALOG_TABLES}


def test_csv_and_parquet_give_the_same_catalog(settings: Settings, tables: Tables, tmp_path: Path) -> None:
    load_catalog(settings, tables, SAMPLE)
    from_csv = in_force(tables)
    folder = tmp_path / "parquet"
    folder.mkdir()
    for table in CATALOG_TABLES:
        name = table.name.split("/")[1]
        tables.read(table).to_pandas().to_parquet(folder / f"{name}.parquet")

    load_catalog(settings, tables, folder)

    assert in_force(tables) == from_csv
    assert "milk-1l" in from_csv[PRODUCTS.name]["sku"].to_pylist()


def test_a_refused_catalog_leaves_the_old_one(settings: Settings, tables: Tables, tmp_path: Path) -> None:
    load_catalog(settings, tables, SAMPLE)
    before = in_force(tables)
    frames = good()
    with_value("sourcing", "pack_size", 0, "0")(frames)

    with pytest.raises(CatalogError, match="sourcing row 1: pack_size is '0'"):
        load_catalog(settings, tables, write_csv(tmp_path / "bad", frames))

    assert in_force(tables) == before


def test_a_new_catalog_replaces_the_old_one(settings: Settings, tables: Tables, tmp_path: Path) -> None:
    load_catalog(settings, tables, SAMPLE)

    rows = load_catalog(settings, tables, write_csv(tmp_path / "new", good()))

    assert rows == {"products": 2, "locations": 2, "suppliers": 1, "sourcing": 2}
    assert set(tables.read(PRODUCTS)["sku"].to_pylist()) == {"milk", "bread"}


def test_the_listing_is_capped_with_a_count(settings: Settings, tables: Tables, tmp_path: Path) -> None:
    frames = good()
    many = LISTED_PROBLEMS + 7
    frames["suppliers"] = pd.DataFrame({"supplier_id": [f"?{n}" for n in range(many)], "name": "x", "region": "y"})
    frames["sourcing"] = frames["sourcing"].iloc[:0]

    with pytest.raises(CatalogError) as caught:
        load_catalog(settings, tables, write_csv(tmp_path / "many", frames))

    assert f"has {many} problem(s)" in str(caught.value)
    assert "... and 7 more" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"supplier_id,name,region\nsup,Supplier\n", ("suppliers row 1", "expected 3"), id="ragged"),
        pytest.param(b"", ("suppliers.csv cannot be read",), id="empty-file"),
        pytest.param(b"supplier_id,name,region\nsup,\xff\xfe,x\n", ("suppliers.csv cannot be read",), id="utf-8"),
    ],
)
def test_an_unreadable_file_is_named(
    content: bytes, words: tuple[str, ...], settings: Settings, tables: Tables, tmp_path: Path
) -> None:
    folder = write_csv(tmp_path / "source", good())
    (folder / "suppliers.csv").write_bytes(content)

    with pytest.raises(CatalogError) as caught:
        load_catalog(settings, tables, folder)

    assert all(word in str(caught.value) for word in words)


def test_quoted_text_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    frames = good()
    frames["products"]["name"] = ['Milk, "fresh"', "NA"]
    folder = write_csv(tmp_path / "source", frames)
    path = folder / "products.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    sources, unreadable = read_sources(folder)
    found, problems = validate_catalog(sources, 0.95)

    assert (unreadable, problems) == ([], [])
    assert found["products"]["name"].to_pylist() == ['Milk, "fresh"', "NA"]


def test_two_files_for_one_table_are_refused(settings: Settings, tables: Tables, tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "source", good())
    good()["suppliers"].to_parquet(folder / "suppliers.parquet")

    with pytest.raises(CatalogError, match=r"both suppliers\.csv and suppliers\.parquet"):
        load_catalog(settings, tables, folder)


def test_a_second_loader_is_refused(settings: Settings, tables: Tables) -> None:
    with ownership(settings, CATALOG), pytest.raises(OwnershipError):
        load_catalog(settings, tables, SAMPLE)


def test_the_job_answers_with_its_exit_code(tmp_path: Path) -> None:
    """Given a good and a bad folder, the job exits with 0 and 2 and says why."""
    frames = good()
    with_value("locations", "timezone", 1, "Mars/Base")(frames)
    bad = write_csv(tmp_path / "bad", frames)

    def job(source: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "jobs/load_catalog.py", "--source", str(source)]
        command += ["--set", f"home={tmp_path / 'home'}"]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)

    accepted, refused, nowhere = job(SAMPLE), job(bad), job(tmp_path / "nowhere")

    assert accepted.returncode == 0, accepted.stderr
    assert "5 products, 4 locations, 3 suppliers, 20 sourcing" in accepted.stderr
    assert (refused.returncode, nowhere.returncode) == (2, 2)
    assert "locations row 2: timezone is 'Mars/Base'" in refused.stderr


def test_the_sample_catalog_states_every_optional_column() -> None:
    """The sample doubles as the documentation of the format: each contract column is in it."""
    for table in CATALOG_TABLES:
        with (SAMPLE / f"{table.name.split('/')[1]}.csv").open() as file:
            assert next(csv.reader(file)) == table.schema.names
