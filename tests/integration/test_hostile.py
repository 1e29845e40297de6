"""Payloads that mean harm: each of them in Bronze, an outcome for each, the stream alive."""

from __future__ import annotations

import json
from pathlib import Path

from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse.contracts import Contracts
from producer.command import send_foreign
from tests.helpers import drain, headwater, settings_for, table
from tests.samples import event
from tests.samples_gold import CUSTOMER

TEXTS = [
    "'; DROP TABLE silver.events; --",
    "${jndi:ldap://127.0.0.1:1/a}",
    "${spark.driver.host} {0} %s %n %d {} {{ }}",
    "../../../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "[red]bold[/red] [link=file:///etc/passwd]",
    "\x1b[2J\x1b[31m\x07",
    "line\nfeed\r\nand\ttab",
    "\u202e\u200b\ufeff\u2028\u2029",
    "nul\x00nul",
    "`backtick` \"quote\" 'quote' \\ \\\\",
    "e\u0301\U0001f4a9\U0010ffff",
    "A" * 200_000,
    "__proto__",
    "NaN",
    "9" * 400,
]
GOOD = {"category_id": "K001", "name": "Books"}
RAW = [
    event("customer", CUSTOMER | {"email": "a@" + "a." * 20_000 + "com"}, id="words"),
    event("customer", CUSTOMER | {"email": "a." * 300_000 + "a@example.com"}, id="more words"),
    b"[" * 1_000 + b'"' + b'\\"' * 400_000,
    event("category", GOOD, id="half").replace(b"half", b"\\ud83d\\\\\\ude00"),
    event("category", GOOD | {"k" * 60_000: 1}, id="key"),
    b"",
    b"\x00",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"\xed\xa0\x80",
    b"\xc0\xae\xc0\xae/",
    b"{" * 100_000,
    b"[" * 1_000 + b"]" * 1_000,
    b'{"a":' * 998 + b"1" + b"}" * 998,
    b'{"id":1,"id":2}',
    b'{"a":1}{"b":2}',
    b"{'a':1}",
    b'{"a":01}',
    b'{"a":1e999999999}',
    b'{"a":-0}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\u0000"}',
    b"null",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    b"PK\x03\x04",
    b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
    b"!!python/object/apply:os.system ['true']",
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    b'{"specversion":"1.0","id":{"$gt":""},"source":[],"type":true,"time":0,"data":"x"}',
]


def payloads() -> list[bytes]:
    """Every text as an id, a source, a subject, a value, and the name of a field."""
    found = list(RAW)
    for number, text in enumerate(TEXTS):
        name = f"hostile-{number}"
        found += [
            event("category", GOOD, id=text),
            event("category", GOOD, id=f"{name}-source", source=text),
            event("category", GOOD, id=f"{name}-subject", subject=text),
            event("category", GOOD, id=f"{name}-type", type=text),
            event("category", GOOD | {"name": text}, id=f"{name}-value"),
            event("category", GOOD | {text: text}, id=f"{name}-field"),
        ]
    return found


def test_hostile_payloads(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "data", bootstrap)
    folder = tmp_path / "hostile"
    folder.mkdir()
    sent = payloads()
    assert len(set(sent)) == len(sent) == 131
    for number, payload in enumerate(sent):
        (folder / f"{number:04}.bin").write_bytes(payload)
    send_foreign(settings, folder)
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    [balance] = found.balances
    assert (balance.bronze, balance.duplicates, balance.pending) == (len(sent), 0, 0)

    bronze = table(settings, "bronze/events", ["partition", "offset", "value"]).to_pylist()
    assert sorted(row["value"] for row in bronze) == sorted(sent)
    columns = ["partition", "offset", "outcome", "raw", "category", "rescued"]
    silver = table(settings, "silver/events", columns).to_pylist()
    value_of = {(row["partition"], row["offset"]): row["value"] for row in bronze}
    accepted = 0
    for row in silver:
        value = value_of[row["partition"], row["offset"]]
        if row["outcome"] == "quarantined":
            assert row["raw"] == value
            continue
        accepted += 1
        data = json.loads(value)["data"]
        assert row["category"]["name"] == data["name"].strip(" \t\r\n")
        # What was in a field that nobody knows is there as it came.
        assert json.loads(row["rescued"] or "{}") == {
            key: text for key, text in data.items() if key not in GOOD
        }
    # Texts are texts: whatever they look like, most of them are good ids, sources and fields.
    assert accepted > 3 * len(TEXTS)

    listed = headwater(settings, "quarantine", "list", "--limit", "200").stdout
    assert "\x1b" not in listed
    assert "\x07" not in listed
