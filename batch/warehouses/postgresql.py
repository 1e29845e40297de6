"""PostgreSQL: staged by JDBC into a table of its own, merged by one upsert by primary key."""

from __future__ import annotations

import ssl
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.warehouses.base import (
    DEFAULT_LENGTH,
    DELETED,
    NARROWER,
    TOO_LONG,
    UNTRUSTED,
    Warehouse,
    spelled,
    without_values,
)
from lakehouse.contracts import Column
from lakehouse.errors import BusyError, WarehouseError, reason
from lakehouse.layouts import Layout
from lakehouse.settings import PostgreSQL as PostgreSQLSettings
from lakehouse.settings import resolve_secret

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TYPES = {"int": "INTEGER", "timestamp": "TIMESTAMP(6)"}
WAIT_SECONDS = 10
LOCK_SECONDS = 50
# A deadlock, a transaction that cannot be put in order with another, a lock that took too long.
BUSY = {"40P01", "40001", "55P03"}
# What a contract has outgrown: a longer text, a larger number.
NARROW = {"22001", "22003"}
DENIED = "42501"
# Tables of the schema that Headwater's are made in, whose name may have capitals.
HERE = "relnamespace = quote_ident(current_schema())::regnamespace"
BATCH_ROWS = 10_000
# The one character that a text of PostgreSQL cannot have, and what stands in its place there.
NUL, REPLACEMENT = "\x00", "\ufffd"
# Where systems keep the authorities that they trust: the client's own build looks elsewhere.
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class PostgreSQL(Warehouse):
    """settings: where it is, and as whom. Tables are those of the user's current schema."""

    kind = "postgresql"
    value = "%s"

    def __init__(self, settings: PostgreSQLSettings) -> None:
        import psycopg

        self._settings = settings
        self.where = f"PostgreSQL {settings.host}:{settings.port}/{settings.database}"
        try:
            self._connection = psycopg.connect(
                host=settings.host,
                port=settings.port,
                user=settings.user,
                password=self._password(),
                dbname=settings.database,
                autocommit=True,
                connect_timeout=WAIT_SECONDS,
                client_encoding="utf8",
                options=f"-c lock_timeout={LOCK_SECONDS}s -c datestyle=ISO -c timezone=UTC",
                sslmode="verify-full" if settings.verified else "prefer",
                sslrootcert=(settings.ssl_ca or _authorities()) if settings.verified else None,
            )
        except psycopg.Error as error:
            raise self._said(error) from None

    def _password(self) -> str:
        reference = self._settings.password
        return resolve_secret(reference) if reference else ""

    def _said(self, error: Any) -> WarehouseError:
        # Where it tried more than one address, it says so of each.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = without_values(lines[0]) if lines else "the connection is lost"
        state = error.sqlstate
        if state in BUSY:
            return BusyError(f"{self.where}: {text}")
        lost = state is None or state.startswith(("08", "57P"))
        if lost and "authentication" not in text and "SSL" not in text:
            text += "; is it running, and are HEADWATER_POSTGRESQL__HOST and __PORT right?"
        return self._refused(text, state)

    def _refused(self, text: str, state: str | None, unfit: str = NARROWER) -> WarehouseError:
        """unfit: what is said where a value does not fit."""
        if state in NARROW:
            text += f"; {unfit}"
        if UNTRUSTED.search(text):
            text += (
                "; is its certificate for this host, and from an authority of postgresql.ssl_ca, "
                "or of the system's where that is empty?"
            )
        if "does not support SSL" in text:
            text += "; postgresql.ssl_mode `prefer` goes without TLS: is the network your own?"
        if state == DENIED:
            text += (
                f"; user {self._settings.user} needs USAGE and CREATE on the schema, and has to "
                "own Headwater's tables in it"
            )
        return WarehouseError(f"{self.where}: {text}")

    def alone(self) -> None:
        # Locks are of a database, by a number; it is given back where the connection ends.
        number = int(sha256(b"headwater").hexdigest()[:15], 16)
        [row] = self.execute(f"SELECT pg_try_advisory_lock({number})")
        if not row[0]:
            raise WarehouseError(
                f"{self.where}: another `headwater publish` is at work there: let it end first"
            )

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        import psycopg

        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement.encode(), values or None)
                return list(cursor.fetchall()) if cursor.description else []
        except psycopg.Error as error:
            raise self._said(error) from None

    def storable(self, rows: DataFrame, layout: Layout) -> DataFrame:
        from pyspark.sql import functions as F

        texts = [column.name for column in layout.columns if column.spark_type == "string"]
        without = {name: F.translate(name, NUL, REPLACEMENT) for name in texts}
        return rows.withColumns(without)

    def begin_stage(self, stage: str, layout: Layout) -> None:
        self.drop_stage(stage)
        columns = ", ".join(f"{self.quote(c.name)} {self.type_of(c)}" for c in layout.columns)
        key = ", ".join(self.quote(name) for name in layout.primary_key)
        # Nothing of it is worth keeping over a crash: half of what writing it costs.
        self.execute(
            f"CREATE UNLOGGED TABLE {self.quote(stage)} ({columns}, "
            f"{self.quote(DELETED)} BOOLEAN NOT NULL, PRIMARY KEY ({key}))"
        )

    def stage(self, stage: str, rows: DataFrame) -> None:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException

        s = self._settings
        tls = "sslmode=prefer"
        if s.verified:
            trusted = "sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory"
            if s.ssl_ca:
                trusted = f"sslrootcert={Path(s.ssl_ca).resolve()}"
            tls = f"sslmode=verify-full&{trusted}"
        url = (
            f"jdbc:postgresql://{s.host}:{s.port}/{s.database}?reWriteBatchedInserts=true"
            # Of texts it is left to the columns what they are.
            f"&loginTimeout={WAIT_SECONDS}&stringtype=unspecified&{tls}"
        )
        writer = spelled(rows).write.format("jdbc").mode("append").option("url", url)
        writer = writer.option("driver", "org.postgresql.Driver")
        writer = writer.option("dbtable", self.quote(stage))
        writer = writer.option("user", s.user).option("password", self._password())
        try:
            writer.option("batchsize", BATCH_ROWS).save()
        except (Py4JJavaError, PySparkException) as error:
            said = reason(str(error))
            state = "22001" if "value too long" in said else None
            raise self._refused(f"table {stage}: {said}", state, TOO_LONG) from None

    def drop_stage(self, stage: str) -> None:
        self.execute(self.drop(stage))

    def type_of(self, column: Column) -> str:
        if column.spark_type == "string":
            return f"VARCHAR({column.max_length or DEFAULT_LENGTH})"
        return TYPES.get(column.spark_type, column.spark_type.upper())

    def text_of(self, column: Column) -> str:
        name = self.quote(column.name)
        if column.spark_type == "timestamp":
            return f"to_char({name}, 'YYYY-MM-DD HH24:MI:SS.US')"
        if column.spark_type == "boolean":
            return f"{name}::int::text"
        return f"{name}::text"

    def hash_of(self, text: str) -> str:
        return f"('x' || left(md5({text}), 8))::bit(32)::bigint"

    def forms(self, name: str) -> dict[str, tuple[str, bool]]:
        # information_schema knows nothing of tables that the user has no right to.
        rows = self.execute(
            "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull "
            "FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class c ON c.oid = attrelid "
            f"WHERE {HERE} AND relname = %s "
            "AND relkind IN ('r', 'p', 'v', 'm', 'f') AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum",
            name,
        )
        return {str(column): (str(kind), bool(null)) for column, kind, null in rows}

    def key_of(self, name: str) -> list[str]:
        rows = self.execute(
            "SELECT attname FROM pg_catalog.pg_constraint JOIN pg_catalog.pg_class c "
            "ON c.oid = conrelid JOIN pg_catalog.pg_attribute a "
            "ON a.attrelid = conrelid AND attnum = ANY (conkey) "
            f"WHERE {HERE} AND relname = %s "
            "AND contype = 'p' ORDER BY array_position(conkey, attnum)",
            name,
        )
        return [str(row[0]) for row in rows]

    def altered(self, name: str, column: Column, optional: bool) -> list[str]:
        # Of a text it makes nothing else by itself.
        kind, null = super().altered(name, column, optional)
        return [f"{kind} USING {self.quote(column.name)}::{self.type_of(column)}", null]

    def purge(self, names: list[str]) -> None:
        for name in names:
            if self.columns(name):
                # Its rows are written to a file of their own.
                self.execute(f"VACUUM FULL {self.quote(name)}")

    def close(self) -> None:
        self._connection.close()


def _authorities() -> str:
    """A file of the authorities that this system trusts; libpq's own word for them if none is."""
    named = ssl.get_default_verify_paths().cafile
    found = [path for path in (named, *AUTHORITIES) if path and Path(path).is_file()]
    return found[0] if found else "system"
