"""The file of the embedded warehouse, and what every kind does, on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batch.warehouses.base import STATE, Content, Target, without_values
from batch.warehouses.duckdb_file import DuckDB
from lakehouse.errors import WarehouseError
from lakehouse.layouts import Layout, Layouts
from lakehouse.tables import Version


@pytest.mark.parametrize(
    "said",
    [
        "Duplicate entry 'ann@example.com' for key 'dw_users.mail'",
        'Constraint Error: Duplicate key "email: ann@example.com" violates unique constraint. x',
        "Incorrect decimal value: 'ann@example.com' for column `d`.`t`.`c` at row 1",
        "Conversion Error: Could not convert string 'ann@example.com' to INT32",
        'invalid input syntax for type integer: "ann@example.com"',
        "Cannot insert duplicate key in 'd.t'. The duplicate key value is (ann@example.com).",
    ],
)
def test_what_a_database_says_of_a_row_names_no_value(said: str) -> None:
    told = without_values(said)
    assert "@example" not in told
    assert all(name in told for name in ("key 'dw_users.mail'", "'d.t'") if name in said)


def test_names_stay_in_what_a_database_says() -> None:
    for said in (
        "Table 'd.dw_users' doesn't exist",
        "Data too long for column 'name' at row 1",
        'relation "fact_orders" does not exist',
        "Access denied for user 'u'@'localhost' to database 'd'",
    ):
        assert without_values(said) == said


def test_a_value_that_another_constraint_refuses_is_not_told(tmp_path: Path) -> None:
    """As of a unique index that somebody else has put on a published table."""
    there = DuckDB(tmp_path / "w.duckdb", tmp_path / "stage")
    try:
        there.execute("CREATE TABLE t (mail VARCHAR UNIQUE)")
        there.execute("INSERT INTO t VALUES ('ann@example.com')")
        with pytest.raises(WarehouseError, match="violates unique constraint") as caught:
            there.execute("INSERT INTO t VALUES ('ann@example.com')")
        assert "ann" not in str(caught.value)
    finally:
        there.close()


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


class Refusing(DuckDB):
    """Whoever publishes may not do everything."""

    refused = ""

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        if self.refused and statement.startswith(self.refused):
            raise WarehouseError(f"{self.where}: {self.refused} is denied")
        return super().execute(statement, *values)


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Refusing]:
    found = Refusing(tmp_path / "warehouse.duckdb", tmp_path)
    yield found
    found.close()


def content(warehouse: DuckDB) -> dict[str, Any]:
    columns = warehouse.execute(
        "SELECT table_name, column_name FROM information_schema.columns ORDER BY ALL"
    )
    rows = warehouse.execute(f"FROM {STATE} ORDER BY ALL") if warehouse.columns(STATE) else []
    return {"columns": columns, "state": rows}


def test_what_was_made_halfway_is_taken_back(warehouse: Refusing, layouts: Layouts) -> None:
    dimension = [layouts["gold.dim_category"]]
    undo: list[str] = []
    warehouse.refused = "INSERT"
    with pytest.raises(WarehouseError, match="INSERT is denied"):
        warehouse.make(dimension, undo)
    assert warehouse.columns(STATE)
    warehouse.refused = ""
    warehouse.take_back(undo)
    assert content(warehouse) == {"columns": [], "state": []}


def without(layout: Layout, column: str) -> Layout:
    columns = tuple(c for c in layout.columns if c.name != column)
    return dataclasses.replace(layout, columns=columns)


def test_a_new_column_is_taken_back(warehouse: Refusing, layouts: Layouts) -> None:
    """With what was known of the table before: as if nobody had published."""
    users = layouts["gold.dim_users"]
    warehouse.make([without(users, "phone")], [])
    warehouse.execute(f"UPDATE {STATE} SET version = 3, committed = 1000, row_count = 0")
    warehouse.execute(f"UPDATE {STATE} SET published_at = '2026-03-01T10:00:00+00:00'")
    before = content(warehouse)
    undo: list[str] = []
    warehouse.make([users], undo)
    assert "phone" in warehouse.columns("dim_users")
    warehouse.take_back(undo)
    assert content(warehouse) == before
    # Refused itself, the same.
    undo, warehouse.refused = [], "ALTER"
    with pytest.raises(WarehouseError, match="ALTER is denied; publish goes on after `ALTER TABLE"):
        warehouse.make([users], undo)
    warehouse.take_back(undo)
    assert content(warehouse) == before


def test_a_key_of_another_table_of_that_name(warehouse: Refusing, layouts: Layouts) -> None:
    lines = layouts["gold.fact_order_items"]
    warehouse.make([lines], [])
    warehouse.execute("CREATE SCHEMA backup")
    warehouse.execute("CREATE TABLE backup.fact_order_items (id INT PRIMARY KEY)")
    assert warehouse.key_of("fact_order_items") == ["order_id", "line_number"]


def test_what_no_statement_mends_is_made_anew(warehouse: Refusing, layouts: Layouts) -> None:
    """A key that has other columns, or columns of another type."""
    lines = layouts["gold.fact_order_items"]
    target = Target(lines, lines.name, Version(1, 1), True, 0, Content(0, 0, 0), list)
    undo: list[str] = []
    warehouse.make([lines], undo)
    [ddl] = warehouse.execute(
        "SELECT sql FROM duckdb_tables() WHERE table_name = 'fact_order_items'"
    )
    for was, now in (
        ("PRIMARY KEY(order_id, line_number)", "PRIMARY KEY(order_id)"),
        ("line_number INTEGER", "line_number BIGINT"),
    ):
        assert was in ddl[0]
        warehouse.execute("DROP TABLE fact_order_items")
        warehouse.execute(ddl[0].replace(was, now))
        with pytest.raises(
            WarehouseError,
            match=r"makes the table anew after `DROP TABLE IF EXISTS .fact_order_items.`$",
        ):
            warehouse._explain(WarehouseError("would not be"), target)
