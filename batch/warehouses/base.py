"""What every kind of warehouse does: stage, merge in one transaction, be held against Gold.

A warehouse keeps its own state in the table `headwater_publish`, written in the transaction that
brings the rows: which version of which table of Gold it holds. So it is never ahead of that or
behind it, whenever the job dies.
"""

from __future__ import annotations

import re
import time
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
    from collections.abc import Callable

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
# What drivers say of a certificate that they do not trust.
UNTRUSTED = re.compile(
    r"(?i)SSL error|certificat|certpath|signatureexception|identity verification|"
    r"could not be verified"
)
# Values of rows in what databases say: DuckDB, MariaDB and MySQL, PostgreSQL, SQL Server.
VALUES = re.compile(
    r"(?i)(duplicate entry |duplicate key |value: |string |syntax for type [^:]+: |key value is )"
    r"(?:'.*?'|\".*?\"|\(.*?\))(?=$| for | violates | to |[.,;])"
)
# What is said where a value does not fit.
NARROWER = "its table was made for a narrower contract"
TOO_LONG = (
    "a text is longer than the maxLength of its column in the table's contract, which is "
    f"{DEFAULT_LENGTH} where it has none"
)
ANEW = "publish makes it anew after"
# A transaction is tried so often where others are in its way.
ATTEMPTS = 5


def spelled(rows: DataFrame) -> DataFrame:
    """Rows with days and moments as texts. JDBC's own are Java's, which are others before 1582, and
    where the machine's time zone is not UTC."""
    from pyspark.sql import functions as F

    forms = {"timestamp_ntz": "yyyy-MM-dd HH:mm:ss.SSSSSS", "date": "yyyy-MM-dd"}
    return rows.withColumns(
        {name: F.date_format(name, forms[kind]) for name, kind in rows.dtypes if kind in forms}
    )


def without_values(text: str) -> str:
    """What a database said of an error, without the values of rows: these may be personal."""
    return VALUES.sub(r"\1…", text)


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
    """One table to publish. name: in the warehouse. full: the stage holds all rows there are.
    by_column: works out a checksum of each column, as Warehouse.by_column does."""

    layout: Layout
    name: str
    state: Version
    full: bool
    staged: int
    expected: Content
    by_column: Callable[[], list[int]]

    @property
    def stage(self) -> str:
        return f"headwater_stage_{self.name}"


class Warehouse(ABC):
    """An open connection. where: what it is called in messages."""

    kind: str
    where: str
    # How a statement says where a value goes.
    value: str
    # How a transaction begins, and rows are counted.
    begin = "BEGIN"
    count = "count(*)"

    @abstractmethod
    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs one statement. Raises WarehouseError."""

    def storable(self, rows: DataFrame, layout: Layout) -> DataFrame:  # noqa: ARG002
        """Rows of a table as this kind can hold them."""
        return rows

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

    def upsert(self, target: str, stage: str, columns: list[str], key: list[str]) -> str:
        """SQL that inserts the stage's rows, in place of those with the same key."""
        q = self.quote
        names = ", ".join(q(name) for name in columns)
        changes = ", ".join(f"{q(c)} = excluded.{q(c)}" for c in columns if c not in key)
        return (
            f"INSERT INTO {q(target)} ({names}) SELECT {names} FROM {q(stage)} "
            f"WHERE NOT {q(DELETED)} ON CONFLICT ({', '.join(q(k) for k in key)}) "
            f"DO UPDATE SET {changes}"
        )

    def columns(self, name: str) -> list[str]:
        """Names of a table's columns in order; none where there is no such table."""
        return list(self.forms(name))

    def forms(self, name: str) -> dict[str, tuple[str, bool]]:  # noqa: ARG002
        """Of each column of a table, in order, its type as this kind calls it, and whether it may
        be empty; none where that is not looked at."""
        return {}

    def key_of(self, name: str) -> list[str]:  # noqa: ARG002
        """Columns of a table's primary key."""
        return []

    def altered(self, name: str, column: Column, optional: bool) -> list[str]:
        """Statements that give a column the type of its contract. optional: and that it may be
        empty, or not."""
        begin = f"ALTER TABLE {self.table(name)} ALTER COLUMN {self.quote(column.name)}"
        null = f"{begin} {'DROP' if optional else 'SET'} NOT NULL"
        return [f"{begin} TYPE {self.type_of(column)}", null]

    @abstractmethod
    def purge(self, names: list[str]) -> None:
        """Rids the storage of tables of what deleted rows leave behind in it."""

    @abstractmethod
    def close(self) -> None: ...

    def quote(self, name: str) -> str:
        return f'"{name}"'

    def table(self, name: str) -> str:
        """A table's name as it stands in SQL."""
        return self.quote(name)

    def truth(self, flag: str) -> str:
        """SQL for a boolean column that is true."""
        return flag

    def rows_with(self, name: str, columns: list[str], text: str) -> int:
        """Rows of a table that hold a text in one of the columns; none where there is no table."""
        if not columns or not self.columns(name):
            return 0
        wanted = " OR ".join(f"{self.quote(column)} = {self.value}" for column in columns)
        statement = f"SELECT {self.count} FROM {self.table(name)} WHERE {wanted}"
        [row] = self.execute(statement, *[text] * len(columns))
        return int(row[0])

    def name_of(self, layout: Layout) -> str | None:
        """What a table of Gold is called here; None where it is not published to this kind."""
        return layout.published.get(self.kind)

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
            if columns and name not in found:
                raise WarehouseError(
                    f"{self.where}: table {name} is there and is not Headwater's: rename it, or "
                    "publish to another database; nothing was changed"
                )
            if not columns or self._lacking(name, layout, columns):
                # What it lacks is made, and then all rows have to be brought.
                found.pop(name, None)
        return {name: state for name, state in found.items() if state is not None}

    def _lacking(self, name: str, layout: Layout, columns: list[str]) -> list[Column]:
        """Columns that are new in a table's contract, and may be empty. Raises WarehouseError, with
        the statement that is wanted, where the table differs from it in anything else."""
        wanted = {column.name: column for column in layout.columns}
        new = [column for column in layout.columns if column.name not in columns]
        gone = [column for column in columns if column not in wanted]
        table = self.table(name)
        if must := [column.name for column in new if column.required]:
            raise WarehouseError(
                f"{self.where}: table {name} has no column {', '.join(must)}, which its contract "
                f"requires of every row: publish makes the table anew after `{self._gone(name)}`"
            )
        if gone:
            statements = "; ".join(
                f"ALTER TABLE {table} DROP COLUMN {self.quote(one)}" for one in gone
            )
            raise WarehouseError(
                f"{self.where}: table {name} has columns that its contract does not know "
                f"({', '.join(gone)}): put them into the contract, or `{statements}`"
            )
        return new

    def _claims(self) -> dict[str, Version | None]:
        """Every table that is Headwater's, and what it holds: None where it was only just made."""
        rows = self.execute(f"SELECT table_name, version, committed FROM {self.table(STATE)}")
        return {
            str(name): None if version is None else Version(int(version), int(committed))
            for name, version, committed in rows
        }

    def make(self, layouts: list[Layout], undo: list[str]) -> None:
        """Makes the tables that are missing, and columns that tables lack.

        undo: takes the statements that `take_back` takes all of it back with, as far as it came.
        """
        q = self.table
        if not self.columns(STATE):
            self.execute(self.create_state())
            undo.append(self.drop(STATE))
        for layout in layouts:
            name = self.name_of(layout)
            assert name is not None
            columns = self.columns(name)
            lacking = self._lacking(name, layout, columns) if columns else []
            if columns and not lacking:
                continue
            # First the claim, then the table: a death between the two leaves no stranger, and no
            # table whose new columns are taken for brought.
            unclaim = f"DELETE FROM {q(STATE)} WHERE table_name = '{name}'"
            named = f"FROM {q(STATE)} WHERE table_name = '{name}'"
            held = self.execute(f"SELECT {', '.join(STATE_COLUMNS)} {named}")
            self.execute(unclaim)
            undo += [
                f"INSERT INTO {q(STATE)} VALUES ({', '.join(map(_literal, row))})" for row in held
            ]
            self.execute(f"INSERT INTO {q(STATE)} (table_name) VALUES ('{name}')")
            undo.append(unclaim)
            for column in lacking:
                self._add(f"ALTER TABLE {q(name)} ADD {self.definition(column)}")
                undo.append(f"ALTER TABLE {q(name)} DROP COLUMN {self.quote(column.name)}")
            if not columns:
                self.execute(self.create(name, layout))
                undo += reversed(self.dropped(name))
                for statement in self.after_create(layout):
                    self.execute(statement)

    def after_create(self, layout: Layout) -> list[str]:  # noqa: ARG002
        """What a table that was just made still lacks."""
        return []

    def _add(self, statement: str) -> None:
        try:
            self.execute(statement)
        except WarehouseError as error:
            raise WarehouseError(f"{error}; publish goes on after `{statement}`") from None

    def definition(self, column: Column) -> str:
        """A column as it stands in DDL."""
        return f"{self.quote(column.name)} {self.type_of(column)}{' NOT NULL' * column.required}"

    def take_back(self, undo: list[str]) -> None:
        """Takes back what `make` made, and nothing was brought into."""
        for statement in reversed(undo):
            self.execute(statement)

    def alone(self) -> None:  # noqa: B027
        """Keeps others from publishing here while the connection is open. Raises WarehouseError
        where one does. A warehouse that takes one connection at a time has nothing to do."""

    def dropped(self, name: str) -> list[str]:
        """Statements that rid the warehouse of a table."""
        return [self.drop(name)]

    def drop(self, name: str) -> str:
        return f"DROP TABLE IF EXISTS {self.table(name)}"

    def create_state(self) -> str:
        columns = ", ".join(f"{name} {kind}" for name, kind in STATE_COLUMNS.items())
        return f"CREATE TABLE {self.table(STATE)} ({columns})"

    def create(self, name: str, layout: Layout, *more: str) -> str:
        """DDL of a table, from its contract."""
        q = self.quote
        columns = [self.definition(column) for column in layout.columns]
        key = ", ".join(q(column) for column in layout.primary_key)
        body = ", ".join([*columns, *more])
        return f"CREATE TABLE {self.table(name)} ({body}, PRIMARY KEY ({key}))"

    def merge(self, targets: list[Target]) -> dict[str, float]:
        """All stages into their tables, in one transaction, which ends only where all agrees.

        Returns what each took, s. Tried again where another transaction is in the way. Raises
        WarehouseError, with everything as it was.
        """
        from lakehouse.retries import attempts

        taken: dict[str, float] = attempts(ATTEMPTS, BusyError)(self._merge, targets)
        return taken

    def _merge(self, targets: list[Target]) -> dict[str, float]:
        taken = {}
        q, t = self.quote, self.table
        self.execute(self.begin)
        now_at: Target | None = None
        try:
            for target in targets:
                now_at = target
                begun = time.monotonic()
                layout, name, stage = target.layout, t(target.name), t(target.stage)
                if target.full or target.staged:
                    same = " AND ".join(f"s.{q(k)} = {name}.{q(k)}" for k in layout.primary_key)
                    gone = f"SELECT 1 FROM {stage} s WHERE {same}"
                    gone = (
                        f"NOT EXISTS ({gone})"
                        if target.full
                        else f"EXISTS ({gone} AND {self.truth(f's.{q(DELETED)}')})"
                    )
                    self.execute(f"DELETE FROM {name} WHERE {gone}")
                    columns = [column.name for column in layout.columns]
                    self._upsert(target, columns)
                self._agree(target)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                self.execute(f"DELETE FROM {t(STATE)} WHERE table_name = '{target.name}'")
                self.execute(
                    f"INSERT INTO {t(STATE)} VALUES ('{target.name}', {target.state.number}, "
                    f"{target.state.committed}, {target.expected.rows}, '{now}')"
                )
                taken[target.name] = time.monotonic() - begun
        except BaseException as error:
            # A connection that is gone has been rolled back by the other side.
            with suppress(WarehouseError):
                self.execute("ROLLBACK")
            if isinstance(error, WarehouseError) and now_at is not None:
                self._explain(error, now_at)
            raise
        self.execute("COMMIT")
        return taken

    def _explain(self, error: WarehouseError, target: Target) -> None:
        """Raises another error in its place where the table is not as its contract has it: with the
        statement that is wanted."""
        if isinstance(error, BusyError) or ANEW in str(error) or not self.forms(target.name):
            return
        try:
            odd, statements = self._unlike(target)
        except WarehouseError:
            return
        if odd:
            anew = f"makes the table anew after `{self._gone(target.name)}`"
            mend = f"goes on after `{'; '.join(statements)}`, or, where that is refused, {anew}"
            raise WarehouseError(
                f"{self.where}: table {target.name} is not as its contract has it "
                f"({', '.join(odd)}), and would not be {target.layout.full_name}: it was left as "
                f"it is; `headwater publish --full` {mend if statements else anew}"
            ) from None

    def _gone(self, name: str) -> str:
        return "; ".join(self.dropped(name))

    def _unlike(self, target: Target) -> tuple[list[str], list[str]]:
        """What differs from a table that is made from the contract now; statements that mend it:
        none where there are no sure ones, of a key with other columns, or of another type."""
        name, layout = target.name, target.layout
        sample = f"headwater_stage_form_{name}"
        self.execute(self.drop(sample))
        try:
            self.execute(self.create(sample, layout))
            wanted, key = self.forms(sample), self.key_of(sample)
        finally:
            self.execute(self.drop(sample))
        found, odd = self.forms(name), []
        statements: list[str] = []
        sure = True
        for column in layout.columns:
            was, should = found.get(column.name), wanted.get(column.name)
            if was is None or should is None or was == should:
                continue
            words = [f"{kind}{'' if optional else ' NOT NULL'}" for kind, optional in (was, should)]
            odd.append(f"{column.name} is {words[0]} for {words[1]}")
            statements += self.altered(name, column, should[1])
            sure = sure and not column.primary_key
        if key and (was_key := self.key_of(name)) != key:
            odd.append(f"its primary key is {', '.join(was_key) or 'gone'}")
            sure = False
        return odd, statements if sure else []

    def _upsert(self, target: Target, columns: list[str]) -> None:
        key = list(target.layout.primary_key)
        try:
            self.execute(self.upsert(target.name, target.stage, columns, key))
        except WarehouseError as error:
            if NARROWER not in str(error):
                raise
            raise WarehouseError(f"{error}: {ANEW} `{self._gone(target.name)}`") from None

    def content(self, name: str, layout: Layout) -> Content:
        """What a table holds."""
        keys = [column for column in layout.columns if column.primary_key]
        return Content(*self._checksums(name, [keys, list(layout.columns)]))

    def by_column(self, name: str, layout: Layout) -> list[int]:
        """The checksum of each column of a table."""
        return self._checksums(name, [[column] for column in layout.columns])[1:]

    def _checksums(self, name: str, parts: list[list[Column]]) -> list[int]:
        """The number of rows, and of each part of their columns the sum of a hash."""
        sums = [f"coalesce(sum({self.hash_of(self.row_text(part))}), 0)" for part in parts]
        [row] = self.execute(f"SELECT {self.count}, {', '.join(sums)} FROM {self.table(name)}")
        return [int(value) for value in row]

    def row_text(self, columns: list[Column]) -> str:
        """SQL for the canonical texts of a row's values, one after the other."""
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
        if found.keys == wanted.keys:
            sums = zip(self.by_column(target.name, target.layout), target.by_column(), strict=True)
            columns = zip(target.layout.columns, sums, strict=True)
            unlike = [column.name for column, (mine, theirs) in columns if mine != theirs]
            what[-1] += f" in {', '.join(unlike)}"
        raise WarehouseError(
            f"{self.where}: table {target.name} would not be {target.layout.full_name} at version "
            f"{target.state.number} ({', '.join(what)}): something else changed it; it was left "
            "as it is; `headwater publish --full` copies all of it anew"
        )


def _literal(value: Any) -> str:
    """A number or a text of Headwater's own, as it stands in SQL."""
    if value is None:
        return "NULL"
    return f"'{value}'" if isinstance(value, str) else str(value)
