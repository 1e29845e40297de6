"""How far each table is behind what there is, against what its contract promises.

A table is as far behind as the oldest record is old that is there and not in it yet: for a stream's
table the oldest one that its query has not read from the broker, for metrics by the minute and for
one of Gold the oldest commit of silver.events that their query, or the last good run of Gold, did
not read. Where nothing is missing, it is not behind at all, however long ago its last commit was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from lakehouse import arrow, checkpoints, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import CheckpointError
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings

SILVER, MINUTES = "silver.events", tables.minutes().full_name
# In the place of the version that was read, where none was.
NOTHING = -1
# Commits that bring no record.
NO_ROWS = tables.KEEP_ROWS | {"CREATE TABLE", "ADD COLUMNS", "CHANGE COLUMN"}


@dataclass(frozen=True)
class Freshness:
    """Of one table, in s. behind, kept (whether the promise is): None where it cannot be told."""

    table: str
    promised: float
    behind: float | None
    kept: bool | None
    short: str
    said: str


def of_tables(
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    streams: list[dict[str, Any]],
) -> list[Freshness]:
    """Every table whose contract promises a latency, and that is there, or could be: one of Gold is
    made from Silver, whether that was ever done or not.

    streams: as `headwater.status` has them, by query: the table's layer.
    """
    unread = {stream["query"]: stream for stream in streams}
    silver = arrow.open_table(settings, tables.silver(contracts)) is not None
    found = []
    for table in tables.all_tables(contracts, layouts):
        layout = layouts.get(table.full_name)
        if layout is None or layout.latency is None:
            continue
        there = arrow.open_table(settings, table) is not None
        if not there and not (table.layer == "gold" and silver):
            continue
        behind: float | None
        if table.layer == "gold":
            done = _last_read(settings) if there else NOTHING
            behind = _of_silver(settings, contracts, done)
        elif table.full_name == MINUTES:
            behind = _of_metrics(settings, contracts)
        else:
            behind = _of_stream(unread[table.layer])
        found.append(_judged(table.full_name, layout.latency, behind))
    return found


def _judged(name: str, promised: float, behind: float | None) -> Freshness:
    if behind is None:
        lacking = "a checkpoint of its query" if name == MINUTES else "the broker"
        said = f"{name}: how far it is behind cannot be told without {lacking}"
        return Freshness(name, promised, None, None, "?", said)
    kept = behind <= promised
    said = f"{name} is {_span(behind)} behind, where its contract promises {_span(promised)}"
    if not kept:
        job = "`headwater gold`" if name.startswith("gold.") else "`headwater stream`"
        said += f": see that {job} runs"
    return Freshness(name, promised, behind, kept, _span(behind) if behind else "", said)


def _of_stream(stream: dict[str, Any]) -> float | None:
    """None where nothing says how old what is unread is."""
    if stream["lag"] == 0:
        return 0.0
    return None if stream["oldest_age"] is None else float(stream["oldest_age"])


def _of_metrics(settings: Settings, contracts: Contracts) -> float | None:
    """None where the query's checkpoint does not say what it has read: it is begun anew then."""
    try:
        done = checkpoints.version_read(checkpoints.ArrowFiles(settings, checkpoints.METRICS))
    except CheckpointError:
        return None
    return None if done is None else _of_silver(settings, contracts, done)


def _of_silver(settings: Settings, contracts: Contracts, done: int) -> float:
    """How long what came after its version `done` is there."""
    silver = arrow.open_table(settings, tables.silver(contracts))
    missing = [
        commit["timestamp"] / 1000
        for commit in (silver.history() if silver is not None else [])
        if int(commit["version"]) > done and commit["operation"] not in NO_ROWS
    ]
    return max(0.0, time.time() - min(missing)) if missing else 0.0


def _last_read(settings: Settings) -> int:
    """The version of silver.events that the last good run of Gold read; NOTHING where there is
    none."""
    columns = ["job", "result", "ended_at", "read"]
    parts = arrow.rows(settings, tables.runs(), columns)
    runs = [row for part in parts for row in part.to_pylist() if row["job"] == "gold"]
    good = [row for row in runs if row["result"] == "succeeded"]
    if not good:
        return NOTHING
    last = max(good, key=lambda row: row["ended_at"])
    return int(dict(last["read"]).get(SILVER, NOTHING))


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
