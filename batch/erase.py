"""Erasure: a person is removed from every table and every warehouse, and it is proved.

Of the records that name the person, what they said goes from Bronze, Silver and quarantine, and
from payloads of repairs; Gold and the warehouses are brought to what is left. Where the records
were, and what had become of them, is kept (ops.erasures, and rows without content), so that the
balance holds. Then VACUUM removes the files that older versions were made of.

A record names a person where its JSON holds one of the identifiers as a whole text, however that is
escaped, or as a number of 8 digits or more, where a column that its contract marks as `subject`
says so, or where an identifier stands in its key or a header as a word of its own; one that is
quarantined, also where it stands in any of its bytes, or in a payload that was put in their place.
Copies of such a record go with it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lakehouse.command import run, settings_options, show, user
from lakehouse.errors import HeadwaterError, WarehouseError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from lakehouse.contracts import Contracts
    from lakehouse.layouts import Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Table

Say = Callable[[str], None]
JOB = "erase"
# VACUUM removes what a writer is about to commit, too: so nobody writes meanwhile.
WRITERS = (
    "stream-bronze",
    "stream-silver",
    "stream-metrics",
    "reconcile",
    "gold",
    "publish",
    "maintain",
    "quality",
)
# A number of fewer is no identifier.
DIGITS = 8
LEFT_TO_OTHERS = (
    "the broker, until its retention ends: records that are read from it again come back",
    "smallest and largest values of columns in the logs of tables, until log retention ends",
    "backups, logs of warehouses and of storage, and pages of `headwater quality --docs`",
    "what a Spark that was killed has left in its temporary folder (spark.local.dir, or /tmp)",
)


@dataclass
class Place:
    """removed: rows that were changed or deleted. left: rows that still name the person."""

    name: str
    removed: int
    left: int


@dataclass
class Proof:
    """request: as in ops.erasures; whom it was about is not kept. records: by what had become of
    them, those of requests included that died before they had a proof; requests: all of these."""

    request: str
    by: str
    at: str
    requests: list[str] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=lambda: list(LEFT_TO_OTHERS))

    @property
    def complete(self) -> bool:
        return not any(place.left for place in self.places)


@click.command("erase")
@click.option("--subject", required=True, help="Who: what columns marked `subject` say.")
@click.option("--also", multiple=True, help="Another text that names them, such as an address.")
@click.option("--by", help="Who asks; the user of this machine where left out.")
@click.option("--dry-run", is_flag=True, help="Say how many records there are, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--proof", type=click.Path(path_type=Path), help="Write the proof to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the proof as JSON.")
@settings_options
def erase(
    subject: str,
    also: tuple[str, ...],
    by: str | None,
    dry_run: bool,
    yes: bool,
    proof: Path | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Remove a person from all tables and warehouses, for good, and prove it.

    Streams and jobs have to be stopped, on every machine: the locks are of this one. Exit code 1
    where something is left.
    """
    from lakehouse import contracts, layouts
    from lakehouse.locks import held
    from lakehouse.progress import Ticker, doing
    from lakehouse.session import spark as make_session

    loaded = contracts.load(settings.contracts_dir)
    known = layouts.load(settings.contracts_dir, loaded)
    who = by or user()
    texts = _demand([subject, *also])
    with ExitStack() as stack:
        # Before anything is gone: of what was erased there is no second proof. What may be in the
        # file stays until there is one.
        told = stack.enter_context(proof.open("a")) if proof is not None and not dry_run else None
        for writer in () if dry_run else WRITERS:
            stack.enter_context(held(settings, writer, f"what {writer} writes"))
        with doing("starting Spark"):
            spark = make_session(settings, JOB)
        with doing("looking for records"):
            counts = _by_outcome(find(spark, settings, loaded, texts))
        if dry_run:
            click.echo(json.dumps(counts) if as_json else f"records: {_listed(counts)}")
            return
        if not yes:
            click.confirm(
                f"{sum(counts.values()):,} records, and all older versions of all tables: remove?",
                abort=True,
            )
        with doing("erasing"), Ticker() as ticker:
            done = erase_subject(spark, settings, loaded, known, texts, who, ticker.show)
        text = json.dumps(asdict(done), indent=2)
        if told is not None:
            told.truncate(0)
            told.write(text + "\n")
    if as_json:
        click.echo(text)
    else:
        click.echo(f"request {done.request}: records {_listed(done.records)}")
        rows = [(place.name, place.removed, place.left) for place in done.places]
        show("", ("place", "rows removed", "rows left"), rows)
        for line in done.not_covered:
            click.echo(f"not covered: {line}")
    if not done.complete:
        raise HeadwaterError("something still names the person: see the rows left")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items())) or "none"


def _demand(texts: list[str]) -> list[str]:
    for text in texts:
        if len(text.strip()) < 3:
            raise click.UsageError(f"{text!r} is too short: it would be found in others' records")
    return texts


def erase_subject(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    texts: list[str],
    by: str,
    say: Say = lambda _: None,
) -> Proof:
    """Erases whom the texts name, the first of them as columns marked `subject` have it.

    To be run again where it died: it goes on from what is left. Nobody else may write. Raises
    StreamError where one query has read what another one has not, TableError and WarehouseError.
    """
    from batch import gold, publish, quality, reconcile
    from lakehouse import checkpoints, runs, tables
    from lakehouse.silver import COORDINATES

    _demand_same_ends(spark, settings)
    done = Proof(str(uuid.uuid4()), by, datetime.now(UTC).isoformat(timespec="seconds"))
    with runs.recorded(spark, settings, JOB) as run:
        # What has no outcome yet would have none for good.
        say("reconciling")
        reconcile.reconcile_range(spark, settings, contracts)
        say("looking for records")
        # First where they were: a run that goes on after a death finds the rest by that.
        _write_down(spark, settings, find(spark, settings, contracts, texts), done)
        everything = tables.read(spark, settings, tables.erasures()).select(*COORDINATES).distinct()
        say("bronze.events")
        removed = {tables.bronze().full_name: _bronze(spark, settings, everything)}
        say("silver.events")
        silver = tables.silver(contracts)
        removed[silver.full_name] = _silver(spark, settings, silver, everything, texts)
        removed[tables.repairs().full_name] = _repairs(spark, settings, everything, texts)
        left: dict[str, int] = {}
        if runs.last(spark, settings, "gold") is not None:
            built = gold.build(spark, settings, contracts, layouts, say=say)
            removed |= {name: change.rows for name, change in built.tables.items()}
            kinds, out_of_reach = _published(spark, settings)
            done.not_covered += out_of_reach
            # What is to go has to go, whatever else is wrong with Gold.
            published = publish.copy(spark, settings, layouts, kinds, say=say, gate=False)
            removed |= {
                f"{where}: {table.name}": table.staged
                for where, of_there in published.warehouses.items()
                for table in of_there
            }
            left = _purge(settings, layouts, kinds, texts, say)
        # Whose key was in the way of the quality gate stands in what it said, and on its pages.
        removed[tables.runs().full_name] = _runs(spark, settings, texts)
        shutil.rmtree(quality.pages(settings), ignore_errors=True)
        # What it has not read yet of Silver's changes goes: it counts anew what is left.
        checkpoints.SparkFiles(spark, settings, checkpoints.METRICS).clear()
        _vacuum(spark, settings, contracts, layouts, say)
        say("looking for what is left")
        left |= _left(spark, settings, contracts, layouts, texts)
        done.places = [
            Place(name, removed.get(name, 0), left.get(name, 0)) for name in {**removed, **left}
        ]
        unproved = _unproved(spark, settings)
        done.requests = [row.request for row in unproved.select("request").distinct().collect()]
        done.records = _by_outcome(unproved)
        run.rows = sum(done.records.values())
        run.details = asdict(done)
    return done


def _demand_same_ends(spark: SparkSession, settings: Settings) -> None:
    """What only one query has read, the other one would read later, and bring back."""
    from lakehouse import checkpoints
    from lakehouse.errors import StreamError

    ends = [
        checkpoints.committed(checkpoints.SparkFiles(spark, settings, query))
        for query in checkpoints.QUERIES
    ]
    if any(end != ends[0] for end in ends):
        raise StreamError(
            "the streams have not read up to the same offsets: run `headwater stream "
            "--available-now` first; nothing was erased"
        )


def find(
    spark: SparkSession, settings: Settings, contracts: Contracts, texts: list[str]
) -> DataFrame:
    """Records that name the person: topic, partition, offset, outcome."""
    from pyspark.sql import functions as F

    from lakehouse import erasures, repairs, tables
    from lakehouse.silver import ACCEPTED, COORDINATES, QUARANTINED

    silver = tables.read(spark, settings, tables.silver(contracts))
    said = _names(silver, texts) | _is_subject(silver, contracts, texts[0])
    outcomes = silver.select(*COORDINATES, "outcome", said.alias("said"))
    bronze = tables.read(spark, settings, tables.bronze()).select(*COORDINATES, *erasures.SAID)
    worded = (F.col("outcome") == QUARANTINED) & _has_word(F.col("value"), texts)
    named = _holds(texts) | F.coalesce("said", F.lit(False)) | F.coalesce(worded, F.lit(False))
    rows = bronze.join(outcomes, COORDINATES, "full_outer").select(
        *COORDINATES,
        F.coalesce("outcome", F.lit("duplicate")).alias("outcome"),
        F.col("outcome").isNull().alias("alone"),
        F.sha2("value", 256).alias("digest"),
        named.alias("named"),
    )
    rows = _of_changes(spark, settings, contracts, rows)
    wanted = [*COORDINATES, "outcome"]
    direct = rows.where("named").select(*wanted).localCheckpoint()
    # Their copies, and of those erased before: how these spelt it need not be found any more.
    originals = direct.select(*COORDINATES)
    if (gone := erasures.erased(spark, settings)) is not None:
        originals = originals.union(gone.select(*COORDINATES))
    good = silver.where(F.col("outcome") == ACCEPTED).select(*COORDINATES, "digest")
    digests = good.join(originals, COORDINATES, "left_semi").select("digest").distinct()
    copies = rows.where("alone").join(digests, "digest", "left_semi")
    found = direct.union(copies.select(*wanted))
    if (done := repairs.history(spark, settings)) is not None:
        put = done.where(_has_word(F.col("payload"), texts)).select(*COORDINATES).distinct()
        found = found.union(rows.join(put, COORDINATES, "left_semi").select(*wanted))
    return found.distinct().localCheckpoint()


def _of_changes(
    spark: SparkSession, settings: Settings, contracts: Contracts, rows: DataFrame
) -> DataFrame:
    """The rows with the digests of changes of databases as Silver has them: of what was changed,
    and not of their bytes, which say when they were sent, too."""
    from pyspark.sql import functions as F

    from lakehouse import tables
    from lakehouse.decode import decode
    from lakehouse.silver import COORDINATES

    topics = [contract.topic for contract in contracts.plain if contract.changes]
    if not topics:
        return rows
    bronze = tables.read(spark, settings, tables.bronze()).where(F.col("topic").isin(topics))
    raw = bronze.select(*COORDINATES, "timestamp", "key", "value")
    decoded = decode(raw, contracts, settings.stream.max_record_bytes)
    told = decoded.select(*COORDINATES, F.col("digest").alias("_digest"))
    joined = rows.join(told, COORDINATES, "left")
    return joined.withColumn("digest", F.coalesce("_digest", "digest")).drop("_digest")


def _by_outcome(records: DataFrame) -> dict[str, int]:
    return {row.outcome: row["count"] for row in records.groupBy("outcome").count().collect()}


def _is_subject(silver: DataFrame, contracts: Contracts, subject: str) -> Column:
    """Whether a column that identifies a person says that it is this one; also a number."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructType

    found = F.lit(False)
    for contract in contracts.values():
        there = silver.schema[contract.name].dataType if contract.name in silver.columns else None
        if not isinstance(there, StructType):
            continue
        for column in contract.columns:
            # One that was called otherwise has an alias since, and its rows of then that name.
            names = {column.name, *column.json_keys} & set(there.names) if column.subject else ()
            for name in names:
                value = F.col(contract.name)[name].cast("string")
                found = found | value.eqNullSafe(F.lit(subject))
    return found


def _holds(texts: Iterable[str]) -> Column:
    """Whether a record of Bronze holds one of the texts: whole in its JSON, a word elsewhere."""
    from pyspark.sql import functions as F

    raw = _as_text(F.col("value"))
    # Without escapes; null of what is no JSON.
    read = F.to_json(F.try_parse_json(F.col("value").cast("string")))
    found = _has_word(F.col("key"), texts)
    for text in texts:
        for spelt in {json.dumps(text), json.dumps(text, ensure_ascii=False)}:
            found = found | F.coalesce(raw.contains(_bytes_of(spelt)), F.lit(False))
        whole = json.dumps(text, ensure_ascii=False)
        found = found | F.coalesce(read.contains(whole), F.lit(False))
    found = found | _has_number(raw, texts)
    values = F.transform("headers", lambda header: _has_word(header["value"], texts))
    return found | F.coalesce(F.array_contains(values, F.lit(True)), F.lit(False))


def _names(rows: DataFrame, texts: Iterable[str]) -> Column:
    """Whether a row of any table holds one of the texts: whole in text, as a word in bytes."""
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES

    binary = [name for name, kind in rows.dtypes if kind == "binary"]
    plain = [name for name in rows.columns if name not in binary]
    said = [F.to_json(F.struct(*plain))]
    # Where a record was is not what it said, nor is what a row has for a key, such as 20260301.
    own = [name for name in plain if name not in COORDINATES and not name.endswith("_key")]
    numbers = [F.to_json(F.struct(*own))]
    if "rescued" in rows.columns:
        said.append(F.col("rescued"))
        numbers.append(F.col("rescued"))
    found = _in_id(texts) if {"source", "id"} <= set(plain) else F.lit(False)
    for one in numbers:
        found = found | _has_number(one, texts)
    for text in texts:
        whole = json.dumps(text, ensure_ascii=False)
        for one in said:
            found = found | F.coalesce(one.contains(whole), F.lit(False))
    for name in binary:
        found = found | _has_word(F.col(name), texts)
    return found


def _in_id(texts: Iterable[str]) -> Column:
    """Whether one of the texts is part of an id that was put together of several values (decode):
    each has its length before it, and nothing after it but the next one's."""
    from pyspark.sql import functions as F

    parts = "|".join(f"{len(t)}:(?{'i' if '@' in t else ''}:{re.escape(t)})" for t in texts)
    found = F.col("source").startswith("kafka:") & F.col("id").rlike(f"(?:{parts})(?:[0-9]+:|\\z)")
    return F.coalesce(found, F.lit(False))


def _has_number(said: Column, texts: Iterable[str]) -> Column:
    """Whether one of the texts stands in JSON as a number: a telephone's without its +, say. Short
    ones do not count: amounts are numbers too."""
    from pyspark.sql import functions as F

    numbers = [text for text in texts if re.fullmatch(rf"[1-9][0-9]{{{DIGITS - 1},}}", text)]
    if not numbers:
        return F.lit(False)
    found = said.rlike(rf"[:,\[\s](?:{'|'.join(numbers)})(?=[,\]}}\s])")
    return F.coalesce(found, F.lit(False))


def _has_word(value: Column, texts: Iterable[str]) -> Column:
    """Whether one of the texts stands in bytes between signs that are no letters or digits."""
    from pyspark.sql import functions as F

    # A mailbox is the same one in capitals.
    words = "|".join(f"(?{'i' if '@' in t else ''}:{re.escape(_bytes_of(t))})" for t in texts)
    found = _as_text(value).rlike(f"(?<![0-9A-Za-z])(?:{words})(?![0-9A-Za-z])")
    return F.coalesce(found, F.lit(False))


def _as_text(value: Column) -> Column:
    """Bytes one by one as characters: what is no UTF-8 is searched too."""
    from pyspark.sql import functions as F

    return F.decode(value, "ISO-8859-1")


def _bytes_of(text: str) -> str:
    return text.encode().decode("latin-1")


def _write_down(spark: SparkSession, settings: Settings, records: DataFrame, proof: Proof) -> None:
    from pyspark.sql import functions as F

    from lakehouse import tables
    from lakehouse.silver import COORDINATES

    table = tables.erasures()
    tables.ensure(spark, settings, table)
    more = {"request": F.lit(proof.request), "by": F.lit(proof.by), "at": F.current_timestamp()}
    known = tables.read(spark, settings, table).select(*COORDINATES)
    new = records.join(known, COORDINATES, "left_anti").localCheckpoint()
    if not new.isEmpty():
        tables.append(new.withColumns(more), settings, table)


def _unproved(spark: SparkSession, settings: Settings) -> DataFrame:
    """Rows of ops.erasures, of requests that are in no proof yet."""
    from pyspark.sql import functions as F

    from lakehouse import runs, tables

    rows = tables.read(spark, settings, tables.erasures())
    if runs.last(spark, settings, JOB) is not None:
        jobs = tables.read(spark, settings, tables.runs())
        proved = jobs.where((F.col("job") == JOB) & (F.col("result") == "succeeded"))
        requests = F.from_json(F.get_json_object("details", "$.requests"), "array<string>")
        rows = rows.join(
            proved.select(F.explode(requests).alias("request")), "request", "left_anti"
        )
    return rows


def _bronze(spark: SparkSession, settings: Settings, records: DataFrame) -> int:
    from lakehouse import erasures, tables
    from lakehouse.silver import COORDINATES

    table = tables.bronze()
    return _bring(spark, settings, table, records, tuple(COORDINATES), dict.fromkeys(erasures.SAID))


def _silver(
    spark: SparkSession, settings: Settings, table: Table, records: DataFrame, texts: list[str]
) -> int:
    from pyspark.sql import functions as F

    from lakehouse import tables
    from lakehouse.silver import COORDINATES

    # What Silver was given for an entity that has no contract any more goes too.
    there = {f.name: f.dataType.simpleString() for f in tables.read(spark, settings, table).schema}
    whole = dataclasses.replace(table, columns=there)
    kept = {*COORDINATES, "timestamp", "date", "outcome", "violations", "digest"}
    blank: dict[str, Column | None] = dict.fromkeys(name for name in there if name not in kept)
    # By these a copy that comes later is known for one, unless they name the person themselves.
    words = [_has_word(F.col(name).cast("binary"), texts) for name in ("source", "id")]
    names_them = words[0] | words[1] | _in_id(texts)
    where = F.concat_ws("/", *COORDINATES)
    blank["source"] = F.when(names_them, F.lit("erased")).otherwise(F.col("source"))
    blank["id"] = F.when(names_them, where).otherwise(F.col("id"))
    blank["written_by"] = F.lit(JOB)
    return _bring(spark, settings, whole, records, tuple(COORDINATES), blank)


def _repairs(spark: SparkSession, settings: Settings, records: DataFrame, texts: list[str]) -> int:
    """Payloads and notes of those records, and notes of others that name the person."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from batch.merge import bring
    from lakehouse import tables
    from lakehouse.silver import COORDINATES

    table = tables.repairs()
    if not DeltaTable.isDeltaTable(spark, table.path(settings)):
        return 0
    tables.ensure(spark, settings, table)
    key = (*COORDINATES, "at", "action")
    count = _bring(spark, settings, table, records, key, dict.fromkeys(("payload", "note")))
    noted = tables.read(spark, settings, table).where(
        _has_word(F.col("note").cast("binary"), texts)
    )
    without = noted.withColumn("note", F.lit(None).cast("string"))
    return count + bring(spark, settings, table, key, without, noted).rows


def _runs(spark: SparkSession, settings: Settings, texts: list[str]) -> int:
    """Takes out of ops.runs what runs said of the person; returns how many rows were changed."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from lakehouse import tables

    table = tables.runs()
    named = _has_word(F.col("details").cast("binary"), texts)
    rows = tables.read(spark, settings, table).where(named).select("run_id").collect()
    if rows:
        # By what says nothing of anybody: the table's log keeps the condition.
        condition = F.col("run_id").isin([row.run_id for row in rows])
        nothing = F.lit(json.dumps({"erased": True}))
        DeltaTable.forPath(spark, table.path(settings)).update(condition, {"details": nothing})
    return len(rows)


def _bring(
    spark: SparkSession,
    settings: Settings,
    table: Table,
    records: DataFrame,
    key: tuple[str, ...],
    blank: dict[str, Column | None],
) -> int:
    """Rows of those records with other values (None: null); returns how many were changed."""
    from pyspark.sql import functions as F

    from batch.merge import bring
    from lakehouse import tables
    from lakehouse.silver import COORDINATES

    rows = tables.read(spark, settings, table).join(records, COORDINATES, "left_semi")
    values = {
        name: F.lit(None).cast(table.columns[name]) if value is None else value
        for name, value in blank.items()
    }
    return bring(spark, settings, table, key, rows.withColumns(values), rows).rows


def _published(spark: SparkSession, settings: Settings) -> tuple[tuple[str, ...], list[str]]:
    """Kinds of warehouses that may hold something, and a line for each one out of reach.

    Those that a publish was through with, be it that it failed later; and those of the settings,
    where a publish may have died before it could write down anything.
    """
    from batch.warehouses import connect
    from batch.warehouses.base import STATE
    from lakehouse import tables
    from lakehouse.layouts import KINDS

    done = tables.read(spark, settings, tables.runs()).where("job = 'publish'")
    said = done.select("details").distinct().collect()
    places = {place for row in said for place in json.loads(row.details)} - {"error"}
    known = {kind for kind in KINDS if any(p.lower().startswith(kind) for p in places)}
    kinds, out_of_reach = [], []
    for kind in KINDS:
        if kind not in known and kind not in settings.publish_to:
            continue
        if kind == "duckdb" and kind not in known and not settings.duckdb_file.exists():
            continue
        try:
            warehouse = connect(kind, settings)
        except WarehouseError as error:
            if kind in known:
                raise
            out_of_reach.append(f"{kind}, which the settings publish to ({error})")
            continue
        if kind in known or warehouse.columns(STATE):
            kinds.append(kind)
        places.discard(warehouse.where)
        warehouse.close()
    return tuple(kinds), out_of_reach + [
        f"{place}, which was published to, and is not what the settings say now"
        for place in sorted(places)
    ]


def _purge(
    settings: Settings, layouts: Layouts, kinds: tuple[str, ...], texts: list[str], say: Say
) -> dict[str, int]:
    """Rids warehouses of what deleted rows leave behind; rows by table that name the person."""
    from batch.warehouses import connect

    left = {}
    for kind in kinds:
        warehouse = connect(kind, settings)
        try:
            say(f"{warehouse.where}: writing its tables anew")
            names = {warehouse.name_of(layout): layout for layout in layouts.gold}
            there = {name: layout for name, layout in names.items() if name is not None}
            warehouse.purge(list(there))
            for name, layout in there.items():
                columns = [c.name for c in layout.columns if c.spark_type == "string"]
                rows = sum(warehouse.rows_with(name, columns, text) for text in texts)
                left[f"{warehouse.where}: {name}"] = rows
        finally:
            warehouse.close()
    return left


def _vacuum(
    spark: SparkSession, settings: Settings, contracts: Contracts, layouts: Layouts, say: Say
) -> None:
    """Removes every file that the newest version of a table does not need."""
    from delta.tables import DeltaTable

    from lakehouse import tables
    from lakehouse.session import side_by_side

    def one(table: Table) -> None:
        path = table.path(settings)
        if DeltaTable.isDeltaTable(spark, path):
            say(f"removing old files of {table.full_name}")
            spark.sql(f"VACUUM {tables.quoted_path(path)} RETAIN 0 HOURS")

    # Delta asks for a week, for writers and readers that there are none of while WRITERS are held.
    checked = "spark.databricks.delta.retentionDurationCheck.enabled"
    spark.conf.set(checked, "false")
    try:
        side_by_side(one, tables.all_tables(contracts, layouts))
    finally:
        spark.conf.unset(checked)


def _left(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    texts: list[str],
) -> dict[str, int]:
    """Rows that still name the person, by table."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from lakehouse import tables
    from lakehouse.session import side_by_side

    bronze = tables.bronze().full_name

    def one(table: Table) -> int:
        if table.full_name == bronze:
            return find(spark, settings, contracts, texts).count()
        rows = tables.read(spark, settings, table)
        named = _names(rows, texts)
        free = {tables.runs().full_name: "details", tables.repairs().full_name: "note"}
        if (written := free.get(table.full_name)) is not None:
            named = named | _has_word(F.col(written).cast("binary"), texts)
        return rows.where(named).count()

    there = [
        table
        for table in tables.all_tables(contracts, layouts)
        if DeltaTable.isDeltaTable(spark, table.path(settings))
    ]
    return dict(zip((t.full_name for t in there), side_by_side(one, there), strict=True))


if __name__ == "__main__":
    run(erase, sys.argv[1:])
