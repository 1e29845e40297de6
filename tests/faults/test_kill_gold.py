"""Gold and publish killed in the middle: what comes out is what an undisturbed run gives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyspark.sql import SparkSession

from batch import audit, gold, publish, reconcile
from batch.warehouses import mysql as warehouses
from lakehouse.contracts import Contracts
from lakehouse.errors import QualityError, WarehouseError
from lakehouse.layouts import Layouts
from lakehouse.settings import MySQL, PostgreSQL, Settings
from producer.command import Sending, instant, send_shop, shop_of
from tests.helpers import (
    BIN,
    ROOT,
    drain,
    environment,
    settings_for,
    table,
    unlike_the_ledger,
)
from tests.integration.test_publish import agree, in_mariadb
from tests.integration.test_publish_postgresql import names as names_postgresql
from tests.oracle import different
from tests.published import Meddled, agree_in_postgres, copy, deadlock
from tests.samples_gold import ADDRESS, CATEGORY, CUSTOMER, PRODUCT, Shop, line, order
from tests.servers import MariaDB
from tests.servers import PostgreSQL as Server


@pytest.mark.long
def test_two_runs_of_gold_at_once(
    spark: SparkSession, contracts: Contracts, layouts: Layouts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "data", bootstrap)
    shop = Shop(spark, settings, contracts, layouts)
    shop.say(
        ("10:00", "customer", CUSTOMER),
        ("10:00", "address", ADDRESS),
        ("15:00", "order", order(1, "15:00")),
        ("15:00", "order_item", line(1)),
    )
    # The shop's table has fewer entities than there are contracts.
    folder = contracts_of(shop, layouts, tmp_path)
    two_at_once(settings, {"HEADWATER_CONTRACTS": str(folder)}, tmp_path)
    assert shop.build(rebuild=True).rows == 0
    assert len(shop.rows("fact_orders")) == 1


def two_at_once(settings: Settings, extra: dict[str, str], place: Path) -> None:
    """Two runs of Gold, from two runtime folders: one does it, the other one says who does."""
    runs = [
        subprocess.Popen(
            [str(BIN / "headwater"), "gold"],
            env=environment(settings) | extra | {"HEADWATER_RUNTIME": str(place / name)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "other")
    ]
    said = [run.communicate()[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1], said
    [refused] = [text for run, text in zip(runs, said, strict=True) if run.returncode]
    [done] = [run.pid for run in runs if not run.returncode]
    assert f"gold.* (job gold) is in use by process {done}" in refused


def contracts_of(shop: Shop, layouts: Layouts, place: Path) -> Path:
    """A folder with the contracts that a shop's tables were made by."""
    folder = place / "contracts"
    for path in [*(c.path for c in shop.contracts.values()), *(o.path for o in layouts.values())]:
        copied = folder / path.relative_to(shop.contracts["order"].path.parent)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(path.read_text())
    return folder


@pytest.mark.long
@pytest.mark.parametrize("kind", ["duckdb", "mysql", "postgresql"])
def test_publish_killed_at_ten_random_moments(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    bootstrap: str,
    kind: str,
    mariadb: MariaDB,
    mysql: MySQL,
    postgres: Server,
    postgresql: PostgreSQL,
    tmp_path: Path,
) -> None:
    """The driver and its JVM at once, anywhere between its first look at Gold and its end; then the
    next run, which brings what changed."""
    more = {"mysql": mysql, "postgresql": postgresql, "duckdb": str(tmp_path / "w.duckdb")}
    settings = settings_for(tmp_path / "data", bootstrap).model_copy(update=more)
    shop = Shop(spark, settings, contracts, layouts)
    shop.say(
        ("10:00", "customer", CUSTOMER),
        ("10:00", "address", ADDRESS),
        ("09:00", "product", PRODUCT),
        ("15:00", "order", order(1, "15:00")),
        ("15:00", "order_item", line(1)),
    )
    shop.build()
    surroundings = environment(settings) | {
        "HEADWATER_CONTRACTS": str(contracts_of(shop, layouts, tmp_path)),
        "HEADWATER_DUCKDB": settings.duckdb,
        **{
            f"HEADWATER_{name}__{key}": str(getattr(there, key.lower()))
            for name, there in (("MYSQL", mysql), ("POSTGRESQL", postgresql))
            for key in ("PORT", "DATABASE", "USER", "PASSWORD")
        },
    }

    def begun() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(BIN / "headwater"), "publish", "--to", kind, "--full"],
            env=surroundings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        while line := process.stderr.readline():
            if line.startswith("publishing"):
                return process
        raise AssertionError(f"exit code {process.wait()}")

    process, started = begun(), time.monotonic()
    assert process.wait(120) == 0
    lasts = time.monotonic() - started
    chance = random.Random(kind)
    killed = 0
    while killed < 10:
        process = begun()
        with suppress(subprocess.TimeoutExpired):
            # The moment is what is random here: there is nothing to wait for.
            process.wait(chance.uniform(0, lasts))
        os.killpg(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        shop.sql(f"UPDATE {{dim_users}} SET last_name = 'No. {killed}' WHERE is_current")
        publish.copy(shop.spark, settings, layouts, (kind,), gate=False)
        if kind == "postgresql":
            agree_in_postgres(shop, postgres, settings)
        else:
            publish.copy(shop.spark, settings, layouts, ("duckdb", "mysql"), gate=False)
            agree(shop, mariadb, settings)


@pytest.mark.long
def test_killed_in_the_middle_of_gold_and_of_publish(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    bootstrap: str,
    mariadb: MariaDB,
    postgres: Server,
    postgresql: PostgreSQL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database, password = f"dw_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    mariadb.run(
        f"CREATE DATABASE {database}",
        f"CREATE OR REPLACE USER 'killed'@'%' IDENTIFIED BY '{password}'",
        f"GRANT ALL ON {database}.* TO 'killed'@'%'",
    )
    monkeypatch.setenv("TEST_SECRET", password)
    mysql = MySQL(port=mariadb.port, database=database, user="killed", password="env:TEST_SECRET")
    settings = settings_for(tmp_path / "data", bootstrap)
    settings = settings.model_copy(
        update={
            "mysql": mysql,
            "postgresql": postgresql,
            "duckdb": str(tmp_path / "warehouse.duckdb"),
        }
    )
    shop = Shop(spark, settings, contracts, layouts)
    folder = contracts_of(shop, layouts, tmp_path)
    surroundings = environment(settings) | {
        "HEADWATER_CONTRACTS": str(folder),
        "HEADWATER_DUCKDB": settings.duckdb,
        "HEADWATER_MYSQL__PORT": str(mysql.port),
        "HEADWATER_MYSQL__DATABASE": database,
        "HEADWATER_MYSQL__USER": "killed",
        "HEADWATER_MYSQL__PASSWORD": "env:TEST_SECRET",
        "HEADWATER_POSTGRESQL__PORT": str(postgresql.port),
        "HEADWATER_POSTGRESQL__DATABASE": postgresql.database,
        "HEADWATER_POSTGRESQL__USER": postgresql.user,
        "HEADWATER_POSTGRESQL__PASSWORD": str(postgresql.password),
    }

    def killed(what: str, moment: str, *command: str) -> None:
        died = subprocess.run(
            [sys.executable, "-m", "tests.faults.die_at", what, moment, "1", *command],
            cwd=ROOT,
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL, f"{what} {moment}: {died.stderr[-2000:]}"

    shop.say(
        ("10:00", "customer", CUSTOMER),
        ("10:00", "address", ADDRESS),
        ("09:00", "product", PRODUCT),
        ("09:00", "category", CATEGORY),
        *(("15:00", "order", order(n, "15:00")) for n in range(1, 4)),
        *(("15:00", "order_item", line(n)) for n in range(1, 4)),
    )
    assert shop.build().mode == "full"
    kinds = ("duckdb", "mysql", "postgresql")

    def all_agree() -> None:
        agree(shop, mariadb, settings)
        agree_in_postgres(shop, postgres, settings)

    publish.copy(spark, settings, layouts, kinds)

    # An increment that takes orders from one customer's version to another's, and a customer's
    # only order to somebody else.
    shop.say(
        ("14:00", "customer", {**CUSTOMER, "loyalty_tier": "gold"}),
        ("16:00", "order", order(3, "15:00", "paid", customer_id="C00000009")),
        ("16:00", "order_item", line(1, product_id="P00002")),
    )
    for name in ("gold.dim_users", "gold.fact_orders", "gold.fact_order_items"):
        killed(name, "before", "gold")
        killed(name, "after", "gold")
    assert shop.build().mode == "increment", "the run that died is not one to go on from"
    assert shop.build(rebuild=True).rows == 0, "nothing was left behind"
    assert {(r["customer_id"], r["orders"]) for r in shop.rows("agg_user_metrics")} == {
        ("C00000001", 2),
        ("C00000009", 1),
    }
    # Each of them dies once before its COMMIT and once after it, with an increment every time.
    turns = (("before", "after", "before"), ("after", "before", "after"))
    for number, moments in enumerate(turns, start=4):
        for kind, moment in zip(kinds, moments, strict=True):
            killed(kind, moment, "publish", "--to", kind)
        again = publish.copy(spark, settings, layouts, kinds)
        for moment, tables in zip(moments, again.warehouses.values(), strict=True):
            sent = sum(table.staged for table in tables)
            assert (sent > 0) == (moment == "before"), "what was committed is not sent again"
        all_agree()
        shop.say(("17:00", "order", order(number, "17:00")))
        assert shop.build().rows > 0
    publish.copy(spark, settings, layouts, kinds)
    all_agree()
    left = {name for (name,) in mariadb.run("SHOW TABLES", database=database)}
    left |= names_postgresql(postgres, settings)
    assert not {name for name in left if name.startswith("headwater_stage_")}


# Of a real shop: which command dies at which moment, one a turn, and nothing mends it before the
# next one but what comes after it.
DEATHS = (
    ("gold.dim_users", "after", "gold"),
    ("gold.fact_orders", "before", "gold"),
    ("gold.fact_order_items", "after", "gold"),
    ("duckdb", "before", "publish"),
    ("duckdb", "after", "publish"),
)
EACH, SEED = 800, 31


@pytest.mark.long
def test_a_shop_whose_jobs_die_ends_on_the_audit_and_the_ledger(
    spark: SparkSession, contracts: Contracts, layouts: Layouts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "data", bootstrap)
    for turn, (what, moment, command) in enumerate(DEATHS):
        send_shop(settings, Sending(events=EACH, seed=SEED, go_on=turn > 0))
        drain(spark, settings, contracts)
        reconcile.reconcile_range(spark, settings, contracts)
        if command == "publish":
            gold.build(spark, settings, contracts, layouts)
        died = subprocess.run(
            [sys.executable, "-m", "tests.faults.die_at", what, moment, "1", command],
            cwd=ROOT,
            env=environment(settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL, f"{what} {moment}: {died.stderr[-2000:]}"
    gold.build(spark, settings, contracts, layouts)
    publish.copy(spark, settings, layouts, ("duckdb",))
    demand_whole(spark, settings, contracts, layouts, len(DEATHS) * EACH)


def demand_whole(
    spark: SparkSession, settings: Settings, contracts: Contracts, layouts: Layouts, records: int
) -> None:
    """The audit, the ledger, Gold as DuckDB makes it of the bytes, and the warehouse's file."""
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    assert sum(balance.bronze for balance in found.balances) == records
    assert sum(balance.pending for balance in found.balances) == 0
    assert unlike_the_ledger(settings) == []
    shop = shop_of(SEED, instant(None, False), 0.3)
    assert different(settings, list(islice(shop.records(), records))) == {}
    with duckdb.connect(str(settings.duckdb_file), read_only=True) as db:
        for layout in layouts.gold:
            rows = table(settings, f"gold/{layout.name}")
            db.register("gold", rows)
            columns = ", ".join(f'"{name}"' for name in rows.column_names)
            there, here = (f'SELECT {columns} FROM "{name}"' for name in (layout.name, "gold"))
            differing = f"({there} EXCEPT ALL {here}) UNION ALL ({here} EXCEPT ALL {there})"
            assert db.execute(differing).fetchall() == [], layout.name


@pytest.mark.long
def test_a_shop_whose_warehouse_fails_ends_on_the_audit_and_the_ledger(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    bootstrap: str,
    mariadb: MariaDB,
    mysql: MySQL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two Gold runs at once, a deadlock, a connection cut, a server gone, a key that collides."""
    settings = settings_for(tmp_path / "data", bootstrap).model_copy(
        update={"mysql": mysql, "duckdb": str(tmp_path / "warehouse.duckdb")}
    )
    shop = Shop(spark, settings, contracts, layouts, contracts)
    sent = 0

    def go_on() -> None:
        nonlocal sent
        send_shop(settings, Sending(events=EACH, seed=SEED, go_on=sent > 0))
        sent += EACH
        drain(spark, settings, contracts)
        reconcile.reconcile_range(spark, settings, contracts)

    go_on()
    two_at_once(settings, {}, tmp_path)
    copy(shop, settings)
    agree(shop, mariadb, settings)

    go_on()
    assert shop.build().mode == "increment"
    with deadlock(monkeypatch, mariadb, settings) as met:
        copy(shop, settings, full=True)
    assert met.times == 2, "tried again once"
    agree(shop, mariadb, settings)

    def cut(warehouse: Any) -> None:
        mariadb.run(f"KILL {warehouse._connection.thread_id()}")

    def gone(_: Any) -> None:
        assert mariadb.process is not None
        mariadb.process.kill()
        mariadb.process.wait()

    for moment, what in (("BEGIN", cut), ("INSERT INTO `dw_orders`", gone), ("COMMIT", cut)):
        go_on()
        assert shop.build().rows > 0
        before = in_mariadb(mariadb, settings, "dw_orders")
        with monkeypatch.context() as patch:
            met = Meddled(patch, warehouses.MySQL, moment, what)
            with pytest.raises(WarehouseError, match="is it running"):
                copy(shop, settings, "mysql")
            assert met.times == 1
        if what is gone:
            mariadb.start()
        assert in_mariadb(mariadb, settings, "dw_orders") == before

    go_on()
    shop.build()
    shop.sql("INSERT INTO {dim_product} SELECT * FROM {dim_product} LIMIT 1")
    with pytest.raises(QualityError, match=r"product_key once: .*: 2 rows"):
        copy(shop, settings, "mysql")
    with pytest.raises(WarehouseError, match="Duplicate entry"):
        publish.copy(spark, settings, layouts, ("mysql",), gate=False)
    assert in_mariadb(mariadb, settings, "dw_orders") == before
    assert shop.build(rebuild=True).rows > 0, "the second row goes"
    copy(shop, settings)
    agree(shop, mariadb, settings)
    demand_whole(spark, settings, contracts, layouts, sent)
