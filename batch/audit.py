"""The audit: Bronze held against Silver, record by record, by coordinates.

    accepted      its coordinates are in Silver, accepted
    quarantined   its coordinates are in Silver, quarantined
    duplicate     neither, and its (source, id) is accepted in Silver with the same content, or
                  it was one when it was erased (ops.erasures)
    pending       the rest

The law: in the closed range (behind the last reconcile) nothing is pending; no coordinate is twice
in Bronze or in Silver, and none is in Silver alone; no (source, id) is accepted twice; and of no
partition an offset is missing, from its first one on, but for those of ops.gaps (records that the
broker let go of before they were read: `headwater stream --accept-gap`; and those that Bronze has
kept for as long as its contract says: `headwater maintain`), and for offsets that hold no record in
the broker (marks of transactions, and what compaction took).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import click

from lakehouse.command import run, settings_options

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakehouse.contracts import Contracts
    from lakehouse.gaps import Gap
    from lakehouse.settings import Settings

NAMED = 5


@dataclass
class Balance:
    """Records of one source, which is a topic. pending includes those after the closed range."""

    source: str
    bronze: int
    accepted: int
    quarantined: int
    duplicates: int
    pending: int


@dataclass
class Audit:
    """balances by topic; broken: a line for every way in which the law does not hold; open: records
    after the closed range that are pending as yet, and may be; gaps: those that were accepted;
    unasked: what was not looked at, since the broker is away."""

    balances: list[Balance]
    broken: list[str]
    open: int
    gaps: list[Gap]
    unasked: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.broken


@click.command("audit")
@click.option("--json", "as_json", is_flag=True, help="Print the balances as a JSON list.")
@settings_options
def audit(as_json: bool, settings: Settings) -> None:
    """Prove that no record is lost, doubled or silent. Exit code 1 where one is."""
    from lakehouse import contracts
    from lakehouse.progress import doing
    from lakehouse.session import spark as make_session

    loaded = contracts.load(settings.contracts_dir)
    with doing("starting Spark"):
        spark = make_session(settings, "audit")
    with doing("auditing"):
        result = audit_tables(spark, settings, loaded)
    if as_json:
        click.echo(json.dumps([asdict(balance) for balance in result.balances]))
        for line in accepted_gaps(result):
            click.echo(line, err=True)
    else:
        show(result)
    for line in [*result.unasked, *result.broken]:
        click.echo(f"headwater: audit: {line}", err=True)
    if not result.holds:
        raise click.exceptions.Exit(1)


def show(result: Audit) -> None:
    """The balance as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table("source", "bronze", "accepted", "quarantined", "duplicates", "pending")
    for column in table.columns[1:]:
        column.justify = "right"
    for balance in result.balances:
        numbers = [f"{value:,}" for key, value in asdict(balance).items() if key != "source"]
        table.add_row(balance.source, *numbers)
    console = Console()
    console.print(table)
    if result.open:
        console.print(
            f"{result.open:,} records came after the last reconcile: `headwater reconcile`"
        )
    for line in accepted_gaps(result):
        console.print(line, highlight=False)
    if result.holds:
        where = " up to the last reconcile" if result.open else ""
        console.print(
            f"the law holds{where}: bronze = accepted + quarantined + duplicates, none twice"
        )


def accepted_gaps(result: Audit) -> list[str]:
    """A line for every range that is missing in Bronze for a reason that was written down."""
    from lakehouse import gaps

    return [
        f"retired: {gap} were kept as long as the contract of Bronze says"
        if gap.why == gaps.RETIRED
        else f"accepted gap: {gap} were gone before they were read"
        for gap in result.gaps
    ]


def audit_tables(spark: SparkSession, settings: Settings, contracts: Contracts) -> Audit:
    """Computes the balance. Raises TableError where a table is missing."""
    from pyspark.sql import functions as F

    from batch.judge import within
    from lakehouse import erasures, gaps, repairs, runs, tables
    from lakehouse.contracts import Contracts
    from lakehouse.decode import decode
    from lakehouse.gaps import Gap
    from lakehouse.silver import ACCEPTED, COORDINATES, QUARANTINED

    closed = runs.closed_range(spark, settings)
    known_gaps = gaps.accepted(spark, settings, "bronze")
    # Of what never was a record, Silver has none either; and there may be thousands of them.
    lost = [gap for gap in known_gaps if gap.why != gaps.VACANT]
    # Silver first: what a running stream adds after that is pending here, and not in Silver alone.
    silver = tables.read(spark, settings, tables.silver(contracts))
    bronze = tables.read(spark, settings, tables.bronze())
    marks = bronze.select(
        *COORDINATES, F.lit(1).alias("b"), F.lit(0).alias("a"), F.lit(0).alias("q")
    ).union(
        silver.select(
            *COORDINATES,
            F.lit(0),
            (F.col("outcome") == ACCEPTED).cast("int"),
            (F.col("outcome") == QUARANTINED).cast("int"),
        )
    )
    records = (
        marks.groupBy(*COORDINATES)
        .agg(F.sum("b").alias("b"), F.sum("a").alias("a"), F.sum("q").alias("q"))
        .withColumn("closed", within({}, closed))
        .persist()
    )
    in_silver = F.col("a") + F.col("q")
    partitions = (
        records.groupBy("topic", "partition")
        .agg(
            F.sum("b").alias("bronze"),
            F.count_if((F.col("b") > 0) & (F.col("a") == 1)).alias("accepted"),
            F.count_if((F.col("b") > 0) & (F.col("a") == 0) & (F.col("q") > 0)).alias(
                "quarantined"
            ),
            F.count_if(F.col("b") > 1).alias("bronze_twice"),
            F.count_if(in_silver > 1).alias("silver_twice"),
            F.count_if((F.col("b") == 0) & F.col("closed") & ~gaps.within(lost)).alias(
                "silver_alone"
            ),
            F.count_if(F.col("b") > 0).alias("held"),
            F.min(F.when(F.col("b") > 0, F.col("offset"))).alias("first"),
            F.max(F.when(F.col("b") > 0, F.col("offset"))).alias("last"),
        )
        .orderBy("topic", "partition")
        .collect()  # one row a partition of the broker
    )
    residue = records.where((F.col("b") > 0) & (in_silver == 0)).select(*COORDINATES, "closed")
    gone = []
    if (known_gone := erasures.erased(spark, settings)) is not None:
        # What they were is all that is known of them.
        counted = residue.join(known_gone, COORDINATES).groupBy("topic", "outcome").count()
        gone = counted.collect()  # three rows a topic
        residue = residue.join(known_gone, COORDINATES, "left_anti")
    # Of an enveloped event, the identity is in the envelope: only the others want their contracts.
    plain = Contracts(list(contracts.plain))
    identified = decode(
        repairs.applied(spark, settings, bronze).join(residue, COORDINATES),
        plain,
        settings.stream.max_record_bytes,
    ).select("topic", "closed", "source", "id", "digest")
    good = silver.where(F.col("outcome") == ACCEPTED)
    known = good.select("source", "id", "digest").distinct().withColumn("known", F.lit(True))
    rest = (
        identified.join(known, ["source", "id", "digest"], "left")
        .groupBy("topic")
        .agg(
            F.count_if("known").alias("duplicates"),
            F.count_if(F.col("known").isNull()).alias("pending"),
            F.count_if(F.col("known").isNull() & F.col("closed")).alias("overdue"),
        )
        .collect()  # one row a topic
    )
    # Behind the closed range the stream may have taken one again: a reconcile's to find.
    place = F.concat_ws("/", *COORDINATES)
    events = good.where(within({}, closed)).groupBy("source", "id")
    twice = events.agg(F.count("*").alias("count"), F.min(place).alias("at")).where("count > 1")
    double = twice.agg(F.count("*").alias("n"), F.min("at").alias("at")).collect()[0]
    records.unpersist()

    by_topic = {row.topic: row for row in rest}
    balances: dict[str, Balance] = {}
    broken: list[str] = []
    for row in partitions:
        of = balances.setdefault(row.topic, Balance(row.topic, 0, 0, 0, 0, 0))
        of.bronze += row.bronze
        of.accepted += row.accepted
        of.quarantined += row.quarantined
        where = f"topic {row.topic} partition {row.partition}"
        for count, what in (
            (row.bronze_twice, "coordinates are in Bronze more than once"),
            (
                row.silver_twice,
                "coordinates are in Silver more than once (written there by hand?): "
                "`headwater replay --from-offset 0` makes it anew from Bronze",
            ),
            (row.silver_alone, "coordinates are in Silver and not in Bronze"),
        ):
            if count:
                broken.append(f"{where}: {count:,} {what}")
    held = [row for row in partitions if row.held]
    missing = [Gap(row.topic, row.partition, 0, row.first) for row in held if row.first]
    if any(row.last - row.first + 1 != row.held for row in held):
        missing += gaps.holes(spark, settings)
    last = {(row.topic, row.partition): row.last for row in held}
    for (topic, partition), end in closed.items():
        begin = last.get((topic, partition), -1) + 1
        if begin < end:
            missing.append(Gap(topic, partition, begin, end))
    made_anew, unasked = _made_anew(spark, settings)
    broken += made_anew
    # What another topic of the same name holds says nothing of the one that was read.
    missing = gaps.without(missing, known_gaps)
    broken += _missing(settings, missing, ask=not made_anew)
    pending = 0
    for row in gone:
        balance = balances[row.topic]
        balance.accepted += row["count"] if row.outcome == ACCEPTED else 0
        balance.quarantined += row["count"] if row.outcome == QUARANTINED else 0
        balance.duplicates += row["count"] if row.outcome == "duplicate" else 0
    for topic, balance in balances.items():
        found = by_topic.get(topic)
        if found is None:
            continue
        balance.duplicates += found.duplicates
        balance.pending = found.pending
        pending += found.pending
        if found.overdue:
            broken.append(
                f"topic {topic}: {found.overdue:,} records have no outcome though the last "
                "reconcile closed their range: run `headwater reconcile --full`"
            )
    # What stands twice under the same coordinates is one event, and was told above.
    if double.n and not any(row.silver_twice for row in partitions):
        broken.append(
            f"{double.n:,} events are accepted more than once, one of them in record {double.at}: "
            "run `headwater reconcile --full`"
        )
    overdue = sum(row.overdue for row in rest)
    return Audit(list(balances.values()), broken, pending - overdue, lost, unasked)


def _made_anew(spark: SparkSession, settings: Settings) -> tuple[list[str], list[str]]:
    """A line for each topic that is another one than Bronze was written from; and one where no
    broker says so."""
    from lakehouse import kafka, tables
    from lakehouse.errors import BrokerError

    table = tables.bronze()
    then = tables.topics_of(tables.properties_of(spark, table.path(settings)))
    try:
        now = kafka.topic_ids(settings, then) if then else {}
    except BrokerError as error:
        said = "whether its topics are still those that it was written from was not asked"
        return [], [f"{table.full_name}: {said}: {error}"]
    return [f"{table.full_name}: {line}" for line in tables.made_anew(then, now)], []


def _missing(settings: Settings, found: list[Gap], ask: bool) -> list[str]:
    """A line a range that is missing in Bronze, unless the broker says that nothing is there."""
    from lakehouse import gaps
    from lakehouse.errors import BrokerError

    asked = ""
    if found and ask:
        try:
            empty = set(gaps.vacant(settings, found))
            found = [gap for gap in found if gap not in empty]
        except BrokerError:
            asked = " (the broker, which may know them to hold no record, does not answer)"
    found.sort()
    remedy = "`headwater replay --bronze --from-offset 0` reads again what the broker still has"
    lines = [f"{gap} are missing in Bronze{asked}: {remedy}" for gap in found[:NAMED]]
    if len(found) > NAMED:
        more = sum(gap.records for gap in found[NAMED:])
        lines.append(f"and {more:,} more in {len(found) - NAMED:,} more ranges")
    return lines


if __name__ == "__main__":
    run(audit, sys.argv[1:])
