"""What a streaming query's checkpoint says: its id, and up to where it has committed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from lakehouse.kafka import Offsets

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakehouse.settings import Settings

QUERIES = ("bronze", "silver")


class Files(Protocol):
    """The files of a checkpoint, by paths relative to it."""

    def names(self, folder: str) -> list[str]: ...

    def text(self, name: str) -> str | None: ...


def location(settings: Settings, query: str) -> str:
    return f"{settings.checkpoints}/{query}"


def query_id(files: Files) -> str | None:
    """The id that the checkpoint gives its query; None where there is no checkpoint."""
    text = files.text("metadata")
    return str(json.loads(text)["id"]) if text else None


def committed(files: Files) -> Offsets:
    """The offset after the last committed record, by topic and partition; empty if none is."""
    batches = [int(name) for name in files.names("commits") if name.isdigit()]
    if not batches:
        return {}
    text = files.text(f"offsets/{max(batches)}")
    if text is None:
        return {}
    # Line 1 is the log's version, line 2 what the batch ran with, then a line a source.
    ends: dict[str, dict[str, int]] = json.loads(text.splitlines()[2])
    return {(t, int(p)): end for t, parts in ends.items() for p, end in parts.items()}


class SparkFiles:
    """By Hadoop's file systems, with Spark's own credentials: wherever Spark can write."""

    def __init__(self, spark: SparkSession, settings: Settings, query: str) -> None:
        context: Any = spark.sparkContext
        self._jvm = context._jvm
        self._root = location(settings, query)
        path = self._jvm.org.apache.hadoop.fs.Path(self._root)
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
            utf8 = self._jvm.java.nio.charset.StandardCharsets.UTF_8
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, utf8))
        finally:
            stream.close()


class ArrowFiles:
    """By Arrow's file systems: for commands that answer without a JVM."""

    def __init__(self, settings: Settings, query: str) -> None:
        from pyarrow import fs

        self._fs, self._root = fs.FileSystem.from_uri(location(settings, query))
        self._selector = fs.FileSelector

    def names(self, folder: str) -> list[str]:
        found = self._fs.get_file_info(
            self._selector(f"{self._root}/{folder}", allow_not_found=True)
        )
        return [info.base_name for info in found]

    def text(self, name: str) -> str | None:
        try:
            with self._fs.open_input_stream(f"{self._root}/{name}") as stream:
                return str(stream.read().decode())
        except FileNotFoundError:
            return None
