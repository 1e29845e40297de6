"""The life of a table in a real MariaDB, by Debezium in Kafka Connect, to Silver and Gold."""

from __future__ import annotations

import random
import shutil
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent
from pyspark.sql import SparkSession

from batch import audit, gold, reconcile
from lakehouse import contracts as contract_files
from lakehouse import kafka
from lakehouse import layouts as layout_files
from lakehouse.settings import Settings
from tests import servers
from tests.helpers import ROOT, drain, settings_for, table, wait_until
from tests.servers import Connect, MariaDB

REWARDS = ROOT / "conf/sources/rewards"
MEMBERS = 10_000
AT_FIRST = 6_000
COLUMNS = "member_id, customer_id, email, tier, points, spent, joined_at"
TABLE = """
    CREATE TABLE member (
      member_id INT PRIMARY KEY, customer_id VARCHAR(20) NOT NULL, email VARCHAR(254),
      tier VARCHAR(10) NOT NULL, points BIGINT NOT NULL, spent DECIMAL(12,2) NOT NULL,
      joined_at TIMESTAMP(3) NOT NULL)
"""
BINLOG = (
    *("--log-bin", "--server-id=7", "--binlog-format=ROW", "--binlog-row-image=FULL"),
    # Not for Headwater: for what reads it here.
    "--binlog-row-metadata=FULL",
)
Row = tuple[Any, ...]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[MariaDB]:
    """A server that keeps a binlog, with the table."""
    (tmp_path / "db").mkdir()
    server = servers.mariadb(tmp_path / "db", None, *BINLOG)
    server.run("CREATE DATABASE rewards")
    server.run(TABLE, database="rewards")
    yield server
    server.stop()


def connector(folder: Path, server: MariaDB, bootstrap: str) -> Path:
    """The connector that comes with Headwater, for this server."""
    password = uuid.uuid4().hex
    rights = "SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, BINLOG MONITOR"
    server.run(
        f"CREATE USER 'debezium'@'%' IDENTIFIED BY '{password}'",
        f"GRANT {rights} ON *.* TO 'debezium'@'%'",
    )
    secrets = folder / "secrets.properties"
    secrets.write_text(f"password={password}\n")
    text = (REWARDS / "connector.properties").read_text()
    for name, value in {
        "<host>": "127.0.0.1",
        "<port>": str(server.port),
        "<user>": "debezium",
        "<number>": "7001",
        "<broker>": bootstrap,
        "<secrets.properties>": str(secrets),
    }.items():
        assert name in text
        text = text.replace(name, value)
    # The server of the test has no certificate.
    (folder / "connector.properties").write_text(f"{text}database.ssl.mode=disable\n")
    return folder / "connector.properties"


class Life:
    """What happens to the members, by a connection of its own."""

    def __init__(self, server: MariaDB) -> None:
        self.connection = pymysql.connect(
            unix_socket=str(server.folder / "socket"),
            user="root",
            database="rewards",
            charset="utf8mb4",
        )
        self.chosen = random.Random(3)

    def say(self, statement: str, *values: Row) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(statement, values) if values else cursor.execute(statement)

    def commit(self) -> None:
        self.connection.commit()

    def join(self, first: int, number: int) -> None:
        """New members, a thousand a transaction."""
        for begin in range(first, first + number, 1_000):
            rows = [
                (n, f"C{n:08}", f"Member.{n}@Example.com" if n % 7 else None, "none", n % 50)
                for n in range(begin, min(begin + 1_000, first + number))
            ]
            values = "(%s, %s, %s, %s, %s, 0, FROM_UNIXTIME(1772000000 + member_id / 8))"
            self.say(f"INSERT INTO member ({COLUMNS}) VALUES {values}", *rows)
            self.commit()

    def some(self, number: int) -> list[int]:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT member_id FROM member ORDER BY member_id")
            return self.chosen.sample([row[0] for row in cursor.fetchall()], number)

    def spend(self, number: int) -> None:
        """Purchases, one a transaction."""
        for member in self.some(number):
            cents = self.chosen.randint(1, 100_000)
            self.say(
                f"UPDATE member SET spent = spent + {cents} / 100, points = points + 1, "
                f"email = 'spent+{cents}@example.com' WHERE member_id = {member}"
            )
            self.commit()

    def leave(self, number: int) -> list[int]:
        gone = self.some(number)
        for member in gone:
            self.say(f"DELETE FROM member WHERE member_id = {member}")
        self.commit()
        return gone

    def regret(self) -> None:
        """A transaction that is rolled back."""
        self.say("UPDATE member SET points = points + 1000000")
        self.say("DELETE FROM member WHERE member_id % 2 = 0")
        self.connection.rollback()


def rows_of(server: MariaDB, statement: str) -> list[Row]:
    rows = server.run("SET time_zone = '+00:00'", statement, database="rewards")
    return [tuple(map(plain, row)) for row in rows]


def state(values: dict[str, Any]) -> Row:
    return tuple(plain(values[name]) for name in COLUMNS.split(", "))


class Binlog:
    """What the server's binlog has from now on, as another reader of it finds."""

    def __init__(self, server: MariaDB) -> None:
        self.login = {
            "host": "127.0.0.1",
            "port": server.port,
            "user": "reader",
            "password": uuid.uuid4().hex,
        }
        rights = "SELECT, REPLICATION SLAVE, BINLOG MONITOR"
        server.run(
            f"CREATE USER 'reader'@'%' IDENTIFIED BY '{self.login['password']}'",
            f"GRANT {rights} ON *.* TO 'reader'@'%'",
        )
        [(self.position,)] = server.run("SELECT @@gtid_binlog_pos")

    def changes(self) -> list[Row]:
        """Every change of a member as it was committed: what was done, and the row.

        A change of a key is two: the old one's end and the new one's beginning.
        """
        stream = BinLogStreamReader(
            connection_settings=self.login,
            server_id=8,
            is_mariadb=True,
            auto_position=self.position,
            only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
            only_tables=["member"],
        )
        found: list[Row] = []
        try:
            for event in stream:
                for row in event.rows:
                    if isinstance(event, UpdateRowsEvent):
                        before, after = state(row["before_values"]), state(row["after_values"])
                        same = before[0] == after[0]
                        found += [] if same else [("deleted", *before)]
                        found.append(("updated" if same else "created", *after))
                    else:
                        done = "created" if isinstance(event, WriteRowsEvent) else "deleted"
                        found.append((done, *state(row["values"])))
        finally:
            stream.close()
        return found


def plain(value: Any) -> Any:
    """Moments of the database are UTC's; addresses come in lower case."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return value.lower() if isinstance(value, str) and "@" in value else value


def history(settings: Settings) -> dict[int, list[Row]]:
    """By member, every accepted change as it was committed: what was done, and the row."""
    columns = ["outcome", "offset", "type", "reward_member"]
    found: dict[int, list[Row]] = defaultdict(list)
    rows = table(settings, "silver/events", columns).to_pylist()
    for row in sorted(rows, key=lambda row: int(row["offset"])):
        if row["outcome"] == "accepted":
            state = tuple(row["reward_member"][name] for name in COLUMNS.split(", "))
            found[state[0]].append((row["type"].rpartition(".")[2], *state))
    return found


@pytest.mark.long
def test_the_life_of_ten_thousand_members(
    spark: SparkSession, bootstrap: str, source: MariaDB, tmp_path: Path
) -> None:
    folder = tmp_path / "contracts"
    shutil.copytree(ROOT / "conf/contracts", folder)
    shutil.copytree(REWARDS, folder, dirs_exist_ok=True)
    settings = settings_for(tmp_path / "data", bootstrap, contracts=str(folder))
    contracts = contract_files.load(folder)
    layouts = layout_files.load(folder, contracts)
    topic = contracts["reward_member"].topic
    assert topic is not None
    life = Life(source)
    life.join(1, AT_FIRST)
    life.say("UPDATE member SET tier = 'silver' WHERE points > 40")
    life.commit()
    read = rows_of(source, f"SELECT {COLUMNS} FROM member")
    binlog = Binlog(source)
    place = tmp_path / "connect"
    place.mkdir()
    connect = Connect(bootstrap, connector(place, source, bootstrap), place)

    def arrived() -> int:
        connect.demand_running()
        return sum(kafka.end_offsets(settings, [topic]).values())

    def wait_for(number: int, what: str) -> None:
        """Until the broker has the snapshot and so many changes."""
        wait_until(lambda: arrived() >= AT_FIRST + number, 120, what)

    def taken() -> None:
        """All that the broker has, in Silver and Gold; the law holds, and Gold is the table."""
        drain(spark, settings, contracts)
        reconcile.reconcile_range(spark, settings, contracts)
        assert audit.audit_tables(spark, settings, contracts).broken == []
        gold.build(spark, settings, contracts, layouts)
        here = table(settings, "gold/dim_reward_member", COLUMNS.split(", ")).to_pylist()
        there = rows_of(source, f"SELECT {COLUMNS} FROM member")
        assert Counter(tuple(row.values()) for row in here) == Counter(there)

    try:
        connect.start()
        wait_for(0, "the snapshot")
        taken()

        life.join(AT_FIRST + 1, MEMBERS - AT_FIRST)
        life.spend(1_000)
        life.regret()
        gone = life.leave(500)
        # All of them in one statement, and some of it again at once: one second has many states.
        life.say("UPDATE member SET points = points + 100, tier = 'gold' WHERE member_id % 3 = 0")
        life.commit()
        for points in range(1_001, 1_006):
            # Never what it was: a binlog does not have what changes nothing.
            life.say(f"UPDATE member SET points = {points} WHERE member_id % 500 = 0")
            life.commit()
        wait_for(len(binlog.changes()), "the changes")
        taken()

        # It dies over the next ones, and sends some of them again.
        life.spend(1_000)
        wait_for(len(binlog.changes()) - 900, "some of the purchases")
        connect.kill()
        life.join(min(gone), 1)
        life.leave(200)
        life.say("UPDATE member SET member_id = member_id + 1000000 WHERE member_id % 1000 = 1")
        life.commit()
        life.say("DELETE FROM member WHERE tier = 'silver'")
        life.regret()
        life.commit()
        life.say("DELETE FROM member WHERE tier = 'silver'")
        life.commit()
        connect.start()
        wait_for(len(binlog.changes()), "the rest")
        taken()
    finally:
        connect.kill()
        life.connection.close()

    wanted: dict[int, list[Row]] = defaultdict(list)
    for row in read:
        wanted[row[0]].append(("read", *row))
    for op, *state in binlog.changes():
        wanted[state[0]].append((op, *state))
    found = history(settings)
    assert {m: rows for m, rows in found.items() if rows != wanted[m]} == {}
    assert sorted(found) == sorted(m for m, rows in wanted.items() if rows)
    outcomes = table(settings, "silver/events", ["outcome"]).column("outcome").to_pylist()
    assert Counter(outcomes) == {"accepted": sum(map(len, found.values()))}
