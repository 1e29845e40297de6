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


Events = list[tuple[int, str, dict[str, Any]]]


def of_each(events: Events, entity: str, key: str) -> dict[str, Events]:
    """The events of one entity by one of their keys, in order."""
    found: dict[str, Events] = defaultdict(list)
    for event in events:
        if event[1] == entity:
            found[event[2][key]].append(event)
    return found


def test_addresses_and_categories_belong_together(events: Events) -> None:
    """A customer has an address of their own, and an order goes to one of its customer's."""
    owner = {data["address_id"]: data["customer_id"] for data in of(events, "address")}
    orders = 0
    for _, name, data in events:
        if name == "customer":
            assert owner[data["address_id"]] == data["customer_id"]
        elif name == "order" and data["status"] == "placed":
            orders += 1
            assert owner[data["address_id"]] == data["customer_id"]
    assert orders > 500
    categories = of(events, "category")
    roots = {data["category_id"] for data in categories if data["parent_id"] is None}
    branches = [data for data in categories if data["parent_id"] is not None]
    assert len(roots) == 6
    assert len(branches) == 18
    assert {data["parent_id"] for data in branches} == roots


def test_what_a_customer_does_is_of_the_country_of_their_address(events: Events) -> None:
    """As it is when a visit begins; of an order, and what is paid for it, where that goes."""
    country = {data["address_id"]: data["country_code"] for data in of(events, "address")}
    lives: dict[str, set[str]] = defaultdict(set)
    for data in of(events, "customer"):
        lives[data["customer_id"]].add(country[data["address_id"]])
    for entity in ("page_view", "cart"):
        for data in of(events, entity):
            assert ("country_code" in data) == ("customer_id" in data)
            if "customer_id" in data:
                assert data["country_code"] in lives[data["customer_id"]]
    goes = {data["order_id"]: country[data["address_id"]] for data in of(events, "order")}
    assert len(set(goes.values())) == 6
    for data in [*of(events, "order"), *of(events, "payment")]:
        assert data["country_code"] == goes[data["order_id"]]


def test_payments_and_parcels_follow_their_order(events: Events) -> None:
    """Money: a first failure perhaps, then captured, then perhaps given back. A parcel: dispatched,
    delivered, perhaps returned. Each beside the state of the order that it brings about."""
    payments = of_each(events, "payment", "order_id")
    parcels = of_each(events, "shipment", "order_id")
    orders = of_each(events, "order", "order_id")
    lives: dict[tuple[str, ...], int] = defaultdict(int)
    for order, states in orders.items():
        reached = {data["status"]: at for at, _, data in states}
        paid = [(data["status"], at) for at, _, data in payments[order]]
        way = tuple(status for status, _ in paid)
        lives[way] += 1
        assert way in {
            (), ("failed",), ("captured",), ("failed", "captured"),
            ("captured", "refunded"), ("failed", "captured", "refunded"),
        }  # fmt: skip
        captured = [at for status, at in paid if status == "captured"]
        assert ("paid" in reached) <= bool(captured)
        if "paid" in reached:
            assert reached["placed"] < captured[0] <= reached["paid"]
        if "refunded" in way:
            # What was paid comes back where the order is cancelled or returned, and then alone.
            assert {"cancelled", "returned"} & reached.keys()
        if reached.keys() >= {"paid", "cancelled"} or "returned" in reached:
            ended = max(reached.get("cancelled", 0), reached.get("returned", 0))
            assert "refunded" in way or ended >= events[-1][0] - 10
        seen = [data["status"] for _, _, data in parcels[order]]
        assert seen == ["dispatched", "delivered", "returned"][: len(seen)]
        assert len({data["shipment_id"] for _, _, data in parcels[order]}) <= 1
        for status, state in (("dispatched", "shipped"), ("delivered", "delivered")):
            told = [at for at, _, data in parcels[order] if data["status"] == status]
            if state in reached:
                assert told
                assert told[0] <= reached[state]
    assert len(lives) == 6, "all of these lives are led"


def test_reviews_are_of_what_was_bought_and_has_come(events: Events) -> None:
    bought: dict[str, set[str]] = defaultdict(set)
    delivered: dict[str, int] = {}
    who: dict[str, str] = {}
    reviews = 0
    for at, name, data in events:
        if name == "order_item":
            bought[data["order_id"]].add(data["product_id"])
        elif name == "order":
            who[data["order_id"]] = data["customer_id"]
            if data["status"] == "delivered":
                delivered[data["order_id"]] = at
        elif name == "review":
            reviews += 1
            assert delivered[data["order_id"]] < at
            assert data["product_id"] in bought[data["order_id"]]
            assert data["customer_id"] == who[data["order_id"]]
            assert 1 <= data["rating"] <= 5
    assert reviews > 100


def test_pages_and_carts_are_of_one_visit(events: Events) -> None:
    """Pages 1 to n in order of time; steps of a cart 1 to m, the last one its end, and nothing
    twice in it; a cart is of a visit with pages, by the same customer."""
    pages = of_each(events, "page_view", "session_id")
    carts = of_each(events, "cart", "cart_id")
    last = events[-1][0]
    for views in pages.values():
        numbers = [data["page_number"] for _, _, data in views]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len({data.get("customer_id") for _, _, data in views}) == 1
    assert len(carts) > 500
    for cart, steps in carts.items():
        numbers = [data["step"] for _, _, data in steps]
        assert numbers == list(range(1, len(numbers) + 1))
        actions = [data["action"] for _, _, data in steps]
        assert set(actions[:-1]) <= {"add"}
        assert actions[-1] in {"checkout", "abandon"} or steps[-1][0] > last - 300_000
        added = [data["product_id"] for _, _, data in steps if data["action"] == "add"]
        assert len(added) == len(set(added))
        views = pages[cart]
        assert views[0][0] < steps[0][0]
        assert {data.get("customer_id") for _, _, data in steps} == {views[0][2].get("customer_id")}
        if actions[-1] == "checkout":
            assert "customer_id" in steps[-1][2], "nobody orders without a name"


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
