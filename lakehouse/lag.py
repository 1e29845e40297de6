"""How old the oldest record is that a query has not read, and when the broker lets go of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lakehouse import kafka
from lakehouse.kafka import Offsets
from lakehouse.settings import Settings

# Of the retention: from the first share on it is a warning, from the second on an error.
EARLY, LATE = 0.5, 0.8
# Of a broker that does not say how long it keeps records: from this age on it is asked for.
LONG_SECONDS = 12 * 3600.0


@dataclass(frozen=True)
class Unread:
    """The oldest record of a partition that was not read. age: its, in s; kept: how long the broker
    keeps records there, in s, None where it does not say.
    """

    topic: str
    partition: int
    offset: int
    age: float
    kept: float | None

    @property
    def share(self) -> float:
        """How much of its time has gone by: 1 is when it may be gone."""
        return self.age / self.kept if self.kept else 0.0

    def __str__(self) -> str:
        kept = f"{_hours(self.kept)} are kept" if self.kept else "the broker says not how long"
        return (
            f"topic {self.topic} partition {self.partition}: the oldest unread record (offset "
            f"{self.offset}) is {_hours(self.age)} old; {kept}"
        )


def unread(settings: Settings, positions: Offsets, ends: Offsets) -> list[Unread]:
    """The oldest unread record of each partition that has one; the most urgent first.

    positions: the next offset to read; ends: the one after the last; by topic and partition.
    Raises BrokerError.
    """
    behind = {key: at for key, at in positions.items() if at < ends.get(key, 0)}
    if not behind:
        return []
    kept = kafka.retention(settings, {topic for topic, _ in behind})
    now = time.time()
    found = [
        Unread(topic, partition, behind[topic, partition], now - at / 1000, kept.get(topic))
        for (topic, partition), at in kafka.timestamps_at(settings, behind).items()
    ]
    return sorted(found, key=lambda one: (-one.share, -one.age))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h"
