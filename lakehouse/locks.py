"""One writer a job: a lock file that the operating system lets go of when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from lakehouse.errors import HeadwaterError, LockedError
from lakehouse.settings import Settings


@contextmanager
def held(settings: Settings, job: str, what: str) -> Iterator[None]:
    """Holds the lock of `job` while inside. Raises LockedError, naming `what` and who holds it."""
    folder = settings.runtime_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise LockedError(
                f"{what} is in use by process {file.read().strip() or '?'} ({path}): "
                "stop that one first, or wait for it"
            ) from None
        file.truncate(0)
        try:
            os.pwrite(file.fileno(), str(os.getpid()).encode(), 0)
        except OSError as error:
            raise HeadwaterError(
                f"{path} cannot be written ({error.strerror}), and nothing was begun: make room in "
                "that folder, and run it again"
            ) from None
        yield
