"""Sends records to a topic: idempotent, acknowledged one by one, written to the ledger.

To an event hub by AMQP (broker.protocol) it is at least once.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from lakehouse import kafka
from lakehouse.errors import BrokerError, LedgerError, SettingsError
from lakehouse.settings import Settings
from producer.ledger import Chunk, Ledger

MAX_RECORD_BYTES = 16_000_000
DELIVERY_SECONDS = 120
# Waiting for more makes fewer and larger requests, for half of what a record costs the broker; what
# is paced, or sent as it happens, is not to wait for long.
PACED = {"linger.ms": 20}
OPTIONS = {
    "enable.idempotence": True,
    "linger.ms": 100,
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 262_144,
    "message.max.bytes": MAX_RECORD_BYTES,
    "delivery.timeout.ms": DELIVERY_SECONDS * 1000,
}
CHECK_EVERY = 500
# The client chooses it, by the key.
ANY_PARTITION = -1


@dataclass
class Report:
    """sent: given to the client; acknowledged: by the broker; failed: given up, and why first."""

    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    first_error: str = ""
    seconds: float = 0.0
    interrupted: bool = False
    caught_up: bool = False


def send(
    blocks: Iterable[pa.RecordBatch],
    settings: Settings,
    topic: str,
    ledger: Ledger,
    *,
    rate: float | None = None,
    live: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Sends until the blocks end or `stop` says so, then waits for every acknowledgement.

    blocks: batches of producer.defects.RECORDS. rate: records a second at most. live: a record is
    not sent before its time has come; without, sending ends where the records reach the present.
    Raises BrokerError where no broker answers.
    """
    troubles = kafka.Troubles()
    paced = PACED if live or rate is not None else {}
    producer = _producer(settings, topic, troubles, **paced)
    report = Report()
    started = time.monotonic()
    # Nothing made here refers back to itself; looking for cycles took half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        _loop(producer, blocks, topic, ledger, report, rate, live, stop, progress, started)
        report.interrupted = stop()
        # The client gives a record up after DELIVERY_SECONDS, so that this ends.
        while len(producer):
            producer.flush(0.2)
            report.seconds = time.monotonic() - started
            progress(report)
    except SettingsError as error:
        # What is to be sent cannot be read on.
        producer.flush(DELIVERY_SECONDS)
        raise SettingsError(
            f"{error}; {report.sent:,} records were sent before that, {report.acknowledged:,} of "
            "them acknowledged"
        ) from None
    finally:
        if collecting:
            gc.enable()
        producer.flush(1)
        try:
            ledger.close()
        except OSError as error:
            said = str(error).splitlines()[0]
            raise LedgerError(
                f"the ledger of what was sent cannot be written: {said}; {report.sent:,} records "
                f"were sent to topic {topic}, {report.acknowledged:,} of them acknowledged"
            ) from None
        if report.failed and (behind := troubles.telling(None)) is not None:
            report.first_error += f" ({kafka.refused(settings, behind)})"
        report.seconds = time.monotonic() - started
    return report


def _producer(settings: Settings, topic: str, troubles: kafka.Troubles, **more: Any) -> Any:
    from confluent_kafka import Producer

    from producer.hub import HubProducer

    if settings.broker.protocol == "amqp":
        return HubProducer(settings, topic)
    kafka.ensure_topics(settings, [topic])
    chosen = {**OPTIONS, "compression.type": settings.broker.compression, **more}
    return kafka.client(Producer, settings, troubles, **chosen)


def _loop(
    producer: Any,
    blocks: Iterable[pa.RecordBatch],
    topic: str,
    ledger: Ledger,
    report: Report,
    rate: float | None,
    live: bool,
    stop: Callable[[], bool],
    progress: Callable[[Report], None],
    started: float,
) -> None:
    poll, now = producer.poll, time.time

    def wait(seconds: float) -> None:
        poll(seconds)
        report.seconds = time.monotonic() - started
        progress(report)

    # Often enough to keep a slow rate even, seldom enough to cost nothing at a fast one.
    every = max(1, min(CHECK_EVERY, int((rate or 1e9) / 20)))
    clock = now() * 1000
    for block in blocks:
        chunk = ledger.open(block)
        delivered = _delivered(report, chunk)
        at = block.column("at").to_numpy()
        keys, values = (block.column(name).to_pylist() for name in ("key", "value"))
        while chunk.sent < len(at):
            begin = chunk.sent
            end = min(begin + every, len(at))
            if at[end - 1] > clock:
                clock = now() * 1000
                end = begin + int(np.searchsorted(at[begin:end], clock, side="right"))
            if end == begin:
                # Nothing's time has come.
                if not live:
                    report.caught_up = True
                    return
                wait(min(0.1, (at[begin] - clock) / 1000))
                if stop():
                    return
                continue
            if rate is not None and _too_early(report.sent / rate, started, poll, stop):
                return
            records = zip(range(begin, end), keys[begin:end], values[begin:end], strict=True)
            _give(producer, topic, records, delivered, report, chunk, wait)
            wait(0)
            if stop():
                return


def _too_early(
    due: float, started: float, poll: Callable[[float], None], stop: Callable[[], bool]
) -> bool:
    """Waits until so many seconds after the start; whether it is to stop before that."""
    while (ahead := due - (time.monotonic() - started)) > 0:
        if stop():
            return True
        poll(min(0.1, ahead))
    return False


def _give(
    producer: Any,
    topic: str,
    records: Iterable[tuple[int, bytes | None, bytes | None]],
    delivered: Callable[[int, Any, Any], None],
    report: Report,
    chunk: Chunk,
    wait: Callable[[float], None],
) -> None:
    """Gives records (place in the chunk, key, value) to the client, in order, as it has room."""
    from confluent_kafka import KafkaException

    produce = producer.produce

    def given(records: int) -> None:
        report.sent += records - chunk.sent
        chunk.sent = records

    index = chunk.sent - 1
    for index, key, value in records:
        while True:
            try:
                # By place: by name, and in batches, the client takes longer to read them.
                produce(topic, value, key, ANY_PARTITION, partial(delivered, index))
            except BufferError:
                given(index)
                wait(0.05)
                continue
            except KafkaException as error:
                given(index + 1)
                _refused(report, chunk, topic, error.args[0])
            break
    given(index + 1)


def _delivered(report: Report, chunk: Chunk) -> Callable[[int, Any, Any], None]:
    """What is called, for each record of a chunk, with its place and what the client says."""
    offsets, partitions = chunk.offsets, chunk.partitions

    def delivered(index: int, error: Any, message: Any) -> None:
        chunk.answered += 1
        if error is not None:
            report.failed += 1
            report.first_error = report.first_error or str(error.str())
            return
        report.acknowledged += 1
        if message is not None:
            offsets[index] = message.offset()
            partitions[index] = message.partition()

    return delivered


def _refused(report: Report, chunk: Chunk, topic: str, error: Any) -> None:
    """The client itself would not take a record: too large, or a topic that is none."""
    chunk.answered += 1
    report.failed += 1
    report.first_error = report.first_error or f"record {report.sent}: {error.str()}"
    if error.fatal():
        raise BrokerError(
            f"topic {topic}: the broker refused the producer at record {report.sent:,}: "
            f"{error.str()}; what was acknowledged is safe: start it again, with --continue"
        )
