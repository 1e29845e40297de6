"""Quarantine as a place to work in: what lies there and why, repairs, and judging it again.

A repair is an edited payload for one record, or a change of a rule for many. Either way the records
are judged again by the rules as they are then, in one commit; Bronze stays what the broker gave.
What was done, by whom and when, is kept in ops.repairs.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import click

from lakehouse.command import moment, run, settings_options, show, user
from lakehouse.errors import HeadwaterError
from lakehouse.privacy import masked, printable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

    from lakehouse.contracts import Contracts
    from lakehouse.settings import Settings

JOB = "quarantine"
# Of all that judges records: one at a time.
LOCK = "reconcile"
COORDINATE = re.compile(r"(.+)/([0-9]{1,9})/([0-9]{1,18})")


@dataclass(frozen=True)
class Coordinates:
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class CoordinatesType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "TOPIC/PARTITION/OFFSET"

    def convert(self, value: Any, param: Any, ctx: Any) -> Coordinates:
        found = COORDINATE.fullmatch(value)
        if not found:
            self.fail(f"{value!r} is not TOPIC/PARTITION/OFFSET, as `list` shows them", param, ctx)
        return Coordinates(found[1], int(found[2]), int(found[3]))


@dataclass(frozen=True)
class Filter:
    """Which rows of quarantine: all that meet what is given. since, until: the broker's time."""

    rule: str | None = None
    source: str | None = None
    entity: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    records: tuple[Coordinates, ...] = ()

    def of(self, quarantine: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F

        from lakehouse.silver import COORDINATES

        found = quarantine
        if self.rule is not None:
            found = found.where(F.array_contains("violations", self.rule))
        for name, value in (("source", self.source), ("entity", self.entity)):
            if value is not None:
                found = found.where(F.col(name) == value)
        if self.since is not None:
            found = found.where(F.col("timestamp") >= self.since)
        if self.until is not None:
            found = found.where(F.col("timestamp") < self.until)
        if self.records:
            wanted = [(one.topic, one.partition, one.offset) for one in self.records]
            schema = "topic string, partition int, offset bigint"
            frame = quarantine.sparkSession.createDataFrame(wanted, schema)
            found = found.join(frame, COORDINATES, "left_semi")
        return found


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a Filter, and passes `wanted` in their place."""

    @click.option("--rule", help="Broken rules by name, as `list` shows them.")
    @click.option("--source", help="The events' source.")
    @click.option("--entity", help="The events' entity.")
    @click.option("--since", metavar="TIME", help="Taken by the broker from then on, ISO-8601.")
    @click.option("--until", metavar="TIME", help="Taken by the broker before then.")
    @wraps(function)
    def with_filter(
        *args: Any,
        rule: str | None,
        source: str | None,
        entity: str | None,
        since: str | None,
        until: str | None,
        **kwargs: Any,
    ) -> Any:
        first = None if since is None else moment(since, "--since")
        last = None if until is None else moment(until, "--until")
        if first is not None and last is not None and last <= first:
            raise click.UsageError("--until has to be after --since")
        wanted = Filter(rule, source, entity, first, last, kwargs.pop("records", ()))
        return function(*args, wanted=wanted, **kwargs)

    return with_filter


@click.group("quarantine")
def quarantine_group() -> None:
    """See what is quarantined and why, repair it, and judge it again."""


@quarantine_group.command("list")
@filters
@click.option(
    "--limit",
    type=click.IntRange(0, 2**31 - 1),
    default=20,
    show_default=True,
    help="Rows to show.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@settings_options
def list_rows(wanted: Filter, limit: int, as_json: bool, settings: Settings) -> None:
    """How many records each rule keeps out, and the newest of them."""
    spark, loaded = _start(settings)
    counts, rows = find(spark, settings, loaded, wanted, limit)
    if as_json:
        click.echo(json.dumps({"rules": dict(counts), "records": rows}))
        return
    show("Quarantine by rule", ("rule", "records"), counts)
    columns = ("record", "taken", "source", "entity", "violations", "bytes")
    if rows:
        # A source is whatever somebody sent.
        listed = [[printable(_text(row[column])) for column in columns] for row in rows]
        show("Newest records", columns, listed)
        click.echo(f"more of one: headwater quarantine show {rows[0]['record']}")


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)


@quarantine_group.command("show")
@click.argument("record", type=CoordinatesType())
@click.option("--reveal", is_flag=True, help="Show personal data too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@settings_options
def show_row(record: Coordinates, reveal: bool, as_json: bool, settings: Settings) -> None:
    """One record: what it holds, why it is kept out, and what was done about it.

    RECORD: topic, partition and offset, as `list` shows them. Also of one that was let in since.
    """
    spark, loaded = _start(settings)
    found = story(spark, settings, loaded, record, reveal)
    if as_json:
        click.echo(json.dumps(found))
        return
    for name in ("record", "taken", "outcome", "entity", "violations"):
        click.echo(f"{name + ':':<12}{_text(found[name])}")
    click.echo(f"payload:\n{found['payload']}")
    for step in found["history"]:
        by = f" by {step['by']}" if step["by"] else ""
        came = ", ".join(step["violations"] or []) or step["outcome"]
        change = " -> ".join(filter(None, (_text(step["was"]), came)))
        note = f" ({step['note']})" if step["note"] else ""
        click.echo(printable(f"{step['at']}  {step['action']}{by}: {change}{note}"))


@quarantine_group.command("repair")
@click.argument("record", type=CoordinatesType())
@click.option(
    "--from",
    "file",
    type=click.File("rb"),
    help="File with the bytes in the record's place; - for standard input.",
)
@click.option("--edit", is_flag=True, help="Edit the payload in $EDITOR.")
@click.option("--note", default="", help="Why, for those who come after.")
@click.option("--by", help="Who; the user of this machine where left out.")
@settings_options
def repair_row(
    record: Coordinates,
    file: Any,
    edit: bool,
    note: str,
    by: str | None,
    settings: Settings,
) -> None:
    """Put other bytes in a quarantined record's place. Bronze keeps the ones that came.

    They count from the next `headwater quarantine replay` on.
    """
    from lakehouse.locks import held

    if (file is None) != edit:
        raise click.UsageError("--from or --edit: one of them")
    who = by or user()
    payload = file.read() if file else None
    spark, loaded = _start(settings)
    if payload is None:
        demand_quarantined(spark, settings, loaded, record)
        payload = _edited(_value(spark, settings, loaded, record))
    try:
        with held(settings, LOCK, "outcomes in silver.events"):
            repair(spark, settings, loaded, record, payload, who, note)
    except HeadwaterError:
        if edit:
            click.echo(
                f"headwater: what you wrote is in {_kept(payload)}: --from takes it", err=True
            )
        raise
    click.echo(f"repaired; to have it judged: headwater quarantine replay {record}")


def _kept(payload: bytes) -> str:
    """A new file with what somebody wrote, which only they can read."""
    with NamedTemporaryFile(prefix="headwater-repair-", suffix=".json", delete=False) as file:
        file.write(payload)
    return file.name


def _edited(value: bytes | None) -> bytes:
    """What a person makes of it in their editor. Raises HeadwaterError where that is nothing."""
    before = value or b""
    # In bytes: text would lose what is not UTF-8, and the ends of its lines.
    after: bytes | None = click.edit(before, extension=".json")
    if after is not None and after.endswith(b"\n") and not before.endswith(b"\n"):
        after = after.removesuffix(b"\n")  # as editors add it
    if after is None or after == before:
        raise HeadwaterError("nothing was changed")
    return after


@quarantine_group.command("replay")
@click.argument("records", nargs=-1, type=CoordinatesType())
@filters
@click.option("--by", help="Who; the user of this machine where left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options
def replay_rows(wanted: Filter, by: str | None, as_json: bool, settings: Settings) -> None:
    """Judge quarantined records again: those named, those that the options say, or all.

    By the rules and with the payloads as they are now.
    """
    from lakehouse.locks import held
    from lakehouse.progress import doing

    who = by or user()
    with held(settings, LOCK, "outcomes in silver.events"):
        spark, loaded = _start(settings)
        with doing("judging again"):
            counts = replay(spark, settings, loaded, wanted, who)
    if as_json:
        click.echo(json.dumps(counts))
        return
    click.echo(
        f"{sum(counts.values()):,} records: {counts['accepted']:,} accepted, "
        f"{counts['duplicates']:,} duplicates, {counts['quarantined']:,} still quarantined"
    )


def _start(settings: Settings) -> tuple[SparkSession, Contracts]:
    from lakehouse import contracts
    from lakehouse.progress import doing
    from lakehouse.session import spark as make_session

    loaded = contracts.load(settings.contracts_dir)
    with doing("starting Spark"):
        return make_session(settings, JOB), loaded


def _quarantined(spark: SparkSession, settings: Settings, contracts: Contracts) -> DataFrame:
    from lakehouse import tables
    from lakehouse.silver import QUARANTINED

    rows = tables.read(spark, settings, tables.silver(contracts))
    return rows.where(rows.outcome == QUARANTINED)


def _is(record: Coordinates) -> str:
    from lakehouse.sql import literal

    topic = literal(record.topic)
    return f"topic = {topic} AND partition = {record.partition} AND offset = {record.offset}"


def find(
    spark: SparkSession, settings: Settings, contracts: Contracts, wanted: Filter, limit: int
) -> tuple[list[tuple[str, int]], list[dict[str, Any]]]:
    """Records by rule, most first, and the newest `limit` of them without their bytes."""
    from pyspark.sql import functions as F

    rows = wanted.of(_quarantined(spark, settings, contracts))
    by_rule = rows.select(F.explode("violations").alias("rule")).groupBy("rule").count()
    counts = [(row.rule, row["count"]) for row in by_rule.collect()]  # one row a rule
    newest = rows.orderBy(F.col("timestamp").desc(), "topic", "partition", "offset").limit(limit)
    found = [
        {
            "record": str(Coordinates(row.topic, row.partition, row.offset)),
            "taken": _iso(row.taken),
            "source": row.source,
            "entity": row.entity,
            "violations": row.violations,
            "bytes": row.bytes,
        }
        for row in newest.select(
            "topic",
            "partition",
            "offset",
            F.unix_millis("timestamp").alias("taken"),
            "source",
            "entity",
            "violations",
            F.octet_length("raw").alias("bytes"),
        ).collect()
    ]
    return sorted(counts, key=lambda count: (-count[1], count[0])), found


def _iso(millis: int) -> str:
    try:
        return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        # A producer may say whatever it likes.
        return f"{millis:,} ms after 1970"


class NotKeptError(HeadwaterError):
    """A record's bytes are nowhere any more, and it has an outcome."""


def _value(
    spark: SparkSession, settings: Settings, contracts: Contracts, record: Coordinates
) -> bytes | None:
    """A record's bytes: its newest repair, else what the broker gave.

    Raises HeadwaterError where there is no such record, and NotKeptError where Bronze has let go of
    it, and it is not quarantined.
    """
    from lakehouse import repairs, tables
    from lakehouse.silver import QUARANTINED

    bronze = tables.read(spark, settings, tables.bronze()).where(_is(record))
    rows = repairs.applied(spark, settings, bronze).select("value").collect()
    if not rows:
        # Quarantine keeps its own copy for longer than Bronze, and repairs theirs.
        silver = tables.read(spark, settings, tables.silver(contracts)).where(_is(record))
        held = silver.withColumn("value", silver.raw)
        rows = repairs.applied(spark, settings, held).select("value", "outcome").collect()
        if rows and rows[0]["value"] is None and rows[0]["outcome"] != QUARANTINED:
            raise NotKeptError(
                f"{record}: bronze.events has let go of it by its contract (retention), and Silver "
                "keeps the bytes of what is quarantined alone"
            )
    if not rows:
        raise HeadwaterError(f"{record}: no such record: see `headwater quarantine list`")
    return None if rows[0]["value"] is None else bytes(rows[0]["value"])


def _is_erased(spark: SparkSession, settings: Settings, record: Coordinates) -> bool:
    from lakehouse import erasures

    gone = erasures.erased(spark, settings)
    return gone is not None and not gone.where(_is(record)).isEmpty()


def story(
    spark: SparkSession, settings: Settings, contracts: Contracts, record: Coordinates, reveal: bool
) -> dict[str, Any]:
    """A record's outcome and payload, and what was done about it, oldest first.

    Personal data is masked unless `reveal`. Raises HeadwaterError where there is no such record.
    """
    from pyspark.sql import functions as F

    from lakehouse import repairs, tables

    try:
        value, told = _value(spark, settings, contracts, record), ""
    except NotKeptError as error:
        value, told = None, f"not kept: {error}"
    silver = tables.read(spark, settings, tables.silver(contracts)).where(_is(record))
    columns = ("outcome", "entity", "violations", "written_by")
    rows = silver.select(*columns, F.unix_millis("timestamp").alias("taken")).collect()
    row = rows[0] if rows else None
    done = repairs.history(spark, settings)
    steps = [] if done is None else done.where(_is(record)).orderBy("at").collect()
    # What was announced is told until it is known what came of it, under the same time.
    begun = repairs.REPLAYING
    ended = {step["at"] for step in steps if step.action not in (repairs.REPAIRED, begun)}
    steps = [step for step in steps if step.action != begun or step["at"] not in ended]
    entity = None if row is None else row.entity
    if value is None and _is_erased(spark, settings, record):
        told = "erased"
    # What other bytes are about is only known once they were judged.
    known = entity if not steps or steps[-1].action == repairs.REPLAYED else None
    return {
        "record": str(record),
        "taken": None if row is None else _iso(row.taken),
        "outcome": "no row in Silver: a duplicate, or pending" if row is None else row.outcome,
        "entity": entity,
        "violations": [] if row is None else row.violations,
        "payload": told or masked(value, contracts, record.topic, known, reveal),
        "history": [
            *_first(row, steps),
            *(
                {
                    "at": step["at"].replace(tzinfo=UTC).isoformat(),
                    "action": step.action,
                    "by": step["by"],
                    "note": step.note,
                    "was": step.was,
                    "outcome": step.outcome,
                    "violations": step.violations,
                }
                for step in steps
            ),
        ],
    }


def _first(row: Row | None, steps: list[Row]) -> Iterator[dict[str, Any]]:
    """The step by which a record came into quarantine, where nothing else tells it. At the broker's
    time, which Silver keeps; by whom, as long as its row is that of then."""
    violations = steps[0].was if steps else row.violations if row is not None else None
    if violations:
        yield {
            "at": None if row is None else _iso(row.taken),
            "action": "quarantined",
            "by": "" if row is None or steps else row.written_by,
            "note": "",
            "was": [],
            "outcome": "quarantined",
            "violations": violations,
        }


def demand_quarantined(
    spark: SparkSession, settings: Settings, contracts: Contracts, record: Coordinates
) -> list[str]:
    """What a record is quarantined for. Raises HeadwaterError where it cannot be repaired."""
    from lakehouse import checkpoints, runs, tables

    found = _quarantined(spark, settings, contracts).where(_is(record)).collect()
    if not found:
        raise HeadwaterError(f"{record} is not in quarantine: see `headwater quarantine list`")
    if _is_erased(spark, settings, record):
        raise HeadwaterError(f"{record} was erased: there is nothing to repair")
    if tables.read(spark, settings, tables.bronze()).where(_is(record)).isEmpty():
        has = checkpoints.committed(checkpoints.SparkFiles(spark, settings, "bronze"))
        # What a reconcile has closed it had, be it that the checkpoint was moved away since.
        closed, key = runs.closed_range(spark, settings), (record.topic, record.partition)
        if record.offset >= max(has.get(key, 0), closed.get(key, 0)):
            raise HeadwaterError(
                f"{record}: bronze.events has not got it yet: `headwater stream` brings it there; "
                "then try again"
            )
        raise HeadwaterError(
            f"{record} is not in bronze.events any more, which lets go of records by its contract "
            "(retention): it can be looked at, and not be judged again; send it anew to have it in"
        )
    return list(found[0].violations)


def repair(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    record: Coordinates,
    payload: bytes,
    by: str,
    note: str,
) -> None:
    """Writes down other bytes for a quarantined record. Raises HeadwaterError."""
    from pyspark.sql import functions as F

    from lakehouse import repairs, tables

    violations = demand_quarantined(spark, settings, contracts, record)
    table = tables.repairs()
    tables.ensure(spark, settings, table)
    given = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "at": tables.later_than_all(spark, settings, table, "at"),
        "by": by,
        "action": repairs.REPAIRED,
        "note": note,
        "was": violations,
        "payload": bytearray(payload),
    }
    schema = ", ".join(f"{name} {table.columns[name]}" for name in given)
    row = spark.createDataFrame([tuple(given.values())], schema)
    nothing = {n: F.lit(None).cast(table.columns[n]) for n in ("outcome", "violations")}
    tables.append(row.withColumns(nothing), settings, table)


def replay(
    spark: SparkSession, settings: Settings, contracts: Contracts, wanted: Filter, by: str
) -> dict[str, int]:
    """Judges quarantined records again; returns how many were accepted, duplicates, quarantined.

    Those whose outcome or violations are others now get a row in ops.repairs.
    """
    from pyspark.sql import functions as F

    from batch import judge
    from lakehouse import runs, tables
    from lakehouse.silver import COORDINATES

    committed = judge.within({}, judge.committed_by_all(spark, settings))
    chosen = (
        wanted.of(_quarantined(spark, settings, contracts).where(committed))
        .select(*COORDINATES, F.col("violations").alias("was"))
        .localCheckpoint()
    )
    named = set(wanted.records)
    # A slip of whoever calls it is no run that failed.
    if named and len(named) > (count := chosen.count()):
        raise HeadwaterError(
            f"{len(named) - count} of the records that were named are not in quarantine, or not "
            "what the options say (`headwater quarantine list`), or bronze.events has not got them "
            "yet (`headwater stream`)"
        )
    with runs.recorded(spark, settings, JOB) as run:
        done = judge.judge(spark, settings, contracts, committed, committed, JOB, chosen, by)
        assert done.kept_out is not None, "what is judged again was quarantined"
        # What was in conflict with these was judged with them, and is none of them.
        after = done.kept_out.join(chosen.select(*COORDINATES), COORDINATES, "left_semi")
        counted = after.groupBy("outcome").count().collect()  # three rows
        found = {row.outcome: row["count"] for row in counted}
        counts = {
            "accepted": found.get("accepted", 0),
            "duplicates": found.get("duplicate", 0),
            "quarantined": found.get("quarantined", 0),
        }
        run.rows, run.details = done.rows, dict(counts)
        run.written = {tables.silver(contracts).full_name: done.version}
    return counts


if __name__ == "__main__":
    run(quarantine_group, sys.argv[1:])
