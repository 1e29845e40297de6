"""MySQL, and MariaDB: staged by JDBC, merged by one upsert by primary key."""

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
from lakehouse.errors import BusyError, SettingsError, WarehouseError, reason
from lakehouse.layouts import Layout
from lakehouse.settings import MySQL as MySQLSettings
from lakehouse.settings import resolve_secret

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TYPES = {"int": "INT", "timestamp": "DATETIME(6)", "boolean": "BOOLEAN"}
# Compared as it is written: MySQL's own default takes 'a' and 'A', 'é' and 'e' for the same. Blanks
# at the end still make no other key: the collations in which they do differ by server.
TABLE_OPTIONS = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
WAIT_SECONDS = 10
# The client's own numbers for a server that does not answer, or not any more.
AWAY = {0, 2003, 2006, 2013}
# A wait for a lock that took too long, and a deadlock.
BUSY = {1205, 1213}
BATCH_ROWS = 10_000
# A store of certificates, which are no secret, has to have a password all the same.
STORE = "certificates"


class MySQL(Warehouse):
    """settings: where it is, and as whom. runtime: a folder for what its clients want as files."""

    kind = "mysql"
    value = "%s"

    def __init__(self, settings: MySQLSettings, runtime: Path) -> None:
        import pymysql

        self._settings, self._runtime = settings, runtime
        self.where = f"MySQL {settings.host}:{settings.port}/{settings.database}"
        try:
            self._connection = pymysql.connect(
                host=settings.host,
                port=settings.port,
                user=settings.user,
                password=self._password(),
                database=settings.database,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=WAIT_SECONDS,
                # Its own default is to wait for a day, or a year, until others have ended what they
                # read of a table that is to be altered.
                init_command=f"SET SESSION lock_wait_timeout = {WAIT_SECONDS}",
                ssl=self._trusted() if settings.verified else None,
            )
        except pymysql.MySQLError as error:
            raise self._said(error) from None
        except OSError as error:
            raise SettingsError(
                f"mysql.ssl_ca: {settings.ssl_ca} cannot be read as certificates (PEM): {error}"
            ) from None

    def _trusted(self) -> ssl.SSLContext:
        """As ssl.create_default_context makes it: both the chain and the host's name count."""
        context = ssl.create_default_context(cafile=self._settings.ssl_ca or None)
        # Python 3.13 has it on, which servers' own authorities do not pass.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def _password(self) -> str:
        reference = self._settings.password
        return resolve_secret(reference) if reference else ""

    def _said(self, error: Exception) -> WarehouseError:
        number = error.args[0] if error.args else None
        # Once a connection is lost, the client says nothing at all.
        text = str(error.args[-1] if error.args else error) or "the connection is lost"
        text = without_values(text.splitlines()[0])
        if number in BUSY:
            return BusyError(f"{self.where}: {text}")
        if number in AWAY and not UNTRUSTED.search(text):
            text += "; is it running, and are HEADWATER_MYSQL__HOST and __PORT right?"
        return self._refused(text)

    def alone(self) -> None:
        # Names of locks are the whole server's, and of 64 characters at most.
        name = sha256(f"headwater {self._settings.database}".encode()).hexdigest()
        [row] = self.execute(f"SELECT GET_LOCK('{name}', 0)")
        if row[0] != 1:
            raise WarehouseError(
                f"{self.where}: another `headwater publish` is at work there: let it end first"
            )

    def _refused(self, text: str, unfit: str = NARROWER) -> WarehouseError:
        """unfit: what is said where a value does not fit."""
        if "Data too long" in text or "Out of range" in text:
            text += f"; {unfit}"
        if UNTRUSTED.search(text):
            text += (
                "; is its certificate for this host, and from an authority of mysql.ssl_ca, or of "
                "the system's where that is empty?"
            )
        if "SSL is required" in text:
            text += "; mysql.ssl_mode `preferred` goes without TLS: is the network your own?"
        if "denied" in text:
            needs = "CREATE, ALTER, DROP, SELECT, INSERT, UPDATE and DELETE"
            text += f"; user {self._settings.user} needs {needs} there"
        return WarehouseError(f"{self.where}: {text}")

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        import pymysql

        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return list(cursor.fetchall())
        except pymysql.MySQLError as error:
            raise self._said(error) from None

    def begin_stage(self, stage: str, layout: Layout) -> None:
        self.drop_stage(stage)
        flag = f"{self.quote(DELETED)} BOOLEAN NOT NULL"
        # Of a row that is gone there is only the key.
        self.execute(self.create(stage, layout, flag).replace(" NOT NULL", ""))

    def stage(self, stage: str, rows: DataFrame) -> None:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException

        s = self._settings
        tls = "sslMode=PREFERRED&allowPublicKeyRetrieval=true"
        if s.verified:
            tls = "sslMode=VERIFY_IDENTITY"
        if s.ssl_ca:
            tls += (
                f"&trustCertificateKeyStoreUrl={self._trust_store(rows.sparkSession).as_uri()}"
                f"&trustCertificateKeyStoreType=PKCS12&trustCertificateKeyStorePassword={STORE}"
            )
        url = (
            f"jdbc:mysql://{s.host}:{s.port}/{s.database}?rewriteBatchedStatements=true"
            f"&characterEncoding=UTF-8&{tls}"
        )
        writer = spelled(rows).write.format("jdbc").mode("append").option("url", url)
        writer = writer.option("driver", "com.mysql.cj.jdbc.Driver").option("dbtable", stage)
        writer = writer.option("user", s.user).option("password", self._password())
        try:
            writer.option("batchsize", BATCH_ROWS).save()
        except (Py4JJavaError, PySparkException) as error:
            raise self._refused(f"table {stage}: {reason(str(error))}", TOO_LONG) from None

    def _trust_store(self, spark: SparkSession) -> Path:
        """The certificates of `ssl_ca` as the JDBC driver takes them, in a file of the runtime
        folder, which every executor has to see."""
        context: Any = spark.sparkContext
        java = context._jvm.java
        bytes_of = java.io.ByteArrayInputStream(Path(self._settings.ssl_ca).read_bytes())
        factory = java.security.cert.CertificateFactory.getInstance("X.509")
        store = java.security.KeyStore.getInstance("PKCS12")
        gateway = context._gateway
        word = gateway.new_array(gateway.jvm.char, len(STORE))
        for place, sign in enumerate(STORE):
            word[place] = sign
        store.load(None, word)
        for number, certificate in enumerate(factory.generateCertificates(bytes_of)):
            store.setCertificateEntry(f"ca-{number}", certificate)
        path = self._runtime.resolve() / "mysql-ca.p12"
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = java.io.FileOutputStream(str(path))
        try:
            store.store(stream, word)
        finally:
            stream.close()
        return path

    def drop_stage(self, stage: str) -> None:
        self.execute(self.drop(stage))

    def create_state(self) -> str:
        return f"{super().create_state()} {TABLE_OPTIONS}"

    def create(self, name: str, layout: Layout, *more: str) -> str:
        return f"{super().create(name, layout, *more)} {TABLE_OPTIONS}"

    def quote(self, name: str) -> str:
        return f"`{name}`"

    def type_of(self, column: Column) -> str:
        if column.spark_type == "string":
            return f"VARCHAR({column.max_length or DEFAULT_LENGTH})"
        return TYPES.get(column.spark_type, column.spark_type.upper())

    def text_of(self, column: Column) -> str:
        name = self.quote(column.name)
        if column.spark_type == "timestamp":
            return f"date_format({name}, '%Y-%m-%d %H:%i:%s.%f')"
        return f"CAST({name} AS CHAR)"

    def hash_of(self, text: str) -> str:
        return f"CAST(conv(left(md5({text}), 8), 16, 10) AS UNSIGNED)"

    def upsert(self, target: str, stage: str, columns: list[str], key: list[str]) -> str:
        q = self.quote
        names = ", ".join(q(name) for name in columns)
        changes = ", ".join(f"{q(c)} = VALUES({q(c)})" for c in columns if c not in key)
        return (
            f"INSERT INTO {q(target)} ({names}) SELECT {names} FROM {q(stage)} "
            f"WHERE NOT {q(DELETED)} ON DUPLICATE KEY UPDATE {changes}"
        )

    def forms(self, name: str) -> dict[str, tuple[str, bool]]:
        rows = self.execute(
            "SELECT column_name, column_type, is_nullable = 'YES' FROM information_schema.columns "
            "WHERE table_schema = database() AND table_name = %s ORDER BY ordinal_position",
            name,
        )
        return {str(column): (str(kind), bool(null)) for column, kind, null in rows}

    def key_of(self, name: str) -> list[str]:
        rows = self.execute(
            "SELECT column_name FROM information_schema.key_column_usage "
            "WHERE table_schema = database() AND table_name = %s "
            "AND constraint_name = 'PRIMARY' ORDER BY ordinal_position",
            name,
        )
        return [str(row[0]) for row in rows]

    def altered(self, name: str, column: Column, optional: bool) -> list[str]:  # noqa: ARG002
        return [f"ALTER TABLE {self.table(name)} MODIFY COLUMN {self.definition(column)}"]

    def purge(self, names: list[str]) -> None:
        for name in names:
            if not self.columns(name):
                continue
            # InnoDB writes a table's file anew for it, and tells of errors in rows.
            for _, _, kind, text in self.execute(f"OPTIMIZE TABLE {self.quote(name)}"):
                if str(kind).lower() == "error":
                    raise WarehouseError(f"{self.where}: OPTIMIZE TABLE {name}: {text}")

    def close(self) -> None:
        self._connection.close()
