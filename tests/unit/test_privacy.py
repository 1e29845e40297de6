"""What is shown of a record."""

from __future__ import annotations

import json

from lakehouse.contracts import Contracts
from lakehouse.privacy import masked
from tests.samples import event


def test_personal_columns_are_masked_and_the_rest_is_not(contracts: Contracts) -> None:
    pii = {column.json_key for column in contracts["customer"].columns if column.pii}
    assert "email" in pii, "the contract says so"
    data = {"customer_id": "C1", "email": "ada@example.org", "tier": "gold"}
    value = event("customer", data, id="1", subject="C1")
    shown = json.loads(masked(value, contracts, "customer", reveal=False))
    assert shown["data"] == {"customer_id": "C1", "email": "***", "tier": "gold"}
    assert (shown["id"], shown["subject"]) == ("1", "***")
    assert "ada@example.org" in masked(value, contracts, "customer", reveal=True)


def test_nothing_is_shown_of_what_no_contract_knows(contracts: Contracts) -> None:
    value = b'{"who": "Ada", "more": {"mail": "ada@example.org"}, "list": ["Ada"]}'
    for entity in (None, "unheard_of"):
        shown = masked(value, contracts, entity, reveal=False)
        assert json.loads(shown) == {"who": "***", "more": {"mail": "***"}, "list": "***"}
    for broken in (b"{Ada", b"\xff Ada", b"[" * 5_000, b'"Ada"', b""):
        assert "Ada" not in masked(broken, contracts, "customer", reveal=False)
        assert f"{len(broken):,} bytes" in masked(broken, contracts, "customer", reveal=False)
    assert masked(None, contracts, None, reveal=False) == "none (a tombstone)"


def test_nothing_shown_moves_the_cursor(contracts: Contracts) -> None:
    value = b'{"type": "x\x1b[2J"} \x07\xff'
    shown = masked(value, contracts, None, reveal=True)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "\\x1b[2J" in shown
