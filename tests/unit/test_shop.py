"""The shop's invariants, over events without defects; bytes depend on seed and start alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice, pairwise
from typing import Any

import pytest

from producer.command import shop_of
from producer.generators import World, spans
from producer.generators.shop import EVENTS_A_DAY

START = 1_759_276_800_000  # 2025-10-01
EVENTS = 40_000
DAY = 86_400_000


def made(world: World, number: int) -> Iterator[tuple[int, str, str]]:
    """(time in ms, entity, data as text) of a shop's first events, in its order."""
    columns = (
        (table.column(name).to_pylist() for name in ("at", "entity", "data"))
        for table in spans(world)
    )
    rows = (row for told in columns for row in zip(*told, strict=True))
    return islice(rows, number)


@pytest.fixture(scope="module")
def events() -> list[tuple[int, str, dict[str, Any]]]:
    """(time in ms, entity, data) in the order of the shop."""
    drawn = made(World(5, START), EVENTS)
    return [(at, entity, json.loads(data, parse_float=Decimal)) for at, entity, data in drawn]


def of(events: list[tuple[int, str, dict[str, Any]]], entity: str) -> list[dict[str, Any]]:
    return [data for _, name, data in events if name == entity]


def test_bytes_depend_on_seed_and_start_alone() -> None:
    def take(seed: int, start: int, count: int) -> list[bytes | None]:
        return [record.value for record in islice(shop_of(seed, start, 0.3).records(), count)]

    once = take(1, START, 3_000)
    assert take(1, START, 3_000) == once
    assert take(1, START, 1_000) == once[:1_000], "how many are taken makes no difference"
    assert take(2, START, 3_000) != once
    assert take(1, START + 1, 3_000) != once


def test_events_are_in_order_of_time_over_weeks(
    events: list[tuple[int, str, dict[str, Any]]],
) -> None:
    assert events[0][0] == START
    assert all(a[0] <= b[0] for a, b in pairwise(events))
    days = (events[-1][0] - events[0][0]) / DAY
    assert EVENTS / EVENTS_A_DAY / 2 < days < EVENTS / EVENTS_A_DAY * 2


def test_all_entities_occur(events: list[tuple[int, str, dict[str, Any]]]) -> None:
    assert {name for _, name, _ in events} == {
        "customer", "address", "category", "product", "store", "order", "order_item", "payment",
        "shipment", "inventory", "review", "page_view", "cart", "loyalty",
    }  # fmt: skip


def test_references_point_to_what_was_told_before(
    events: list[tuple[int, str, dict[str, Any]]],
) -> None:
    keys = {
        "customer_id": "customer", "address_id": "address", "category_id": "category",
        "product_id": "product", "store_id": "store", "order_id": "order",
    }  # fmt: skip
    known: dict[str, set[str]] = defaultdict(set)
    pending_address: dict[str, str] = {}
    for _, name, data in events:
        own = f"{name}_id"
        if own in data:
            known[own].add(data[own])
        for key, target in keys.items():
            if key not in data or key == own:
                continue
            if name == "address" and key == "customer_id" and data[key] not in known[key]:
                # A new customer's address comes right before the customer.
                pending_address[data["address_id"]] = data[key]
                continue
            assert data[key] in known[key], f"{name} names {target} {data[key]} too early"
    assert all(customer in known["customer_id"] for customer in pending_address.values())


def test_amounts_add_up_to_the_cent(events: list[tuple[int, str, dict[str, Any]]]) -> None:
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in of(events, "order_item"):
        assert item["line_total"] == item["quantity"] * item["unit_price"]
        lines[item["order_id"]].append(item)
    orders = {order["order_id"]: order for order in of(events, "order")}
    assert len(orders) > 500
    for order_id, order in orders.items():
        if len(lines[order_id]) < order["item_count"]:
            continue  # the last order's lines may be beyond what was taken
        assert len(lines[order_id]) == order["item_count"]
        assert order["subtotal"] == sum(line["line_total"] for line in lines[order_id])
        assert order["total"] == order["subtotal"] + order["shipping_fee"]
        free = order["subtotal"] >= 50
        assert order["shipping_fee"] == (Decimal(0) if free else Decimal("4.90"))
    for payment in of(events, "payment"):
        assert payment["amount"] == orders[payment["order_id"]]["total"]


@pytest.mark.parametrize("rate", [None, 200.0], ids=["history", "live"])
def test_who_orders_pays_the_prices_of_five_minutes_ago_at_most(rate: float | None) -> None:
    """A visit is no longer than that, and its prices are those of its beginning."""
    # Of each product, (when, price) as told; of each order, when it was placed.
    prices: dict[str, list[tuple[int, Decimal]]] = defaultdict(list)
    placed: dict[str, int] = {}
    items = 0
    for at, entity, text in made(World(5, START, rate), 3 * EVENTS):
        if entity not in {"product", "order", "order_item"}:
            continue
        data = json.loads(text, parse_float=Decimal)
        if entity == "product":
            prices[data["product_id"]].append((at, data["price"]))
        elif entity == "order":
            placed.setdefault(data["order_id"], at)
        else:
            items += 1
            told, now = prices[data["product_id"]], placed[data["order_id"]]
            ended = [until for until, _ in told[1:]] + [now + 1]
            lasting = {
                price for (_, price), end in zip(told, ended, strict=True) if end > now - 300_000
            }
            assert data["unit_price"] in lasting
    assert items > 1_000
    assert sum(len({price for _, price in told}) > 1 for told in prices.values()) > 20


def test_orders_go_through_allowed_states_over_time(
    events: list[tuple[int, str, dict[str, Any]]],
) -> None:
    following = {
        None: {"placed"},
        "placed": {"paid", "cancelled"},
        "paid": {"shipped", "cancelled"},
        "shipped": {"delivered"},
        "delivered": {"returned"},
        "cancelled": set(),
        "returned": set(),
    }
    state: dict[str, str | None] = defaultdict(lambda: None)
    since: dict[str, int] = {}
    hours = []
    for at, name, data in events:
        if name != "order":
            continue
        order = data["order_id"]
        assert data["status"] in following[state[order]], f"{order}: {state[order]} to {data}"
        if data["status"] == "shipped":
            hours.append((at - since[order]) / 3_600_000)
        state[order], since[order] = data["status"], at
    assert {"paid", "delivered", "cancelled", "returned"} <= set(state.values())
    assert 11.9 < min(hours) <= max(hours) < 36.1, "half a day to a day and a half"


def test_stock_and_points_follow_from_what_happened(
    events: list[tuple[int, str, dict[str, Any]]],
) -> None:
    stock: dict[tuple[str, str], int] = {}
    points: dict[str, int] = defaultdict(int)
    for _, name, data in events:
        if name == "inventory":
            key = data["store_id"], data["product_id"]
            before = stock.get(key, 0)
            assert data["quantity"] >= 0
            if data["reason"] == "sale":
                assert data["quantity"] < before
            else:
                assert data["quantity"] > before
            stock[key] = data["quantity"]
        if name == "loyalty":
            points[data["customer_id"]] += data["points"]
            assert data["balance"] == points[data["customer_id"]] >= 0


@pytest.mark.parametrize("start", [START, -60 * DAY, -DAY // 3])
def test_every_line_of_an_order_takes_something_from_stock(start: int) -> None:
    """Also where the shop opens before 1970, when times are negative."""
    sold = taken = 0
    times = []
    for at, entity, text in made(World(3, start), 20_000):
        times.append(at)
        sold += entity == "order_item"
        taken += entity == "inventory" and '"reason":"sale"' in text
    assert times == sorted(times)
    assert times[0] == start
    assert sold == taken > 500


def test_customers_come_again(events: list[tuple[int, str, dict[str, Any]]]) -> None:
    orders: dict[str, set[str]] = defaultdict(set)
    for order in of(events, "order"):
        orders[order["customer_id"]].add(order["order_id"])
    repeat = sum(len(found) > 1 for found in orders.values()) / len(orders)
    assert 0.2 < repeat < 0.9


def test_a_live_shop_keeps_its_rate() -> None:
    times = [at for at, *_ in made(World(1, START, rate=200.0, tempo=1000.0), 80_000)]
    # The reference data comes at once, and orders take some minutes to be delivered.
    later = times[40_000:]
    rate = len(later) / ((later[-1] - later[0]) / 1000)
    assert 150 < rate < 260
