"""Where the bridge sends to: a Kafka topic here, an event hub by AMQP in producer.hub."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from lakehouse import kafka
from lakehouse.errors import BrokerError
from lakehouse.settings import Settings

DELIVERY_SECONDS = 120
# More than Kafka's record batches have before and around a record.
BATCH_HEADER_BYTES = 500
DEAD_LETTER = "headwater.dead_letter."


class Record(NamedTuple):
    """A record as the source has it. at: its timestamp in ms since 1970, None where it has none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    at: int | None

    @property
    def size(self) -> int:
        """Bytes of key, value and headers: what a limit is held against."""
        headers = sum(len(name.encode()) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers

    def __str__(self) -> str:
        return f"topic {self.topic} partition {self.partition} offset {self.offset}"


Done = Callable[[Record], None]
TooLarge = Callable[[Record, str], None]


class Target(Protocol):
    """What takes records and says of each, once and in a call of poll, that it is safe.

    The first records of a key are safe before later ones of the same key. A record that the target
    will not take for its size is given to `too_large` (record, what was said) instead. Whatever
    else keeps one from being taken for good is raised by `poll`, as a BrokerError.
    """

    def send(self, record: Record) -> None:
        """Takes a record; it goes out behind the caller's back."""

    def poll(self, seconds: float) -> None:
        """Waits so long at most for something to become safe, and tells it."""

    def close(self) -> None:
        """Lets go of the connection. What is not safe by now is not told of any more."""


class KafkaTarget:
    """A topic of a Kafka broker, or of Event Hubs by the Kafka protocol.

    settings: with the target's broker as `broker`.
    """

    def __init__(
        self, settings: Settings, topic: str, limit: int, done: Done, too_large: TooLarge
    ) -> None:
        from confluent_kafka import Producer

        kafka.ensure_topics(settings, [topic])
        if (most := kafka.max_message_bytes(settings, topic)) is not None:
            # A batch of one record is larger than that by its header.
            limit = min(limit, most - BATCH_HEADER_BYTES)
        self._settings, self._topic, self._done, self._too_large = settings, topic, done, too_large
        self._troubles = kafka.Troubles()
        self._failed: BrokerError | None = None
        self._producer: Any = kafka.client(
            Producer,
            settings,
            self._troubles,
            **{
                "enable.idempotence": True,
                "linger.ms": 20,
                "compression.type": settings.broker.compression,
                # As Java's clients; one of no bytes is a key too, whose records keep their order.
                "partitioner": "murmur2_random",
                # The bridge itself bounds what is under way.
                "queue.buffering.max.messages": 10_000_000,
                "queue.buffering.max.kbytes": 2_097_151,
                # A batch as well: a refusal for its size would not say which record it is for.
                "message.max.bytes": limit,
                "batch.size": min(1_000_000, limit),
                "delivery.timeout.ms": DELIVERY_SECONDS * 1000,
            },
        )

    def send(self, record: Record) -> None:
        from confluent_kafka import KafkaError, KafkaException

        try:
            self._producer.produce(
                self._topic,
                record.value,
                record.key,
                headers=record.headers,
                timestamp=record.at or 0,
                on_delivery=partial(self._delivered, record),
            )
        except KafkaException as error:
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                self._too_large(record, error.args[0].str())
            else:
                self._delivered(record, error.args[0], None)

    def poll(self, seconds: float) -> None:
        self._producer.poll(seconds)
        if self._failed:
            raise self._failed

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(1)

    def _delivered(self, record: Record, error: Any, _message: Any) -> None:
        if error is None:
            self._done(record)
        elif self._failed is None:
            from confluent_kafka import KafkaError

            behind = str(kafka.refused(self._settings, self._troubles.telling(error)))
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                behind += (
                    f": it has {record.size} bytes; set bridge.max_event_bytes to what the target "
                    "takes, less 1,000, and larger ones are put aside"
                )
            self._failed = BrokerError(f"{record} could not be sent on to {self._topic}: {behind}")


def dead_letter(record: Record, why: str) -> Record:
    """The record as it is kept aside: whole, with where it was and why it is there in headers."""
    facts = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "reason": why,
    }
    told = [(f"{DEAD_LETTER}{name}", text.encode()) for name, text in facts.items()]
    return record._replace(headers=[*record.headers, *told])
