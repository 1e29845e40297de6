"""The bridge on real brokers: killed, stopped, slowed down, and given what is too large."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse import kafka
from lakehouse.contracts import Contracts
from lakehouse.errors import BrokerError, GapError
from lakehouse.settings import Bridge, BridgeTo, Settings
from producer import bridge
from producer.command import Sending, send_shop
from producer.targets import KafkaTarget
from tests.helpers import BIN, ROOT, drain, environment, headwater, settings_for, wait_until
from tests.hub_server import HubServer

KEYS = 50


@pytest.fixture
def settings(bootstrap: str, tmp_path: Path) -> Settings:
    """From a topic to one with fewer partitions, on the tests' broker."""
    settings = settings_for(tmp_path, bootstrap)
    name = settings.topics.events
    to = Bridge(to=BridgeTo(bootstrap=bootstrap), topic=f"{name}.there", group=f"{name}.bridge")
    there = settings.model_copy(
        update={"topics": settings.topics.model_copy(update={"partitions": 3})}
    )
    kafka.ensure_topics(there, [to.topic])
    return settings.model_copy(update={"bridge": to})


def variables(settings: Settings) -> dict[str, str]:
    """The bridge's settings for a process of its own."""
    to = settings.bridge
    return environment(settings) | {
        "HEADWATER_BRIDGE__TO__BOOTSTRAP": to.to.bootstrap,
        "HEADWATER_BRIDGE__TOPIC": to.topic,
        "HEADWATER_BRIDGE__GROUP": to.group,
        "HEADWATER_BRIDGE__IN_FLIGHT": str(to.in_flight),
    }


def source(settings: Settings) -> Producer:
    """A producer that keeps the order when it tries again."""
    more = {"enable.idempotence": True, "message.max.bytes": 16_000_000}
    return Producer({**kafka.client_options(settings), **more})


class Load:
    """Sends numbered events of KEYS keys, each with a header; what it sent, by key and in order."""

    def __init__(self, settings: Settings) -> None:
        kafka.ensure_topics(settings, [settings.topics.events])
        self._settings, self._random = settings, random.Random(7)
        self.sent: dict[bytes, list[bytes]] = defaultdict(list)
        self._producer = source(settings)

    @property
    def count(self) -> int:
        return sum(map(len, self.sent.values()))

    def send(self, events: int) -> None:
        for _ in range(events):
            key = b"key-%d" % self._random.randrange(KEYS)
            value = json.dumps({"id": self.count, "key": key.decode(), "fill": "x" * 200}).encode()
            self.sent[key].append(value)
            headers: list[tuple[str, str | bytes | None]] = [("traced", value[:12])]
            self._producer.produce(self._settings.topics.events, value, key, headers=headers)
            self._producer.poll(0)
        assert self._producer.flush(60) == 0


def read_all(settings: Settings, topic: str) -> list[Any]:
    """Every record of a topic, in the order of each of its partitions."""
    ends = kafka.end_offsets(settings, [topic])
    options = {"group.id": uuid.uuid4().hex, "enable.partition.eof": False}
    consumer = Consumer({**kafka.client_options(settings), **options})
    consumer.assign([TopicPartition(topic, partition, 0) for _, partition in ends])
    found: list[Any] = []
    deadline = time.monotonic() + 60
    while len(found) < sum(ends.values()) and time.monotonic() < deadline:
        found += consumer.consume(1_000, 0.5)
    consumer.close()
    assert [m.error() for m in found if m.error()] == []
    assert len(found) == sum(ends.values())
    return found


def check_all_there(settings: Settings, load: Load) -> int:
    """Every record is there, whole and first in the order of its key; returns how many twice."""
    got: dict[bytes, list[bytes]] = defaultdict(list)
    seen: set[bytes] = set()
    twice = 0
    for message in read_all(settings, settings.bridge.topic):
        value = message.value()
        assert message.headers() == [("traced", value[:12])]
        if value in seen:
            twice += 1
        else:
            got[message.key()].append(value)
            seen.add(value)
    assert got == load.sent
    return twice


def start(settings: Settings, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command or [str(BIN / "headwater"), "bridge"],
        env=variables(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sent_on(settings: Settings) -> int:
    return sum(kafka.end_offsets(settings, [settings.bridge.topic]).values())


def moved_past(settings: Settings, before: int) -> bool:
    return sent_on(settings) > before


def kill_as_it_sends(settings: Settings) -> None:
    """Starts a bridge, and kills it once it has sent something on."""
    before = sent_on(settings)
    process = start(settings)
    try:
        wait_until(partial(moved_past, settings, before), 60, "sending")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def killed_under_load(settings: Settings, load: Load, kills: int, events: int) -> None:
    """So many bridges, one after another, each killed while it sends; then one to the end."""
    for _ in range(kills):
        load.send(events)
        kill_as_it_sends(settings)
    headwater(settings, "bridge", "--available-now", extra=variables(settings))


@pytest.mark.long
def test_a_kill_loses_nothing_and_keeps_the_order_of_keys(settings: Settings) -> None:
    load = Load(settings)
    killed_under_load(settings, load, 1, 30_000)
    check_all_there(settings, load)
    # What was acknowledged is committed: another run has nothing to do.
    done = headwater(settings, "bridge", "--available-now", extra=variables(settings))
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["read"], figures["acknowledged"], figures["lag"]) == (0, 0, 0)


def test_a_stop_waits_for_what_is_under_way_and_commits(settings: Settings) -> None:
    load = Load(settings)
    load.send(30_000)
    # As a file, which is another way to start it.
    process = start(settings, sys.executable, str(ROOT / "producer" / "bridge.py"))
    try:
        wait_until(lambda: sent_on(settings) > 0, 60, "sending")
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, said
    figures = json.loads(out.splitlines()[-1])
    assert figures["in_flight"] == 0
    assert figures["read"] == figures["acknowledged"] == sent_on(settings)
    assert "bridge ended: read" in said
    report = bridge.send_on(settings, available_now=True)
    assert figures["acknowledged"] + report.acknowledged == 30_000
    assert check_all_there(settings, load) == 0


def test_what_is_too_large_is_put_aside_whole(settings: Settings) -> None:
    small = settings.bridge.model_copy(update={"max_event_bytes": 2_000})
    settings = settings.model_copy(update={"bridge": small})
    topic = settings.topics.events
    kafka.ensure_topics(settings, [topic])
    producer = source(settings)
    values = [b"a", os.urandom(5_000), b"b", os.urandom(1_990), os.urandom(2_000_000), b"c"]
    for value in values:
        producer.produce(topic, value, b"k", partition=2, headers=[("h", b"1")])
    assert producer.flush(30) == 0
    report = bridge.send_on(settings, available_now=True)
    assert (report.read, report.acknowledged, report.dead_lettered) == (6, 3, 3)
    assert [m.value() for m in read_all(settings, settings.bridge.topic)] == [b"a", b"b", b"c"]
    aside = {m.value(): dict(m.headers()) for m in read_all(settings, f"{topic}.dead-letters")}
    # More than any topic's records, with what is said of them: not what the broker is set to.
    assert kafka.max_message_bytes(settings, f"{topic}.dead-letters") == 16_065_536
    # The fourth fits the limit, and not with what the protocol puts around it.
    assert set(aside) == {values[1], values[3], values[4]}
    for value, offset in ((values[1], b"1"), (values[3], b"3"), (values[4], b"4")):
        told = aside[value]
        assert (told["h"], told["headwater.dead_letter.topic"]) == (b"1", topic.encode())
        assert told["headwater.dead_letter.partition"] == b"2"
        assert told["headwater.dead_letter.offset"] == offset
        assert told["headwater.dead_letter.reason"]


def test_what_expired_before_it_was_sent_on_is_an_error_until_accepted(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    load, topic = Load(settings), settings.topics.events
    load.send(200)
    assert bridge.send_on(settings, available_now=True).acknowledged == 200
    read = kafka.end_offsets(settings, [topic])[topic, 1]
    load.send(200)
    admin = AdminClient(kafka.client_options(settings))
    for done in admin.delete_records([TopicPartition(topic, 1, read + 3)]).values():
        done.result(10)
    lost = f"topic {topic} partition 1: offsets {read} to {read + 2} (3 records)"
    with pytest.raises(GapError) as refused:
        bridge.send_on(settings, available_now=True)
    assert lost in str(refused.value)
    assert "--accept-gap" in str(refused.value)
    report = bridge.send_on(settings, available_now=True, accept_gap=True)
    assert (report.acknowledged, report.gone) == (197, 3)
    assert f"accepted gap: {lost}" in capfd.readouterr().err
    assert bridge.send_on(settings, available_now=True).read == 0


def test_no_more_is_read_than_the_target_takes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that acknowledges nothing for a while: the bridge waits, and stays in its group."""
    bounded = settings.bridge.model_copy(update={"in_flight": 1_000})
    settings = settings.model_copy(update={"bridge": bounded})
    load = Load(settings)
    load.send(5_000)
    held: list[Any] = []
    highest, stuck = [0], [True]
    done = bridge._Bridge._done

    def slow(self: bridge._Bridge, record: Any) -> None:
        if stuck[0]:
            held.append(record)
        else:
            done(self, record)

    began = time.monotonic()
    poll = KafkaTarget.poll

    def polled(self: KafkaTarget, seconds: float) -> None:
        poll(self, seconds)
        running = self._done.__self__  # type: ignore[attr-defined]
        highest[0] = max(highest[0], running.safe.in_flight)
        if stuck[0] and time.monotonic() - began > 2:
            stuck[0] = False
            for record in held:
                done(running, record)

    monkeypatch.setattr(bridge._Bridge, "_done", slow)
    monkeypatch.setattr(KafkaTarget, "poll", polled)
    report = bridge.send_on(settings, available_now=True)
    assert report.acknowledged == 5_000
    assert 1_000 <= highest[0] <= 1_000 + bridge.RECORDS_A_POLL
    assert check_all_there(settings, load) == 0


def test_a_source_that_is_not_there_is_not_made(settings: Settings) -> None:
    topic = settings.topics.events
    with pytest.raises(BrokerError, match=f"has no topic {topic}: correct the name, or make it"):
        bridge.send_on(settings)
    with pytest.raises(BrokerError, match=topic):
        kafka.demand_topics(settings, [topic])


def test_a_target_that_is_not_there_is_one_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.ensure_topics(settings, [settings.topics.events])
    monkeypatch.setattr(kafka, "TIMEOUT_SECONDS", 0.5)
    away = settings.bridge.model_copy(update={"to": BridgeTo(bootstrap="127.0.0.1:1")})
    with pytest.raises(BrokerError) as refused:
        bridge.send_on(settings.model_copy(update={"bridge": away}))
    assert "127.0.0.1:1 does not answer" in str(refused.value)
    assert "HEADWATER_BRIDGE__TO__BOOTSTRAP" in str(refused.value)


@pytest.mark.long
def test_two_bridges_share_the_partitions_and_keep_the_order(settings: Settings) -> None:
    """One comes and one goes while it flows; what each has under way is safe before the other has
    its partitions."""
    settings = settings.model_copy(
        update={"bridge": settings.bridge.model_copy(update={"in_flight": 1_000})}
    )
    load, running = Load(settings), []
    try:
        for _ in range(2):
            running.append(start(settings))
            before = sent_on(settings)
            load.send(40_000)
            wait_until(partial(moved_past, settings, before + 5_000), 60, "sending")
        running[0].send_signal(signal.SIGTERM)
        first, _ = running[0].communicate(timeout=60)
        load.send(10_000)
        wait_until(lambda: sent_on(settings) >= load.count, 120, "all of it")
        running[1].send_signal(signal.SIGTERM)
        second, _ = running[1].communicate(timeout=60)
    finally:
        for process in running:
            process.kill()
    acknowledged = [json.loads(out.splitlines()[-1])["acknowledged"] for out in (first, second)]
    assert min(acknowledged) > 0
    assert sum(acknowledged) == load.count
    assert check_all_there(settings, load) == 0


@pytest.mark.long
def test_ten_kills_under_load_lose_nothing_and_the_copies_go_downstream(
    spark: SparkSession, contracts: Contracts, settings: Settings
) -> None:
    """A shop, sent on by bridges that are killed; then streams over what arrived, to the audit."""
    # Small enough a bound that each bridge is killed between commits, with much under way.
    settings = settings.model_copy(
        update={"bridge": settings.bridge.model_copy(update={"in_flight": 2_000})}
    )
    # The shop's own copies are left out: those that are found are the bridges'.
    events = 60_000
    send_shop(settings, Sending(events=events, defects=0.0, seed=31))
    for _ in range(10):
        kill_as_it_sends(settings)
    headwater(settings, "bridge", "--available-now", extra=variables(settings))
    there = settings.model_copy(
        update={"topics": settings.topics.model_copy(update={"events": settings.bridge.topic})}
    )
    sent: set[bytes] = {m.value() for m in read_all(settings, settings.topics.events)}
    arrived = read_all(settings, settings.bridge.topic)
    assert {m.value() for m in arrived} == sent
    assert len(sent) == events < len(arrived), "no kill made a copy"
    drain(spark, there, contracts)
    reconcile.reconcile_range(spark, there, contracts)
    found = audit.audit_tables(spark, there, contracts)
    assert found.broken == []
    [balance] = found.balances
    assert (balance.bronze, balance.accepted) == (len(arrived), events)
    assert balance.duplicates == len(arrived) - events


@pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.long)])
def test_to_an_event_hub_by_amqp(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    """Whole and in the order of keys; what is too large for the hub goes to the dead letters."""
    server = HubServer(hub=3)
    monkeypatch.setenv("TEST_SECRET", server.connection_string)
    settings = settings.model_copy(
        update={"bridge": settings.bridge.model_copy(update={"topic": "hub"})}
    )
    login = {
        "BOOTSTRAP": f"127.0.0.1:{server.port}",
        "PROTOCOL": "amqp",
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "PLAIN",
        "SASL_PASSWORD": "env:TEST_SECRET",
    }
    extra = variables(settings) | {f"HEADWATER_BRIDGE__TO__{k}": v for k, v in login.items()}
    load = Load(settings)
    load.send(5_000)
    producer = source(settings)
    producer.produce(settings.topics.events, bytes(500_000), b"key-0")
    assert producer.flush(30) == 0
    try:
        if kill:
            process = subprocess.Popen([str(BIN / "headwater"), "bridge"], env=extra)
            try:
                wait_until(lambda: bool(server.hubs["hub"].sendings), 60, "sending")
            finally:
                process.kill()
                process.wait()
        done = headwater(settings, "bridge", "--available-now", extra=extra)
    finally:
        server.stop()
    assert server.secret not in done.stdout + done.stderr
    got: dict[bytes, list[bytes]] = defaultdict(list)
    for key, message in server.events("hub"):
        value = b"".join(message.data)
        assert key is not None
        assert message.application_properties == {b"traced": value[:12]}
        if value not in got[key.encode()]:
            got[key.encode()].append(value)
    assert got == load.sent
    aside = read_all(settings, f"{settings.topics.events}.dead-letters")
    assert {len(message.value()) for message in aside} == {500_000}
