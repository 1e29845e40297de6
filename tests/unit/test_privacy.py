"""What is shown of a record."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lakehouse.contracts import Contracts
from lakehouse.privacy import line, masked
from tests.samples import event


def shown(value: bytes, contracts: Contracts, entity: str | None) -> dict[str, object]:
    found: dict[str, object] = json.loads(masked(value, contracts, "t", entity, reveal=False))
    return found


def test_of_a_contract_all_but_the_personal_columns_is_shown(contracts: Contracts) -> None:
    pii = {column.json_key for column in contracts["customer"].columns if column.pii}
    assert "email" in pii, "the contract says so"
    data = {"customer_id": "C1", "email": "ada@example.org", "loyalty_tier": "gold"}
    value = event("customer", data, id="1", subject="C1")
    found = shown(value, contracts, "customer")
    assert found["data"] == {
        "customer_id": "C1",
        "loyalty_tier": "gold",
        "***": "1 more (--reveal shows them)",
    }
    assert found["id"] == "1"
    assert "subject" not in found
    assert "ada@example.org" in masked(value, contracts, "t", "customer", reveal=True)
    assert shown(event("category", {}, subject="K1"), contracts, "category")["subject"] == "K1"


def test_personal_data_in_the_wrong_place_is_not_shown(contracts: Contracts) -> None:
    """As in a record that is quarantined for exactly that."""
    whole = json.loads(event("customer", {"customer_id": "C1"}))
    misplaced: list[dict[str, object]] = [
        {**whole, "email": "Ada"},
        {**whole, "Ada": 1},
        *(
            {**whole, "data": {"customer_id": "C1", **data}}
            for data in (
                {"Email": "Ada"},
                {"contact": {"email": "Ada"}},
                {"Ada": True},
                {"loyalty_tier": {"mail": "Ada"}},
                {"loyalty_tier": ["Ada"]},
            )
        ),
        {**whole, "data": ["Ada"]},
        {**whole, "data": "Ada"},
        {**whole, "source": {"who": "Ada"}},
    ]
    for entity in ("customer", None, "unheard_of"):
        for document in misplaced:
            text = masked(json.dumps(document).encode(), contracts, "t", entity, reveal=False)
            assert "Ada" not in text, (entity, document)


@pytest.mark.parametrize("entity", ["telco_customer", None])
def test_what_a_topic_without_envelopes_calls_id_may_be_personal(
    entity: str | None, contracts: Contracts
) -> None:
    """Its contract says so, also where a record's entity is not known: a key that is there twice,
    other bytes that were not judged yet."""
    contract = contracts["telco_customer"]
    first = dataclasses.replace(contract.columns[0], json_key="id", pii=True)
    columns = (first, *contract.columns[1:])
    changed = dataclasses.replace(contract, topic="crm.members", columns=columns)
    value = b'{"id": "700101-1234", "id": "700101-1234", "source": "Ada", "tenure": 3}'
    text = masked(value, Contracts([changed]), "crm.members", entity, reveal=False)
    assert json.loads(text) == {"tenure": 3, "***": "2 more (--reveal shows them)"}


def test_what_cannot_be_read_is_not_shown(contracts: Contracts) -> None:
    for broken in (b"{Ada", b"\xff Ada", b"[" * 5_000, b'"Ada"', b""):
        text = masked(broken, contracts, "t", "customer", reveal=False)
        assert text == f"{len(broken):,} bytes that are no JSON object (--reveal shows them)"
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    assert shown(deep, contracts, None) == {"***": "1 more (--reveal shows them)"}
    assert masked(None, contracts, "t", None, reveal=False) == "none (a tombstone)"


def test_a_message_has_no_words_without_end() -> None:
    assert line("one\x1b[2J") == "one\\x1b[2J"
    long = line("a" * 5_000)
    assert long == "a" * 4_000 + " … (1,000 characters more)"
    # All that is missing is named, however much it is.
    gaps = "; ".join(f"topic t partition {n}: offsets 0 to 9" for n in range(1_000))
    assert line(gaps) == gaps


def test_nothing_shown_moves_the_cursor(contracts: Contracts) -> None:
    value = b'{"type": "x\x1b[2J"} \x07\xff'
    shown = masked(value, contracts, "t", None, reveal=True)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "\\x1b[2J" in shown
