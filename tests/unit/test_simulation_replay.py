"""Replay of sales files: what is read, what is refused, and what is made of a row."""

from __future__ import annotations

from datetime import date

import orjson
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from pipelines.errors import UsageError
from pipelines.simulation.commands import register
from pipelines.simulation.replay import ReplayOptions, events, read_sales, select

CSV = "date,store,item,sales\n2016-01-02,01,007,5\n2016-01-01,01,007,3\n2016-01-01,2,007,0\n2016-01-03,2,007,-2\n"


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


@pytest.fixture
def csv(tmp_path):
    def write(text: str):
        path = tmp_path / "sales.csv"
        path.write_text(text)
        return path

    return write


def sent(sales: pd.DataFrame, opening_stock: int | None = None) -> list[dict]:
    return [orjson.loads(message.value) for _, message in events(sales, opening_stock)]


def test_days_become_noon_text_stays_text_and_order_is_that_of_time(csv) -> None:
    made = sent(select(read_sales(csv(CSV)), ReplayOptions()))

    assert [
        (event["event_time"], event["location_id"], event["sku"], event["kind"], event["quantity"]) for event in made
    ] == [
        ("2016-01-01T12:00:00.000Z", "01", "007", "sale", 3),
        ("2016-01-02T12:00:00.000Z", "01", "007", "sale", 5),
        ("2016-01-03T12:00:00.000Z", "2", "007", "return", 2),
    ]


def test_timestamps_keep_their_moment(csv) -> None:
    text = "timestamp,location_id,sku,quantity\n2016-01-01T00:00:00,a,b,1\n2016-01-01T10:30:00+02:00,a,b,2\n"

    made = sent(select(read_sales(csv(text)), ReplayOptions()))

    assert [event["event_time"] for event in made] == ["2016-01-01T00:00:00.000Z", "2016-01-01T08:30:00.000Z"]


def test_parquet_and_csv_give_the_same_events(csv, tmp_path) -> None:
    path = tmp_path / "sales.parquet"
    pd.DataFrame(
        {"date": [date(2016, 1, 2), date(2016, 1, 1)], "store": [1, 1], "item": [7, 7], "sales": [5, 3]}
    ).to_parquet(path)
    text = "date,store,item,sales\n2016-01-02,1,7,5\n2016-01-01,1,7,3\n"

    from_parquet = sent(select(read_sales(path), ReplayOptions()))

    assert from_parquet == sent(select(read_sales(csv(text)), ReplayOptions()))
    assert len(from_parquet) == 2


def test_ids_repeat_for_the_same_row_and_differ_between_rows(csv) -> None:
    sales = select(read_sales(csv(CSV)), ReplayOptions())
    part = select(read_sales(csv(CSV)), ReplayOptions(first=date(2016, 1, 2)))

    ids = [event["event_id"] for event in sent(sales, 10)]
    assert len(set(ids)) == len(ids) == 5
    assert [event["event_id"] for event in sent(part)] == [event["event_id"] for event in sent(sales)][1:]


def test_an_opening_count_comes_just_before_the_first_sale_of_each_series(csv) -> None:
    made = list(events(select(read_sales(csv(CSV)), ReplayOptions()), 40))

    counts = [(message.topic, message.key, orjson.loads(message.value)) for kind, message in made if kind == "count"]
    assert [kind for kind, _ in made] == ["count", "sale", "sale", "count", "return"]
    assert [topic for topic, _, _ in counts] == ["inventory.movements"] * 2
    assert [key for _, key, _ in counts] == [b"01|007", b"2|007"]
    assert [(event["event_time"], event["quantity"]) for _, _, event in counts] == [
        ("2016-01-01T11:59:59.000Z", 40),
        ("2016-01-03T11:59:59.000Z", 40),
    ]


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (ReplayOptions(first=date(2016, 1, 2)), 2),
        (ReplayOptions(last=date(2016, 1, 1)), 2),
        (ReplayOptions(locations=("01",)), 2),
        (ReplayOptions(locations=("2",), skus=("007",)), 2),
        (ReplayOptions(skus=("7",)), 0),
    ],
    ids=["from", "to", "location", "both", "no such sku"],
)
def test_filters(csv, options: ReplayOptions, rows: int) -> None:
    assert len(select(read_sales(csv(CSV)), options)) == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("day,store,item,sales\n2016-01-01,1,1,1\n", "timestamp or date; found: day, store, item, sales"),
        ("date,store\n2016-01-01,1\n", "sku or item; quantity or sales; found: date, store"),
        ("date,store,item,sales\n2016-01-01,1,1,2.5\n", "row 2: sales '2.5'"),
        ("date,store,item,sales\n2016-01-01,1,1,\n", "row 2: sales nan"),
        ("date,store,item,sales\n2016-01-01,1,1,1\n2016-01-02,../x,1,1\n", "row 3: store '../x'"),
        ("date,store,item,sales\n2016-01-01,1,,1\n", "row 2: item nan"),
        ("date,store,item,sales\nsoon,1,1,1\n", "row 2: date 'soon'"),
        ("date,store,item,sales\n2016-01-01,1,1,1\n2016-01-01,1,1,2\n", "row 3: .* add them up first"),
        ("date,store,item,sales\n2100-01-01,1,1,1\n", "row 2: .* is still to come"),
        ("", "cannot be read as a table"),
    ],
    ids=["no date", "no item", "fraction", "no sales", "bad id", "no id", "bad date", "twice", "future", "empty"],
)
def test_bad_files_are_refused_and_say_where(csv, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_sales(csv(text))


def test_a_number_is_no_time(tmp_path) -> None:
    path = tmp_path / "sales.parquet"
    pd.DataFrame({"timestamp": [1451606400], "store": [1], "item": [1], "sales": [1]}).to_parquet(path)

    with pytest.raises(UsageError, match="row 0: timestamp 1451606400"):
        read_sales(path)


def test_long_lists_of_bad_rows_are_cut(csv) -> None:
    rows = "".join(f"2016-01-01,1,{number},x\n" for number in range(50))

    with pytest.raises(UsageError, match="50 bad values") as error:
        read_sales(csv(f"date,store,item,sales\n{rows}"))

    assert str(error.value).endswith("and 30 more")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay", "no-such-file.csv"], "cannot be read"),
        (["replay", "sales.txt"], "expected a name that ends in"),
        (["replay", "x.csv", "--from", "soon"], "--from soon"),
        (["replay", "x.csv", "--from", "2016-02-01", "--to", "2016-01-01"], "swap them"),
        (["simulate", "--faults", "lost=1"], "unknown fault"),
        (["simulate", "--stores", "0"], "stores is 0"),
        (["simulate", "--end", "soon"], "--end soon"),
        (["simulate", "--until", "later"], "--until later"),
        (["simulate", "--orders-from", "middle"], "orders-from is middle"),
        (["simulate", "--phase", "history", "--end", "2999-01-01"], "still to come"),
        (["simulate", "--phase", "live"], "holds no simulated history"),
        (["simulate", "--set", "no.such=1"], "unknown key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_exits_with_2_and_says_why(app, tmp_path, monkeypatch, arguments, says) -> None:
    monkeypatch.setenv("STOCKCAST_HOME", str(tmp_path / "home"))

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert says in result.output


def test_the_catalog_alone_needs_no_broker(app, tmp_path) -> None:
    folder = tmp_path / "catalog"

    result = CliRunner().invoke(app, ["simulate", "--catalog-only", str(folder), "--products", "3"])

    assert result.exit_code == 0, result.output
    assert len(pd.read_csv(folder / "products.csv")) == 3


def test_without_a_broker_the_answer_is_1_and_says_what_to_do(app, csv, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STOCKCAST_HOME", str(tmp_path / "home"))

    result = CliRunner().invoke(app, ["replay", str(csv(CSV)), "--set", "kafka.bootstrap_servers=127.0.0.1:1"])

    assert result.exit_code == 1
    # Where the terminal breaks the line depends on what the client says of the broker.
    assert "stockcast broker start" in " ".join(result.output.split())
