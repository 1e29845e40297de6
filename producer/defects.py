"""The defect catalogue: what goes wrong on purpose, and what has to become of it.

The outcomes and rules are stated here by hand, from docs/outcomes.md, and not taken from the code
that decides them: the ledger is what that code is held against.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, NamedTuple

import orjson

from producer.generators import Event
from producer.text import DAY, HOUR, MINUTE, time_of

ACCEPTED, QUARANTINED, DUPLICATE = "accepted", "quarantined", "duplicate"

# Required columns that can be left out, whole numbers and amounts, dates, enumerations: by entity.
MISSING = {
    "customer": ("last_name", "email", "address_id"),
    "address": ("street", "city", "country_code"),
    "category": ("name",),
    "product": ("price", "name"),
    "store": ("city",),
    "order": ("customer_id", "total", "placed_at"),
    "order_item": ("product_id", "quantity"),
    "payment": ("amount", "method"),
    "shipment": ("order_id", "expected_on"),
    "inventory": ("quantity",),
    "review": ("rating", "title"),
    "page_view": ("url", "duration_ms"),
    "cart": ("action",),
    "loyalty": ("points",),
}
NUMBERS = {
    "product": ("price", "weight_grams"),
    "order": ("item_count", "subtotal"),
    "order_item": ("quantity", "unit_price"),
    "payment": ("amount",),
    "inventory": ("quantity", "reorder_level"),
    "review": ("rating",),
    "page_view": ("duration_ms",),
    "loyalty": ("points", "balance"),
}
WHOLE = {
    "product": "weight_grams",
    "order": "item_count",
    "order_item": "quantity",
    "inventory": "quantity",
    "review": "rating",
    "page_view": "page_number",
    "cart": "step",
    "loyalty": "points",
}
OUT_OF_RANGE: dict[str, tuple[str, Any]] = {
    "product": ("weight_grams", 0),
    "order": ("item_count", 0),
    "order_item": ("quantity", -1),
    "payment": ("amount", 0),
    "inventory": ("quantity", -5),
    "review": ("rating", 6),
    "page_view": ("duration_ms", -1),
    "cart": ("step", 0),
    "loyalty": ("balance", -10),
}
DATES = {
    "customer": "birth_date",
    "store": "opened_on",
    "order": "placed_at",
    "shipment": "expected_on",
}
ENUMS = {
    "address": "country_code",
    "order": "status",
    "payment": "status",
    "shipment": "carrier",
    "inventory": "reason",
    "page_view": "device",
    "cart": "action",
    "customer": "loyalty_tier",
}
DEFAULTED = {
    "customer": "loyalty_tier",
    "order": "channel",
    "product": "active",
}
BAD_DATES = ("31.12.2025", "2025-13-01", "2025-02-30", "12/31/2025", "yesterday")
BAD_MAILS = (
    "no-at.example.com",
    "two@@example.com",
    "name@host",
    "@example.com",
    "a b@example.com",
)
BAD_PHONES = ("12ab34", "+", "+49", "call me", "+0123456789")

Json = dict[str, Any]


class Record(NamedTuple):
    """One record to send, and its line in the ledger.

    at: when it is sent, ms since 1970 of the shop's clock; the event's own time may be earlier.
    source and id: None where the record does not say, or cannot be read. Foreign bytes have nothing
    but a value.
    """

    at: int
    key: bytes | None
    value: bytes | None
    source: str | None
    id: str | None
    entity: str | None
    defect: str | None
    outcome: str | None
    rules: tuple[str, ...] | None


@dataclass(frozen=True)
class Defect:
    """weight: how often it is chosen, against the others. entities: None for all."""

    name: str
    weight: int
    entities: frozenset[str] | None = None


CATALOGUE = (
    Defect("missing_field", 4, frozenset(MISSING)),
    Defect("malformed_email", 2, frozenset({"customer"})),
    Defect("malformed_phone", 2, frozenset({"customer"})),
    Defect("wrong_type", 4, frozenset(NUMBERS)),
    Defect("bad_date_format", 3, frozenset(DATES)),
    Defect("out_of_range", 4, frozenset(OUT_OF_RANGE)),
    Defect("number_too_large", 1, frozenset(WHOLE)),
    Defect("unknown_enum", 3, frozenset(ENUMS)),
    Defect("broken_json", 2),
    Defect("trailing_text", 1),
    Defect("duplicate_key", 1),
    Defect("non_utf8", 2),
    Defect("empty_value", 1),
    Defect("tombstone", 1),
    Defect("missing_id", 1),
    Defect("missing_time", 1),
    Defect("bad_time", 1),
    Defect("future_time", 1),
    Defect("unknown_type", 1),
    Defect("duplicate", 5),
    Defect("late", 5),
    Defect("conflict", 1),
    Defect("untidy", 3, frozenset({"customer", "order", "payment", "shipment", "page_view"})),
    Defect("missing_optional", 2, frozenset(DEFAULTED)),
    Defect("null_key", 1),
)
# Those that are told by a further record, sent later: the first one is as it should be.
COPIES = frozenset({"duplicate", "conflict"})
SOURCE = "/headwater/shop"
NEVER = 2**63


def inject(
    events: Iterator[Event], rate: float, seed: int, start: int, *, world: str = ""
) -> Iterator[Record]:
    """Events as records to send, a share of `rate` with one defect each. In order of sending.

    world: whatever else than seed and start makes these events what they are; it goes into the ids,
    so that two worlds never share one.
    """
    random = Random(f"defects|{seed}|{start}|{rate}")
    draw = random.random
    prefix = f"{Random(f'{seed}|{start}|{rate}|{world}').getrandbits(48):012x}-"
    # A copy is a record more, so that a share drawn from the events alone would fall short.
    share = rate / max(1e-9, 1.0 - rate * _copy_share()) if rate < 1 else 1.0
    # What is sent later than it is made, and when the first of it is.
    held: list[tuple[int, int, Record]] = []
    due = NEVER
    number = 0
    # All records are made by this: half of the time that Record(...) takes.
    new: Callable[..., Record] = tuple.__new__
    for at, _, entity, key, subject, data in events:
        while due <= at:
            yield heapq.heappop(held)[2]
            due = held[0][0] if held else NEVER
        number += 1
        ident = f"{prefix}{number}"
        text = (
            f'{{"specversion":"1.0","id":"{ident}","source":"{SOURCE}",'
            f'"type":"headwater.shop.{entity}","time":"{time_of(at)}",'
            f'"subject":"{subject}","datacontenttype":"application/json","data":{data}}}'
        )
        value, raw_key = text.encode(), key.encode()
        if draw() >= share:
            yield new(Record, (at, raw_key, value, SOURCE, ident, entity, None, ACCEPTED, ()))
            continue
        names = _choices(entity)
        name = names[int(draw() * len(names))]
        if name == "late":
            when = at + _delay(draw(), (20 * MINUTE, 4 * HOUR), (4 * HOUR, 3 * DAY))
            later = new(Record, (when, raw_key, value, SOURCE, ident, entity, name, ACCEPTED, ()))
        elif name in COPIES:
            yield new(Record, (at, raw_key, value, SOURCE, ident, entity, None, ACCEPTED, ()))
            when = at + _delay(draw(), (0, 2 * MINUTE), (2 * MINUTE, 1 * DAY))
            outcome: str = DUPLICATE
            rules: tuple[str, ...] = ()
            if name == "conflict":
                value = f'{text[:-2]},"note":"other"}}}}'.encode()
                outcome, rules = QUARANTINED, (name,)
            later = new(Record, (when, raw_key, value, SOURCE, ident, entity, name, outcome, rules))
        else:
            yield _broken(name, at, raw_key, text, ident, entity, draw())
            continue
        heapq.heappush(held, (when, number, later))
        due = held[0][0]


@cache
def _choices(entity: str) -> list[str]:
    """The names of the defects that an entity may have, each as often as it weighs."""
    return [
        defect.name
        for defect in CATALOGUE
        if defect.entities is None or entity in defect.entities
        for _ in range(defect.weight)
    ]


def _copy_share() -> float:
    """The share of copies among defects, for entities that can have any of the common ones."""
    return 6 / sum(defect.weight for defect in CATALOGUE)


def _delay(draw: float, short: tuple[int, int], long: tuple[int, int]) -> int:
    """Half of the time within the first span, else within the second; ms."""
    low, high = short if draw < 0.5 else long
    return int(low + (draw * 2 % 1.0) * (high - low))


def _broken(
    name: str, at: int, key: bytes, text: str, ident: str, entity: str, draw: float
) -> Record:
    """A record with one defect that it carries in itself."""
    source: str | None = SOURCE
    found: str | None = ident
    value: bytes | None
    outcome = QUARANTINED
    rules: tuple[str, ...] = (name,)
    raw_key: bytes | None = key
    if name in {"broken_json", "trailing_text", "non_utf8", "duplicate_key", "empty_value"}:
        source = found = None
        raw = text.encode()
        if name == "broken_json":
            value, rules = text[: 1 + int(draw * (len(text) - 2))].encode(), ("malformed_json",)
        elif name == "trailing_text":
            value, rules = raw + b" and so on", ("malformed_json",)
        elif name == "non_utf8":
            cut = 1 + int(draw * (len(text) - 2))
            value, rules = text[:cut].encode() + b"\xff" + text[cut:].encode(), ("not_utf8",)
        elif name == "duplicate_key":
            value = f'{text[:-1]},"subject":"again"}}'.encode()
        else:
            value = b""
    elif name == "tombstone":
        source = found = value = None
    elif name == "null_key":
        raw_key, value, outcome, rules = None, text.encode(), ACCEPTED, ()
    else:
        event = orjson.loads(text)
        outcome, rules = _change(name, event, entity, draw)
        found = event.get("id")
        value = orjson.dumps(event)
    return Record(at, raw_key, value, source, found, entity, name, outcome, rules)


def _change(name: str, event: Json, entity: str, draw: float) -> tuple[str, tuple[str, ...]]:
    """Changes an event in place; its outcome, and the rules that it breaks."""
    data = event["data"]

    def one_of(names: tuple[str, ...]) -> str:
        return names[int(draw * len(names))]

    if name == "missing_field":
        column = one_of(MISSING[entity])
        if draw < 0.5:
            del data[column]
        else:
            data[column] = None
        return QUARANTINED, (f"{column}.required",)
    if name == "malformed_email":
        data["email"] = one_of(BAD_MAILS)
        return QUARANTINED, ("email.email",)
    if name == "malformed_phone":
        data["phone"] = one_of(BAD_PHONES)
        return QUARANTINED, ("phone.phone",)
    if name == "wrong_type":
        column = one_of(NUMBERS[entity])
        data[column] = str(data[column])
        return QUARANTINED, (f"{column}.type",)
    if name == "bad_date_format":
        data[DATES[entity]] = one_of(BAD_DATES)
        return QUARANTINED, (f"{DATES[entity]}.format",)
    if name == "out_of_range":
        column, value = OUT_OF_RANGE[entity]
        data[column] = value
        return QUARANTINED, (f"{column}.between",)
    if name == "number_too_large":
        data[WHOLE[entity]] = 3_000_000_000 + int(draw * 1e9)
        return QUARANTINED, (f"{WHOLE[entity]}.overflow",)
    if name == "unknown_enum":
        data[ENUMS[entity]] = "sideways"
        return QUARANTINED, (f"{ENUMS[entity]}.one_of",)
    if name == "missing_id":
        del event["id"]
        return QUARANTINED, ("id.required",)
    if name == "missing_time":
        del event["time"]
        return QUARANTINED, ("time.required",)
    if name == "bad_time":
        event["time"] = one_of(
            ("yesterday", "2025-13-01T00:00:00Z", "1767225600", "01.02.2025 10:00")
        )
        return QUARANTINED, ("time.format",)
    if name == "future_time":
        event["time"] = "9999-12-01T00:00:00Z"
        return QUARANTINED, ("time.in_future",)
    if name == "unknown_type":
        event["type"] = f"{event['type']}.v0"
        return QUARANTINED, ("unknown_type",)
    if name == "missing_optional":
        del data[DEFAULTED[entity]]
        return ACCEPTED, ()
    if name == "untidy":
        _untidy(data, entity)
        return ACCEPTED, ()
    raise ValueError(name)


def _untidy(data: Json, entity: str) -> None:
    """Values that cleaning puts right: blanks, capitals, separators in a number."""
    if entity == "customer":
        data["email"] = f" {data['email'].upper()} "
        phone = data["phone"]
        data["phone"] = f"00{phone[1:3]} ({phone[3:6]}) {phone[6:9]}-{phone[9:]}"
    else:
        column = ENUMS[entity]
        data[column] = f"  {data[column].upper()}\t"
