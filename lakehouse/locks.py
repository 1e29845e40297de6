"""One writer a job: lock files that the operating system lets go of when their holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lakehouse.errors import HeadwaterError, LockedError
from lakehouse.settings import Settings

BROKER, STREAM = "broker", "stream-"
TAKEN = (errno.EAGAIN, errno.EACCES)
# Folders of Databricks that are object stores: they take no appends, which a lock's file wants.
OBJECT_STORES = ("/Volumes/", "/dbfs/")


@contextmanager
def held(settings: Settings, job: str, what: str) -> Iterator[None]:
    """Holds the lock of `job` while inside. Raises LockedError, naming `what` and who holds it.

    The lock lies beside what the job writes, where that is a folder, so that another runtime folder
    is not another lock; a stream's, beside its checkpoints too. What is in an object store is
    guarded by the runtime folder's lock alone.
    """
    with ExitStack() as stack:
        for folder in _folders(settings, job):
            stack.enter_context(_held(folder / "locks" / f"{job}.lock", what))
        yield


@contextmanager
def turn(settings: Settings, table: str, alone: bool) -> Iterator[None]:
    """Commits to a table take turns: appends beside each other, one that changes rows alone.

    A stream commits to the same partition every few seconds, and Delta lets no MERGE through whose
    partition was appended to meanwhile: without turns it was seen to lose ten times of ten. Only
    where the tables are a folder of this machine; elsewhere it is left to the tries.
    """
    if "://" in settings.storage or settings.storage.startswith(OBJECT_STORES):
        yield
        return
    path = Path(settings.storage) / "locks" / f"{table}.turn"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def _folders(settings: Settings, job: str) -> list[Path]:
    guarded = [settings.storage]
    if job.startswith(STREAM):
        guarded.append(settings.checkpoint_root or settings.storage)
    local = [
        Path(place)
        for place in guarded
        if "://" not in place and not place.startswith(OBJECT_STORES)
    ]
    if job == BROKER or not local:
        return [settings.runtime_dir]
    return sorted(set(local))


@contextmanager
def _held(path: Path, what: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in TAKEN:
                raise HeadwaterError(
                    f"{path} cannot be locked ({error.strerror}), and nothing was begun: "
                    "storage and checkpoint_root have to be URIs, or on a file system with locks"
                ) from None
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
