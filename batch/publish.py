"""Publish: Gold into warehouses, by what changed since the version that each of them holds.

First the quality gate: what breaks a critical expectation is kept from every warehouse.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import click

from lakehouse.command import run, settings_options
from lakehouse.errors import TableError, WarehouseError
from lakehouse.layouts import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession

    from batch.warehouses.base import Content, Target, Warehouse
    from lakehouse.contracts import Column
    from lakehouse.layouts import Layout, Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Version

JOB = "publish"


@dataclass
class Published:
    """One table in one warehouse. mode: nothing, increment or full. staged: rows that were sent;
    rows: that it holds; seconds: what sending and merging them took."""

    table: str
    name: str
    mode: str
    version: int
    staged: int
    rows: int
    seconds: float


@dataclass
class Result:
    """Tables by the warehouse that they are in. unusual: what the quality gate let pass, and is
    unlike its own past."""

    warehouses: dict[str, list[Published]] = field(default_factory=dict)
    unusual: list[str] = field(default_factory=list)

    @property
    def staged(self) -> int:
        return sum(table.staged for tables in self.warehouses.values() for table in tables)


@click.command("publish")
@click.option(
    "--to",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Which warehouse; may be given more than once.  [default: the environment's]",
)
@click.option("--full", is_flag=True, help="Copy all rows anew, not only what changed.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options
def publish(kinds: tuple[str, ...], full: bool, as_json: bool, settings: Settings) -> None:
    """Bring warehouses to the newest versions of Gold, and hold them against it."""
    from lakehouse import contracts, layouts
    from lakehouse.locks import held
    from lakehouse.progress import Ticker, doing
    from lakehouse.session import spark as make_session

    loaded = contracts.load(settings.contracts_dir)
    known = layouts.load(settings.contracts_dir, loaded)
    with held(settings, JOB, "the warehouses (job publish)"):
        with doing("starting Spark"):
            spark = make_session(settings, JOB)
        with doing("publishing"), Ticker() as ticker:
            result = copy(spark, settings, known, kinds or settings.publish_to, full, ticker.show)
    if as_json:
        click.echo(json.dumps(asdict(result)))
        return
    click.echo(describe(result))


def describe(result: Result) -> str:
    lines = []
    for where, tables in result.warehouses.items():
        lines.append(f"{where}: agrees with Gold by count, key set and checksum")
        lines += [
            f"  {t.name}: {t.rows:,} rows, version {t.version} of {t.table} "
            f"({t.mode}, {t.staged:,} rows sent)"
            for t in tables
        ]
    return "\n".join([*lines, *result.unusual])


def copy(
    spark: SparkSession,
    settings: Settings,
    layouts: Layouts,
    kinds: tuple[str, ...],
    full: bool = False,
    say: Callable[[str], None] = lambda _: None,
    gate: bool = True,
) -> Result:
    """Publishes to kinds of warehouses, one after the other.

    gate: whether Gold has to be what its contracts demand; QualityError where it is not. Raises
    WarehouseError where a warehouse is not there, not to be written to, or would not agree with
    Gold; that one is then as it was. Raises TableError where there is no Gold.
    """
    from batch import quality
    from batch.warehouses import connect
    from batch.warehouses.base import STATE
    from lakehouse import runs

    result = Result()
    with runs.recorded(spark, settings, JOB) as run:
        newest = quality.newest_of(spark, settings, layouts)
        _check_unchanged(spark, settings, layouts)

        def looked_at() -> None:
            if gate:
                result.unusual = quality.demand(spark, settings, layouts, newest, say)

        # Beside the staging: it is over before anything is merged.
        with ThreadPoolExecutor(1) as pool:
            passing = pool.submit(looked_at)
            for kind in kinds:
                warehouse = connect(kind, settings)
                try:
                    if not warehouse.columns(STATE):
                        # It may die once something is there: whoever erases a person has to know.
                        runs.begun(spark, settings, JOB, {warehouse.where: []})
                    tables = _bring(
                        spark, settings, layouts, warehouse, newest, passing.result, full, say
                    )
                finally:
                    warehouse.close()
                result.warehouses[warehouse.where] = tables
                run.read |= {table.table: table.version for table in tables}
                # At once: whoever erases a person has to know of it, whatever fails after this.
                run.details[warehouse.where] = [asdict(table) for table in tables]
            # Where there is no warehouse, what is wrong with Gold is said all the same.
            passing.result()
        run.rows = result.staged
    return result


def _check_unchanged(spark: SparkSession, settings: Settings, layouts: Layouts) -> None:
    """Raises TableError where a table of Gold was changed by hand since Gold was built."""
    from batch import gold
    from lakehouse import runs, tables

    last = runs.last(spark, settings, gold.JOB)
    for layout in layouts.gold:
        version = None if last is None else last.written.get(layout.full_name)
        if version is not None:
            tables.newest_by_headwater(spark, settings, tables.gold(layout), version)


def _bring(
    spark: SparkSession,
    settings: Settings,
    layouts: Layouts,
    warehouse: Warehouse,
    newest: dict[str, Version],
    passed: Callable[[], None],
    full: bool,
    say: Callable[[str], None],
) -> list[Published]:
    """passed: returns once Gold may be published, or raises why it may not."""
    from lakehouse.session import side_by_side

    wanted = [layout for layout in layouts.gold if warehouse.name_of(layout) is not None]
    warehouse.alone()
    states = warehouse.states(wanted)

    def prepared(layout: Layout) -> tuple[Target, DataFrame | None]:
        name = warehouse.name_of(layout)
        say(f"{warehouse.where}: {name}")
        held = None if full or name is None else states.get(name)
        return _prepare(spark, settings, warehouse, layout, newest[layout.full_name], held)

    def staged(part: tuple[Target, DataFrame]) -> tuple[str, float]:
        (target, rows), begun = part, time.monotonic()
        warehouse.stage(target.stage, rows)
        return target.name, time.monotonic() - begun

    def drop_stages() -> None:
        # Those that a run left behind when it died, too.
        for target, _ in targets:
            warehouse.drop_stage(target.stage)

    targets = side_by_side(prepared, wanted)
    undo: list[str] = []
    try:
        for target, rows in targets:
            if rows is not None:
                warehouse.begin_stage(target.stage, target.layout)
        send = [(target, rows) for target, rows in targets if rows is not None]
        sent = dict(side_by_side(staged, send))
        passed()
        say(f"{warehouse.where}: merging")
        warehouse.make(wanted, undo)
        merged = warehouse.merge([target for target, _ in targets])
    except BaseException:
        # What went wrong matters more than that its stages are left, for the next run.
        with suppress(WarehouseError):
            drop_stages()
        with suppress(WarehouseError):
            warehouse.take_back(undo)
        # And what is wrong with Gold itself, more than what a warehouse says to it.
        passed()
        raise
    drop_stages()
    return [
        Published(
            target.layout.full_name,
            target.name,
            "nothing" if rows is None else "full" if target.full else "increment",
            target.state.number,
            target.staged,
            target.expected.rows,
            round(sent.get(target.name, 0.0) + merged[target.name], 3),
        )
        for target, rows in targets
    ]


def _prepare(
    spark: SparkSession,
    settings: Settings,
    warehouse: Warehouse,
    layout: Layout,
    newest: Version,
    held: Version | None,
) -> tuple[Target, DataFrame | None]:
    """What a table has to become, and the rows for its stage; None where nothing has changed.

    newest: what passed the quality gate. held: what the warehouse has. All rows are brought where
    it has none, or where nobody can tell any more what has changed since.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    from batch.warehouses.base import DELETED, Target
    from lakehouse import tables

    table, name = tables.gold(layout), warehouse.name_of(layout)
    assert name is not None
    rows = warehouse.storable(tables.read_gold(spark, settings, layout, newest.number), layout)
    by_column = partial(_by_column, rows, layout)
    expected = _content(rows, layout)
    full = held is None or not tables.still_is(spark, settings, table, held)
    if not full and held == newest:
        return Target(layout, name, newest, False, 0, expected, by_column), None
    key = list(layout.primary_key)
    there = rows.withColumn(DELETED, F.lit(False))
    stage, count = there, expected.rows
    if not full and held is not None:
        try:
            changed = tables.changes(spark, settings, table, held.number, newest.number)
            keys = warehouse.storable(changed, layout).select(*key).distinct().localCheckpoint()
        except (TableError, PySparkException, Py4JError):
            # Between the two a type is another one, or files of the changes are gone.
            full = True
        else:
            stage = keys.join(there, key, "left").fillna({DELETED: True})
            count = keys.count()
    if not full and count == 0:
        return Target(layout, name, newest, False, 0, expected, by_column), None
    return Target(layout, name, newest, full, count, expected, by_column), stage.select(
        *(_sent(column) for column in layout.columns), DELETED
    )


def _sent(column: Column) -> SparkColumn:
    """A column as it is sent: moments without a time zone, which are UTC."""
    from pyspark.sql import functions as F

    value = F.col(column.name)
    return value.cast("timestamp_ntz").alias(column.name) if _is_moment(column) else value


def _is_moment(column: Column) -> bool:
    return column.spark_type == "timestamp"


def _content(rows: DataFrame, layout: Layout) -> Content:
    """What a table of Gold holds; the same as Warehouse.content works out in SQL."""
    from batch.warehouses.base import Content

    keys = [column for column in layout.columns if column.primary_key]
    return Content(*_checksums(rows, [keys, list(layout.columns)]))


def _by_column(rows: DataFrame, layout: Layout) -> list[int]:
    """A checksum of each column; the same as Warehouse.by_column works out in SQL."""
    return _checksums(rows, [[column] for column in layout.columns])[1:]


def _checksums(rows: DataFrame, parts: list[list[Column]]) -> list[int]:
    """The number of rows, and of each part of their columns the sum of a hash (see Content)."""
    from pyspark.sql import functions as F

    from batch.warehouses.base import BETWEEN, NOTHING

    def text(column: Column) -> SparkColumn:
        value = F.col(column.name)
        if _is_moment(column):
            value = F.date_format(value, "yyyy-MM-dd HH:mm:ss.SSSSSS")
        elif column.spark_type == "boolean":
            value = value.cast("int")
        return F.coalesce(value.cast("string"), F.lit(NOTHING))

    def total(columns: list[Column]) -> SparkColumn:
        row = F.concat_ws(BETWEEN, *(text(column) for column in columns))
        number = F.conv(F.left(F.md5(row), F.lit(8)), 16, 10).cast("bigint")
        return F.coalesce(F.sum(number), F.lit(0))

    [found] = rows.agg(F.count("*"), *map(total, parts)).collect()
    return [int(value) for value in found]


if __name__ == "__main__":
    run(publish, sys.argv[1:])
