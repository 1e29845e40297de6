"""The Delta tables: their names and places, how they are made, read and appended to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from lakehouse import catalog, metrics
from lakehouse.compatibility import widens
from lakehouse.contracts import Contracts
from lakehouse.delta_log import DeltaLog
from lakehouse.errors import TableError
from lakehouse.layouts import Layout, Layouts
from lakehouse.locks import turn
from lakehouse.settings import Settings
from lakehouse.sql import quoted

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType, StructType

BRONZE_SCHEMA = {
    "topic": "string",
    "partition": "int",
    "offset": "bigint",
    "timestamp": "timestamp",
    "timestamp_type": "int",
    "key": "binary",
    "value": "binary",
    "headers": "array<struct<key: string, value: binary>>",
    "date": "date",
    "hour": "int",
}
RUNS_SCHEMA = {
    "run_id": "string",
    "job": "string",
    "started_at": "timestamp",
    "ended_at": "timestamp",
    "result": "string",
    "rows": "bigint",
    "offsets": "array<struct<topic: string, partition: int, offset: bigint>>",
    "details": "string",
    "read": "map<string, bigint>",
    "written": "map<string, bigint>",
    "commits": "map<string, string>",
}

GAPS_SCHEMA = {
    "query": "string",
    "topic": "string",
    "partition": "int",
    "begin": "bigint",
    "end": "bigint",
    "accepted_at": "timestamp",
    "why": "string",
}

REPAIRS_SCHEMA = {
    "topic": "string",
    "partition": "int",
    "offset": "bigint",
    "at": "timestamp",
    "by": "string",
    "action": "string",
    "note": "string",
    "was": "array<string>",
    "outcome": "string",
    "violations": "array<string>",
    "payload": "binary",
}


QUALITY_SCHEMA = {
    "checked_at": "timestamp",
    "table": "string",
    "version": "bigint",
    "committed": "bigint",
    "suite": "string",
    "rows": "bigint",
    "expectations": "int",
    "score": "double",
    "broken": "array<struct<what: string, critical: boolean, rows: bigint>>",
    "metrics": "map<string, double>",
    "anomalies": "array<string>",
}

ERASURES_SCHEMA = {
    "topic": "string",
    "partition": "int",
    "offset": "bigint",
    "outcome": "string",
    "request": "string",
    "by": "string",
    "at": "timestamp",
}


@dataclass(frozen=True)
class Table:
    """A table by its two names, its columns (name to Spark SQL type) and how it is laid out."""

    layer: str
    name: str
    columns: dict[str, str]
    partitions: tuple[str, ...] = ()
    properties: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f"{self.layer}.{self.name}"

    def path(self, settings: Settings) -> str:
        return f"{settings.tables}/{self.layer}/{self.name}"


# What every commit of Headwater says of itself: one that does not was made by hand.
MARK = "headwater"
# A merge is tried so often where another writer's commit came between.
ATTEMPTS = 10
# Operations of anybody that leave the rows as they are.
KEEP_ROWS = frozenset({"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES"})
# Gold and publish read what changed between two versions.
CHANGE_FEED = {"delta.enableChangeDataFeed": "true"}
# Statistics are kept for the columns that a reader prunes by: the others cost a third of a commit.
STATISTICS = "delta.dataSkippingStatsColumns"
# Columns can be given wider types (Delta's type widening).
WIDENING = "delta.enableTypeWidening"
# Which topic a table was written from: an offset means nothing in another one of the same name.
TOPIC_ID = "headwater.topicId."


def bronze() -> Table:
    """Every record as the broker gave it: bytes, headers, coordinates. By streaming.bronze."""
    stats = {STATISTICS: "topic,partition,offset,timestamp"}
    return Table("bronze", "events", BRONZE_SCHEMA, ("date", "hour"), stats)


def bronze_rows(records: DataFrame) -> DataFrame:
    """Raw records with the partition columns: date and hour of the broker's timestamp, UTC."""
    from pyspark.sql import functions as F

    return records.withColumns({"date": F.to_date("timestamp"), "hour": F.hour("timestamp")})


def silver(contracts: Contracts) -> Table:
    """Every record's outcome, typed where accepted. By streaming.silver and batch.judge."""
    from lakehouse.silver import silver_schema

    stats = {STATISTICS: "topic,partition,offset,timestamp,entity,outcome,time"}
    return Table("silver", "events", silver_schema(contracts), ("date",), stats | CHANGE_FEED)


def minutes() -> Table:
    """Accepted events by the minute of their own time. By streaming.metrics.

    date: that of the minute, UTC. window_start: of the stream's window, which is the minute but for
    events that were ahead of the stream's clock; what such a one had too much is taken off in the
    window of then, so that all rows of a minute are to be added up.
    """
    moments = {"minute": "timestamp", "window_start": "timestamp", "date": "date"}
    columns = moments | dict.fromkeys(metrics.KEYS, "string")
    stats = {STATISTICS: ",".join(("minute", *metrics.KEYS))}
    return Table(*metrics.MINUTES, columns | metrics.MEASURES, ("date",), stats)


def gold(layout: Layout) -> Table:
    """A table of Gold, by its contract. By batch.gold."""
    columns = {column.name: column.spark_type for column in layout.columns}
    # The log of a table keeps the smallest and largest value of a column longer than its rows.
    kept = [
        column.name
        for column in layout.columns
        if not column.pii
        and column.spark_type != "boolean"
        and column.name not in layout.partition_by
    ]
    stats = {STATISTICS: ",".join(kept)}
    return Table("gold", layout.name, columns, layout.partition_by, stats | CHANGE_FEED)


def runs() -> Table:
    """What the batch jobs did: one row a run. By lakehouse.runs.

    offsets: up to where a reconcile closed the range. read, written: versions of tables by name.
    commits: of those that the next run goes on from, Delta's names of their commits.
    """
    return Table("ops", "runs", RUNS_SCHEMA)


def gaps() -> Table:
    """Offsets that Bronze does not have, and why that is as it should be. By lakehouse.gaps.

    begin, end: the first offset of the gap, and the first one after it. why: as lakehouse.gaps has
    it; null in rows of an older version is `expired`.
    """
    return Table("ops", "gaps", GAPS_SCHEMA)


def repairs() -> Table:
    """What was done about quarantined records: one row an action. By batch.quarantine.

    action: repaired (payload: the bytes in the record's place), replaying (outcome and violations:
    what is about to come of it), then replayed (what did) or abandoned (by a run that died). was:
    what the record was quarantined for until then.
    """
    # Notes and payloads are not for the log.
    stats = {STATISTICS: "topic,partition,offset"}
    return Table("ops", "repairs", REPAIRS_SCHEMA, (), stats)


def quality() -> Table:
    """What tables of Gold were worth: one row a table and check. By batch.quality.

    committed: when the version was, ms since 1970. suite: a hash of what was expected. score: 0 to
    100. broken: expectations, and how many rows break each. metrics: what anomalies are looked for
    in.
    """
    stats = {STATISTICS: "checked_at,table,version"}
    return Table("ops", "quality", QUALITY_SCHEMA, (), stats)


def erasures() -> Table:
    """Records whose content was erased, and what had become of them: one row each. By batch.erase.

    request: the one that `headwater erase` answered with a proof, which is in ops.runs.
    """
    return Table("ops", "erasures", ERASURES_SCHEMA)


def all_tables(contracts: Contracts, layouts: Layouts) -> list[Table]:
    """Every table there is or will be."""
    stars = [gold(layout) for layout in layouts.gold]
    ops = [runs(), quality(), gaps(), repairs(), erasures()]
    return [bronze(), silver(contracts), minutes(), *stars, *ops]


def of_topics(table: Table, ids: dict[str, str]) -> Table:
    """The table as one that is written from these topics, by name to the broker's id."""
    marks = {f"{TOPIC_ID}{topic}": name for topic, name in ids.items()}
    return dataclasses.replace(table, properties=table.properties | marks)


def topics_of(properties: Mapping[str, str]) -> dict[str, str]:
    """The topics that a table was written from, by name to the id that they had."""
    return {
        key.removeprefix(TOPIC_ID): value
        for key, value in properties.items()
        if key.startswith(TOPIC_ID)
    }


def made_anew(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A line for each topic that has another id now than when a table was written from it.

    then, now: ids by topic.
    """
    return [
        f"topic {topic} was deleted and made anew since the table was written from it (id "
        f"{then[topic]} then, {now[topic]} now): its offsets begin again and would be taken for "
        "those that are there; use another name for the new topic (topics.events), or another "
        "data folder (--data)"
        for topic in sorted(then.keys() & now)
        if then[topic] != now[topic]
    ]


def ensure(spark: SparkSession, settings: Settings, table: Table) -> bool:
    """Makes the table where it is missing; adds columns that it lacks, widens those that the
    contracts widened. True if it was made.

    Raises TableError where a column has a type that does not hold what the contracts say, and where
    the table was written from another topic of the same name.
    """
    from delta.tables import DeltaTable

    path = table.path(settings)
    if not DeltaTable.isDeltaTable(spark, path):
        DeltaLog(spark, path).remove_unfinished()
        builder = DeltaTable.createIfNotExists(spark).location(path)
        for name, kind in table.columns.items():
            builder = builder.addColumn(name, kind)
        for key, value in table.properties.items():
            builder = builder.property(key, value)
        builder.partitionedBy(*table.partitions).execute()
        return True
    quoted = quoted_path(path)
    properties = properties_of(spark, path)
    lacking = {k: v for k, v in table.properties.items() if properties.get(k) != v}
    for line in made_anew(topics_of(properties), topics_of(table.properties)):
        raise TableError(f"{table.full_name} ({path}): {line}")
    changes = _changes(spark, path, table)
    if any(there is not None for _, _, there in changes) and WIDENING not in properties:
        # Not before it is needed: it keeps other readers of Delta tables away.
        set_properties(spark, quoted, {WIDENING: "true"})
    for column, kind, there in changes:
        if there is None:
            spark.sql(f"ALTER TABLE {quoted} ADD COLUMNS ({column} {kind})")
        else:
            spark.sql(f"ALTER TABLE {quoted} ALTER COLUMN {column} TYPE {kind}")
    if lacking:
        # Last: statistics name columns, which have to be there.
        set_properties(spark, quoted, lacking)
    return False


def commit_id(spark: SparkSession, settings: Settings, table: Table, version: int) -> str | None:
    """What Delta calls the transaction of a version; None where its commit is not kept any more.

    A number alone does not tell a table from another one that was made anew in its place.
    """
    return DeltaLog(spark, table.path(settings)).commit(version).get("txnId")


def transaction(spark: SparkSession, settings: Settings, table: Table, app: str) -> int | None:
    """The last batch of a query that the table holds (checkpoints.application); None where it has
    none, or its log does not say."""
    return DeltaLog(spark, table.path(settings)).transaction(app)


def is_there(spark: SparkSession, settings: Settings, table: Table) -> bool:
    from delta.tables import DeltaTable

    return bool(DeltaTable.isDeltaTable(spark, table.path(settings)))


def properties_of(spark: SparkSession, path: str) -> dict[str, str]:
    """The properties of the table at a path."""
    from delta.tables import DeltaTable

    log = DeltaLog(spark, path)
    newest = log.newest()
    metadata = {} if newest is None else log.checksum(newest).get("metadata", {})
    if "configuration" in metadata:
        return dict(metadata["configuration"])
    # SHOW TBLPROPERTIES would mask the id of a topic that Spark takes for a secret by its letters.
    detail = DeltaTable.forPath(spark, path).detail()
    return dict(detail.select("properties").collect()[0].properties)


def set_properties(spark: SparkSession, quoted: str, properties: dict[str, str]) -> None:
    """Sets properties of a table. quoted: its path as it stands in SQL."""
    listed = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
    spark.sql(f"ALTER TABLE {quoted} SET TBLPROPERTIES ({listed})")


def check(spark: SparkSession, settings: Settings, table: Table) -> None:
    """Raises TableError where a column of a table that is there is missing, or of another type."""
    path = table.path(settings)
    for column, kind, there in _changes(spark, path, table):
        is_what = "is missing" if there is None else f"is {there} as yet"
        raise TableError(
            f"{table.full_name} ({path}): column {column} ({kind}) {is_what}: start the stream, "
            "which brings the table to the contracts; if it was there before, put it back"
        )


def can_take(spark: SparkSession, settings: Settings, table: Table) -> None:
    """Raises TableError where `ensure` would refuse a table that is there for its types."""
    from delta.tables import DeltaTable

    path = table.path(settings)
    if DeltaTable.isDeltaTable(spark, path):
        _changes(spark, path, table)


Change = tuple[str, str, str | None]


def _changes(spark: SparkSession, path: str, table: Table) -> list[Change]:
    """Columns and inner columns that a table lacks, or has in a narrower type: their names for
    SQL, their types, and the type that is there. Raises TableError.
    """
    from pyspark.sql.types import StructType

    ddl = ", ".join(f"`{name}` {kind}" for name, kind in table.columns.items())
    wanted_types = {field.name: field.dataType for field in _struct(ddl).fields}
    there = {field.name: field.dataType for field in spark.read.format("delta").load(path).schema}
    changes: list[Change] = []
    for name, kind in table.columns.items():
        wanted, found = wanted_types[name], there.get(name)
        if found is None:
            changes.append((f"`{name}`", kind, None))
        elif isinstance(wanted, StructType) and isinstance(found, StructType):
            old = {field.name: field.dataType.simpleString() for field in found.fields}
            for field in wanted.fields:
                inner = f"`{name}`.`{field.name}`"
                changes += _change(path, table, inner, old.get(field.name), field.dataType)
        else:
            changes += _change(path, table, f"`{name}`", found.simpleString(), wanted)
    return changes


def _change(
    path: str, table: Table, column: str, there: str | None, wanted: DataType
) -> list[Change]:
    kind = wanted.simpleString()
    # What is wider already holds it: the contracts went back to what they were.
    if there is not None and (there == kind or widens(kind, there)):
        return []
    if there is None or widens(there, kind):
        return [(column, kind, there)]
    raise TableError(
        f"{table.full_name} ({path}): column {column.replace('`', '')} is {there}, its contract "
        f"says {kind}, which does not hold every {there}: take the change back, or give the new "
        "values a column of another name (with the key in its physicalName)"
    )


def conform(rows: DataFrame, schema: StructType) -> DataFrame:
    """The rows with every struct as a table's schema has it.

    A table keeps the columns that a contract has no more, has new ones at its end, and wider ones
    than a contract that went back to what it was.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructType

    of_rows = {field.name: field.dataType for field in rows.schema}
    changed = {}
    for field in schema:
        kind, mine = field.dataType, of_rows.get(field.name)
        if not isinstance(kind, StructType) or not isinstance(mine, StructType):
            continue
        if kind.simpleString() == mine.simpleString():
            continue
        parts = [
            F.col(field.name).getField(inner.name).cast(inner.dataType).alias(inner.name)
            if inner.name in mine.names
            else F.lit(None).cast(inner.dataType).alias(inner.name)
            for inner in kind
        ]
        changed[field.name] = F.when(F.col(field.name).isNotNull(), F.struct(*parts))
    return rows.withColumns(changed)


def quoted_path(path: str) -> str:
    """A table by its path, for SQL."""
    return f"delta.{quoted(path)}"


def version(spark: SparkSession, settings: Settings, table: Table, known: int | None = None) -> int:
    """The table's newest version. known: one that it had, from which on it is looked for; else from
    its last checkpoint. Only where the log does not have that any more Spark reads it, which takes
    it some jobs.
    """
    from delta.tables import DeltaTable

    path = table.path(settings)
    if (found := DeltaLog(spark, path).newest(known)) is not None:
        return found
    history = DeltaTable.forPath(spark, path).history(1)
    return int(history.select("version").collect()[0].version)


def versions(
    spark: SparkSession,
    settings: Settings,
    wanted: Iterable[Table],
    known: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The newest version of each table, by the table's full name. known: versions that they had, as
    `version` takes them, by the same names; a table that is not there was just made."""
    from lakehouse.session import side_by_side

    def newest(table: Table) -> int:
        had = None if known is None else known.get(table.full_name, 0)
        return version(spark, settings, table, had)

    tables = list(wanted)
    found = side_by_side(newest, tables)
    return dict(zip((table.full_name for table in tables), found, strict=True))


class Version(NamedTuple):
    """A version of a table. committed: when it was, ms since 1970: another table in the same place
    may have a version of that number, and none of that moment."""

    number: int
    committed: int


def newest(spark: SparkSession, settings: Settings, table: Table) -> Version:
    """The table's newest version. Raises TableError where there is no table."""
    read(spark, settings, table)
    return _version_of(spark, settings, table, version(spark, settings, table))


def still_is(spark: SparkSession, settings: Settings, table: Table, was: Version) -> bool:
    """Whether that version is one of this table, and still known."""
    log = DeltaLog(spark, table.path(settings))
    return log.has(was.number) and _version_of(spark, settings, table, was.number) == was


def _version_of(spark: SparkSession, settings: Settings, table: Table, number: int) -> Version:
    at = DeltaLog(spark, table.path(settings)).commit(number).get("timestamp")
    if at is None:
        at = commits(spark, settings, table)[number]
    return Version(number, int(at))


def committed_at(spark: SparkSession, settings: Settings, table: Table, version: int) -> datetime:
    """When a version of the table was committed, UTC."""
    from datetime import UTC, datetime

    moment = _version_of(spark, settings, table, version).committed
    return datetime.fromtimestamp(moment / 1000, UTC)


def commits(spark: SparkSession, settings: Settings, table: Table) -> dict[int, int]:
    """When each version that is still known was committed, ms since 1970."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    history = DeltaTable.forPath(spark, table.path(settings)).history()
    moments = history.select("version", F.unix_millis("timestamp").alias("at")).collect()
    return {int(row.version): int(row["at"]) for row in moments}


def _version_at(
    spark: SparkSession, settings: Settings, table: Table, moment: datetime
) -> int | None:
    """The newest version that was committed by then; None where none is known."""
    known = commits(spark, settings, table)
    return max((v for v, at in known.items() if at <= moment.timestamp() * 1000), default=None)


def changes(
    spark: SparkSession, settings: Settings, table: Table, after: int, until: int
) -> DataFrame:
    """Rows that came or went between two versions, the first one left out.

    Returns the table's columns, `_change_type` (insert | update_preimage | update_postimage |
    delete) and `_commit_version`.
    """
    from pyspark.errors import AnalysisException

    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", after + 1).option("endingVersion", until)
    try:
        return reader.load(table.path(settings))
    except AnalysisException as error:
        said = str(error).splitlines()[0]
        why = "is not kept any more"
        if "INCOMPATIBLE" in said:
            why = "cannot be told, because a column was given a wider type"
        raise TableError(
            f"{table.full_name} ({table.path(settings)}): what changed between versions {after} "
            f"and {until} {why} ({said}): do it anew from all rows (`headwater gold --rebuild`, "
            "`headwater publish --full`)"
        ) from None


def newest_by_headwater(
    spark: SparkSession, settings: Settings, table: Table, after: int, until: int | None = None
) -> int:
    """The newest version, or `until`. Raises TableError where one after `after` was made by hand.

    By hand is every commit that does not carry MARK, unless it leaves the rows as they are.
    """
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    if DeltaLog(spark, table.path(settings)).newest(after) == after:
        return after if until is None else until

    commits = (
        DeltaTable.forPath(spark, table.path(settings))
        .history()
        .where(F.col("version") >= after)
        .orderBy("version")
        .select("version", "operation", "userMetadata")
        .collect()
    )
    newest = int(commits[-1].version) if commits else -1
    for commit in commits:
        if commit.version <= after or (until is not None and commit.version > until):
            continue
        if commit.userMetadata != MARK and commit.operation not in KEEP_ROWS:
            raise TableError(
                f"{table.full_name} ({table.path(settings)}): version {commit.version} is a change "
                f"by hand ({commit.operation}): go back with RESTORE TABLE … TO VERSION AS OF "
                f"{commit.version - 1}, or keep it; then `headwater gold --rebuild`"
            )
    return newest if until is None else until


def _struct(ddl: str) -> StructType:
    from pyspark.sql.types import StructType

    parsed = StructType.fromDDL(ddl)
    if not isinstance(parsed, StructType):
        raise TypeError(ddl)
    return parsed


def read(
    spark: SparkSession, settings: Settings, table: Table, version: int | None = None
) -> DataFrame:
    """The table, at a version where one is given. Raises TableError where it is missing."""
    from delta.tables import DeltaTable

    path = table.path(settings)
    if not DeltaTable.isDeltaTable(spark, path):
        first = "gold" if table.layer == "gold" else "stream --available-now"
        raise TableError(f"no table {table.full_name} at {path}: run `headwater {first}` first")
    reader = spark.read.format("delta")
    return (reader if version is None else reader.option("versionAsOf", version)).load(path)


def read_gold(spark: SparkSession, settings: Settings, layout: Layout, version: int) -> DataFrame:
    """A version of a table of Gold, the columns of its contract alone: one that the contract has no
    more stays in the table. Raises TableError where one is missing."""
    table = gold(layout)
    rows = read(spark, settings, table, version)
    if missing := [name for name in table.columns if name not in rows.columns]:
        raise TableError(
            f"{table.full_name} ({table.path(settings)}) has no column {', '.join(missing)} yet, "
            "which its contract knows: run `headwater gold` first"
        )
    return rows.select(*table.columns)


def later_than_all(spark: SparkSession, settings: Settings, table: Table, column: str) -> datetime:
    """Now, or a moment after the latest that a table has in a column: this machine's clock may have
    been put back, and what is newest is told by it.

    Asked before rows are appended, and not while they are: an append that reads the table is in the
    way of others.
    """
    from pyspark.sql import functions as F

    latest = F.max(F.unix_micros(column)).alias("micros")
    [row] = read(spark, settings, table).agg(latest).collect()
    after = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=(row.micros or 0) + 1)
    return max(datetime.now(UTC), after)


def create(rows: DataFrame, settings: Settings, table: Table) -> None:
    """Makes a table that is not there, with its rows, in one commit."""
    from pyspark.sql import functions as F

    spark = rows.sparkSession
    DeltaLog(spark, table.path(settings)).remove_unfinished()
    typed = (F.col(name).cast(kind).alias(name) for name, kind in table.columns.items())
    writer = rows.select(*typed).write.format("delta").partitionBy(*table.partitions)
    writer.options(**table.properties).mode("errorifexists").save(table.path(settings))


def append(
    rows: DataFrame,
    settings: Settings,
    table: Table,
    transaction: tuple[str, int] | None = None,
) -> None:
    """Appends the rows, in one commit.

    transaction: (app, version); the same one again changes nothing, whoever tries. The app names
    the table and the checkpoint's query id, so that a new checkpoint, whose batches count from 0
    again, is not taken for the old one.
    """
    writer = rows.select(*table.columns).write.format("delta").mode("append")
    if transaction is not None:
        app, version = transaction
        writer = writer.option("txnAppId", app).option("txnVersion", str(version))
    with turn(settings, table.full_name, alone=False):
        writer.save(table.path(settings))


def overwrite(rows: DataFrame, settings: Settings, table: Table) -> None:
    """Has the table hold these rows and no others, in one commit."""
    writer = rows.select(*table.columns).write.format("delta").mode("overwrite")
    with turn(settings, table.full_name, alone=True):
        writer.save(table.path(settings))


def merge(settings: Settings, table: Table, attempt: Callable[[], None]) -> None:
    """Calls `attempt`, which commits a MERGE, again where another writer's commit came between.

    Raises TableError where that happens ATTEMPTS times.
    """
    from lakehouse.retries import attempts

    def in_turn() -> None:
        with turn(settings, table.full_name, alone=True):
            attempt()

    between = _between()
    try:
        attempts(ATTEMPTS, *between)(in_turn)
    except between as error:
        raise TableError(
            f"{table.full_name} ({table.path(settings)}): {ATTEMPTS} attempts met commits of "
            "another writer; nothing was changed: run it again, or stop that one"
        ) from error


def _between() -> tuple[type[Exception], ...]:
    """What Delta raises where another writer's commit came first: in Python these have nothing in
    common, as they have in the JVM."""
    from delta import exceptions as delta

    return (
        delta.DeltaConcurrentModificationException,
        delta.ConcurrentAppendException,
        delta.ConcurrentDeleteDeleteException,
        delta.ConcurrentDeleteReadException,
        delta.ConcurrentTransactionException,
        delta.ConcurrentWriteException,
        delta.MetadataChangedException,
        delta.ProtocolChangedException,
    )


def _demand_location(spark: SparkSession, name: str, path: str) -> None:
    """Raises TableError where a name leads elsewhere: names in Unity Catalog outlive a session."""
    [detail] = spark.sql(f"DESCRIBE DETAIL {name}").select("location").collect()
    found, wanted = (
        place.removeprefix("file:").rstrip("/") for place in (str(detail.location), path)
    )
    if found != wanted:
        raise TableError(
            f"{name} leads to {detail.location}, and the table of these settings is at {path}: "
            f"DROP TABLE {name} (the files of an external table stay), and run it again"
        )


def register(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    as_of: datetime | None = None,
) -> list[str]:
    """Makes every table and view known to SQL by name; returns the names.

    `silver.<entity>` holds the accepted records of an entity, `silver.quarantine` those refused.
    as_of: tables are what they were then; one that was not there yet, or whose versions of then
    are not known any more, has no name. Not for Unity Catalog, where the names are everybody's.
    Raises TableError where a name is another table's there.
    """
    from delta.tables import DeltaTable

    in_unity = bool(settings.unity.catalog)
    for statement in catalog.functions(settings, contracts, layouts):
        spark.sql(statement)
    names = []
    for table in all_tables(contracts, layouts):
        path = table.path(settings)
        if not DeltaTable.isDeltaTable(spark, path):
            continue
        if not in_unity:
            # There they are the bundle's.
            spark.sql(f"CREATE DATABASE IF NOT EXISTS {catalog.named(settings, table.layer)}")
        name = catalog.named(settings, table.layer, table.name)
        if as_of is None:
            spark.sql(catalog.external_table(settings, table.layer, table.name, path))
            if in_unity:
                _demand_location(spark, name, path)
        elif (then := _version_at(spark, settings, table, as_of)) is not None:
            old = f"SELECT * FROM {quoted_path(path)} VERSION AS OF {then}"
            spark.sql(f"CREATE OR REPLACE VIEW {name} AS {old}")
        else:
            continue
        names.append(catalog.shown(settings, table.layer, table.name))
        layout = layouts.get(table.full_name)
        if layout is not None and (view := catalog.gold_view(settings, layout)):
            spark.sql(view)
            names.append(catalog.shown(settings, table.layer, table.name + catalog.MASKED))
    counted = [
        one for one in (metrics.HOURS, metrics.MINUTES) if catalog.shown(settings, *one) in names
    ]
    if counted:
        if not in_unity:
            spark.sql(f"CREATE DATABASE IF NOT EXISTS {catalog.named(settings, 'gold')}")
        spark.sql(catalog.serving_view(settings, *counted))
        names.append(catalog.shown(settings, *metrics.SERVING))
    if catalog.shown(settings, "silver", "events") not in names:
        return names
    events = spark.table(catalog.named(settings, "silver", "events")).schema
    there = set(events.names)
    # A table that an older version wrote has it once a stream has started.
    rescued = "rescued" if "rescued" in there else "CAST(NULL AS string)"
    spark.sql(catalog.quarantine_view(settings))
    names.append(catalog.shown(settings, "silver", "quarantine"))
    for contract in contracts.values():
        if contract.name in there:
            of_entity: Any = events[contract.name].dataType
            spark.sql(catalog.entity_view(settings, contract, rescued, of_entity.names))
            names.append(catalog.shown(settings, "silver", contract.name))
    return names
