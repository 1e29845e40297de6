"""Gold: the star schema, brought up to the newest version of Silver.

An increment reads what changed in silver.events since the version that the last run read, and works
the rows of the keys in it out anew, from all that Silver has of these keys. So a run that died is
simply run again, and late, corrected and deleted events come out as in a rebuild.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import click

from batch.star.build import ENTITIES, STAR, Builder, Say
from lakehouse.command import moment, run, settings_options

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from batch.merge import Difference
    from lakehouse.contracts import Contracts
    from lakehouse.layouts import Layout, Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Table

JOB = "gold"
SILVER = "silver.events"
# What of a run's surroundings everything hangs on: under others, all is worked out anew.
REFILLED = ("counted", "layouts")
# What a rebuild is held against.
INCREMENTS = "increments"
# After all events that pass for accepted.
LAST = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass
class Result:
    """mode: nothing, increment or full. after, until: versions of Silver. tables: rows by name.

    held_against: of a rebuild, what the rows that it has written are a difference from: increments;
    or why there was nothing of that kind to hold it against.
    """

    mode: str
    after: int | None
    until: int
    tables: dict[str, Difference] = field(default_factory=dict)
    held_against: str = ""

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

    With --from, also whatever an event of that time (ISO-8601) is about, changed or not. With
    --rebuild an increment comes first, so that it can be told what the increments had otherwise.
    """
    from lakehouse import contracts, layouts
    from lakehouse.locks import held
    from lakehouse.progress import Ticker, doing
    from lakehouse.session import spark as make_session

    if rebuild and begin is not None:
        raise click.UsageError("--rebuild and --from: one of them")
    if end is not None and begin is None:
        raise click.UsageError("--to wants --from")
    again = None
    if begin is not None:
        again = (moment(begin, "--from"), LAST if end is None else moment(end, "--to"))
        if again[1] <= again[0]:
            raise click.UsageError("--to has to be after --from")
    loaded = contracts.load(settings.contracts_dir)
    known = layouts.load(settings.contracts_dir, loaded)
    with held(settings, JOB, "gold.* (job gold)"):
        with doing("starting Spark"):
            spark = make_session(settings, JOB)
        with doing("building Gold"), Ticker() as ticker:
            make = rebuilt if rebuild else partial(build, again=again)
            result = make(spark, settings, loaded, known, say=ticker.show)
    if as_json:
        click.echo(json.dumps(asdict(result)))
        return
    click.echo(describe(result))


def describe(result: Result) -> str:
    if result.mode == "nothing":
        return f"Gold is at version {result.until} of {SILVER} already"
    since = "all of it" if result.after is None else f"versions {result.after} to {result.until}"
    lines = [f"Gold ({result.mode}, {SILVER}: {since}): {result.rows:,} rows written"]
    if result.held_against == INCREMENTS:
        lines[0] += f", which is what {INCREMENTS} had otherwise"
    elif result.held_against:
        lines.append(f"  not held against {INCREMENTS}: {result.held_against}")
    lines += [
        f"  {name}: {d.inserted:,} inserted, {d.updated:,} updated, {d.deleted:,} deleted"
        for name, d in result.tables.items()
    ]
    return "\n".join(lines)


def rebuilt(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    say: Say = lambda _: None,
) -> Result:
    """Works all of Gold out anew, after an increment to the same version of Silver where one can be
    made: what the rebuild writes then is what increments had otherwise, which is nothing."""
    from pyspark.errors import PySparkException

    from lakehouse import runs
    from lakehouse.errors import HeadwaterError, reason

    until, held_against = None, INCREMENTS
    if runs.last(spark, settings, JOB) is None:
        held_against = "Gold is built for the first time"
    else:
        try:
            first = build(spark, settings, contracts, layouts, say=say)
            until = first.until
            if first.mode == "full":
                first.held_against = "a contract or the reporting currency is another one now"
                return first
        except (HeadwaterError, PySparkException) as error:
            # Whatever keeps an increment from being made, a rebuild is the way out of it.
            held_against = reason(str(error))
    return build(
        spark, settings, contracts, layouts, True, until, say=say, held_against=held_against
    )


def build(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    rebuild: bool = False,
    until: int | None = None,
    again: tuple[datetime, datetime] | None = None,
    say: Say = lambda _: None,
    held_against: str = "",
) -> Result:
    """Brings all of Gold to a version of Silver, the newest one where `until` is left out.

    again: whatever the events of that time are about is worked out anew, too. held_against: see
    Result. Raises TableError where Silver, or a table of Gold, is not what the last run left, and
    ContractError where a table has no contract.
    """
    from batch.star.history import Source
    from lakehouse import metrics, runs, tables
    from lakehouse.redact import redacted
    from lakehouse.silver import ACCEPTED

    demand(settings, contracts, layouts)
    # What else than Silver the tables follow from.
    under = {
        "counted": metrics.fingerprint(contracts),
        "fiscal_year_start": settings.fiscal_year_start,
        "layouts": _fingerprint(layouts),
    }
    moved = False
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
            was = json.loads(last.details or "{}")
            moved = was.get("fiscal_year_start") != under["fiscal_year_start"]
            # Columns that are there tell nothing: a run may have died before it filled them.
            same = all(was.get(name) == under[name] for name in REFILLED)
            if same and not _reported_otherwise(spark, settings, layouts):
                after = last.read[SILVER]
        if last is not None and after is not None:
            run.read, run.written = {SILVER: until}, dict(last.written)
            run.commits = _commits(spark, settings, layouts, silver, until, run.written)
            run.details = dict(under)
            if after == until and again is None and not moved:
                return Result("nothing", after, until)
            changed = _changed(spark, settings, silver, after, until, again)
            if changed.isEmpty() and not moved:
                return Result("increment", after, until)
        rows = tables.read(spark, settings, silver, until).where(f"outcome = '{ACCEPTED}'")
        mode = "full" if after is None else "increment"
        result = Result(mode, after, until, held_against=held_against)
        source = Source(rows, tables.committed_at(spark, settings, silver, until), changed)
        result.tables = Builder(spark, settings, contracts, layouts, source, advanced, say).build()
        run.rows = result.rows
        run.read = {SILVER: until}
        run.written = tables.versions(
            spark, settings, map(tables.gold, layouts.gold), last.written if last else {}
        )
        run.commits = _commits(spark, settings, layouts, silver, until, run.written)
        run.details = {"mode": result.mode, "after": after, **under}
        if held_against == INCREMENTS:
            run.details["different"] = {n: d.rows for n, d in result.tables.items() if d.rows}
        elif held_against:
            run.details["not_held_against_increments"] = redacted(held_against)
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
    from lakehouse.sql import constant

    rows = tables.read(spark, settings, silver, until)
    as_changed = rows.withColumns(
        {"_change_type": F.lit(AGAIN), "_commit_version": F.lit(until + 1)}
    )
    changed = as_changed.where(F.lit(False))
    if again is not None:
        first, last = map(constant, again)
        changed = as_changed.where((F.col("time") >= first) & (F.col("time") < last))
    if after < until:
        came = tables.changes(spark, settings, silver, after, until)
        changed = changed.unionByName(came.select(*changed.columns))
    return changed.where(F.col("outcome") == ACCEPTED).localCheckpoint()


def demand(settings: Settings, contracts: Contracts, layouts: Layouts) -> None:
    """Raises ContractError where a table of the star schema, or an entity that it is made from, has
    no contract."""
    from lakehouse.errors import ContractError

    folder = settings.contracts_dir
    for wanted, there, where in (
        (STAR, set(layouts), folder / "tables"),
        (ENTITIES, set(contracts), folder),
    ):
        if missing := sorted(wanted - there):
            raise ContractError(
                f"{', '.join(missing)}: no contract under {where}; Gold wants those that come with "
                "Headwater there"
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


def _reported_otherwise(spark: SparkSession, settings: Settings, layouts: Layouts) -> bool:
    """Whether there are amounts in another reporting currency than the one that is set, be it that
    a run died which was to bring them all to one."""
    from pyspark.sql import functions as F

    from lakehouse import tables
    from lakehouse.session import side_by_side

    other = ~F.col("reporting_currency").eqNullSafe(F.lit(settings.reporting_currency))

    def has_others(layout: Layout) -> bool:
        table = tables.gold(layout)
        if "reporting_currency" not in table.columns:
            return False
        return not tables.read(spark, settings, table).where(other).isEmpty()

    return any(side_by_side(has_others, layouts.gold))


def _fingerprint(layouts: Layouts) -> str:
    """Of what the rows of Gold's tables follow from in their contracts: where that is another one,
    all that came before has to go into them, too."""
    told = [
        (
            *(layout.full_name, layout.entity, layout.scd, layout.hour_of, layout.of_changes),
            [(column.name, column.spark_type, column.primary_key) for column in layout.columns],
        )
        for layout in layouts.gold
    ]
    return sha256(repr(told).encode()).hexdigest()


if __name__ == "__main__":
    run(gold, sys.argv[1:])
