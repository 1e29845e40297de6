"""What all of Gold costs, made from nothing, beside DuckDB with the same SQL on the same Parquet.

    headwater bench gold_rebuild [--events 1000000]

Both read the files of silver.events and write every table of Gold as Parquet. DuckDB's statements
are those of tests/oracle.py from the typed rows on, which the tests hold Gold against; at the end
both have the same rows, or the benchmark fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import measure
from benchmarks.gold_increment import take

if TYPE_CHECKING:
    from lakehouse.settings import Settings

# The last event of each key: what tests/oracle.py works out from bytes, from typed columns.
LAST = """
row_number() OVER (PARTITION BY {0}
  ORDER BY time DESC, timestamp DESC, topic DESC, partition DESC, "offset" DESC) = 1
"""


def _last(entity: str, columns: str, *key: str) -> str:
    keys = ", ".join(name if name == "time" else f'"{entity}".{name}' for name in key)
    return (
        f"SELECT {columns} FROM silver WHERE entity = '{entity}' AND outcome = 'accepted' "
        f"QUALIFY {LAST.format(keys)}"
    )


def _states(entity: str, natural: str, fields: list[str]) -> str:
    state = ", ".join(f"'{name}': \"{entity}\".{name}" for name in fields)
    columns = f'"{entity}".{natural} AS member, time AS moment, {{{state}}} AS state'
    return _last(entity, columns, natural, "time")


@click.command()
@click.option("--events", default=1_000_000, show_default=True, help="Records in Silver.")
@click.option("--rounds", default=3, show_default=True, help="Rebuilds of each.")
@measure.json_option
def main(events: int, rounds: int, as_json: bool) -> None:
    """What all of Gold costs, made from nothing, beside DuckDB."""
    from batch import gold
    from lakehouse import contracts, layouts, settings
    from lakehouse.session import spark as make_session
    from producer.command import instant, shop_of

    with tempfile.TemporaryDirectory() as folder:
        house = settings.load("local", storage=folder)
        loaded = contracts.load(house.contracts_dir)
        known = layouts.load(house.contracts_dir, loaded)
        spark = make_session(house, "benchmark")
        records = shop_of(1, instant(None, False), 0.3).records()
        take(spark, house, loaded, records, 0, events)
        ours, theirs = Path(house.tables, "gold"), Path(folder, "duckdb")

        def by_headwater() -> None:
            gold.build(spark, house, loaded, known, rebuild=True)

        def by_duckdb() -> None:
            _duckdb(house, theirs)

        def anew(work: str) -> float:
            shutil.rmtree({"Headwater": ours, "DuckDB": theirs}[work], ignore_errors=True)
            return measure.seconds({"Headwater": by_headwater, "DuckDB": by_duckdb}[work])()

        cases = {"DuckDB": lambda: anew("DuckDB"), "Headwater": lambda: anew("Headwater")}
        found = measure.take_turns(cases, rounds)
        _demand_equal(house, theirs)
        spark.stop()
    rates = {name: [events / taken for taken in values] for name, values in found.items()}
    notes = {"records in Silver": events}
    result = measure.Result(
        "All of Gold, made anew", "records of Silver/s", "DuckDB", rates, notes, {"Headwater": 0.5}
    )
    measure.show(result, as_json)


def _duckdb(house: Settings, folder: Path) -> None:
    import duckdb
    from deltalake import DeltaTable

    from tests import oracle

    folder.mkdir()
    order = """
        "order".order_id, "order".customer_id, "order".address_id, "order".store_id,
        "order".channel, "order".status, time AS status_at, "order".placed_at, "order".item_count,
        "order".subtotal, "order".shipping_fee, "order".total, "order".currency
    """
    line = """
        order_item.order_id, order_item.line_number, order_item.product_id, time AS sold_at,
        order_item.quantity, order_item.unit_price, order_item.line_total, order_item.currency
    """
    payment = """
        payment.payment_id, payment.order_id, time AS paid_at, payment.method, payment.status,
        payment.amount, payment.currency
    """
    count = """
        inventory.store_id, inventory.product_id, time AS moment, time::DATE AS day,
        inventory.quantity, inventory.reorder_level
    """
    user = [*oracle.USER, "marketing_opt_in"]
    typed = {
        "orders": _last("order", order, "order_id"),
        "lines": _last("order_item", line, "order_id", "line_number"),
        "customers": _states("customer", "customer_id", user),
        "addresses": _states("address", "address_id", oracle.PLACE),
        "stores": _states("store", "store_id", oracle.SHOP),
        "payments": _last("payment", payment, "payment_id"),
        "counts": f"""
            SELECT {count} FROM silver WHERE entity = 'inventory' AND outcome = 'accepted'
            QUALIFY {LAST.format("inventory.store_id, inventory.product_id, time::DATE")}
        """,
        "stock": oracle.TABLES["stock"],
        "products": _last("product", "unnest(product)", "product_id"),
        "categories": _last("category", "unnest(category)", "category_id"),
    }
    category = f"""
        SELECT {oracle.KEY.format("category_id")} AS category_key, category_id, name, parent_id,
          false AS is_inferred FROM categories
    """
    with duckdb.connect(config={"threads": str(os.cpu_count())}) as db:
        db.execute("SET TimeZone = 'UTC'")
        files = DeltaTable(f"{house.tables}/silver/events").file_uris()
        db.execute(f"CREATE VIEW silver AS FROM read_parquet({files!r}, hive_partitioning = false)")
        for name, query in {**typed, **oracle.GOLD, "dim_category": category}.items():
            db.execute(f"CREATE TABLE {name} AS {query}")
            if name in oracle.GOLD and name != "years":
                db.execute(f"COPY {name} TO '{folder}/{name}.parquet'")


def _demand_equal(house: Settings, folder: Path) -> None:
    """Raises AssertionError where a table has other rows."""
    import duckdb

    from tests.helpers import table

    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for file in sorted(folder.glob("*.parquet")):
            rows = table(house, f"gold/{file.stem}")
            db.register("ours", rows)
            columns = ", ".join(f'"{name}"' for name in rows.column_names)
            here, there = f"SELECT {columns} FROM ours", f"SELECT {columns} FROM '{file}'"
            differing = f"({here} EXCEPT ALL {there}) UNION ALL ({there} EXCEPT ALL {here}) LIMIT 3"
            assert not (wrong := db.execute(differing).fetchall()), f"{file.stem}: {wrong}"


if __name__ == "__main__":
    main()
