"""What a streaming query's checkpoint says: its id, and up to where it has committed."""

from __future__ import annotations

import json
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lakehouse.errors import CheckpointError
from lakehouse.kafka import Offsets

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakehouse.settings import Settings

# What reads the broker; and what reads silver.events, and can be worked out anew from it.
QUERIES = ("bronze", "silver")
METRICS = "metrics"
ALL = (*QUERIES, METRICS)


class Files(Protocol):
    """The files of a checkpoint, by paths relative to its folder, which is `root`."""

    root: str

    def names(self, folder: str) -> list[str]: ...

    def text(self, name: str) -> str | None: ...


def location(settings: Settings, query: str) -> str:
    return f"{settings.checkpoints}/{query}"


def query_id(files: Files) -> str | None:
    """The id that the checkpoint gives its query; None where there is no checkpoint."""
    text = files.text("metadata")
    return None if text is None else str(_parsed(files, "metadata", text)["id"])


def committed(files: Files) -> Offsets:
    """The offset after the last committed record, by topic and partition; empty if none is.

    Raises CheckpointError where a file of the checkpoint that this is in is damaged.
    """
    batches = _batches(files, "commits")
    if not batches:
        return {}
    last = max(batches)
    # A version, then JSON. Spark reads the newest one only, and so does this.
    version, _, said = (files.text(f"commits/{last}") or "").partition("\n")
    if not version.startswith("v") or not _is_json(said):
        raise CheckpointError(
            f"{files.root}/commits/{last} is damaged: delete it, and .{last}.crc beside it where "
            "there is one; its batch is run again, and its records are taken once"
        )
    name = f"offsets/{last}"
    # Line 1 is the log's version, line 2 what the batch ran with, then a line a source.
    lines = (files.text(name) or "").splitlines()
    return _offsets(files, name, lines[2] if len(lines) > 2 else "")


def position(files: Files) -> Offsets:
    """The next offset to read, by topic and partition; empty where there is no checkpoint.

    Before the first commit that is where the query began. Raises CheckpointError where a file that
    the query starts from is damaged.
    """
    planned = _batches(files, "offsets")
    if query_id(files) is None and (planned or _batches(files, "commits")):
        # Spark would go on from them under a new id, which no transaction of a table knows.
        raise _damaged(files, "metadata")
    if planned:
        lines = (files.text(f"offsets/{max(planned)}") or "").splitlines()
        if len(lines) < 3 or not all(map(_is_json, lines[1:3])):
            # Not to be deleted: the table may hold its batch, which another extent would then skip.
            raise _damaged(files, f"offsets/{max(planned)}")
    if done := committed(files):
        return done
    name = "sources/0/0"
    text = files.text(name)
    if text is None:
        return {}
    # A zero byte and the file's version, then the offsets.
    lines = text.splitlines()
    return _offsets(files, name, lines[1] if len(lines) > 1 else "")


def version_read(files: Files) -> int | None:
    """The last version of a Delta table that its reader has committed all of; None for none yet.

    Raises CheckpointError where the file that says so is damaged.
    """
    last = newest_commit(files)
    if last is None:
        return None
    name = f"offsets/{last}"
    lines = (files.text(name) or "").splitlines()
    found = _parsed(files, name, lines[2] if len(lines) > 2 else "").get("reservoirVersion")
    if found is None:
        raise _damaged(files, name)
    return int(found) - 1


def newest_commit(files: Files) -> int | None:
    """The number of the last committed batch; None where there is none."""
    return max(_batches(files, "commits"), default=None)


def planned(files: Files) -> Offsets:
    """The offset after the last record of the newest batch that was planned, committed or not."""
    batches = _batches(files, "offsets")
    if not batches:
        return {}
    name = f"offsets/{max(batches)}"
    lines = (files.text(name) or "").splitlines()
    return _offsets(files, name, lines[2] if len(lines) > 2 else "")


def written_ahead(files: Files, held: int | None) -> Offsets:
    """Up to where a table has what its query has not committed: a batch that was cut off between
    the table's commit and the checkpoint's. By topic and partition; empty where there is none.

    held: as of `demand_newest`.
    """
    return planned(files) if held is not None and held == unfinished(files) else {}


def demand_newest(files: Files, table: str, held: int | None) -> None:
    """Raises CheckpointError where a table holds a batch of the query that its checkpoint has not
    planned: a new batch of that number would be taken for it, and left out.

    held: the number of the last batch that the table has; None where it has none, or is not known.
    """
    planned = max(_batches(files, "offsets"), default=-1)
    if held is not None and held > planned:
        raise CheckpointError(
            f"checkpoint {files.root} is older than {table}: it ends at batch {planned}, and the "
            f"table has batch {held} of it (files are missing, or an old copy was put back): "
            f"{remedy(files.root)}"
        )


def application(table: str, query: str) -> str:
    """What a table's log calls the batches of a query. table: its full name; query: its id."""
    return f"{table}:{query}"


def unfinished(files: Files) -> int | None:
    """The number of a batch that was planned, and is not committed; None where there is none."""
    planned, done = _batches(files, "offsets"), _batches(files, "commits")
    last = max(planned, default=-1)
    return last if last > max(done, default=-1) else None


def begun(files: Files) -> bool:
    """Whether a query has a batch to go on from.

    Raises CheckpointError where it had one, for there is state.
    """
    if _batches(files, "offsets"):
        return True
    if files.names("state"):
        raise _damaged(files, "offsets")
    return False


def begin_anew(files: SparkFiles, keep_start: bool) -> None:
    """Has a query that has not begun start under another id, and where it was to if `keep_start`.

    Of a checkpoint without offsets nobody can tell whether it never began, or lost them: under its
    old id a table may take the first batches for old ones.
    """
    files.remove("metadata")
    if not keep_start:
        files.remove("sources/0/0")


def remedy(root: str) -> str:
    """How a query goes on whose checkpoint cannot be read."""
    return (
        f"move the folder {root} away and start again: a new checkpoint begins after what the "
        "table holds; then `headwater reconcile`"
    )


def _batches(files: Files, folder: str) -> list[int]:
    return [int(name) for name in files.names(folder) if name.isdigit()]


def _damaged(files: Files, name: str) -> CheckpointError:
    return CheckpointError(f"{files.root}/{name} is damaged: {remedy(files.root)}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parsed(files: Files, name: str, text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        raise _damaged(files, name) from None
    return found


def _offsets(files: Files, name: str, text: str) -> Offsets:
    return offsets(_parsed(files, name, text))


def offsets(found: dict[str, dict[str, int]]) -> Offsets:
    """Offsets from Spark's own form: topic to partition to offset."""
    return {(t, int(p)): at for t, parts in found.items() for p, at in parts.items()}


class SparkFiles:
    """By Hadoop's file systems, with Spark's own credentials: wherever Spark can write."""

    def __init__(self, spark: SparkSession, settings: Settings, query: str) -> None:
        context: Any = spark.sparkContext
        self._jvm = context._jvm
        self.root = location(settings, query)
        path = self._jvm.org.apache.hadoop.fs.Path(self.root)
        self._fs = path.getFileSystem(context._jsc.hadoopConfiguration())

    def _path(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(f"{self.root}/{name}")

    def names(self, folder: str) -> list[str]:
        if not self._fs.exists(self._path(folder)):
            return []
        return [status.getPath().getName() for status in self._fs.listStatus(self._path(folder))]

    def write(self, name: str, text: str) -> None:
        """A new file, whole or not at all."""
        unfinished = f"{name}.{uuid.uuid4().hex}.tmp"
        stream = self._fs.create(self._path(unfinished), True)
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()
        if not self._fs.rename(self._path(unfinished), self._path(name)):
            self.remove(unfinished)
            raise CheckpointError(
                f"{self.root}/{name} could not be written: is another writer at this checkpoint?"
            )

    def remove(self, name: str) -> None:
        self._fs.delete(self._path(name), False)

    def clear(self) -> None:
        """Removes all of it: the query begins anew."""
        self._fs.delete(self._jvm.org.apache.hadoop.fs.Path(self.root), True)

    def text(self, name: str) -> str | None:
        from py4j.protocol import Py4JJavaError

        if not self._fs.exists(self._path(name)):
            return None
        stream = self._fs.open(self._path(name))
        try:
            utf8 = self._jvm.java.nio.charset.StandardCharsets.UTF_8
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, utf8))
        except Py4JJavaError as error:
            if "ChecksumException" not in str(error.java_exception):
                raise
            return ""  # as damaged as a file can be
        finally:
            stream.close()


class ArrowFiles:
    """By Arrow's file systems: for commands that answer without a JVM."""

    def __init__(self, settings: Settings, query: str) -> None:
        from pyarrow import fs

        from lakehouse import adls

        self.root = location(settings, query)
        self._reaching = partial(adls.reaching, settings, self.root)
        with self._reaching():
            self._fs, self._root = adls.file_system(settings, self.root)
        self._selector = fs.FileSelector

    def names(self, folder: str) -> list[str]:
        selector = self._selector(f"{self._root}/{folder}", allow_not_found=True)
        with self._reaching():
            return [info.base_name for info in self._fs.get_file_info(selector)]

    def text(self, name: str) -> str | None:
        try:
            with (
                self._reaching(),
                self._fs.open_input_stream(f"{self._root}/{name}") as stream,
            ):
                return str(stream.read().decode(errors="replace"))
        except FileNotFoundError:
            return None
