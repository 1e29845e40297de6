"""What becomes of records that have no outcome yet, or whose outcome is to be found anew.

Events that share (source, id) are put in order by the broker's timestamp, then by coordinates. The
first one's content stands; the same content again is a duplicate and leaves no row; other content
is a conflict, and is quarantined as one, be it pending or accepted before by the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from lakehouse.contracts import Contracts
    from lakehouse.kafka import Offsets
    from lakehouse.settings import Settings

# By the CloudEvents standard, what identifies an event.
IDENTITY = ["source", "id"]


@dataclass
class Result:
    """Records by what became of them. corrected: rows of Silver that had to give way."""

    pending: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    corrected: int = 0


@dataclass
class Judged:
    """What was found, the rows of silver.events written, and the table's version after that.

    kept_out: of the rows that were there before, those that were quarantined, or are now:
    coordinates, `was` (what for, empty for none), outcome (duplicate, too) and violations. waiting:
    by topic and partition, the first record that was left pending.
    """

    result: Result
    rows: int
    version: int
    kept_out: DataFrame | None = None
    waiting: Offsets = field(default_factory=dict)


def judge(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    looked_at: Column,
    committed: Column,
    by: str,
    again: DataFrame | None = None,
    who: str = "",
) -> Judged:
    """Gives every record of a range that has no row in Silver its outcome, in one commit.

    looked_at, committed: conditions on rows of Bronze; the range, and all that every query has
    committed. by: which job writes, kept with the rows. who: who has it done, for ops.repairs; the
    job where left out. again: coordinates whose rows of Silver do not count: their records are
    judged as if they were new, and the rows become what comes of that; rows without a record in
    Bronze stay. Rows that stay what they are, are not written.

    Where an accepted event gives way, its copies that left no row want one now, and what was in
    conflict with it may be none any more: both are judged with it, wherever in Bronze they are.

    Where one would have to give way that Silver has and Bronze has not got yet, who stands against
    it is left pending until Bronze has it.
    """
    from pyspark.sql import functions as F

    from lakehouse import erasures, repairs, tables
    from lakehouse.silver import ACCEPTED, COORDINATES, classify

    narrow = again is None
    table = tables.silver(contracts)
    tables.ensure(spark, settings, table)
    records = erasures.without(spark, settings, tables.read(spark, settings, tables.bronze()))
    bronze = repairs.applied(spark, settings, records)
    silver = tables.read(spark, settings, table)
    closed = records.where(committed).select(*COORDINATES)
    if again is not None:
        again = _with_conflicts(silver, again).join(closed, COORDINATES, "left_semi")
        again = again.localCheckpoint()
    gives_way = F.col("existing") & F.col("action").isin("delete", "conflict")
    # What was erased cannot be judged again: it stands.
    gone = erasures.erased(spark, settings)
    firm = None if gone is None else gone.select(*COORDINATES)
    # Who stood among those that do not count: of several copies it is to stand again.
    stood = None
    if again is not None:
        good = silver.where(F.col("outcome") == ACCEPTED)
        stood = good.join(again, COORDINATES, "left_semi").select(*COORDINATES).distinct()
    yielding = unread = None
    waiting: Offsets = {}
    while True:
        standing = silver if again is None else silver.join(again, COORDINATES, "left_anti")
        # Doubles among rows that stand are a reconcile's to find.
        recent = standing.where(looked_at if narrow else F.lit(False))
        pending = bronze.where(looked_at if again is None else committed)
        pending = pending.join(standing.select(*COORDINATES), COORDINATES, "left_anti")
        # Materialised, not cached: a cache is planned anew when the table below it changes.
        rows = classify(pending, contracts, settings.stream.max_record_bytes, by).localCheckpoint()
        if narrow and yielding is not None:
            of_them = yielding.withColumn("yields", F.lit(True))
            rows = rows.join(of_them, IDENTITY, "left").where(looked_at | F.col("yields"))
            rows = rows.drop("yields").localCheckpoint()
            assert again is not None
            # What was repaired since, and is another event by that, keeps its row until a replay.
            again = again.join(rows.select(*COORDINATES), COORDINATES, "left_semi")
            again = again.localCheckpoint()
        if unread is not None:
            waits = F.coalesce("waits", F.lit(False)) & (F.col("outcome") == ACCEPTED)
            rows = rows.join(unread.withColumn("waits", F.lit(True)), IDENTITY, "left")
            waiting = _firsts(rows.where(waits))
            if again is not None:
                # Those that have a row keep it meanwhile.
                kept = rows.where(waits).select(*COORDINATES)
                again = again.join(kept, COORDINATES, "left_anti").localCheckpoint()
                standing = silver.join(again, COORDINATES, "left_anti")
                recent = standing.where(looked_at if narrow else F.lit(False))
            rows = rows.where(~waits).drop("waits").localCheckpoint()
        changes = decide(rows, standing, recent, firm, stood).localCheckpoint()
        moved = changes.where(gives_way)
        losing = moved.where("action = 'conflict'")
        if yielding is not None or losing.isEmpty():
            break
        # Once more, with all that has to do with these events: copies that left no row, conflicts
        # with them; and without those whose content is in Silver alone, which cannot give way.
        yielding = losing.select(*IDENTITY).distinct().localCheckpoint()
        lost = losing.join(records.select(*COORDINATES), COORDINATES, "left_anti")
        unread = lost.where(~committed).select(*IDENTITY).distinct().localCheckpoint()
        lost = lost.where(committed).select(*COORDINATES)
        firm = (lost if firm is None else lost.union(firm)).distinct().localCheckpoint()
        met = _conflicts_of(silver, yielding).join(closed, COORDINATES, "left_semi")
        again = met if again is None else again.unionByName(met).distinct()
        again = again.localCheckpoint()
    inserts = tables.conform(_inserts(rows, changes, by), silver.schema)
    result = _count(rows, changes)
    written = result.accepted + result.quarantined
    kept_out = None
    # First what an earlier run may have left unsaid: what is announced now hides it.
    repairs.note(spark, settings, contracts)
    if again is not None or result.corrected:
        losers = silver.join(moved.select(*COORDINATES, "action"), COORDINATES)
        values = bronze.select(*COORDINATES, "value")
        conflicts = losers.where("action = 'conflict'").join(values, COORDINATES, "left")
        new = inserts.unionByName(_as_conflict(conflicts, F.lit(True), by).select(*inserts.columns))
        gone = moved.select(*COORDINATES)
        gone = gone if again is None else gone.unionByName(again)
        scope = silver.join(gone.distinct(), COORDINATES, "left_semi").select(*inserts.columns)
        kept_out = repairs.announce(spark, settings, scope, new, who or by)
        written = _replace(spark, settings, contracts, new, scope)
        repairs.note(spark, settings, contracts)
    elif written:
        tables.append(inserts, settings, table)
    version = tables.version(spark, settings, table)
    return Judged(result, written, version, kept_out, waiting)


def _firsts(rows: DataFrame) -> Offsets:
    """The smallest offset by topic and partition."""
    from pyspark.sql import functions as F

    found = rows.groupBy("topic", "partition").agg(F.min("offset").alias("first")).collect()
    return {(row.topic, row.partition): row.first for row in found}


def _conflicts_of(silver: DataFrame, events: DataFrame) -> DataFrame:
    """Coordinates of what is quarantined as a conflict with events, which are source and id."""
    from pyspark.sql import functions as F

    from lakehouse.silver import CONFLICT, COORDINATES

    conflicts = silver.where(F.array_contains("violations", CONFLICT))
    return conflicts.join(events, IDENTITY, "left_semi").select(*COORDINATES)


def _with_conflicts(silver: DataFrame, again: DataFrame) -> DataFrame:
    """The coordinates, and those of conflicts with what is accepted there: it may give way."""
    from pyspark.sql import functions as F

    from lakehouse.silver import ACCEPTED, COORDINATES

    wanted = again.select(*COORDINATES)
    stood = silver.where(F.col("outcome") == ACCEPTED).join(wanted, COORDINATES, "left_semi")
    met = _conflicts_of(silver, stood.select(*IDENTITY))
    return wanted.unionByName(met).distinct()


def decide(
    rows: DataFrame,
    silver: DataFrame,
    recent: DataFrame,
    firm: DataFrame | None = None,
    stood: DataFrame | None = None,
) -> DataFrame:
    """What becomes of every good pending row, and of accepted ones that stand in its way.

    rows: pending records as rows of silver.events. silver: the table; recent: its rows of the
    range, whose ids are looked at for doubles. firm: coordinates of rows of Silver that cannot give
    way; they stand before any other. stood: those of pending ones that were accepted before; of
    copies that are the same, such a one stands. Returns source, id, coordinates, existing (already
    in Silver) and action: keep, accept, duplicate, delete, conflict.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from lakehouse.silver import ACCEPTED, COORDINATES

    columns = [*IDENTITY, *COORDINATES, "timestamp", "digest"]
    good = F.col("outcome") == ACCEPTED
    keys = rows.where(good).select(*IDENTITY).union(recent.where(good).select(*IDENTITY))
    existing = silver.where(good).select(*columns).join(keys.distinct(), IDENTITY, "left_semi")
    existing = existing.dropDuplicates(COORDINATES)  # the audit's to find
    is_firm = F.lit(False).alias("firm")
    if firm is not None:
        marked = firm.select(*COORDINATES).withColumn("firm", F.lit(True))
        existing = existing.join(marked, COORDINATES, "left")
        is_firm = F.coalesce("firm", F.lit(False)).alias("firm")
    pending = rows.where(good).select(*columns)
    was_there = F.lit(False).alias("stood")
    if stood is not None:
        marked = stood.withColumn("stood", F.lit(True))
        pending = pending.join(marked, COORDINATES, "left")
        was_there = F.coalesce("stood", F.lit(False)).alias("stood")
    is_new = F.lit(False).alias("existing"), F.lit(False).alias("firm"), was_there
    is_there = F.lit(True).alias("existing"), is_firm, F.lit(True).alias("stood")
    candidates = pending.select(*columns, *is_new).union(existing.select(*columns, *is_there))
    one_id = Window.partitionBy(*IDENTITY)
    order = [F.col("firm").desc(), F.col("timestamp"), *(F.col(name) for name in COORDINATES)]
    same = F.col("digest") == F.first("digest").over(one_id.orderBy(*order))
    held = (F.col(name).desc() for name in ("same", "existing", "stood"))
    standing = one_id.orderBy(*held, *order)
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
        .select(*IDENTITY, *COORDINATES, "existing", "action")
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


def _as_conflict(rows: DataFrame, when: Column, by: str) -> DataFrame:
    """Rows of silver.events with those for which `when` holds quarantined; `value` is their raw."""
    from pyspark.sql import functions as F

    from lakehouse.silver import CONFLICT, QUARANTINED, SILVER_COLUMNS

    changed = {
        "outcome": F.lit(QUARANTINED),
        "violations": F.array(F.lit(CONFLICT)),
        "written_by": F.lit(by),
        "raw": F.col("value"),
        "rescued": F.lit(None),
    }
    entities = [c for c in rows.columns if c not in {*SILVER_COLUMNS, "value", "action"}]
    changed |= {name: F.lit(None) for name in entities}
    return rows.withColumns(
        {name: F.when(when, new).otherwise(F.col(name)) for name, new in changed.items()}
    )


def _inserts(rows: DataFrame, changes: DataFrame, by: str) -> DataFrame:
    """The rows that pending records become: bad ones as they are, good ones as decided."""
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES, QUARANTINED

    actions = changes.where(~F.col("existing")).select(*COORDINATES, "action")
    kept = rows.join(actions, COORDINATES, "left").where(
        (F.col("outcome") == QUARANTINED) | F.col("action").isin("accept", "conflict")
    )
    conflict = F.coalesce(F.col("action") == "conflict", F.lit(False))
    return _as_conflict(kept, conflict, by).drop("value", "action")


def _replace(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    rows: DataFrame,
    scope: DataFrame,
) -> int:
    """Rows of silver.events in the place of those of `scope`; returns how many were written.

    A row that differs in nothing but who wrote it stays. Raises TableError.
    """
    from pyspark.sql import functions as F

    from batch.merge import bring
    from lakehouse import tables
    from lakehouse.silver import COORDINATES

    table = tables.silver(contracts)
    content = F.struct(*(name for name in table.columns if name != "written_by"))
    old = scope.select(*COORDINATES, content.alias("was"), F.col("written_by").alias("wrote"))
    old = old.dropDuplicates(COORDINATES)
    kept = content.eqNullSafe(F.col("was"))
    writer = F.when(kept, F.col("wrote")).otherwise(F.col("written_by"))
    new = rows.join(old, COORDINATES, "left").withColumn("written_by", writer)
    # What somebody has written twice becomes one row again.
    difference = bring(spark, settings, table, tuple(COORDINATES), new, scope, mend=True)
    return difference.rows


def committed_by_all(spark: SparkSession, settings: Settings) -> Offsets:
    """The end of the range that every query has committed, by topic and partition.

    Empty until both have committed something. Raises StreamError where it is empty again.
    """
    from lakehouse import checkpoints, runs
    from lakehouse.errors import StreamError

    ends = [
        checkpoints.committed(checkpoints.SparkFiles(spark, settings, query))
        for query in checkpoints.QUERIES
    ]
    shared = set.intersection(*(set(end) for end in ends))
    if not shared and runs.closed_range(spark, settings):
        raise StreamError(
            "a reconcile has closed a range before, and now the streams' checkpoints (in "
            f"{settings.checkpoints}) say of no record that both are through with it: start "
            "`headwater stream` first"
        )
    return {key: min(end[key] for end in ends) for key in shared}


def within(begin: Offsets, end: Offsets) -> Column:
    """Rows with begin <= offset < end, by topic and partition."""
    from lakehouse import gaps

    return gaps.within(gaps.Gap(*key, begin.get(key, 0), last) for key, last in end.items())
