"""Every kind of bad record, by its bytes: the outcome that docs/outcomes.md promises."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse import decode_pandas, silver
from lakehouse.contracts import Contracts
from tests.samples import event
from tests.samples_gold import CUSTOMER

BROKER_TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT = 1_048_576
STOCK = {
    "store_id": "S001",
    "product_id": "P00001",
    "quantity": 5,
    "reorder_level": 3,
    "reason": "sale",
}
LINE = {
    "order_id": "O0000000001",
    "line_number": 1,
    "product_id": "P00001",
    "quantity": 2,
    "unit_price": 1.5,
    "line_total": 3,
    "currency": "EUR",
}
ORDER = {
    "order_id": "O0000000001",
    "customer_id": "C00000001",
    "store_id": "S001",
    "address_id": "A00000001",
    "status": "placed",
    "channel": "web",
    "item_count": 1,
    "subtotal": 10.5,
    "shipping_fee": 4.9,
    "total": 15.4,
    "currency": "EUR",
    "placed_at": "2026-01-01T00:00:00Z",
}


def stock(**changes: Any) -> bytes:
    return event("inventory", {**STOCK, **changes})


def line(number: str) -> bytes:
    """An order line whose unit price is spelt as given."""
    return event("order_item", {**LINE, "unit_price": 987}).replace(b"987", number.encode())


def unknown(number: str) -> bytes:
    """A record with a field that no one knows, whose number is spelt as given."""
    return stock(more=987).replace(b"987", number.encode())


def customer(**changes: Any) -> bytes:
    return event("customer", {**CUSTOMER, **changes})


def mail(address: str) -> bytes:
    return customer(email=address)


def order(**changes: Any) -> bytes:
    return event("order", {**ORDER, **changes})


def deep(levels: int) -> bytes:
    """A record of so many levels: the envelope, its data, and lists in a key that no one knows."""
    inner = "[" * (levels - 2) + "]" * (levels - 2)
    return stock(extra=0).replace(b'"extra": 0', f'"extra": {inner}'.encode())


# Under 1 MiB, and minutes of work for who looks at the names in it pair by pair.
MANY_NAMES = [{f"n{number}": 1} for number in range(60_000)]
GOOD = stock()
# what, the record, the rules that it breaks; none: accepted
CASES: list[tuple[str, bytes | None, list[str]]] = [
    ("a good record", GOOD, []),
    ("blanks around it", b" \r\n" + GOOD + b"\n\t", []),
    ("an unknown field", stock(more="x"), []),
    ("a whole number with a point", stock(quantity=5.0), []),
    ("an untidy enumeration", stock(reason="  SALE\t"), []),
    ("the year 1970", event("inventory", STOCK, time="1970-01-01T00:00:00Z"), []),
    ("another zone", event("inventory", STOCK, time="2026-01-01T05:30:00+05:30"), []),
    ("a little ahead of the broker", event("inventory", STOCK, time="2026-03-01T12:05:00Z"), []),
    ("999 levels", deep(999), []),
    ("999,000 bytes", stock(extra="x" * 999_000), []),
    ("a tombstone", None, ["tombstone"]),
    ("an empty value", b"", ["empty_value"]),
    ("blanks alone", b"  \n", ["malformed_json"]),
    ("cut off", GOOD[:-2], ["malformed_json"]),
    ("trailing text", GOOD + b" and so on", ["malformed_json"]),
    ("a second object", GOOD + GOOD, ["malformed_json"]),
    ("a second object after a comma", GOOD + b"," + GOOD, ["malformed_json"]),
    ("a trailing bracket", GOOD + b"]", ["malformed_json"]),
    ("an array closed and opened", GOOD + b"],[", ["malformed_json"]),
    ("single quotes", b"{'a': 1}", ["malformed_json"]),
    ("NaN", stock(quantity=0).replace(b": 0", b": NaN"), ["malformed_json"]),
    ("a byte order mark", b"\xef\xbb\xbf" + GOOD, ["malformed_json"]),
    ("a control character in a text", GOOD.replace(b"sale", b"sa\x01le"), ["malformed_json"]),
    ("half a surrogate pair", GOOD.replace(b"sale", b"\\ud800"), ["lone_surrogate"]),
    ("two such keys", stock(x=0).replace(b'"x"', b'"\\ud800":1,"\\uD801"'), ["lone_surrogate"]),
    ("a whole pair", event("inventory", STOCK, id="😀"), []),
    ("a backslash and ud800", event("inventory", STOCK, id="\\ud800"), []),
    ("no UTF-8", GOOD.replace(b"sale", b"sal\xff"), ["not_utf8"]),
    ("half a surrogate pair as bytes", GOOD.replace(b"sale", b"\xed\xa0\x80"), ["not_utf8"]),
    ("two equal keys", GOOD[:-1] + b', "id": "2"}', ["duplicate_key"]),
    ("two equal keys deep down", GOOD.replace(b'"sale"', b'{"a":1,"a":2}'), ["duplicate_key"]),
    ("1,000 levels", deep(1000), ["nesting_too_deep"]),
    ("100,000 brackets", b"[" * 100_000, ["nesting_too_deep"]),
    ("1 MiB and a byte", b"x" * (LIMIT + 1), ["record_too_large"]),
    ("an array", b"[1]", ["not_an_object"]),
    ("a text", b'"x"', ["not_an_object"]),
    ("null", b"null", ["not_an_object"]),
    ("no id", event("inventory", STOCK, id=None), ["id.required"]),
    ("an empty id", event("inventory", STOCK, id=""), ["id.required"]),
    ("a blank id", event("inventory", STOCK, id=" \t"), ["id.required"]),
    ("a number as id", event("inventory", STOCK, id=7), ["id.type"]),
    ("no source", event("inventory", STOCK, source=None), ["source.required"]),
    ("a list as source", event("inventory", STOCK, source=[]), ["source.type"]),
    ("a list of nothing as source", event("inventory", STOCK, source=[None]), ["source.type"]),
    ("many names in an id", event("inventory", STOCK, id=MANY_NAMES), ["id.type"]),
    ("many names in a reason", stock(reason=MANY_NAMES), ["reason.type"]),
    ("many names in a quantity", stock(quantity={"a": MANY_NAMES}), ["quantity.type"]),
    ("no specversion", event("inventory", STOCK, specversion=None), ["specversion.required"]),
    ("specversion 2", event("inventory", STOCK, specversion="2.0"), ["specversion.unsupported"]),
    ("no type", event("inventory", STOCK, type=None), ["type.required"]),
    ("truth as type", event("inventory", STOCK, type=True), ["type.type"]),
    ("an unknown type", event("inventory", STOCK, type="x.y"), ["unknown_type"]),
    ("no time", event("inventory", STOCK, time=None), ["time.required"]),
    ("a number as time", event("inventory", STOCK, time=1767225600), ["time.type"]),
    ("no such day", event("inventory", STOCK, time="2026-02-30T00:00:00Z"), ["time.format"]),
    ("a time without zone", event("inventory", STOCK, time="2026-02-01T00:00:00"), ["time.format"]),
    ("the year 9999", event("inventory", STOCK, time="9999-12-01T00:00:00Z"), ["time.in_future"]),
    ("ahead of the broker", event("inventory", STOCK, time="2026-03-01T12:05:01Z"),
     ["time.in_future"]),
    ("no data", event("inventory", None), ["data.required"]),
    ("data is a list", event("inventory", [1]), ["data.type"]),  # type: ignore[arg-type]
    ("data is a text", event("inventory", "x"), ["data.type"]),  # type: ignore[arg-type]
    ("empty data", event("category", {}), ["category_id.required", "name.required"]),
    ("null where a value is required", stock(quantity=None), ["quantity.required"]),
    ("a number as text", stock(quantity="5"), ["quantity.type"]),
    ("a text as number", stock(reason=5), ["reason.type"]),
    ("a number as truth", stock(quantity=True), ["quantity.type"]),
    ("a fraction of a whole", stock(quantity=1.5), ["quantity.type"]),
    ("beyond 32 bits", stock(quantity=2**31), ["quantity.overflow"]),
    ("beyond 64 bits", stock(quantity=2**70), ["quantity.overflow"]),
    ("beyond 38 digits", stock(quantity=10**40), ["quantity.overflow"]),
    ("out of range", stock(quantity=-1), ["quantity.between"]),
    ("an unknown word", stock(reason="sideways"), ["reason.one_of"]),
    ("two rules at once", stock(quantity=-1, reason="x"), ["quantity.between", "reason.one_of"]),
    ("a pattern", stock(store_id="S1"), ["store_id.matches"]),
    ("a name of 100 characters", customer(last_name="x" * 100), []),
    ("a name of 101 characters", customer(last_name="x" * 101), ["last_name.length"]),
    ("a phone number in brackets", customer(phone="0049 (151) 123-4567"), []),
    ("a word for a phone number", customer(phone="call me"), ["phone.phone"]),
    ("no such birthday", customer(birth_date="1981-02-29"), ["birth_date.format"]),
    ("a birthday as a number", customer(birth_date=19810228), ["birth_date.type"]),
    ("a total of no less than its part", order(total=10.5), []),
    ("a total of less than its part", order(total=10.49), ["total.not_before"]),
    ("a moment of no zone in a column", order(placed_at="2026-01-01"), ["placed_at.format"]),
    ("cents", line("1.25"), []),
    ("an exponent", line("1.5e0"), []),
    ("three digits after the point", line("1.255"), ["unit_price.precision"]),
    ("20 digits after the point", line("1.25000000000000000001"), ["unit_price.precision"]),
    ("zeros after the point", line("1.25000000000000000000"), []),
    ("too large an amount", line("12345678901.5"), ["unit_price.overflow"]),
    ("infinity", line("1e400"), ["unit_price.overflow"]),
    ("an e-mail of 20,000 words after the @", mail("a@" + "a." * 20_000 + "com"), ["email.email"]),
    ("and before it", mail("a." * 100_000 + "a@example.com"), ["email.email"]),
    ("an e-mail of 254 characters", mail("a." * 120 + "aa@example.com"), []),
    ("an e-mail of 255 characters", mail("a." * 120 + "aaa@example.com"), ["email.email"]),
    ("brackets and open quotes", b"[" * 1_000 + b'"' + b'\\"' * 500_000, ["nesting_too_deep"]),
    ("half pairs beside a backslash", GOOD.replace(b"sale", b"\\ud83d\\\\\\ude00"),
     ["lone_surrogate"]),
    ("a key of 50,000 characters", stock(**{"k" * 50_000: 1}), []),
    ("a key of 50,001 characters", stock(**{"k" * 50_001: 1}), ["malformed_json"]),
    ("equal keys, and text after it", b'{"a":1,"a":2} trailing', ["malformed_json"]),
    ("cut off after equal keys", b'{"a":{"b":1,"b":2}', ["malformed_json"]),
    ("an unknown field of 1e400", unknown("1e400"), []),
    ("an unknown field of -1e400", unknown("-1e400"), []),
    ("a minus and 1,000 digits", unknown("-" + "1" * 1_000), []),
    ("1,001 digits", unknown("1" * 1_001), ["malformed_json"]),
    ("a point among 1,000 digits", unknown("1." + "1" * 999), []),
    ("a point among 1,001 digits", unknown("1." + "1" * 1_000), ["malformed_json"]),
    ("SQL in a text", stock(reason="'; DROP TABLE x; --"), ["reason.one_of"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(spark: SparkSession, contracts: Contracts) -> dict[str, Any]:
    records = [
        ("shop.events", 0, i, BROKER_TIME, None, None if value is None else bytearray(value))
        for i, (_, value, _) in enumerate(CASES)
    ]
    columns = (
        "topic string, partition int, offset bigint, timestamp timestamp, key binary, value binary"
    )
    rows = silver.classify(spark.createDataFrame(records, columns), contracts, LIMIT, "stream")
    found = rows.select("offset", "outcome", "violations", "raw", *contracts).collect()
    return {CASES[row.offset][0]: row for row in found}


@pytest.mark.parametrize(("what", "value", "rules"), CASES, ids=[case[0] for case in CASES])
def test_outcome_in_spark(
    outcomes: dict[str, Any], what: str, value: bytes | None, rules: list[str]
) -> None:
    row = outcomes[what]
    assert sorted(row.violations) == sorted(rules)
    assert row.outcome == ("quarantined" if rules else "accepted")
    raw = None if row.raw is None else bytes(row.raw)
    assert raw == (value if rules else None), "quarantine keeps the bytes as they came"


def test_outcomes_in_pandas(contracts: Contracts) -> None:
    records = [
        {"topic": "shop.events", "partition": 0, "offset": i, "timestamp": BROKER_TIME, "value": v}
        for i, (_, v, _) in enumerate(CASES)
    ]
    found = decode_pandas.classify(records, contracts, LIMIT)
    for (what, _, rules), said in zip(CASES, found["violations"], strict=True):
        assert sorted(said) == sorted(rules), what


def test_accepted_values_are_clean_and_typed(outcomes: dict[str, Any]) -> None:
    assert outcomes["an untidy enumeration"].inventory.reason == "sale"
    assert outcomes["a whole number with a point"].inventory.quantity == 5
    assert str(outcomes["cents"].order_item.unit_price) == "1.25"
    assert str(outcomes["an exponent"].order_item.unit_price) == "1.50"


def test_a_null_key_makes_no_difference(spark: SparkSession, contracts: Contracts) -> None:
    columns = (
        "topic string, partition int, offset bigint, timestamp timestamp, key binary, value binary"
    )
    rows = [
        ("shop.events", 0, i, BROKER_TIME, key, bytearray(GOOD))
        for i, key in enumerate([None, bytearray(b""), bytearray(b"\xff")])
    ]
    found = silver.classify(spark.createDataFrame(rows, columns), contracts, LIMIT, "stream")
    assert [row.outcome for row in found.select("outcome").collect()] == ["accepted"] * 3


def test_the_docs_and_these_records_name_the_same() -> None:
    text = (Path(__file__).parents[2] / "docs" / "outcomes.md").read_text()
    tables = text[text.index("## The record as a whole") : text.index("## Not a fault")]
    told = {
        name.replace("COLUMN", "")
        for line in tables.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    envelope = {name for name in told if "." in name.lstrip(".")}
    fields = {name.split(".")[0] for name in envelope}
    held = {
        rule if "." not in rule or rule.split(".")[0] in fields else f".{rule.split('.')[1]}"
        for _, _, rules in CASES
        for rule in rules
    }
    # These take a contract, or other records, of their own.
    assert told - held == {"conflict", "unknown_field"}
    assert held - told == set()


def test_sources_are_not_evaluated(spark: SparkSession, contracts: Contracts) -> None:
    hostile = "${jndi:ldap://x} %s {0} `rm` ../../etc '; DROP TABLE silver.events; --"
    columns = (
        "topic string, partition int, offset bigint, timestamp timestamp, key binary, value binary"
    )
    row = ("shop.events", 0, 0, BROKER_TIME, None, bytearray(event("inventory", STOCK, id=hostile)))
    found = silver.classify(spark.createDataFrame([row], columns), contracts, LIMIT, "stream")
    assert found.select(F.col("id")).collect()[0].id == hostile
