"""The ledger's files, and foreign bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lakehouse.errors import SettingsError
from producer import foreign
from producer.ahead import blocks
from producer.defects import Record
from producer.ledger import Ledger, sent

WORLD = {"seed": 1}


def record(name: str) -> Record:
    return Record(0, None, b"x", "s", name, "order", "late", "accepted", ("a", "b"))


def test_lines_keep_their_coordinates_once_acknowledged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "run", "topic", WORLD, first=11)
    [block] = blocks([record("one"), record("two"), record("three")])
    chunk = ledger.open(block)
    chunk.sent = 2  # stopped before the third
    chunk.partitions[0], chunk.offsets[0] = 3, 7
    ledger.close()
    rows = pq.read_table(tmp_path).to_pylist()
    assert [(r["number"], r["id"], r["partition"], r["offset"]) for r in rows] == [
        (11, "one", 3, 7),
        (12, "two", None, None),
    ]
    assert rows[0]["rules"] == ["a", "b"]
    assert sent(tmp_path, WORLD) == 12
    assert sent(tmp_path, {"seed": 2}) == 0


def test_foreign_bytes_are_sent_as_they_are(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b'{"a":1}\n\n\xff\xfe\r\nlast')
    assert [r.value for r in foreign.records(lines)] == [b'{"a":1}', b"", b"\xff\xfe", b"last"]
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "b").write_bytes(b"two\nlines\n")
    (folder / "in" / "c").write_bytes(b"")
    assert [r.value for r in foreign.records(folder)] == [b"two\nlines\n", b""]


def test_nothing_to_send_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SettingsError, match=str(path)):
            list(foreign.records(path))
