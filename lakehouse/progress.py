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
    """A line of text that changes: redrawn on a terminal, else printed every ten seconds."""

    def __init__(self) -> None:
        self._screen = console()
        self._last = 0.0
        self._status = self._screen.status("") if self._screen.is_terminal else None

    def __enter__(self) -> Ticker:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self._status:
            if now - self._last > 0.1:
                self._last = now
                self._status.update(text)
        elif now - self._last > EVERY_SECONDS:
            self._last = now
            self._screen.print(text, highlight=False)
