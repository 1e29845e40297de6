"""Gold over small histories: what one writes down by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession

from batch import merge
from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.errors import TableError
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings
from tests.samples_gold import ADDRESS, CATEGORY, CUSTOMER, PRODUCT, Shop, at, line, order


def key(*parts: object) -> int:
    """The surrogate key as docs/gold.md says it is made."""
    text = "|".join(str(part) for part in parts)
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def since(moment: datetime) -> int:
    return key("C00000001", round(moment.timestamp() * 1_000_000))


FIRST = key("C00000001")


@pytest.fixture
def shop(spark: SparkSession, settings: Settings, contracts: Contracts, layouts: Layouts) -> Shop:
    return Shop(spark, settings, contracts, layouts)


def history(shop: Shop) -> list[tuple[Any, ...]]:
    """Phone and tier of the customer over time."""
    rows = sorted(shop.rows("dim_users"), key=lambda row: row["effective_from"])
    return [
        (
            r["user_key"],
            r["phone"],
            r["loyalty_tier"],
            r["effective_from"],
            r["effective_to"],
            r["is_current"],
            r["is_inferred"],
        )
        for r in rows
    ]


def pointing(shop: Shop) -> dict[int, int]:
    """user_key by number of the order."""
    return {int(row["order_id"][1:]): row["user_key"] for row in shop.rows("fact_orders")}


@pytest.mark.long
def test_a_customers_history_as_one_writes_it_down(shop: Shop) -> None:
    phone = CUSTOMER["phone"]
    # Orders of somebody, at some place, for something, of whom nothing is known as yet.
    shop.say(("12:00", "order", order(1, "12:00")), ("12:00", "order_item", line(1)))
    shop.build()
    assert history(shop) == [(FIRST, None, None, at("12:00"), None, True, True)]
    assert pointing(shop) == {1: FIRST}
    [product] = shop.rows("dim_product")
    assert (product["product_key"], product["name"], product["is_inferred"]) == (
        key("P00001"),
        None,
        True,
    )
    [sold] = shop.rows("agg_category_metrics")
    assert (sold["category_id"], sold["gross"]) == ("unknown", Decimal("39.98"))

    # They are made known: under the same keys. The phone changes to NULL at 14:00.
    shop.say(
        ("10:00", "customer", CUSTOMER),
        ("10:00", "address", ADDRESS),
        ("09:00", "product", PRODUCT),
        ("09:00", "category", CATEGORY),
        ("14:00", "customer", {**CUSTOMER, "phone": None}),
        ("15:00", "order", order(2, "15:00")),
        ("13:30", "order", order(3, "13:30")),
    )
    shop.build()
    gone = (since(at("14:00")), None, "none", at("14:00"), None, True, False)
    assert history(shop) == [
        (FIRST, phone, "none", at("10:00"), at("14:00"), False, False),
        gone,
    ]
    assert pointing(shop) == {1: FIRST, 2: since(at("14:00")), 3: FIRST}
    [product] = shop.rows("dim_product")
    assert (product["product_key"], product["name"], product["is_inferred"]) == (
        key("P00001"),
        "Lamp",
        False,
    )
    [sold] = shop.rows("agg_category_metrics")
    assert (sold["category_id"], sold["gross"]) == ("K001", Decimal("39.98"))

    # Back to what it was at 16:00; then, arriving after that, what happened at 13:00. The event of
    # 17:00 changes nothing.
    shop.say(
        ("16:00", "customer", CUSTOMER),
        ("17:00", "customer", CUSTOMER),
        ("18:00", "order", order(4, "18:00")),
    )
    shop.say(("13:00", "customer", {**CUSTOMER, "loyalty_tier": "gold"}))
    shop.build()
    assert history(shop) == [
        (FIRST, phone, "none", at("10:00"), at("13:00"), False, False),
        (since(at("13:00")), phone, "gold", at("13:00"), at("14:00"), False, False),
        (since(at("14:00")), None, "none", at("14:00"), at("16:00"), False, False),
        (since(at("16:00")), phone, "none", at("16:00"), None, True, False),
    ]
    assert pointing(shop) == {
        1: FIRST,
        3: since(at("13:00")),
        2: since(at("14:00")),
        4: since(at("16:00")),
    }
    [metrics] = shop.rows("agg_user_metrics")
    assert (metrics["user_key"], metrics["orders"], metrics["revenue"]) == (
        since(at("16:00")),
        4,
        Decimal("179.52"),
    )

    # What happened at 14:00 turns out to be a conflict: it is taken out of Silver again. An order
    # is cancelled, and its line was for one piece.
    shop.sql("DELETE FROM {silver} WHERE customer.phone IS NULL AND entity = 'customer'")
    shop.say(
        ("12:30", "order", order(1, "12:00", "cancelled")),
        ("12:30", "order_item", line(1, quantity=1, line_total=19.99)),
    )
    shop.build()
    assert [row[:5] for row in history(shop)] == [
        (FIRST, phone, "none", at("10:00"), at("13:00")),
        (since(at("13:00")), phone, "gold", at("13:00"), at("16:00")),
        (since(at("16:00")), phone, "none", at("16:00"), None),
    ]
    assert pointing(shop) == {
        1: FIRST,
        3: since(at("13:00")),
        2: since(at("13:00")),
        4: since(at("16:00")),
    }
    [metrics] = shop.rows("agg_user_metrics")
    assert (metrics["orders"], metrics["lost_orders"], metrics["gross"], metrics["revenue"]) == (
        4,
        1,
        Decimal("179.52"),
        Decimal("134.64"),
    )
    [sold] = shop.rows("agg_category_metrics")
    assert (sold["units"], sold["gross"], sold["revenue"]) == (1, Decimal("19.99"), Decimal(0))
    [item] = shop.rows("fact_order_items")
    assert (item["user_key"], item["order_status"], item["time_key"]) == (
        FIRST,
        "cancelled",
        2026030112,
    )
    rebuilt = shop.build(rebuild=True)
    assert rebuilt.rows == 0, "a rebuild finds nothing to change"


@pytest.mark.long
def test_rows_of_silver_that_change_in_place(shop: Shop) -> None:
    """As a replay leaves them: an event let in from quarantine, and one with other values."""
    other = {**PRODUCT, "product_id": "P00002"}
    shop.say(
        ("09:00", "product", PRODUCT),
        ("10:00", "product", {**PRODUCT, "category_id": "K002"}),
        ("10:00", "product", other),
        ("12:00", "order", order(1, "12:00")),
        ("12:00", "order_item", line(1)),
        ("12:00", "order_item", line(1, line_number=2, product_id="P00002", quantity=1)),
    )
    change = "UPDATE {silver} SET %s WHERE entity = 'product' AND offset = %s"
    shop.sql(change % ("outcome = 'quarantined'", 1))
    shop.build()

    def units() -> dict[str, int]:
        return {row["category_id"]: row["units"] for row in shop.rows("agg_category_metrics")}

    assert units() == {"K001": 3}
    shop.sql(change % ("outcome = 'accepted'", 1))
    shop.sql(change % ("product.category_id = 'K003'", 2))
    shop.build()
    assert units() == {"K002": 2, "K003": 1}
    # And Gold itself, made anew for a time, in which an event has another value now: the value that
    # the product had before that event.
    shop.sql(change % ("product.category_id = 'K001'", 1))
    shop.sql("UPDATE {fact_orders} SET total = 1")
    shop.sql("UPDATE {fact_order_items} SET quantity = 9")
    shop.build(again=(at("10:00"), at("12:01")))
    assert [row["total"] for row in shop.rows("fact_orders")] == [Decimal("44.88")]
    assert sorted(row["quantity"] for row in shop.rows("fact_order_items")) == [1, 2]
    assert units() == {"K001": 2, "K003": 1}


@pytest.mark.long
def test_what_was_changed_by_hand_is_refused_by_name(shop: Shop) -> None:
    shop.say(("12:00", "order", order(1, "12:00")), ("12:00", "order_item", line(1)))
    shop.build()
    before = {layout.name: shop.rows(layout.name) for layout in shop.layouts.gold}
    mark = "spark.databricks.delta.commitInfo.userMetadata"

    def by_hand(statement: str) -> None:
        shop.spark.conf.unset(mark)
        try:
            shop.sql(statement)
        finally:
            shop.spark.conf.set(mark, tables.MARK)

    by_hand("UPDATE {silver} SET `order`.total = 1 WHERE entity = 'order'")
    path = shop.silver.path(shop.settings)
    with pytest.raises(TableError, match=rf"silver.events \({path}\): version 2 .*UPDATE"):
        shop.build()
    assert {layout.name: shop.rows(layout.name) for layout in shop.layouts.gold} == before
    by_hand("RESTORE TABLE {silver} TO VERSION AS OF 1")
    assert shop.build(rebuild=True).rows == 0

    by_hand("DELETE FROM {fact_orders}")
    with pytest.raises(TableError, match=r"gold.fact_orders .*: version \d+ .*DELETE"):
        shop.build()
    assert shop.build(rebuild=True).tables["gold.fact_orders"].inserted == 1

    shutil.rmtree(f"{shop.settings.tables}/gold/dim_users")
    with pytest.raises(TableError, match=r"gold.dim_users is gone from .*--rebuild"):
        shop.build()
    shop.build(rebuild=True)
    assert {layout.name: shop.rows(layout.name) for layout in shop.layouts.gold} == before

    by_hand("ALTER TABLE {silver} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    by_hand("ALTER TABLE {silver} DROP COLUMN `order`.total")
    with pytest.raises(TableError, match=r"silver.events .*: column `order`.`total` .* missing"):
        shop.build()


def sold(shop: Shop) -> dict[str, int]:
    """Units by category."""
    return {row["category_id"]: row["units"] for row in shop.rows("agg_category_metrics")}


class CutOffError(Exception):
    """Where a run is cut off."""


def cut_after(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Has every run die once it has written a table."""
    bring = merge.bring

    def cut(*arguments: Any, **more: Any) -> Any:
        done = bring(*arguments, **more)
        if arguments[2].full_name == name:
            raise CutOffError
        return done

    monkeypatch.setattr(merge, "bring", cut)


@pytest.mark.long
def test_what_a_run_that_was_cut_off_wrote_is_put_right(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product goes to another category, the run that says so dies, and it comes back."""
    shop.say(
        ("09:00", "product", PRODUCT),
        ("12:00", "order", order(1, "12:00")),
        ("12:00", "order_item", line(1)),
    )
    shop.build()
    shop.say(("13:00", "product", {**PRODUCT, "category_id": "K002"}))
    with monkeypatch.context() as patch:
        cut_after(patch, "gold.agg_category_metrics")
        with pytest.raises(CutOffError):
            shop.build()
    assert sold(shop) == {"K002": 2}
    shop.say(("14:00", "product", PRODUCT))
    assert shop.build().mode == "increment"
    assert sold(shop) == {"K001": 2}


@pytest.mark.long
def test_the_hours_of_a_year_are_there_before_its_facts(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.say(("12:00", "order", order(1, "12:00")), ("12:00", "order_item", line(1)))
    shop.build()
    shop.say(("15:00", "order", order(2, "15:00", placed_at="2027-01-01T00:30:00Z")))
    with monkeypatch.context() as patch:
        cut_after(patch, "gold.fact_orders")
        with pytest.raises(CutOffError):
            shop.build()
    hours = {row["time_key"] for row in shop.rows("dim_time")}
    assert {row["time_key"] for row in shop.rows("fact_orders")} <= hours
    assert len(hours) == 2 * 365 * 24
    assert shop.build().mode == "increment"
    assert shop.build(rebuild=True).rows == 0


@pytest.mark.long
def test_a_contract_that_came_later_is_filled_from_the_beginning(shop: Shop) -> None:
    def without(name: str, *columns: str) -> Layouts:
        """All tables but one, or but columns of it."""
        kept = []
        for layout in full.values():
            if layout.full_name != name:
                kept.append(layout)
            elif columns:
                some = tuple(c for c in layout.columns if c.name not in columns)
                kept.append(dataclasses.replace(layout, columns=some))
        return Layouts(kept)

    full = shop.layouts
    shop.say(
        ("09:00", "product", PRODUCT),
        ("09:00", "category", CATEGORY),
        ("12:00", "order", order(1, "12:00")),
        ("12:00", "order_item", line(1)),
    )
    shop.layouts = without("gold.dim_category")
    shop.build()
    shop.layouts = full
    shop.say(("13:00", "category", {**CATEGORY, "category_id": "K002"}))
    assert shop.build().mode == "full"
    assert {row["category_id"] for row in shop.rows("dim_category")} == {"K001", "K002"}

    shutil.rmtree(f"{shop.settings.tables}/gold/dim_product")
    shop.layouts = without("gold.dim_product", "brand")
    shop.build(rebuild=True)
    assert "brand" not in shop.rows("dim_product")[0]
    shop.layouts = full
    # Though Silver has nothing new.
    assert shop.build().mode == "full"
    assert [row["brand"] for row in shop.rows("dim_product")] == ["Lux"]
    assert shop.build(rebuild=True).rows == 0


@pytest.mark.long
def test_another_table_in_the_place_of_one_is_refused(shop: Shop) -> None:
    sale = (("12:00", "order", order(1, "12:00")), ("12:00", "order_item", line(1)))
    shop.say(*sale)
    shop.build()

    def all_rows() -> dict[str, list[str]]:
        return {one.name: sorted(map(repr, shop.rows(one.name))) for one in shop.layouts.gold}

    before = all_rows()

    def gone(path: str) -> None:
        shutil.rmtree(path)
        jvm: Any = shop.spark.sparkContext._jvm
        jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()

    # As a rebuild that was killed leaves it.
    metrics = tables.gold(shop.layouts["gold.agg_category_metrics"])
    gone(metrics.path(shop.settings))
    tables.ensure(shop.spark, shop.settings, metrics)
    with pytest.raises(TableError, match=r"agg_category_metrics is another table now .*--rebuild"):
        shop.build()
    shop.build(rebuild=True)
    assert all_rows() == before

    # Hours that somebody took away.
    shop.sql("DELETE FROM {dim_time} WHERE hour = 3")
    assert shop.build(rebuild=True).tables["gold.dim_time"].inserted == 365
    assert all_rows() == before

    # As many versions, and other rows.
    gone(shop.silver.path(shop.settings))
    tables.ensure(shop.spark, shop.settings, shop.silver)
    shop.say(("12:00", "order", order(2, "12:00")))
    with pytest.raises(TableError, match=r"is not the table whose version 1 Gold was built from"):
        shop.build()
    assert shop.build(rebuild=True).mode == "full"
    assert [row["order_id"] for row in shop.rows("fact_orders")] == [order(2, "12:00")["order_id"]]
