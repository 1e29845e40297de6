"""What tests of warehouses do over and over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pymysql
import pytest

from batch import publish
from batch.warehouses import mysql
from batch.warehouses.base import Warehouse
from lakehouse.settings import Settings
from tests.samples_gold import Shop
from tests.servers import MariaDB
from tests.servers import PostgreSQL as Server


def copy(shop: Shop, settings: Settings, *kinds: str, full: bool = False) -> publish.Result:
    return publish.copy(shop.spark, settings, shop.layouts, kinds or ("duckdb", "mysql"), full)


def modes(result: publish.Result) -> set[str]:
    return {table.mode for tables in result.warehouses.values() for table in tables}


def plain(value: Any) -> Any:
    """A value as every engine gives it: moments without a zone, which are UTC."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def gold_rows(shop: Shop, name: str) -> list[tuple[Any, ...]]:
    return sorted((tuple(plain(v) for v in row.values()) for row in shop.rows(name)), key=repr)


def in_postgres(server: Server, settings: Settings, name: str) -> list[tuple[Any, ...]]:
    rows = server.run(f'SELECT * FROM "{name}"', database=settings.postgresql.database)
    return sorted(rows, key=repr)


def agree_in_postgres(shop: Shop, server: Server, settings: Settings) -> None:
    """Every table of Gold, row by row, read by a driver of the database's own, which cannot hold
    U+0000."""
    for layout in shop.layouts.gold:
        wanted = sorted(
            (
                tuple(v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in row)
                for row in gold_rows(shop, layout.name)
            ),
            key=repr,
        )
        assert in_postgres(server, settings, layout.name) == wanted, layout.name


class Meddled:
    """Has something happen right before a statement of the merge, the first time that it comes."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        kind: type[Warehouse],
        begins: str,
        what: Callable[[Any], None],
    ) -> None:
        self.times = 0
        run: Callable[..., Any] = kind.execute

        def execute(warehouse: Any, statement: str, *values: Any) -> Any:
            if statement.startswith(begins):
                self.times += 1
                if self.times == 1:
                    what(warehouse)
            return run(warehouse, statement, *values)

        patch.setattr(kind, "execute", execute)


@contextmanager
def deadlock(patch: pytest.MonkeyPatch, mariadb: MariaDB, settings: Settings) -> Iterator[Meddled]:
    """The first merge of dw_orders in here meets a deadlock, which the server breaks by ending
    ours: the other transaction has changed more."""
    database = settings.mysql.database
    mariadb.run(
        "CREATE TABLE other (n INT PRIMARY KEY)", "INSERT INTO other SELECT seq FROM seq_1_to_5000",
        database=database,
    )  # fmt: skip
    other = pymysql.connect(
        unix_socket=str(mariadb.folder / "socket"), user="root", database=database
    )
    waiting = threading.Event()

    def lock(statement: str) -> None:
        with other.cursor() as cursor:
            cursor.execute(statement)

    def lock_ours() -> None:
        waiting.set()
        lock("UPDATE dw_users SET email = email")
        other.rollback()

    # Ours holds dw_users by then, and is about to want dw_orders, which the other one holds.
    thread = threading.Thread(target=lock_ours)

    def meddle(_: Any) -> None:
        lock("UPDATE other SET n = -n")
        lock("UPDATE dw_orders SET total = total + 1")
        thread.start()
        waiting.wait()

    with patch.context() as patched:
        yield Meddled(patched, mysql.MySQL, "DELETE FROM `dw_orders`", meddle)
    thread.join()
    other.close()
    mariadb.run("DROP TABLE other", database=database)
