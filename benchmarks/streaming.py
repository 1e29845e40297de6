"""Catching up with a loaded topic: Bronze against the ceiling, the whole path against others.

    headwater bench streaming [--events 200000] [--rounds 3]

    ceiling             Spark reads the topic into its noop sink
    Bronze              the query bronze
    Bronze and Silver   both queries, as `headwater stream` runs them
    plain Spark         both queries under Spark's own defaults (of what a session can set)
    hand-written loop   confluent-kafka, pyarrow and delta-rs in one process: the bytes to a Bronze
                        table, the same rules in pandas, a dictionary of ids, Silver and quarantine

Each begins at the first record, with tables and checkpoints of its own, and ends when all is
committed. At the end a reconcile gives Headwater's late records their outcomes, and every record's
has to be the loop's.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

import click

from benchmarks import measure

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from lakehouse.contracts import Contracts
    from lakehouse.settings import Settings

LOOP = "hand-written loop"
CEILING = "ceiling"
RECORDS_A_COMMIT = 50_000
DEFAULTS = {
    "spark.sql.shuffle.partitions": "200",
    "spark.databricks.delta.snapshotPartitions": "50",
    "spark.sql.codegen.factoryMode": "FALLBACK",
    "spark.sql.codegen.wholeStage": "true",
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider"
    ),
    "spark.sql.streaming.pollingDelay": "10ms",
    "spark.sql.streaming.minBatchesToRetain": "100",
    "spark.sql.streaming.noDataMicroBatches.enabled": "true",
}


@click.command()
@click.option("--events", default=200_000, show_default=True, help="Records in the topic.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved rounds of each.")
@measure.json_option
def main(events: int, rounds: int, as_json: bool) -> None:
    """Bronze against the ceiling; the whole path against a loop, and plain Spark."""
    from headwater import broker
    from lakehouse import contracts, kafka, settings
    from lakehouse.session import spark as make_session
    from producer.command import Sending, send_shop
    from tests.helpers import drain

    with tempfile.TemporaryDirectory() as folder:
        base = settings.load("local", storage=folder)
        loaded = contracts.load(base.contracts_dir)
        where = base.broker.model_copy(update={"bootstrap": broker.start(base).bootstrap})
        local = base.model_copy(update={"broker": where})
        try:
            kafka.ensure_topics(local, loaded.topics(local.topics.events))
            send_shop(local, Sending(events=events))
            spark = make_session(local, "benchmark")
            spark.sparkContext.setLogLevel("ERROR")
            places = (local.model_copy(update={"storage": f"{folder}/{n}"}) for n in count())
            last: dict[str, Settings] = {}

            def ours(*queries: str) -> None:
                last["ours"] = place = next(places)
                drain(spark, place, loaded, *queries)

            def loop() -> None:
                last[LOOP] = place = next(places)
                by_hand(place, loaded)

            ceiling = lambda: to_noop(spark, next(places), loaded)  # noqa: E731
            cases: dict[str, Callable[[], None]] = {
                CEILING: ceiling,
                "Bronze": lambda: ours("bronze"),
                "plain Spark": lambda: plainly(spark, lambda: ours("bronze", "silver")),
                LOOP: loop,
                "Bronze and Silver": lambda: ours("bronze", "silver"),
            }
            timed = {name: measure.rate(work, events) for name, work in cases.items()}
            found = measure.take_turns(timed, rounds)
            compare(spark, last["ours"], last[LOOP], loaded)
            spark.stop()
        finally:
            broker.stop(base)
    notes = {"records": events}
    for title, first, against in (
        ("Bronze alone", CEILING, {"Bronze": 0.6}),
        ("The whole path", LOOP, {"Bronze and Silver": 0.6}),
        ("The whole path", "plain Spark", {"Bronze and Silver": 3.0}),
    ):
        some = {name: found[name] for name in (first, *against)}
        measure.show(measure.Result(title, "records/s", first, some, notes, against), as_json)


def plainly(spark: SparkSession, work: Callable[[], None]) -> None:
    """Does it with Spark's own defaults."""
    before = {name: spark.conf.get(name, None) for name in DEFAULTS}
    for name, plain in DEFAULTS.items():
        spark.conf.set(name, plain)
    try:
        work()
    finally:
        for name, value in before.items():
            spark.conf.unset(name) if value is None else spark.conf.set(name, value)


def to_noop(spark: SparkSession, place: Settings, contracts: Contracts) -> None:
    from lakehouse import kafka

    topics = ",".join(contracts.topics(place.topics.events))
    options = {**kafka.spark_options(place), "subscribe": topics, "startingOffsets": "earliest"}
    query = (
        spark.readStream.format("kafka")
        .options(**options)
        .load()
        .writeStream.format("noop")
        .option("checkpointLocation", f"{place.storage}/noop")
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


def by_hand(place: Settings, contracts: Contracts) -> None:
    """What one would write without Spark; no restart is thought of."""
    import pyarrow as pa
    from confluent_kafka import Consumer, TopicPartition
    from deltalake import write_deltalake

    from lakehouse import decode_pandas, kafka

    ends = kafka.end_offsets(place, contracts.topics(place.topics.events))
    settings = {"group.id": uuid.uuid4().hex, "enable.auto.commit": False}
    consumer = Consumer({**kafka.client_options(place), **settings})
    consumer.assign([TopicPartition(topic, part, 0) for (topic, part), end in ends.items() if end])
    known: dict[tuple[str, str], str] = {}
    left = sum(ends.values())
    while left:
        messages = consumer.consume(min(left, RECORDS_A_COMMIT), timeout=10)
        left -= len(messages)
        records = [
            {
                "topic": message.topic(),
                "partition": message.partition(),
                "offset": message.offset(),
                "timestamp": message.timestamp()[1] * 1000,
                "key": message.key(),
                "value": message.value(),
            }
            for message in messages
        ]
        bronze = pa.Table.from_pylist(records, bronze_schema())
        write_deltalake(f"{place.storage}/bronze", bronze, mode="append")
        for record, moment in zip(records, bronze["timestamp"].to_pylist(), strict=True):
            record["timestamp"] = moment
        rows = decode_pandas.classify(records, contracts, place.stream.max_record_bytes)
        outcomes, violations = rows["outcome"].to_list(), rows["violations"].to_list()
        keys = zip(rows["source"], rows["id"], rows["digest"], strict=True)
        for at, (source, identity, digest) in enumerate(keys):
            if outcomes[at] != "accepted":
                continue
            first = known.setdefault((source, identity), digest)
            if first is digest:
                continue
            outcomes[at] = "duplicate" if first == digest else "quarantined"
            violations[at] = ["conflict"]
        done = rows.assign(outcome=outcomes, violations=violations)
        good = pa.Table.from_pandas(done[done.outcome == "accepted"], preserve_index=False)
        write_deltalake(f"{place.storage}/silver", good.drop(["violations"]), mode="append")
        bad = done[done.outcome == "quarantined"]
        raw = [records[i]["value"] for i in bad.index]
        refused = pa.table(
            {
                **{name: pa.array(bad[name]) for name in ("topic", "partition", "offset")},
                "violations": pa.array(bad["violations"].to_list(), pa.list_(pa.string())),
                "raw": pa.array(raw, pa.binary()),
            }
        )
        write_deltalake(f"{place.storage}/quarantine", refused, mode="append")
    consumer.close()


def bronze_schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"topic": pa.string(), "partition": pa.int32(), "offset": pa.int64()}
    kinds |= {"timestamp": pa.timestamp("us", "UTC"), "key": pa.binary(), "value": pa.binary()}
    return pa.schema(kinds)


def compare(spark: SparkSession, ours: Settings, loop: Settings, contracts: Contracts) -> None:
    """Raises ClickException where a record's outcome is not the same in both."""
    from batch import reconcile
    from lakehouse import tables

    reconcile.reconcile_range(spark, ours, contracts)
    mine = tables.read(spark, ours, tables.silver(contracts))
    mine = mine.selectExpr("topic", "partition", "offset", "outcome", "sort_array(violations) AS v")
    read = spark.read.format("delta")
    theirs = (
        read.load(f"{loop.storage}/silver")
        .selectExpr("topic", "partition", "offset", "'accepted' AS outcome", "array() AS v")
        .union(
            read.load(f"{loop.storage}/quarantine").selectExpr(
                "topic", "partition", "offset", "'quarantined' AS outcome", "sort_array(violations)"
            )
        )
    )
    unlike = mine.exceptAll(theirs).union(theirs.exceptAll(mine)).limit(5).collect()
    if unlike:
        raise click.ClickException(f"the loop and Headwater differ: {unlike}")


if __name__ == "__main__":
    main()
