"""The truth ledger: a Parquet line a record sent, with the outcome that it has to have.

Columns: number (from 1 within the world), source, id, entity, defect, outcome (accepted |
quarantined | duplicate), rules (list of names), topic, partition, offset. The coordinates are null
where the broker did not acknowledge the record, and for all that went by AMQP, which does not say
where a record came to lie; source and id where the record does not say them.
For foreign bytes everything but number and coordinates is null.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.errors import LedgerError

ROWS_A_FILE = 50_000
WORLD = b"headwater.world"
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("entity", pa.string()),
        ("defect", pa.string()),
        ("outcome", pa.string()),
        ("rules", pa.list_(pa.string())),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)
# How it is written: columns of few values by dictionary, those that count up by difference, and the
# smallest and largest of the only one that is asked for them. Half of the time that it takes else,
# and a fifth of the bytes.
WRITTEN: dict[str, Any] = {
    "use_dictionary": [
        *("source", "entity", "defect", "outcome", "rules.list.element", "topic", "partition")
    ],
    "column_encoding": {
        "number": "DELTA_BINARY_PACKED",
        "offset": "DELTA_BINARY_PACKED",
        "id": "DELTA_BYTE_ARRAY",
    },
    "write_statistics": ["number"],
}
# What a record's line has of the record itself.
TOLD = ["source", "id", "entity", "defect", "outcome", "rules"]
# A record of more is not small.
LARGE_BYTES = 4_096


class Chunk:
    """The lines of one block while its acknowledgements come in. sent: how many of them are."""

    def __init__(self, first: int, block: pa.RecordBatch) -> None:
        size, told = block.num_rows, block.select(TOLD)
        if block.nbytes > LARGE_BYTES * size:
            # A copy: what was sent, which these may be a part of, is not held until they are
            # written. Of small records it costs more than it is worth.
            told = told.take(pa.array(np.arange(size)))
        self.first, self.block = first, told
        # None until an acknowledgement tells it.
        self.partitions: list[int | None] = [None] * size
        self.offsets: list[int | None] = [None] * size
        self.sent = 0
        self.answered = 0


class Ledger:
    """Writes blocks to FOLDER/RUN-NNNNN.parquet as soon as they are acknowledged whole."""

    def __init__(
        self, folder: Path, run: str, topic: str, world: dict[str, Any], first: int = 1
    ) -> None:
        self._folder, self._run, self._topic = folder, run, topic
        self._schema = SCHEMA.with_metadata({WORLD: json.dumps(world, sort_keys=True)})
        self._next, self._files = first, 0
        self._open: deque[Chunk] = deque()
        # Acknowledged whole, and not written yet.
        self._through: list[Chunk] = []
        self._rows = 0

    def open(self, block: pa.RecordBatch) -> Chunk:
        """Lines for a block that is about to be sent; blocks that are through may be written."""
        while self._open and self._open[0].answered == len(self._open[0].offsets):
            chunk = self._open.popleft()
            self._through.append(chunk)
            self._rows += len(chunk.offsets)
        if self._rows >= ROWS_A_FILE:
            self._write(self._through)
            self._through, self._rows = [], 0
        chunk = Chunk(self._next, block)
        self._next += block.num_rows
        self._open.append(chunk)
        return chunk

    def close(self) -> None:
        """Writes what was sent, acknowledged or not."""
        self._write([*self._through, *self._open])
        self._through, self._rows = [], 0
        self._open.clear()

    def _write(self, chunks: list[Chunk]) -> None:
        if not any(chunk.sent for chunk in chunks):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._run}-{self._files:05d}.parquet"
        # Whoever dies over it leaves no half of a ledger under its name.
        unfinished = path.with_suffix(".unfinished")
        pq.write_table(self._table(chunks), unfinished, **WRITTEN)
        unfinished.replace(path)
        self._files += 1

    def _table(self, chunks: list[Chunk]) -> pa.Table:
        sent = pa.Table.from_batches([chunk.block.slice(0, chunk.sent) for chunk in chunks])
        columns = [
            np.concatenate([chunk.first + np.arange(chunk.sent) for chunk in chunks]),
            *sent.columns,
            pa.repeat(pa.scalar(self._topic), sent.num_rows),
            _joined(chunk.partitions[: chunk.sent] for chunk in chunks),
            _joined(chunk.offsets[: chunk.sent] for chunk in chunks),
        ]
        return pa.table(columns, schema=self._schema)


def _joined(parts: Iterable[list[int | None]]) -> list[int | None]:
    return list(chain.from_iterable(parts))


def sent(folder: Path, world: dict[str, Any]) -> int:
    """How many records of a world the ledgers in a folder know: the next one is that plus one."""
    last = 0
    wanted = json.dumps(world, sort_keys=True).encode()
    for path in folder.glob("*.parquet"):
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            said = str(error).splitlines()[0]
            raise LedgerError(
                f"the ledger {path} cannot be read: {said}: move it away; which records of a shop "
                "it knew is then not known any more, and --continue may send some of them again"
            ) from None
        if (file.schema_arrow.metadata or {}).get(WORLD) == wanted and file.metadata.num_rows:
            column = file.schema_arrow.get_field_index("number")
            groups = range(file.metadata.num_row_groups)
            tops = [file.metadata.row_group(g).column(column).statistics.max for g in groups]
            last = max(last, *tops)
    return last
