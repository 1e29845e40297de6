"""The truth ledger: a Parquet line a record sent, with the outcome that it has to have.

Columns: number (from 1 within the world), source, id, entity, defect, outcome (accepted |
quarantined | duplicate), rules (list of names), topic, partition, offset. The coordinates are null
where the broker did not acknowledge the record; source and id where the record does not say them.
For foreign bytes everything but number and coordinates is null.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from producer.defects import Record

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


class Chunk:
    """The lines of one file while their acknowledgements come in."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.records: list[Record] = []
        self.partitions: list[int | None] = []
        self.offsets: list[int | None] = []
        self.waiting = 0

    def add(self, record: Record) -> int:
        self.records.append(record)
        self.partitions.append(None)
        self.offsets.append(None)
        self.waiting += 1
        return len(self.records) - 1


class Ledger:
    """Writes chunks to FOLDER/RUN-NNNNN.parquet as soon as each is acknowledged whole."""

    def __init__(
        self, folder: Path, run: str, topic: str, world: dict[str, Any], first: int = 1
    ) -> None:
        self._folder, self._run, self._topic = folder, run, topic
        self._schema = SCHEMA.with_metadata({WORLD: json.dumps(world, sort_keys=True)})
        self._next, self._files = first, 0
        self._open: list[Chunk] = []
        self.chunk = self._new()

    def _new(self) -> Chunk:
        chunk = Chunk(self._next)
        self._open.append(chunk)
        return chunk

    def roll(self) -> Chunk:
        """Closes the current chunk once it is full, and writes those that are complete."""
        if len(self.chunk.records) >= ROWS_A_FILE:
            self._next += len(self.chunk.records)
            self.chunk = self._new()
        self._write(lambda chunk: chunk is not self.chunk and chunk.waiting == 0)
        return self.chunk

    def close(self) -> None:
        """Writes what there is, acknowledged or not."""
        self._write(lambda _: True)

    def _write(self, ready: Callable[[Chunk], bool]) -> None:
        for chunk in [chunk for chunk in self._open if ready(chunk)]:
            self._open.remove(chunk)
            if not chunk.records:
                continue
            rows = chunk.records
            table = pa.table(
                [
                    pa.array(range(chunk.first, chunk.first + len(rows)), pa.int64()),
                    *(
                        pa.array([getattr(row, name) for row in rows], SCHEMA.field(name).type)
                        for name in ("source", "id", "entity", "defect", "outcome", "rules")
                    ),
                    pa.array([self._topic] * len(rows)),
                    pa.array(chunk.partitions, pa.int32()),
                    pa.array(chunk.offsets, pa.int64()),
                ],
                schema=self._schema,
            )
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._run}-{self._files:05d}.parquet"
            pq.write_table(table, path)
            self._files += 1


def sent(folder: Path, world: dict[str, Any]) -> int:
    """How many records of a world the ledgers in a folder know: the next one is that plus one."""
    last = 0
    wanted = json.dumps(world, sort_keys=True).encode()
    for path in folder.glob("*.parquet"):
        file = pq.ParquetFile(path)
        if (file.schema_arrow.metadata or {}).get(WORLD) == wanted and file.metadata.num_rows:
            column = file.schema_arrow.get_field_index("number")
            groups = range(file.metadata.num_row_groups)
            tops = [file.metadata.row_group(g).column(column).statistics.max for g in groups]
            last = max(last, *tops)
    return last
