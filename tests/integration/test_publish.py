"""Gold in DuckDB and in a real MariaDB server: the same rows, however often and however broken."""

from __future__ import annotations

import os
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batch import publish, quality
from batch.warehouses import mysql as warehouses
from lakehouse import tables
from lakehouse.errors import QualityError, TableError, WarehouseError
from lakehouse.locks import held
from lakehouse.settings import MySQL, PostgreSQL, Settings
from tests.helpers import headwater, settings_for
from tests.published import Meddled, agree_in_postgres, copy, deadlock, gold_rows, modes
from tests.samples_gold import CUSTOMER, Shop, line, order
from tests.secured import Authority
from tests.servers import MariaDB, mariadb
from tests.servers import PostgreSQL as Server

DW = {
    "dw_users": "dim_users",
    "dw_locations": "dim_location",
    "dw_products": "dim_product",
    "dw_orders": "fact_orders",
    "dw_user_metrics": "agg_user_metrics",
}


@pytest.fixture
def settings(shop: Shop, mysql: MySQL, tmp_path: Path) -> Settings:
    """A database and a DuckDB file of the test's own."""
    return shop.settings.model_copy(
        update={"mysql": mysql, "duckdb": str(tmp_path / "warehouse.duckdb")}
    )


def in_mariadb(mariadb: MariaDB, settings: Settings, name: str) -> list[tuple[Any, ...]]:
    rows = mariadb.run(f"SELECT * FROM {name}", database=settings.mysql.database)
    return sorted(rows, key=repr)


def in_duckdb(settings: Settings, name: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(settings.duckdb, read_only=True) as db:
        return sorted(db.execute(f"FROM {name}").fetchall(), key=repr)


def agree(shop: Shop, mariadb: MariaDB, settings: Settings) -> None:
    """Row by row, read by drivers of the databases' own."""
    for layout in shop.layouts.gold:
        assert in_duckdb(settings, layout.name) == gold_rows(shop, layout.name), layout.name
    for name, of in DW.items():
        mine = [tuple(bool(v) if v in (0, 1) else v for v in r) for r in gold_rows(shop, of)]
        found = [
            tuple(bool(v) if v in (0, 1) else v for v in r)
            for r in in_mariadb(mariadb, settings, name)
        ]
        assert sorted(found, key=repr) == sorted(mine, key=repr), name


@pytest.mark.long
def test_days_and_moments_of_long_ago_arrive(
    shop: Shop,
    mariadb: MariaDB,
    postgres: Server,
    postgresql: PostgreSQL,
    settings: Settings,
) -> None:
    """Of before the calendar of today: Java's own days and moments are others there."""
    settings = settings.model_copy(update={"postgresql": postgresql})
    kinds = ("duckdb", "mysql", "postgresql")
    moment = "1500-03-05T10:00:00.123456Z"
    shop.say(
        (moment, "customer", CUSTOMER | {"customer_id": "C00000009"}),
        (moment, "order", order(9, moment, customer_id="C00000009")),
        (moment, "order_item", line(9)),
    )
    shop.build()
    copy(shop, settings, *kinds)
    # By the databases' own drivers; Gold's other reader takes these moments for other ones.
    wanted = [(datetime(1500, 3, 5, 10, 0, 0, 123456), date(1500, 3, 1))]
    asked = "SELECT placed_at, order_month FROM {} WHERE placed_at < '1600-01-01'"
    assert mariadb.run(asked.format("dw_orders"), database=settings.mysql.database) == wanted
    there = settings.postgresql.database
    assert postgres.run(asked.format("fact_orders"), database=there) == wanted
    with duckdb.connect(settings.duckdb, read_only=True) as db:
        assert db.execute(asked.format("fact_orders")).fetchall() == wanted


def test_all_hold_what_gold_holds_after_every_change(
    shop: Shop,
    mariadb: MariaDB,
    postgres: Server,
    postgresql: PostgreSQL,
    settings: Settings,
) -> None:
    settings = settings.model_copy(update={"postgresql": postgresql})
    kinds = ("duckdb", "mysql", "postgresql")
    first = copy(shop, settings, *kinds)
    assert modes(first) == {"full"}
    agree(shop, mariadb, settings)
    agree_in_postgres(shop, postgres, settings)
    assert {t.name: t.rows for t in first.warehouses[f"MySQL 127.0.0.1:{mariadb.port}/"
                                                     f"{settings.mysql.database}"]} == {
        "dw_users": 3, "dw_locations": 1, "dw_products": 1, "dw_orders": 5, "dw_user_metrics": 1,
    }  # fmt: skip

    again = copy(shop, settings, *kinds)
    assert (modes(again), again.staged) == ({"nothing"}, 0)

    # Rows change, come and go; only these are sent.
    shop.sql("UPDATE {fact_orders} SET total = 45.00 WHERE order_id = 'O0000000002'")
    shop.sql("DELETE FROM {fact_orders} WHERE order_id = 'O0000000003'")
    shop.sql("UPDATE {dim_users} SET email = NULL WHERE customer_id = 'C00000002'")
    changed = copy(shop, settings, *kinds)
    sent = {t.name: t.staged for tables in changed.warehouses.values() for t in tables if t.staged}
    assert sent == {"fact_orders": 2, "dim_users": 1, "dw_orders": 2, "dw_users": 1}
    agree(shop, mariadb, settings)
    agree_in_postgres(shop, postgres, settings)
    assert len(in_mariadb(mariadb, settings, "dw_orders")) == 4

    # Somebody changes the copy: nothing is published on top of that, until all of it is.
    mariadb.run("UPDATE dw_orders SET total = 0 LIMIT 1", database=settings.mysql.database)
    before = in_mariadb(mariadb, settings, "dw_orders")
    shop.sql("UPDATE {fact_orders} SET total = 46.00 WHERE order_id = 'O0000000005'")
    with pytest.raises(
        WarehouseError,
        match=r"dw_orders would not be gold.fact_orders .*\(other values in total\).*--full",
    ):
        copy(shop, settings, "mysql")
    assert in_mariadb(mariadb, settings, "dw_orders") == before
    copy(shop, settings, *kinds, full=True)
    agree(shop, mariadb, settings)
    agree_in_postgres(shop, postgres, settings)


@pytest.mark.long
def test_a_foreign_table_of_the_same_name_is_left_alone(
    shop: Shop, mariadb: MariaDB, settings: Settings
) -> None:
    database = settings.mysql.database
    mariadb.run("CREATE TABLE dw_users (x INT)", "INSERT INTO dw_users VALUES (7)",
                database=database)  # fmt: skip
    with pytest.raises(WarehouseError, match=f"{database}: table dw_users is there and is not"):
        copy(shop, settings, "mysql")
    assert mariadb.run("SELECT * FROM dw_users", database=database) == [(7,)]
    assert mariadb.run("SHOW TABLES", database=database) == [("dw_users",)]
    with duckdb.connect(settings.duckdb) as db:
        # DuckDB takes both for the same name.
        db.execute("CREATE TABLE DIM_USERS AS SELECT 7 AS x")
    with pytest.raises(WarehouseError, match="table dim_users is there and is not Headwater's"):
        copy(shop, settings, "duckdb")
    assert in_duckdb(settings, "dim_users") == [(7,)]


@pytest.mark.long
def test_a_first_publish_that_is_refused_leaves_nothing(
    shop: Shop, mariadb: MariaDB, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = settings.mysql.database

    def refused(*_: Any) -> None:
        raise QualityError("not good enough")

    with monkeypatch.context() as patch:
        patch.setattr(quality, "demand", refused)
        for kind in ("mysql", "duckdb"):
            with pytest.raises(QualityError):
                copy(shop, settings, kind)
    # And one that agrees with nothing: what was made for it goes, too.
    with monkeypatch.context() as patch:
        patch.setattr(warehouses.MySQL, "hash_of", lambda *_: "1")
        with pytest.raises(WarehouseError, match="would not be gold"):
            copy(shop, settings, "mysql")
    assert mariadb.run("SHOW TABLES", database=database) == []
    with duckdb.connect(settings.duckdb) as db:
        assert db.execute("SHOW TABLES").fetchall() == []
    # Somebody else is at it, wherever that runs.
    other = warehouses.MySQL(settings.mysql, settings.runtime_dir)
    other.alone()
    try:
        with pytest.raises(WarehouseError, match=f"{database}: another `headwater publish` is at"):
            copy(shop, settings, "mysql")
    finally:
        other.close()
    assert mariadb.run("SHOW TABLES", database=database) == []


@pytest.mark.long
def test_gold_that_was_changed_by_hand_is_not_published(shop: Shop, settings: Settings) -> None:
    copy(shop, settings, "duckdb")
    before = in_duckdb(settings, "fact_orders")
    mark = "spark.databricks.delta.commitInfo.userMetadata"
    shop.spark.conf.unset(mark)
    try:
        shop.sql("UPDATE {fact_orders} SET total = total + 1")
        with pytest.raises(TableError, match=r"gold.fact_orders .* by hand \(UPDATE\)"):
            copy(shop, settings, "duckdb")
        assert in_duckdb(settings, "fact_orders") == before
    finally:
        shop.spark.conf.set(mark, tables.MARK)
        shop.build(rebuild=True)
    copy(shop, settings, "duckdb")
    assert in_duckdb(settings, "fact_orders") == gold_rows(shop, "fact_orders")


@pytest.mark.long
def test_a_warehouse_that_refuses_is_named(
    shop: Shop, mariadb: MariaDB, settings: Settings
) -> None:
    copy(shop, settings, "mysql")
    database = settings.mysql.database
    before = in_mariadb(mariadb, settings, "dw_orders")
    mariadb.run(f"REVOKE INSERT, UPDATE ON {database}.* FROM 'writer'@'%'")
    with pytest.raises(
        WarehouseError, match=rf"/{database}: .*INSERT.*denied.*writer needs CREATE"
    ):
        copy(shop, settings, "mysql", full=True)
    assert in_mariadb(mariadb, settings, "dw_orders") == before

    wrong = settings.mysql.model_copy(update={"user": "nobody"})
    with pytest.raises(WarehouseError, match="nobody"):
        copy(shop, settings.model_copy(update={"mysql": wrong}), "mysql")
    away = settings.mysql.model_copy(update={"port": 1})
    with pytest.raises(WarehouseError, match=r"MySQL 127.0.0.1:1/.*is it running"):
        copy(shop, settings.model_copy(update={"mysql": away}), "mysql")


@pytest.mark.long
def test_a_key_that_stands_twice_is_refused(
    shop: Shop, mariadb: MariaDB, settings: Settings
) -> None:
    copy(shop, settings)
    before = in_mariadb(mariadb, settings, "dw_products"), in_duckdb(settings, "dim_product")
    products = tables.gold(shop.layouts["gold.dim_product"])
    sound = tables.version(shop.spark, shop.settings, products)
    shop.sql("INSERT INTO {dim_product} SELECT * FROM {dim_product}")
    try:
        for kind in ("mysql", "duckdb"):
            with pytest.raises(QualityError, match=r"product_key once: .*: 2 rows break it"):
                copy(shop, settings, kind)
            # The warehouse would not take it either.
            with pytest.raises(WarehouseError):
                publish.copy(shop.spark, settings, shop.layouts, (kind,), gate=False)
    finally:
        shop.sql(f"RESTORE TABLE {{dim_product}} TO VERSION AS OF {sound}")
    assert in_mariadb(mariadb, settings, "dw_products") == before[0]
    assert in_duckdb(settings, "dim_product") == before[1]
    copy(shop, settings)
    agree(shop, mariadb, settings)


@pytest.mark.long
def test_another_transaction_in_the_way_is_waited_for(
    shop: Shop, mariadb: MariaDB, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(shop, settings)
    with deadlock(monkeypatch, mariadb, settings) as met:
        copy(shop, settings, full=True)
    assert met.times == 2, "tried again once"
    agree(shop, mariadb, settings)


@pytest.mark.long
@pytest.mark.parametrize("killed", [False, True], ids=["connection", "server"])
@pytest.mark.parametrize("begins", ["BEGIN", "INSERT INTO `dw_orders`", "COMMIT"])
def test_a_connection_cut_in_the_middle(
    shop: Shop,
    mariadb: MariaDB,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    begins: str,
    killed: bool,
) -> None:
    """Between staging and merge, in it, and at its end: by the server, or because that is gone."""
    copy(shop, settings)
    before = in_mariadb(mariadb, settings, "dw_orders")
    shop.sql("UPDATE {fact_orders} SET total = total + 1 WHERE order_id = 'O0000000005'")

    def cut(warehouse: Any) -> None:
        if not killed:
            mariadb.run(f"KILL {warehouse._connection.thread_id()}")
            return
        assert mariadb.process is not None
        mariadb.process.kill()
        mariadb.process.wait()

    with monkeypatch.context() as patch:
        Meddled(patch, warehouses.MySQL, begins, cut)
        with pytest.raises(WarehouseError, match=rf"{settings.mysql.database}: .*is it running"):
            copy(shop, settings, "mysql")
    if killed:
        mariadb.start()
    assert in_mariadb(mariadb, settings, "dw_orders") == before
    copy(shop, settings)
    agree(shop, mariadb, settings)


@pytest.mark.long
def test_the_command_says_it_in_one_line(shop: Shop, settings: Settings) -> None:
    """A warehouse that is down, and a DuckDB file that another process holds."""
    done = headwater(
        shop.settings, "publish", "--to", "mysql", code=1, extra={"HEADWATER_MYSQL__PORT": "1"}
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("headwater: MySQL 127.0.0.1:1/headwater: ")
    assert "Traceback" not in done.stderr
    with duckdb.connect(settings.duckdb):
        done = headwater(
            shop.settings, "publish", code=1, extra={"HEADWATER_DUCKDB": settings.duckdb}
        )
    assert f"headwater: DuckDB {settings.duckdb} cannot be opened" in done.stderr


@pytest.mark.parametrize(
    "job",
    [
        *(pytest.param(job, marks=pytest.mark.long) for job in ("reconcile", "gold", "maintain")),
        "publish",
    ],
)
def test_a_second_run_of_a_job_is_refused(bootstrap: str, tmp_path: Path, job: str) -> None:
    settings = settings_for(tmp_path, bootstrap)
    with held(settings, job, "x"):
        done = headwater(settings, job, code=1)
    assert f"is in use by process {os.getpid()}" in done.stderr
    assert not (tmp_path / "tables").exists(), "nothing was begun"


def test_mysql_takes_text_as_it_is_written(mariadb: MariaDB, settings: Settings) -> None:
    """A key that differs by case or accent alone is another key: the collation is binary."""
    from batch.warehouses import connect

    warehouse = connect("mysql", settings)
    try:
        warehouse.execute(
            "CREATE TABLE t (k VARCHAR(10) PRIMARY KEY) CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
        )
        for text in ("a", "A", "é", "e"):
            warehouse.execute("INSERT INTO t VALUES (%s)", text)
        with pytest.raises(WarehouseError, match="Duplicate"):
            warehouse.execute("INSERT INTO t VALUES (%s)", "a")
    finally:
        warehouse.close()
    assert mariadb.run("SELECT count(*) FROM t", database=settings.mysql.database) == [(4,)]


@pytest.mark.long
def test_a_server_is_verified_where_certificates_are_given(
    shop: Shop, settings: Settings, tmp_path: Path
) -> None:
    for name in ("right", "other", "db"):
        (tmp_path / name).mkdir()
    right, other = Authority(tmp_path / "right"), Authority(tmp_path / "other")
    server = mariadb(tmp_path / "db", right.server)
    try:
        server.run(
            "CREATE DATABASE tls",
            "CREATE USER 'tls'@'127.0.0.1' IDENTIFIED BY "
            f"'{os.environ['TEST_SECRET']}' REQUIRE SSL",
            "GRANT ALL ON tls.* TO 'tls'@'127.0.0.1'",
        )
        asked = MySQL(
            port=server.port,
            database="tls",
            user="tls",
            password="env:TEST_SECRET",
            ssl_ca=str(right.ca),
        )

        def publish_to(**changed: Any) -> publish.Result:
            there = asked.model_copy(update=changed)
            return copy(shop, settings.model_copy(update={"mysql": there}), "mysql")

        with pytest.raises(WarehouseError, match="certificate verify failed"):
            publish_to(ssl_ca=str(other.ca))
        with pytest.raises(WarehouseError, match=r"(?i)hostname mismatch"):
            publish_to(host="localhost")
        with pytest.raises(WarehouseError, match="certificate verify failed"):
            publish_to(ssl_ca="", ssl_mode="verify_identity")
        assert server.run("SHOW TABLES", database="tls") == []
        assert modes(publish_to()) == {"full"}
        assert len(server.run("SELECT * FROM dw_orders", database="tls")) > 0

        # And by the driver of Java, which the stages go by.
        def staged(**changed: Any) -> None:
            there = warehouses.MySQL(asked, settings.runtime_dir)
            there._settings = asked.model_copy(update=changed)
            layout = next(one for one in shop.layouts.gold if one.name == "dim_location")
            there.begin_stage("stage", layout)
            rows = tables.read(shop.spark, shop.settings, tables.gold(layout)).limit(0)
            try:
                there.stage("stage", rows)
            finally:
                there.close()

        staged()
        by_the_system = {"ssl_ca": "", "ssl_mode": "verify_identity"}
        for wrong in ({"ssl_ca": str(other.ca)}, {"host": "localhost"}, by_the_system):
            with pytest.raises(WarehouseError, match=r"is its certificate for this host"):
                staged(**wrong)
    finally:
        server.stop()


def test_a_server_that_nobody_vouches_for_is_refused_where_it_is_to_be_verified(
    shop: Shop, settings: Settings, mysql: MySQL
) -> None:
    """By its version it has a certificate that it made for itself, or no TLS at all."""
    wanted = mysql.model_copy(update={"ssl_mode": "verify_identity"})
    said = r"certificate verify failed.*is its certificate|SSL is required .*mysql.ssl_mode"
    with pytest.raises(WarehouseError, match=said) as refused:
        copy(shop, settings.model_copy(update={"mysql": wanted}), "mysql")
    assert "is it running" not in str(refused.value)
