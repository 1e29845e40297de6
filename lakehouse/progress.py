"""Progress on stderr: a live line where someone watches, a line now and then where nobody does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

EVERY_SECONDS = 10.0


def console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Says what is being done, with a spinner on a terminal, and how long it took."""
    screen = console()
    started = time.monotonic()
    if screen.is_terminal:
        with screen.status(what):
            yield
    else:
        screen.print(f"{what} …", highlight=False)
        yield
    screen.print(f"{what}: {time.monotonic() - started:.1f} s", highlight=False)


class Ticker:
    """A line of text that changes: redrawn on a terminal, else printed every ten seconds.

    total: of how many it tells, where that is known: then there is a bar before it.
    """

    def __init__(self, total: int | None = None) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._screen = console()
        self._last = 0.0
        self._live = None
        if self._screen.is_terminal:
            ahead = SpinnerColumn() if total is None else BarColumn()
            text = TextColumn("{task.description}", markup=False)
            self._live = Progress(ahead, text, console=self._screen, transient=True)
            self._task = self._live.add_task("", total=total)

    def __enter__(self) -> Ticker:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, text: str, done: int | None = None) -> None:
        """done: of the total."""
        now = time.monotonic()
        if self._live:
            if now - self._last > 0.1:
                self._last = now
                self._live.update(self._task, description=text, completed=done)
        elif now - self._last > EVERY_SECONDS:
            self._last = now
            self._screen.print(text, highlight=False, markup=False)
