"""What a streaming query's checkpoint says: its id, and up to where it has committed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lakehouse.kafka import Offsets
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

QUERIES = ("bronze", "silver")


def location(settings: Settings, query: str) -> str:
    return f"{settings.checkpoints}/{query}"


def query_id(spark: SparkSession, settings: Settings, query: str) -> str | None:
    """The id that the checkpoint gives its query; None where there is no checkpoint."""
    text = _Files(spark, location(settings, query)).text("metadata")
    return str(json.loads(text)["id"]) if text else None


def committed(spark: SparkSession, settings: Settings, query: str) -> Offsets:
    """The offset after the last committed record, by topic and partition; empty if none is."""
    files = _Files(spark, location(settings, query))
    batches = [int(name) for name in files.names("commits") if name.isdigit()]
    if not batches:
        return {}
    text = files.text(f"offsets/{max(batches)}")
    if text is None:
        return {}
    # Line 1 is the log's version, line 2 what the batch ran with, then a line a source.
    ends: dict[str, dict[str, int]] = json.loads(text.splitlines()[2])
    return {(t, int(p)): end for t, parts in ends.items() for p, end in parts.items()}


class _Files:
    """Reads by Hadoop's file systems, so that a checkpoint may be anywhere that Spark can write."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        context: Any = spark.sparkContext
        self._jvm = context._jvm
        self._root = root
        path = self._jvm.org.apache.hadoop.fs.Path(root)
        self._fs = path.getFileSystem(context._jsc.hadoopConfiguration())

    def _path(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(f"{self._root}/{name}")

    def names(self, folder: str) -> list[str]:
        if not self._fs.exists(self._path(folder)):
            return []
        return [status.getPath().getName() for status in self._fs.listStatus(self._path(folder))]

    def text(self, name: str) -> str | None:
        if not self._fs.exists(self._path(name)):
            return None
        stream = self._fs.open(self._path(name))
        try:
            return str(
                self._jvm.org.apache.commons.io.IOUtils.toString(
                    stream, self._jvm.java.nio.charset.StandardCharsets.UTF_8
                )
            )
        finally:
            stream.close()
