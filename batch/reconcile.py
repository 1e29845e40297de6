"""Reconcile: every pending record of a closed range gets its outcome.

Pending is what is in Bronze and not in Silver: events later than the watermark, copies, and events
with an id that another event has. Those that share (source, id) are put in order by the broker's
timestamp, then by coordinates. The first one's content stands; the same content again is a
duplicate and leaves no row; other content is a conflict, and is quarantined as one, be it pending
or accepted before by the stream.

The range is closed where every query has committed it and begins where the last reconcile ended.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from lakehouse.command import moment, run, settings_options

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from lakehouse.contracts import Contracts
    from lakehouse.kafka import Offsets
    from lakehouse.settings import Settings

# Before any record of a broker, one without a timestamp (1 ms before 1970) included.
BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)


@dataclass
class Result:
    """Records by what became of them. corrected: rows of Silver that had to give way."""

    pending: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    corrected: int = 0


@click.command("reconcile")
@click.option(
    "--since",
    metavar="TIME",
    help="Look again at what came to the broker from then on (ISO-8601), too.",
)
@click.option("--full", is_flag=True, help="Look at all of Bronze.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options
def reconcile(since: str | None, full: bool, as_json: bool, settings: Settings) -> None:
    """Give every pending record of the closed range its outcome."""
    from lakehouse import contracts
    from lakehouse.locks import held
    from lakehouse.progress import doing
    from lakehouse.session import spark as make_session

    if full and since:
        raise click.UsageError("--full and --since: one of them")
    begin = BEGINNING if full else moment(since, "--since") if since else None
    loaded = contracts.load(settings.contracts_dir)
    with held(settings, "reconcile", "reconcile of silver.events"):
        with doing("starting Spark"):
            spark = make_session(settings, "reconcile")
        with doing("reconciling"):
            result = reconcile_range(spark, settings, loaded, begin)
    if as_json:
        click.echo(json.dumps(asdict(result)))
        return
    click.echo(describe(result))


def describe(result: Result) -> str:
    return (
        f"{result.pending:,} pending records: {result.accepted:,} accepted late, "
        f"{result.quarantined:,} quarantined, {result.duplicates:,} duplicates; "
        f"{result.corrected:,} rows of Silver corrected"
    )


def reconcile_range(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    since: datetime | None = None,
) -> Result:
    """Reconciles up to what every query has committed.

    From the last run's end on, and of what came to the broker since a moment, all of it again.
    """
    from pyspark.sql import functions as F

    from lakehouse import runs, tables
    from lakehouse.silver import COORDINATES, classify

    with runs.recorded(spark, settings, "reconcile") as run:
        end = committed_by_all(spark, settings)
        closed = runs.closed_range(spark, settings)
        if since is None:
            looked_at = within(closed, end)
        else:
            # What is open in any case; of the closed range, whole days at a time are left out.
            looked_at = within(closed, end) | (
                within({}, end)
                & (F.col("timestamp") >= since)
                & (F.col("date") >= since.astimezone(UTC).date())
            )
        table = tables.silver(contracts)
        tables.ensure(spark, settings, table)
        bronze = tables.read(spark, settings, tables.bronze()).where(looked_at)
        silver = tables.read(spark, settings, table)
        pending = bronze.join(silver.select(*COORDINATES), COORDINATES, "left_anti")
        # Materialised, not cached: a cache is planned anew when the table below it changes.
        rows = classify(
            pending, contracts, settings.stream.max_record_bytes, "reconcile"
        ).localCheckpoint()
        changes = decide(rows, silver, silver.where(looked_at)).localCheckpoint()
        inserts = _inserts(rows, changes)
        moved = changes.where(F.col("existing") & F.col("action").isin("delete", "conflict"))
        result = _count(rows, changes)
        if result.corrected:
            _merge(spark, settings, contracts, inserts, moved)
        elif result.accepted + result.quarantined:
            tables.append(inserts, settings, table)
        run.rows = result.accepted + result.quarantined + result.corrected
        run.offsets = closed | end
        run.details = asdict(result)
        run.written = {table.full_name: tables.version(spark, settings, table)}
    return result


def decide(rows: DataFrame, silver: DataFrame, recent: DataFrame) -> DataFrame:
    """What becomes of every good pending row, and of accepted ones that stand in its way.

    rows: pending records as rows of silver.events. silver: the table; recent: its rows of the
    range, whose ids are looked at for doubles. Returns source, id, coordinates, existing (already
    in Silver) and action: keep, accept, duplicate, delete, conflict.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from lakehouse.silver import ACCEPTED, COORDINATES

    identity = ["source", "id"]
    columns = [*identity, *COORDINATES, "timestamp", "digest"]
    good = F.col("outcome") == ACCEPTED
    keys = rows.where(good).select(*identity).union(recent.where(good).select(*identity))
    existing = silver.where(good).select(*columns).join(keys.distinct(), identity, "left_semi")
    candidates = (
        rows.where(good)
        .select(*columns, F.lit(False).alias("existing"))
        .union(existing.withColumn("existing", F.lit(True)))
    )
    one_id = Window.partitionBy(*identity)
    order = [F.col("timestamp"), *(F.col(name) for name in COORDINATES)]
    same = F.col("digest") == F.first("digest").over(one_id.orderBy(*order))
    standing = one_id.orderBy(F.col("same").desc(), F.col("existing").desc(), *order)
    there = F.col("existing")
    action = (
        F.when(F.col("rank") == 1, F.when(there, "keep").otherwise("accept"))
        .when(F.col("same"), F.when(there, "delete").otherwise("duplicate"))
        .otherwise("conflict")
    )
    return (
        candidates.withColumn("count", F.count("*").over(one_id))
        .where(~there | (F.col("count") > 1))
        .withColumn("same", same)
        .withColumn("rank", F.row_number().over(standing))
        .withColumn("action", action)
        .select(*identity, *COORDINATES, "existing", "action")
    )


def _count(rows: DataFrame, changes: DataFrame) -> Result:
    outcomes = {row.outcome: row["count"] for row in rows.groupBy("outcome").count().collect()}
    actions = {
        (row.existing, row.action): row["count"]
        for row in changes.groupBy("existing", "action").count().collect()
    }
    return Result(
        pending=sum(outcomes.values()),
        accepted=actions.get((False, "accept"), 0),
        quarantined=outcomes.get("quarantined", 0) + actions.get((False, "conflict"), 0),
        duplicates=actions.get((False, "duplicate"), 0),
        corrected=actions.get((True, "delete"), 0) + actions.get((True, "conflict"), 0),
    )


def _as_conflict(rows: DataFrame, when: Column) -> DataFrame:
    """Rows of silver.events with those for which `when` holds quarantined; `value` is their raw."""
    from pyspark.sql import functions as F

    from lakehouse.silver import CONFLICT, QUARANTINED, SILVER_COLUMNS

    changed = {
        "outcome": F.lit(QUARANTINED),
        "violations": F.array(F.lit(CONFLICT)),
        "written_by": F.lit("reconcile"),
        "raw": F.col("value"),
    }
    entities = [c for c in rows.columns if c not in {*SILVER_COLUMNS, "value", "action"}]
    changed |= {name: F.lit(None) for name in entities}
    return rows.withColumns(
        {name: F.when(when, new).otherwise(F.col(name)) for name, new in changed.items()}
    )


def _inserts(rows: DataFrame, changes: DataFrame) -> DataFrame:
    """The rows that pending records become: bad ones as they are, good ones as decided."""
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES, QUARANTINED

    actions = changes.where(~F.col("existing")).select(*COORDINATES, "action")
    kept = rows.join(actions, COORDINATES, "left").where(
        (F.col("outcome") == QUARANTINED) | F.col("action").isin("accept", "conflict")
    )
    conflict = F.coalesce(F.col("action") == "conflict", F.lit(False))
    return _as_conflict(kept, conflict).drop("value", "action")


def _merge(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    inserts: DataFrame,
    moved: DataFrame,
) -> None:
    """Inserts, and rows of Silver that give way, in one commit. Raises TableError."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from lakehouse import tables
    from lakehouse.silver import COORDINATES

    table = tables.silver(contracts)
    columns = list(table.columns)
    values = tables.read(spark, settings, tables.bronze()).select(*COORDINATES, "value")
    on = " AND ".join(f"old.{name} = new.{name}" for name in COORDINATES)
    changed = {name: f"new.`{name}`" for name in columns}

    def attempt() -> None:
        current = tables.read(spark, settings, table).select(*columns)
        losers = current.join(moved.select(*COORDINATES, "action"), COORDINATES)
        losers = losers.join(values, COORDINATES, "left")
        losers = _as_conflict(losers, F.col("action") == "conflict")
        source = losers.select(*columns, "action").union(
            inserts.select(*columns).withColumn("action", F.lit("insert"))
        )
        # Constants, so that a commit of the stream into another day's files is no conflict.
        days = [row.date for row in losers.select("date").distinct().collect()]
        among = ", ".join(f"DATE '{day}'" for day in sorted(days))
        (
            DeltaTable.forPath(spark, table.path(settings))
            .alias("old")
            .merge(source.alias("new"), f"old.date IN ({among}) AND {on}")
            .whenMatchedDelete("new.action = 'delete'")
            .whenMatchedUpdate("new.action = 'conflict'", dict(changed))
            .whenNotMatchedInsert("new.action = 'insert'", dict(changed))
            .execute()
        )

    tables.merge(settings, table, attempt)


def committed_by_all(spark: SparkSession, settings: Settings) -> Offsets:
    """The end of the range that every query has committed, by topic and partition."""
    from lakehouse import checkpoints

    ends = [
        checkpoints.committed(checkpoints.SparkFiles(spark, settings, query))
        for query in checkpoints.QUERIES
    ]
    shared = set.intersection(*(set(end) for end in ends))
    return {key: min(end[key] for end in ends) for key in shared}


def within(begin: Offsets, end: Offsets) -> Column:
    """Rows with begin <= offset < end, by topic and partition."""
    from lakehouse import gaps

    return gaps.within(gaps.Gap(*key, begin.get(key, 0), last) for key, last in end.items())


if __name__ == "__main__":
    run(reconcile, sys.argv[1:])
