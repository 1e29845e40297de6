"""What integration, fault and end-to-end tests do over and over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse import kafka
from lakehouse import settings as settings_files
from lakehouse.contracts import Contracts
from lakehouse.settings import Broker, Settings, Topics

ROOT = Path(__file__).parents[1]
BIN = Path(sys.prefix) / "bin"
# A command's JVM lives for seconds: what the optimising compiler costs, it does not give back.
SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"


def settings_for(folder: Path, bootstrap: str, **more: Any) -> Settings:
    """Settings with a topic of their own on the tests' broker."""
    topics = Topics(events=f"events-{uuid.uuid4().hex[:8]}", partitions=4)
    return settings_files.load(
        "local",
        storage=str(folder),
        broker=Broker(bootstrap=bootstrap),
        topics=topics,
        **more,
    )


def environment(settings: Settings) -> dict[str, str]:
    """The same settings for a process of its own."""
    return (
        {"SPARK_SUBMIT_OPTS": SHORT_LIVED}
        | os.environ
        | {
            "HEADWATER_STORAGE": settings.storage,
            "HEADWATER_BROKER__BOOTSTRAP": settings.broker.bootstrap,
            "HEADWATER_TOPICS__EVENTS": settings.topics.events,
        }
    )


def headwater(
    settings: Settings, *arguments: str, code: int = 0, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end and checks its exit code."""
    done = subprocess.run(
        [str(BIN / "headwater"), *arguments],
        env=environment(settings) | (extra or {}),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, f"{arguments}: {done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done


def died(settings: Settings, table: str, moment: str, nth: int, *command: str) -> None:
    """Runs a command that is killed at its nth append to a table."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.die_at", table, moment, str(nth), *command],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def put(
    settings: Settings, *values: bytes, partition: int = 0, timestamp: datetime | None = None
) -> None:
    """Sends records as they are, and waits until the broker has them. timestamp: their CreateTime,
    in place of now."""
    from confluent_kafka import Producer

    topic, errors = settings.topics.events, []
    kafka.ensure_topics(settings, [topic])
    producer = Producer(kafka.client_options(settings))
    at = 0 if timestamp is None else int(timestamp.timestamp() * 1000)
    for value in values:
        done = lambda error, _: errors.append(error) if error else None  # noqa: E731
        producer.produce(topic, value, partition=partition, on_delivery=done, timestamp=at)
    assert producer.flush(30) == 0
    assert errors == []


def drain(spark: SparkSession, settings: Settings, contracts: Contracts, *names: str) -> None:
    """Queries (both if none is named) over everything that the broker holds now, to their ends."""
    from lakehouse import checkpoints
    from streaming.command import start_all

    for query in start_all(spark, settings, contracts, names or checkpoints.QUERIES, True):
        query.query.awaitTermination()


def while_streaming(settings: Settings, script: Callable[[], None]) -> None:
    """Runs a script while the streams run as `headwater stream` has them, and stops them then."""
    from lakehouse import checkpoints
    from streaming.command import run_queries

    stopping, failed = threading.Event(), []

    def play() -> None:
        try:
            script()
        except BaseException as error:
            failed.append(error)
        finally:
            stopping.set()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    player = threading.Thread(target=play)
    player.start()
    try:
        run_queries(settings, checkpoints.QUERIES, False, stopping)
    finally:
        player.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if failed:
        raise failed[0]


def table(
    settings: Settings, name: str, columns: list[str] | None = None, version: int | None = None
) -> pa.Table:
    """A Delta table (at a version) read by another engine than Spark."""
    found = DeltaTable(f"{settings.tables}/{name}", version=version)
    return found.to_pyarrow_table(columns=columns)


class Place(NamedTuple):
    """Where the broker has a record."""

    topic: str
    partition: int
    offset: int


def unlike_the_ledger(settings: Settings, but: Collection[Place] = ()) -> list[Any]:
    """Every record whose outcome is not the one its ledger line asks for, and the ledger lines of
    none (20 at most). DuckDB, not Spark.

    A record sent twice is a duplicate from the second time on. but: records that are not looked at.
    """
    bronze = table(settings, "bronze/events", ["topic", "partition", "offset"])
    silver = table(
        settings, "silver/events", ["topic", "partition", "offset", "outcome", "violations"]
    )
    ledger = f"{settings.runtime_dir}/ledger/*.parquet"
    with duckdb.connect() as db:
        db.register("bronze", bronze)
        db.register("silver", silver)
        columns = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64())]
        rows = [place._asdict() for place in but]
        left_out = pa.Table.from_pylist(rows, pa.schema(columns))
        db.register("left_out", left_out)
        return db.execute(
            f"""
            WITH expected AS (
              SELECT *, CASE WHEN outcome = 'accepted' AND id IS NOT NULL AND row_number() OVER (
                  PARTITION BY source, id, outcome ORDER BY number, "offset") > 1
                THEN 'duplicate' ELSE outcome END AS wanted
              FROM read_parquet('{ledger}') WHERE "offset" IS NOT NULL
            )
            SELECT e.number, e.defect, e.wanted, s.outcome, e.rules, s.violations
            FROM expected e
            FULL JOIN bronze b USING (topic, partition, "offset")
            LEFT JOIN silver s USING (topic, partition, "offset")
            ANTI JOIN left_out USING (topic, partition, "offset")
            WHERE b."offset" IS NULL OR e."offset" IS NULL
               OR e.wanted IS DISTINCT FROM coalesce(s.outcome, 'duplicate')
               OR (s.outcome IS NOT NULL AND list_sort(e.rules) <> list_sort(s.violations))
            LIMIT 20
            """
        ).fetchall()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)
