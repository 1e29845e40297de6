"""What `status` and the summary of a run tell, from the tables' own logs: without a JVM."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from headwater import freshness
from lakehouse import arrow, checkpoints, contracts, kafka, lag, layouts, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import BrokerError
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings


def state(settings: Settings) -> dict[str, Any]:
    """tables, streams, jobs, freshness and broker_error (None, or why there is no lag to tell).

    A stream's oldest_unread is that of the partition where it is most urgent, as lakehouse.lag has
    it; None where all is read. freshness: as headwater.freshness has it.
    """
    loaded = contracts.load(settings.contracts_dir)
    known = layouts.load(settings.contracts_dir, loaded)
    found: dict[str, Any] = {"tables": sizes(settings, loaded, known), "broker_error": None}
    found |= {"streams": [], "jobs": jobs(settings)}
    ends: kafka.Offsets | None = None
    try:
        topics = loaded.topics(settings.topics.events)
        ends = kafka.end_offsets(settings, topics)
    except BrokerError as error:
        found["broker_error"] = str(error)
    for query in checkpoints.QUERIES:
        done = checkpoints.committed(checkpoints.ArrowFiles(settings, query))
        stream: dict[str, Any] = {"query": query, "committed": sum(done.values())}
        stream |= {"lag": None, "oldest_unread": None, "oldest_age": None}
        if ends is not None:
            stream["lag"] = sum(max(0, end - done.get(key, 0)) for key, end in ends.items())
            if unread := lag.unread(settings, dict.fromkeys(ends, 0) | done, ends):
                # The most urgent one, by how long its topic keeps it; another may be older.
                stream["oldest_unread"] = asdict(unread[0]) | {"said": str(unread[0])}
                stream["oldest_age"] = max(one.age for one in unread)
        found["streams"].append(stream)
    fresh = freshness.of_tables(settings, loaded, known, found["streams"])
    found["freshness"] = [asdict(one) for one in fresh]
    return found


def sizes(settings: Settings, loaded: Contracts, known: Layouts) -> list[dict[str, Any]]:
    """Rows, files, bytes and last commit of every table that is there."""
    found = (_table(settings, table) for table in tables.all_tables(loaded, known))
    return [row for row in found if row is not None]


def _table(settings: Settings, table: tables.Table) -> dict[str, Any] | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    delta = arrow.open_table(settings, table)
    if delta is None:
        return None
    files = pa.table(delta.get_add_actions(flatten=True))
    last = delta.history(1)[0]
    return {
        "table": table.full_name,
        "rows": pc.sum(files["num_records"]).as_py() or 0,
        "files": files.num_rows,
        "bytes": pc.sum(files["size_bytes"]).as_py() or 0,
        "last_commit": _time(last["timestamp"] / 1000),
        "path": table.path(settings),
    }


def jobs(settings: Settings) -> list[dict[str, Any]]:
    """The last run of each job that came to an end: the columns of ops.runs, plain."""
    from lakehouse.runs import BEGUN

    last: dict[str, dict[str, Any]] = {}
    columns = ["job", "started_at", "ended_at", "result", "rows", "read", "written", "details"]
    parts = arrow.rows(settings, tables.runs(), columns)
    found = [row for part in parts for row in part.to_pylist()]
    for row in sorted(found, key=lambda row: row["ended_at"]):
        if row["result"] == BEGUN:
            continue
        versions = {key: dict(row.get(key) or []) for key in ("read", "written")}
        last[row["job"]] = {key: plain(value) for key, value in (row | versions).items()}
    return list(last.values())


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def plain(value: Any) -> Any:
    """A value as text that a person can read and JSON can hold; bytes as UTF-8, or in hex."""
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return bytes(value).hex(" ")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        return aware.isoformat()
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "asDict"):
        return plain(value.asDict())
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value
