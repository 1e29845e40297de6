"""The defect catalogue: its share, and that each defect is what its name says."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pytest

from producer import defects
from producer.command import shop_of
from producer.defects import CATALOGUE, Record

START = 1_759_276_800_000


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(islice(shop_of(3, START, 0.3).records(), 60_000))


def by_defect(records: list[Record], name: str) -> list[Record]:
    return [record for record in records if record.defect == name]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.6])
def test_the_share_of_defects_is_the_one_asked_for(rate: float) -> None:
    drawn = list(islice(shop_of(3, START, rate).records(), 30_000))
    share = sum(record.defect is not None for record in drawn) / len(drawn)
    assert abs(share - rate) < 0.02


def test_with_every_event_defective_only_the_originals_of_copies_are_good() -> None:
    drawn = list(islice(shop_of(3, START, 1.0).records(), 30_000))
    copied = {
        record.id
        for record in islice(shop_of(3, START, 1.0).records(), 60_000)
        if record.defect in {"duplicate", "conflict"}
    }
    good = {record.id for record in drawn if record.defect is None}
    assert len(good - copied) < 0.02 * len(good), "a copy may come after what was taken"


def test_every_defect_occurs(records: list[Record]) -> None:
    found = Counter(record.defect for record in records)
    assert {defect.name for defect in CATALOGUE} == {name for name in found if name is not None}


def test_copies_come_after_what_they_copy(records: list[Record]) -> None:
    first: dict[str | None, Record] = {}
    for record in records:
        if record.defect in {"duplicate", "conflict"}:
            original = first[record.id]
            assert original.at < record.at
            assert (original.value == record.value) == (record.defect == "duplicate")
            assert original.key == record.key, "the same partition, so that it comes second"
        elif record.id is not None:
            assert record.id not in first
            first[record.id] = record


def test_late_ones_are_later_than_the_watermark(records: list[Record]) -> None:
    late = by_defect(records, "late")
    assert len(late) > 1_000
    for record in late:
        assert record.at - _ms(json.loads(record.value or b"")["time"]) >= 20 * 60_000


def _ms(text: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp() * 1000)


def test_broken_bytes_are_broken(records: list[Record]) -> None:
    for name in ("broken_json", "trailing_text"):
        for record in by_defect(records, name):
            with pytest.raises(json.JSONDecodeError):
                json.loads(record.value or b"")
    for record in by_defect(records, "non_utf8"):
        with pytest.raises(UnicodeDecodeError):
            (record.value or b"").decode()
    for record in by_defect(records, "duplicate_key"):
        names = [key for key, _ in json.loads(record.value or b"", object_pairs_hook=list)]
        assert len(names) > len(set(names))
    assert all(record.value == b"" for record in by_defect(records, "empty_value"))
    assert all(record.value is None for record in by_defect(records, "tombstone"))
    assert all(record.key is None for record in by_defect(records, "null_key"))


def test_text_is_cut_between_characters() -> None:
    """Half a character would be another defect than the ledger says: bytes that are not UTF-8."""
    whole = '{"name":"Jürgen Łódź 😀"}'.encode()
    for step in range(1_000):
        left, _ = defects._unreadable("broken_json", whole, step / 1_000)
        with pytest.raises(json.JSONDecodeError):
            json.loads((left or b"").decode())


def test_outcomes_and_rules_go_together(records: list[Record]) -> None:
    for record in records:
        assert (record.outcome == "quarantined") == bool(record.rules)
