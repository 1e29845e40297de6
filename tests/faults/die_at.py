"""Runs the command and kills all of it, Spark's JVM too, at a named moment.

    python -m tests.faults.die_at WHAT before|after NTH COMMAND…

WHAT is a table or a kind of warehouse. Of a table, before: the rows are worked out, nothing of them
is written; after: the Delta commit is there, the checkpoint's or the run's record is not. Of a
warehouse: before or after the COMMIT of its transaction. NTH: at which time, from 1.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import psutil

from batch import merge
from batch.warehouses import duckdb_file, mysql, postgresql
from lakehouse import tables


def die() -> NoReturn:
    me = psutil.Process()
    # By another process, and this one first: what is left of a command whose JVM is gone ends it.
    doomed = [me, *me.children(recursive=True)]
    subprocess.run(["kill", "-KILL", *(str(process.pid) for process in doomed)], check=False)
    time.sleep(60)
    raise AssertionError("still alive")


def dying(function: Any, is_due: Callable[..., bool], moment: str, nth: int) -> Any:
    """The function, with death before or after the nth call that is due."""
    seen = 0

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        due = is_due(*args, **kwargs)
        seen += due
        if due and seen == nth and moment == "before":
            die()
        result = function(*args, **kwargs)
        if due and seen == nth:
            die()
        return result

    return called


def main() -> None:
    what, moment, nth = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def of_table(_rows: Any, _settings: Any, table: tables.Table, *_: Any) -> bool:
        return table.full_name == what

    def of_merge(_settings: Any, table: tables.Table, *_: Any) -> bool:
        return table.full_name == what

    def of_gold(_spark: Any, _settings: Any, table: tables.Table, *_: Any, **__: Any) -> bool:
        return table.full_name == what

    def commit(_self: Any, statement: str, *_: Any) -> bool:
        return statement == "COMMIT"

    kinds: dict[str, Any] = {
        "duckdb": duckdb_file.DuckDB,
        "mysql": mysql.MySQL,
        "postgresql": postgresql.PostgreSQL,
    }
    if what in kinds:
        warehouse = kinds[what]
        warehouse.execute = dying(warehouse.execute, commit, moment, nth)
    elif what.startswith("gold."):
        merge.bring = dying(merge.bring, of_gold, moment, nth)
    else:
        tables.append = dying(tables.append, of_table, moment, nth)
        tables.overwrite = dying(tables.overwrite, of_table, moment, nth)
        tables.merge = dying(tables.merge, of_merge, moment, nth)
    sys.argv = ["headwater", *sys.argv[4:]]
    from headwater.cli import main as headwater

    headwater()


if __name__ == "__main__":
    main()
