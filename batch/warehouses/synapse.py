"""Azure Synapse, a dedicated SQL pool: staged as Parquet in ADLS, taken in by COPY INTO.

It was never run against Azure: its SQL is made from the contracts and read by a parser of T-SQL in
the tests, and the class that runs it is thin. Rules of the dialect are those of Microsoft's pages
on CREATE TABLE, COPY INTO, dynamic data masking and row-level security for Synapse.
"""

from __future__ import annotations

import re
import struct
import threading
from datetime import date
from typing import TYPE_CHECKING, Any

from batch.warehouses.base import (
    DEFAULT_LENGTH,
    DELETED,
    STATE,
    STATE_COLUMNS,
    Warehouse,
    without_values,
)
from lakehouse.contracts import Column
from lakehouse.errors import BusyError, SettingsError, WarehouseError
from lakehouse.layouts import Layout

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.settings import Settings

# Whose rows are seen by whom.
POLICY = "persons"
STAGING, DIMENSIONS, FACTS = "stg", "dim", "fact"
# Text of which lengths are bytes of UTF-8, compared as it is written.
COLLATION = "COLLATE Latin1_General_100_BIN2_UTF8"
BYTES_A_CHARACTER, LONGEST = 4, 8000
TYPES = {
    "bigint": "BIGINT",
    "int": "INT",
    "boolean": "BIT",
    "timestamp": "DATETIME2(6)",
    "date": "DATE",
}
SCOPE = "https://database.windows.net/.default"
# SQL_COPT_SS_ACCESS_TOKEN of Microsoft's ODBC driver.
ACCESS_TOKEN = 1256
# A deadlock, and a lock that took too long.
BUSY = re.compile(r"\b(1205|1222)\b")


class Synapse(Warehouse):
    """Names of tables are those of Gold, by schema: dim or fact. `open` connects."""

    kind = "synapse"
    value = "?"
    begin = "BEGIN TRANSACTION"
    # Of more than two thousand million rows, too.
    count = "COUNT_BIG(*)"

    def __init__(self, settings: Settings) -> None:
        self._settings, self._identity = settings.synapse, settings.identity
        self.where = f"Synapse {self._settings.server}/{self._settings.database}"
        self._connection: Any = None
        self._one = threading.Lock()

    def open(self) -> Synapse:
        """Connects, with a token of Entra ID's. Raises WarehouseError, BrokerError where there is
        no token, and SettingsError without mssql-python."""
        from lakehouse import login

        try:
            import mssql_python
        except ImportError:
            raise SettingsError("Synapse wants mssql-python: pip install mssql-python") from None
        there = self._settings
        if not there.server or not there.staging:
            raise SettingsError("synapse.server and synapse.staging: both are wanted to publish")
        token = login.token(self._identity, SCOPE)[0].encode("utf-16-le")
        try:
            self._connection = mssql_python.connect(
                f"Server={there.server};Database={there.database};"
                "Encrypt=yes;TrustServerCertificate=no",
                autocommit=True,
                attrs_before={ACCESS_TOKEN: struct.pack("<i", len(token)) + token},
            )
        except mssql_python.Error as error:
            raise self._said(error) from None
        return self

    def _said(self, error: Exception) -> WarehouseError:
        text = without_values(str(error).splitlines()[0])
        kind = BusyError if BUSY.search(text) else WarehouseError
        return kind(f"{self.where}: {text}")

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        # Stages are brought side by side, and a connection is for one at a time.
        with self._one:
            return self._execute(statement, *values)

    def _execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        import mssql_python

        cursor = self._connection.cursor()
        try:
            cursor.execute(statement, *values)
            rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
            # Of a second statement in the same text an error is told only where it is asked for.
            while cursor.nextset():
                pass
            return rows
        except mssql_python.Error as error:
            raise self._said(error) from None
        finally:
            cursor.close()

    def quote(self, name: str) -> str:
        return f"[{name}]"

    def table(self, name: str) -> str:
        if name == STATE or name.startswith("headwater_stage_"):
            schema = STAGING
        else:
            schema = DIMENSIONS if name.startswith("dim_") else FACTS
        return f"[{schema}].[{name}]"

    def truth(self, flag: str) -> str:
        return f"{flag} = 1"

    def begin_stage(self, stage: str, layout: Layout) -> None:
        self.drop_stage(stage)
        self.execute(self.create_stage(stage, layout))

    def stage(self, stage: str, rows: DataFrame) -> None:
        from pyspark.sql import functions as F

        place = f"{self._settings.staging.rstrip('/')}/{stage}"
        # INT96, which COPY INTO takes for DATETIME2.
        moments = [name for name, kind in rows.dtypes if kind == "timestamp_ntz"]
        sent = rows.withColumns({name: F.col(name).cast("timestamp") for name in moments})
        rows.sparkSession.conf.set("spark.sql.parquet.outputTimestampType", "INT96")
        sent.write.mode("overwrite").parquet(place)
        self.execute(self.copy_into(stage))

    def drop_stage(self, stage: str) -> None:
        self.execute(self.drop(stage))

    def columns(self, name: str) -> list[str]:
        schema, table = re.findall(r"\[([^]]+)\]", self.table(name))
        rows = self.execute(
            "SELECT COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS "
            "WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            schema,
            table,
        )
        return [str(row[0]) for row in rows]

    def purge(self, names: list[str]) -> None:
        for name in names:
            if self.columns(name):
                self.execute(f"ALTER INDEX ALL ON {self.table(name)} REBUILD")

    def close(self) -> None:
        self._connection.close()

    # What is said to it, from the contracts

    def type_of(self, column: Column) -> str:
        if column.spark_type == "string":
            length = (column.max_length or DEFAULT_LENGTH) * BYTES_A_CHARACTER
            return f"VARCHAR({min(length, LONGEST)}) {COLLATION}"
        return TYPES.get(column.spark_type, column.spark_type.upper())

    def drop(self, name: str) -> str:
        there = self.table(name)
        return f"IF OBJECT_ID('{there}') IS NOT NULL DROP TABLE {there}"

    def dropped(self, name: str) -> list[str]:
        # The policy of persons holds a table fast that it is about.
        there = self.table(name)
        return [
            "IF EXISTS (SELECT 1 FROM sys.security_predicates "
            f"WHERE target_object_id = OBJECT_ID('{there}')) "
            f"ALTER SECURITY POLICY [{STAGING}].[{POLICY}] DROP FILTER PREDICATE ON {there}",
            self.drop(name),
        ]

    def create_state(self) -> str:
        columns = ", ".join(
            f"{self.quote(name)} {kind.removesuffix(' PRIMARY KEY')}"
            for name, kind in STATE_COLUMNS.items()
        )
        return f"CREATE TABLE {self.table(STATE)} ({columns}) WITH (HEAP, DISTRIBUTION = REPLICATE)"

    def create(self, name: str, layout: Layout, *more: str) -> str:
        # Without its primary key: Synapse enforces none, and publish holds keys against Gold's.
        columns = [*(self.definition(column) for column in layout.columns), *more]
        options = ["CLUSTERED COLUMNSTORE INDEX", f"DISTRIBUTION = {self._distribution(layout)}"]
        # Of a table that is everywhere, and has days and hours, Synapse makes no partitions.
        months = (c for c in layout.columns if c.name in layout.partition_by)
        options += [self._partitions(c.name) for c in months if c.spark_type == "date"]
        body = ",\n  ".join(columns)
        return f"CREATE TABLE {self.table(name)} (\n  {body}\n)\nWITH ({', '.join(options)})"

    def definition(self, column: Column) -> str:
        masked = " MASKED WITH (FUNCTION = 'default()')" if column.pii else ""
        null = "NOT NULL" if column.required else "NULL"
        return f"{self.quote(column.name)} {self.type_of(column)}{masked} {null}"

    def _distribution(self, layout: Layout) -> str:
        """Dimensions are everywhere; rows of facts are where those of the same key are."""
        if self.table(layout.name).startswith(f"[{DIMENSIONS}]"):
            return "REPLICATE"
        return f"HASH ({self.quote(layout.primary_key[0])})"

    def _partitions(self, column: str) -> str:
        first = date.fromisoformat(f"{self._settings.first_month}-01")
        months = (
            date(first.year + (first.month - 1 + n) // 12, (first.month - 1 + n) % 12 + 1, 1)
            for n in range(self._settings.months)
        )
        bounds = ", ".join(f"'{month}'" for month in months)
        return f"PARTITION ({self.quote(column)} RANGE RIGHT FOR VALUES ({bounds}))"

    def create_stage(self, stage: str, layout: Layout) -> str:
        columns = [f"{self.quote(c.name)} {self.type_of(c)} NULL" for c in layout.columns]
        body = ",\n  ".join([*columns, f"{self.quote(DELETED)} BIT NOT NULL"])
        # Beside the rows that they are to take the place of.
        spread = f"HASH ({self.quote(layout.primary_key[0])})"
        return (
            f"CREATE TABLE {self.table(stage)} (\n  {body}\n)\nWITH (HEAP, DISTRIBUTION = {spread})"
        )

    def copy_into(self, stage: str) -> str:
        container, _, rest = self._settings.staging.removeprefix("abfss://").partition("@")
        host, _, folder = rest.rstrip("/").partition("/")
        place = "/".join(part for part in (host, container, folder, stage, "*.parquet") if part)
        return (
            f"COPY INTO {self.table(stage)}\nFROM 'https://{place}'\n"
            "WITH (FILE_TYPE = 'PARQUET', CREDENTIAL = (IDENTITY = 'Managed Identity'))"
        )

    def statistics(self, layout: Layout) -> list[str]:
        """Of the keys that tables are joined by, and of the days that they are asked for."""
        wanted = [
            column.name
            for column in layout.columns
            if column.primary_key or column.references or column.name in layout.partition_by
        ]
        return [
            f"CREATE STATISTICS [stats_{layout.name}_{name}] ON {self.table(layout.name)} "
            f"({self.quote(name)})"
            for name in wanted
        ]

    def after_create(self, layout: Layout) -> list[str]:
        """Its statistics; and, where it holds persons, that its rows are for whom the others' are:
        under the policy of the set-up, where there is one."""
        found = self.statistics(layout)
        if any(column.pii for column in layout.columns):
            found.append(
                f"IF EXISTS (SELECT 1 FROM sys.security_policies WHERE name = '{POLICY}') "
                f"ALTER SECURITY POLICY [{STAGING}].[{POLICY}] {self._predicate(layout)}"
            )
        return found

    def upsert(self, target: str, stage: str, columns: list[str], key: list[str]) -> str:
        q = self.quote
        into, of, names = self.table(target), self.table(stage), ", ".join(map(q, columns))
        same = " AND ".join(f"s.{q(name)} = {into}.{q(name)}" for name in key)
        return (
            f"DELETE FROM {into} WHERE EXISTS (SELECT 1 FROM {of} AS s WHERE {same});\n"
            f"INSERT INTO {into} ({names}) SELECT {names} FROM {of} WHERE {q(DELETED)} = 0"
        )

    def text_of(self, column: Column) -> str:
        name = self.quote(column.name)
        if column.spark_type == "timestamp":
            return f"CONVERT(VARCHAR(26), {name}, 121)"
        if column.spark_type == "date":
            return f"CONVERT(VARCHAR(10), {name}, 23)"
        if column.spark_type == "boolean":
            return f"CAST(CAST({name} AS INT) AS VARCHAR(1))"
        if column.spark_type == "string":
            return name
        return f"CAST({name} AS VARCHAR(40))"

    def row_text(self, columns: list[Column]) -> str:
        texts = ", ".join(f"COALESCE({self.text_of(column)}, CHAR(30))" for column in columns)
        # Of one column, too: it takes no fewer than two.
        return f"CONCAT_WS(CHAR(31), {texts})" if len(columns) > 1 else texts

    def hash_of(self, text: str) -> str:
        return f"CONVERT(BIGINT, SUBSTRING(HASHBYTES('MD5', {text}), 1, 4))"

    def set_up(self, layouts: tuple[Layout, ...], readers: str, stewards: str) -> list[str]:
        """All there is to do before the first publish, and it does not do by itself: schemas,
        tables with their statistics, roles, masks and rows by role."""
        found = [
            f"IF SCHEMA_ID('{schema}') IS NULL EXEC('CREATE SCHEMA [{schema}]')"
            for schema in (STAGING, DIMENSIONS, FACTS)
        ]
        found.append(self.create_state())
        for layout in layouts:
            name = self.name_of(layout)
            assert name is not None
            found += [self.create(name, layout), *self.statistics(layout)]
            found.append(f"INSERT INTO {self.table(STATE)} ([table_name]) VALUES ('{name}')")
        return [*found, *self.security(layouts, readers, stewards)]

    def security(self, layouts: tuple[Layout, ...], readers: str, stewards: str) -> list[str]:
        """Readers see masks in place of personal columns; rows of a table that has some are for
        readers, stewards and whoever owns the database (as who publishes does)."""
        who = " OR ".join(
            f"IS_ROLEMEMBER('{role}') = 1" for role in (readers, stewards, "db_owner")
        )
        found = [
            f"IF DATABASE_PRINCIPAL_ID('{role}') IS NULL CREATE ROLE [{role}]"
            for role in (readers, stewards)
        ]
        found += [
            f"GRANT SELECT ON SCHEMA::[{schema}] TO [{role}]"
            for schema in (DIMENSIONS, FACTS)
            for role in (readers, stewards)
        ]
        found.append(f"GRANT UNMASK TO [{stewards}]")
        personal = [o for o in layouts if any(column.pii for column in o.columns)]
        if personal:
            found.append(
                f"CREATE FUNCTION [{STAGING}].[may_see_persons](@key BIGINT) RETURNS TABLE "
                f"WITH SCHEMABINDING AS RETURN SELECT 1 AS [allowed] WHERE {who}"
            )
            rules = ", ".join(map(self._predicate, personal))
            found.append(f"CREATE SECURITY POLICY [{STAGING}].[{POLICY}] {rules} WITH (STATE = ON)")
        return found

    def _predicate(self, layout: Layout) -> str:
        return (
            f"ADD FILTER PREDICATE [{STAGING}].[may_see_persons]"
            f"({self.quote(layout.primary_key[0])}) ON {self.table(layout.name)}"
        )
