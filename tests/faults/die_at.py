"""Runs the command and kills all of it, Spark's JVM too, at a named moment.

    python -m tests.faults.die_at QUERY before|after NTH COMMAND…

before: the micro-batch is read, nothing of it is written. after: its Delta commit is there, the
checkpoint's is not. NTH: at which micro-batch with records, from 1.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

import psutil

from lakehouse import tables


def die() -> NoReturn:
    me = psutil.Process()
    for child in me.children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def main() -> None:
    table, moment, nth = sys.argv[1], sys.argv[2], int(sys.argv[3])
    append = tables.append
    seen = 0

    def dying(rows: Any, settings: Any, target: tables.Table, *transaction: Any) -> None:
        nonlocal seen
        if target.full_name == table:
            seen += 1
        due = target.full_name == table and seen == nth
        if due and moment == "before":
            die()
        append(rows, settings, target, *transaction)
        if due:
            die()

    tables.append = dying  # type: ignore[assignment]
    sys.argv = ["headwater", *sys.argv[4:]]
    from headwater.cli import main as headwater

    headwater()


if __name__ == "__main__":
    main()
