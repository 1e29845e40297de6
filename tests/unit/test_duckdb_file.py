"""The file of the embedded warehouse, where it cannot be made."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from batch.warehouses.duckdb_file import DuckDB
from lakehouse.errors import WarehouseError


def test_half_a_file_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a full disk does it; a file that was there before stays, whatever it is."""
    file = tmp_path / "warehouse.duckdb"

    def connect(path: str) -> None:
        with Path(path).open("ab") as half:
            half.write(b"half")
        raise duckdb.IOException("Could not write file: No space left on device")

    monkeypatch.setattr(duckdb, "connect", connect)
    with pytest.raises(WarehouseError, match="No space left on device"):
        DuckDB(file, tmp_path)
    assert not file.exists()
    file.write_bytes(b"mine")
    with pytest.raises(WarehouseError):
        DuckDB(file, tmp_path)
    assert file.exists()
