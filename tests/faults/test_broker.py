"""What a broker does under a stream: partitions added, records expired, topics made anew, death."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from deltalake.exceptions import TableNotFoundError
from pyspark.sql import SparkSession

from batch import audit, reconcile
from headwater import broker, doctor
from lakehouse import checkpoints, kafka, tables
from lakehouse import settings as settings_files
from lakehouse.contracts import Contracts
from lakehouse.errors import StreamError, TableError
from lakehouse.gaps import Gap
from lakehouse.settings import Settings, Stream
from producer.command import Sending, send_shop
from streaming import watch
from streaming.command import run_queries
from tests.helpers import (
    BIN,
    died,
    drain,
    environment,
    headwater,
    settings_for,
    table,
    unlike_the_ledger,
    wait_until,
    while_streaming,
)


def expire(settings: Settings, before: dict[int, int]) -> None:
    """Has the broker let go of what is before an offset, by partition, as its retention does."""
    admin = AdminClient(kafka.client_options(settings))
    topic = settings.topics.events
    asked = admin.delete_records([TopicPartition(topic, p, end) for p, end in before.items()])
    for done in asked.values():
        done.result(10)


@pytest.mark.long
def test_records_that_expired_are_named_and_accepted(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    topic = settings.topics.events
    # Without defects: which of two copies stands would hang on which of them is lost.
    send_shop(settings, Sending(events=2_000, defects=0.0, seed=61))
    drain(spark, settings, contracts)
    read = kafka.end_offsets(settings, [topic])
    send_shop(settings, Sending(events=48, defects=0.0, seed=61, go_on=True))
    # One partition is gone to its end: no record comes after the gap.
    end = kafka.end_offsets(settings, [topic])[topic, 1]
    expire(settings, {0: read[topic, 0] + 3, 1: end})
    lost = [
        Gap(topic, 0, read[topic, 0], read[topic, 0] + 3),
        Gap(topic, 1, read[topic, 1], end),
    ]
    missing = 3 + end - read[topic, 1]
    assert 3 < missing < 20

    # A stream without end, too: no further try helps.
    for how in (["--available-now"], []):
        *_, said = headwater(settings, "stream", *how, code=1).stderr.splitlines()
        for gap in lost:
            assert str(gap) in said
        assert "--accept-gap" in said
    assert table(settings, "bronze/events", ["offset"]).num_rows == 2_000

    headwater(settings, "stream", "--available-now", "--accept-gap")
    # Accepted once, it is no error any more, and what comes later is.
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert (found.broken, found.gaps) == ([], lost)
    assert [balance.bronze for balance in found.balances] == [2_048 - missing]
    missed = unlike_the_ledger(settings)
    assert len(missed) == missing
    assert {row[3] for row in missed} == {None}, "nothing but what was lost has no outcome"
    assert [f for f in doctor.examine(settings) if f.check == "checkpoints" and f.remedy] == []


@pytest.mark.long
def test_what_expires_behind_a_table_that_has_it_is_no_gap(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    """Both queries die between their table's commit and their checkpoint's; then the broker lets go
    of what they have written."""
    settings = settings_for(tmp_path, bootstrap)
    topic = settings.topics.events
    send_shop(settings, Sending(events=300, seed=67))
    for query in checkpoints.QUERIES:
        died(settings, f"{query}.events", "after", 1, "stream", "--available-now", query)
    assert table(settings, "bronze/events", ["offset"]).num_rows == 300
    expire(settings, {0: 9, 1: kafka.end_offsets(settings, [topic])[topic, 1]})
    assert [f for f in doctor.examine(settings) if f.check == "checkpoints" and f.remedy] == []
    send_shop(settings, Sending(events=48, seed=67, go_on=True))
    headwater(settings, "stream", "--available-now")
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert (found.broken, found.gaps) == ([], [])
    assert [balance.bronze for balance in found.balances] == [348]
    assert unlike_the_ledger(settings) == []
    # From there on, what is gone is an error again.
    read = kafka.end_offsets(settings, [topic])[topic, 0]
    send_shop(settings, Sending(events=48, seed=67, go_on=True))
    expire(settings, {0: read + 1})
    said = headwater(settings, "stream", "--available-now", code=1).stderr
    assert str(Gap(topic, 0, read, read + 1)) in said


@pytest.mark.long
def test_what_was_gone_before_the_first_start_is_named(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    topic = settings.topics.events
    send_shop(settings, Sending(events=300, defects=0.0, seed=66))
    expire(settings, {0: 9})
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert (found.broken, found.gaps) == ([], [Gap(topic, 0, 0, 9)])
    assert [balance.bronze for balance in found.balances] == [291]


def test_a_topic_made_anew_is_not_taken_for_the_old_one(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    topic = settings.topics.events
    send_shop(settings, Sending(events=200, seed=62))
    drain(spark, settings, contracts, "bronze")
    admin = AdminClient(kafka.client_options(settings))
    for done in admin.delete_topics([topic]).values():
        done.result(10)
    wait_until(lambda: topic not in admin.list_topics(timeout=5).topics, 20, "deletion")
    # As many records again, so that offsets alone tell nothing.
    send_shop(settings, Sending(events=400, seed=62))
    with pytest.raises(TableError, match=f"topic {topic} was deleted and made anew"):
        drain(spark, settings, contracts, "bronze")
    assert table(settings, "bronze/events", ["offset"]).num_rows == 200
    # Before anybody starts a stream, too.
    [finding] = [f for f in doctor.examine(settings) if f.check == "checkpoints" and f.remedy]
    assert f"topic {topic} was deleted and made anew" in finding.said
    tables.ensure(spark, settings, tables.silver(contracts))
    broken = audit.audit_tables(spark, settings, contracts).broken
    assert any(f"topic {topic} was deleted and made anew" in line for line in broken)


def test_a_topic_made_anew_while_it_is_read_ends_the_streams(
    own_broker: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, topic = own_broker, own_broker.topics.events
    monkeypatch.setattr(watch, "EVERY_SECONDS", 0.2)
    kafka.ensure_topics(settings, [topic])
    looking = watch.TopicWatch(settings, [topic])
    admin = AdminClient(kafka.client_options(settings))

    def said() -> str:
        try:
            looking.check()
        except StreamError as error:
            return str(error)
        return ""

    try:
        for _ in range(20):
            assert said() == ""
            time.sleep(0.05)
        for done in admin.delete_topics([topic]).values():
            done.result(10)
        wait_until(lambda: topic not in admin.list_topics(timeout=5).topics, 20, "deletion")
        kafka.ensure_topics(settings, [topic])
        wait_until(lambda: "was deleted and made anew while it was read" in said(), 20, "notice")
    finally:
        looking.close()


@pytest.mark.long
def test_a_broker_that_does_not_answer_for_a_minute(
    spark: SparkSession, contracts: Contracts, own_broker: Settings
) -> None:
    """Stopped, not killed: its connections stay open, and nothing comes over them."""
    settings, events = own_broker, 3_000

    def script() -> None:
        send_shop(settings, Sending(events=events, seed=67))
        wait_until(lambda: in_bronze(settings) >= 1_000, 120, "the first batch")
        pid = broker.status(settings).pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            # The fault is that it lasts.
            time.sleep(60)
        finally:
            os.kill(pid, signal.SIGCONT)
        send_shop(settings, Sending(events=events, seed=68))
        wait_until(lambda: in_bronze(settings) == 2 * events, 240, "all of Bronze")
        wait_until(lambda: lag(settings) == 0, 120, "all of Silver")

    while_streaming(settings, script)
    all_has_its_outcome(spark, contracts, settings, 2 * events)


@pytest.mark.long
@pytest.mark.usefixtures("_own_signals")
def test_a_broker_that_comes_after_the_streams(
    spark: SparkSession,
    contracts: Contracts,
    own_broker: Settings,
    capfd: pytest.CaptureFixture[str],
) -> None:
    send_shop(own_broker, Sending(events=1_000, seed=75))
    broker.stop(own_broker)
    settings = own_broker.model_copy(update={"stream": Stream(restart_seconds=0.5)})
    came = threading.Event()

    def come() -> None:
        wait_until(lambda: "bronze starts again in" in capfd.readouterr().err, 240, "a try")
        broker.start(own_broker)
        came.set()

    later = threading.Thread(target=come)
    later.start()

    def script() -> None:
        assert came.wait(300)
        wait_until(lambda: in_bronze(settings) == 1_000, 240, "all of Bronze")
        wait_until(lambda: lag(settings) == 0, 120, "all of Silver")

    while_streaming(settings, script)
    later.join()
    all_has_its_outcome(spark, contracts, settings, 1_000)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Settings]:
    """A broker that the test may kill. Queries try again at once."""
    settings = settings_files.load(
        "local",
        storage=str(tmp_path),
        stream=Stream(max_offsets_per_trigger=1_000, restart_seconds=0.1),
    )
    broker.start(settings)
    yield settings
    broker.stop(settings)


@pytest.fixture
def _own_signals() -> Iterator[None]:
    """`run_queries` takes the signals; they are given back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.long
def test_partitions_added_and_the_broker_killed_under_a_running_stream(
    spark: SparkSession, contracts: Contracts, own_broker: Settings
) -> None:
    settings, events = own_broker, 3_000

    def script() -> None:
        send_shop(settings, Sending(events=events, seed=63))
        wait_until(lambda: in_bronze(settings) >= 1_000, 120, "the first batch")
        admin = AdminClient(kafka.client_options(settings))
        topic = settings.topics.events
        for done in admin.create_partitions([NewPartitions(topic, 7)]).values():
            done.result(10)
        pid = broker.status(settings).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not broker.status(settings).running, 20, "the broker's death")
        broker.start(settings)
        # Another shop: a copy in another partition than its original may be read before it.
        send_shop(settings, Sending(events=events, seed=65))
        wait_until(lambda: in_bronze(settings) == 2 * events, 240, "all of Bronze")
        wait_until(lambda: lag(settings) == 0, 120, "all of Silver")

    while_streaming(settings, script)
    all_has_its_outcome(spark, contracts, settings, 2 * events)
    partitions = set(table(settings, "bronze/events", ["partition"])["partition"].to_pylist())
    assert partitions == set(range(7))


def all_has_its_outcome(
    spark: SparkSession, contracts: Contracts, settings: Settings, events: int
) -> None:
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    assert [balance.bronze for balance in found.balances] == [events]
    assert unlike_the_ledger(settings) == []


def in_bronze(settings: Settings) -> int:
    try:
        return int(table(settings, "bronze/events", ["offset"]).num_rows)
    except TableNotFoundError:
        return 0


def lag(settings: Settings) -> int:
    ends = kafka.end_offsets(settings, [settings.topics.events])
    done = checkpoints.committed(checkpoints.ArrowFiles(settings, "silver"))
    return sum(end - done.get(key, 0) for key, end in ends.items())


@pytest.mark.long
@pytest.mark.usefixtures("_own_signals")
def test_a_query_that_fails_is_started_again_so_often(
    spark: SparkSession,
    contracts: Contracts,
    bootstrap: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A write that fails: twice in a row it passes, for good it ends the command."""
    stream = Stream(restarts=3, restart_seconds=0.05)
    settings = settings_for(tmp_path, bootstrap, stream=stream)
    send_shop(settings, Sending(events=500, seed=64))
    append, calls, left = tables.append, [], [2]
    error = OSError(5, "Input/output error")

    def failing(rows: Any, of: Settings, what: tables.Table, *more: Any) -> None:
        calls.append(time.monotonic())
        if left[0]:
            left[0] -= 1
            raise error
        append(rows, of, what, *more)

    monkeypatch.setattr(tables, "append", failing)
    stopping = threading.Event()

    def until_written() -> None:
        try:
            wait_until(lambda: in_bronze(settings) == 500, 120, "Bronze")
        finally:
            stopping.set()

    waiter = threading.Thread(target=until_written)
    waiter.start()
    run_queries(settings, ("bronze",), False, stopping)
    waiter.join()
    said = capfd.readouterr().err
    assert "Input/output error" in said
    assert "bronze starts again in 0.05 s (restart 1 of 3)" in said
    assert "bronze starts again in 0.1 s (restart 2 of 3)" in said

    left[0] = 1_000
    calls.clear()
    send_shop(settings, Sending(events=500, seed=64, go_on=True))
    with pytest.raises(StreamError, match=r"Input/output error.*given up after 3 restarts"):
        run_queries(settings, ("bronze",), False, threading.Event())
    assert len(calls) == 4
    # A full disk does not get empty by itself.
    error = OSError(28, "No space left on device")
    calls.clear()
    with pytest.raises(StreamError, match=r"No space left on device"):
        run_queries(settings, ("bronze",), False, threading.Event())
    assert len(calls) == 1
    monkeypatch.undo()
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    assert audit.audit_tables(spark, settings, contracts).broken == []
    assert unlike_the_ledger(settings) == []


@pytest.mark.long
def test_a_stream_whose_query_fails_for_good_ends_with_a_code(
    bootstrap: str, tmp_path: Path
) -> None:
    """Its table becomes a folder that nobody may write into, in the middle of its work."""
    settings = settings_for(tmp_path, bootstrap)
    send_shop(settings, Sending(events=100, seed=69))
    few = {
        "HEADWATER_STREAM__RESTARTS": "2",
        "HEADWATER_STREAM__RESTART_SECONDS": "0.1",
        "HEADWATER_STREAM__TRIGGER": "200 milliseconds",
    }
    process = subprocess.Popen(
        [str(BIN / "headwater"), "stream"],
        env=environment(settings) | few,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = Path(settings.tables) / "bronze/events/_delta_log"
    moved = log.with_name("moved")
    try:
        wait_until(lambda: (log / f"{1:020}.json").exists(), 240, "the first batch of Bronze")
        log.rename(moved)
        # A file in the place of a folder: a user who may do everything cannot write into it.
        log.write_bytes(b"")
        send_shop(settings, Sending(events=100, seed=69, go_on=True))
        said = process.communicate(timeout=240)[1]
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "bronze starts again in" in said
    last = said.splitlines()[-1]
    assert last.startswith("headwater: ")
    assert "given up after 2 restarts" in last
    log.unlink()
    moved.rename(log)
    headwater(settings, "stream", "--available-now")
    headwater(settings, "reconcile")
    headwater(settings, "audit")
    assert unlike_the_ledger(settings) == []
