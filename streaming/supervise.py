"""Queries that are kept running: one that ends by itself is started again, so often."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from lakehouse import checkpoints
from lakehouse.errors import (
    NO_SPACE,
    BrokerError,
    CheckpointError,
    FrozenError,
    GapError,
    HeadwaterError,
    StreamError,
    reason,
)
from lakehouse.kafka import Offsets
from lakehouse.settings import Stream
from streaming.query import ADVICE, Running

LONGEST_PAUSE_SECONDS = 60.0
# What Spark reports of a trigger that ran a batch.
BATCH = "addBatch"
# More of them would be no number any more.
DOUBLINGS = 60


class Meter:
    """Adds up what a query reports of its batches."""

    def __init__(self) -> None:
        self.rows = self.accepted = self.quarantined = self.duplicates = self.late = 0
        self.batches = 0
        self.rate = 0.0
        self.lag: int | None = None
        self.latency: float | None = None
        self.position: Offsets = {}
        self._last = -1

    def begin(self) -> None:
        """What is reported from now on is another query's, whose batches may count from 0 again."""
        self._last = -1

    def take(self, reports: Iterable[Any]) -> None:
        """Adds Spark's progress reports; one that was seen before is left out."""
        for report in reports:
            # One without a batch has the number of the next one.
            if report.batchId <= self._last or BATCH not in report.durationMs:
                continue
            self._last = report.batchId
            self.batches += 1
            self.rows += report.numInputRows
            self.rate = report.processedRowsPerSecond
            # The report's own field is Python's text of a dictionary, not JSON.
            for source in json.loads(report.json)["sources"]:
                if source["description"].startswith("Kafka"):
                    self.position = checkpoints.offsets(source["endOffset"])
            behind = [s.metrics.get("maxOffsetsBehindLatest") for s in report.sources if s.metrics]
            if behind and behind[0] is not None:
                self.lag = int(behind[0])
            for state in report.stateOperators:
                self.late += state.numRowsDroppedByWatermark
                self.duplicates += state.customMetrics.get("numDroppedDuplicateRows", 0)
            found = report.observedMetrics.get("silver")
            if found is not None:
                self.accepted += found["accepted"]
                self.quarantined += found["quarantined"]
                if found["oldest"] is not None:
                    self.latency = time.time() - found["oldest"]

    def __str__(self) -> str:
        lag = "" if self.lag is None else f", lag {self.lag:,}"
        return f"{self.rows:,} records, {self.rate:,.0f}/s{lag}"


class Supervised:
    """A query that runs, and how it is started again when it ends by itself.

    start: starts the query of this name anew, told how often it has failed since a batch. A batch
    that is committed sets the count of restarts back. What another try cannot put right (records
    that are gone, a table or contract that is not as it should be) is not tried. beside: whether it
    is there for others, which it is not to end: then any failure is said, and it is tried again.
    """

    def __init__(
        self,
        name: str,
        running: Running | None,
        start: Callable[[str, int], Running],
        stream: Stream,
        say: Callable[[str], None],
        beside: bool = False,
    ) -> None:
        self.name = name
        self._beside = beside
        self.meter = Meter()
        self.restarts = 0
        self._start, self._stream, self._say = start, stream, say
        self._running: Running | None = running
        self._due = 0.0

    @property
    def active(self) -> bool:
        """Whether it runs, or there is a start to come."""
        running = self._running
        return running is None or running.query.isActive or running.failure() is not None

    def tend(self) -> None:
        """Takes what it reports; starts it again where that is due. Raises HeadwaterError."""
        if self._running is None:
            if time.monotonic() >= self._due:
                self._start_again()
            return
        seen = self.meter.batches
        self.meter.take(self._running.query.recentProgress)
        if self.meter.batches > seen:
            self.restarts = 0
        if failure := self._running.failure():
            self._failed(failure)
        elif self._running.query.isActive and self._passed(self._running):
            # From here on, records that are gone are an error again.
            self.start_anew()

    def start_anew(self) -> None:
        """Ends it at a batch boundary, and starts it again. Raises HeadwaterError."""
        self.stop()
        self._start_again()

    def stop(self) -> None:
        """Ends it at a batch boundary."""
        if self._running is not None:
            self._running.stop()
            self.meter.take(self._running.query.recentProgress)

    def _start_again(self) -> None:
        try:
            self._running = self._start(self.name, self.restarts)
            self.meter.begin()
        except (HeadwaterError, PySparkException, Py4JError, OSError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, HeadwaterError):
            # The JVM's, or of the storage behind it.
            error = StreamError(f"stream {self.name} could not start: {reason(str(error))}{ADVICE}")
        if not _may_pass(error) and not self._beside:
            raise error
        said = str(error)
        if self.restarts >= self._stream.restarts and not self._beside:
            if not self.restarts:
                raise error
            raise StreamError(f"{said} (given up after {self.restarts} restarts)") from None
        doubled = self._stream.restart_seconds * 2 ** min(self.restarts, DOUBLINGS)
        pause = min(LONGEST_PAUSE_SECONDS, doubled)
        self.restarts += 1
        self._running, self._due = None, time.monotonic() + pause
        most = "" if self._beside else f" of {self._stream.restarts}"
        self._say(
            f"{said.removesuffix(ADVICE)}; {self.name} starts again in {pause:g} s "
            f"(restart {self.restarts}{most})"
        )

    def _passed(self, running: Running) -> bool:
        """Whether an accepted gap lay ahead of the query and lies behind it now."""
        at = self.meter.position
        passing = running.passing
        return bool(passing) and all(at.get((g.topic, g.partition), 0) >= g.end for g in passing)


def _may_pass(error: HeadwaterError) -> bool:
    lasting = isinstance(error, GapError | CheckpointError | FrozenError)
    # A disk does not get empty by itself, and whoever makes room can start it again.
    lasting = lasting or NO_SPACE in str(error)
    return isinstance(error, BrokerError | StreamError) and not lasting
