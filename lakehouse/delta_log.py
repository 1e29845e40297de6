"""What the log of a Delta table says of its versions, read as files: a question to Spark takes some
jobs. By Delta's protocol: a commit is a file of JSON lines, numbered on, and beside it, where the
writer made one, a checksum with what the table comes to.

Everything here may be missing: a log is cleaned up, and other writers make no checksums. Who asks
has to have another way.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TRIES, PAUSE_SECONDS = 5, 0.02


def _json(text: str | None) -> dict[str, Any]:
    """What a file of a log says; nothing where it was cut off, as by a power cut."""
    with suppress(ValueError):
        found = json.loads(text or "{}")
        return found if isinstance(found, dict) else {}
    return {}


class DeltaLog:
    """The log of the table at a path, on whatever file system Spark reaches.

    Where Hadoop's file system is refused what Spark's readers are given, as with external locations
    on some kinds of Databricks' clusters, nothing is known here.
    """

    def __init__(self, spark: SparkSession, path: str) -> None:
        from py4j.protocol import Py4JJavaError

        context: Any = spark.sparkContext
        self._jvm = context._jvm
        self._folder = f"{path}/_delta_log"
        self._files: Any = None
        # At opening it alone: a file that does not answer later is not one that is not there.
        with suppress(Py4JJavaError):
            self._files = self._place("").getFileSystem(context._jsc.hadoopConfiguration())

    def has(self, version: int) -> bool:
        return self._is_there(self._place(_commit(version)))

    def newest(self, known: int | None = None) -> int | None:
        """The newest version; None where the log does not have the one that it is looked for from.

        known: one that it had; the last checkpoint's where left out.
        """
        version = self._checkpointed() if known is None else known
        if not self.has(version):
            return None
        while self.has(version + 1):
            version += 1
        return version

    def commit(self, version: int) -> dict[str, Any]:
        """commitInfo of a version: timestamp (ms since 1970), operation, userMetadata, txnId …"""
        for line in (self._text(_commit(version)) or "").splitlines():
            info: dict[str, Any] | None = _json(line).get("commitInfo")
            if info is not None:
                return info
        return {}

    def checksum(self, version: int) -> dict[str, Any]:
        """numFiles, tableSizeBytes, metadata, domainMetadata … as of a version."""
        return _json(self._text(f"{version:020d}.crc"))

    def transaction(self, app: str) -> int | None:
        """The last batch of a streaming query that the newest version holds, by the query's name in
        the table's log; None where that is not known."""
        newest = self.newest()
        told = [] if newest is None else self.checksum(newest).get("setTransactions") or []
        return next((int(one["version"]) for one in told if one["appId"] == app), None)

    def remove_unfinished(self) -> None:
        """Removes the log of a table whose making was cut off before its first commit.

        Delta takes that for a table which is gone, and would never make it again. Whoever commits
        meanwhile is left alone: a folder that is not empty stays.
        """
        log = self._place("")
        if not self._is_there(log):
            return
        inside = [status.getPath() for status in self._files.listStatus(log)]
        if all(file.getName().startswith((".", "_staged_commits")) for file in inside):
            for file in inside:
                self._files.delete(file, False)
            self._files.delete(log, False)

    def _checkpointed(self) -> int:
        """The version of the newest checkpoint; 0 where nothing says which that is."""
        from py4j.protocol import Py4JJavaError

        # The one file of a log that is written anew: on a local disk, where another writer does so,
        # it is for a moment not what its checksum says. It is but a hint, as to Delta itself.
        for _ in range(TRIES):
            with suppress(Py4JJavaError):
                return int(_json(self._text("_last_checkpoint")).get("version", 0))
            time.sleep(PAUSE_SECONDS)
        return 0

    def _place(self, name: str) -> Any:
        inside = f"{self._folder}/{name}" if name else self._folder
        return self._jvm.org.apache.hadoop.fs.Path(inside)

    def _text(self, name: str) -> str | None:
        """What a file of the log holds; None where there is none."""
        place = self._place(name)
        if not self._is_there(place):
            return None
        stream = self._files.open(place)
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def _is_there(self, place: Any) -> bool:
        return self._files is not None and bool(self._files.exists(place))


def _commit(version: int) -> str:
    return f"{version:020d}.json"
