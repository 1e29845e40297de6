"""Starting queries, and ending them at a batch boundary.

`query.stop()` interrupts whatever the query is doing. So a stop closes a gate first: the batch that
is being written goes on to its commit, the next one waits at the gate and is given up before it has
written anything. What a kill leaves behind is the same as always: a batch that is in the log of
offsets and not in that of commits, which is run again, and which Delta takes once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from lakehouse import checkpoints
from lakehouse.errors import NO_SPACE, RAISED, CheckpointError, FrozenError, StreamError, reason
from lakehouse.gaps import Gap
from lakehouse.settings import Settings

Write = Callable[[DataFrame, str, int], None]
GiveUp = Callable[[], None]
POLL_SECONDS = 0.05
# A query that is told to end and writes nothing is waited for so long, as for its checkpoint.
AWAY_SECONDS = 20.0
ADVICE = "; nothing that was committed is lost: put it right and start again"
# Spark's name for it.
UNREADABLE_STATE = "CANNOT_LOAD_STATE_STORE"
# Under the same name, what says nothing against the files.
PASSING = (
    "UNRELEASED_THREAD",
    "OUT_OF_MEMORY",
    "FAILED_TO_GET_CHANGELOG_WRITER",
    NO_SPACE,
)


class _GateClosedError(Exception):
    """Given to Spark by a batch that came to a closed gate."""


@dataclass
class Running:
    """A started query with its gate.

    writing: whether a batch is being written. passing: accepted gaps that lie right ahead of it.
    give_up: is called where the batch that is planned has not begun, or nothing of it was written.
    derived: whether all that it writes can be worked out anew: then nothing that is wrong with its
    checkpoint lasts.
    """

    name: str
    checkpoint: str
    query: StreamingQuery
    closing: threading.Event
    waiting: threading.Event
    writing: threading.Event
    passing: list[Gap]
    give_up: GiveUp
    derived: bool = False

    def stop(self) -> None:
        """Ends the query between two batches; one that is being written is committed first."""
        self.closing.set()
        # Else it asks a broker that is away, for minutes.
        deadline = time.monotonic() + AWAY_SECONDS
        while self.query.isActive and not self.waiting.is_set():
            if self.writing.is_set():
                deadline = time.monotonic() + AWAY_SECONDS
            if not self.query.status["isTriggerActive"] or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        with suppress(StreamingQueryException):
            self.query.stop()

    def failure(self) -> StreamError | None:
        """Why the query ended by itself, in one line; None if it did not."""
        error = self.query.exception()
        if error is None or self.closing.is_set():
            return None
        said = reason(str(error), "\n".join(_causes(error)))
        if RAISED.search(str(error)):
            self.give_up()
            return FrozenError(f"stream {self.name} ended: {said}")
        unreadable = UNREADABLE_STATE in str(error) and not self.derived
        if unreadable and not any(sign in str(error) for sign in PASSING):
            return CheckpointError(
                f"stream {self.name} ended: its state cannot be read: "
                f"{checkpoints.remedy(self.checkpoint)} ({said})"
            )
        return StreamError(
            f"stream {self.name} (checkpoint {self.checkpoint}) ended: {said}{ADVICE}"
        )


def _causes(error: object) -> Iterator[str]:
    """The errors of the JVM behind one, in words; nearest first."""
    while (error := getattr(error, "_cause", None)) is not None:
        yield str(error)


def start(
    spark: SparkSession,
    settings: Settings,
    name: str,
    rows: DataFrame,
    write: Write,
    available_now: bool,
    passing: list[Gap],
    give_up: GiveUp = lambda: None,
    last: int | None = None,
    trigger: str | None = None,
    output: str = "append",
    derived: bool = False,
) -> Running:
    """Starts the query `name` over `rows`.

    write: gets the rows of a micro-batch, the checkpoint's query id and the batch's number; it has
    to do nothing when it gets the same ones again. available_now: ends by itself once everything
    that the broker holds at the start is written. passing, give_up, derived: as Running has
    them. last: the number of the batch after which the gate closes. trigger: how often; as the
    settings have it for all where left out. output: Spark's output mode.
    """
    closing, waiting, writing = threading.Event(), threading.Event(), threading.Event()
    app: list[str] = []
    cut_off = checkpoints.unfinished(checkpoints.SparkFiles(spark, settings, name))

    def run(batch: DataFrame, number: int) -> None:
        if closing.is_set():
            give_up()
            waiting.set()
            raise _GateClosedError(name)
        if not app:
            found = checkpoints.query_id(checkpoints.SparkFiles(spark, settings, name))
            if found is None:
                raise StreamError(f"checkpoint {checkpoints.location(settings, name)} has no id")
            app.append(found)
        writing.set()
        try:
            if number == cut_off:
                # The table may have it already. Delta would not even compute it then, and its state
                # would be missing: so it is computed here.
                batch = batch.localCheckpoint()
            write(batch, app[0], number)
        finally:
            writing.clear()
        if number == last:
            closing.set()

    writer = (
        rows.writeStream.queryName(name)
        .outputMode(output)
        .option("checkpointLocation", checkpoints.location(settings, name))
        .foreachBatch(run)
    )
    if available_now:
        writer = writer.trigger(availableNow=True)
    else:
        writer = writer.trigger(processingTime=trigger or settings.stream.trigger)
    where = checkpoints.location(settings, name)
    query = writer.start()
    return Running(name, where, query, closing, waiting, writing, passing, give_up, derived)


def finish(running: Running, files: checkpoints.SparkFiles, number: int) -> None:
    """Waits until the batch of that number is committed, and ends the query. Raises StreamError."""
    while running.query.isActive and checkpoints.unfinished(files) == number:
        time.sleep(POLL_SECONDS)
    failure = running.failure()
    running.stop()
    if isinstance(failure, FrozenError | CheckpointError):
        raise failure
    if checkpoints.unfinished(files) == number:
        raise StreamError(
            f"stream {running.name}: batch {number}, which was cut off, is ended under the rules "
            f"that it began with ({files.root}/editions) before those of now count, and could not "
            f"be: {failure or 'it was stopped'}. If those rules are what is wrong, "
            f"{checkpoints.remedy(files.root)}"
        )
