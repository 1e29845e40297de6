"""Small histories in Silver, written by hand, for Gold and what comes after it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from batch import gold
from lakehouse import silver, tables
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings
from tests.helpers import table
from tests.samples import event

ENTITIES = (
    *("address", "category", "customer", "exchange_rate", "inventory", "order", "order_item"),
    *("payment", "product", "store", "telco_customer"),
)
LIMIT = 1_048_576
CUSTOMER = {
    "customer_id": "C00000001",
    "first_name": "Åsa",
    "last_name": "O'Neil",
    "email": "asa@example.com",
    "phone": "+491511234567",
    "birth_date": "1980-01-31",
    "loyalty_tier": "none",
    "address_id": "A00000001",
    "marketing_opt_in": True,
}
ADDRESS = {
    "address_id": "A00000001",
    "customer_id": "C00000001",
    "street": "Straße 1",
    "city": "Köln",
    "postal_code": "50667",
    "region": "NRW",
    "country_code": "DE",
}
PRODUCT = {
    "product_id": "P00001",
    "category_id": "K001",
    "name": "Lamp",
    "brand": "Lux",
    "price": 19.99,
    "currency": "EUR",
    "weight_grams": 500,
    "active": True,
}
CATEGORY = {"category_id": "K001", "name": "Home", "parent_id": None}


STORE = {
    "store_id": "S001",
    "name": "Headwater Köln",
    "city": "Köln",
    "country_code": "DE",
    "opened_on": "2001-04-01",
}


def when(clock: str) -> str:
    """As events have it: a time of the day on which all of this happens, or of another one of its
    month (`04T10:00`), or any time as it stands in an event."""
    if clock.endswith("Z"):
        return clock
    return f"2026-03-{clock}:00Z" if "T" in clock else f"2026-03-01T{clock}:00Z"


def at(clock: str) -> datetime:
    return datetime.fromisoformat(when(clock))


def counted(quantity: int, **other: Any) -> dict[str, Any]:
    return {
        "store_id": "S001",
        "product_id": "P00001",
        "quantity": quantity,
        "reorder_level": 5,
        "reason": "count",
        **other,
    }


def payment(number: int, order: int, status: str = "captured", **other: Any) -> dict[str, Any]:
    return {
        "payment_id": f"Y{number:010d}",
        "order_id": f"O{order:010d}",
        "method": "card",
        "status": status,
        "amount": 44.88,
        "currency": "EUR",
        **other,
    }


def order(number: int, clock: str, status: str = "placed", **other: Any) -> dict[str, Any]:
    return {
        "order_id": f"O{number:010d}",
        "customer_id": "C00000001",
        "store_id": "S001",
        "address_id": "A00000001",
        "status": status,
        "channel": "web",
        "item_count": 1,
        "subtotal": 39.98,
        "shipping_fee": 4.90,
        "total": 44.88,
        "currency": "EUR",
        "placed_at": when(clock),
        **other,
    }


def line(number: int, **other: Any) -> dict[str, Any]:
    return {
        "order_id": f"O{number:010d}",
        "line_number": 1,
        "product_id": "P00001",
        "quantity": 2,
        "unit_price": 19.99,
        "line_total": 39.98,
        "currency": "EUR",
        **other,
    }


class Shop:
    """Tables of a test. Every call of `say` is one commit to Silver. entities: what it deals in."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        contracts: Contracts,
        layouts: Layouts,
        entities: Iterable[str] = ENTITIES,
    ) -> None:
        self.spark, self.settings, self.layouts = spark, settings, layouts
        self.contracts = Contracts([contracts[name] for name in entities])
        self.silver = tables.silver(self.contracts)
        self.said = 0
        tables.ensure(spark, settings, self.silver)

    def say(self, *events: tuple[str, str, dict[str, Any]], sent: datetime | None = None) -> None:
        """Appends events to Silver: (clock, entity, data). sent: by the broker; a month later
        where it does not matter."""
        rows = []
        for clock, entity, data in events:
            value = event(entity, data, id=str(self.said), time=when(clock))
            then = sent or datetime(2026, 4, 1, 0, 0, self.said % 60, tzinfo=UTC)
            rows.append(("t", 0, self.said, then, bytearray(value)))
            self.said += 1
        columns = "topic string, partition int, offset bigint, timestamp timestamp, value binary"
        raw = self.spark.createDataFrame(rows, columns)
        raw = raw.withColumn("key", F.lit(None).cast("binary"))
        made = silver.classify(raw, self.contracts, LIMIT, "stream").localCheckpoint()
        assert [r for r in made.select("outcome", "violations").collect() if r.violations] == []
        tables.append(made, self.settings, self.silver)

    def build(
        self, rebuild: bool = False, again: tuple[datetime, datetime] | None = None
    ) -> gold.Result:
        return gold.build(
            self.spark, self.settings, self.contracts, self.layouts, rebuild, again=again
        )

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Rows of a table of Gold, read by another engine."""
        found: list[dict[str, Any]] = table(self.settings, f"gold/{name}").to_pylist()
        return found

    def sql(self, statement: str) -> None:
        """A statement with {silver} and {gold.NAME} in it, as a commit of Headwater's own."""
        places = {"silver": tables.quoted_path(self.silver.path(self.settings))}
        for layout in self.layouts.gold:
            path = tables.gold(layout).path(self.settings)
            places[layout.name] = tables.quoted_path(path)
        self.spark.sql(statement.format(**places))
