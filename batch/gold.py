"""Gold: the star schema, brought up to the newest version of Silver.

An increment reads what changed in silver.events since the version that the last run read, and works
the rows of the keys in it out anew, from all that Silver has of these keys. So a run that died is
simply run again, and late, corrected and deleted events come out as in a rebuild.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

import click

from lakehouse.command import moment, run, settings_options

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from batch.merge import Difference
    from batch.star.history import Keys, Source
    from lakehouse.contracts import Contracts
    from lakehouse.layouts import Layout, Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Table

JOB = "gold"
SILVER = "silver.events"
USERS, LOCATIONS = "gold.dim_users", "gold.dim_location"
PRODUCTS, TIME = "gold.dim_product", "gold.dim_time"
ORDERS, ITEMS = "gold.fact_orders", "gold.fact_order_items"
USER_METRICS, CATEGORY_METRICS = "gold.agg_user_metrics", "gold.agg_category_metrics"
STAR = {
    *(USERS, LOCATIONS, PRODUCTS, TIME),
    *(ORDERS, ITEMS, USER_METRICS, CATEGORY_METRICS),
}
# After all events that pass for accepted.
LAST = datetime(9999, 12, 31, tzinfo=UTC)
Say = Callable[[str], None]


@dataclass
class Result:
    """mode: nothing, increment or full. after, until: versions of Silver. tables: rows by name."""

    mode: str
    after: int | None
    until: int
    tables: dict[str, Difference] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())


@click.command("gold")
@click.option("--rebuild", is_flag=True, help="Work everything out anew, from all of Silver.")
@click.option("--from", "begin", metavar="TIME", help="Work out anew what happened from then on.")
@click.option("--to", "end", metavar="TIME", help="And before then; to this day if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options
def gold(
    rebuild: bool, begin: str | None, end: str | None, as_json: bool, settings: Settings
) -> None:
    """Bring dimensions, facts and metrics up to the newest version of Silver.

    With --from, also whatever an event of that time (ISO-8601) is about, changed or not.
    """
    from lakehouse import contracts, layouts
    from lakehouse.locks import held
    from lakehouse.progress import Ticker, doing
    from lakehouse.session import spark as make_session

    if rebuild and begin:
        raise click.UsageError("--rebuild and --from: one of them")
    if end and not begin:
        raise click.UsageError("--to wants --from")
    again = None
    if begin:
        again = (moment(begin, "--from"), moment(end, "--to") if end else LAST)
    loaded = contracts.load(settings.contracts_dir)
    known = layouts.load(settings.contracts_dir, loaded)
    with held(settings, JOB, "gold.* (job gold)"):
        with doing("starting Spark"):
            spark = make_session(settings, JOB)
        with doing("building Gold"), Ticker() as ticker:
            result = build(spark, settings, loaded, known, rebuild, again=again, say=ticker.show)
    if as_json:
        click.echo(json.dumps(asdict(result)))
        return
    click.echo(describe(result))


def describe(result: Result) -> str:
    if result.mode == "nothing":
        return f"Gold is at version {result.until} of {SILVER} already"
    since = "all of it" if result.after is None else f"versions {result.after} to {result.until}"
    lines = [f"Gold ({result.mode}, {SILVER}: {since}): {result.rows:,} rows written"]
    lines += [
        f"  {name}: {d.inserted:,} inserted, {d.updated:,} updated, {d.deleted:,} deleted"
        for name, d in result.tables.items()
    ]
    return "\n".join(lines)


def build(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    rebuild: bool = False,
    until: int | None = None,
    again: tuple[datetime, datetime] | None = None,
    say: Say = lambda _: None,
) -> Result:
    """Brings all of Gold to a version of Silver, the newest one where `until` is left out.

    again: whatever the events of that time are about is worked out anew, too. Raises TableError
    where Silver, or a table of Gold, is not what the last run left, and ContractError where a table
    has no contract.
    """
    from batch.star.history import Source
    from lakehouse import runs, tables
    from lakehouse.silver import ACCEPTED

    demand(settings, layouts)
    with runs.recorded(spark, settings, JOB) as run:
        silver = tables.silver(contracts)
        tables.read(spark, settings, silver)
        tables.check(spark, settings, silver)
        last = runs.last(spark, settings, JOB)
        after, changed, advanced = None, None, frozenset[str]()
        if last is None or rebuild:
            until = tables.version(spark, settings, silver) if until is None else until
        else:
            until, advanced = _check_unchanged(spark, settings, silver, layouts, last, until)
            if not _outgrown(spark, settings, layouts, last.written):
                after = last.read[SILVER]
        if last is not None and after is not None:
            run.read, run.written = {SILVER: until}, dict(last.written)
            run.commits = _commits(spark, settings, layouts, silver, until, run.written)
            if after == until and again is None:
                return Result("nothing", after, until)
            changed = _changed(spark, settings, silver, after, until, again)
            if changed.isEmpty():
                return Result("increment", after, until)
        rows = tables.read(spark, settings, silver, until).where(f"outcome = '{ACCEPTED}'")
        result = Result("full" if after is None else "increment", after, until)
        source = Source(rows, changed)
        _Builder(spark, settings, layouts, source, result, advanced, say).build()
        run.rows = result.rows
        run.read = {SILVER: until}
        run.written = tables.versions(
            spark, settings, map(tables.gold, layouts.gold), last.written if last else {}
        )
        run.commits = _commits(spark, settings, layouts, silver, until, run.written)
        run.details = {"mode": result.mode, "after": after}
    return result


def _changed(
    spark: SparkSession,
    settings: Settings,
    silver: Table,
    after: int,
    until: int,
    again: tuple[datetime, datetime] | None,
) -> DataFrame:
    """Accepted rows that came or went between two versions, and after these those of a time."""
    from pyspark.sql import functions as F

    from batch.star.history import AGAIN
    from lakehouse import tables
    from lakehouse.silver import ACCEPTED

    rows = tables.read(spark, settings, silver, until)
    as_changed = rows.withColumns(
        {"_change_type": F.lit(AGAIN), "_commit_version": F.lit(until + 1)}
    )
    changed = as_changed.where(F.lit(False))
    if again is not None:
        changed = as_changed.where((F.col("time") >= again[0]) & (F.col("time") < again[1]))
    if after < until:
        came = tables.changes(spark, settings, silver, after, until)
        changed = changed.unionByName(came.select(*changed.columns))
    return changed.where(F.col("outcome") == ACCEPTED).localCheckpoint()


def demand(settings: Settings, layouts: Layouts) -> None:
    """Raises ContractError where a table of the star schema has no contract."""
    from lakehouse.errors import ContractError

    if missing := sorted(STAR - set(layouts)):
        raise ContractError(
            f"{', '.join(missing)}: no contract under {settings.contracts_dir}/tables; Gold wants "
            "those that come with Headwater there"
        )


def _check_unchanged(
    spark: SparkSession,
    settings: Settings,
    silver: Table,
    layouts: Layouts,
    last: Any,
    until: int | None,
) -> tuple[int, frozenset[str]]:
    """The version of Silver to build, and the tables that were written after the last run that
    ended: by one that did not, or by maintenance.

    last: the run's row of ops.runs. Raises TableError where its tables are gone, are others by now,
    or were changed by hand since.
    """
    from delta.tables import DeltaTable

    from lakehouse import tables
    from lakehouse.errors import TableError

    after, was = last.read[SILVER], last.commits or {}
    now = _commits(spark, settings, layouts, silver, after, last.written)
    # Versions alone do not tell a table from another one that was made anew in its place.
    others = {name for name, commit in now.items() if was.get(name, commit) != commit}
    until = tables.newest_by_headwater(spark, settings, silver, after, until)
    if until < after or SILVER in others:
        raise TableError(
            f"{SILVER} ({silver.path(settings)}) is at version {until}, and is not the table whose "
            f"version {after} Gold was built from; `headwater gold --rebuild` starts from it"
        )
    advanced = set()
    for layout in layouts.gold:
        table, name = tables.gold(layout), layout.full_name
        version = last.written.get(name)
        if version is None:
            continue
        there = DeltaTable.isDeltaTable(spark, table.path(settings))
        newest = tables.newest_by_headwater(spark, settings, table, version) if there else None
        if newest is None or newest < version or name in others:
            found = "is gone from" if newest is None else "is another table now at"
            raise TableError(
                f"{name} {found} {table.path(settings)}: the last run wrote its version {version}; "
                "`headwater gold --rebuild` makes it anew"
            )
        if newest > version:
            advanced.add(name)
    return until, frozenset(advanced)


def _commits(
    spark: SparkSession,
    settings: Settings,
    layouts: Layouts,
    silver: Table,
    until: int,
    written: dict[str, int],
) -> dict[str, str]:
    """What Delta calls the commits of these versions of Silver and Gold; where that is known."""
    from lakehouse import tables
    from lakehouse.session import side_by_side

    wanted = [(silver, until)]
    for layout in layouts.gold:
        if layout.full_name in written:
            wanted.append((tables.gold(layout), written[layout.full_name]))

    def commit(one: tuple[Table, int]) -> str | None:
        return tables.commit_id(spark, settings, *one)

    found = side_by_side(commit, wanted)
    return {table.full_name: name for (table, _), name in zip(wanted, found, strict=True) if name}


def _outgrown(
    spark: SparkSession, settings: Settings, layouts: Layouts, written: dict[str, int]
) -> bool:
    """Whether there is a contract, or a column of one, that the last run did not know: all that
    came before has to go into it, too."""
    from lakehouse import tables
    from lakehouse.session import side_by_side

    def unknown(layout: Layout) -> bool:
        return layout.full_name not in written or tables.lacks_columns(
            spark, settings, tables.gold(layout)
        )

    return any(side_by_side(unknown, layouts.gold))


class _Builder:
    """One run over one source. Every frame below holds all that there is of the keys in it."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        layouts: Layouts,
        source: Source,
        result: Result,
        advanced: frozenset[str],
        say: Say,
    ) -> None:
        self.spark, self.settings = spark, settings
        self.layouts, self.advanced = layouts, advanced
        self.source, self.result, self.say = source, result, say

    def build(self) -> None:
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
        if TIME not in self.missing:
            years = self._existing(TIME).select("year").distinct().collect()
            self.years = {row.year for row in years}
        self._star()
        self._time()

    def _star(self) -> None:
        from batch.star import dimensions, facts, metrics
        from batch.star.history import among, keys_of, outside

        source = self.source
        order_keys = keys_of(
            source.touched("order", "order_id"), source.touched("order_item", "order_id")
        )
        states = self._hold(source.history("order", order_keys))
        lines = self._hold(source.history("order_item", order_keys))
        users = self._members("customer", "customer_id", "order", states)
        locations = self._members("address", "address_id", "order", states)
        products = self._members("product", "product_id", "order_item", lines)

        # All orders of these members, because their keys may have to point elsewhere.
        orders = facts.orders(states).select(*self._table(ORDERS).columns)
        if order_keys is not None:
            there = self._existing(ORDERS)
            of_users, of_locations = among(there, users), outside(among(there, locations), users)
            orders = orders.unionByName(outside(of_users.unionByName(of_locations), order_keys))
        orders = orders.localCheckpoint()
        dim_users = self._versions(USERS, "customer", "customer_id", users, orders)
        dim_location = self._versions(LOCATIONS, "address", "address_id", locations, orders)
        for name, rows, natural in (
            (USERS, dim_users, "customer_id"),
            (LOCATIONS, dim_location, "address_id"),
        ):
            orders = dimensions.in_force(orders, rows, self.layouts[name], natural, "placed_at")
        orders = orders.localCheckpoint()
        affected = None
        if order_keys is not None:
            affected = keys_of(orders.select("order_id"), order_keys.frame)

        items = facts.items(lines).select(*self._table(ITEMS).columns)
        if order_keys is not None:
            there = outside(among(self._existing(ITEMS), affected), order_keys)
            items = items.unionByName(there)
        items = facts.with_order(items, orders).localCheckpoint()
        sold = items.select("product_id")
        if products is not None:
            elsewhere = outside(self._existing(ITEMS), affected).select("product_id")
            sold = among(sold.unionByName(elsewhere), products)
        layout = self.layouts[PRODUCTS]
        rows = dimensions.scd1(source.history("product", products), sold, layout, "product_id")
        # Dimensions first, so that no fact points at a row that is not there yet.
        self._time_of(orders.select("order_month"), items.select("sold_month"))
        self._bring(
            (USERS, dim_users, users),
            (LOCATIONS, dim_location, locations),
            (PRODUCTS, rows, products),
            *self._others(),
        )
        self._bring(
            (ORDERS, orders, affected),
            (ITEMS, items, affected),
            (USER_METRICS, metrics.users(among(orders, users), dim_users), users),
        )
        self._categories(lines, products)

    def _members(self, entity: str, natural: str, fact: str, states: DataFrame) -> Keys | None:
        """Members that something is new about: themselves, or a fact that refers or did to them."""
        from batch.star.history import keys_of

        own = self.source.touched(entity, natural)
        return keys_of(own, self.source.touched(fact, natural), states.select(natural))

    def _versions(
        self, name: str, entity: str, natural: str, keys: Keys | None, orders: DataFrame
    ) -> DataFrame:
        """All rows of the members of an SCD2 dimension that orders refer to."""
        from pyspark.sql import functions as F

        from batch.star import dimensions
        from batch.star.history import among

        refs = among(orders, keys).groupBy(natural).agg(F.min("placed_at").alias("_at"))
        history = self.source.history(entity, keys)
        return dimensions.scd2(history, refs, self.layouts[name], natural).localCheckpoint()

    def _categories(self, lines: DataFrame, products: Keys | None) -> None:
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
            )
        if days is not None:
            # Constants first: they leave out whole partitions.
            months = [
                row[0]
                for row in days.frame.select(F.trunc("sales_date", "month")).distinct().collect()
            ]
            sold = sold.where(F.col("sold_month").isin(months))
            sold = among(sold.withColumn("sales_date", F.to_date("sold_at")), days)
        rows = metrics.categories(sold, self._existing(PRODUCTS))
        self._bring((CATEGORY_METRICS, rows, days))

    def _others(self) -> list[tuple[str, DataFrame, Keys | None]]:
        """The dimensions that no fact refers to: their contracts are all there is of them."""
        from batch.star import dimensions
        from batch.star.history import keys_of

        found: list[tuple[str, DataFrame, Keys | None]] = []
        for layout in self.layouts.gold:
            name, entity, natural = layout.full_name, layout.entity, layout.natural_key
            if entity is None or natural is None or name in {USERS, LOCATIONS, PRODUCTS}:
                continue
            keys = keys_of(self.source.touched(entity, natural))
            make = dimensions.scd1 if layout.scd == 1 else dimensions.scd2
            found.append(
                (name, make(self.source.history(entity, keys), None, layout, natural), keys)
            )
        return found

    def _time_of(self, *months: DataFrame) -> None:
        """Adds the years of facts that are about to be written. months: one column each."""
        from pyspark.sql import DataFrame
        from pyspark.sql import functions as F

        years = [rows.select(F.year(rows.columns[0]).alias("year")) for rows in months]
        coming = {row.year for row in reduce(DataFrame.union, years).distinct().collect()}
        if not coming <= self.years:
            self._bring_years(self.years | coming)

    def _time(self) -> None:
        """The hours of every year that a fact is in. Partitions tell: no file is read for it."""
        from pyspark.sql import functions as F

        months = self._existing(ORDERS).select(F.year("order_month").alias("year"))
        months = months.union(self._existing(ITEMS).select(F.year("sold_month")))
        years = {row.year for row in months.distinct().collect()}
        # A rebuild mends what was changed by hand.
        if years != self.years or (self.source.changed is None and TIME not in self.result.tables):
            self._bring_years(years)

    def _bring_years(self, years: set[int]) -> None:
        from batch.star import dimensions

        self.years = years
        rows = dimensions.hours(self.spark, sorted(years), self.layouts[TIME])
        self._bring((TIME, rows, None))

    def _hold(self, rows: DataFrame) -> DataFrame:
        """What an increment is worked out from is read once; a rebuild's does not fit in place."""
        return rows if self.source.changed is None else rows.localCheckpoint()

    def _table(self, name: str) -> Table:
        from lakehouse import tables

        return tables.gold(self.layouts[name])

    def _existing(self, name: str) -> DataFrame:
        from lakehouse import tables

        return tables.read(self.spark, self.settings, self._table(name))

    def _bring(self, *parts: tuple[str, DataFrame, Keys | None]) -> None:
        """Makes the rows of those keys (all for None) those that are given; tables side by side."""
        from batch.merge import bring
        from batch.star.history import among
        from lakehouse.session import side_by_side

        def one(part: tuple[str, DataFrame, Keys | None]) -> Difference:
            name, rows, keys = part
            self.say(name)
            scope = None if name in self.missing else among(self._existing(name), keys)
            key = self.layouts[name].primary_key
            # An increment goes on only from what the last run left.
            done = bring(
                self.spark, self.settings, self._table(name), key, rows, scope, mend=keys is None
            )
            self.missing.discard(name)
            return done

        names = (name for name, _, _ in parts)
        self.result.tables |= zip(names, side_by_side(one, parts), strict=True)


if __name__ == "__main__":
    run(gold, sys.argv[1:])
