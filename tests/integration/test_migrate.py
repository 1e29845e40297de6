"""A contract changes: what becomes of the warehouses' tables, in each real kind."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batch import publish
from batch.warehouses import connect
from batch.warehouses.base import STATE
from lakehouse import runs
from lakehouse.errors import WarehouseError
from lakehouse.layouts import Layouts
from lakehouse.settings import MySQL, PostgreSQL, Settings
from tests.published import copy, gold_rows, modes
from tests.samples_gold import Shop
from tests.servers import MariaDB
from tests.servers import PostgreSQL as Server

NAMES = {"duckdb": "dim_product", "mysql": "dw_products", "postgresql": "dim_product"}
Rows = Callable[[], list[tuple[Any, ...]]]


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(shop: Shop, mysql: MySQL, postgresql: PostgreSQL, tmp_path: Path) -> Settings:
    return shop.settings.model_copy(
        update={"mysql": mysql, "postgresql": postgresql, "duckdb": str(tmp_path / "w.duckdb")}
    )


@pytest.fixture
def products(kind: str, settings: Settings, mariadb: MariaDB, postgres: Server) -> Rows:
    """Ids and brands, by a driver of the database's own."""
    query = f"SELECT product_id, brand FROM {NAMES[kind]} ORDER BY 1"

    def of_duckdb() -> list[tuple[Any, ...]]:
        with duckdb.connect(settings.duckdb, read_only=True) as db:
            return db.execute(query).fetchall()

    return {
        "duckdb": of_duckdb,
        "mysql": lambda: mariadb.run(query, database=settings.mysql.database),
        "postgresql": lambda: postgres.run(query, database=settings.postgresql.database),
    }[kind]


def narrowed(shop: Shop, settings: Settings, layouts: Layouts, kind: str) -> publish.Result:
    """Publishes by contracts that know less than Gold has."""
    return publish.copy(shop.spark, settings, layouts, (kind,))


def without(layouts: Layouts, column: str) -> Layouts:
    """The same contracts, dim_product's without a column."""
    return Layouts(
        [
            dataclasses.replace(one, columns=tuple(c for c in one.columns if c.name != column))
            if one.name == "dim_product"
            else one
            for one in layouts.values()
        ]
    )


@pytest.mark.long
def test_a_new_column_is_added_and_filled(
    shop: Shop,
    settings: Settings,
    layouts: Layouts,
    kind: str,
    products: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrowed(shop, settings, without(layouts, "brand"), kind)
    before = held(settings, kind)

    # It fails between the new column and the rows: all is as it was.
    with monkeypatch.context() as patch:
        patch.setattr("batch.warehouses.base.Warehouse.merge", cut_off)
        with pytest.raises(SystemError):
            copy(shop, settings, kind)
        assert held(settings, kind) == before
        # It dies there: the column is not taken for filled.
        patch.setattr("batch.warehouses.base.Warehouse.take_back", cut_off)
        with pytest.raises(SystemError):
            copy(shop, settings, kind)
    copied = copy(shop, settings, kind)
    [tables] = copied.warehouses.values()
    assert {t.name for t in tables if t.mode == "full"} == {NAMES[kind]}
    assert products() == [("P00001", "Lux")]
    run = runs.last(shop.spark, settings, publish.JOB)
    assert run is not None
    assert f'"name": "{NAMES[kind]}"' in run.details
    assert '"seconds": ' in run.details


def held(settings: Settings, kind: str) -> tuple[Any, ...]:
    """Columns of the table, and what is known of all."""
    warehouse = connect(kind, settings)
    try:
        state = warehouse.execute(f"SELECT * FROM {STATE} ORDER BY table_name")
        return warehouse.forms(NAMES[kind]), state
    finally:
        warehouse.close()


def cut_off(*_: Any) -> None:
    raise SystemError("cut off")


@pytest.mark.long
def test_what_cannot_be_migrated_says_what_to_do(
    shop: Shop, settings: Settings, layouts: Layouts, kind: str, products: Rows
) -> None:
    copy(shop, settings, kind)
    # A column less: the statement is in the message, and does it.
    with pytest.raises(WarehouseError, match=r"does not know \(brand\)") as refused:
        narrowed(shop, settings, without(layouts, "brand"), kind)
    assert products() == [("P00001", "Lux")]
    statement = re.findall(r"`(ALTER TABLE .*)`", str(refused.value), re.DOTALL)[0]
    run(settings, kind, statement)
    narrowed(shop, settings, without(layouts, "brand"), kind)
    # It is back: added again.
    copy(shop, settings, kind)
    assert products() == [("P00001", "Lux")]

    # One that no row may be without.
    run(settings, kind, f"ALTER TABLE {NAMES[kind]} DROP COLUMN is_inferred")
    with pytest.raises(WarehouseError, match=r"no column is_inferred") as refused:
        copy(shop, settings, kind)
    run(settings, kind, re.findall(r"`(DROP TABLE .*)`", str(refused.value))[0])
    copy(shop, settings, kind)
    assert products() == [("P00001", "Lux")]
    assert len(gold_rows(shop, "dim_product")) == 1


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mysql", "postgresql"], indirect=True)
def test_a_value_that_a_table_is_too_narrow_for(
    shop: Shop, settings: Settings, layouts: Layouts, kind: str, products: Rows
) -> None:
    narrow = [
        dataclasses.replace(
            one,
            columns=tuple(
                dataclasses.replace(c, max_length=2) if c.name == "brand" else c
                for c in one.columns
            ),
        )
        if one.name == "dim_product"
        else one
        for one in layouts.values()
    ]
    shop.sql("UPDATE {dim_product} SET brand = 'L'")
    narrowed(shop, settings, Layouts(narrow), kind)
    shop.sql("UPDATE {dim_product} SET brand = 'Lux'")
    with pytest.raises(WarehouseError, match="narrower contract: publish makes it anew") as refused:
        copy(shop, settings, kind)
    assert products() == [("P00001", "L")]
    run(settings, kind, re.findall(r"`(DROP TABLE .*)`", str(refused.value))[0])
    copy(shop, settings, kind)
    assert products() == [("P00001", "Lux")]


@pytest.mark.long
def test_a_table_of_other_types_is_told_with_what_mends_it(
    shop: Shop, settings: Settings, kind: str, products: Rows
) -> None:
    """Changed by hand, or made for a contract that said something else."""
    copy(shop, settings, kind)
    name = NAMES[kind]
    by_hand = {
        "duckdb": f"ALTER TABLE {name} ALTER COLUMN price TYPE DECIMAL(14,4)",
        "mysql": f"ALTER TABLE {name} MODIFY COLUMN price DECIMAL(14,4)",
        "postgresql": f"ALTER TABLE {name} ALTER COLUMN price TYPE NUMERIC(14,4)",
    }[kind]
    not_null = {
        "duckdb": f"ALTER TABLE {name} ALTER COLUMN brand SET NOT NULL",
        "mysql": f"ALTER TABLE {name} MODIFY COLUMN brand VARCHAR(255) NOT NULL",
        "postgresql": f"ALTER TABLE {name} ALTER COLUMN brand SET NOT NULL",
    }[kind]

    def refused(column: str) -> str:
        with pytest.raises(WarehouseError, match="is not as its contract has it") as error:
            copy(shop, settings, kind)
        assert f"({column} is " in str(error.value)
        return str(re.findall(r"goes on after `(.*)`, or, where", str(error.value))[0])

    run(settings, kind, by_hand)
    run(settings, kind, refused("price"))
    assert modes(copy(shop, settings, kind)) == {"nothing"}
    run(settings, kind, not_null)
    shop.sql("UPDATE {dim_product} SET brand = NULL")
    run(settings, kind, refused("brand"))
    copy(shop, settings, kind)
    assert products() == [("P00001", None)]
    if kind == "postgresql":
        # Of a text it makes nothing else without being told how.
        run(settings, kind, f"ALTER TABLE {name} ALTER COLUMN is_inferred TYPE TEXT")
        shop.sql("UPDATE {dim_product} SET brand = 'Rex'")
        run(settings, kind, refused("is_inferred"))
        copy(shop, settings, kind)
    shop.sql("UPDATE {dim_product} SET brand = 'Lux'")
    copy(shop, settings, kind)
    assert products() == [("P00001", "Lux")]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mysql", "postgresql"], indirect=True)
def test_a_key_that_is_gone_and_a_row_that_is_there_twice(
    shop: Shop, settings: Settings, kind: str, products: Rows
) -> None:
    copy(shop, settings, kind)
    key = {"mysql": "PRIMARY KEY", "postgresql": "CONSTRAINT dim_product_pkey"}[kind]
    name = NAMES[kind]
    run(settings, kind, f"ALTER TABLE {name} DROP {key}")
    run(settings, kind, f"INSERT INTO {name} SELECT * FROM {name}")
    shop.sql("UPDATE {dim_product} SET brand = 'Rex'")
    with pytest.raises(WarehouseError, match="its primary key is gone") as error:
        copy(shop, settings, kind)
    run(settings, kind, re.findall(r"makes the table anew after `(.*)`", str(error.value))[0])
    copy(shop, settings, kind)
    assert products() == [("P00001", "Rex")]


@pytest.mark.long
def test_changes_that_nobody_can_tell_any_more_are_a_full_copy(
    shop: Shop, settings: Settings, kind: str, products: Rows
) -> None:
    copy(shop, settings, kind)
    shop.sql("UPDATE {dim_product} SET brand = 'Rex'")
    # As VACUUM leaves it, where a target was away for longer than changes are kept.
    kept = Path(shop.settings.tables, "gold/dim_product/_change_data")
    kept.rename(kept.with_name("_gone"))
    try:
        copied = copy(shop, settings, kind)
    finally:
        kept.with_name("_gone").rename(kept)
        shop.sql("UPDATE {dim_product} SET brand = 'Lux'")
    [tables] = copied.warehouses.values()
    assert {t.name for t in tables if t.mode == "full"} == {NAMES[kind]}
    assert products() == [("P00001", "Rex")]


def run(settings: Settings, kind: str, statement: str) -> None:
    """Runs a statement as whom Headwater is there."""
    warehouse = connect(kind, settings)
    try:
        for one in statement.split("; "):
            warehouse.execute(one)
    finally:
        warehouse.close()
