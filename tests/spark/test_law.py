"""Reconcile and audit over small tables written by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from batch import audit, judge, reconcile, replay
from lakehouse import gaps, runs, tables
from lakehouse import settings as settings_files
from lakehouse.contracts import Contracts
from lakehouse.gaps import Gap
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings
from tests.house import AT, House, Record, category


def test_late_duplicate_conflict_and_bad_records_get_their_outcomes(house: House) -> None:
    house.bronze(
        (0, 0, 0, category("a")),
        (0, 1, 1, category("late")),
        (0, 2, 2, category("a")),
        (0, 3, 3, category("a", name="Other")),
        (0, 4, 4, b"{"),
        (0, 5, 5, category("late")),
    )
    house.stream((0, 0, 0, category("a")))
    assert house.audit().balances == [audit.Balance("t", 6, 1, 0, 1, 4)]
    result = house.reconcile()
    assert result == judge.Result(pending=5, accepted=1, quarantined=2, duplicates=2, corrected=0)
    assert house.rows() == {
        (0, 0): ("accepted", [], "stream"),
        (0, 1): ("accepted", [], "reconcile"),
        (0, 3): ("quarantined", ["conflict"], "reconcile"),
        (0, 4): ("quarantined", ["malformed_json"], "reconcile"),
    }
    found = house.audit()
    assert found.balances == [audit.Balance("t", 6, 2, 2, 2, 0)]
    assert found.holds
    again = house.reconcile(since=reconcile.BEGINNING)
    assert (again.accepted, again.quarantined, again.corrected) == (0, 0, 0)
    assert len(house.rows()) == 4


def test_the_first_by_broker_time_then_coordinates_stands(house: House) -> None:
    """The stream took a later one; the earlier one has other content and takes its place."""
    house.bronze(
        (0, 0, 9, category("x", name="Later")),
        (1, 0, 3, category("x", name="Earlier", time="2025-06-01T00:00:00Z")),
        (0, 1, 5, category("y", name="B")),
        (1, 1, 5, category("y", name="A")),
    )
    house.stream((0, 0, 9, category("x", name="Later")), (1, 1, 5, category("y", name="A")))
    result = house.reconcile()
    assert (result.accepted, result.corrected) == (2, 2)
    assert house.rows() == {
        (0, 0): ("quarantined", ["conflict"], "reconcile"),
        (1, 0): ("accepted", [], "reconcile"),
        (0, 1): ("accepted", [], "reconcile"),
        (1, 1): ("quarantined", ["conflict"], "reconcile"),
    }
    silver = tables.read(house.spark, house.settings, house.silver_table)
    loser = silver.where("partition = 0 AND offset = 0")
    row = loser.collect()[0]
    assert bytes(row.raw) == category("x", name="Later"), "quarantine keeps the bytes"
    assert row.category is None
    assert house.audit().holds


def test_what_a_broker_that_is_away_was_not_asked_is_said(house: House) -> None:
    house.sql("ALTER TABLE {bronze} SET TBLPROPERTIES ('headwater.topicId.t' = 'abc')")
    house.bronze((0, 0, 0, category("x")))
    house.reconcile()
    found = house.audit()
    assert found.holds
    [said] = found.unasked
    assert said.startswith("bronze.events: whether its topics are still those that it was written")


@pytest.mark.long
def test_copies_of_an_event_that_gives_way_get_an_outcome_of_their_own(house: House) -> None:
    """(0, 1) left no row: (0, 0) had its content. Then comes what the broker took before both."""
    house.bronze((0, 0, 10, category("x", name="A")), (0, 1, 11, category("x", name="A")))
    house.reconcile()
    assert house.audit().balances == [audit.Balance("t", 2, 1, 0, 1, 0)]
    house.bronze((1, 0, 5, category("x", name="B")))
    house.reconcile()
    assert house.rows() == {
        (0, 0): ("quarantined", ["conflict"], "reconcile"),
        (0, 1): ("quarantined", ["conflict"], "reconcile"),
        (1, 0): ("accepted", [], "reconcile"),
    }
    assert house.audit().holds


@pytest.mark.long
def test_what_gives_way_and_what_cannot(house: House) -> None:
    """(0, 1) was in conflict with (0, 0), and has the content of (1, 0), which stands now.

    Of (0, 2) there is no record in Bronze any more: it is all there is of its content.
    """
    house.bronze(
        (0, 0, 10, category("x", name="A")),
        (0, 1, 11, category("x", name="B")),
        (0, 2, 12, category("y", name="A")),
    )
    house.reconcile()
    assert house.rows()[0, 1][:2] == ("quarantined", ["conflict"])
    house.sql("DELETE FROM {bronze} WHERE offset = 2")
    house.bronze((1, 0, 5, category("x", name="B")), (1, 1, 6, category("y", name="B")))
    found = house.reconcile()
    assert house.rows() == {
        (0, 0): ("quarantined", ["conflict"], "reconcile"),
        (1, 0): ("accepted", [], "reconcile"),
        (0, 2): ("accepted", [], "reconcile"),
        (1, 1): ("quarantined", ["conflict"], "reconcile"),
    }
    kept = tables.read(house.spark, house.settings, house.silver_table).where("offset = 2").first()
    assert kept is not None
    assert kept.category.name == "A"
    assert (found.accepted, found.corrected) == (1, 1)


@pytest.mark.long
@pytest.mark.parametrize("first", [None, pytest.param("replay", marks=pytest.mark.long)])
def test_an_earlier_record_waits_for_what_bronze_has_not_got_yet(
    house: House, first: str | None
) -> None:
    """Silver is ahead. (0, 0) has other content and came later: it can give way once Bronze has
    it, and until then the range ends before (1, 0). A replay does not settle it either."""
    later = (0, 0, 9, category("x", name="Later"))
    house.stream(later)
    house.bronze((1, 0, 5, category("x", name="Earlier")), (1, 1, 6, category("z")))
    if first == "replay":
        every = replay.Range(0)
        done = replay.replay_range(house.spark, house.settings, house.contracts, every)
        assert (done.accepted, done.quarantined) == (1, 0)
        assert house.rows() == {
            (0, 0): ("accepted", [], "stream"),
            (1, 1): ("accepted", [], "replay"),
        }
        assert house.reconcile() == judge.Result(pending=0)
        house.bronze(later)
        house.reconcile()
        assert {key: row[:2] for key, row in house.rows().items()} == {
            (0, 0): ("quarantined", ["conflict"]),
            (1, 0): ("accepted", []),
            (1, 1): ("accepted", []),
        }
        assert house.audit().holds
        return
    assert house.reconcile() == judge.Result(pending=1, accepted=1)
    assert house.rows() == {
        (0, 0): ("accepted", [], "stream"),
        (1, 1): ("accepted", [], "reconcile"),
    }
    assert runs.closed_range(house.spark, house.settings) == {("t", 1): 0}
    house.bronze(later)
    assert house.reconcile() == judge.Result(pending=1, accepted=1, corrected=1)
    assert house.rows() == {
        (0, 0): ("quarantined", ["conflict"], "reconcile"),
        (1, 0): ("accepted", [], "reconcile"),
        (1, 1): ("accepted", [], "reconcile"),
    }
    assert house.audit().holds


def test_an_event_accepted_twice_is_put_right(house: House) -> None:
    """As after a lost checkpoint: the same bytes twice, and other content once more."""
    records: list[Record] = [
        (0, 0, 0, category("x")),
        (0, 1, 1, category("x")),
        (0, 2, 2, category("x", name="Other")),
    ]
    house.bronze(*records)
    house.stream(*records)
    # Nobody has looked at them yet: that is no break of the law.
    assert house.audit().broken == []
    assert house.reconcile().corrected == 2
    assert house.rows() == {
        (0, 0): ("accepted", [], "stream"),
        (0, 2): ("quarantined", ["conflict"], "reconcile"),
    }
    found = house.audit()
    assert found.holds
    assert found.balances == [audit.Balance("t", 3, 1, 1, 1, 0)]


def test_a_row_that_somebody_wrote_twice_is_made_one_by_what_the_audit_names(house: House) -> None:
    records: list[Record] = [(0, 0, 0, category("a")), (0, 1, 1, category("b"))]
    house.bronze(*records)
    house.stream(*records)
    house.reconcile()
    house.sql("INSERT INTO {silver} SELECT * FROM {silver} WHERE offset = 1")
    [said] = house.audit().broken
    assert "`headwater replay --from-offset 0`" in said
    # What is not asked for that leaves it as it is, and loses nothing.
    assert house.reconcile(since=reconcile.BEGINNING).corrected == 0
    assert house.audit().broken == [said]
    replay.replay_range(house.spark, house.settings, house.contracts, replay.Range(0))
    assert set(house.rows()) == {(0, 0), (0, 1)}
    found = house.audit()
    assert found.holds
    assert found.balances == [audit.Balance("t", 2, 2, 0, 0, 0)]


def test_of_two_copies_the_one_that_stood_stands_again(house: House) -> None:
    """The stream took (0, 0); the broker had (1, 0) before, the same bytes."""
    house.bronze((0, 0, 9, category("x")), (1, 0, 3, category("x")))
    house.stream((0, 0, 9, category("x")))
    house.reconcile()
    before = tables.version(house.spark, house.settings, house.silver_table)
    for wanted in (replay.Range(0, partition=0), replay.Range(0)):
        replay.replay_range(house.spark, house.settings, house.contracts, wanted)
    assert house.rows() == {(0, 0): ("accepted", [], "stream")}
    assert tables.version(house.spark, house.settings, house.silver_table) == before


def test_holes_of_a_range_in_which_bronze_has_nothing(house: House) -> None:
    """As where a transaction's mark is the only offset since the last reconcile, or the first of a
    partition."""
    house.bronze((0, 0, 0, b"{"), (0, 1, 1, b"{"), (1, 2, 2, b"{"), (1, 4, 4, b"{"))
    end = {("t", 0): 3, ("t", 1): 6, ("t", 2): 1}
    first = [Gap("t", 1, 0, 2), Gap("t", 1, 3, 4), Gap("t", 1, 5, 6), Gap("t", 2, 0, 1)]
    assert gaps.holes(house.spark, house.settings, {}, end) == [Gap("t", 0, 2, 3), *first]
    closed = {("t", 0): 2, ("t", 1): 5}
    found = gaps.holes(house.spark, house.settings, closed, end)
    assert found == [Gap("t", 0, 2, 3), Gap("t", 1, 5, 6), Gap("t", 2, 0, 1)]


def test_what_is_after_the_closed_range_may_be_pending(house: House) -> None:
    house.bronze((0, 0, 0, category("a")))
    house.stream((0, 0, 0, category("a")))
    house.reconcile()
    assert house.audit().open == 0
    house.bronze((0, 1, 1, category("b")), (0, 2, 2, b"{"))
    found = house.audit()
    assert (found.open, found.broken) == (2, [])
    assert found.balances == [audit.Balance("t", 3, 1, 0, 0, 2)]


TAMPERING: list[tuple[str, Callable[[House], None], str]] = [
    (
        "a Silver row deleted",
        lambda h: h.sql("DELETE FROM {silver} WHERE offset = 1"),
        "1 records have no outcome",
    ),
    (
        "a Silver row doubled",
        lambda h: h.sql("INSERT INTO {silver} SELECT * FROM {silver} WHERE offset = 1"),
        "in Silver more than once",
    ),
    (
        "a Bronze row deleted",
        lambda h: h.sql("DELETE FROM {bronze} WHERE offset = 1"),
        "in Silver and not in Bronze",
    ),
    (
        "a duplicate's Bronze row deleted",
        lambda h: h.sql("DELETE FROM {bronze} WHERE offset = 2"),
        "offsets 2 to 2 (1 records) are missing in Bronze",
    ),
    (
        "a Bronze row doubled",
        lambda h: h.sql("INSERT INTO {bronze} SELECT * FROM {bronze} WHERE offset = 1"),
        "in Bronze more than once",
    ),
    (
        "an accepted event under another event's id",
        lambda h: h.sql("UPDATE {silver} SET id = 'a' WHERE offset = 1"),
        "accepted more than once",
    ),
    (
        "the end of a partition deleted",
        lambda h: h.sql(
            "DELETE FROM {silver} WHERE offset = 3", "DELETE FROM {bronze} WHERE offset = 3"
        ),
        "offsets 3 to 3 (1 records) are missing in Bronze",
    ),
    (
        "the beginning of a partition deleted",
        lambda h: h.sql(
            "DELETE FROM {silver} WHERE offset = 0", "DELETE FROM {bronze} WHERE offset = 0"
        ),
        "offsets 0 to 0 (1 records) are missing in Bronze",
    ),
    (
        "a quarantined row deleted",
        lambda h: h.sql("DELETE FROM {silver} WHERE offset = 3"),
        "1 records have no outcome",
    ),
]


@pytest.fixture(scope="module")
def sound(spark: SparkSession, few: Contracts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a house in which the law holds, for tests to take a copy of."""
    folder = tmp_path_factory.mktemp("sound")
    made = House(spark, settings_files.load("local", storage=str(folder)), few)
    records: list[Record] = [
        (0, 0, 0, category("a")),
        (0, 1, 1, category("b")),
        (0, 2, 2, category("a")),
        (0, 3, 3, b"{"),
    ]
    made.bronze(*records)
    made.stream(records[0], records[1], records[3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "committed_by_all", lambda *_: made.ends)
        made.reconcile()
    assert made.audit().holds
    return folder


@pytest.mark.parametrize(("what", "tamper", "said"), TAMPERING, ids=[t[0] for t in TAMPERING])
def test_tampering_breaks_the_law(
    spark: SparkSession,
    settings: Settings,
    few: Contracts,
    sound: Path,
    what: str,
    tamper: Callable[[House], None],
    said: str,
) -> None:
    shutil.copytree(sound, settings.storage)
    house = House(spark, settings, few)
    tamper(house)
    broken = house.audit().broken
    assert any(said in line for line in broken), (what, broken)


@pytest.mark.long
def test_a_range_is_looked_at_again_from_a_moment_on(
    spark: SparkSession,
    settings: Settings,
    few: Contracts,
    sound: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two rows of Silver are gone from a range that is closed: of seconds 1 and 3."""
    shutil.copytree(sound, settings.storage)
    house = House(spark, settings, few)
    house.ends = {("t", 0): 4}
    monkeypatch.setattr(judge, "committed_by_all", lambda *_: house.ends)
    house.sql("DELETE FROM {silver} WHERE offset IN (1, 3)")
    assert house.reconcile().pending == 0, "a reconcile goes on after the last one"
    assert house.reconcile(since=AT + timedelta(seconds=2)).quarantined == 1
    assert set(house.rows()) == {(0, 0), (0, 3)}
    assert house.reconcile(since=AT).accepted == 1
    assert set(house.rows()) == {(0, 0), (0, 1), (0, 3)}
    assert house.audit().holds
    # What is open is looked at in any case, before that moment too.
    house.bronze((0, 4, 4, category("c")))
    assert house.reconcile(since=AT + timedelta(hours=1)).accepted == 1
    assert house.audit().holds


def test_the_same_transaction_twice_is_written_once(house: House) -> None:
    rows = house.raw([(0, 0, 0, b"x")])
    for _ in range(2):
        tables.append(rows, house.settings, tables.bronze(), ("bronze.events:q1", 0))
    assert tables.read(house.spark, house.settings, tables.bronze()).count() == 1
    # A new checkpoint counts its batches from 0 again, under an id of its own.
    more = house.raw([(0, 1, 0, b"y")])
    tables.append(more, house.settings, tables.bronze(), ("bronze.events:q2", 0))
    assert tables.read(house.spark, house.settings, tables.bronze()).count() == 2


def test_a_new_contract_adds_its_columns(house: House, contracts: Contracts) -> None:
    more = Contracts([contracts["category"], contracts["review"]])
    tables.ensure(house.spark, house.settings, tables.silver(more))
    found = tables.read(house.spark, house.settings, tables.silver(more))
    assert "review" in found.columns
    names = tables.register(house.spark, house.settings, more, Layouts([]))
    assert {"silver.category", "silver.review", "silver.quarantine"} <= set(names)
