"""DuckDB: a file beside the tables, the warehouse of a laptop. It has every table of Gold."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.warehouses.base import Warehouse, without_values
from lakehouse.contracts import Column
from lakehouse.errors import WarehouseError
from lakehouse.layouts import Layout

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TYPES = {"string": "VARCHAR", "int": "INTEGER", "timestamp": "TIMESTAMP"}


class DuckDB(Warehouse):
    """Stages are Parquet files that Spark writes and DuckDB reads in its transaction."""

    kind = "duckdb"
    value = "?"

    def __init__(self, path: Path, staging: Path) -> None:
        self.where = f"DuckDB {path}"
        # A link stays one: what is written anew is the file that it leads to.
        self._path, self._staging = path.resolve(), staging
        # Stages are filled side by side, and a connection is for one at a time.
        self._one = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = self._open()

    def _open(self) -> Any:
        import duckdb

        there = self._path.exists()
        try:
            return duckdb.connect(str(self._path))
        except duckdb.Error as error:
            if not there:
                # On a full disk, half of a file is left, which no later run could open.
                self._path.unlink(missing_ok=True)
            said = str(error).splitlines()[0]
            raise WarehouseError(f"{self.where} cannot be opened: {said}") from None

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        import duckdb

        try:
            with self._one:
                found: list[tuple[Any, ...]] = self._connection.execute(
                    statement, values or None
                ).fetchall()
                return found
        except duckdb.Error as error:
            said = without_values(str(error).splitlines()[0])
            raise WarehouseError(f"{self.where}: {said}") from None

    def begin_stage(self, stage: str, layout: Layout) -> None:  # noqa: ARG002
        self.drop_stage(stage)

    def stage(self, stage: str, rows: DataFrame) -> None:
        folder = self._staging / stage
        rows.write.mode("overwrite").parquet(str(folder))
        files = _text(f"{folder}/*.parquet")
        self.execute(f"CREATE TEMP VIEW {self.quote(stage)} AS FROM read_parquet({files})")

    def drop_stage(self, stage: str) -> None:
        self.execute(f"DROP VIEW IF EXISTS {self.quote(stage)}")
        shutil.rmtree(self._staging / stage, ignore_errors=True)

    def type_of(self, column: Column) -> str:
        return TYPES.get(column.spark_type, column.spark_type.upper())

    def text_of(self, column: Column) -> str:
        name = self.quote(column.name)
        if column.spark_type == "timestamp":
            return f"strftime({name}, '%Y-%m-%d %H:%M:%S.%f')"
        if column.spark_type == "boolean":
            return f"CASE {name} WHEN true THEN '1' WHEN false THEN '0' END"
        return f"CAST({name} AS VARCHAR)"

    def hash_of(self, text: str) -> str:
        return f"('0x' || substr(md5({text}), 1, 8))::BIGINT"

    def forms(self, name: str) -> dict[str, tuple[str, bool]]:
        rows = self.execute(
            "SELECT column_name, data_type, is_nullable = 'YES' FROM information_schema.columns "
            # Its names are the same in any case.
            "WHERE table_schema = 'main' AND lower(table_name) = lower(?) "
            "AND table_catalog = current_database() ORDER BY ordinal_position",
            name,
        )
        return {str(column): (str(kind), bool(null)) for column, kind, null in rows}

    def key_of(self, name: str) -> list[str]:
        rows = self.execute(
            "SELECT unnest(constraint_column_names) FROM duckdb_constraints() "
            "WHERE constraint_type = 'PRIMARY KEY' AND lower(table_name) = lower(?) "
            "AND schema_name = 'main' AND database_name = current_database()",
            name,
        )
        return [str(row[0]) for row in rows]

    def purge(self, names: list[str]) -> None:  # noqa: ARG002
        # Blocks of rows that are gone stay in the file: it is written anew, whole.
        fresh = self._path.with_name(f"{self._path.name}.fresh")
        fresh.unlink(missing_ok=True)
        [[database]] = self.execute("SELECT current_database()")
        self.execute(f"ATTACH {_text(str(fresh))} AS headwater_fresh")
        self.execute(f"COPY FROM DATABASE {self.quote(str(database))} TO headwater_fresh")
        self.execute("DETACH headwater_fresh")
        self.close()
        shutil.copymode(self._path, fresh)
        fresh.replace(self._path)
        self._connection = self._open()

    def close(self) -> None:
        self._connection.close()


def _text(value: str) -> str:
    """A string literal as DuckDB reads it."""
    return "'{}'".format(value.replace("'", "''"))
