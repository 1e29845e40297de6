"""The report, over tables of a few rows written by hand."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

from headwater import report
from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings

MONEY = pa.decimal128(18, 2)


def write(settings: Settings, table: tables.Table, **columns: Any) -> None:
    write_deltalake(table.path(settings), pa.table(columns), mode="append")


@pytest.fixture
def shop(settings: Settings, contracts: Contracts, layouts: Layouts) -> Settings:
    """Three customers: A ordered in January and in March, B in January (returned), C in March."""

    def gold(name: str) -> tables.Table:
        return tables.gold(layouts[f"gold.{name}"])

    def day(month: int, number: int) -> datetime:
        return datetime(2026, month, number, 12, tzinfo=UTC)

    write(
        settings,
        gold("fact_orders"),
        order_id=["1", "2", "3", "4"],
        customer_id=["A", "B", "A", "C"],
        placed_at=pa.array([day(1, 5), day(1, 9), day(3, 1), day(3, 2)], pa.timestamp("us", "UTC")),
        location_key=pa.array([10, 11, 10, 99], pa.int64()),
        status=["delivered", "returned", "paid", "placed"],
        reporting_total=pa.array(
            [Decimal("10.50"), Decimal(20), Decimal(5), Decimal("6.30")], MONEY
        ),
        reporting_currency=["EUR"] * 4,
    )
    write(
        settings,
        gold("dim_location"),
        location_key=pa.array([10, 11], pa.int64()),
        country_code=["DE", "FR"],
    )
    write(
        settings,
        gold("agg_category_metrics"),
        category_id=["K1", "K1", "K2"],
        sales_date=[date(2026, 1, 5), date(2026, 3, 1), date(2026, 3, 2)],
        currency=["EUR", "EUR", "USD"],
        revenue=pa.array([Decimal("10.50"), Decimal(5), Decimal(7)], MONEY),
        reporting_currency=["EUR", "EUR", "EUR"],
        reporting_revenue=pa.array([Decimal("10.50"), Decimal(5), Decimal("6.30")], MONEY),
        units=pa.array([1, 1, 1], pa.int64()),
    )
    write(settings, gold("dim_category"), category_id=["K1"], name=["<Books>"])
    order = pa.struct({"order_id": pa.string(), "status": pa.string()})
    lives = [("1", "placed"), ("1", "paid"), ("1", "shipped"), ("1", "delivered"), ("2", "placed")]
    views = [{"session_id": "s1"}, {"session_id": "s1"}, {"session_id": "s2"}]
    count = len(lives) + len(views) + 2
    write(
        settings,
        tables.silver(contracts),
        date=pa.array([date(2026, 3, 2)] * count),
        outcome=["accepted"] * (count - 2) + ["quarantined"] * 2,
        violations=pa.array([[]] * (count - 2) + [["a.type", "b.type"], ["a.type"]]),
        order=pa.array(
            [{"order_id": i, "status": s} for i, s in lives] + [None] * (count - len(lives)), order
        ),
        page_view=pa.array([None] * 5 + views + [None] * 2, pa.struct({"session_id": pa.string()})),
        cart=pa.array([None] * count, pa.struct({"cart_id": pa.string()})),
    )
    return settings


@pytest.fixture
def database(shop: Settings, contracts: Contracts, layouts: Layouts) -> duckdb.DuckDBPyConnection:
    return report.opened(shop, contracts, layouts)


def drawn(database: duckdb.DuckDBPyConnection, title: str) -> Any:
    figure = report.SECTIONS[title](database)
    assert figure is not None
    return figure.data


def test_money_by_day_by_category_and_by_country(database: duckdb.DuckDBPyConnection) -> None:
    eur, usd = drawn(database, "Revenue over time")
    assert list(eur.x) == [date(2026, 1, 5), date(2026, 3, 1)]
    assert (list(eur.y), eur.name) == ([10.5, 5.0], "EUR")
    assert (list(usd.x), list(usd.y), usd.name) == ([date(2026, 3, 2)], [7.0], "USD")
    # What is held against each other is in one currency.
    [bars] = drawn(database, "Revenue by category")
    assert dict(zip(bars.x, bars.y, strict=True)) == {"<Books> (K1)": 15.5, " (K2)": 6.3}
    # What came back from France is no revenue, and where the last one goes is not known.
    [bars] = drawn(database, "Orders by country")
    assert dict(zip(bars.x, bars.y, strict=True)) == {"DE": 15.5, "unknown": 6.3}


def test_funnel_and_cohorts(database: duckdb.DuckDBPyConnection) -> None:
    [funnel] = drawn(database, "From a visit to a delivered order")
    assert dict(zip(funnel.y, funnel.x, strict=True)) == {
        "visits": 2,
        "carts": 0,
        "orders placed": 2,
        "orders paid": 1,
        "orders shipped": 1,
        "orders delivered": 1,
    }
    [heat] = drawn(database, "Customers who came back, by month of their first order")
    assert list(heat.y) == ["2026-01", "2026-03"]
    assert list(heat.x) == [0, 1, 2]
    # Of A and B, one came back two months later; C has had no time yet.
    assert [list(row) for row in heat.z] == [[1.0, None, 0.5], [1.0, None, None]]


def test_quarantine_by_rule_and_what_was_never_checked(
    database: duckdb.DuckDBPyConnection,
) -> None:
    bars = drawn(database, "Quarantined records by rule and day")
    assert {bar.name: list(bar.y) for bar in bars} == {"a.type": [2], "b.type": [1]}
    # Days in order, whichever rule has one of its own; and those without.
    figure = report.SECTIONS["Quarantined records by rule and day"](database)
    assert figure is not None
    assert figure.layout.xaxis.type == "date"
    assert report.SECTIONS["Quality of Gold's tables over time"](database) is None


def test_files_that_are_older_than_an_entity(
    shop: Settings, contracts: Contracts, layouts: Layouts
) -> None:
    path = tables.silver(contracts).path(shop)
    whole = DeltaTable(path).to_pyarrow_table()
    shutil.rmtree(path)
    for columns in (["date", "outcome", "violations", "order"], whole.column_names):
        write_deltalake(path, whole.select(columns), mode="append", schema_mode="merge")
    database = report.opened(shop, contracts, layouts)
    [funnel] = drawn(database, "From a visit to a delivered order")
    assert dict(zip(funnel.y, funnel.x, strict=True))["visits"] == 2
    # None of its files has it yet.
    shutil.rmtree(path)
    write_deltalake(path, whole.select(["date", "outcome", "violations", "order"]))
    database = report.opened(shop, contracts, layouts)
    [funnel] = drawn(database, "From a visit to a delivered order")
    assert dict(zip(funnel.y, funnel.x, strict=True))["visits"] == 0


def test_without_names_of_categories(
    shop: Settings, contracts: Contracts, layouts: Layouts
) -> None:
    """Their dimension is a contract alone, and may be left out."""
    known = Layouts([one for one in layouts.values() if one.name != "dim_category"])
    figure = report.SECTIONS["Revenue by category"](report.opened(shop, contracts, known))
    assert figure is not None


def test_the_page_stands_alone(shop: Settings) -> None:
    done = CliRunner().invoke(report.report, ["--data", shop.storage])
    assert done.exit_code == 0, done.output
    page = (shop.runtime_dir / "report.html").read_text()
    assert page.count("<h2>") == len(report.SECTIONS)
    assert "Nothing to draw yet." in page, "no score was kept"
    assert ">15.50</b>revenue, EUR" in page
    assert ">7.00</b>revenue, USD" in page
    assert ">4</b>orders" in page
    assert ">2</b>records quarantined" in page
    # The library stands in it, once; nothing is fetched.
    assert '<script src="http' not in page
    assert "<link" not in page
    assert len(page) > 1_000_000


def test_without_gold_it_says_what_makes_it(settings: Settings) -> None:
    done = CliRunner().invoke(report.report, ["--data", settings.storage])
    assert done.exit_code == 1
    assert "no table silver.events" in str(done.exception)
    assert "`headwater gold`" in str(done.exception)
