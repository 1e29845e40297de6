"""Changes of a database's table, as Debezium writes them: what each becomes, without a JVM.

tests/spark/test_engines.py holds Spark to the same.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lakehouse import contracts as contract_files
from lakehouse import layouts as layout_files
from lakehouse.contracts import Contracts
from lakehouse.decode_pandas import classify
from tests.helpers import ROOT
from tests.samples import change

REWARDS = ROOT / "conf/sources/rewards"
SENT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def members() -> Contracts:
    return contract_files.load(REWARDS)


def told(members: Contracts, *values: Any) -> list[dict[str, Any]]:
    topic = members["reward_member"].topic
    records = [
        {"topic": topic, "partition": 0, "offset": i, "timestamp": SENT, "value": value}
        for i, value in enumerate(
            one if isinstance(one, bytes) else json.dumps(one).encode() for one in values
        )
    ]
    found = classify(records, members, 1_048_576).to_dict("records")
    return [{str(k): None if v is pd.NA or v is pd.NaT else v for k, v in r.items()} for r in found]


def test_what_comes_with_headwater_is_sound(members: Contracts) -> None:
    layouts = layout_files.load(REWARDS, members)
    assert layouts["gold.dim_reward_member"].of_changes


def test_each_kind_of_change(members: Contracts) -> None:
    made, read, updated, deleted = told(
        members, change("c"), change("r", row=1), change("u", row=2), change("d", row=3)
    )
    assert [one["outcome"] for one in (made, read, updated, deleted)] == ["accepted"] * 4
    kinds = [one["type"].rpartition(".")[2] for one in (made, read, updated, deleted)]
    assert kinds == ["created", "read", "updated", "deleted"]
    assert made["type"] == "headwater.rewards.member.created"
    assert made["source"] == "kafka:rewards.rewards.member"
    # The number of the binlog's file, the place in it, the row, the moment, the key.
    assert made["id"] == f"0000000007/{1234:020}/0000000000/1772366400000/1:5"
    assert made["time"] == datetime(2026, 3, 1, 12, tzinfo=UTC)
    # Of one that was deleted, what it was.
    assert (made["reward_member__points"], deleted["reward_member__points"]) == (20, 10)
    assert made["reward_member__spent"] == Decimal("19.90")


def test_places_in_the_log_are_told_apart(members: Contracts) -> None:
    places = [("mariadb-bin.000009", 900, 0), ("mariadb-bin.000010", 4, 0)]
    places += [("mariadb-bin.000010", 4, 1), ("mariadb-bin.000010", 1_000, 0)]
    places += [("mariadb-bin.1000000", 4, 0)]
    ids = [
        one["id"]
        for one in told(members, *(change("c", file=f, pos=p, row=r) for f, p, r in places))
    ]
    assert ids == sorted(ids)
    assert len(set(ids)) == 5


def test_of_what_is_gone_the_key_alone_counts(members: Contracts) -> None:
    """Else a row that had broken a rule would stay for ever."""
    odd = {"tier": "iron", "email": None, "spent": "19.999", "points": "x"}
    found = told(members, change("d", before=odd), change("u", after=odd))
    assert [one["outcome"] for one in found] == ["accepted", "quarantined"]
    only_key = {**change("d"), "before": {"member_id": 5}}
    no_key = {**change("d"), "before": {"customer_id": "C00000005"}}
    [gone, nameless] = told(members, only_key, no_key)
    assert (gone["outcome"], nameless["violations"]) == ("accepted", ["member_id.required"])


def test_a_change_that_is_sent_again_is_the_same(members: Contracts) -> None:
    """Debezium writes into it when that was."""
    first, again, other = told(
        members, change("u"), change("u", ts_ms=99), change("u", after={"points": 21})
    )
    assert (first["id"], first["digest"]) == (again["id"], again["digest"])
    assert (first["id"], first["digest"]) != (other["id"], other["digest"])
    assert first["id"] == other["id"]


@pytest.mark.parametrize(
    ("value", "violations"),
    [
        (change("x"), ["op.unsupported"]),
        ({**change("c"), "op": None}, ["op.required"]),
        ({**change("c"), "source": {}}, ["source.position", "source.ts_ms"]),
        ({**change("c"), "source": 3}, ["source.position", "source.ts_ms"]),
        ({**change("c"), "after": None}, ["after.required"]),
        ({**change("c"), "after": [1]}, ["after.type"]),
        ({**change("d"), "before": None}, ["before.required"]),
        (change("c", after={"tier": "iron"}), ["tier.one_of"]),
        (change("c", after={"points": None}), ["points.required"]),
        (change("c", after={"spent": "19.999"}), ["spent.precision"]),
        (b"", ["empty_value"]),
    ],
)
def test_what_is_none_is_named(members: Contracts, value: Any, violations: list[str]) -> None:
    [found] = told(members, value)
    assert (found["outcome"], sorted(found["violations"])) == ("quarantined", violations)


def wrong(folder: Path, old: str, new: str) -> list[str]:
    text = (REWARDS / "reward_member.yaml").read_text()
    assert old in text
    (folder / "reward_member.yaml").write_text(text.replace(old, new))
    return [str(finding).partition(": ")[2] for finding in contract_files.check(folder)[1]]


def test_a_contract_that_cannot_be(tmp_path: Path) -> None:
    topic = "  - {property: topic, value: rewards.rewards.member}\n"
    assert "changes: is for a contract with a topic" in "\n".join(wrong(tmp_path, topic, ""))
    [said] = wrong(tmp_path, "value: debezium", "value: maxwell")
    assert said.endswith("changes: 'maxwell': only debezium")
    said = "\n".join(wrong(tmp_path, topic, f"{topic}  - {{property: id, value: member_id}}\n"))
    assert "id: a change has its own" in said
    [said] = wrong(tmp_path, "        primaryKey: true\n", "")
    assert "changes want the primary key of their table" in said
