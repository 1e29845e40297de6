"""The shop: customers who come, look, buy, and what follows from it, as events in order of time.

Everything is drawn from one generator seeded with (seed, start), so that the events depend on these
two alone: how many are taken, how fast and where to makes no difference. An order goes through

    placed → paid → shipped → delivered → (returned)        placed → cancelled

with its payment, parcel, stock movements, loyalty points and review at the times they would have.
Who orders pays the prices that held when the visit began, five minutes ago at most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from random import Random

from producer import pools
from producer.generators import Event, World
from producer.text import DAY, MINUTE, day_of, money, numbered, time_of

# The shop grows: events a day when it opens, and the days in which that grows e-fold.
EVENTS_A_DAY, GROWTH_DAYS = 2_000.0, 90.0
# Measured over 300,000 events of seed 1.
EVENTS_A_SESSION = 10.5
EVENTS_A_BUCKET = 256
PRODUCTS, STORES = 300, 12
PRODUCT_IDS = [numbered("P", product, 5) for product in range(PRODUCTS)]
STORE_IDS = [numbered("S", store, 3) for store in range(STORES + 1)]
ROOTS = ("Home", "Garden", "Sports", "Toys", "Books", "Electronics")
BRANCHES = ("Classics", "New", "Outlet")
DEVICES = ("phone", "phone", "desktop", "tablet")
METHODS = ("card", "card", "paypal", "invoice", "voucher")
CARRIERS = ("dhl", "ups", "postnl", "dpd")
CHANNELS = ("web", "web", "app", "store")
TIERS = ("none", "none", "bronze", "silver", "gold")
FREE_SHIPPING_CENTS, SHIPPING_CENTS = 5_000, 490
FULL_STOCK, REORDER_LEVEL = 400, 40
ONE_POINT_CENTS = 100


def events(world: World) -> Iterator[Event]:
    """All events of a shop, in order of time, without end."""
    return Shop(world).events()


@dataclass
class _Order:
    """What an order's later events have to know. lines: (product, quantity, cents of one)."""

    id: str
    customer: int
    lines: list[tuple[int, int, int]]
    total: int
    method: str
    body: str

    @property
    def points(self) -> int:
        return self.total // ONE_POINT_CENTS


@dataclass
class _Customer:
    """record: what is told of the customer, but for the address. address: its id."""

    id: str
    record: str
    address: str


class Shop:
    """One shop. `events` may be called once."""

    def __init__(self, world: World) -> None:
        self._random = Random(f"{world.seed}|{world.start}")
        self._pools = pools.make(world.seed)
        self._start = world.start
        self._grows = world.rate is None
        self._daily = EVENTS_A_DAY if world.rate is None else world.rate * 86_400
        self._tempo = world.tempo
        self._width = max(10, int(EVENTS_A_BUCKET / self._daily * DAY))
        self._buckets: dict[int, list[Event]] = defaultdict(list)
        self._number = 0
        self._orders = self._payments = self._shipments = self._sessions = 0
        self._reviews = self._entries = self._addresses = 0
        # By the customer's number.
        self._customers: list[_Customer] = []
        self._points: list[int] = []
        self._prices: list[int] = []
        self._stock: dict[tuple[int, int], int] = {}
        # What is said of stock and points depends on what happened before, so that it is worked
        # out when its turn comes, by the event's number: (store, product, change, reason) and
        # (customer, change, order).
        self._stock_changes: dict[int, tuple[int, int, int, str]] = {}
        self._points_changes: dict[int, tuple[int, int, str]] = {}

    def events(self) -> Iterator[Event]:
        """All events in order of time, without end."""
        return chain.from_iterable(self._spans())

    def _spans(self) -> Iterator[list[Event]]:
        """The events of one span of time after the other."""
        self._open()
        bucket = self._start // self._width
        next_session = float(self._start)
        draw = self._random.expovariate
        while True:
            end = (bucket + 1) * self._width
            while next_session < end:
                self._session(int(next_session))
                next_session += draw(1.0) * self._gap(next_session)
            events = self._buckets.pop(bucket, None)
            if events:
                # Those of the same time stay in the order of their numbers.
                events.sort(key=itemgetter(0))
                yield self._settled(events)
            bucket += 1

    def _gap(self, now: float) -> float:
        """Mean ms from one visit to the next."""
        growth = 2.718281828459045 ** ((now - self._start) / DAY / GROWTH_DAYS)
        daily = self._daily * growth if self._grows else self._daily
        return DAY * EVENTS_A_SESSION / daily

    def _put(self, at: int, entity: str, key: str, subject: str, data: str) -> int:
        self._number += 1
        self._buckets[at // self._width].append((at, self._number, entity, key, subject, data))
        return self._number

    def _settled(self, events: list[Event]) -> list[Event]:
        settled: list[Event] = []
        for event in events:
            if event[5]:
                settled.append(event)
            else:
                settled += self._settle(event)
        return settled

    def _settle(self, event: Event) -> Iterator[Event]:
        """An event whose content follows from all before it: stock or points."""
        at, number, entity, key, subject, _ = event
        if entity == "loyalty":
            customer, change, order = self._points_changes.pop(number)
            change = max(change, -self._points[customer])
            self._points[customer] += change
            data = (
                f'{{"entry_id":"{subject}","customer_id":"{key}","order_id":"{order}",'
                f'"points":{change},"balance":{self._points[customer]}}}'
            )
            yield at, number, entity, key, subject, data
            return
        store, product, change, why = self._stock_changes.pop(number)
        left = self._stock[store, product] + change
        if left < 0:
            self._stock[store, product] += FULL_STOCK
            self._number += 1
            data = self._level(store, product, "restock")
            yield at, self._number, entity, key, subject, data
            left += FULL_STOCK
        self._stock[store, product] = left
        yield at, number, entity, key, subject, self._level(store, product, why)

    def _level(self, store: int, product: int, why: str) -> str:
        return (
            f'{{"store_id":"{STORE_IDS[store]}","product_id":"{PRODUCT_IDS[product]}",'
            f'"quantity":{self._stock[store, product]},"reorder_level":{REORDER_LEVEL},'
            f'"reason":"{why}"}}'
        )

    def _stock_change(self, at: int, store: int, product: int, change: int, why: str) -> None:
        key = PRODUCT_IDS[product]
        number = self._put(at, "inventory", key, f"{STORE_IDS[store]}/{key}", "")
        self._stock_changes[number] = (store, product, change, why)

    def _points_change(self, at: int, order: _Order, points: int) -> None:
        self._entries += 1
        entry = numbered("L", self._entries, 10)
        number = self._put(at, "loyalty", self._customers[order.customer].id, entry, "")
        self._points_changes[number] = (order.customer, points, order.id)

    def _open(self) -> None:
        """The reference data: categories, stores, products with their stock."""
        at, random, made = self._start, self._random, self._pools
        for root, name in enumerate(ROOTS):
            for branch, suffix in enumerate(("", *BRANCHES)):
                category = numbered("K", root * 10 + branch, 3)
                parent = f'"{numbered("K", root * 10, 3)}"' if suffix else "null"
                title = f"{name} {suffix}".strip()
                data = f'{{"category_id":"{category}","name":"{title}","parent_id":{parent}}}'
                self._put(at, "category", category, category, data)
        for store in range(1, STORES + 1):
            city = made.cities[store % len(made.cities)]
            opened = f"{1990 + int(random.random() * 30)}-0{1 + int(random.random() * 9)}-15"
            data = (
                f'{{"store_id":"{STORE_IDS[store]}","name":"Store {store}","city":{city},'
                f'"country_code":"{pools.COUNTRIES[store % 6]}","opened_on":"{opened}"}}'
            )
            self._put(at, "store", STORE_IDS[store], STORE_IDS[store], data)
        for product in range(PRODUCTS):
            self._prices.append(int(199 * 1.02 ** (random.random() * 250)))
            self._product(at, product)
            for store in self._stores_of(product):
                self._stock[store, product] = 0
                self._stock_change(at, store, product, FULL_STOCK, "count")

    @staticmethod
    def _stores_of(product: int) -> tuple[int, int]:
        return 1 + product % STORES, 1 + (product * 5 + 3) % STORES

    def _product(self, at: int, product: int) -> None:
        made = self._pools
        category, ident = numbered("K", product % 6 * 10 + 1 + product % 3, 3), PRODUCT_IDS[product]
        thing = made.things[product % len(made.things)]
        data = (
            f'{{"product_id":"{ident}","category_id":"{category}",'
            f'"name":"{thing} {product}","brand":{made.brands[product % len(made.brands)]},'
            f'"price":{money(self._prices[product])},"currency":"EUR",'
            f'"weight_grams":{50 + product * 37 % 9000},"active":true}}'
        )
        self._put(at, "product", ident, ident, data)

    def _register(self, at: int) -> int:
        """A new customer with an address; both are told before anything refers to them."""
        random, made = self._random.random, self._pools
        customer = len(self._customers)
        ident = numbered("C", customer, 8)
        first = made.first_names[int(random() * len(made.first_names))]
        last = made.last_names[int(random() * len(made.last_names))]
        mail = made.mail_names[int(random() * len(made.mail_names))]
        host = made.mail_hosts[int(random() * len(made.mail_hosts))]
        record = (
            f'"customer_id":"{ident}","first_name":{first},"last_name":{last},'
            f'"email":"{mail}.{customer}@{host}","phone":"+4915{int(random() * 1e9):09d}",'
            f'"birth_date":"{1940 + int(random() * 65)}-0{1 + int(random() * 9)}-'
            f'{10 + int(random() * 18)}"'
        )
        self._customers.append(_Customer(ident, record, ""))
        self._points.append(0)
        self._move(at, customer)
        self._tell_customer(at, customer)
        return customer

    def _move(self, at: int, customer: int) -> None:
        random, made = self._random.random, self._pools
        who = self._customers[customer]
        self._addresses += 1
        who.address = numbered("A", self._addresses, 8)
        country = pools.COUNTRIES[int(random() * 6)]
        data = (
            f'{{"address_id":"{who.address}","customer_id":"{who.id}",'
            f'"street":{made.streets[int(random() * len(made.streets))]},'
            f'"city":{made.cities[int(random() * len(made.cities))]},'
            f'"postal_code":"{10000 + int(random() * 89999)}",'
            f'"region":{made.regions[int(random() * len(made.regions))]},'
            f'"country_code":"{country}"}}'
        )
        self._put(at, "address", who.id, who.address, data)

    def _tell_customer(self, at: int, customer: int) -> None:
        random = self._random.random
        who = self._customers[customer]
        wants_mail = "true" if random() < 0.4 else "false"
        data = (
            f'{{{who.record},"loyalty_tier":"{TIERS[int(random() * 5)]}",'
            f'"address_id":"{who.address}","marketing_opt_in":{wants_mail}}}'
        )
        self._put(at, "customer", who.id, who.id, data)

    def _session(self, at: int) -> None:
        """One visit: pages, a cart, and one time in three an order."""
        random, put = self._random.random, self._put
        self._sessions += 1
        session = numbered("V", self._sessions, 10)
        draw = random()
        if draw < 0.18 or not self._customers:
            customer = self._register(at)
        elif draw < 0.30:
            customer = -1
        else:
            # Some customers come often, most seldom.
            customer = int(len(self._customers) * random() * random())
            if draw < 0.33:
                self._move(at, customer)
                self._tell_customer(at, customer)
        if draw > 0.995:
            product = int(random() * PRODUCTS)
            self._prices[product] = max(99, int(self._prices[product] * (0.8 + 0.4 * random())))
            self._product(at, product)
        who = f'"customer_id":"{self._customers[customer].id}",' if customer >= 0 else ""
        device = DEVICES[int(random() * 4)]
        basket: dict[int, int] = {}
        step = 0
        for page in range(1, 2 + int(random() * 5)):
            at += 2_000 + int(random() * 40_000)
            product = int(PRODUCTS * random() * random())
            ident = PRODUCT_IDS[product]
            put(
                at,
                "page_view",
                session,
                f"{session}/{page}",
                f'{{"session_id":"{session}","page_number":{page},{who}'
                f'"url":"/product/{ident}","product_id":"{ident}",'
                f'"device":"{device}","duration_ms":{20 + int(random() * 800)}}}',
            )
            if random() < 0.35 and product not in basket:
                step += 1
                quantity = 1 + int(random() * random() * 4)
                basket[product] = quantity
                put(
                    at + 1_500,
                    "cart",
                    session,
                    f"{session}/{step}",
                    f'{{"cart_id":"{session}","step":{step},{who}"action":"add",'
                    f'"product_id":"{ident}","quantity":{quantity}}}',
                )
        if not basket:
            return
        at += 3_000 + int(random() * 60_000)
        buys = customer >= 0 and random() < 0.8
        action = "checkout" if buys else "abandon"
        put(
            at,
            "cart",
            session,
            f"{session}/{step + 1}",
            f'{{"cart_id":"{session}","step":{step + 1},{who}"action":"{action}"}}',
        )
        if buys:
            self._order(at + 1, customer, list(basket.items()))

    def _after(self, days: float) -> int:
        """Milliseconds until something that takes about so many days."""
        return 1 + int(days * (0.5 + self._random.random()) * DAY / self._tempo)

    def _order(self, at: int, customer: int, basket: list[tuple[int, int]]) -> None:
        """An order and everything that follows from it, each at its own time."""
        random = self._random.random
        self._orders += 1
        order, who = numbered("O", self._orders, 10), self._customers[customer]
        store = self._stores_of(basket[0][0])[0]
        lines = [(p, n, self._prices[p]) for p, n in basket]
        subtotal = sum(n * price for _, n, price in lines)
        fee = 0 if subtotal >= FREE_SHIPPING_CENTS else SHIPPING_CENTS
        total = subtotal + fee
        body = (
            f'{{"order_id":"{order}","customer_id":"{who.id}","store_id":"{STORE_IDS[store]}",'
            f'"address_id":"{who.address}","channel":"{CHANNELS[int(random() * 4)]}",'
            f'"item_count":{len(lines)},"subtotal":{money(subtotal)},"shipping_fee":{money(fee)},'
            f'"total":{money(total)},"currency":"EUR","placed_at":"{time_of(at)}",'
        )
        made = _Order(order, customer, lines, total, METHODS[int(random() * 5)], body)
        self._state(at, made, "placed")
        for number, (product, quantity, price) in enumerate(lines, 1):
            self._put(
                at,
                "order_item",
                order,
                f"{order}/{number}",
                f'{{"order_id":"{order}","line_number":{number},"product_id":"{PRODUCT_IDS[product]}",'
                f'"quantity":{quantity},"unit_price":{money(price)},'
                f'"line_total":{money(quantity * price)},"currency":"EUR"}}',
            )
        self._take(at, lines, -1, "sale")
        at += 1_000 + int(random() * 5 * MINUTE)
        if random() < 0.08:
            self._payment(at, made, "failed")
            at += 1_000 + int(random() * 5 * MINUTE)
            if random() < 0.3:
                self._state(at, made, "cancelled")
                self._take(at, lines, 1, "return")
                return
            made.method = "card"
        self._payment(at, made, "captured")
        self._state(at + 1, made, "paid")
        self._points_change(at + 1, made, made.points)
        if random() < 0.04:
            at += self._after(0.3)
            self._state(at, made, "cancelled")
            self._undo(at, made)
            return
        self._deliver(at + self._after(1.0), made)

    def _state(self, at: int, order: _Order, status: str) -> None:
        self._put(at, "order", order.id, order.id, f'{order.body}"status":"{status}"}}')

    def _payment(self, at: int, order: _Order, status: str) -> None:
        self._payments += 1
        number = numbered("Y", self._payments, 10)
        self._put(
            at,
            "payment",
            order.id,
            number,
            f'{{"payment_id":"{number}","order_id":"{order.id}","method":"{order.method}",'
            f'"status":"{status}","amount":{money(order.total)},"currency":"EUR"}}',
        )

    def _deliver(self, at: int, order: _Order) -> None:
        """The parcel's way, a review now and then, and the few parcels that come back."""
        random = self._random.random
        self._shipments += 1
        shipment = numbered("H", self._shipments, 10)
        body = (
            f'{{"shipment_id":"{shipment}","order_id":"{order.id}",'
            f'"carrier":"{CARRIERS[int(random() * 4)]}",'
            f'"tracking_number":"{numbered("HW", int(random() * 1e10), 10)}",'
            f'"expected_on":"{day_of(at + 3 * DAY)}",'
        )

        def parcel(when: int, status: str) -> None:
            self._put(when, "shipment", order.id, shipment, f'{body}"status":"{status}"}}')

        parcel(at, "dispatched")
        self._state(at + 1, order, "shipped")
        at += self._after(2.0)
        parcel(at, "delivered")
        self._state(at + 1, order, "delivered")
        if random() < 0.3:
            self._review(at + self._after(3.0), order)
        if random() < 0.06:
            at += self._after(5.0)
            parcel(at, "returned")
            self._state(at + 1, order, "returned")
            self._undo(at + 2, order)

    def _review(self, at: int, order: _Order) -> None:
        random, made = self._random.random, self._pools
        self._reviews += 1
        review, product = numbered("R", self._reviews, 10), PRODUCT_IDS[order.lines[0][0]]
        self._put(
            at,
            "review",
            order.id,
            review,
            f'{{"review_id":"{review}","order_id":"{order.id}",'
            f'"product_id":"{product}","customer_id":"{self._customers[order.customer].id}",'
            f'"rating":{5 - int(random() * random() * 5)},'
            f'"title":{made.headlines[int(random() * len(made.headlines))]},'
            f'"body":{made.opinions[int(random() * len(made.opinions))]}}}',
        )

    def _undo(self, at: int, order: _Order) -> None:
        """Money, goods and points go back."""
        self._payment(at, order, "refunded")
        self._take(at, order.lines, 1, "return")
        self._points_change(at, order, -order.points)

    def _take(self, at: int, lines: list[tuple[int, int, int]], sign: int, why: str) -> None:
        """Stock goes out (-1) or comes back (1), at the first store that keeps the product."""
        for product, quantity, _ in lines:
            self._stock_change(at, self._stores_of(product)[0], product, sign * quantity, why)
