"""A person is removed everywhere, and nobody else is."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from batch import audit, erase, gold, publish, quarantine, reconcile, refill, replay
from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.errors import HeadwaterError
from lakehouse.layouts import Layouts
from lakehouse.settings import MySQL, PostgreSQL, Settings
from producer.command import Sending, send_shop
from tests.helpers import drain, put, settings_for, table
from tests.samples import event
from tests.servers import MariaDB
from tests.servers import PostgreSQL as Server

KINDS = ("duckdb", "mysql", "postgresql")
COMPARED = {
    "bronze/events": ["topic", "partition", "offset", "key", "value", "headers", "date", "hour"],
    "silver/events": [
        *("topic", "partition", "offset", "date", "entity", "outcome", "violations", "written_by"),
        *("source", "id", "type", "subject", "digest", "key", "raw", "rescued"),
        *("customer", "address", "product", "payment"),
    ],
}


def mentions(value: Any, text: str) -> bool:
    if isinstance(value, bytes):
        return mentions(value.decode("latin-1"), text)
    if isinstance(value, dict):
        return any(mentions(inner, text) for inner in value.values())
    if isinstance(value, list | tuple):
        return any(mentions(inner, text) for inner in value)
    # One who is called nearly the same is somebody else.
    return isinstance(value, str) and bool(re.search(rf"\b{text}\b", value))


def files_that_mention(settings: Settings, text: str) -> set[str]:
    """Data files on disk, those of older versions too, by table."""
    found = set()
    for path in Path(settings.tables).rglob("*.parquet"):
        if "_delta_log" in path.parts or "ops/runs" in str(path):
            continue
        rows = pq.ParquetFile(path).read().to_pylist()
        if any(mentions(row, text) for row in rows):
            found.add("/".join(path.relative_to(settings.tables).parts[:2]))
    return found


def rows_without(rows: pa.Table, gone: pa.Table) -> list[tuple[Any, ...]]:
    """Rows of a table without those coordinates, in order."""
    with duckdb.connect() as db:
        db.register("rows", rows)
        db.register("gone", gone)
        return db.execute(
            'SELECT * FROM rows ANTI JOIN gone USING (topic, partition, "offset") '
            'ORDER BY topic, partition, "offset"'
        ).fetchall()


def outcomes(settings: Settings) -> dict[tuple[int, int], tuple[bytes, str]]:
    """By partition and offset: a record's bytes, and what became of it."""
    silver = table(settings, "silver/events", ["partition", "offset", "outcome"]).to_pylist()
    found = {(row["partition"], row["offset"]): row["outcome"] for row in silver}
    bronze = table(settings, "bronze/events", ["partition", "offset", "value"]).to_pylist()
    return {
        (row["partition"], row["offset"]): (
            row["value"] or b"",
            found.get((row["partition"], row["offset"]), "duplicate"),
        )
        for row in bronze
    }


def somebody(records: dict[tuple[int, int], tuple[bytes, str]]) -> tuple[str, Counter[str]]:
    """Who is in the most records, of all three outcomes; how many of each."""
    named: dict[str, Counter[str]] = {}
    for value, outcome in records.values():
        if found := re.search(rb'"customer_id": ?"(C[0-9]{8})"', value):
            named.setdefault(found[1].decode(), Counter())[outcome] += 1
    of_all = [item for item in named.items() if len(item[1]) == 3]
    return max(of_all, key=lambda item: item[1].total())


@pytest.mark.long
def test_a_person_is_erased_everywhere(
    spark: SparkSession,
    bootstrap: str,
    contracts: Contracts,
    layouts: Layouts,
    mariadb: MariaDB,
    mysql: MySQL,
    postgres: Server,
    postgresql: PostgreSQL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = settings_for(tmp_path, bootstrap, mysql=mysql, postgresql=postgresql)
    send_shop(shop, Sending(events=3_000, seed=91))
    drain(spark, shop, contracts)
    reconcile.reconcile_range(spark, shop, contracts)
    records = outcomes(shop)
    who, expected = somebody(records)

    # Not valid UTF-8, and their name in it; one who is called nearly the same; a repair.
    put(
        shop,
        b"\xff;" + who.encode() + b";Doe",
        b"\xff;" + who.encode() + b"7;Doe",
        event("category", {"category_id": "K001", "name": "B", "by": who}, id="erase-1"),
    )
    drain(spark, shop, contracts)
    reconcile.reconcile_range(spark, shop, contracts)
    broken = next(
        quarantine.Coordinates(shop.topics.events, row["partition"], row["offset"])
        for row in table(shop, "bronze/events", ["partition", "offset", "value"]).to_pylist()
        if row["value"] == b"\xff;" + who.encode() + b";Doe"
    )
    payload = json.dumps({"customer_id": who}).encode()
    quarantine.repair(spark, shop, contracts, broken, payload, "tester", f"about {who}")
    gold.build(spark, shop, contracts, layouts)
    publish.copy(spark, shop, layouts, KINDS)
    [before] = audit.audit_tables(spark, shop, contracts).balances
    assert files_that_mention(shop, who) >= {
        "bronze/events", "silver/events", "gold/dim_users", "gold/fact_orders", "ops/repairs"
    }  # fmt: skip
    whole = {name: table(shop, name, columns) for name, columns in COMPARED.items()}

    # One that cannot be read, and one that has them in a field that no contract knows; and all
    # that name them in another place than the one that was counted by.
    expected += Counter(quarantined=1, accepted=1)
    found = erase.find(spark, shop, contracts, [who]).groupBy("outcome").count().collect()
    counted = Counter({row.outcome: row["count"] for row in found})
    assert counted >= expected
    word = re.compile(rb"(?<![0-9A-Za-z])%b(?![0-9A-Za-z])" % who.encode())
    assert counted.total() == sum(
        bool(word.search(row["value"] or b"")) or row["key"] == who.encode()
        for row in whole["bronze/events"].to_pylist()
    )

    def erased() -> erase.Proof:
        return erase.erase_subject(spark, shop, contracts, layouts, [who], "tester")

    # Cut off before Gold knows of it; the next run ends what it began.
    def cut_off(*_: Any, **__: Any) -> None:
        raise SystemError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(gold, "build", cut_off)
        with pytest.raises(SystemError):
            erased()
    proof = erased()
    assert proof.complete
    assert proof.records == counted
    assert files_that_mention(shop, who) == set()
    assert who.encode() not in shop.duckdb_file.read_bytes()
    for name in ("dw_users", "dw_orders"):
        statement = f"SELECT count(*), sum(customer_id = '{who}') FROM {name}"
        [(rows, theirs)] = mariadb.run(statement, database=mysql.database)
        assert rows > 10
        assert not theirs
    for name in ("dim_users", "fact_orders"):
        theirs = f"count(*) FILTER (WHERE customer_id = '{who}')"
        statement = f"SELECT count(*), {theirs} FROM {name}"
        [(rows, named)] = postgres.run(statement, database=postgresql.database)
        assert rows > 10
        assert not named

    # The balance is what it was, and everybody else's rows are.
    found_after = audit.audit_tables(spark, shop, contracts)
    assert found_after.broken == []
    assert found_after.balances == [before]
    gone = table(shop, "ops/erasures")
    assert gone.num_rows == counted.total()
    for name, columns in COMPARED.items():
        assert rows_without(table(shop, name, columns), gone) == rows_without(whole[name], gone)

    # Nothing brings them back: not a replay of everything, not the broker, not a rebuild.
    replay.replay_range(spark, shop, contracts, replay.Range(0))
    assert refill.refill(spark, shop) == 0
    reconcile.reconcile_range(spark, shop, contracts)
    gold.build(spark, shop, contracts, layouts, rebuild=True)
    assert files_that_mention(shop, who) == set()
    found_after = audit.audit_tables(spark, shop, contracts)
    assert (found_after.broken, found_after.balances) == ([], [before])
    with pytest.raises(HeadwaterError, match="was erased"):
        quarantine.repair(spark, shop, contracts, broken, payload, "tester", "")
    assert quarantine.story(spark, shop, contracts, broken, True)["payload"] == "erased"
    # A copy that comes later is still one.
    again = next(
        value
        for value, outcome in records.values()
        if outcome == "accepted" and who.encode() in value
    )
    put(shop, again)
    drain(spark, shop, contracts)
    reconcile.reconcile_range(spark, shop, contracts)
    [after] = audit.audit_tables(spark, shop, contracts).balances
    assert (after.accepted, after.duplicates) == (before.accepted, before.duplicates + 1)
    assert erased().records == {"duplicate": 1}
    assert tables.read(spark, shop, tables.bronze()).count() == before.bronze + 1
