"""Up to where a bridge may commit, and what it puts aside: without a broker."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse import settings as settings_files
from lakehouse.errors import SettingsError
from lakehouse.settings import Bridge, BridgeTo, Settings
from producer.bridge import Acknowledged, circle, send_on
from producer.targets import Record, dead_letter


def record(partition: int, offset: int, value: bytes = b"v") -> Record:
    return Record("t", partition, offset, b"k", value, [("h", b"1")], None)


@given(
    offsets=st.lists(st.sampled_from([1, 2, 7]), min_size=1, max_size=30),
    seed=st.integers(0, 1_000),
)
def test_nothing_is_committed_over_a_record_that_is_not_safe(offsets: list[int], seed: int) -> None:
    """Offsets with gaps, as a compacted topic has them, acknowledged in any order."""
    safe, at = Acknowledged(), 0
    sent: list[Record] = []
    for step in offsets:
        at += step
        sent.append(record(0, at))
        safe.sent(sent[-1])
    shuffled = random.Random(seed).sample(sent, len(sent))
    for count, one in enumerate(shuffled, 1):
        safe.done(one)
        waiting = {r.offset for r in shuffled[count:]}
        assert safe.in_flight == len(waiting)
        moved = safe.moved().get(("t", 0), 0)
        assert all(offset >= moved for offset in waiting)
        before = [r.offset for r in sent if not waiting or r.offset < min(waiting)]
        assert moved == (before[-1] + 1 if before else 0)
    assert safe.bytes == 0
    safe.committed(safe.moved())
    assert safe.moved() == {}


def test_what_comes_late_of_a_partition_that_is_gone_counts_for_nothing() -> None:
    safe = Acknowledged()
    for one in (record(0, 1), record(1, 1)):
        safe.sent(one)
    safe.forget([("t", 0)])
    safe.done(record(0, 1))
    assert (safe.moved(), safe.in_flight) == ({}, 1)


def test_a_record_that_is_sent_again_while_it_is_under_way_is_counted_once() -> None:
    """Its partition was lost and given back: both are acknowledged, and nothing is under way."""
    safe = Acknowledged()
    safe.sent(record(0, 1))
    safe.forget([("t", 0)])
    safe.sent(record(0, 1))
    safe.done(record(0, 1))
    safe.done(record(0, 1))
    assert (safe.bytes, safe.in_flight, safe.moved()) == (0, 0, {("t", 0): 2})


def test_a_dead_letter_is_whole_and_says_where_it_was() -> None:
    aside = dead_letter(record(3, 5), "why")
    assert (aside.key, aside.value, aside.headers[0]) == (b"k", b"v", ("h", b"1"))
    assert dict(aside.headers[1:]) == {
        "headwater.dead_letter.topic": b"t",
        "headwater.dead_letter.partition": b"3",
        "headwater.dead_letter.offset": b"5",
        "headwater.dead_letter.reason": b"why",
    }


def test_a_bridge_to_nowhere_is_named(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="HEADWATER_BRIDGE__TO__BOOTSTRAP"):
        send_on(settings)


@pytest.mark.parametrize(
    ("to", "topic", "dead_letters", "said"),
    [
        ("one:9092,two:9092", "", "", "bridge.topic: topic shop.events of .* to itself"),
        ("Three:9092, TWO:9092", "shop.events", "", "bridge.topic: topic shop.events of"),
        ("four:9092", "", "shop.events", "bridge.dead_letters: shop.events is the topic that"),
        ("two:9092", "there", "", None),
        ("four:9092", "", "aside", None),
    ],
)
def test_a_bridge_in_a_circle_is_refused(
    settings: Settings, to: str, topic: str, dead_letters: str, said: str | None
) -> None:
    ends = Bridge(to=BridgeTo(bootstrap=to), topic=topic, dead_letters=dead_letters)
    here = settings.broker.model_copy(update={"bootstrap": "two:9092,three:9092"})
    found = circle(settings.model_copy(update={"bridge": ends, "broker": here}), "shop.events")
    assert found is None if said is None else re.match(said, found or "")


def test_a_variable_two_levels_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_BRIDGE__TO__BOOTSTRAP", "there:9093")
    found = settings_files.load("local").bridge.to
    assert (found.bootstrap, found.create_topics, found.compression) == (
        "there:9093",
        False,
        "none",
    )
    monkeypatch.setenv("HEADWATER_BRIDGE__TO__BOOTSTRP", "x")
    with pytest.raises(SettingsError, match="HEADWATER_BRIDGE__TO__BOOTSTRP"):
        settings_files.load("local")
