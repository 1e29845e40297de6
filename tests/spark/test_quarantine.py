"""Repairs, and judging again: what becomes of records when a payload or a rule is another one."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta

import click
import pytest
from click.testing import CliRunner
from pyspark.sql import functions as F

from batch import quarantine, replay
from batch.quarantine import Coordinates, Filter
from lakehouse import repairs, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import HeadwaterError
from lakehouse.rules import Rule
from tests.house import AT, House, Record, category
from tests.samples import event

EMPTY_NAME = ["name.length"]


def house_of(house: House, *records: Record) -> None:
    """Records in Bronze, each with its outcome."""
    house.bronze(*records)
    house.reconcile()


def with_names(contracts: Contracts, low: int, high: int) -> Contracts:
    """The same contracts, but that a category's name has so many characters."""
    contract = contracts["category"]
    columns = [
        dataclasses.replace(c, checks=(Rule("length", {"min": low, "max": high}),))
        if c.name == "name"
        else c
        for c in contract.columns
    ]
    return Contracts([dataclasses.replace(contract, columns=tuple(columns))])


def at(offset: int) -> Coordinates:
    return Coordinates("t", 0, offset)


def repaired(house: House, offset: int, payload: bytes) -> None:
    quarantine.repair(
        house.spark, house.settings, house.contracts, at(offset), payload, "Ada", "typed wrong"
    )


def replayed(house: House, wanted: Filter | None = None) -> dict[str, int]:
    return quarantine.replay(
        house.spark, house.settings, house.contracts, wanted or Filter(), "Ada"
    )


def counts(house: House) -> tuple[int, int, int, int]:
    """Bronze, accepted, quarantined, duplicates. The law holds, and nothing is pending."""
    found = house.audit()
    assert found.holds, found.broken
    (balance,) = found.balances
    assert balance.pending == 0
    return balance.bronze, balance.accepted, balance.quarantined, balance.duplicates


@pytest.mark.long
def test_every_kind_of_repair_gets_the_outcome_of_its_new_bytes(house: House) -> None:
    house_of(
        house,
        (0, 0, 0, category("a")),
        (0, 1, 1, b"{"),  # becomes a good event
        (0, 2, 2, b"{"),  # becomes a copy of (0, 0)
        (0, 3, 3, b"{"),  # becomes another event with the id of (0, 0)
        (0, 4, 4, b"{"),  # becomes wrong in another way
        (0, 5, 5, b"{"),  # becomes empty
        (0, 6, 6, b"{"),  # is left alone
    )
    assert counts(house) == (7, 1, 6, 0)
    repaired(house, 1, b"[]")
    repaired(house, 1, category("b"))  # the newest one counts
    repaired(house, 2, category("a"))
    repaired(house, 3, category("a", name="Other"))
    repaired(house, 4, category("c", name=" "))
    repaired(house, 5, b"")
    assert counts(house) == (7, 1, 6, 0), "a repair alone changes no outcome"
    assert replayed(house) == {"accepted": 1, "duplicates": 1, "quarantined": 4}
    assert house.rows() == {
        (0, 0): ("accepted", [], "reconcile"),
        (0, 1): ("accepted", [], "quarantine"),
        (0, 3): ("quarantined", ["conflict"], "quarantine"),
        (0, 4): ("quarantined", EMPTY_NAME, "quarantine"),
        (0, 5): ("quarantined", ["empty_value"], "quarantine"),
        (0, 6): ("quarantined", ["malformed_json"], "reconcile"),
    }
    assert counts(house) == (7, 2, 4, 1)
    bronze = tables.read(house.spark, house.settings, tables.bronze()).where("offset = 1")
    assert bytes(bronze.collect()[0]["value"]) == b"{", "Bronze keeps what came"

    told = quarantine.story(house.spark, house.settings, house.contracts, at(1), reveal=True)
    assert json.loads(told["payload"])["id"] == "b"
    assert [(s["action"], s["by"], s["note"], s["was"], s["outcome"]) for s in told["history"]] == [
        ("quarantined", "", "", [], "quarantined"),
        ("repaired", "Ada", "typed wrong", ["malformed_json"], None),
        ("repaired", "Ada", "typed wrong", ["malformed_json"], None),
        ("replayed", "Ada", "", ["malformed_json"], "accepted"),
    ]
    untouched = quarantine.story(house.spark, house.settings, house.contracts, at(6), reveal=True)
    [step] = untouched["history"]
    assert (step["action"], step["by"]) == ("quarantined", "reconcile"), "nothing became of it"
    assert (step["at"], step["violations"]) == ("2026-03-01T12:00:06.000+00:00", ["malformed_json"])
    moments = [datetime.fromisoformat(step["at"]) for step in told["history"]]
    assert all(at.tzinfo is not None for at in moments), "they can be compared"
    # What is accepted cannot be repaired any more, nor what was never there.
    for offset in (1, 99):
        with pytest.raises(HeadwaterError, match=f"t/0/{offset} is not in quarantine"):
            repaired(house, offset, b"{}")


@pytest.mark.long
def test_the_newest_repair_counts_though_the_clock_was_put_back(house: House) -> None:
    house_of(house, (0, 0, 0, category("1", "")))
    repaired(house, 0, category("1", "Wrong"))
    path = tables.quoted_path(tables.repairs().path(house.settings))
    house.spark.sql(f"UPDATE {path} SET at = at + INTERVAL 365 DAYS")
    repaired(house, 0, category("1", "Right"))
    replayed(house)
    silver = tables.read(house.spark, house.settings, house.silver_table)
    [row] = silver.where("outcome = 'accepted'").collect()
    assert row.category.name == "Right"
    story = quarantine.story(house.spark, house.settings, house.contracts, at(0), True)
    actions = [step["action"] for step in story["history"]]
    assert actions == ["quarantined", "repaired", "repaired", "replayed"]


@pytest.mark.long
def test_a_rule_made_milder_lets_its_records_in_by_rule(house: House) -> None:
    long_name = "x" * 101
    house_of(
        house,
        (0, 0, 0, category("a", name=long_name)),
        (0, 1, 1, category("a", name=long_name)),
        (0, 2, 2, b"{"),
    )
    assert counts(house) == (3, 0, 3, 0)
    version = tables.version(house.spark, house.settings, house.silver_table)
    assert replayed(house, Filter(rule="name.length"))["quarantined"] == 2, "the rule is as it was"
    assert tables.version(house.spark, house.settings, house.silver_table) == version
    house.contracts = with_names(house.contracts, 1, 200)
    wanted = Filter(rule="name.length")
    assert replayed(house, wanted) == {"accepted": 1, "duplicates": 1, "quarantined": 0}
    assert counts(house) == (3, 1, 1, 1)
    assert replayed(house, wanted) == {"accepted": 0, "duplicates": 0, "quarantined": 0}


def test_a_conflict_that_was_repaired_keeps_its_row_until_it_is_replayed(house: House) -> None:
    """Another event comes to stand in the place of the one that it was in conflict with."""
    house.bronze((0, 0, 10, category("x", name="A")), (0, 1, 11, category("x", name="B")))
    house.reconcile()
    repaired(house, 1, category("y"))
    house.bronze((1, 0, 5, category("x", name="C")))
    house.reconcile()
    assert house.rows() == {
        (0, 0): ("quarantined", ["conflict"], "reconcile"),
        (0, 1): ("quarantined", ["conflict"], "reconcile"),
        (1, 0): ("accepted", [], "reconcile"),
    }
    assert counts(house) == (3, 1, 2, 0)
    assert replayed(house)["accepted"] == 1
    assert counts(house) == (3, 2, 1, 0)


@pytest.mark.long
def test_what_is_asked_for_is_what_is_found(house: House) -> None:
    other = event("category", {"category_id": "K001", "name": ""}, id="b", source="elsewhere")
    house_of(house, (0, 0, 0, category("a", name="")), (0, 1, 60, other), (0, 2, 120, b"{"))
    minute = timedelta(minutes=1)
    for wanted, offsets in (
        (Filter(), [2, 1, 0]),
        (Filter(rule="name.length"), [1, 0]),
        (Filter(rule="name.length", source="elsewhere"), [1]),
        (Filter(records=(at(0), at(2))), [2, 0]),
        (Filter(entity="category", since=AT + minute), [1]),
        (Filter(until=AT + minute), [0]),
        (Filter(entity="order"), []),
    ):
        rules, rows = quarantine.find(house.spark, house.settings, house.contracts, wanted, 9)
        assert [row["record"] for row in rows] == [f"t/0/{offset}" for offset in offsets]
        assert sum(count for _, count in rules) == len(offsets)


@pytest.mark.long
def test_a_stricter_rule_in_place_and_copies_outside_the_range(house: House) -> None:
    """(0, 2) is a copy of (0, 0) that left no row. The replay takes (0, 0) back: it needs one."""
    house_of(
        house,
        (0, 0, 0, category("a", name="Ab")),
        (0, 1, 1, category("b", name="Abc")),
        (0, 2, 2, category("a", name="Ab")),
        (0, 3, 3, category("c", name="Ab")),
    )
    assert counts(house) == (4, 3, 0, 1)
    before = tables.version(house.spark, house.settings, house.silver_table)
    stricter = with_names(house.contracts, 3, 9)
    wanted = replay.Range(0, 2)
    result = replay.replay_range(house.spark, house.settings, stricter, wanted)
    assert (result.accepted, result.quarantined) == (1, 2)
    assert house.rows() == {
        (0, 0): ("quarantined", EMPTY_NAME, "replay"),
        (0, 1): ("accepted", [], "reconcile"),
        (0, 2): ("quarantined", EMPTY_NAME, "replay"),
        (0, 3): ("accepted", [], "reconcile"),
    }
    assert counts(house) == (4, 2, 2, 0)
    now = tables.version(house.spark, house.settings, house.silver_table)
    assert now == before + 1, "in one commit"
    # And back again, by time.
    house.contracts = with_names(house.contracts, 1, 9)
    wanted = replay.Range("2026-03-01T12:00:00Z", "2026-03-01T12:00:03+00:00", "t", 0)
    replay.replay_range(house.spark, house.settings, house.contracts, wanted)
    assert counts(house) == (4, 3, 0, 1)
    assert house.rows()[0, 0] == ("accepted", [], "replay")
    told = quarantine.story(house.spark, house.settings, house.contracts, at(0), reveal=True)
    assert [(s["action"], s["by"], s["was"], s["outcome"]) for s in told["history"]] == [
        ("replayed", "replay", [], "quarantined"),
        ("replayed", "replay", EMPTY_NAME, "accepted"),
    ]


@pytest.mark.long
def test_what_bronze_has_let_go_of_can_be_looked_at_and_not_judged_again(house: House) -> None:
    house_of(house, (0, 0, 0, b"{"), (0, 1, 1, category("a")))
    house.sql("DELETE FROM {bronze} WHERE offset = 0")
    told = quarantine.story(house.spark, house.settings, house.contracts, at(0), reveal=True)
    assert (told["outcome"], told["payload"]) == ("quarantined", "{")
    with pytest.raises(HeadwaterError, match=r"t/0/0 is not in bronze\.events any more"):
        repaired(house, 0, category("b"))
    # Silver may be ahead.
    house.stream((0, 2, 2, b"{"))
    with pytest.raises(HeadwaterError, match=r"t/0/2: bronze\.events has not got it yet"):
        repaired(house, 2, category("b"))
    with pytest.raises(HeadwaterError, match=r"1 of the records that were named are not in quar"):
        replayed(house, Filter(records=(at(1),)))


@pytest.mark.long
def test_what_was_let_in_and_is_kept_nowhere_says_so(house: House) -> None:
    """Bronze has let go of it, and Silver keeps the bytes of what is quarantined alone."""
    house.bronze((0, 0, 0, category("a")), (0, 1, 1, b"{"))
    house.stream((0, 0, 0, category("a")), (0, 1, 1, b"{"))
    spark, settings, contracts = house.spark, house.settings, house.contracts
    quarantine.repair(spark, settings, contracts, at(1), category("b"), "x", "")
    quarantine.replay(spark, settings, contracts, Filter(), "x")
    assert house.rows()[0, 1][0] == "accepted"
    house.sql("DELETE FROM {bronze}")

    def payload(offset: int) -> str:
        return str(quarantine.story(spark, settings, contracts, at(offset), True)["payload"])

    # What was put in its place is in ops.repairs.
    assert '"id": "b"' in payload(1)
    assert payload(0).startswith("not kept: t/0/0: bronze.events has let go of it")


@pytest.mark.long
def test_what_replays_and_conflicts_have_to_do_with_each_other(house: House) -> None:
    """(0, 1) was a conflict with (0, 0), which is not accepted any more. (0, 2) has no record."""
    house_of(
        house,
        (0, 0, 0, category("a", name="Ab")),
        (0, 1, 1, category("a", name="Abc")),
        (0, 2, 2, category("b", name="Abc")),
    )
    assert house.rows()[0, 1][:2] == ("quarantined", ["conflict"])
    house.sql("DELETE FROM {bronze} WHERE offset = 2")
    stricter = with_names(house.contracts, 3, 9)
    replay.replay_range(house.spark, house.settings, stricter, replay.Range(0, 1))
    # And with a contract that has one column less than the table.
    contract = house.contracts["category"]
    columns = tuple(c for c in contract.columns if c.name != "parent_id")
    less = Contracts([dataclasses.replace(contract, columns=columns[::-1])])
    replay.replay_range(house.spark, house.settings, less, replay.Range(2))
    assert house.rows() == {
        (0, 0): ("quarantined", EMPTY_NAME, "replay"),
        (0, 1): ("accepted", [], "replay"),
        (0, 2): ("accepted", [], "reconcile"),
    }
    assert any("in Silver and not in Bronze" in line for line in house.audit().broken)
    done = repairs.history(house.spark, house.settings)
    assert done is not None
    freed = done.where("partition = 0 AND offset = 1").orderBy("at", F.desc("action"))
    steps = [(step.action, step.outcome) for step in freed.collect()]
    assert steps == [("replaying", "accepted"), ("replayed", "accepted")]
    replay.replay_range(house.spark, house.settings, less, replay.Range(0))
    assert house.rows()[0, 0] == ("accepted", [], "replay")
    assert house.rows()[0, 1][:2] == ("quarantined", ["conflict"])


def test_a_replay_under_the_same_rules_writes_nothing(house: House) -> None:
    house_of(house, (0, 0, 0, category("a")), (0, 1, 1, category("a")), (0, 2, 2, b"{"))
    before = tables.version(house.spark, house.settings, house.silver_table)
    replay.replay_range(house.spark, house.settings, house.contracts, replay.Range(0))
    assert tables.version(house.spark, house.settings, house.silver_table) == before


@pytest.mark.long
def test_a_row_changed_by_hand_is_made_anew(house: House) -> None:
    house_of(house, (0, 0, 0, category("a")), (0, 1, 1, b"{"))
    before = house.rows()
    house.sql("UPDATE {silver} SET category = NULL, id = 'other' WHERE offset = 0")
    replay.replay_range(house.spark, house.settings, house.contracts, replay.Range(0))
    row = tables.read(house.spark, house.settings, house.silver_table).where("offset = 0").first()
    assert row is not None
    assert (row.id, row.category.name) == ("a", "Books")
    assert set(house.rows()) == set(before)
    assert counts(house) == (2, 1, 1, 0)


@pytest.mark.long
def test_the_commands(house: House) -> None:
    house_of(
        house,
        (0, 0, 0, category("a", name="")),
        (0, 1, 1, event("category", {}, id="b", source="evil\x1b[31m")),
    )
    options = ["--data", house.settings.storage]

    def said(group: click.Command, *arguments: str, text: bytes = b"") -> str:
        done = CliRunner().invoke(group, [*arguments, *options], input=text)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    group = quarantine.quarantine_group
    listed = json.loads(said(group, "list", "--json"))
    assert listed["rules"]["name.length"] == 1
    assert [row["record"] for row in listed["records"]] == ["t/0/1", "t/0/0"]
    assert json.loads(said(group, "list", "--json", "--limit", "0"))["records"] == []
    assert "\x1b" not in said(group, "list"), "what somebody sent does not colour the terminal"
    since = json.loads(said(group, "list", "--since", "2026-03-01T12:00:01Z", "--json"))
    assert [row["record"] for row in since["records"]] == ["t/0/1"]
    assert "name.length" in said(group, "show", "t/0/0")
    said(group, "repair", "t/0/0", "--from", "-", "--by", "Ada", text=category("a"))
    answer = json.loads(said(group, "replay", "t/0/0", "--json", "--by", "Ada"))
    assert answer == {"accepted": 1, "duplicates": 0, "quarantined": 0}
    assert "repaired by Ada" in said(group, "show", "t/0/0")
    for wrong in (["show", "t/0"], ["list", "--since", "noon"], ["repair", "t/0/1"]):
        assert CliRunner().invoke(group, [*wrong, *options]).exit_code == 2
    for wrong in (["--to", "5"], ["--from-offset", "1", "--to", "2026-01-01"]):
        assert CliRunner().invoke(replay.replay, [*wrong, *options]).exit_code == 2
