"""Which rows of Gold a run brings: all of them, or those that something is new about.

The rows themselves are worked out by the functions beside this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from lakehouse.sql import constant, one_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from batch.merge import Difference
    from batch.star.history import Keys, Source
    from lakehouse.contracts import Contracts
    from lakehouse.layouts import Layout, Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Table

USERS, LOCATIONS = "gold.dim_users", "gold.dim_location"
PRODUCTS, STORES = "gold.dim_product", "gold.dim_store"
TIME, DATES = "gold.dim_time", "gold.dim_date"
ORDERS, ITEMS = "gold.fact_orders", "gold.fact_order_items"
PAYMENTS, STOCK = "gold.fact_payments", "gold.fact_inventory"
USER_METRICS, CATEGORY_METRICS = "gold.agg_user_metrics", "gold.agg_category_metrics"
HOURLY_METRICS = "gold.agg_hourly_metrics"
STAR = {
    *(USERS, LOCATIONS, PRODUCTS, STORES, TIME, DATES),
    *(ORDERS, ITEMS, PAYMENTS, STOCK, USER_METRICS, CATEGORY_METRICS, HOURLY_METRICS),
}
# What it is made from.
ENTITIES = {
    *("customer", "address", "store", "product", "order", "order_item", "payment", "inventory"),
    "exchange_rate",
}
# A day for stock of which there is none.
EPOCH = date(1970, 1, 1)
Say = Callable[[str], None]


class _What(NamedTuple):
    """What facts refer to by `key`, and what is new about it from its `at` on."""

    entity: str
    key: str
    at: str


STORE = _What("store", "store_id", "_time")
RATE = _What("exchange_rate", "currency", "rate_date")


@dataclass(frozen=True)
class _Part:
    """What a table is to hold of those keys (of all, for None). gone: further rows of it that are
    to go where `rows` does not have them."""

    name: str
    rows: DataFrame
    keys: Keys | None
    gone: DataFrame | None = None


@dataclass(frozen=True)
class _Stock:
    """rows: of fact_inventory, keys of stores null, all there are of those pairs, and new days of
    others. gone: rows of days that are not there any more. others: rows of all other pairs; None
    where everything is worked out.
    """

    rows: DataFrame
    pairs: Keys | None
    gone: DataFrame | None
    others: DataFrame | None

    @property
    def members(self) -> DataFrame:
        """The stores and products that something may be new about."""
        return self.rows if self.pairs is None else self.pairs.frame

    def first_days(self, stores: Keys | None) -> DataFrame:
        """`store_id` and `_at`, when a day began of which there is stock."""
        from pyspark.sql import functions as F

        columns = "store_id", F.col("snapshot_date").cast("timestamp").alias("_at")
        return self._all(stores).select(*columns)

    def products(self, products: Keys | None) -> DataFrame:
        return self._all(products).select("product_id")

    def _all(self, keys: Keys | None) -> DataFrame:
        from batch.star.history import among

        rows = self.rows if self.others is None else self.rows.unionByName(self.others)
        return among(rows, keys)


@dataclass(frozen=True)
class _New:
    """What something is new about, in this run: keys are None where that is everything.

    states, lines: the histories of the orders of order_keys. repriced: orders of which an amount
    has another rate by now; None for none. The others: members of dimensions.
    """

    order_keys: Keys | None
    states: DataFrame
    lines: DataFrame
    stock: _Stock
    repriced: Keys | None
    users: Keys | None
    locations: Keys | None
    stores: Keys | None
    products: Keys | None


class Builder:
    """One run over one source. Every frame below holds all that there is of the keys in it.

    advanced: tables that were written after the last run that ended. written: rows by table.
    """

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        contracts: Contracts,
        layouts: Layouts,
        source: Source,
        advanced: frozenset[str],
        say: Say,
    ) -> None:
        self.spark, self.settings = spark, settings
        self.contracts, self.layouts, self.advanced = contracts, layouts, advanced
        self.source, self.say = source, say
        self.written: dict[str, Difference] = {}
        self.whole = source.changed is None
        self.moved: dict[str, tuple[DataFrame, Any] | None] = {}

    def build(self) -> dict[str, Difference]:
        """Brings all tables; the rows that were written, by table."""
        from lakehouse import tables
        from lakehouse.session import side_by_side

        def missing(layout: Layout) -> bool:
            """A table that is not there is made with its first rows, in one commit."""
            table = tables.gold(layout)
            if not tables.is_there(self.spark, self.settings, table):
                return True
            return tables.ensure(self.spark, self.settings, table)

        found = zip(self.layouts.gold, side_by_side(missing, self.layouts.gold), strict=True)
        self.missing = {layout.full_name for layout, one in found if one}
        self.years: set[int] = set()
        if TIME not in self.missing and DATES not in self.missing:
            self.years = self._years_there()
        self._star()
        if not self.whole:
            # Those that no fact is in any more go.
            self._bring(*self._calendar(self._years_of_facts()))
        return self.written

    def _star(self) -> None:
        from batch.star import metrics
        from batch.star.history import among

        new = self._new()
        orders, affected, dims = self._orders(new)
        items, of_items = self._items(new, orders, affected)
        payments, of_payments = self._payments(affected)
        years = self._years_in(
            orders.select("order_month"),
            items.select("sold_month"),
            payments.select("paid_month"),
            new.stock.rows.select("snapshot_month"),
        )
        # Dimensions first, so that no fact points at a row that is not there yet.
        self._bring(
            *self._calendar(years if self.whole else self.years | years),
            _Part(USERS, dims[USERS], new.users),
            _Part(LOCATIONS, dims[LOCATIONS], new.locations),
            _Part(STORES, dims[STORES], new.stores),
            _Part(PRODUCTS, self._products(new, items, of_items), new.products),
            *self._others(),
        )
        of_users = metrics.users(among(orders, new.users), dims[USERS])
        self._bring(
            _Part(ORDERS, orders, affected),
            _Part(ITEMS, items, of_items),
            _Part(STOCK, self._in_stores(new.stock.rows), new.stock.pairs, new.stock.gone),
            _Part(PAYMENTS, self._of_users(payments, orders, affected), of_payments),
            _Part(USER_METRICS, of_users, new.users),
        )
        self._bring(self._categories(new.lines, new.products), self._hours())

    def _new(self) -> _New:
        from batch.star.history import among, keys_of
        from lakehouse.session import side_by_side

        source = self.source
        order_keys = keys_of(
            source.touched("order", "order_id"), source.touched("order_item", "order_id")
        )
        states = self._hold(source.history("order", order_keys))
        lines = self._hold(source.history("order_item", order_keys))
        stock, repriced = self._stock(), self._repriced()
        of_orders, of_stock = {"order": states}, {"inventory": stock.members}
        users, locations, stores, products = side_by_side(
            lambda of: self._members(*of),
            (
                ("customer", "customer_id", of_orders),
                ("address", "address_id", of_orders),
                ("store", "store_id", of_orders | of_stock),
                ("product", "product_id", {"order_item": lines} | of_stock),
            ),
        )
        if users is not None and repriced is not None:
            # With the other orders of these users, because metrics are made of all of them.
            of_them = among(self._existing(ORDERS), repriced).select("customer_id")
            users = keys_of(users.frame, of_them)
        return _New(
            order_keys=order_keys,
            states=states,
            lines=lines,
            stock=stock,
            repriced=repriced,
            users=users,
            locations=locations,
            stores=stores,
            products=products,
        )

    def _orders(self, new: _New) -> tuple[DataFrame, Keys | None, dict[str, DataFrame]]:
        """Orders that something is new about, or about what they refer to; their keys, of those
        that are gone, too; and the rows of the dimensions that they point at, by table."""
        from pyspark.sql import functions as F

        from batch.star import dimensions, facts
        from batch.star.history import among, keys_of, outside
        from lakehouse.session import side_by_side

        orders = facts.orders(new.states).select(*self._table(ORDERS).columns)
        of_orders = F.col("placed_at").alias("_at")
        of_stores = orders.select("store_id", of_orders)
        if new.order_keys is not None:
            # All orders of these members, because their keys may have to point elsewhere. Of a
            # store there are too many: those that came after what is new about it.
            there = outside(self._existing(ORDERS), new.order_keys)
            of_others = outside(there, new.users)
            orders = (
                orders.unionByName(among(there, new.users))
                .unionByName(among(of_others, new.locations))
                .unionByName(self._since(STORE, outside(of_others, new.locations), "placed_at"))
            )
            of_stores = of_stores.union(among(there, new.stores).select("store_id", of_orders))
        orders = orders.localCheckpoint()
        of_stores = of_stores.union(new.stock.first_days(new.stores))
        parts = (
            (USERS, "customer_id", new.users, orders.select("customer_id", of_orders)),
            (LOCATIONS, "address_id", new.locations, orders.select("address_id", of_orders)),
            (STORES, "store_id", new.stores, of_stores),
        )
        made = side_by_side(lambda part: self._versions(*part), parts)
        dims = {name: rows for (name, *_), rows in zip(parts, made, strict=True)}
        for name, rows in dims.items():
            layout = self.layouts[name]
            assert layout.natural_key is not None
            orders = dimensions.in_force(orders, rows, layout, layout.natural_key, "placed_at")
        orders = self._reported(orders, "placed_at", facts.REPORTED_ORDERS).localCheckpoint()
        if new.order_keys is None:
            return orders, None, dims
        return orders, keys_of(orders.select("order_id"), new.order_keys.frame), dims

    def _items(
        self, new: _New, orders: DataFrame, affected: Keys | None
    ) -> tuple[DataFrame, Keys | None]:
        """All lines of these orders and of those that have other rates, and their orders' keys."""
        from batch.star import facts
        from batch.star.history import among, keys_of, outside

        items, keys = facts.items(new.lines).select(*self._table(ITEMS).columns), affected
        if affected is not None:
            if new.repriced is not None:
                keys = keys_of(affected.frame, new.repriced.frame)
            there = outside(among(self._existing(ITEMS), keys), new.order_keys)
            items = items.unionByName(there)
        items = facts.with_order(items, orders)
        return self._reported(items, "sold_at", facts.REPORTED_ITEMS).localCheckpoint(), keys

    def _products(self, new: _New, items: DataFrame, of_items: Keys | None) -> DataFrame:
        from batch.star import dimensions
        from batch.star.history import among, outside

        sold = items.select("product_id")
        if new.products is not None:
            elsewhere = outside(self._existing(ITEMS), of_items).select("product_id")
            sold = among(sold.unionByName(elsewhere), new.products)
        refs = sold.union(new.stock.products(new.products))
        history = self.source.history("product", new.products)
        return dimensions.scd1(history, refs, self.layouts[PRODUCTS], "product_id")

    def _members(self, entity: str, natural: str, facts: dict[str, DataFrame]) -> Keys | None:
        """Members that something is new about: themselves, or a fact that refers or did to them.

        facts: by the entity that they come of.
        """
        from batch.star.history import keys_of

        own = self.source.touched(entity, natural)
        of_facts = [self.source.touched(fact, natural) for fact in facts]
        return keys_of(own, *of_facts, *(rows.select(natural) for rows in facts.values()))

    def _versions(self, name: str, natural: str, keys: Keys | None, refs: DataFrame) -> DataFrame:
        """All rows of the members of an SCD2 dimension. refs: natural key and `_at`, the time of a
        fact that refers to it."""
        from pyspark.sql import functions as F

        from batch.star import dimensions
        from batch.star.history import among

        layout = self.layouts[name]
        assert layout.entity is not None
        first = among(refs, keys).groupBy(natural).agg(F.min("_at").alias("_at"))
        history = self.source.history(layout.entity, keys)
        return dimensions.scd2(history, first, layout, natural).localCheckpoint()

    def _moved(self, what: _What) -> tuple[DataFrame, Any] | None:
        """Since when something is new about each: `_since` by key, and the first of these; None
        where there is nothing, and where everything is worked out."""
        from pyspark.sql import functions as F

        if what.entity not in self.moved:
            touched = self.source.touched(what.entity, what.key, what.at)
            self.moved[what.entity] = None
            if touched is not None:
                since = touched.groupBy(what.key).agg(F.min(what.at).alias("_since"))
                since = since.localCheckpoint()
                first = since.agg(F.min("_since")).collect()[0][0]
                self.moved[what.entity] = None if first is None else (since, first)
        return self.moved[what.entity]

    def _since(self, what: _What, facts: DataFrame, at: str) -> DataFrame:
        """Facts that refer to what something is new about, as far as they came after that."""
        from pyspark.sql import functions as F

        moved = self._moved(what)
        if moved is None:
            return facts.limit(0)
        since, first = moved
        kind = facts.schema[at].dataType
        # A constant first: it leaves out whole files.
        later = facts.where(F.col(at) >= constant(first).cast(kind))
        joined = later.join(F.broadcast(since), what.key)
        return joined.where(F.col(at) >= F.col("_since").cast(kind)).drop("_since")

    def _repriced(self) -> Keys | None:
        """Orders of which an amount has another rate by now; None for none."""
        from batch.star.history import keys_of

        if self._moved(RATE) is None:
            return None
        return keys_of(
            self._since(RATE, self._existing(ORDERS), "placed_at").select("order_id"),
            self._since(RATE, self._existing(ITEMS), "sold_at").select("order_id"),
        )

    def _reported(self, facts: DataFrame, at: str, amounts: dict[str, str]) -> DataFrame:
        from batch.star import rates

        currency = self.settings.reporting_currency
        later = ("reporting_currency", "reporting_rate", *amounts)
        return rates.reported(facts.drop(*later), self.rates, currency, at, amounts)

    @cached_property
    def rates(self) -> DataFrame:
        from batch.star import rates

        history = self.source.history(RATE.entity, None)
        return rates.spans(history, self.settings.reporting_currency).localCheckpoint()

    def _stock(self) -> _Stock:
        """What is to be in fact_inventory of the pairs that something is new about, and of days
        that are new."""
        from pyspark.sql import functions as F

        from batch.star import facts
        from batch.star.history import keys_of, outside

        columns = list(self._table(STOCK).columns)
        day = F.max(F.to_date("_time"))
        until = self.source.history("inventory", None).agg(day).collect()[0][0] or EPOCH
        touched, there = self.source.touched("inventory", *facts.PAIR), None
        if touched is None:
            pairs = None
        else:
            there = self._existing(STOCK)
            moved = self._since(STORE, there, "snapshot_date").select(*facts.PAIR)
            pairs = keys_of(touched, moved)
        rows = facts.stock(self.source.history("inventory", pairs), until).select(*columns)
        gone = others = None
        if there is not None:
            others = outside(there, pairs)
            since = there.agg(F.max("snapshot_date")).collect()[0][0]
            if since is not None and since < until:
                rows = rows.unionByName(facts.carried(others, since, until).select(*columns))
            elif since is not None and since > until:
                gone = others.where(F.col("snapshot_date") > constant(until))
        return _Stock(rows.localCheckpoint(), pairs, gone, others)

    def _in_stores(self, stock: DataFrame) -> DataFrame:
        """Stock with the key of its store's row in force when the day ended."""
        from batch.star import dimensions, facts

        ended = stock.withColumn("_at", facts.end_of_day("snapshot_date"))
        layout = self.layouts[STORES]
        return dimensions.in_force(ended, self._existing(STORES), layout, "store_id", "_at")

    def _payments(self, affected: Keys | None) -> tuple[DataFrame, Keys | None]:
        """Payments that something is new about, or about whose order: without users, and their
        keys, of those that are gone, too."""
        from batch.star import facts
        from batch.star.history import among, keys_of, outside

        touched = keys_of(self.source.touched("payment", "payment_id"))
        history = self.source.history("payment", touched)
        rows = facts.payments(history).select(*self._table(PAYMENTS).columns)
        if touched is not None:
            there = outside(self._existing(PAYMENTS), touched)
            repriced = outside(self._since(RATE, there, "paid_at"), affected)
            rows = rows.unionByName(among(there, affected)).unionByName(repriced)
        rows = rows.localCheckpoint()
        if touched is None:
            return rows, None
        return rows, keys_of(rows.select("payment_id"), touched.frame)

    def _of_users(self, payments: DataFrame, orders: DataFrame, affected: Keys | None) -> DataFrame:
        """Payments with the user of their order: of those that are about to be written, or of one
        that is there."""
        from batch.star import facts
        from batch.star.history import among, keys_of, outside

        if affected is not None:
            there = among(self._existing(ORDERS), keys_of(payments.select("order_id")))
            orders = orders.select("order_id", "user_key").union(
                outside(there, affected).select("order_id", "user_key")
            )
        known = facts.with_user(payments, orders)
        return self._reported(known, "paid_at", facts.REPORTED_PAYMENTS)

    def _categories(self, lines: DataFrame, products: Keys | None) -> _Part:
        """Works out anew the days on which something was sold that changed, or whose category did.

        lines: the history of the lines that something is new about.
        """
        from pyspark.sql import functions as F

        from batch.star import metrics
        from batch.star.history import among, keys_of

        sold, days = self._existing(ITEMS), None
        if products is not None:
            # What a run that was cut off has written there came of a category between.
            moved = (
                keys_of(self.source.touched("product", "product_id"))
                if CATEGORY_METRICS in self.advanced
                else self.source.changed_value("product", "product_id", "category_id", products)
            )
            of_moved = among(sold, moved).select(F.to_date("sold_at").alias("sales_date"))
            days = keys_of(
                lines.select(F.to_date("_time").alias("sales_date")),
                self.source.touched("order_item", F.to_date("_time").alias("sales_date")),
                of_moved,
                self._since(RATE, sold, "sold_at").select(F.to_date("sold_at").alias("sales_date")),
            )
        if days is not None:
            # Constants first: they leave out whole partitions.
            months = [
                row[0]
                for row in days.frame.select(F.trunc("sales_date", "month")).distinct().collect()
            ]
            sold = sold.where(one_of(F.col("sold_month"), months))
            sold = among(sold.withColumn("sales_date", F.to_date("sold_at")), days)
        rows = metrics.categories(sold, self._existing(PRODUCTS))
        return _Part(CATEGORY_METRICS, rows, days)

    def _hours(self) -> _Part:
        """Works out anew the hours in which an event came or went, that have another rate by now,
        or are closed, or open, since."""
        from pyspark.sql import functions as F

        from batch.star import metrics
        from batch.star.history import among, keys_of

        # One that was erased for a person says no time any more.
        rows = self.source.rows.where(F.col("time").isNotNull())
        rows = rows.withColumn("hour", F.date_trunc("hour", "time"))
        open_from = metrics.open_from(rows, self.contracts.watermark_seconds, self.source.at)
        hours = None
        if self.source.changed is not None:
            there = self._existing(HOURLY_METRICS)
            hours = keys_of(
                self.source.changed.select(F.date_trunc("hour", "time").alias("hour")),
                self._since(RATE, there, "hour").select("hour"),
                there.where(F.col("is_closed") != metrics.is_closed(open_from)).select("hour"),
            )
        if hours is not None:
            # Constants first, that leave out partitions and files: no event came to the broker
            # much before its own time, and a day more is for tolerances that were larger once.
            first, last = hours.frame.agg(F.min("hour"), F.max("hour")).collect()[0]
            tolerance = F.lit(self.contracts.clock_tolerance_seconds)
            ahead = F.make_dt_interval(days=F.lit(1), secs=tolerance)
            rows = rows.where(
                (F.col("date") >= F.to_date(constant(first).cast("timestamp") - ahead))
                & (F.col("time") >= constant(first))
                & (F.col("time") < constant(last).cast("timestamp") + F.expr("INTERVAL 1 HOUR"))
            )
            rows = among(rows, hours)
        currency = self.settings.reporting_currency
        made = metrics.hours(rows, self.contracts, open_from, self.rates, currency)
        return _Part(HOURLY_METRICS, made, hours)

    def _others(self) -> list[_Part]:
        """The dimensions that no fact refers to: their contracts are all there is of them."""
        from batch.star import dimensions
        from batch.star.history import keys_of

        found = []
        for layout in self.layouts.gold:
            name, entity, natural = layout.full_name, layout.entity, layout.natural_key
            if entity is None or natural is None or name in STAR:
                continue
            keys = keys_of(self.source.touched(entity, natural))
            make = dimensions.scd1 if layout.scd == 1 else dimensions.scd2
            more = ("_type",) if layout.of_changes is not None else ()
            rows = make(self.source.history(entity, keys, *more), None, layout, natural)
            found.append(_Part(name, rows, keys))
        return found

    def _calendar(self, years: set[int]) -> list[_Part]:
        """The hours and days of these years, where they are not those that are there. A rebuild
        mends what was changed by hand."""
        from batch.star import dimensions

        if years == self.years and not self.whole:
            return []
        self.years, start = years, self.settings.fiscal_year_start
        hours = dimensions.hours(self.spark, sorted(years), self.layouts[TIME])
        days = dimensions.days(self.spark, sorted(years), self.layouts[DATES], start)
        return [_Part(TIME, hours, None), _Part(DATES, days, None)]

    def _years_of_facts(self) -> set[int]:
        """The years that a fact is in. Partitions tell: no file is read."""
        months = ((ORDERS, "order_month"), (ITEMS, "sold_month"), (PAYMENTS, "paid_month"))
        facts = (*months, (STOCK, "snapshot_month"))
        return self._years_in(*(self._existing(name).select(month) for name, month in facts))

    def _years_in(self, *months: DataFrame) -> set[int]:
        from pyspark.sql import DataFrame
        from pyspark.sql import functions as F

        years = [rows.select(F.year(rows.columns[0]).alias("year")) for rows in months]
        return {row.year for row in reduce(DataFrame.union, years).distinct().collect()}

    def _years_there(self) -> set[int]:
        """The years in both; none where the fiscal year has begun in another month until now."""
        from pyspark.sql import functions as F

        from batch.star import dimensions

        years = self._existing(TIME).select("year").distinct()
        days = self._existing(DATES).where("month = 1 AND day_of_month = 1")
        of_january = dimensions.fiscal_month_of(F.lit(1), self.settings.fiscal_year_start)
        days = days.where(F.col("fiscal_month") == of_january)
        return {row.year for row in years.intersect(days.select("year")).collect()}

    def _hold(self, rows: DataFrame) -> DataFrame:
        """What an increment is worked out from is read once; a rebuild's does not fit in place."""
        return rows if self.whole else rows.localCheckpoint()

    def _table(self, name: str) -> Table:
        from lakehouse import tables

        return tables.gold(self.layouts[name])

    def _existing(self, name: str) -> DataFrame:
        from lakehouse import tables

        return tables.read(self.spark, self.settings, self._table(name))

    def _bring(self, *parts: _Part) -> None:
        """Makes the rows of those keys those that are given; tables side by side."""
        from batch.merge import bring
        from batch.star.history import among
        from lakehouse.session import side_by_side

        def one(part: _Part) -> Difference:
            self.say(part.name)
            scope = None
            if part.name not in self.missing:
                scope = among(self._existing(part.name), part.keys)
                scope = scope if part.gone is None else scope.unionByName(part.gone)
            # An increment goes on only from what the last run left.
            table, key = self._table(part.name), self.layouts[part.name].primary_key
            mend = part.keys is None
            done = bring(self.spark, self.settings, table, key, part.rows, scope, mend=mend)
            self.missing.discard(part.name)
            return done

        names = (part.name for part in parts)
        self.written |= zip(names, side_by_side(one, parts), strict=True)
