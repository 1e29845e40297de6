"""What every kind of warehouse does: stage, merge in one transaction, be held against Gold.

A warehouse keeps its own state in the table `headwater_publish`, written in the transaction that
brings the rows: which version of which table of Gold it holds. So it is never ahead of that or
behind it, whenever the job dies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakehouse.contracts import Column
from lakehouse.errors import BusyError, WarehouseError
from lakehouse.layouts import Layout
from lakehouse.tables import Version

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

STATE = "headwater_publish"
STATE_COLUMNS = {
    "table_name": "VARCHAR(64) NOT NULL PRIMARY KEY",
    "version": "BIGINT",
    "committed": "BIGINT",
    "row_count": "BIGINT",
    "published_at": "VARCHAR(32)",
}
DELETED = "_deleted"
# Between the canonical texts of a row's values, and in place of a null; no value holds them.
BETWEEN, NOTHING = "\x1f", "\x1e"
DEFAULT_LENGTH = 255
# A transaction is tried so often where others are in its way.
ATTEMPTS = 5


@dataclass(frozen=True)
class Content:
    """What is compared: rows, and sums over the rows of a hash of the key, and of all columns.

    The hash of a row is the first 32 bits of the MD5 of its values' canonical texts.
    """

    rows: int
    keys: int
    checksum: int


@dataclass(frozen=True)
class Target:
    """One table to publish. name: in the warehouse. full: the stage holds all rows there are."""

    layout: Layout
    name: str
    state: Version
    full: bool
    staged: int
    expected: Content

    @property
    def stage(self) -> str:
        return f"headwater_stage_{self.name}"


class Warehouse(ABC):
    """An open connection. where: what it is called in messages."""

    kind: str
    where: str
    # How a statement says where a value goes.
    value: str

    @abstractmethod
    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs one statement. Raises WarehouseError."""

    @abstractmethod
    def begin_stage(self, stage: str, layout: Layout) -> None:
        """An empty stage for a table: its columns, and DELETED."""

    @abstractmethod
    def stage(self, stage: str, rows: DataFrame) -> None:
        """Rows into the stage, by Spark's tasks side by side."""

    @abstractmethod
    def drop_stage(self, stage: str) -> None: ...

    @abstractmethod
    def type_of(self, column: Column) -> str: ...

    @abstractmethod
    def text_of(self, column: Column) -> str:
        """SQL for the canonical text of a column's values that are not null."""

    @abstractmethod
    def hash_of(self, text: str) -> str:
        """SQL for the first 32 bits of the MD5 of a text, as a number."""

    @abstractmethod
    def upsert(self, target: str, stage: str, columns: list[str], key: list[str]) -> str:
        """SQL that inserts the stage's rows, in place of those with the same key."""

    @abstractmethod
    def columns(self, name: str) -> list[str]:
        """Names of a table's columns in order; none where there is no such table."""

    @abstractmethod
    def purge(self, names: list[str]) -> None:
        """Rids the storage of tables of what deleted rows leave behind in it."""

    @abstractmethod
    def close(self) -> None: ...

    def quote(self, name: str) -> str:
        return f'"{name}"'

    def rows_with(self, name: str, columns: list[str], text: str) -> int:
        """Rows of a table that hold a text in one of the columns; none where there is no table."""
        if not columns or not self.columns(name):
            return 0
        wanted = " OR ".join(f"{self.quote(column)} = {self.value}" for column in columns)
        statement = f"SELECT count(*) FROM {self.quote(name)} WHERE {wanted}"
        [row] = self.execute(statement, *[text] * len(columns))
        return int(row[0])

    def name_of(self, layout: Layout) -> str | None:
        """What a table of Gold is called here; None where it is not published to this kind."""
        return layout.warehouse.get(self.kind)

    def states(self, layouts: list[Layout]) -> dict[str, Version]:
        """What is held, by name. Nothing is changed.

        Raises WarehouseError where a table of such a name is not Headwater's.
        """
        there = self.columns(STATE)
        if there and there != list(STATE_COLUMNS):
            raise WarehouseError(
                f"{self.where}: table {STATE} is there and is not Headwater's: rename it, or "
                "publish to another database; nothing was changed"
            )
        found = self._claims() if there else {}
        for layout in layouts:
            name = self.name_of(layout)
            assert name is not None
            columns = self.columns(name)
            wanted = [column.name for column in layout.columns]
            if columns and name not in found:
                raise WarehouseError(
                    f"{self.where}: table {name} is there and is not Headwater's: rename it, or "
                    "publish to another database; nothing was changed"
                )
            if columns and columns != wanted:
                raise WarehouseError(
                    f"{self.where}: table {name} has columns {', '.join(columns)}, its contract "
                    f"says {', '.join(wanted)}: drop it, and publish makes it anew"
                )
            if not columns:
                found.pop(name, None)
        return {name: state for name, state in found.items() if state is not None}

    def _claims(self) -> dict[str, Version | None]:
        """Every table that is Headwater's, and what it holds: None where it was only just made."""
        rows = self.execute(f"SELECT table_name, version, committed FROM {self.quote(STATE)}")
        return {
            str(name): None if version is None else Version(int(version), int(committed))
            for name, version, committed in rows
        }

    def make(self, layouts: list[Layout]) -> list[str]:
        """Makes the tables that are missing; returns their names, for `unmake`."""
        q = self.quote
        made = []
        if not self.columns(STATE):
            columns = ", ".join(f"{name} {kind}" for name, kind in STATE_COLUMNS.items())
            self.execute(f"CREATE TABLE {q(STATE)} ({columns})")
            made.append(STATE)
        for layout in layouts:
            name = self.name_of(layout)
            assert name is not None
            if self.columns(name):
                continue
            # First the claim, then the table: a death between the two leaves no stranger.
            self.execute(f"DELETE FROM {q(STATE)} WHERE table_name = '{name}'")
            self.execute(f"INSERT INTO {q(STATE)} (table_name) VALUES ('{name}')")
            made.append(name)
            self.execute(self.create(name, layout))
        return made

    def unmake(self, names: list[str]) -> None:
        """Drops tables that this run made, and nothing was brought into."""
        q = self.quote
        for name in reversed(names):
            self.execute(f"DROP TABLE IF EXISTS {q(name)}")
            if name != STATE:
                self.execute(f"DELETE FROM {q(STATE)} WHERE table_name = '{name}'")

    def alone(self) -> None:  # noqa: B027
        """Keeps others from publishing here while the connection is open. Raises WarehouseError
        where one does. A warehouse that takes one connection at a time has nothing to do."""

    def create(self, name: str, layout: Layout, *more: str) -> str:
        """DDL of a table, from its contract."""
        q = self.quote
        columns = [
            f"{q(c.name)} {self.type_of(c)}{' NOT NULL' if c.required else ''}"
            for c in layout.columns
        ]
        key = ", ".join(q(column) for column in layout.primary_key)
        return f"CREATE TABLE {q(name)} ({', '.join([*columns, *more])}, PRIMARY KEY ({key}))"

    def merge(self, targets: list[Target]) -> None:
        """All stages into their tables, in one transaction, which ends only where all agrees.

        Tried again where another transaction is in the way. Raises WarehouseError, with everything
        as it was.
        """
        from lakehouse.retries import attempts

        attempts(ATTEMPTS, BusyError)(self._merge, targets)

    def _merge(self, targets: list[Target]) -> None:
        q = self.quote
        self.execute("BEGIN")
        try:
            for target in targets:
                layout, name, stage = target.layout, q(target.name), q(target.stage)
                if target.full or target.staged:
                    same = " AND ".join(f"s.{q(k)} = {name}.{q(k)}" for k in layout.primary_key)
                    gone = f"SELECT 1 FROM {stage} s WHERE {same}"
                    gone = (
                        f"NOT EXISTS ({gone})"
                        if target.full
                        else f"EXISTS ({gone} AND s.{q(DELETED)})"
                    )
                    self.execute(f"DELETE FROM {name} WHERE {gone}")
                    columns = [column.name for column in layout.columns]
                    self.execute(
                        self.upsert(target.name, target.stage, columns, list(layout.primary_key))
                    )
                self._agree(target)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                self.execute(f"DELETE FROM {q(STATE)} WHERE table_name = '{target.name}'")
                self.execute(
                    f"INSERT INTO {q(STATE)} VALUES ('{target.name}', {target.state.number}, "
                    f"{target.state.committed}, {target.expected.rows}, '{now}')"
                )
        except BaseException:
            # A connection that is gone has been rolled back by the other side.
            with suppress(WarehouseError):
                self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def content(self, name: str, layout: Layout) -> Content:
        """What a table holds."""
        keys = [column for column in layout.columns if column.primary_key]
        sums = [
            f"coalesce(sum({self.hash_of(self._row_text(columns))}), 0)"
            for columns in (keys, list(layout.columns))
        ]
        [row] = self.execute(f"SELECT count(*), {', '.join(sums)} FROM {self.quote(name)}")
        return Content(*(int(value) for value in row))

    def _row_text(self, columns: list[Column]) -> str:
        texts = [f"coalesce({self.text_of(column)}, '{NOTHING}')" for column in columns]
        return f"concat_ws('{BETWEEN}', {', '.join(texts)})"

    def _agree(self, target: Target) -> None:
        found, wanted = self.content(target.name, target.layout), target.expected
        if found == wanted:
            return
        what = [
            word
            for word, mine, theirs in (
                (f"{found.rows:,} rows for {wanted.rows:,}", found.rows, wanted.rows),
                ("other keys", found.keys, wanted.keys),
                ("other values", found.checksum, wanted.checksum),
            )
            if mine != theirs
        ]
        raise WarehouseError(
            f"{self.where}: table {target.name} would not be {target.layout.full_name} at version "
            f"{target.state.number} ({', '.join(what)}): something else changed it; it was left "
            "as it is; `headwater publish --full` copies all of it anew"
        )
