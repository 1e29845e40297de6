"""Through a real broker into Bronze and Silver, against the ledger and an independent reader."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse import contracts as contract_files
from lakehouse import kafka, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import BrokerError
from lakehouse.locks import held
from lakehouse.settings import Settings
from producer.ahead import blocks
from producer.command import Sending, instant, send_foreign, send_shop, shop_of
from producer.defects import Record
from producer.kafka_sink import send
from producer.ledger import Ledger
from tests.helpers import drain, environment, headwater, put, settings_for, table, unlike_the_ledger
from tests.house import category

SEED, EVENTS = 11, 15_000
SQL_TYPES = {"bigint": "BIGINT", "int": "INTEGER", "double": "DOUBLE", "string": "VARCHAR"}


@pytest.fixture(scope="module")
def house(
    spark: SparkSession,
    contracts: Contracts,
    bootstrap: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """A seeded run: sent, streamed, reconciled."""
    settings = settings_for(tmp_path_factory.mktemp("house"), bootstrap)
    report = send_shop(settings, Sending(events=EVENTS, seed=SEED))
    assert (report.acknowledged, report.failed) == (EVENTS, 0)
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    return settings


def test_every_record_has_the_outcome_of_its_ledger_line(house: Settings) -> None:
    assert unlike_the_ledger(house) == []


def test_the_law_holds(spark: SparkSession, house: Settings, contracts: Contracts) -> None:
    found = audit.audit_tables(spark, house, contracts)
    assert found.broken == []
    [balance] = found.balances
    assert balance.bronze == EVENTS == balance.accepted + balance.quarantined + balance.duplicates
    lines = duckdb.execute(
        f"SELECT outcome, count(*) FROM read_parquet('{house.runtime_dir}/ledger/*.parquet') "
        "GROUP BY outcome"
    ).fetchall()
    assert dict(lines) == {
        "accepted": balance.accepted,
        "quarantined": balance.quarantined,
        "duplicate": balance.duplicates,
    }


def test_the_command_ends_with_1_where_the_law_does_not_hold(
    spark: SparkSession, house: Settings, tmp_path: Path
) -> None:
    """On a copy, of which one record of Bronze is taken away."""
    shutil.copytree(house.tables, tmp_path / "tables")
    copy = house.model_copy(update={"storage": str(tmp_path)})
    place = tables.quoted_path(tables.bronze().path(copy))
    [gone] = spark.sql(f"SELECT * FROM {place} WHERE partition = 1 AND offset = 7").collect()

    def asked() -> tuple[int, list[dict[str, Any]], str]:
        done = CliRunner().invoke(audit.audit, ["--json"], env=environment(copy))
        return done.exit_code, json.loads(done.stdout), done.stderr

    code, [whole], _ = asked()
    assert (code, whole["bronze"], whole["pending"]) == (0, EVENTS, 0)
    spark.sql(f"DELETE FROM {place} WHERE partition = 1 AND offset = 7")
    code, [balance], said = asked()
    assert (code, balance["bronze"]) == (1, EVENTS - 1)
    assert f"{gone.topic} partition 1: offsets 7 to 7 (1 records) are missing in Bronze" in said


def test_bronze_holds_the_bytes_that_were_sent(house: Settings) -> None:
    opens = instant(None, False)
    sent = [record.value for record in islice(shop_of(SEED, opens, 0.3).records(), EVENTS)]
    bronze = table(house, "bronze/events", ["topic", "partition", "offset", "value"])
    assert bronze.num_rows == EVENTS
    rows = duckdb.execute(
        "SELECT l.number, b.value FROM bronze b JOIN read_parquet("
        f"'{house.runtime_dir}/ledger/*.parquet') l USING (topic, partition, \"offset\")"
    ).fetchall()
    assert len(rows) == EVENTS
    assert all(value == sent[number - 1] for number, value in rows)


def test_bronze_holds_all_that_came_with_the_bytes(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    """Keys, headers (one name twice, one without a value), timestamps and their kind."""
    settings = settings_for(tmp_path, bootstrap)
    topic = settings.topics.events
    kafka.ensure_topics(settings, [topic])
    now = int(time.time() * 1000)
    headers = [("a", b"1"), ("a", b"\xff"), ("b", None), ("", b"")]
    producer = Producer(kafka.client_options(settings))
    sent: list[dict[str, Any]] = []

    def delivered(error: Any, message: Any) -> None:
        assert error is None
        sent.append({"partition": message.partition(), "offset": message.offset()})

    given: list[dict[str, Any]] = [
        {"key": b"\x00key", "value": b"{}", "headers": headers, "timestamp": now - 7_200_000},
        {"key": b"", "value": b"", "headers": None, "timestamp": now},
        {"key": None, "value": None, "headers": [], "timestamp": now - 86_400_000},
    ]
    for record in given:
        producer.produce(topic, on_delivery=delivered, **record)
        producer.flush(30)
    drain(spark, settings, contracts, "bronze")
    found = {
        (row["partition"], row["offset"]): row
        for row in table(settings, "bronze/events").to_pylist()
    }
    assert len(found) == len(given)
    for record, place in zip(given, sent, strict=True):
        row = found[place["partition"], place["offset"]]
        taken = datetime.fromtimestamp(record["timestamp"] / 1000, UTC)
        assert (row["topic"], row["key"], row["value"]) == (topic, record["key"], record["value"])
        assert [(h["key"], h["value"]) for h in row["headers"] or []] == (record["headers"] or [])
        assert row["timestamp"] == taken
        # 0: the one that sent it said when (CreateTime).
        assert row["timestamp_type"] == 0
        assert (row["date"], row["hour"]) == (taken.date(), taken.hour)


def test_quarantine_keeps_the_bytes(house: Settings) -> None:
    bronze = table(house, "bronze/events", ["partition", "offset", "value"])
    silver = table(house, "silver/events", ["partition", "offset", "outcome", "raw"])
    assert bronze.num_rows >= silver.num_rows
    different = duckdb.execute(
        'SELECT count(*) FROM silver s JOIN bronze b USING (partition, "offset") '
        "WHERE s.outcome = 'quarantined' AND s.raw IS DISTINCT FROM b.value"
    ).fetchall()
    assert different == [(0,)]


CONTRACTS = contract_files.load(Path(__file__).parents[2] / "conf" / "contracts")
# Rates are a bank's, and come by files.
OF_THE_SHOP = sorted(set(CONTRACTS) - {"exchange_rate", "telco_customer"})


@pytest.mark.parametrize("entity", OF_THE_SHOP)
def test_typed_values_equal_an_independent_readers(
    house: Settings, contracts: Contracts, entity: str
) -> None:
    """DuckDB reads the bytes of every clean record of an entity and casts them itself."""
    bronze = table(house, "bronze/events", ["topic", "partition", "offset", "value"])
    silver = table(house, "silver/events", ["topic", "partition", "offset", "outcome", entity])
    assert bronze.num_rows >= silver.num_rows
    contract = contracts[entity]
    wrong = []
    for column in contract.columns:
        kind = SQL_TYPES.get(column.spark_type, column.spark_type)
        kind = "TIMESTAMPTZ" if kind == "timestamp" else kind
        text = f"decode(b.value)::JSON -> 'data' ->> '{column.json_key}'"
        wrong.append(
            f'count(*) FILTER (WHERE s."{entity}"."{column.name}" IS DISTINCT FROM '
            f'CAST({text} AS {kind}) AND ({text}) IS NOT NULL) AS "{column.name}"'
        )
    found = duckdb.execute(
        f"""
        SELECT count(*) AS rows, {", ".join(wrong)}
        FROM read_parquet('{house.runtime_dir}/ledger/*.parquet') l
        JOIN bronze b USING (topic, partition, "offset")
        JOIN silver s USING (topic, partition, "offset")
        WHERE l.entity = '{entity}' AND l.outcome = 'accepted'
          AND (l.defect IS NULL OR l.defect IN ('late', 'null_key'))
        """
    )
    names = [column[0] for column in found.description or ()]
    row = dict(zip(names, found.fetchall()[0], strict=True))
    assert row.pop("rows") > 0
    assert not any(row.values()), row


def test_untidy_values_are_cleaned(house: Settings) -> None:
    silver = table(house, "silver/events", ["topic", "partition", "offset", "customer", "order"])
    assert silver.num_rows
    rows = duckdb.execute(
        f"""
        SELECT s.customer.email, s.customer.phone, s."order".status
        FROM read_parquet('{house.runtime_dir}/ledger/*.parquet') l
        JOIN silver s USING (topic, partition, "offset")
        WHERE l.defect = 'untidy' AND l.entity IN ('customer', 'order')
        """
    ).fetchall()
    assert rows
    states = {"placed", "paid", "shipped", "delivered", "cancelled", "returned", None}
    for mail, phone, status in rows:
        assert mail is None or (mail == mail.lower() == mail.strip() and "@" in mail)
        assert phone is None or (phone.startswith("+4915") and phone[1:].isdigit())
        assert status in states


def resend(settings: Settings, records: list[Record], name: str) -> None:
    folder = settings.runtime_dir / "ledger"
    ledger = Ledger(folder, name, settings.topics.events, {})
    report = send(blocks(records), settings, settings.topics.events, ledger)
    assert report.acknowledged == len(records)


def test_sent_twice_in_another_order_with_a_restart_between(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    """The same Silver as from sending once. Which of two that differ stands depends on the order
    of sending, so conflicts are left out."""
    drawn = islice(shop_of(SEED, instant(None, False), 0.3).records(), 4_000)
    records = [record for record in drawn if record.defect != "conflict"]
    results = []
    for turn in ("once", "twice"):
        settings = settings_for(tmp_path / turn, bootstrap)
        if turn == "once":
            resend(settings, records, "all")
        else:
            shuffled = records[:]
            random.Random(1).shuffle(shuffled)
            resend(settings, shuffled[:2_000], "half")
            drain(spark, settings, contracts)
            resend(settings, [*reversed(records), *shuffled[2_000:]], "rest")
        drain(spark, settings, contracts)
        reconcile.reconcile_range(spark, settings, contracts)
        assert audit.audit_tables(spark, settings, contracts).broken == []
        silver = tables.read(spark, settings, tables.silver(contracts))
        accepted = silver.where("outcome = 'accepted'")
        typed = [f"to_json(`{name}`) AS `{name}`" for name in contracts]
        kept = accepted.selectExpr("source", "id", "entity", "time", "digest", *typed)
        results.append({tuple(row) for row in kept.collect()})
    assert len(results[0]) > 2_000
    assert results[0] == results[1]


TELCO = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:test:telco
name: telco_customer
version: 1.0.0
status: active
customProperties:
  - {property: topic, value: TOPIC}
  - {property: id, value: [customerID, updated]}
  - {property: time, value: updated}
schema:
  - name: telco_customer
    properties:
      - {name: customer_id, physicalName: customerID, logicalType: string, primaryKey: true}
      - {name: tenure, logicalType: integer, physicalType: int}
      - name: total_charges
        physicalName: Total Charges
        logicalType: number
        physicalType: decimal(10,2)
        customProperties: [{property: jsonType, value: string}]
      - {name: updated, logicalType: timestamp, required: true}
"""


def telco(folder: Path, bootstrap: str) -> tuple[Settings, str, Contracts]:
    """Settings, a foreign topic of the test's own, and its contract."""
    settings = settings_for(folder / "data", bootstrap)
    topic = f"{settings.topics.events}-telco"
    (folder / "contracts").mkdir()
    (folder / "contracts" / "telco.yaml").write_text(TELCO.replace("TOPIC", topic))
    return settings, topic, contract_files.load(folder / "contracts")


def test_a_foreign_topic_is_taken_in_by_a_contract_alone(
    spark: SparkSession, bootstrap: str, tmp_path: Path
) -> None:
    settings, topic, contracts = telco(tmp_path, bootstrap)
    lines = [
        '{"customerID":"a","tenure":1,"Total Charges":"29.85","updated":"2026-01-01T00:00:00Z"}',
        '{"customerID":"b","tenure":0,"Total Charges":" ","updated":"2026-01-01T00:00:01Z"}',
        '{"customerID":"a","tenure":1,"Total Charges":"29.85","updated":"2026-01-01T00:00:00Z"}',
        '{"customerID":"c","tenure":"x","Total Charges":"n/a","updated":"2026-01-01T00:00:00Z"}',
        '{"tenure":3,"updated":"2026-01-01T00:00:00Z"}',
        "{",
    ]
    file = tmp_path / "telco.jsonl"
    file.write_text("\n".join(lines))
    report = send_foreign(settings, file, topic)
    assert report.acknowledged == 6
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    rows = table(settings, "silver/events").to_pylist()
    good = {r["telco_customer"]["customer_id"]: r for r in rows if r["outcome"] == "accepted"}
    assert {key: str(row["telco_customer"]["total_charges"]) for key, row in good.items()} == {
        "a": "29.85",
        "b": "None",
    }
    # By which what cannot be read is looked for in quarantine, too.
    assert {row["source"] for row in rows} == {f"kafka:{topic}"}
    bad = sorted(sorted(r["violations"]) for r in rows if r["outcome"] == "quarantined")
    assert bad == [
        ["customer_id.required", "id.required"],
        ["malformed_json"],
        ["tenure.type", "total_charges.format"],
    ]
    found = audit.audit_tables(spark, settings, contracts)
    assert found.holds
    assert found.balances == [audit.Balance(topic, 6, 2, 3, 1, 0)]


@pytest.mark.long
def test_marks_of_transactions_are_no_missing_records(
    spark: SparkSession, bootstrap: str, tmp_path: Path
) -> None:
    """Every transaction of a producer leaves an offset that no record has, the last one too."""
    settings, topic, contracts = telco(tmp_path, bootstrap)
    kafka.ensure_topics(settings, [topic])
    producer: Any = Producer(kafka.client_options(settings) | {"transactional.id": topic})
    producer.init_transactions(30)
    for part in range(3):
        producer.begin_transaction()
        for number in range(2):
            line = f'{{"customerID":"{part}{number}","updated":"2026-01-01T00:00:00Z"}}'
            producer.produce(topic, line.encode(), partition=0)
        if part == 1:
            # What was taken back is a record all the same, as Spark reads.
            producer.flush()
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    offsets = table(settings, "bronze/events", ["offset"])["offset"].to_pylist()
    assert sorted(offsets) == [0, 1, 3, 4, 6, 7]
    found = audit.audit_tables(spark, settings, contracts)
    assert (found.broken, found.balances) == ([], [audit.Balance(topic, 6, 6, 0, 0, 0)])
    # A record of them that is gone from Bronze is missing all the same.
    place = tables.quoted_path(tables.bronze().path(settings))
    spark.sql(f"DELETE FROM {place} WHERE offset = 4")
    broken = audit.audit_tables(spark, settings, contracts).broken
    # What the reconcile wrote down of offset 5 holds, whether the broker still has it or not.
    assert any("offsets 4 to 4 (1 records) are missing in Bronze" in line for line in broken)
    marked = {
        (row["begin"], row["end"])
        for row in table(settings, "ops/gaps").to_pylist()
        if row["why"] == "vacant"
    }
    assert marked == {(2, 3), (5, 6), (8, 9)}


def test_a_clock_that_runs_ahead_makes_no_other_record_late(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    """A producer whose machine is ahead stamps event and record alike."""
    settings = settings_for(tmp_path, bootstrap)
    ahead = datetime.now(UTC) + timedelta(minutes=50)
    put(settings, category("ahead", time=ahead.isoformat()), timestamp=ahead)
    drain(spark, settings, contracts)
    late = datetime.now(UTC) - timedelta(minutes=5)
    put(settings, *(category(f"n{n}", time=late.isoformat()) for n in range(20)))
    drain(spark, settings, contracts)
    rows = table(settings, "silver/events", ["outcome", "written_by"]).to_pylist()
    assert rows == [{"outcome": "accepted", "written_by": "stream"}] * 21
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert found.holds
    assert found.balances == [audit.Balance(settings.topics.events, 21, 21, 0, 0, 0)]


WISH_CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:test:wish
name: wish
version: 1.0.0
status: active
customProperties: [{property: eventType, value: headwater.shop.wish}]
schema:
  - name: wish
    properties:
      - {name: wish_id, logicalType: string, primaryKey: true}
      - {name: stars, logicalType: integer, physicalType: int, required: true}
"""
WISH_GENERATOR = """\
def events(world):
    number = 0
    while True:
        number += 1
        at = world.start + number * 60_000
        data = f'{{"wish_id":"W{number}","stars":{number % 5}}}'
        yield at, number, "wish", f"W{number}", f"W{number}", data
"""


def test_a_new_entity_is_a_contract_and_a_generator(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "data", bootstrap)
    folder, generators = tmp_path / "contracts", tmp_path / "generators"
    folder.mkdir()
    generators.mkdir()
    for contract in contracts.values():
        (folder / contract.path.name).write_text(contract.path.read_text())
    (folder / "wish.yaml").write_text(WISH_CONTRACT)
    (generators / "wish.py").write_text(WISH_GENERATOR)
    more = contract_files.load(folder)
    send_shop(settings, Sending(events=3_000, generators=generators))
    drain(spark, settings, more)
    reconcile.reconcile_range(spark, settings, more)
    assert unlike_the_ledger(settings) == []
    rows = [r["wish"] for r in table(settings, "silver/events", ["wish"]).to_pylist() if r["wish"]]
    assert len(rows) > 10
    assert all(row["stars"] == int(row["wish_id"][1:]) % 5 for row in rows)


BAD_INPUT: list[tuple[str, list[str], str]] = [
    ("stream", ["stream", "--available-now"], "does not answer"),
    ("produce", ["produce", "--events", "10"], "does not answer"),
]


@pytest.mark.parametrize(("what", "arguments", "said"), BAD_INPUT, ids=[b[0] for b in BAD_INPUT])
def test_a_broker_that_is_not_there(
    tmp_path: Path, what: str, arguments: list[str], said: str
) -> None:
    settings = settings_for(tmp_path, "127.0.0.1:1")
    done = headwater(settings, *arguments, code=1)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("headwater: "), (what, done.stderr)
    assert "127.0.0.1:1" in last
    assert said in last
    assert "Traceback" not in done.stderr


def test_a_second_stream_on_the_same_checkpoint_is_refused(bootstrap: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, bootstrap)
    with held(settings, "stream-silver", "x"):
        done = headwater(settings, "stream", "--available-now", code=1)
    assert f"checkpoint {settings.checkpoints}/silver is in use by process" in done.stderr
    assert not (tmp_path / "checkpoints").exists(), "nothing was begun"


def test_a_record_too_large_for_the_broker_is_named(bootstrap: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", bootstrap)
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a").write_bytes(b"x" * 17_000_000)
    (folder / "b").write_bytes(b"small")
    report = send_foreign(settings, folder)
    assert (report.acknowledged, report.failed) == (1, 1)
    from producer.command import finish

    with pytest.raises(BrokerError, match="1 of 2 records were not acknowledged"):
        finish(report)


@pytest.fixture(autouse=True)
def _no_leftovers(spark: SparkSession) -> Iterator[None]:
    yield
    assert not spark.streams.active
