"""What a person said is gone from Bronze, Silver and repairs; where it was is not."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from pyspark.sql import DataFrame, SparkSession

from batch import erase, publish, quality, quarantine, replay
from headwater import status
from lakehouse import runs, tables
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from tests.house import House
from tests.samples import event
from tests.samples_gold import CUSTOMER as SAMPLE

WHO, ANOTHER = "C00000001", "C00000012"
CUSTOMER = SAMPLE | {"customer_id": WHO, "first_name": "Ann"}


def customer(ident: str, **more: Any) -> bytes:
    return event("customer", CUSTOMER | more, id=ident)


@pytest.fixture(scope="module")
def few(contracts: Contracts) -> Contracts:
    return Contracts([contracts["customer"], contracts["category"]])


# Offset: the record, whether it names them, and what becomes of it.
RECORDS: dict[int, tuple[bytes | None, bool, str]] = {
    0: (customer("1"), True, "accepted"),
    1: (customer("1"), True, "duplicate"),
    2: (customer("2", email="none"), True, "quarantined"),
    3: (customer("3", customer_id=ANOTHER), False, "accepted"),
    4: (customer("1", first_name="Eve"), True, "quarantined"),  # in conflict with the first
    5: (b"\xff" + WHO.encode() + b";x", True, "quarantined"),
    6: (b"\xff" + WHO.encode() + b"2;x", False, "quarantined"),
    7: (
        event("category", {"category_id": "K001", "name": "B"}, id="7", subject=WHO),
        True,
        "accepted",
    ),
    8: (
        event("category", {"category_id": "K001", "name": "B", "by": [WHO]}, id="8"),
        True,
        "accepted",
    ),
    9: (
        event("category", {"category_id": "K002", "name": f"not {WHO} alone"}, id="9"),
        False,
        "accepted",
    ),
    10: (
        event("category", {"category_id": "K001", "name": "B"}, id=f"{WHO}/10"),
        False,
        "accepted",
    ),
    11: (
        customer("11").replace(WHO.encode(), b"C0000\\u0030001"),  # as JSON may spell it
        True,
        "accepted",
    ),
    12: (
        customer("11").replace(WHO.encode(), b"C0000\\u0030001"),
        True,
        "duplicate",
    ),
    13: (b"", False, "quarantined"),
    14: (customer("14", email="x").replace(WHO.encode(), b"C\\u00300000001"), True, "quarantined"),
}


def content(house: House, table: tables.Table) -> dict[int, tuple[Any, ...]]:
    rows = tables.read(house.spark, house.settings, table).drop("written_by").collect()
    return {row.offset: tuple(row) for row in rows}


@pytest.mark.long
def test_a_person_is_erased(spark: SparkSession, house: House, layouts: Layouts) -> None:
    house.bronze(*((0, offset, offset, value) for offset, (value, *_) in RECORDS.items()))
    house.reconcile()
    outcomes = {offset: row[0] for (_, offset), row in house.rows().items()}
    assert {o: outcomes.get(o, "duplicate") for o in RECORDS} == {
        offset: outcome for offset, (_, _, outcome) in RECORDS.items()
    }
    settings, contracts = house.settings, house.contracts
    broken = quarantine.Coordinates("t", 0, 5)
    payload = json.dumps({"customer_id": WHO}).encode()
    quarantine.repair(spark, settings, contracts, broken, payload, "tester", f"is {WHO}")
    # Of another one's record, whose payload is theirs.
    other = quarantine.Coordinates("t", 0, 13)
    quarantine.repair(spark, settings, contracts, other, b"", "tester", f"lives with {WHO}")
    # As the quality gate says whose row breaks what, in its row of ops.runs and on its pages.
    with suppress(ValueError), runs.recorded(spark, settings, "publish"):
        raise ValueError(f"gold.agg_user_metrics: customer_id={WHO} breaks order_count.between")
    page = quality.pages(settings) / "expectations" / "agg_user_metrics.html"
    page.parent.mkdir(parents=True)
    page.write_text(f"<td>{WHO}</td>")
    [before] = house.audit().balances
    bronze, silver = content(house, tables.bronze()), content(house, house.silver_table)

    proof = erase.erase_subject(spark, settings, contracts, layouts, [WHO], "tester")
    theirs = {offset for offset, (_, named, _) in RECORDS.items() if named}
    assert proof.complete
    assert proof.records == {"accepted": 4, "duplicate": 2, "quarantined": 4}
    assert proof.requests == [proof.request]
    assert erase._unproved(spark, settings).count() == 0
    removed = {place.name: place.removed for place in proof.places}
    assert removed["bronze.events"] == len(theirs)
    assert removed["silver.events"] == len(theirs) - 2
    assert removed["ops.repairs"] == 2
    assert removed["ops.runs"] == 1
    told = tables.read(spark, settings, tables.runs()).select("details").collect()
    assert not any(WHO in row.details for row in told)
    assert not page.exists()
    assert WHO not in json.dumps([place.name for place in proof.places])

    # Nothing of it comes back by judging everything again.
    replay.replay_range(spark, settings, contracts, replay.Range(0))
    for table, was in ((tables.bronze(), bronze), (house.silver_table, silver)):
        now = content(house, table)
        assert now.keys() == was.keys()
        for offset, row in now.items():
            if offset in theirs:
                assert WHO not in str(row)
                assert "Ann" not in str(row)
            else:
                assert row == was[offset]
    found = house.audit()
    assert (found.broken, found.balances) == ([], [before])
    repairs = tables.read(spark, settings, tables.repairs()).collect()
    assert {row.offset: (row.payload, row.note) for row in repairs} == {
        5: (None, None),
        13: (b"", None),
    }
    # Nor does what erased them say in the logs of tables whom it was about.
    for entry in Path(settings.tables).rglob("_delta_log/*.json"):
        infos = [line for line in entry.read_text().splitlines() if "commitInfo" in line]
        assert not any(WHO in line for line in infos), entry
    story = quarantine.story(spark, settings, contracts, broken, True)
    assert story["payload"] == "erased"
    # A copy that comes later is one, and is found when they ask again.
    house.bronze((0, 15, 99, RECORDS[0][0]), (0, 16, 99, RECORDS[11][0]))
    assert house.reconcile().duplicates == 2
    again = erase.find(spark, settings, contracts, [WHO]).collect()
    assert sorted((r.offset, r.outcome) for r in again) == [(15, "duplicate"), (16, "duplicate")]
    # Where somebody deletes what Silver keeps of them, it still is known what they were.
    house.sql("DELETE FROM {silver} WHERE offset IN (2, 4)")
    assert house.audit().broken == []


def test_texts_that_would_be_found_in_others_records_are_refused() -> None:
    with pytest.raises(UsageError, match="too short"):
        erase._demand(["C1", "x"])


@pytest.mark.long
def test_a_number_that_names_a_person(house: House) -> None:
    """As of a telephone, in a field that no contract knows; an offset, or a part of another number,
    is none."""
    number = 4915199988877

    def contact(ident: str, value: Any) -> bytes:
        return event("category", {"category_id": "K001", "name": "B", "contact": value}, id=ident)

    house.bronze(
        (0, 0, 0, contact("0", number)),
        (0, 1, 1, contact("1", {"phones": [1, number]})),
        (0, 2, 2, contact("2", number * 10 + 1)),
        (0, 3, 3, contact("3", f"{number}.5")),
        (0, number, 4, contact("4", 5)),
        (0, 6, 6, b'{"mail": "Ann@Example.COM", "id": "c0001"'),
    )
    house.reconcile()

    def found(text: str) -> set[int]:
        rows = erase.find(house.spark, house.settings, house.contracts, ["nobody", text]).collect()
        return {row.offset for row in rows}

    assert found(str(number)) == {0, 1}
    # A mailbox is the same one in capitals, a key is another one.
    assert found("ann@example.com") == {6}
    assert found("C0001") == set()
    silver = tables.read(house.spark, house.settings, house.silver_table)
    named = silver.where(erase._names(silver, [str(number)]))
    assert {row.offset for row in named.collect()} == {0, 1}
    # Nor is what a row has for a key a day of birth.
    days = house.spark.sql("SELECT 20260301 AS date_key, DATE '2026-03-01' AS day")
    assert days.where(erase._names(days, ["20260301"])).count() == 0
    # An amount may be this long by chance.
    house.bronze((0, 5, 5, contact("5", 1234567)))
    assert found("1234567") == set()


def test_a_subject_whose_column_was_called_otherwise(house: House) -> None:
    """Rows of then have it under its old name, which is an alias now."""
    [ident] = [c for c in house.contracts["customer"].columns if c.subject]
    renamed = dataclasses.replace(ident, name="member", json_key="member", aliases=("member_no",))
    customer = dataclasses.replace(house.contracts["customer"], columns=(renamed,))
    rows = house.spark.sql(
        "SELECT n, named_struct('member_no', IF(n = 1, 1234567, NULL), "
        "'member', IF(n = 2, '1234567', NULL)) AS customer FROM VALUES (1), (2), (3) AS t(n)"
    )
    named = rows.where(erase._is_subject(rows, Contracts([customer]), "1234567"))
    assert {row.n for row in named.collect()} == {1, 2}


def test_an_id_that_was_put_together_of_several_values(house: House) -> None:
    """It has nothing between them but their lengths: 9:C000000014:K001."""
    plain = dataclasses.replace(
        house.contracts["category"], topic="t", id_keys=("name", "category_id")
    )
    house.contracts = Contracts([plain, house.contracts["customer"]])
    values = [
        {"category_id": "K001", "name": WHO},
        {"category_id": "K001", "name": f"{WHO}9"},
        {"category_id": "K001", "name": "Books"},
    ]
    house.bronze(*((0, n, n, json.dumps(value).encode()) for n, value in enumerate(values)))
    house.reconcile()

    def silver() -> DataFrame:
        return tables.read(house.spark, house.settings, house.silver_table)

    def ids() -> dict[int, str]:
        return {row.offset: row.id for row in silver().collect()}

    before = ids()
    assert before[0] == f"9:{WHO}4:K001"
    records = erase.find(house.spark, house.settings, house.contracts, [WHO])
    assert {row.offset for row in records.collect()} == {0}
    erase._silver(house.spark, house.settings, house.silver_table, records, [WHO])
    assert ids() == before | {0: "t/0/0"}
    assert silver().where(erase._names(silver(), [WHO])).count() == 0
    # Nor does what is left pass for gone.
    house.sql(f"UPDATE {{silver}} SET id = '4:K0019:{WHO}' WHERE offset = 2")
    left = silver().where(erase._names(silver(), [WHO])).collect()
    assert {row.offset for row in left} == {2}


def test_a_warehouse_that_a_publish_died_over_is_known(
    house: House, layouts: Layouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that the settings publish to, and the first time: there is no other trace of it."""
    settings = house.settings.model_copy(update={"publish_to": ("mysql",)})

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "_bring", dies)
    monkeypatch.setattr(quality, "newest_of", lambda *_: {})
    monkeypatch.setattr(publish, "_check_unchanged", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        publish.copy(house.spark, settings, layouts, ("duckdb",), gate=False)
    kinds, out_of_reach = erase._published(house.spark, settings)
    assert kinds == ("duckdb",)
    [said] = out_of_reach
    assert said.startswith("mysql, which the settings publish to")
    # It is no run that anyone has to look at.
    assert status.jobs(settings) == []
