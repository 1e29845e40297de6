"""Maintenance: small files made into few sorted ones, and files that no version needs removed.

What is done to a table stands in its contract: columns that its files are sorted by (ZORDER, or, by
setting and of tables without partitions, liquid clustering), and how long old files are kept, and
with them the log of the versions that they are of. Of
the tables that a stream writes only those partitions are touched that it has left, or all of them
where the tables are on this machine and no stream runs there; and of these only such with more than
SMALL_FILES small files, because ZORDER writes a partition anew as a whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import click

from lakehouse.command import run, settings_options
from lakehouse.sql import quoted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import Row

    from lakehouse.contracts import Contracts
    from lakehouse.layouts import Layout, Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Table

JOB = "maintain"
SMALL_BYTES = 32 * 1024 * 1024
# A rewrite for fewer costs the seconds of one, and leaves few files where few were: with 4 here,
# maintenance in a first `headwater run` of 100,000 records took 6 to 13 s.
SMALL_FILES = 8
# A record may come that much later into the partition of its time.
LEFT_AFTER = timedelta(hours=2)
# Delta refuses to remove younger files; readers of a version may still need them.
LEAST_HOURS = 168
# A version can be read as long as its entry in the log and its files are there.
RETENTIONS = ("delta.logRetentionDuration", "delta.deletedFileRetentionDuration")


@dataclass
class Report:
    """One table: files and bytes of its newest version, before and after (None: not done).

    partitions: how many are to be, or were, written anew. zorder_by: none where the table is
    clustered. removed: old files, to be or deleted. retired: rows of before `until`, older than the
    contract has them kept, to be or deleted. where, recluster, properties: of what is to be done.
    """

    table: str
    partitions: int
    zorder_by: tuple[str, ...]
    vacuum_hours: int
    files: int
    bytes: int
    removed: int = 0
    retired: int = 0
    files_after: int | None = None
    bytes_after: int | None = None
    until: date | None = field(default=None, repr=False)
    where: str = field(default="", repr=False)
    recluster: str = field(default="", repr=False)
    properties: dict[str, str] = field(default_factory=dict, repr=False)


class Detail(NamedTuple):
    """Of a table's newest version."""

    files: int
    bytes: int
    clustered_by: tuple[str, ...]


@click.command("maintain")
@click.argument("names", metavar="[TABLE]...", nargs=-1)
@click.option(
    "--plan", "--dry-run", "dry_run", is_flag=True, help="Say what would be done, and do nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@settings_options
def maintain(names: tuple[str, ...], dry_run: bool, as_json: bool, settings: Settings) -> None:
    """OPTIMIZE, ZORDER and VACUUM as the tables' contracts say.

    TABLE: full names such as silver.events; all tables where left out.
    """
    from lakehouse import contracts, layouts
    from lakehouse.progress import Ticker, doing
    from lakehouse.session import spark as make_session

    loaded = contracts.load(settings.contracts_dir)
    known = layouts.load(settings.contracts_dir, loaded)
    if unknown := sorted(set(names) - set(known)):
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")
    with writers_away(settings) as streaming:
        with doing("starting Spark"):
            spark = make_session(settings, JOB)
        with doing("maintaining"), Ticker() as ticker:
            reports = keep(
                spark, settings, loaded, known, names, dry_run, streaming, say=ticker.show
            )
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], default=str))
        return
    show(reports)


@contextmanager
def writers_away(settings: Settings) -> Iterator[bool]:
    """Holds off the batch jobs that write these tables; yields whether a stream is running."""
    from lakehouse import checkpoints
    from lakehouse.errors import LockedError
    from lakehouse.locks import held

    with ExitStack() as stack:
        for job in (JOB, "gold", "reconcile"):
            stack.enter_context(held(settings, job, f"the tables of job {job}"))
        # A stream on another machine holds no lock here.
        streaming = "://" in settings.tables
        for query in checkpoints.ALL:
            try:
                stack.enter_context(held(settings, f"stream-{query}", f"stream {query}"))
            except LockedError:
                streaming = True
        yield streaming


def show(reports: list[Report]) -> None:
    """The reports as a table."""
    from rich.console import Console
    from rich.table import Table as Grid

    names = ("table", "retired rows", "partitions", "zorder by", "old files", "files", "bytes")
    grid = Grid(*names, title="Upkeep")
    for r in reports:
        files = f"{r.files:,}" if r.files_after is None else f"{r.files:,} → {r.files_after:,}"
        size = f"{r.bytes:,}" if r.bytes_after is None else f"{r.bytes:,} → {r.bytes_after:,}"
        columns = ", ".join(r.zorder_by)
        numbers = (f"{r.retired:,}", f"{r.partitions:,}")
        grid.add_row(r.table, *numbers, columns, f"{r.removed:,}", files, size)
    Console().print(grid)


def keep(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    names: tuple[str, ...] = (),
    dry_run: bool = False,
    streaming: bool = False,
    vacuum: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> list[Report]:
    """Plans for the tables of those names (all for none), and does it unless that is a dry run.

    streaming: whether a stream may be writing. vacuum: whether to look for old files.
    """
    from delta.tables import DeltaTable

    from lakehouse import runs, tables
    from lakehouse.session import side_by_side

    there = [
        (layouts[table.full_name], table)
        for table in tables.all_tables(contracts, layouts)
        if table.full_name in layouts
        and (not names or table.full_name in names)
        and DeltaTable.isDeltaTable(spark, table.path(settings))
    ]

    def plan(one: tuple[Layout, Table]) -> Report:
        say(f"planning {one[1].full_name}")
        return _plan(spark, settings, *one, streaming, vacuum)

    reports = side_by_side(plan, there)
    if dry_run:
        return reports
    with runs.recorded(spark, settings, JOB) as run:
        run.read = tables.versions(spark, settings, [table for _, table in there])
        for (_, table), report in zip(there, reports, strict=True):
            say(f"{table.full_name}: {report.partitions:,} partitions")
            _do(spark, settings, table, report)
        written = [
            table
            for (_, table), report in zip(there, reports, strict=True)
            if any((report.partitions, report.removed, report.retired))
            or any((report.recluster, report.properties))
        ]
        run.written = tables.versions(spark, settings, written, run.read)
        run.rows = sum(report.retired for report in reports)
        run.details = {
            name: sum(getattr(report, name) or 0 for report in reports)
            for name in ("retired", "partitions", "removed", "files", "files_after")
        }
    return reports


def _plan(
    spark: SparkSession,
    settings: Settings,
    layout: Layout,
    table: Table,
    streaming: bool,
    vacuum: bool,
) -> Report:
    from pyspark.sql import functions as F

    from lakehouse import tables

    detail = _detail(spark, settings, table)
    rows = []
    if detail.files > SMALL_FILES:
        # Metadata columns alone: the rows are counted by, not read.
        files = (
            tables.read(spark, settings, table)
            .select(*table.partitions, "_metadata.file_path", "_metadata.file_size")
            .distinct()
        )
        small = F.count_if(F.col("file_size") < SMALL_BYTES).alias("_small")
        partitions = files.groupBy(*table.partitions).agg(small)
        rows = partitions.where(f"_small > {SMALL_FILES}").collect()
    by_stream = table.layer in {"bronze", "silver"}
    now = datetime.now(UTC)
    after = LEFT_AFTER
    if table.full_name == tables.minutes().full_name:
        after = max(after, timedelta(hours=settings.stream.metrics_hours))
    due = [row for row in rows if not (by_stream and streaming) or _left(row, now, after)]
    hours = max(LEAST_HOURS, layout.vacuum_hours)
    until, retired = _old(spark, settings, layout, table) or (None, 0)
    path = tables.quoted_path(table.path(settings))
    old = spark.sql(f"VACUUM {path} RETAIN {hours} HOURS DRY RUN").count() if vacuum else 0
    where = " OR ".join(f"({_predicate(row, table)})" for row in due) if table.partitions else ""
    liquid = layout.zorder_by if settings.clustering == "liquid" and not table.partitions else ()
    recluster = ""
    if detail.clustered_by != liquid:
        columns = ", ".join(quoted(name) for name in liquid)
        recluster = f"({columns})" if liquid else "NONE"
    lacking = {}
    # A change of a table's properties is in the way of whoever is about to commit to it.
    if vacuum and not (by_stream and streaming):
        properties = tables.properties_of(spark, table.path(settings))
        wanted = dict.fromkeys(RETENTIONS, f"interval {hours} hours")
        lacking = {key: kept for key, kept in wanted.items() if properties.get(key) != kept}
    return Report(
        table.full_name,
        len(due),
        () if liquid else layout.zorder_by,
        hours,
        detail.files,
        detail.bytes,
        old,
        retired,
        until=until,
        where=where,
        recluster=recluster,
        properties=lacking,
    )


def _old(
    spark: SparkSession, settings: Settings, layout: Layout, table: Table
) -> tuple[date, int] | None:
    """The day before which the contract does not have rows kept, and how many there are; none of a
    day on which a record has no outcome yet. None where there is none."""
    from pyspark.sql import functions as F

    from batch.judge import within
    from lakehouse import runs, tables

    if layout.retention is None:
        return None
    until = (datetime.now(UTC) - timedelta(seconds=layout.retention)).date()
    rows = tables.read(spark, settings, table).where(F.col("date") < until)
    if rows.isEmpty():
        return None
    closed = runs.closed_range(spark, settings)
    open_since = rows.where(~within({}, closed)).agg(F.min("date")).collect()[0][0]
    until = min(until, open_since or until)
    count = rows.where(F.col("date") < until).count()
    return (until, count) if count else None


def _retire(spark: SparkSession, settings: Settings, table: Table, until: date) -> None:
    """Removes the rows of before a day, once they are written down.

    Of days that were over when it was planned, all of them. But a record whose sender's clock is so
    far behind may have come in since: it has no outcome yet, and stays.
    """
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from batch.judge import within
    from lakehouse import gaps, runs, tables

    old = (F.col("date") < until) & within({}, runs.closed_range(spark, settings))
    rows = tables.read(spark, settings, table).where(old)
    tables.ensure(spark, settings, tables.gaps())
    known = gaps.accepted(spark, settings, table.layer)
    found = gaps.ranges(rows.select("topic", "partition", "offset"), gaps.RETIRED)
    gaps.accept(spark, settings, table.layer, gaps.without(found, known))
    DeltaTable.forPath(spark, table.path(settings)).delete(old)


def _left(row: Row, now: datetime, after: timedelta) -> bool:
    """Whether the stream writes no more into a partition by date, or by date and hour: it is over
    for so long."""
    hour = getattr(row, "hour", None)
    begin = datetime(row.date.year, row.date.month, row.date.day, hour or 0, tzinfo=UTC)
    span = timedelta(hours=24) if hour is None else timedelta(hours=1)
    return begin + span + after <= now


def _predicate(row: Row, table: Table) -> str:
    parts = []
    for name in table.partitions:
        value, kind = row[name], table.columns[name]
        literal = str(value) if kind == "int" else f"{kind} '{value}'"
        parts.append(f"`{name}` IS NULL" if value is None else f"`{name}` = {literal}")
    return " AND ".join(parts)


def _do(spark: SparkSession, settings: Settings, table: Table, report: Report) -> None:
    from lakehouse import tables

    path = tables.quoted_path(table.path(settings))
    if report.retired and report.until is not None:
        _retire(spark, settings, table, report.until)
    if report.properties:
        tables.set_properties(spark, path, report.properties)
    if report.recluster:
        spark.sql(f"ALTER TABLE {path} CLUSTER BY {report.recluster}")
    if report.partitions:
        where = f" WHERE {report.where}" if report.where else ""
        columns = ", ".join(f"`{name}`" for name in report.zorder_by)
        zorder = f" ZORDER BY ({columns})" if columns else ""
        spark.sql(f"OPTIMIZE {path}{where}{zorder}")
    if report.removed:
        spark.sql(f"VACUUM {path} RETAIN {report.vacuum_hours} HOURS")
    if report.partitions:
        detail = _detail(spark, settings, table)
        report.files_after, report.bytes_after = detail.files, detail.bytes
    else:
        report.files_after, report.bytes_after = report.files, report.bytes


def _detail(spark: SparkSession, settings: Settings, table: Table) -> Detail:
    from delta.tables import DeltaTable

    from lakehouse.delta_log import DeltaLog

    log = DeltaLog(spark, table.path(settings))
    newest = log.newest()
    known = {} if newest is None else log.checksum(newest)
    clustered = [d for d in known.get("domainMetadata", ()) if d["domain"] == "delta.clustering"]
    if known and not clustered:
        return Detail(known["numFiles"], known["tableSizeBytes"], ())
    detail = DeltaTable.forPath(spark, table.path(settings)).detail()
    row = detail.select("numFiles", "sizeInBytes", "clusteringColumns").collect()[0]
    return Detail(row.numFiles, row.sizeInBytes, tuple(row.clusteringColumns))


if __name__ == "__main__":
    run(maintain, sys.argv[1:])
