"""Gold of a seeded run, against what DuckDB makes of the bytes and the ledger."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from batch import gold, maintain, publish, reconcile
from headwater import status
from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings, Stream
from producer import ledger
from producer.command import Sending, instant, send_shop, shop_of
from producer.defects import Record
from tests.helpers import drain, put, settings_for, table
from tests.oracle import different

SEED = 41


def seeded_run(
    spark: SparkSession, settings: Settings, contracts: Contracts, events: int, increments: int
) -> list[Record]:
    """A seeded run in Silver, in more versions of it than `increments`; returns what was sent."""
    send_shop(settings, Sending(events=events, seed=SEED))
    drain(spark, settings, contracts, "bronze")
    small = Stream(max_offsets_per_trigger=events // increments)
    drain(spark, settings.model_copy(update={"stream": small}), contracts, "silver")
    reconcile.reconcile_range(spark, settings, contracts)
    return list(islice(shop_of(SEED, instant(None, False), 0.3).records(), events))


# By entity, what is said anew of some of its members.
CORRECTED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "order": lambda d: {"status": "cancelled", "total": round(d["total"] + 1.5, 2)},
    "order_item": lambda d: {"quantity": d["quantity"] + 1},
    "payment": lambda d: {"amount": round(d["amount"] + 2.25, 2)},
    "product": lambda d: {"price": round(d["price"] + 3, 2), "category_id": "K002"},
    "customer": lambda _: {"last_name": "Corrected"},
    "address": lambda _: {"city": "Corrected"},
    "store": lambda _: {"city": "Corrected"},
    "inventory": lambda d: {"quantity": d["quantity"] + 7},
}


def corrections(records: list[Record], each: int = 12) -> list[Record]:
    """Events that correct some of every entity: half an hour after what they correct, which is
    before others that were sent long ago."""
    made: list[Record] = []
    for entity, change in CORRECTED.items():
        sound = [
            r for r in records if (r.entity, r.defect, r.outcome) == (entity, None, "accepted")
        ]
        for record in sound[:: max(1, len(sound) // each)]:
            said = json.loads(record.value or b"")
            moment = datetime.fromisoformat(said["time"]) + timedelta(minutes=30)
            said |= {"time": moment.isoformat(), "id": f"corrected-{len(made)}"}
            said["data"] |= change(said["data"])
            value = json.dumps(said).encode()
            made.append(record._replace(value=value, id=said["id"]))
    return made


def corrected(
    spark: SparkSession, house: Settings, contracts: Contracts, records: list[Record]
) -> list[Record]:
    """Sends corrections, and has the ledger know them."""
    sent = corrections(records)
    put(house, *(record.value for record in sent if record.value is not None))
    drain(spark, house, contracts)
    reconcile.reconcile_range(spark, house, contracts)
    names = ["topic", "partition", "offset", "value"]
    places = {row.pop("value"): row for row in table(house, "bronze/events", names).to_pylist()}
    lines = [
        {"number": len(records) + n, "source": r.source, "id": r.id, "entity": r.entity}
        | {"defect": None, "outcome": "accepted", "rules": []}
        | places[r.value]
        for n, r in enumerate(sent, start=1)
    ]
    known = pa.Table.from_pylist(lines, ledger.SCHEMA)
    pq.write_table(known, house.runtime_dir / "ledger" / "corrected-00000.parquet")
    return sent


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("events", "increments", "from_nothing"),
    [(4_000, 2, False), pytest.param(12_000, 11, True, marks=pytest.mark.long)],
)
def test_gold_equals_an_independent_engines(
    spark: SparkSession,
    bootstrap: str,
    contracts: Contracts,
    layouts: Layouts,
    tmp_path: Path,
    events: int,
    increments: int,
    from_nothing: bool,
) -> None:
    """After the first run, and after increments, late events among them.

    from_nothing: after corrected data, and after a rebuild without tables, too, which the first
    Gold of tests/e2e is.
    """
    house = settings_for(tmp_path, bootstrap)
    records = seeded_run(spark, house, contracts, events, increments)
    newest = tables.version(spark, house, tables.silver(contracts))
    first = gold.build(spark, house, contracts, layouts, until=1)
    assert first.mode == "full"
    assert different(house, records, 1) == {}
    written = 0
    for version in range(2, newest + 1):
        result = gold.build(spark, house, contracts, layouts, until=version)
        assert result.mode == "increment"
        written += result.rows
    assert newest > increments
    assert written > 100
    assert different(house, records) == {}

    if not from_nothing:
        return
    records += corrected(spark, house, contracts, records)
    result = gold.build(spark, house, contracts, layouts)
    assert (result.mode, result.rows > 100) == ("increment", True)
    assert different(house, records) == {}
    shutil.rmtree(f"{house.tables}/gold")
    assert gold.build(spark, house, contracts, layouts, rebuild=True).rows > 0
    assert different(house, records) == {}


@pytest.mark.long
def test_each_job_by_its_command_says_what_it_did(
    spark: SparkSession, bootstrap: str, contracts: Contracts, layouts: Layouts, tmp_path: Path
) -> None:
    house = settings_for(tmp_path, bootstrap)
    seeded_run(spark, house, contracts, 2_000, 2)
    newest = tables.version(spark, house, tables.silver(contracts))
    gold.build(spark, house, contracts, layouts)
    anew = gold.build(spark, house, contracts, layouts, rebuild=True)
    assert (anew.mode, anew.rows) == ("full", 0), "a rebuild finds nothing to change"

    asked: dict[click.Command, list[str]] = {
        reconcile.reconcile: [],
        gold.gold: [],
        maintain.maintain: [],
        publish.publish: ["--to", "duckdb"],
    }
    said = {}
    for command, arguments in asked.items():
        options = ["--json", "--data", house.storage, *arguments]
        done = CliRunner().invoke(command, options)
        assert done.exit_code == 0, done.output
        said[command.name] = json.loads(done.stdout)
    assert said["reconcile"]["pending"] == 0
    assert (said["gold"]["mode"], said["gold"]["until"]) == ("nothing", newest)
    assert {report["table"] for report in said["maintain"]} >= {"silver.events", "gold.dim_users"}
    [published] = said["publish"]["warehouses"].values()
    assert {table["mode"] for table in published} == {"full"}
    # Each is written down: what it read, what it wrote, and how it ended.
    runs = {job["job"]: job for job in status.jobs(house)}
    assert {job: runs[str(job)]["result"] for job in said} == dict.fromkeys(said, "succeeded")
    silver = {"silver.events": newest}
    assert runs["gold"]["read"] == silver
    assert silver.items() <= runs["reconcile"]["read"].items()
    assert silver.items() <= runs["maintain"]["read"].items()
    assert set(runs["publish"]["read"]) == {layout.full_name for layout in layouts.gold}
