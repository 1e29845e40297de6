"""Starting a query again, over and over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse.errors import StreamError
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
    kept = supervise.Supervised(running, start, stream, said.append)

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
