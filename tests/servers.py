"""Database servers that tests start for themselves, on loopback, in a folder of their own."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from tests.helpers import ROOT, free_port, wait_until

# The server refuses to run as root unless it is told to.
AS_ROOT = ["--user=root"] if os.geteuid() == 0 else []
# The other one refuses whatever it is told: in a name space of its own root is somebody else.
AS_NO_ROOT = ["unshare", "--user", "--map-user=1000"] if os.geteuid() == 0 else []


# As whoever starts it, but for its data, which are on a file system of a size of their own; seen by
# itself alone, and through /proc by others. The rest of the line is the server's.
SMALL = """
cp -a "$0/." "$0.was" && mount -t tmpfs -o "mode=0700,size=$1" tmpfs "$0" || exit 1
cp -a "$0.was/." "$0" && rm -r "$0.was" && shift && exec "$@"
"""
# Whoever is no root in a name space may be in the next one.
AS_SOMEBODY = ["unshare", "--user", "--map-user=1000"]


def apart() -> list[str]:
    """What stands before a command to have it in name spaces of its own, where it may mount a file
    system: it takes no root and leaves nothing behind."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this kernel does not let its users mount a small file system")
    return command


def on_a_disk_of(size: str, data: Path) -> list[str]:
    """What stands before a server's command to have its data on so small a disk (64m)."""
    return [*apart(), "sh", "-c", SMALL, str(data), size]


class Filled:
    """Takes what is left of the disk of a server's data, and gives it back."""

    def __init__(self, server: MariaDB | PostgreSQL) -> None:
        assert server.process is not None
        data = f"/proc/{server.process.pid}/root{server.folder}/data"
        self._filler = Path(f"{data}/filler")

    def __enter__(self) -> None:
        with self._filler.open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))

    def __exit__(self, *_: object) -> None:
        self._filler.unlink()


@dataclass
class MariaDB:
    """A running server. Its administrator is `root`, without a password, by the socket.

    tls: a file (PEM) of its certificate and key. options: more of them on its command line. disk:
    the size of a disk of its own for its data, from its next start on.
    """

    port: int
    folder: Path
    program: Path
    tls: Path | None = None
    options: tuple[str, ...] = ()
    disk: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        before = on_a_disk_of(self.disk, self.folder / "data") if self.disk else []
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *before,
                    str(self.program),
                    "--no-defaults",
                    f"--datadir={self.folder / 'data'}",
                    f"--basedir={self.program.parents[1]}",
                    f"--socket={self.folder / 'socket'}",
                    f"--pid-file={self.folder / 'pid'}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    *(["--user=root"] if before else AS_ROOT),
                    *([f"--ssl-cert={self.tls}", f"--ssl-key={self.tls}"] if self.tls else []),
                    # Durability across a power cut costs a second a transaction here.
                    "--innodb-flush-log-at-trx-commit=2",
                    *self.options,
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self.answers, 60, "MariaDB")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
        try:
            self.run("SELECT 1")
        except pymysql.MySQLError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)

    def run(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Runs statements as the administrator; rows of the last one."""
        with pymysql.connect(
            unix_socket=str(self.folder / "socket"),
            user="root",
            database=database,
            autocommit=True,
            charset="utf8mb4",
        ) as connection:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    rows = list(cursor.fetchall())
            return rows


def mariadb(folder: Path, tls: Path | None = None, *options: str) -> MariaDB:
    """A new server in a folder: the one that `make setup-tests` unpacked, or the PATH's."""
    found = sorted((ROOT / ".venv/mariadb").rglob("bin/mariadbd"))
    program = found[0] if found else Path(shutil.which("mariadbd") or "/usr/sbin/mariadbd")
    assert program.exists(), "no MariaDB server: `make setup-tests`, or install mariadb-server"
    install = program.parents[1] / "scripts/mariadb-install-db"
    install = install if install.exists() else Path("mariadb-install-db")
    done = subprocess.run(
        [
            str(install),
            "--no-defaults",
            f"--basedir={program.parents[1]}",
            f"--datadir={folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *AS_ROOT,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    server = MariaDB(free_port(), folder, program, tls, options)
    server.start()
    return server


@dataclass
class PostgreSQL:
    """A running server. Its administrator is `postgres`, without a password, by the socket.

    tls: a file (PEM) of its certificate and key. disk: as of MariaDB.
    """

    port: int
    folder: Path
    programs: Path
    tls: Path | None = None
    disk: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        before = AS_NO_ROOT
        if self.disk:
            before = [*on_a_disk_of(self.disk, self.folder / "data"), *AS_SOMEBODY]
        (self.folder / "pg_hba.conf").write_text(
            "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "hba_file": str(self.folder / "pg_hba.conf"),
            # Durability across a power cut is none of what is tested.
            "fsync": "off",
        }
        if self.tls:
            # It takes no key that others may read.
            for name in ("ssl_cert_file", "ssl_key_file"):
                own = self.folder / name
                own.write_bytes(self.tls.read_bytes())
                own.chmod(0o600)
                settings[name] = str(own)
            settings["ssl"] = "on"
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

        def answers() -> bool:
            if self.process is None or self.process.poll() is not None:
                # One that was killed leaves what it shared for a moment.
                with (self.folder / "server.log").open("ab") as log:
                    self.process = subprocess.Popen(
                        [*before, str(self.programs / "postgres"), "-D", self._data, *given],
                        stdout=log,
                        stderr=log,
                    )
            try:
                self.run("SELECT 1")
            except psycopg.Error:
                return False
            return True

        wait_until(answers, 60, f"PostgreSQL (see {self.folder}/server.log)")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def make(self) -> None:
        done = subprocess.run(
            [
                *(*AS_NO_ROOT, str(self.programs / "initdb"), "-D", self._data),
                *("-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def stop(self) -> None:
        if self.process is not None:
            # At once, whoever is connected.
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs statements as the administrator; rows of the last one."""
        with psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user="postgres",
            dbname=database,
            autocommit=True,
        ) as connection:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = list(cursor.fetchall()) if cursor.description else []
            return rows


def postgresql(folder: Path, tls: Path | None = None) -> PostgreSQL:
    """A new server in a folder: the one that `make setup-tests` unpacked, or the PATH's."""
    unpacked = ROOT / ".venv/postgresql/bin"
    there = shutil.which("postgres")
    assert unpacked.exists() or there, (
        "no PostgreSQL server: `make setup-tests`, or install postgresql, its programs on the PATH"
    )
    programs = unpacked if unpacked.exists() else Path(str(there)).resolve().parent
    server = PostgreSQL(free_port(), folder, programs, tls)
    server.make()
    server.start()
    return server


@dataclass
class Azurite:
    """Azure's storage emulator (blobs alone) by TLS. key: of its one account, base64."""

    port: int
    account: str
    key: str
    process: subprocess.Popen[bytes]


def azurite(folder: Path, certificate: Path) -> Azurite:
    """The emulator with its data in a folder. certificate: a file (PEM) with its key."""
    program = ROOT / ".venv/azurite/node_modules/.bin/azurite-blob"
    assert program.exists(), "no Azurite: `make setup-long` (it wants Node.js 18 or newer)"
    port, account, key = free_port(), "lakehouse", base64.b64encode(os.urandom(64)).decode()
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    data = ["--location", str(folder / "blobs")]
    tls = ["--cert", str(certificate), "--key", str(certificate)]
    with (folder / "azurite.log").open("ab") as log:
        process = subprocess.Popen(
            [str(program), *where, *data, *tls, "--skipApiVersionCheck", "--disableTelemetry"],
            stdout=log,
            stderr=log,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{account}:{key}"},
        )

    def answers() -> bool:
        assert process.poll() is None, (folder / "azurite.log").read_text()[-2000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, 60, "Azurite")
    return Azurite(port, account, key, process)


WORKER = """\
bootstrap.servers={bootstrap}
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
listeners=http://127.0.0.1:{port}
offset.storage.file.filename={folder}/offsets
offset.flush.interval.ms=1000
config.providers=file
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
"""


@dataclass
class Connect:
    """Kafka Connect, stand-alone, with one connector. What it has done is kept in the folder."""

    bootstrap: str
    connector: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        jars = ROOT / ".venv/connect"
        assert jars.exists(), "no Kafka Connect: `make setup-long`"
        worker = self.folder / "worker.properties"
        worker.write_text(
            WORKER.format(bootstrap=self.bootstrap, port=free_port(), folder=self.folder)
        )
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", main]
        with (self.folder / "connect.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*java, str(worker), str(self.connector)], stdout=log, stderr=log
            )

    def demand_running(self) -> None:
        assert self.process is not None
        said = (self.folder / "connect.log").read_text()[-4000:]
        assert self.process.poll() is None, said

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
