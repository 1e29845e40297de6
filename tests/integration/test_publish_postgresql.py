"""Gold in a real PostgreSQL server: the same rows, however often and however broken."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from batch import quality
from batch.warehouses import connect
from batch.warehouses.postgresql import PostgreSQL as Warehouse
from lakehouse import tables
from lakehouse.errors import QualityError, WarehouseError
from lakehouse.settings import PostgreSQL, Settings
from tests.published import Meddled, copy, in_postgres, modes
from tests.published import agree_in_postgres as agree
from tests.samples_gold import CUSTOMER, Shop
from tests.secured import Authority
from tests.servers import PostgreSQL as Server
from tests.servers import postgresql as new_server

KIND = "postgresql"


@pytest.fixture
def settings(shop: Shop, postgresql: PostgreSQL) -> Settings:
    return shop.settings.model_copy(update={"postgresql": postgresql})


def names(server: Server, settings: Settings) -> set[str]:
    found = server.run(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
        database=settings.postgresql.database,
    )
    return {name for (name,) in found}


@pytest.mark.long
def test_it_holds_what_gold_holds_after_every_change(
    shop: Shop, postgres: Server, settings: Settings
) -> None:
    assert modes(copy(shop, settings, KIND)) == {"full"}
    agree(shop, postgres, settings)
    again = copy(shop, settings, KIND)
    assert (modes(again), again.staged) == ({"nothing"}, 0)

    # Rows change, come and go; only these are sent.
    shop.sql("UPDATE {fact_orders} SET total = 45.00 WHERE order_id = 'O0000000002'")
    shop.sql("DELETE FROM {fact_orders} WHERE order_id = 'O0000000003'")
    shop.sql("UPDATE {dim_users} SET email = NULL WHERE customer_id = 'C00000002'")
    changed = copy(shop, settings, KIND)
    sent = {t.name: t.staged for tables in changed.warehouses.values() for t in tables if t.staged}
    assert sent == {"fact_orders": 2, "dim_users": 1}
    agree(shop, postgres, settings)

    # Somebody changes the copy: nothing is published on top of that, until all of it is.
    database = settings.postgresql.database
    postgres.run("UPDATE dim_product SET name = 'x'", database=database)
    before = in_postgres(postgres, settings, "fact_orders")
    shop.sql("UPDATE {fact_orders} SET total = 46.00 WHERE order_id = 'O0000000005'")
    with pytest.raises(
        WarehouseError,
        match=r"dim_product would not be gold.dim_product .*\(other values in name\).*--full",
    ):
        copy(shop, settings, KIND)
    assert in_postgres(postgres, settings, "fact_orders") == before
    copy(shop, settings, KIND, full=True)
    agree(shop, postgres, settings)
    assert not {name for name in names(postgres, settings) if "stage" in name}


@pytest.mark.long
def test_a_character_that_it_cannot_hold_is_replaced(
    shop: Shop, postgres: Server, settings: Settings
) -> None:
    shop.say(("10:02", "customer", {**CUSTOMER, "customer_id": "C00000003", "last_name": "a\0b"}))
    shop.build()
    copy(shop, settings, KIND)
    [kept] = [r["last_name"] for r in shop.rows("dim_users") if r["customer_id"] == "C00000003"]
    assert kept == "a\0b"
    said = "SELECT last_name FROM dim_users WHERE customer_id = 'C00000003'"
    assert postgres.run(said, database=settings.postgresql.database) == [("a\ufffdb",)]


def test_it_takes_text_as_it_is_written(settings: Settings) -> None:
    """A key that differs by case, accent or a blank at its end is another key."""
    warehouse = connect(KIND, settings)
    try:
        warehouse.execute("CREATE TABLE t (k VARCHAR(10) PRIMARY KEY)")
        for text in ("a", "A", "é", "e", "a "):
            warehouse.execute("INSERT INTO t VALUES (%s)", text)
        with pytest.raises(WarehouseError, match="duplicate key"):
            warehouse.execute("INSERT INTO t VALUES (%s)", "a")
    finally:
        warehouse.close()


@pytest.mark.long
def test_what_is_refused_is_named_and_leaves_nothing(
    shop: Shop, postgres: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = settings.postgresql.database

    def refused(*_: Any) -> None:
        raise QualityError("not good enough")

    with monkeypatch.context() as patch:
        patch.setattr(quality, "demand", refused)
        with pytest.raises(QualityError):
            copy(shop, settings, KIND)
    assert names(postgres, settings) == set()
    # One that agrees with nothing: what was made for it goes, too.
    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "hash_of", lambda *_: "1")
        with pytest.raises(WarehouseError, match="would not be gold"):
            copy(shop, settings, KIND)
    assert names(postgres, settings) == set()
    # Somebody else is at it, wherever that runs.
    other = Warehouse(settings.postgresql)
    other.alone()
    try:
        with pytest.raises(WarehouseError, match=f"{database}: another `headwater publish` is at"):
            copy(shop, settings, KIND)
    finally:
        other.close()
    assert names(postgres, settings) == set()
    # A table that is another's.
    postgres.run("CREATE TABLE dim_users (x INT)", database=database)
    with pytest.raises(WarehouseError, match=f"{database}: table dim_users is there and is not"):
        copy(shop, settings, KIND)
    assert names(postgres, settings) == {"dim_users"}
    postgres.run("DROP TABLE dim_users", database=database)

    user = settings.postgresql.user
    postgres.run(f"REVOKE CREATE ON SCHEMA public FROM {user}", database=database)
    with pytest.raises(WarehouseError, match=rf"/{database}: permission denied.*{user} needs"):
        copy(shop, settings, KIND)
    for change, said in (
        ({"user": "nobody"}, "nobody"),
        ({"database": "nowhere"}, "nowhere"),
        ({"port": 1}, r"PostgreSQL 127.0.0.1:1/.*is it running, and are HEADWATER_POSTGRESQL__"),
    ):
        wrong = settings.postgresql.model_copy(update=change)
        with pytest.raises(WarehouseError, match=said):
            copy(shop, settings.model_copy(update={"postgresql": wrong}), KIND)


@pytest.mark.long
def test_another_transaction_in_the_way_is_waited_for(
    shop: Shop, postgres: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadlock, which the server breaks by ending ours: the other one is slow to notice it."""
    copy(shop, settings, KIND)
    other = psycopg.connect(
        host=str(postgres.folder),
        port=postgres.port,
        user="postgres",
        dbname=settings.postgresql.database,
    )
    waiting = threading.Event()

    def lock_ours() -> None:
        waiting.set()
        other.execute("UPDATE dim_users SET email = email")
        other.rollback()

    # Ours holds dim_users by then, and is about to want fact_orders, which the other one holds.
    thread = threading.Thread(target=lock_ours)

    def meddle(_: Any) -> None:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("UPDATE fact_orders SET total = total + 1")
        thread.start()
        waiting.wait()

    met = Meddled(monkeypatch, Warehouse, 'DELETE FROM "fact_orders"', meddle)
    copy(shop, settings, KIND, full=True)
    thread.join()
    other.close()
    assert met.times == 2, "tried again once"
    agree(shop, postgres, settings)


@pytest.mark.long
@pytest.mark.parametrize("killed", [False, True], ids=["connection", "server"])
@pytest.mark.parametrize("begins", ["BEGIN", 'INSERT INTO "fact_orders"', "COMMIT"])
def test_a_connection_cut_in_the_middle(
    shop: Shop,
    postgres: Server,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    begins: str,
    killed: bool,
) -> None:
    """Between staging and merge, in it, and at its end: by the server, or because that is gone."""
    copy(shop, settings, KIND)
    before = in_postgres(postgres, settings, "fact_orders")
    shop.sql("UPDATE {fact_orders} SET total = total + 1 WHERE order_id = 'O0000000005'")

    def cut(warehouse: Any) -> None:
        if not killed:
            postgres.run(f"SELECT pg_terminate_backend({warehouse._connection.info.backend_pid})")
            return
        assert postgres.process is not None
        postgres.process.kill()
        postgres.process.wait()

    with monkeypatch.context() as patch:
        Meddled(patch, Warehouse, begins, cut)
        with pytest.raises(
            WarehouseError, match=rf"{settings.postgresql.database}: .*is it running"
        ):
            copy(shop, settings, KIND)
    if killed:
        postgres.start()
    assert in_postgres(postgres, settings, "fact_orders") == before
    copy(shop, settings, KIND)
    agree(shop, postgres, settings)


@pytest.mark.long
def test_a_server_is_verified_by_both_drivers(
    shop: Shop, settings: Settings, tmp_path: Path
) -> None:
    for name in ("right", "other", "pg"):
        (tmp_path / name).mkdir()
    right, other = Authority(tmp_path / "right"), Authority(tmp_path / "other")
    server = new_server(tmp_path / "pg", right.server)
    try:
        password = os.environ["TEST_SECRET_2"]
        server.run(f"CREATE USER tls PASSWORD '{password}'", "CREATE DATABASE tls OWNER tls")
        asked = PostgreSQL(
            port=server.port,
            database="tls",
            user="tls",
            password="env:TEST_SECRET_2",
            ssl_ca=str(right.ca),
        )
        sound = Warehouse(asked)
        layout = next(one for one in shop.layouts.gold if one.name == "dim_location")
        rows = tables.read(shop.spark, shop.settings, tables.gold(layout)).limit(0)
        by_the_system = {"ssl_ca": "", "ssl_mode": "verify-full"}
        try:
            sound.begin_stage("stage", layout)
            sound.stage("stage", rows)
            for wrong in ({"ssl_ca": str(other.ca)}, {"host": "localhost"}, by_the_system):
                there = asked.model_copy(update=wrong)
                with pytest.raises(WarehouseError, match=r"is its certificate for this host"):
                    Warehouse(there)
                sound._settings = there
                with pytest.raises(WarehouseError, match=r"is its certificate for this host"):
                    sound.stage("stage", rows)
        finally:
            sound.close()
        assert modes(copy(shop, settings.model_copy(update={"postgresql": asked}), KIND)) == {
            "full"
        }
    finally:
        server.stop()


def test_a_server_without_tls_is_refused_where_it_is_to_be_verified(
    shop: Shop, settings: Settings
) -> None:
    wanted = settings.postgresql.model_copy(update={"ssl_mode": "verify-full"})
    with pytest.raises(WarehouseError, match=r"does not support SSL.*postgresql.ssl_mode `prefer`"):
        copy(shop, settings.model_copy(update={"postgresql": wanted}), KIND)
