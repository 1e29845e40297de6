"""Gold over small histories: what one writes down by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from batch import gold, merge
from lakehouse import contracts as contract_files
from lakehouse import layouts as layout_files
from lakehouse import settings as settings_files
from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.errors import TableError
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings
from tests.helpers import table
from tests.samples_gold import (
    ADDRESS,
    CATEGORY,
    CUSTOMER,
    PRODUCT,
    STORE,
    Shop,
    at,
    counted,
    line,
    order,
    payment,
)


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
    # As of a run that died after that: the table has the column, and nothing in it.
    tables.ensure(shop.spark, shop.settings, tables.gold(full["gold.dim_product"]))
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


def stock(shop: Shop) -> list[tuple[Any, ...]]:
    """Day, store, pieces, when they were counted, and the version of the store, in order."""
    rows = sorted(shop.rows("fact_inventory"), key=lambda r: (r["snapshot_date"], r["store_id"]))
    return [
        (
            r["snapshot_date"].day,
            r["store_id"],
            r["quantity"],
            f"{r['changed_at']:%dT%H:%M}",
            r["is_carried"],
            r["store_key"],
        )
        for r in rows
    ]


@pytest.mark.long
def test_a_count_is_carried_for_a_year_at_most(shop: Shop) -> None:
    """One of a clock that stood at 1970; in increments, one that nobody has made again."""

    def first_and_last() -> dict[str, tuple[str, str, int]]:
        found: dict[str, list[str]] = {}
        for row in shop.rows("fact_inventory"):
            found.setdefault(row["store_id"], []).append(str(row["snapshot_date"]))
        return {store: (min(days), max(days), len(days)) for store, days in found.items()}

    sent = datetime(2028, 1, 1, tzinfo=UTC)
    shop.say(
        ("1970-01-01T08:00:00Z", "inventory", counted(5, store_id="S003")),
        ("08:00", "inventory", counted(20)),
    )
    shop.build()
    assert first_and_last() == {
        "S001": ("2026-03-01", "2026-03-01", 1),
        "S003": ("1970-01-01", "1971-01-02", 367),
    }
    assert {row["year"] for row in shop.rows("dim_date")} == {1970, 1971, 2026}
    later = counted(3, store_id="S002")
    shop.say(("2027-03-02T08:00:00Z", "inventory", later), sent=sent)
    shop.build()
    stores = first_and_last()
    assert stores["S001"] == ("2026-03-01", "2027-03-02", 367)
    shop.say(("2027-03-05T08:00:00Z", "inventory", later), sent=sent)
    shop.build()
    assert first_and_last()["S001"] == stores["S001"]
    assert first_and_last()["S002"] == ("2027-03-02", "2027-03-05", 4)
    # The first store's last count is a year and a day old by then.
    assert shop.build(rebuild=True).rows == 0


def store_since(moment: datetime) -> int:
    return key("S001", round(moment.timestamp() * 1_000_000))


@pytest.mark.long
def test_stock_by_day_as_one_writes_it_down(shop: Shop) -> None:
    first, other = key("S001"), key("S002")
    shop.say(
        ("08:00", "inventory", counted(20)),
        ("09:00", "inventory", counted(18)),
        ("03T10:00", "inventory", counted(7)),
        ("02T10:00", "inventory", counted(3, store_id="S002")),
    )
    shop.build()
    # Both stores, and the product, are known from their stock alone. The second day of the first
    # one has no count, nor has the third of the second one.
    assert stock(shop) == [
        (1, "S001", 18, "01T09:00", False, first),
        (2, "S001", 18, "01T09:00", True, first),
        (2, "S002", 3, "02T10:00", False, other),
        (3, "S001", 7, "03T10:00", False, first),
        (3, "S002", 3, "02T10:00", True, other),
    ]
    stores = {row["store_id"]: row for row in shop.rows("dim_store")}
    assert [stores["S001"][name] for name in ("is_inferred", "effective_from", "city")] == [
        True, at("00:00"), None,
    ]  # fmt: skip
    [product] = shop.rows("dim_product")
    assert (product["product_id"], product["is_inferred"]) == ("P00001", True)
    assert len(shop.rows("dim_date")) == 365

    # Another day comes by a count of the second store alone; one of the day before comes late.
    shop.say(
        ("04T11:00", "inventory", counted(9, store_id="S002")),
        ("02T12:00", "inventory", counted(11)),
    )
    result = shop.build()
    assert result.mode == "increment"
    assert result.tables["gold.fact_inventory"].deleted == 0
    assert stock(shop) == [
        (1, "S001", 18, "01T09:00", False, first),
        (2, "S001", 11, "02T12:00", False, first),
        (2, "S002", 3, "02T10:00", False, other),
        (3, "S001", 7, "03T10:00", False, first),
        (3, "S002", 3, "02T10:00", True, other),
        (4, "S001", 7, "03T10:00", True, first),
        (4, "S002", 9, "04T11:00", False, other),
    ]

    # The store becomes known, and moves in the night from the second day to the third.
    shop.say(
        ("07:00", "store", STORE),
        ("02T23:59", "store", {**STORE, "city": "Bonn"}),
        ("10:00", "order", order(1, "10:00")),
        ("03T10:00", "order", order(2, "03T10:00")),
    )
    shop.build()
    moved = store_since(at("02T23:59"))
    assert [row[5] for row in stock(shop) if row[1] == "S001"] == [first, moved, moved, moved]
    assert {row["order_id"][-1]: row["store_key"] for row in shop.rows("fact_orders")} == {
        "1": first,
        "2": moved,
    }
    # That it moved turns out to be earlier, by an event that comes late; and the last day goes.
    shop.say(("09:30", "store", {**STORE, "city": "Bonn"}))
    shop.sql("DELETE FROM {silver} WHERE inventory.store_id = 'S002' AND time > '2026-03-03'")
    shop.build()
    earlier = store_since(at("09:30"))
    assert {row["order_id"][-1]: row["store_key"] for row in shop.rows("fact_orders")} == {
        "1": earlier,
        "2": earlier,
    }
    assert stock(shop) == [
        (1, "S001", 18, "01T09:00", False, earlier),
        (2, "S001", 11, "02T12:00", False, earlier),
        (2, "S002", 3, "02T10:00", False, other),
        (3, "S001", 7, "03T10:00", False, earlier),
        (3, "S002", 3, "02T10:00", True, other),
    ]
    # The second store was there by its stock alone.
    shop.sql("DELETE FROM {silver} WHERE inventory.store_id = 'S002'")
    shop.build()
    assert {row["store_id"] for row in shop.rows("dim_store")} == {"S001"}
    assert {row[1] for row in stock(shop)} == {"S001"}
    assert shop.build(rebuild=True).rows == 0


@pytest.mark.long
def test_payments_and_what_came_back_as_one_writes_it_down(shop: Shop) -> None:
    shop.say(
        ("12:10", "payment", payment(1, 1, "failed")),
        ("12:20", "payment", payment(2, 1)),
        ("12:20", "payment", payment(3, 2)),
    )
    shop.build()

    def paid() -> dict[str, tuple[Any, ...]]:
        return {
            row["payment_id"][-1]: (row["user_key"], row["net_amount"])
            for row in shop.rows("fact_payments")
        }

    sum_of_it, nothing = Decimal("44.88"), Decimal(0)
    assert paid() == {"1": (None, nothing), "2": (None, sum_of_it), "3": (None, sum_of_it)}
    # Their orders come later, and one of these is returned, the other one cancelled.
    shop.say(
        ("10:00", "customer", CUSTOMER),
        *(("12:00", "order", order(number, "12:00")) for number in (1, 2)),
        *(("12:00", "order_item", line(number)) for number in (1, 2)),
        ("03T09:00", "order", order(1, "12:00", "returned")),
        ("03T09:00", "payment", payment(4, 1, "refunded")),
        ("04T09:00", "order", order(2, "12:00", "cancelled")),
    )
    shop.build()
    assert paid() == {
        "1": (FIRST, nothing),
        "2": (FIRST, sum_of_it),
        "3": (FIRST, sum_of_it),
        "4": (FIRST, -sum_of_it),
    }
    columns = ("cancelled_at", "returned_at", "total", "net_total")
    assert {r["order_id"][-1]: tuple(r[c] for c in columns) for r in shop.rows("fact_orders")} == {
        "1": (None, at("03T09:00"), sum_of_it, nothing),
        "2": (at("04T09:00"), None, sum_of_it, nothing),
    }
    columns = ("quantity", "cancelled_quantity", "returned_quantity", "net_total")
    items = shop.rows("fact_order_items")
    assert {row["order_id"][-1]: tuple(row[c] for c in columns) for row in items} == {
        "1": (2, 0, 2, nothing),
        "2": (2, 2, 0, nothing),
    }
    # What was known of the customer then changes: the payments go along with their orders.
    shop.say(("11:00", "customer", {**CUSTOMER, "loyalty_tier": "gold"}))
    shop.build()
    assert {user for user, _ in paid().values()} == {since(at("11:00"))}
    shop.sql("DELETE FROM {silver} WHERE payment.payment_id = 'Y0000000003'")
    shop.build()
    assert set(paid()) == {"1", "2", "4"}
    assert shop.build(rebuild=True).rows == 0


@pytest.mark.long
def test_a_rebuild_says_what_increments_had_otherwise(shop: Shop) -> None:
    def different() -> dict[str, Any]:
        runs = sorted(table(shop.settings, "ops/runs").to_pylist(), key=lambda r: r["ended_at"])
        told: dict[str, Any] = json.loads(runs[-1]["details"])
        return told

    def rebuilt() -> str:
        return gold.describe(gold.rebuilt(shop.spark, shop.settings, shop.contracts, shop.layouts))

    shop.say(("12:00", "order", order(1, "12:00")), ("12:00", "order_item", line(1)))
    assert "not held against increments: Gold is built for the first time" in rebuilt()
    # What is new in Silver is no difference.
    shop.say(("13:00", "order", order(2, "13:00")))
    said = rebuilt()
    assert said.splitlines()[0].endswith(
        "(full, silver.events: all of it): 0 rows written, which is what increments had otherwise"
    )
    assert different()["different"] == {}
    # By a commit that passes for Headwater's own, as a mistake of its own would be.
    shop.sql("UPDATE {fact_orders} SET total = total + 1 WHERE order_id = 'O0000000002'")
    shop.say(("14:00", "order", order(3, "14:00")))
    assert "gold.fact_orders: 0 inserted, 1 updated, 0 deleted" in rebuilt()
    # The increment has taken that row for the customer's other order.
    assert different()["different"] == {"gold.fact_orders": 1, "gold.agg_user_metrics": 1}
    shutil.rmtree(f"{shop.settings.tables}/gold/dim_users")
    assert "not held against increments: gold.dim_users is gone from" in rebuilt()
    assert "is gone" in different()["not_held_against_increments"]


# By hand: the United Kingdom's government ends its year on 31 March, the one that ends in 2026 is
# 2026; that of the United States begins in October.
FISCAL = {
    1: {"2026-01-01": (2026, 1, 1), "2026-09-30": (2026, 3, 9), "2026-12-31": (2026, 4, 12)},
    4: {"2026-03-31": (2026, 4, 12), "2026-04-01": (2027, 1, 1), "2026-12-31": (2027, 3, 9)},
    10: {"2026-09-30": (2026, 4, 12), "2026-10-01": (2027, 1, 1), "2026-01-01": (2026, 2, 4)},
}


@pytest.mark.long
@pytest.mark.long
def test_days_of_long_ago(shop: Shop) -> None:
    """Before the year 1000 and before the calendar of today: days that a shop's clock may say."""
    moments = ("0026-03-01T10:00:00Z", "0999-12-31T23:59:59Z", "1500-03-05T10:00:00Z")
    old = [order(n, moment) for n, moment in enumerate(moments, start=1)]
    shop.say(
        ("10:00", "customer", CUSTOMER),
        ("0001-03-01T10:00:00Z", "exchange_rate", rate("USD", "0001-03-01", 0.5)[2]),
        *((moment, "order", said) for moment, said in zip(moments, old, strict=True)),
        *((moment, "order_item", line(n)) for n, moment in enumerate(moments, start=1)),
        ("1400-03-01T10:00:00Z", "inventory", counted(5)),
    )
    shop.build()
    later = [moment.replace("0:00Z", "9:30Z").replace("9:59Z", "9:59.5Z") for moment in moments]
    shop.say(
        *((at, "order", said | {"status": "paid"}) for at, said in zip(later, old, strict=True)),
        ("1450-03-01T10:00:00Z", "inventory", counted(4)),
    )
    assert shop.build().mode == "increment"
    # By Spark: for the other reader these moments are beyond what it makes of Spark's.
    facts, hours = (
        shop.spark.read.format("delta").load(f"{shop.settings.tables}/gold/{name}")
        for name in ("fact_orders", "agg_hourly_metrics")
    )
    assert [row.status for row in facts.collect()] == ["paid"] * 3
    of_orders = hours.where("endswith(type, '.order')").selectExpr("year(hour) AS y", "events")
    assert {row.y: row.events for row in of_orders.collect()} == {26: 2, 999: 2, 1500: 2}
    found = gold.rebuilt(shop.spark, shop.settings, shop.contracts, shop.layouts)
    assert (found.rows, found.held_against) == (0, gold.INCREMENTS)


def test_the_fiscal_year_begins_where_it_is_set_to(shop: Shop) -> None:
    shop.say(("12:00", "order", order(1, "12:00")))
    for start, expected in FISCAL.items():
        shop.settings = shop.settings.model_copy(update={"fiscal_year_start": start})
        # Whether anything has happened or not.
        if start == 4:
            shop.say(("13:00", "category", {**CATEGORY, "name": f"Home {start}"}))
        assert shop.build().mode == ("full" if start == 1 else "increment")
        found = {
            str(r["day"]): (r["fiscal_year"], r["fiscal_quarter"], r["fiscal_month"])
            for r in shop.rows("dim_date")
        }
        assert {day: found[day] for day in expected} == expected
    assert shop.build().mode == "nothing"
    [leap] = [r for r in shop.rows("dim_date") if str(r["day"]) == "2026-12-31"]
    # 2026 has 53 weeks, and its last Thursday is the 31st of December.
    named = ("date_key", "day_of_year", "iso_year", "iso_week", "day_of_week", "is_month_end")
    assert tuple(leap[name] for name in named) == (20261231, 365, 2026, 53, 4, True)


def rate(currency: str, day: str, rate: float, to: str = "EUR") -> tuple[str, str, dict[str, Any]]:
    """What a bank says on the last day of the month."""
    said = {"currency": currency, "reporting_currency": to, "rate_date": day, "rate": rate}
    return ("31T09:00", "exchange_rate", said)


@pytest.mark.long
def test_amounts_in_the_reporting_currency_as_one_writes_them_down(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    shutil.copytree(settings_files.default_contracts(), tmp_path / "contracts")
    for name in ("order", "order_item", "payment"):
        path = tmp_path / "contracts" / f"{name}.yaml"
        path.write_text(path.read_text().replace("values: [EUR]", "values: [EUR, USD]"))
    contracts = contract_files.load(tmp_path / "contracts")
    layouts = layout_files.load(tmp_path / "contracts", contracts)
    shop = Shop(spark, settings, contracts, layouts)
    usd: dict[str, Any] = {"currency": "USD", "total": 100.00, "subtotal": 95.10}

    def orders() -> dict[str, tuple[Any, ...]]:
        return {
            row["order_id"][-1]: (row["reporting_rate"], row["reporting_total"])
            for row in shop.rows("fact_orders")
        }

    def items() -> dict[str, Any]:
        return {r["order_id"][-1]: r["reporting_net_total"] for r in shop.rows("fact_order_items")}

    def revenue() -> dict[str, Any]:
        return {r["currency"]: r["reporting_revenue"] for r in shop.rows("agg_user_metrics")}

    shop.say(
        rate("USD", "2026-03-01", 0.9),
        rate("USD", "2026-03-03", 0.8),
        rate("USD", "2026-03-01", 100, "JPY"),
        ("12:00", "order", order(1, "12:00", **usd)),
        ("02T12:00", "order", order(2, "02T12:00", **usd)),
        ("12:00", "order", order(3, "12:00", placed_at="2026-02-28T23:59:59Z", **usd)),
        ("12:00", "order", order(4, "12:00")),
        ("02T23:59", "order_item", line(1, currency="USD", line_total=95.13)),
        ("03T00:00", "order_item", line(2, currency="USD", line_total=95.13)),
        # Of an order that is not known.
        ("03T00:00", "order_item", line(9, currency="USD", line_total=95.13)),
        ("03T09:00", "payment", payment(1, 1, currency="USD", amount=100.00)),
        ("03T09:00", "payment", payment(2, 4)),
    )
    shop.build()
    one, none = Decimal("1.00000000"), (None, None)
    euros = (one, Decimal("44.88"))
    # Of the day, or of the last one before it that has one; none before there was any.
    ninety = (Decimal("0.90000000"), Decimal("90.00"))
    assert orders() == {"1": ninety, "2": ninety, "3": none, "4": euros}
    # 95.13 * 0.9 = 85.617, * 0.8 = 76.104
    assert items() == {"1": Decimal("85.62"), "2": Decimal("76.10"), "9": Decimal("76.10")}
    paid = {r["payment_id"][-1]: r["reporting_net_amount"] for r in shop.rows("fact_payments")}
    assert paid == {"1": Decimal("80.00"), "2": Decimal("44.88")}
    assert revenue() == {"EUR": Decimal("44.88"), "USD": None}, "a sum that lacks one is none"
    [category] = [r for r in shop.rows("agg_category_metrics") if r["sales_date"].day == 3]
    assert category["reporting_revenue"] == Decimal("152.20")

    # A rate comes late; another one is put right, which reaches to the day before the next one.
    shop.say(rate("USD", "2026-02-01", 0.5))
    result = shop.build()
    assert result.mode == "increment"
    assert (result.tables["gold.fact_orders"].updated, orders()["3"]) == (
        1, (Decimal("0.50000000"), Decimal("50.00")),
    )  # fmt: skip
    assert revenue() == {"EUR": Decimal("44.88"), "USD": Decimal("230.00")}
    shop.say(("31T10:00", *rate("USD", "2026-03-03", 0.7)[1:]))
    result = shop.build()
    assert result.tables["gold.fact_orders"].rows == 0
    assert result.tables["gold.fact_order_items"].updated == 2
    assert items() == {"1": Decimal("85.62"), "2": Decimal("66.59"), "9": Decimal("66.59")}
    paid = {r["payment_id"][-1]: r["reporting_net_amount"] for r in shop.rows("fact_payments")}
    assert paid == {"1": Decimal("70.00"), "2": Decimal("44.88")}
    [category] = [r for r in shop.rows("agg_category_metrics") if r["sales_date"].day == 3]
    assert category["reporting_revenue"] == Decimal("133.18")
    assert shop.build(rebuild=True).rows == 0

    # Another reporting currency is another Gold, and so it is where a run died that was to change
    # it: here with one table that has it, and all others as they were.
    shop.sql("UPDATE {agg_category_metrics} SET reporting_currency = 'JPY'")
    assert shop.build().mode == "full"
    assert {r["reporting_currency"] for r in shop.rows("agg_category_metrics")} == {"EUR"}
    shop.settings = settings.model_copy(update={"reporting_currency": "JPY"})
    shop.say(("13:00", "category", CATEGORY))
    assert shop.build().mode == "full"
    yen = (Decimal("100.00000000"), Decimal("10000.00"))
    assert orders() == {"1": yen, "2": yen, "3": none, "4": none}


def hourly(shop: Shop) -> dict[tuple[int, str, str, str], tuple[Any, ...]]:
    """Of each hour of the day, entity, region and currency: whether it is closed, and what came."""
    told = ("is_closed", "events", "latency_avg_ms", "latency_p95_ms", "revenue")
    return {
        (r["hour"].hour, r["type"].removeprefix("headwater.shop."), r["region"], r["currency"]): (
            *(r[name] for name in told),
        )
        for r in shop.rows("agg_hourly_metrics")
    }


@pytest.mark.long
def test_hours_by_type_and_region_as_one_writes_them_down(shop: Shop) -> None:
    shop.say(
        ("10:00", "order", order(1, "10:00", country_code=" de ")),
        ("10:10", "order", order(1, "10:00", "paid")),
        ("10:20", "payment", payment(1, 1, country_code="DE")),
        ("10:25", "payment", payment(2, 1, "failed", country_code="DE")),
        ("10:29", "payment", payment(3, 1, "refunded", country_code="DE", amount=4.88)),
        sent=at("10:30"),
    )
    shop.build()
    # Of three latencies 95 % are all three: 10, 5 and 1 min.
    paid = (3, Decimal("320000.000"), 600_000, Decimal("40.00"))
    half_an_hour = (1, Decimal("1800000.000"), 3_600_000, None)
    unknown = (1, Decimal("1200000.000"), 3_600_000, None)
    assert hourly(shop) == {
        (10, "order", "DE", "XXX"): (False, *half_an_hour),
        (10, "order", "unknown", "XXX"): (False, *unknown),
        (10, "payment", "DE", "EUR"): (False, *paid),
    }
    # A clock that is four minutes ahead. Ten minutes after the hour it is closed.
    shop.say(("11:14", "order", order(2, "11:14")), sent=at("11:10"))
    first = shop.build().tables["gold.agg_hourly_metrics"]
    assert (first.inserted, first.updated, first.deleted) == (1, 3, 0)
    at_once = (1, Decimal("0.000"), 100, None)
    assert hourly(shop) == {
        (10, "order", "DE", "XXX"): (True, *half_an_hour),
        (10, "order", "unknown", "XXX"): (True, *unknown),
        (10, "payment", "DE", "EUR"): (True, *paid),
        (11, "order", "unknown", "XXX"): (False, *at_once),
    }
    # One comes late, and another one was none: 1 h and half of it are 45 min on average.
    shop.say(("10:30", "order", order(3, "10:30", country_code="DE")), sent=at("11:30"))
    shop.sql("DELETE FROM {silver} WHERE payment.payment_id = 'Y0000000003'")
    assert shop.build().tables["gold.agg_hourly_metrics"].updated == 2
    assert hourly(shop) == {
        (10, "order", "DE", "XXX"): (True, 2, Decimal("2700000.000"), 3_600_000, None),
        (10, "order", "unknown", "XXX"): (True, *unknown),
        (10, "payment", "DE", "EUR"): (True, 2, Decimal("450000.000"), 600_000, Decimal("44.88")),
        (11, "order", "unknown", "XXX"): (False, *at_once),
    }
    # Without what closed them they are open again, and an hour without events is none; nor is one
    # that was erased for a person any more.
    shop.sql("DELETE FROM {silver} WHERE order.order_id = 'O0000000003'")
    erased = "entity = NULL, type = NULL, time = NULL, order = NULL"
    shop.sql("UPDATE {silver} SET " + erased + " WHERE order.order_id = 'O0000000002'")
    shop.build()
    assert hourly(shop) == {
        (10, "order", "DE", "XXX"): (False, *half_an_hour),
        (10, "order", "unknown", "XXX"): (False, *unknown),
        (10, "payment", "DE", "EUR"): (
            False, 2, Decimal("450000.000"), 600_000, Decimal("44.88"),
        ),
    }  # fmt: skip
    assert shop.build(rebuild=True).rows == 0
