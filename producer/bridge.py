"""`headwater bridge`: a Kafka topic on to Event Hubs, at least once and in the order of each key.

Where it stands is what the consumer group has committed, and that is only ever behind records that
the target has acknowledged. So a kill loses nothing; what was acknowledged and not yet committed is
sent again, with the same envelope, and taken out downstream like any other copy.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from lakehouse.command import run, settings_options, stop_on_signals
from lakehouse.errors import BrokerError, GapError, SettingsError

if TYPE_CHECKING:
    from lakehouse.kafka import Offsets, Troubles
    from lakehouse.settings import Settings
    from producer.targets import Record, Target

COMMIT_SECONDS = 1.0
REPORT_SECONDS = 10.0
# A refusal of the source, heard of for so long without a record or an acknowledgement, is final.
REFUSED_SECONDS = 30.0
RECORDS_A_POLL = 500
GONE = (
    "records expired before they were sent on. What no other copy of the topic has is lost; "
    "`headwater bridge --accept-gap` goes on after it"
)
WAIT_SECONDS = 0.1
# What is kept aside may be as large as the broker lets it.
LARGEST_BYTES = 16_000_000
# For what is said of a dead letter in its headers.
ROOM_BYTES = 65_536


@click.command("bridge")
@click.option("--topic", default=None, help="Topic to read.  [default: the environment's]")
@click.option(
    "--available-now",
    is_flag=True,
    help="End once everything that the topic holds now is sent on.",
)
@click.option(
    "--accept-gap",
    is_flag=True,
    help="Go on after records that the broker let go of before they were sent on.",
)
@settings_options
def bridge(topic: str | None, available_now: bool, accept_gap: bool, settings: Settings) -> None:
    """Send a topic's records on to Event Hubs (settings `bridge`), until SIGTERM or Ctrl-C.

    A line of JSON with its figures goes to stdout every ten seconds and at the end.
    """
    from lakehouse.progress import Ticker

    stopping = threading.Event()
    stop_on_signals(stopping)
    told = time.monotonic()

    def show(report: Report) -> None:
        nonlocal told
        ticker.show(str(report))
        if time.monotonic() - told > REPORT_SECONDS:
            told = time.monotonic()
            click.echo(report.line())

    with Ticker() as ticker:
        report = send_on(settings, topic, stopping.is_set, available_now, accept_gap, show)
    click.echo(report.line())
    click.echo(f"bridge ended: {report}", err=True)


@dataclass
class Report:
    """read: records of the source; acknowledged: by the target; dead_lettered: kept aside, for
    their size; bytes: of those acknowledged; in_flight: neither yet; lag: behind the source's end;
    gone: offsets that the source had let go of, which was accepted.
    """

    read: int = 0
    acknowledged: int = 0
    dead_lettered: int = 0
    bytes: int = 0
    in_flight: int = 0
    lag: int = 0
    gone: int = 0
    seconds: float = 0.0

    def line(self) -> str:
        """As a line of JSON, with the time."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json.dumps({"at": now, **asdict(self), "seconds": round(self.seconds, 3)})

    def __str__(self) -> str:
        rate = self.acknowledged / self.seconds if self.seconds else 0.0
        return (
            f"read {self.read:,}, acknowledged {self.acknowledged:,} ({rate:,.0f}/s), dead letters "
            f"{self.dead_lettered:,}, in flight {self.in_flight:,}, lag {self.lag:,}"
        )


class Acknowledged:
    """Up to where every record of a partition is safe, although they become so in any order."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, int], deque[int]] = {}
        self._done: dict[tuple[str, int], set[int]] = {}
        self._moved: Offsets = {}
        self._sizes: dict[tuple[str, int, int], int] = {}
        self.bytes = 0

    @property
    def in_flight(self) -> int:
        return len(self._sizes)

    def sent(self, record: Record) -> None:
        key = record.topic, record.partition
        self._sent.setdefault(key, deque()).append(record.offset)
        self._done.setdefault(key, set())
        # Lost and given back, a partition's records are sent again while the first is under way.
        self.bytes += record.size - self._sizes.get((*key, record.offset), 0)
        self._sizes[(*key, record.offset)] = record.size

    def done(self, record: Record) -> None:
        key = record.topic, record.partition
        self.bytes -= self._sizes.pop((*key, record.offset), 0)
        waiting, done = self._sent.get(key), self._done.get(key)
        if waiting is None or done is None:
            return  # of a partition that another bridge has by now
        done.add(record.offset)
        while waiting and waiting[0] in done:
            done.remove(waiting[0])
            self._moved[key] = waiting.popleft() + 1

    def moved(self) -> Offsets:
        """The next offset to read, where it is another one than was committed."""
        return dict(self._moved)

    def committed(self, offsets: Offsets) -> None:
        for key, offset in offsets.items():
            if self._moved.get(key) == offset:
                del self._moved[key]

    def forget(self, keys: list[tuple[str, int]]) -> None:
        for key in keys:
            for kept in (self._sent, self._done, self._moved):
                kept.pop(key, None)


def send_on(
    settings: Settings,
    topic: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    available_now: bool = False,
    accept_gap: bool = False,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Sends a topic's records on until `stop` says so, or to its present end.

    Then waits for what is under way, and commits. Raises BrokerError, SettingsError, and GapError
    where records are gone that were not sent on, unless `accept_gap`.
    """
    running = _Bridge(settings, topic or settings.topics.events, stop, accept_gap, progress)
    return running.run(available_now)


def circle(settings: Settings, topic: str) -> str | None:
    """What is to be said where the bridge would read what it has written, for ever."""
    from lakehouse import kafka

    bridge = settings.bridge
    if (bridge.dead_letters or None) == topic:
        return (
            f"bridge.dead_letters: {topic} is the topic that the bridge reads: name another "
            "(HEADWATER_BRIDGE__DEAD_LETTERS)"
        )
    source = settings.broker.bootstrap
    with suppress(BrokerError):
        source = kafka.bootstrap(settings)
    here, there = (
        {host.strip().lower() for host in hosts.split(",")}
        for hosts in (source, bridge.to.bootstrap)
    )
    if here & there and (bridge.topic or topic) == topic:
        return (
            f"bridge.topic: topic {topic} of {bridge.to.bootstrap} would be sent to itself: name "
            "another (HEADWATER_BRIDGE__TOPIC), or another bridge.to.bootstrap"
        )
    return None


class _Bridge:
    def __init__(
        self,
        settings: Settings,
        topic: str,
        stop: Callable[[], bool],
        accept_gap: bool,
        progress: Callable[[Report], None],
    ) -> None:
        from lakehouse import kafka

        if not settings.bridge.to.bootstrap:
            raise SettingsError(
                "bridge.to.bootstrap: where to send to, NAMESPACE.servicebus.windows.net:9093 "
                "for Event Hubs (HEADWATER_BRIDGE__TO__BOOTSTRAP)"
            )
        if said := circle(settings, topic):
            raise SettingsError(said)
        # Not made where it is missing: nobody would see that its name is another one.
        kafka.demand_topics(settings, [topic])
        self.settings, self.topic, self.stop, self.progress = settings, topic, stop, progress
        self.accept_gap = accept_gap
        self.dead_letters = settings.bridge.dead_letters or f"{topic}.dead-letters"
        self.report, self.safe = Report(), Acknowledged()
        self.assigned: dict[tuple[str, int], Any] = {}
        self.reached: Offsets = {}
        self.closing = False
        self.troubles: Troubles = kafka.Troubles()
        self.started = self.moved = self.commits = time.monotonic()
        self.target, self.aside = self._targets()
        self.consumer = self._consumer()

    def _targets(self) -> tuple[Target, Target]:
        """Where records go, and where those go that are too large for it."""
        from lakehouse import kafka
        from producer.hub import HubTarget
        from producer.targets import KafkaTarget

        bridge = self.settings.bridge
        there = self.settings.model_copy(update={"broker": bridge.to})
        most = LARGEST_BYTES + ROOM_BYTES
        # Made by a broker's own settings, it would not take what is a little less than its topics
        # take, with what is said of it.
        kafka.ensure_topics(self.settings, [self.dead_letters], {"max.message.bytes": str(most)})
        aside = KafkaTarget(self.settings, self.dead_letters, most, self._put_aside, self._never)
        topic = bridge.topic or self.topic
        if bridge.to.protocol == "amqp":
            return HubTarget(there, topic, self._done, self._too_large), aside
        limit = bridge.max_event_bytes
        return KafkaTarget(there, topic, limit, self._done, self._too_large), aside

    def _consumer(self) -> Any:
        from confluent_kafka import Consumer

        from lakehouse import kafka

        consumer = kafka.client(
            Consumer,
            self.settings,
            self.troubles,
            **{
                "group.id": self.settings.bridge.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # Where a partition begins is said when it is assigned; what is gone is an error.
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                # So long the partitions of a bridge that was killed wait for the next one.
                "session.timeout.ms": 10_000,
                # Read ahead, at most.
                "queued.max.messages.kbytes": 32_768,
            },
        )
        consumer.subscribe(
            [self.topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=lambda _, gone: self._forget(gone),
        )
        return consumer

    def run(self, available_now: bool) -> Report:
        from lakehouse import kafka

        ends = kafka.end_offsets(self.settings, [self.topic]) if available_now else None
        try:
            while not self.stop() and not (ends is not None and self._is_through(ends)):
                self._wait_for_room()
                for message in self.consumer.consume(RECORDS_A_POLL, WAIT_SECONDS):
                    self._take(message)
                self._tend()
            self._settle()
            self._commit()
            self.report.lag = self._lag()
        finally:
            # Also on the way out of an error: what is safe is not sent again.
            with suppress(BrokerError):
                self._commit()
            self.closing = True
            self.consumer.close()
            self.target.close()
            self.aside.close()
            self._count()
        return self.report

    def _take(self, message: Any) -> None:
        from confluent_kafka import KafkaError

        from lakehouse import kafka
        from producer.targets import Record

        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self.reached[message.topic(), message.partition()] = message.offset()
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                at = f"topic {message.topic()} partition {message.partition()}"
                raise GapError(f"bridge: {at}: {GONE}")
            elif error.code() != KafkaError._MAX_POLL_EXCEEDED and not error.retriable():
                # (The group takes a bridge back that waited for too long.)
                raise kafka.refused(self.settings, self.troubles.telling(error))
            return
        kind, at = message.timestamp()
        record = Record(
            message.topic(),
            message.partition(),
            message.offset(),
            message.key(),
            message.value(),
            message.headers() or [],
            at if kind else None,
        )
        self.report.read += 1
        self.moved = time.monotonic()
        self.safe.sent(record)
        if record.size > self.settings.bridge.max_event_bytes:
            limit = self.settings.bridge.max_event_bytes
            self._too_large(record, f"{record.size} bytes, and bridge.max_event_bytes is {limit}")
        else:
            self.target.send(record)

    def _tend(self) -> None:
        """Hears acknowledgements, commits now and then, shows how far it is."""
        from lakehouse import kafka

        self._poll(0)
        now = time.monotonic()
        if now - self.commits > COMMIT_SECONDS:
            self._commit()
            self.report.lag = self._lag()
        self._count()
        self.progress(self.report)
        refusal = self.troubles.lasting(self.moved, REFUSED_SECONDS)
        if refusal is not None:
            raise kafka.refused(self.settings, refusal)

    def _poll(self, seconds: float) -> None:
        self.aside.poll(0)
        try:
            self.target.poll(seconds)
        except BrokerError as error:
            raise BrokerError(
                f"{error} (what came before it is safe; start again to go on from there)"
            ) from None

    def _wait_for_room(self) -> None:
        """While too much is under way nothing is read; the group is told that the bridge lives."""
        bridge = self.settings.bridge
        if self.safe.in_flight < bridge.in_flight and self.safe.bytes < bridge.in_flight_bytes:
            return
        paused = list(self.assigned.values())
        self.consumer.pause(paused)
        while not self.stop() and (
            self.safe.in_flight > bridge.in_flight / 2
            or self.safe.bytes > bridge.in_flight_bytes / 2
        ):
            self._poll(WAIT_SECONDS)
            for message in self.consumer.consume(1, 0):
                self._take(message)  # what was on its way, or a partition that came just now
            self._tend()
        self.consumer.resume([part for part in paused if _key(part) in self.assigned])

    def _settle(self) -> None:
        """Waits until all that is under way is safe; the target gives up by itself."""
        while self.safe.in_flight:
            self._poll(WAIT_SECONDS)
            self._count()
            self.progress(self.report)

    def _commit(self) -> None:
        from confluent_kafka import KafkaError, KafkaException, TopicPartition

        from lakehouse import kafka

        self.commits = time.monotonic()
        moved = self.safe.moved()
        if not moved:
            return
        offsets = [TopicPartition(t, p, offset) for (t, p), offset in moved.items()]
        try:
            self.consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            said = error.args[0]
            if said.code() in {
                KafkaError.GROUP_AUTHORIZATION_FAILED,
                KafkaError.TOPIC_AUTHORIZATION_FAILED,
            }:
                raise kafka.refused(self.settings, said) from None
            # The broker is away, or the group has given the partitions to another bridge: what is
            # not committed is sent again by whoever has them.
            self.troubles.take(said)
        else:
            self.safe.committed(moved)

    def _is_through(self, ends: Offsets) -> bool:
        """Whether its partitions were read to the ends that they had, and all of that is safe."""
        if not self.assigned or self.safe.in_flight:
            return False
        return all(self.reached.get(key, -1) >= ends.get(key, 0) for key in self.assigned)

    def _count(self) -> None:
        self.report.seconds = time.monotonic() - self.started
        self.report.in_flight = self.safe.in_flight

    def _lag(self) -> int:
        """Records that the source has and the bridge has not read, as far as the client knows."""
        if not self.assigned:
            return self.report.lag
        lag = 0
        for place in self.consumer.position(list(self.assigned.values())):
            low, high = self.consumer.get_watermark_offsets(place, cached=True)
            if high >= 0:
                # Where nothing was read yet, the end that was come to may be known.
                at = place.offset if place.offset >= 0 else self.reached.get(_key(place), low)
                lag += max(0, high - at)
        return lag

    def _assigned(self, consumer: Any, parts: list[Any]) -> None:
        """Begins after what is committed, or at the first record that there is.

        Raises GapError, and BrokerError where the broker does not say what is committed.
        """
        from confluent_kafka import KafkaException

        from lakehouse import gaps, kafka

        begins = kafka.begin_offsets(self.settings, [self.topic])
        try:
            done = consumer.committed(parts, timeout=kafka.TIMEOUT_SECONDS)
        except KafkaException as error:
            raise kafka.refused(self.settings, self.troubles.telling(error.args[0])) from None
        positions = {_key(part): part.offset for part in done if part.offset >= 0}
        gone, _ = gaps.ahead(positions, begins, {})
        if gone and not self.accept_gap:
            raise GapError(f"bridge: {'; '.join(map(str, gone))}: {GONE}")
        for gap in gone:
            self.report.gone += gap.records
            click.echo(f"bridge: accepted gap: {gap}", err=True)
        for part in parts:
            key = _key(part)
            part.offset = max(begins.get(key, 0), positions.get(key, 0))
        consumer.assign(parts)
        self.assigned |= {_key(part): part for part in parts}

    def _revoked(self, _consumer: Any, parts: list[Any]) -> None:
        """Another bridge goes on from what is committed: so first, what is under way is."""
        if not self.closing:
            self._settle()
            self._commit()
        self._forget(parts)

    def _forget(self, parts: list[Any]) -> None:
        gone = [_key(part) for part in parts]
        self.safe.forget(gone)
        for key in gone:
            self.assigned.pop(key, None)
            self.reached.pop(key, None)

    def _done(self, record: Record) -> None:
        self.report.acknowledged += 1
        self.report.bytes += record.size
        self._is_safe(record)

    def _put_aside(self, record: Record) -> None:
        self.report.dead_lettered += 1
        self._is_safe(record)

    def _is_safe(self, record: Record) -> None:
        self.moved = time.monotonic()
        self.safe.done(record)

    def _too_large(self, record: Record, why: str) -> None:
        from producer.targets import dead_letter

        self.aside.send(dead_letter(record, why))

    def _never(self, record: Record, why: str) -> None:
        raise BrokerError(
            f"{record} is too large for the topic of dead letters as well: {why}: let "
            f"{self.dead_letters} take more (its max.message.bytes: "
            f"{LARGEST_BYTES + ROOM_BYTES:,}) and start again"
        )


def _key(part: Any) -> tuple[str, int]:
    return part.topic, part.partition


if __name__ == "__main__":
    run(bridge, sys.argv[1:])
