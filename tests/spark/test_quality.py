"""The quality gate: what breaks a contract of Gold is named by table, rule and key, and kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from batch import publish, quality
from batch.quality import Checked
from lakehouse.contracts import Column, Contracts
from lakehouse.errors import QualityError, TableError
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings
from tests.helpers import table
from tests.samples_gold import ADDRESS, CATEGORY, CUSTOMER, PRODUCT, Shop, line, order

SECOND = "O0000000002"


@pytest.fixture
def shop(spark: SparkSession, settings: Settings, contracts: Contracts, layouts: Layouts) -> Shop:
    shop = Shop(spark, settings, contracts, layouts)
    shop.say(
        ("10:00", "customer", CUSTOMER),
        ("10:00", "address", ADDRESS),
        ("09:00", "product", PRODUCT),
        ("09:00", "category", CATEGORY),
        *(("15:00", "order", order(n, "15:00")) for n in range(1, 5)),
        # The last of them is of an order that nothing is known of.
        *(("15:00", "order_item", line(n)) for n in range(1, 6)),
    )
    shop.build()
    return shop


def broken(checked: list[Checked]) -> dict[tuple[str, str], tuple[bool, int, list[str]]]:
    """By table and what comes before the limits: whether critical, rows, keys."""
    return {
        (one.table, each.what): (each.critical, each.rows, each.examples)
        for one in checked
        for each in one.broken
    }


def check(shop: Shop, docs: Path | None = None) -> list[Checked]:
    return quality.check(shop.spark, shop.settings, shop.layouts, docs=docs)


def demand(shop: Shop) -> None:
    newest = quality.newest_of(shop.spark, shop.settings, shop.layouts)
    quality.demand(shop.spark, shop.settings, shop.layouts, newest)


@pytest.mark.long
def test_what_breaks_a_contract_is_kept_from_the_warehouse(shop: Shop) -> None:
    settings = shop.settings
    publish.copy(shop.spark, settings, shop.layouts, ("duckdb",))
    rows = table(settings, "ops/quality").to_pylist()
    assert {row["table"]: (row["rows"], row["score"]) for row in rows} == {
        "gold.agg_category_metrics": (1, 100.0),
        # One hour and region of each of six types.
        "gold.agg_hourly_metrics": (6, 100.0),
        "gold.agg_user_metrics": (1, 100.0),
        "gold.dim_category": (1, 100.0),
        "gold.dim_date": (365, 100.0),
        "gold.dim_location": (1, 100.0),
        "gold.dim_product": (1, 100.0),
        "gold.dim_store": (1, 100.0),
        "gold.dim_telco_customer": (0, 100.0),
        "gold.dim_time": (8_760, 100.0),
        "gold.dim_users": (1, 100.0),
        "gold.fact_inventory": (0, 100.0),
        "gold.fact_order_items": (5, 100.0),
        "gold.fact_orders": (4, 100.0),
        "gold.fact_payments": (0, 100.0),
    }

    def in_warehouse() -> list[Any]:
        with duckdb.connect(str(settings.duckdb_file), read_only=True) as db:
            return db.execute("FROM fact_orders ORDER BY order_id").fetchall()

    before = in_warehouse()
    for statement in (
        "UPDATE {fact_orders} SET user_key = 5 WHERE order_id = 'O0000000001'",
        "INSERT INTO {fact_orders} SELECT * FROM {fact_orders} WHERE order_id = 'O0000000002'",
    ):
        shop.sql(statement)
    with pytest.raises(QualityError) as refused:
        publish.copy(shop.spark, settings, shop.layouts, ("duckdb",))
    for said in (
        "user_key is in dim_users: column values to be in set value set [True]: 1 rows break it: "
        "O0000000001",
        f"order_id once: column values to be in set value set [True]: 2 rows break it: {SECOND}",
    ):
        assert said in str(refused.value)
    assert in_warehouse() == before
    kept = json.dumps(table(settings, "ops/quality").to_pylist(), default=str)
    assert SECOND not in kept, "keys of rows are told, and not kept"

    shop.build(rebuild=True)
    publish.copy(shop.spark, settings, shop.layouts, ("duckdb",))
    assert in_warehouse() == before
    last = {row["table"]: row["score"] for row in table(settings, "ops/quality").to_pylist()}
    assert last["gold.fact_orders"] == 100.0


@pytest.mark.long
def test_every_break_is_named_by_both_engines(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs"
    for statement in (
        "UPDATE {fact_orders} SET user_key = 5 WHERE order_id = 'O0000000002'",
        "UPDATE {fact_orders} SET status = 'lost' WHERE order_id > 'O0000000002'",
        "UPDATE {fact_orders} SET total = 1.00 WHERE order_id = 'O0000000001'",
        "INSERT INTO {fact_orders} SELECT * FROM {fact_orders} WHERE order_id = 'O0000000002'",
        "UPDATE {dim_users} SET phone = '0151 SECRET'",
        "INSERT INTO {dim_users} SELECT user_key + 1, * EXCEPT (user_key) FROM {dim_users}",
    ):
        shop.sql(statement)
    users = sorted(str(row["user_key"]) for row in shop.rows("dim_users"))
    states = ["placed", "paid", "shipped", "delivered", "cancelled", "returned"]
    within = "column values to be in set"
    expected = {
        ("gold.fact_orders", f"order_id once: {within} value set [True]"): (True, 2, [SECOND] * 2),
        ("gold.fact_orders", f"user_key is in dim_users: {within} value set [True]"): (
            True,
            2,
            [SECOND] * 2,
        ),
        ("gold.fact_orders", f"status: {within} value set {states}"): (
            True,
            2,
            ["O0000000003", "O0000000004"],
        ),
        ("gold.fact_orders", "total, subtotal: column pair values a to be greater than b"): (
            True,
            1,
            ["O0000000001"],
        ),
        ("gold.dim_users", f"customer_id in force once: {within} value set [True]"): (
            True,
            2,
            users,
        ),
        ("gold.dim_users", f"customer_id, effective_from once: {within} value set [True]"): (
            True,
            2,
            users,
        ),
        ("gold.dim_users", "phone: column values to match regex"): (False, 2, users),
    }

    def found(checked: list[Checked]) -> dict[tuple[str, str], Any]:
        return {
            (name, what.split(" regex ")[0] + (" regex" if " regex " in what else "")): (
                critical,
                rows,
                sorted(keys),
            )
            for (name, what), (critical, rows, keys) in broken(checked).items()
        }

    by_pandas = check(shop, docs)
    assert found(by_pandas) == expected
    monkeypatch.setattr(quality, "PANDAS_ROWS", 0)
    by_spark = check(shop)
    assert found(by_spark) == expected
    assert [one.score for one in by_spark] == [one.score for one in by_pandas]
    scores = {one.table: one.score for one in by_pandas}
    assert scores["gold.dim_time"] == 100.0
    # Of what is expected of the orders, these shares of five rows break four.
    orders = next(one for one in by_pandas if one.table == "gold.fact_orders")
    lost = 2 / 5 + 2 / 5 + 2 / 5 + 1 / 5
    # It is rounded to two places.
    assert orders.score == pytest.approx(100 * (1 - lost / orders.expectations), abs=0.0051)

    with pytest.raises(QualityError) as refused:
        quality.refuse(by_pandas)
    assert "SECRET" not in str(refused.value)
    assert "phone" not in str(refused.value), "a warning keeps nothing back"
    pages = [page.read_text() for page in docs.rglob("*.html")]
    assert any("order_id once" in page and "Failed" in page for page in pages)
    for page in pages:
        assert SECOND not in page
        assert "SECRET" not in page


@pytest.mark.long
def test_a_version_that_passed_is_not_looked_at_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    fetch = quality._fetch

    def counted(*arguments: Any) -> Any:
        looked_at.extend(layout.full_name for layout in arguments[3])
        return fetch(*arguments)

    monkeypatch.setattr(quality, "_fetch", counted)
    demand(shop)
    assert len(looked_at) == len(shop.layouts.gold)
    looked_at.clear()
    demand(shop)
    assert looked_at == []
    shop.say(("16:00", "order", order(9, "16:00")), ("16:00", "order_item", line(9)))
    shop.build()
    demand(shop)
    assert set(looked_at) == {
        "gold.agg_category_metrics",
        "gold.agg_hourly_metrics",
        "gold.agg_user_metrics",
        "gold.fact_order_items",
        "gold.fact_orders",
    }


@pytest.mark.long
def test_contracts_that_gold_was_not_built_by_yet(shop: Shop) -> None:
    """They have a column more, which is said; or one less, which stays in the table."""
    products = shop.layouts["gold.dim_product"]
    [brand] = [column for column in products.columns if column.name == "brand"]
    more = dataclasses.replace(brand, name="maker", json_key="maker")

    def having(*columns: Column) -> Layouts:
        changed = dataclasses.replace(products, columns=columns)
        return Layouts([changed if one is products else one for one in shop.layouts.values()])

    newest = quality.newest_of(shop.spark, shop.settings, shop.layouts)
    ahead = having(*products.columns, more)
    for job in (
        lambda: quality.check(shop.spark, shop.settings, ahead),
        lambda: quality.demand(shop.spark, shop.settings, ahead, newest),
        lambda: publish.copy(shop.spark, shop.settings, ahead, ("duckdb",)),
    ):
        with pytest.raises(
            TableError, match=r"dim_product .*no column maker yet.*`headwater gold`"
        ):
            job()
    less = having(*(column for column in products.columns if column is not brand))
    publish.copy(shop.spark, shop.settings, less, ("duckdb",))


def test_an_unknown_table_is_said(settings: Settings) -> None:
    done = CliRunner().invoke(quality.quality, ["gold.nothing", "--data", settings.storage])
    assert done.exit_code == 2
    assert "gold.nothing: there are gold.agg_category_metrics" in done.output
