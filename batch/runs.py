"""What jobs did: rows of ops.runs."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakehouse import tables
from lakehouse.kafka import Offsets
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def record(
    spark: SparkSession,
    settings: Settings,
    job: str,
    started_at: datetime,
    rows: int,
    offsets: Offsets,
    details: dict[str, Any],
) -> None:
    """Appends one successful run."""
    table = tables.runs()
    tables.ensure(spark, settings, table)
    closed = [(topic, partition, end) for (topic, partition), end in sorted(offsets.items())]
    row = (
        str(uuid.uuid4()),
        job,
        started_at,
        datetime.now(UTC),
        "succeeded",
        rows,
        closed,
        json.dumps(details, sort_keys=True),
    )
    schema = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
    frame = spark.createDataFrame([row], schema)
    tables.append(frame, settings, table)


def closed_range(spark: SparkSession, settings: Settings) -> Offsets:
    """Up to where the last reconcile gave every record its outcome; empty if none ran."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    table = tables.runs()
    if not DeltaTable.isDeltaTable(spark, table.path(settings)):
        return {}
    runs = tables.read(spark, settings, table)
    last = (
        runs.where((F.col("job") == "reconcile") & (F.col("result") == "succeeded"))
        .orderBy(F.col("ended_at").desc())
        .limit(1)
        .collect()
    )
    if not last:
        return {}
    return {(o.topic, o.partition): o.offset for o in last[0].offsets}
