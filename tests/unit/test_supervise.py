"""Starting a query again, over and over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse.errors import StreamError, TableError
from lakehouse.settings import Stream
from streaming import supervise


@pytest.mark.parametrize("restarts", [3, 3_000])
def test_pauses_grow_to_a_minute_and_end_with_the_restarts(
    monkeypatch: pytest.MonkeyPatch, restarts: int
) -> None:
    """However many there are: twice as long each time, and no number is too large."""
    clock = [0.0]
    monkeypatch.setattr("streaming.supervise.time.monotonic", lambda: clock[0])
    pauses: list[float] = []
    last = [0.0]

    def start(_name: str, _failures: int) -> Any:
        pauses.append(clock[0] - last[0])
        last[0] = clock[0]
        raise StreamError("the broker does not answer")

    said: list[str] = []
    failed = SimpleNamespace(name="silver", failure=lambda: StreamError("it was killed"))
    failed.query = SimpleNamespace(recentProgress=[])
    stream = Stream(restarts=restarts, restart_seconds=1)
    running: Any = failed
    kept = supervise.Supervised("silver", running, start, stream, said.append)

    def until_it_gives_up() -> None:
        while True:
            kept.tend()
            clock[0] += 0.5

    with pytest.raises(StreamError, match=f"given up after {restarts} restarts"):
        until_it_gives_up()
    assert len(pauses) == restarts
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert max(pauses) <= 60.5
    assert said[0].endswith(f"silver starts again in 1 s (restart 1 of {restarts})")


class Reported:
    """A query that runs, as far as it is looked at: its batches and why it ended, if it did."""

    def __init__(self, batches: list[int], error: StreamError | None = None) -> None:
        reports = [
            SimpleNamespace(
                batchId=number, numInputRows=1, processedRowsPerSecond=1.0, json='{"sources": []}',
                sources=[], stateOperators=[], observedMetrics={}, durationMs={"addBatch": 1},
            )
            for number in batches
        ]  # fmt: skip
        self.query = SimpleNamespace(recentProgress=reports, isActive=error is None)
        self.name, self.passing = "metrics", list[Any]()
        self._error = error

    def failure(self) -> StreamError | None:
        return self._error


def test_a_report_without_a_batch_is_none() -> None:
    """Spark reports an idle trigger under the number that the next batch will have."""
    query = Reported([0, 1])
    first, second = query.query.recentProgress
    idle = SimpleNamespace(**{**vars(second), "numInputRows": 0, "durationMs": {"latestOffset": 1}})
    meter = supervise.Meter()
    meter.take([first, idle])
    assert (meter.batches, meter.rows) == (1, 1)
    meter.take([first, idle, second])
    assert (meter.batches, meter.rows) == (2, 2)


def test_what_is_there_for_others_does_not_end_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again without end, told how often, whatever is wrong; and a batch of a checkpoint
    that was begun anew, whose number was there before, counts as one."""
    clock = [0.0]
    monkeypatch.setattr("streaming.supervise.time.monotonic", lambda: clock[0])
    told: list[int] = []
    made: list[Any] = [Reported([498, 499], StreamError("gone"))]
    lasting = 30

    def start(_name: str, failures: int) -> Any:
        told.append(failures)
        if len(told) <= lasting:
            raise TableError("no table silver.events")
        made.append(Reported([0, 1]))
        return made[-1]

    said: list[str] = []
    stream = Stream(restarts=2, restart_seconds=1)
    kept = supervise.Supervised("metrics", made[0], start, stream, said.append, beside=True)
    while len(made) == 1:
        kept.tend()
        clock[0] += 61
    assert told == list(range(1, lasting + 2))
    assert said[0] == "gone; metrics starts again in 1 s (restart 1)"
    kept.tend()
    assert (kept.restarts, kept.meter.rows) == (0, 4)


def test_what_is_beside_others_begins_with_them_and_not_before() -> None:
    """It is started by who looks after it, and by nobody else."""
    started: list[tuple[str, int]] = []

    def start(name: str, failures: int) -> Any:
        started.append((name, failures))
        return Reported([0])

    kept = supervise.Supervised("metrics", None, start, Stream(), print, beside=True)
    assert kept.active
    assert started == []
    kept.tend()
    assert started == [("metrics", 0)]
