"""What jobs did: rows of ops.runs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakehouse import tables
from lakehouse.errors import reason
from lakehouse.kafka import Offsets
from lakehouse.redact import redacted
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import Row

# The result of a row that says what a job is about to do.
BEGUN = "begun"


@dataclass
class Run:
    """One run while it goes on; the fields are columns of ops.runs."""

    job: str
    started_at: datetime
    rows: int = 0
    offsets: Offsets = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@contextmanager
def recorded(spark: SparkSession, settings: Settings, job: str) -> Iterator[Run]:
    """A run that is written down at its end: as succeeded, or as failed and why."""
    run = Run(job, datetime.now(UTC))
    try:
        yield run
    except Exception as error:
        # What went wrong matters more than that it could not be written down.
        with suppress(Exception):
            run.details["error"] = redacted(reason(str(error)))
            _append(spark, settings, run, "failed")
        raise
    _append(spark, settings, run, "succeeded")


def begun(spark: SparkSession, settings: Settings, job: str, details: dict[str, Any]) -> None:
    """Writes down what a job is about to do: it may die before it can say that it did."""
    _append(spark, settings, Run(job, datetime.now(UTC), details=details), BEGUN)


def _append(spark: SparkSession, settings: Settings, run: Run, result: str) -> None:
    table = tables.runs()
    tables.ensure(spark, settings, table)
    row = {
        "run_id": str(uuid.uuid4()),
        "job": run.job,
        "started_at": run.started_at,
        "ended_at": tables.later_than_all(spark, settings, table, "ended_at"),
        "result": result,
        "rows": run.rows,
        "offsets": [(topic, part, end) for (topic, part), end in sorted(run.offsets.items())],
        "details": json.dumps(run.details, sort_keys=True),
        "read": run.read,
        "written": run.written,
        "commits": run.commits,
    }
    schema = ", ".join(f"{name} {table.columns[name]}" for name in row)
    frame = spark.createDataFrame([tuple(row.values())], schema)
    tables.append(frame, settings, table)


def last(spark: SparkSession, settings: Settings, job: str) -> Row | None:
    """The last successful run of a job; None if there is none."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    table = tables.runs()
    if not DeltaTable.isDeltaTable(spark, table.path(settings)):
        return None
    tables.ensure(spark, settings, table)
    found = (
        tables.read(spark, settings, table)
        .where((F.col("job") == job) & (F.col("result") == "succeeded"))
        .orderBy(F.col("ended_at").desc())
        .limit(1)
        .collect()
    )
    return found[0] if found else None


def closed_range(spark: SparkSession, settings: Settings) -> Offsets:
    """Up to where the last reconcile gave every record its outcome; empty if none ran."""
    run = last(spark, settings, "reconcile")
    return {} if run is None else {(o.topic, o.partition): o.offset for o in run.offsets}
