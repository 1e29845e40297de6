"""The shop: customers who come, look, buy, and what follows from it, as events in order of time.

Everything is drawn from one generator seeded with (seed, start), so that the events depend on these
two alone: how many are taken, how fast and where to makes no difference. An order goes through

    placed → paid → shipped → delivered → (returned)        placed → cancelled

with its payment, parcel, stock movements, loyalty points and review at the times they would have.
Who orders pays the prices that held when the visit began, five minutes ago at most.

Made are the events of some thousands of visits at once, by the column: see producer.columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from producer import pools
from producer.columns import (
    DAY,
    MINUTE,
    Draws,
    Floats,
    Ints,
    Texts,
    Waiting,
    days,
    filled,
    in_order,
    instants,
    money,
    numbered,
    running,
    within,
)
from producer.generators import EVENTS, World

# The shop grows: events a day when it opens, and the days in which that grows e-fold.
EVENTS_A_DAY, GROWTH_DAYS = 2_000.0, 90.0
# Measured over 300,000 events of seed 1.
EVENTS_A_VISIT = 10.5
# So many are made at once: what that costs is shared by them all. Fewer first, twice as many each
# time, so that the first ones are soon there.
VISITS, FIRST_VISITS = 8_000, 250
# So many come one after the other at the same mean distance.
VISITS_A_GAP = 50
# What is to happen later is kept by spans of so many days.
SPAN_DAYS = 0.25
PRODUCTS, STORES = 300, 12
ROOTS = ("Home", "Garden", "Sports", "Toys", "Books", "Electronics")
BRANCHES = ("Classics", "New", "Outlet")
FREE_SHIPPING_CENTS, SHIPPING_CENTS = 5_000, 490
FULL_STOCK, REORDER_LEVEL = 400, 40
ONE_POINT_CENTS = 100

DEVICES = pa.array(["phone", "phone", "desktop", "tablet"])
METHODS = pa.array(["card", "card", "paypal", "invoice", "voucher"])
CARD = 0
CARRIERS = pa.array(["dhl", "ups", "postnl", "dpd"])
CHANNELS = pa.array(["web", "web", "app", "store"])
TIERS = pa.array(["none", "none", "bronze", "silver", "gold"])
COUNTRIES = pa.array(pools.COUNTRIES)
TRUTH = pa.array(["false", "true"])
REASONS = pa.array(["count", "sale", "return", "restock"])
COUNT, SALE, RETURN, RESTOCK = range(4)
PRODUCT_IDS = numbered("P", np.arange(PRODUCTS), 5)
STORE_IDS = numbered("S", np.arange(STORES + 1), 3)

# What changes the stock of a product in a store, or the points of a customer (owner), by how much,
# and why (a reason's number, or an order's). What is left after it follows from all that happened
# before, so that these are told when their turn comes.
CHANGES = pa.schema(
    [
        ("at", pa.int64()),
        ("key", pa.string()),
        ("subject", pa.string()),
        *((name, pa.int64()) for name in ("owner", "change", "why")),
    ]
)


def spans(world: World) -> Iterator[pa.Table]:
    """All events of a shop (see EVENTS), one span of time after the other, without end."""
    return Shop(world).spans()


@dataclass
class _Lines:
    """What is ordered, a row a line. order: its place among the orders made at once."""

    order: Ints
    product: Ints
    quantity: Ints
    price: Ints


class Shop:
    """One shop. `spans` may be called once."""

    def __init__(self, world: World) -> None:
        self._random = Draws(f"{world.seed}|{world.start}").random
        self._seed = world.seed
        self._pools = {
            name: pa.array(texts, pa.string())
            for name, texts in vars(pools.make(world.seed)).items()
        }
        self._start = world.start
        self._grows = world.rate is None
        self._daily = EVENTS_A_DAY if world.rate is None else world.rate * 86_400
        self._tempo = world.tempo
        # What is to be told, and what changes stock and points, when its time comes.
        span = max(1, int(SPAN_DAYS * DAY / world.tempo))
        self._told, self._stocked, self._earned = Waiting(span), Waiting(span), Waiting(span)
        # How many of each there are; the next one has that number plus one.
        self._visits = self._orders = self._payments = self._shipments = 0
        self._reviews = self._entries = self._addresses = 0
        # Of each address its country's place in COUNTRIES, by the address's number less 1.
        self._countries = np.zeros(0, np.int64)
        # By the customer's number: that of the address, and the points.
        self._address: list[int] = []
        self._points: list[int] = []
        # Cents by product; pieces by product and store.
        self._prices = np.zeros(PRODUCTS, np.int64)
        self._stock = [0] * (PRODUCTS * (STORES + 1))

    def spans(self) -> Iterator[pa.Table]:
        """All events in order of time, without end."""
        self._open()
        opens, visits = float(self._start), FIRST_VISITS
        while True:
            begins, opens = self._arrivals(opens, visits)
            visits = min(VISITS, 2 * visits)
            self._visit(begins)
            # Whatever is made from now on happens at the next visit or later.
            end = int(opens)
            levels = self._levels(self._stocked.before(end))
            balances = self._balances(self._earned.before(end))
            yield in_order([self._told.before(end), levels, balances])

    # The time

    def _arrivals(self, first: float, visits: int) -> tuple[Ints, float]:
        """When the next visits begin, ms since 1970; and when the one after them does."""
        begins: list[float] = []
        waits = [_rounded(-math.log(1.0 - draw)) for draw in self._random(visits).tolist()]
        for some in range(0, visits, VISITS_A_GAP):
            gap = self._gap(first)
            for wait in waits[some : some + VISITS_A_GAP]:
                begins.append(first)
                first += wait * gap
        return np.array(begins).astype(np.int64), first

    def _gap(self, now: float) -> float:
        """Mean ms from one visit to the next."""
        growth = math.exp((now - self._start) / DAY / GROWTH_DAYS) if self._grows else 1.0
        return DAY * EVENTS_A_VISIT / (self._daily * _rounded(growth))

    def _after(self, average: float, number: int) -> Ints:
        """Milliseconds until things that take about so many days."""
        taken = average * (0.5 + self._random(number)) * DAY / self._tempo
        return 1 + taken.astype(np.int64)

    def _between(self, low: int, wide: int, number: int) -> Ints:
        return low + (self._random(number) * wide).astype(np.int64)

    def _put(self, at: Ints, entity: str, key: Texts, subject: Texts, data: Texts) -> None:
        """Events of one entity; those of the same time stay in the order in which they are put."""
        columns = [pa.array(at), pa.repeat(entity, len(at)), key, subject, data]
        self._told.put(pa.table(columns, schema=EVENTS))

    # What there is when it opens

    def _open(self) -> None:
        """The reference data: categories, stores, products with their stock."""
        random, made = self._random, self._pools
        root, branch = (part.ravel() for part in np.indices((len(ROOTS), 1 + len(BRANCHES))))
        category = numbered("K", root * 10 + branch, 3)
        parent = filled('"<id>"', id=numbered("K", root * 10, 3))
        titles = [
            " ".join(filter(None, (name, more))) for name in ROOTS for more in ("", *BRANCHES)
        ]
        data = filled(
            '{"category_id":"<id>","name":"<name>","parent_id":<parent>}',
            id=category,
            name=pa.array(titles),
            parent=pc.if_else(pa.array(branch > 0), parent, "null"),
        )
        self._put(np.full(len(root), self._start), "category", category, category, data)

        store = np.arange(1, STORES + 1)
        ids = STORE_IDS.slice(1)
        data = filled(
            '{"store_id":"<id>","name":"Store <number>","city":<city>,"country_code":"<country>",'
            '"opened_on":"<year>-0<month>-15"}',
            id=ids,
            number=store,
            city=made["cities"].take(pa.array(store % len(made["cities"]))),
            country=COUNTRIES.take(pa.array(store % len(COUNTRIES))),
            year=self._between(1990, 30, STORES),
            month=self._between(1, 9, STORES),
        )
        self._put(np.full(STORES, self._start), "store", ids, ids, data)

        product = np.arange(PRODUCTS)
        draws = random(PRODUCTS).tolist()
        self._prices[:] = [int(199 * _rounded(math.pow(1.02, draw * 250))) for draw in draws]
        opens = np.full(PRODUCTS, self._start)
        self._tell_product(opens, product, self._prices)
        for store in _stores_of(product):
            full = np.full(PRODUCTS, FULL_STOCK)
            self._move_stock(opens, store, product, full, COUNT)

    def _tell_product(self, at: Ints, product: Ints, price: Ints) -> None:
        made, ids = self._pools, PRODUCT_IDS.take(pa.array(product))
        data = filled(
            '{"product_id":"<id>","category_id":"<category>","name":"<thing> <number>",'
            '"brand":<brand>,"price":<price>,"currency":"EUR","weight_grams":<grams>,'
            '"active":true}',
            id=ids,
            category=numbered("K", product % 6 * 10 + 1 + product % 3, 3),
            thing=made["things"].take(pa.array(product % len(made["things"]))),
            number=product,
            brand=made["brands"].take(pa.array(product % len(made["brands"]))),
            price=money(price),
            grams=50 + product * 37 % 9000,
        )
        self._put(at, "product", ids, ids, data)

    # A visit

    def _visit(self, at: Ints) -> None:
        """Visits: pages, a cart, and one time in three an order."""
        random, visits = self._random, len(at)
        draw = random(visits)
        known = len(self._address)
        new = draw < 0.18
        new[0] |= not known
        nobody = ~new & (draw < 0.30)
        # How many there are when a visit has begun. Some come often, most seldom.
        so_far = known + np.cumsum(new)
        often = (so_far * random(visits) * random(visits)).astype(np.int64)
        customer = np.where(new, so_far - 1, np.where(nobody, -1, often))
        moves = new | ~nobody & (draw < 0.33)
        self._points += [0] * int(new.sum())
        self._address += [0] * int(new.sum())

        address = self._move(at[moves], customer[moves])
        self._tell_customer(at[moves], customer[moves], address)
        before = self._prices.copy()
        reprices = np.flatnonzero(draw > 0.995)
        product = (random(len(reprices)) * PRODUCTS).astype(np.int64)
        price = self._reprice(product, 0.8 + 0.4 * random(len(reprices)))
        self._tell_product(at[reprices], product, price)

        visit = self._visits + 1 + np.arange(visits)
        self._visits += visits
        session = numbered("V", visit, 10)
        named = np.flatnonzero(customer >= 0)
        lives_at = np.zeros(visits, np.int64)
        lives_at[named] = self._addresses_at(moves, customer, address, named)
        who = filled(
            '"customer_id":"<id>","country_code":"<country>",',
            id=numbered("C", np.maximum(customer, 0), 8),
            country=self._country_of(np.maximum(lives_at, 1)),
        )
        who = pc.if_else(pa.array(customer >= 0), who, "")
        last, added = self._look(at, session, who)

        # One line a product that was put into the cart, in the order of the visits.
        place, product_added, quantity = added
        lines = np.bincount(place, minlength=visits)
        some = np.flatnonzero(lines)
        ends = last[some] + self._between(3_000, 60_000, len(some))
        buys = (customer[some] >= 0) & (random(len(some)) < 0.8)
        step = lines[some] + 1
        chosen = session.take(pa.array(some))
        data = filled(
            '{"cart_id":"<id>","step":<step>,<who>"action":"<action>"}',
            id=chosen,
            step=step,
            who=who.take(pa.array(some)),
            action=pc.if_else(pa.array(buys), "checkout", "abandon"),
        )
        self._put(ends, "cart", chosen, filled("<id>/<step>", id=chosen, step=step), data)

        buyers = some[buys]
        ordered = np.isin(place, buyers)
        price = _prices_at(
            before, (reprices, product, price), place[ordered], product_added[ordered]
        )
        order = np.searchsorted(buyers, place[ordered])
        cart = _Lines(order, product_added[ordered], quantity[ordered], price)
        self._order(ends[buys] + 1, customer[buyers], lives_at[buyers], cart)

    def _move(self, at: Ints, customer: Ints) -> Ints:
        """New addresses, told before anything refers to them; their numbers."""
        made, rows = self._pools, len(at)
        address = self._addresses + 1 + np.arange(rows)
        self._addresses += rows
        ids, who = numbered("A", address, 8), numbered("C", customer, 8)
        told = {
            "street": self._any(made["streets"], rows),
            "city": self._any(made["cities"], rows),
            "code": self._between(10_000, 89_999, rows),
            "region": self._any(made["regions"], rows),
        }
        country = (self._random(rows) * len(COUNTRIES)).astype(np.int64)
        self._countries = np.concatenate([self._countries, country])
        data = filled(
            '{"address_id":"<id>","customer_id":"<who>","street":<street>,"city":<city>,'
            '"postal_code":"<code>","region":<region>,"country_code":"<country>"}',
            id=ids,
            who=who,
            country=COUNTRIES.take(pa.array(country)),
            **told,
        )
        self._put(at, "address", who, ids, data)
        return address

    def _country_of(self, address: Ints) -> Texts:
        return COUNTRIES.take(pa.array(self._countries[address - 1]))

    def _tell_customer(self, at: Ints, customer: Ints, address: Ints) -> None:
        """Customers, with the addresses that they have now."""
        made, ids = self._pools, numbered("C", customer, 8)

        def own(pool: str, number: int) -> Texts:
            return _one_of(made[pool], self._own(customer, number))

        year, month, day, phone = (self._own(customer, number) for number in range(4, 8))
        data = filled(
            '{"customer_id":"<id>","first_name":<first>,"last_name":<last>,'
            '"email":"<mail>.<number>@<host>","phone":"<phone>",'
            '"birth_date":"<year>-0<month>-<day>","loyalty_tier":"<tier>",'
            '"address_id":"<address>","marketing_opt_in":<wants_mail>}',
            id=ids,
            first=own("first_names", 0),
            last=own("last_names", 1),
            mail=own("mail_names", 2),
            number=customer,
            host=own("mail_hosts", 3),
            phone=numbered("+4915", (phone * 1e9).astype(np.int64), 9),
            year=(1940 + year * 65).astype(np.int64),
            month=(1 + month * 9).astype(np.int64),
            day=(10 + day * 18).astype(np.int64),
            tier=self._any(TIERS, len(at)),
            address=numbered("A", address, 8),
            wants_mail=TRUTH.take(pa.array((self._random(len(at)) < 0.4).astype(np.int64))),
        )
        self._put(at, "customer", ids, ids, data)

    def _own(self, customer: Ints, number: int) -> Floats:
        """What is drawn once for each customer, so that it need not be kept: in [0, 1)."""
        return _hashed(customer * 8 + number, self._seed)

    def _reprice(self, product: Ints, factor: Floats) -> Ints:
        """New prices, one after the other; cents."""
        told = []
        for one, times in zip(product.tolist(), factor.tolist(), strict=True):
            self._prices[one] = max(99, int(int(self._prices[one]) * times))
            told.append(int(self._prices[one]))
        return np.array(told, np.int64)

    def _addresses_at(
        self, moves: npt.NDArray[np.bool_], customer: Ints, address: Ints, visits: Ints
    ) -> Ints:
        """The addresses that customers have when they come: for these visits."""
        given = dict(zip(np.flatnonzero(moves).tolist(), address.tolist(), strict=True))
        wanted, found = set(visits.tolist()), []
        for visit in sorted(given.keys() | wanted):
            who = int(customer[visit])
            if visit in given:
                self._address[who] = given[visit]
            if visit in wanted:
                found.append(self._address[who])
        return np.array(found, np.int64)

    def _look(self, at: Ints, session: Texts, who: Texts) -> tuple[Ints, tuple[Ints, Ints, Ints]]:
        """Pages, and what is put into the cart.

        Returns when each visit's last page is seen, and what was put: visit, product, quantity.
        """
        random, visits = self._random, len(at)
        pages = 1 + (random(visits) * 5).astype(np.int64)
        place, page = np.repeat(np.arange(visits), pages), within(pages) + 1
        rows = len(place)
        seen = at[place] + running(self._between(2_000, 40_000, rows), pages)
        product = (PRODUCTS * random(rows) * random(rows)).astype(np.int64)
        chosen, theirs = session.take(pa.array(place)), who.take(pa.array(place))
        device = self._any(DEVICES, visits).take(pa.array(place))
        data = filled(
            '{"session_id":"<id>","page_number":<page>,<who>"url":"/product/<product>",'
            '"product_id":"<product>","device":"<device>","duration_ms":<taken>}',
            id=chosen,
            page=page,
            who=theirs,
            product=PRODUCT_IDS.take(pa.array(product)),
            device=device,
            taken=self._between(20, 800, rows),
        )
        self._put(seen, "page_view", chosen, filled("<id>/<page>", id=chosen, page=page), data)

        wanted = np.flatnonzero(random(rows) < 0.35)
        # Nothing is put into a cart twice.
        _, first = np.unique(place[wanted] * PRODUCTS + product[wanted], return_index=True)
        put = np.sort(wanted[first])
        step = within(np.bincount(place[put], minlength=visits)) + 1
        quantity = 1 + (random(len(put)) * random(len(put)) * 4).astype(np.int64)
        chosen = chosen.take(pa.array(put))
        data = filled(
            '{"cart_id":"<id>","step":<step>,<who>"action":"add","product_id":"<product>",'
            '"quantity":<quantity>}',
            id=chosen,
            step=step,
            who=theirs.take(pa.array(put)),
            product=PRODUCT_IDS.take(pa.array(product[put])),
            quantity=quantity,
        )
        subject = filled("<id>/<step>", id=chosen, step=step)
        self._put(seen[put] + 1_500, "cart", chosen, subject, data)
        return seen[np.cumsum(pages) - 1], (place[put], product[put], quantity)

    # An order, and everything that follows from it, each at its own time

    def _order(self, at: Ints, customer: Ints, address: Ints, cart: _Lines) -> None:
        random, orders = self._random, len(at)
        number = self._orders + 1 + np.arange(orders)
        self._orders += orders
        ids, who = numbered("O", number, 10), numbered("C", customer, 8)
        sizes = np.bincount(cart.order, minlength=orders)
        begins = np.cumsum(sizes) - sizes
        subtotal = np.add.reduceat(cart.quantity * cart.price, begins)
        fee = np.where(subtotal >= FREE_SHIPPING_CENTS, 0, SHIPPING_CENTS)
        total = subtotal + fee
        country = self._country_of(address)
        body = filled(
            '{"order_id":"<id>","customer_id":"<who>","store_id":"<store>",'
            '"address_id":"<address>","country_code":"<country>","channel":"<channel>",'
            '"item_count":<items>,'
            '"subtotal":<subtotal>,"shipping_fee":<fee>,"total":<total>,"currency":"EUR",'
            '"placed_at":"<at>",',
            id=ids,
            who=who,
            store=STORE_IDS.take(pa.array(_stores_of(cart.product[begins])[0])),
            address=numbered("A", address, 8),
            country=country,
            channel=self._any(CHANNELS, orders),
            items=sizes,
            subtotal=money(subtotal),
            fee=money(fee),
            total=money(total),
            at=instants(at),
        )
        points = total // ONE_POINT_CENTS
        every = np.arange(orders)

        def state(when: Ints, which: Ints, status: str) -> None:
            of, these = pa.array(which), ids.take(pa.array(which))
            data = filled(f'<body>"status":"{status}"}}', body=body.take(of))
            self._put(when, "order", these, these, data)

        def take(when: Ints, which: Ints, sign: int, why: int) -> None:
            """Stock goes out (-1) or comes back (1), at the first store that keeps the product."""
            told = np.zeros(orders, np.int64)
            told[which] = when
            moved = np.isin(cart.order, which)
            product = cart.product[moved]
            store = _stores_of(product)[0]
            change = sign * cart.quantity[moved]
            self._move_stock(told[cart.order[moved]], store, product, change, why)

        def pay(when: Ints, which: Ints, status: str) -> None:
            of = pa.array(which)
            how, where = METHODS.take(pa.array(method[which])), country.take(of)
            self._pay(when, ids.take(of), how, total[which], where, status)

        def undo(when: Ints, which: Ints) -> None:
            """Money, goods and points go back."""
            pay(when, which, "refunded")
            take(when, which, 1, RETURN)
            self._move_points(when, customer[which], -points[which], number[which])

        state(at, every, "placed")
        self._tell_lines(at, ids, cart)
        take(at, every, -1, SALE)
        method = (random(orders) * len(METHODS)).astype(np.int64)
        at = at + self._between(1_000, 5 * MINUTE, orders)
        failed = np.flatnonzero(random(orders) < 0.08)
        pay(at[failed], failed, "failed")
        at[failed] += self._between(1_000, 5 * MINUTE, len(failed))
        gives_up = random(len(failed)) < 0.3
        state(at[failed[gives_up]], failed[gives_up], "cancelled")
        take(at[failed[gives_up]], failed[gives_up], 1, RETURN)
        method[failed] = CARD

        paid = np.delete(every, failed[gives_up])
        pay(at[paid], paid, "captured")
        state(at[paid] + 1, paid, "paid")
        self._move_points(at[paid] + 1, customer[paid], points[paid], number[paid])
        regrets = random(len(paid)) < 0.04
        cancelled, sent = paid[regrets], paid[~regrets]
        when = at[cancelled] + self._after(0.3, len(cancelled))
        state(when, cancelled, "cancelled")
        undo(when, cancelled)

        when = at[sent] + self._after(1.0, len(sent))
        shipment, parcel = self._shipment(when, ids.take(pa.array(sent)))

        def ship(at: Ints, which: Ints, status: str) -> None:
            of = pa.array(which)
            data = filled(f'<parcel>"status":"{status}"}}', parcel=parcel.take(of))
            self._put(at, "shipment", ids.take(pa.array(sent[which])), shipment.take(of), data)

        all_sent = np.arange(len(sent))
        ship(when, all_sent, "dispatched")
        state(when + 1, sent, "shipped")
        when = when + self._after(2.0, len(sent))
        ship(when, all_sent, "delivered")
        state(when + 1, sent, "delivered")
        praised = np.flatnonzero(random(len(sent)) < 0.3)
        first = pa.array(cart.product[begins[sent[praised]]])
        of = pa.array(sent[praised])
        said_at = when[praised] + self._after(3.0, len(praised))
        self._review(said_at, ids.take(of), who.take(of), PRODUCT_IDS.take(first))
        back = np.flatnonzero(random(len(sent)) < 0.06)
        when = when[back] + self._after(5.0, len(back))
        ship(when, back, "returned")
        state(when + 1, sent[back], "returned")
        undo(when + 2, sent[back])

    def _tell_lines(self, at: Ints, ids: Texts, cart: _Lines) -> None:
        sizes = np.bincount(cart.order, minlength=len(at))
        line, order = within(sizes) + 1, ids.take(pa.array(cart.order))
        data = filled(
            '{"order_id":"<order>","line_number":<line>,"product_id":"<product>",'
            '"quantity":<quantity>,"unit_price":<price>,"line_total":<total>,"currency":"EUR"}',
            order=order,
            line=line,
            product=PRODUCT_IDS.take(pa.array(cart.product)),
            quantity=cart.quantity,
            price=money(cart.price),
            total=money(cart.quantity * cart.price),
        )
        subject = filled("<order>/<line>", order=order, line=line)
        self._put(at[cart.order], "order_item", order, subject, data)

    def _pay(
        self, at: Ints, order: Texts, method: Texts, amount: Ints, country: Texts, status: str
    ) -> None:
        payment = numbered("Y", self._payments + 1 + np.arange(len(at)), 10)
        self._payments += len(at)
        data = filled(
            '{"payment_id":"<id>","order_id":"<order>","method":"<method>",'
            f'"status":"{status}","amount":<amount>,"currency":"EUR","country_code":"<country>"}}',
            id=payment,
            order=order,
            method=method,
            amount=money(amount),
            country=country,
        )
        self._put(at, "payment", order, payment, data)

    def _shipment(self, at: Ints, order: Texts) -> tuple[Texts, Texts]:
        """Parcels: their ids, and what is told of them but for where they are."""
        rows = len(at)
        ids = numbered("H", self._shipments + 1 + np.arange(rows), 10)
        self._shipments += rows
        parcel = filled(
            '{"shipment_id":"<id>","order_id":"<order>","carrier":"<carrier>",'
            '"tracking_number":"<tracking>","expected_on":"<expected>",',
            id=ids,
            order=order,
            carrier=self._any(CARRIERS, rows),
            tracking=numbered("HW", self._between(0, 10**10, rows), 10),
            expected=days(at + 3 * DAY),
        )
        return ids, parcel

    def _review(self, at: Ints, order: Texts, who: Texts, product: Texts) -> None:
        made, rows = self._pools, len(at)
        ids = numbered("R", self._reviews + 1 + np.arange(rows), 10)
        self._reviews += rows
        data = filled(
            '{"review_id":"<id>","order_id":"<order>","product_id":"<product>",'
            '"customer_id":"<who>","rating":<rating>,"title":<title>,"body":<body>}',
            id=ids,
            order=order,
            product=product,
            who=who,
            rating=5 - (self._random(rows) * self._random(rows) * 5).astype(np.int64),
            title=self._any(made["headlines"], rows),
            body=self._any(made["opinions"], rows),
        )
        self._put(at, "review", order, ids, data)

    def _any(self, pool: Texts, rows: int) -> Texts:
        return _one_of(pool, self._random(rows))

    # Stock and points: what is left is worked out in order of time

    def _move_stock(self, at: Ints, store: Ints, product: Ints, change: Ints, why: int) -> None:
        key = PRODUCT_IDS.take(pa.array(product))
        subject = filled("<store>/<product>", store=STORE_IDS.take(pa.array(store)), product=key)
        owner = product * (STORES + 1) + store
        numbers = (owner, change, np.full(len(at), why))
        self._stocked.put(pa.table([at, key, subject, *numbers], schema=CHANGES))

    def _move_points(self, at: Ints, customer: Ints, points: Ints, order: Ints) -> None:
        entry = numbered("L", self._entries + 1 + np.arange(len(at)), 10)
        self._entries += len(at)
        key = numbered("C", customer, 8)
        self._earned.put(pa.table([at, key, entry, customer, points, order], schema=CHANGES))

    def _levels(self, changes: pa.Table) -> pa.Table:
        """What stock is left, with a delivery before each sale of what is not there."""
        owner, change, why = (changes.column(name).to_numpy() for name in CHANGES.names[3:])
        stock, rows, left, reasons = self._stock, [], [], []
        for row, (one, more, reason) in enumerate(
            zip(owner.tolist(), change.tolist(), why.tolist(), strict=True)
        ):
            now = stock[one] + more
            if now < 0:
                rows.append(row)
                left.append(stock[one] + FULL_STOCK)
                reasons.append(RESTOCK)
                now += FULL_STOCK
            rows.append(row)
            left.append(now)
            reasons.append(reason)
            stock[one] = now
        place = np.array(rows, np.int64)
        data = filled(
            '{"store_id":"<store>","product_id":"<product>","quantity":<left>,'
            f'"reorder_level":{REORDER_LEVEL},"reason":"<reason>"}}',
            store=STORE_IDS.take(pa.array(owner[place] % (STORES + 1))),
            product=PRODUCT_IDS.take(pa.array(owner[place] // (STORES + 1))),
            left=np.array(left, np.int64),
            reason=REASONS.take(pa.array(reasons, pa.int64())),
        )
        return _told_of("inventory", changes.take(pa.array(place)), data)

    def _balances(self, changes: pa.Table) -> pa.Table:
        """What points are left; nobody has less than none."""
        owner, change, order = (changes.column(name).to_numpy() for name in CHANGES.names[3:])
        points, before, after = self._points, [], []
        for who, more in zip(owner.tolist(), change.tolist(), strict=True):
            before.append(points[who])
            points[who] = max(0, points[who] + more)
            after.append(points[who])
        balance = np.array(after, np.int64)
        data = filled(
            '{"entry_id":"<id>","customer_id":"<who>","order_id":"<order>","points":<change>,'
            '"balance":<balance>}',
            id=changes.column("subject").combine_chunks(),
            who=changes.column("key").combine_chunks(),
            order=numbered("O", order, 10),
            change=balance - np.array(before, np.int64),
            balance=balance,
        )
        return _told_of("loyalty", changes, data)


def _told_of(entity: str, changes: pa.Table, data: Texts) -> pa.Table:
    at, key, subject = (changes.column(name) for name in CHANGES.names[:3])
    return pa.table([at, pa.repeat(entity, len(at)), key, subject, data], schema=EVENTS)


def _stores_of(product: Ints) -> tuple[Ints, Ints]:
    """The two stores that keep a product."""
    return 1 + product % STORES, 1 + (product * 5 + 3) % STORES


def _rounded(value: float) -> float:
    """Without the digits in which one processor's logarithms differ from another's."""
    return round(value, 9)


def _one_of(pool: Texts, draw: Floats) -> Texts:
    return pool.take(pa.array((draw * len(pool)).astype(np.int64)))


def _prices_at(before: Ints, changes: tuple[Ints, Ints, Ints], visit: Ints, product: Ints) -> Ints:
    """Prices of products when visits begin: of those before, and (visit, product, price) since."""
    found = before[product]
    for since, which, price in zip(*(part.tolist() for part in changes), strict=True):
        found[(visit >= since) & (product == which)] = price
    return found


def _hashed(numbers: Ints, seed: int) -> Floats:
    """Numbers in [0, 1) that follow from whole ones: SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        mixed = (
            numbers.astype(np.uint64) + np.uint64(seed % 2**32) * np.uint64(2**31 - 1)
        ) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
