"""The defect catalogue: what goes wrong on purpose, and what has to become of it.

The outcomes and rules are stated here by hand, from docs/outcomes.md, and not taken from the code
that decides them: the ledger is what that code is held against.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from producer.columns import DAY, HOUR, MINUTE, Draws, Floats, Ints, Texts, filled, instants
from producer.generators import EVENTS

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
BAD_TIMES = ("yesterday", "2025-13-01T00:00:00Z", "1767225600", "01.02.2025 10:00")
BAD_PHONES = ("12ab34", "+", "+49", "call me", "+0123456789")

Json = dict[str, Any]
SOURCE = "/headwater/shop"
TRUTH = "source", "entity", "defect", "outcome", "rules"


# A record to send, and its line in the ledger, by the column; see Record.
RECORDS = pa.schema(
    [
        ("at", pa.int64()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        *((name, pa.string()) for name in ("source", "id", "entity", "defect", "outcome")),
        ("rules", pa.list_(pa.string())),
    ]
)
# What is a record's own of these, but for when it is sent.
BYTES = pa.schema([RECORDS.field(name) for name in ("key", "value", "id")])
# What many records have in common: source, entity, defect, outcome, rules.
_Truth = tuple[str | None, str, str | None, str, tuple[str, ...]]
# When it is sent, the event's number, key, value, id, and what it has in common with others.
_Row = tuple[int, int, bytes | None, bytes | None, str | None, int]


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


class _Truths:
    """What records have in common, each by a number."""

    def __init__(self) -> None:
        self._codes: dict[_Truth, int] = {}
        self._columns: list[pa.Array] = []

    def code(self, truth: _Truth) -> int:
        if (known := self._codes.get(truth)) is not None:
            return known
        return self._codes.setdefault(truth, len(self._codes))

    def of_sound(self, entities: list[str]) -> Ints:
        """The numbers of events of each of these that are as they should be."""
        codes = [self.code((SOURCE, entity, None, ACCEPTED, ())) for entity in entities]
        return np.array(codes, np.int64)

    def columns(self, codes: Ints) -> Iterator[pa.Array]:
        """source, entity, defect, outcome and rules of records by their numbers."""
        if not self._columns or len(self._columns[0]) < len(self._codes):
            kinds = [RECORDS.field(name).type for name in TRUTH]
            told = zip(*self._codes, strict=True)
            self._columns = [pa.array(one, kind) for one, kind in zip(told, kinds, strict=True)]
        which = pa.array(codes)
        return (column.take(which) for column in self._columns)


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
# Those that are sent later than their event, by how much: half of the time within the first span,
# else within the second; ms.
LATER = {
    "late": ((20 * MINUTE, 4 * HOUR), (4 * HOUR, 3 * DAY)),
    **dict.fromkeys(COPIES, ((1, 2 * MINUTE), (2 * MINUTE, DAY))),
}
# Those of what is around the content; and those that leave the record as it is, with what becomes
# of it.
OF_ENVELOPE = frozenset({"missing_id", "missing_time", "bad_time", "future_time", "unknown_type"})
AS_IT_IS = {"late": ACCEPTED, "duplicate": DUPLICATE}
# Few enough to stay in the processor's cache, enough to share what a step costs.
ROWS_AT_ONCE = 4_096


ENVELOPE = (
    f'{{"specversion":"1.0","id":"<id>","source":"{SOURCE}","type":"headwater.shop.<entity>",'
    '"time":"<time>","subject":"<subject>","datacontenttype":"application/json","data":<data>}'
)


def inject(
    spans: Iterator[pa.Table], rate: float, seed: int, start: int, *, world: str = ""
) -> Iterator[pa.RecordBatch]:
    """Events as records to send, a share of `rate` with one defect each. In order of sending.

    spans: see producer.generators.EVENTS. world: whatever else than seed and start makes these
    events what they are; it goes into the ids, so that two worlds never share one. Returns batches
    of RECORDS.
    """
    random = Draws(f"defects|{seed}|{start}|{rate}").random
    prefix = sha256(f"{seed}|{start}|{rate}|{world}".encode()).hexdigest()[:12]
    # A copy is a record more, so that a share drawn from the events alone would fall short.
    share = rate / max(1e-9, 1.0 - rate * _copy_share()) if rate < 1 else 1.0
    truths = _Truths()
    # What is sent later than it is made, the first of it first.
    held: list[_Row] = []
    first = 1
    for events in _few(spans):
        rows = events.num_rows
        at, numbers = events.column("at").to_numpy(), np.arange(first, first + rows)
        first += rows
        entity, key, subject, data = (events.column(n).combine_chunks() for n in EVENTS.names[1:])
        spelt = entity.dictionary_encode()
        entities, which = spelt.dictionary.to_pylist(), spelt.indices.to_numpy()
        codes = truths.of_sound(entities)[which]
        # Three numbers an event, whichever table it is in.
        draw = random((rows, 3))
        chosen = np.flatnonzero(draw[:, 0] < share)
        defects = _chosen(entities, which[chosen], draw[chosen, 1])

        # Those of the content, before there is anything around it.
        inside = _OF_CONTENT[defects]
        places = chosen[inside]
        data, codes[places] = _changed(
            truths,
            data,
            places,
            defects[inside],
            [entities[n] for n in which[places]],
            draw[places, 2],
        )
        ids = filled(f"{prefix}-<number>", number=numbers)
        text = filled(
            ENVELOPE, id=ids, entity=entity, time=instants(at), subject=subject, data=data
        )
        sound = pa.record_batch([key.cast(pa.binary()), text.cast(pa.binary()), ids], schema=BYTES)

        places, defects = chosen[~inside], defects[~inside]
        stays = np.ones(rows, bool)
        stays[places[~_COPIES[defects]]] = False
        made: list[_Row] = []
        for defect, when, number, detail, named, *said in zip(
            defects.tolist(),
            at[places].tolist(),
            numbers[places].tolist(),
            draw[places, 2].tolist(),
            which[places].tolist(),
            *(column.take(pa.array(places)).to_pylist() for column in sound.columns),
            strict=True,
        ):
            name = CATALOGUE[defect].name
            raw_key, value, found, truth = _defective(name, entities[named], detail, *said)
            code = truths.code(truth)
            if name in LATER:
                when += _delay(name, detail)
                heapq.heappush(held, (when, number, raw_key, value, found, code))
            else:
                made.append((when, number, raw_key, value, found, code))
        until = int(at[-1])
        while held and held[0][0] <= until:
            made.append(heapq.heappop(held))
        yield _in_order(truths, np.flatnonzero(stays), at, numbers, sound, codes, made)


def _chosen(entities: list[str], which: Ints, draw: Floats) -> Ints:
    """The defects of events, as places in the catalogue; which: the place of each one's entity."""
    choices = [_choices(entity) for entity in entities]
    sizes = np.array([len(some) for some in choices])
    begins = np.cumsum(sizes) - sizes
    found: Ints = np.concatenate(choices)[begins[which] + (draw * sizes[which]).astype(np.int64)]
    return found


def _changed(
    truths: _Truths, data: Texts, places: Ints, defects: Ints, entities: list[str], draw: Floats
) -> tuple[Texts, list[int]]:
    """Contents with a defect in each of these places, and the numbers of what became of those."""
    texts, codes = [], []
    for defect, entity, detail, text in zip(
        defects.tolist(),
        entities,
        draw.tolist(),
        data.take(pa.array(places)).to_pylist(),
        strict=True,
    ):
        name = CATALOGUE[defect].name
        content = orjson.loads(text)
        outcome, rules = OF_CONTENT[name](content, entity, detail)
        texts.append(orjson.dumps(content))
        codes.append(truths.code((SOURCE, entity, name, outcome, rules)))
    mask = np.zeros(len(data), bool)
    mask[places] = True
    return pc.replace_with_mask(data, pa.array(mask), pa.array(texts, pa.string())), codes


def _few(spans: Iterator[pa.Table]) -> Iterator[pa.Table]:
    for events in spans:
        for begin in range(0, events.num_rows, ROWS_AT_ONCE):
            yield events.slice(begin, ROWS_AT_ONCE)


def _in_order(
    truths: _Truths,
    kept: Ints,
    at: Ints,
    numbers: Ints,
    sound: pa.RecordBatch,
    codes: Ints,
    made: list[_Row],
) -> pa.RecordBatch:
    """Those events that are sent as they are, and what was made, in order of sending."""
    when, of, *said, which = zip(*made, strict=True) if made else ((),) * 6
    at = np.append(at[kept], np.array(when, np.int64))
    numbers = np.append(numbers[kept], np.array(of, np.int64))
    codes = np.append(codes[kept], np.array(which, np.int64))
    order = np.lexsort((numbers, at))
    place = pa.array(np.append(kept, len(sound) + np.arange(len(made)))[order])
    columns = [
        pa.concat_arrays([these, pa.array(others, these.type)]).take(place)
        for these, others in zip(sound.columns, said, strict=True)
    ]
    key, value, ids = columns
    source, entity, defect, outcome, rules = truths.columns(codes[order])
    told = [pa.array(at[order]), key, value, source, ids, entity, defect, outcome, rules]
    return pa.record_batch(told, schema=RECORDS)


@cache
def _choices(entity: str) -> Ints:
    """The places in the catalogue of what an entity may have, each as often as it weighs."""
    weights = [
        defect.weight if defect.entities is None or entity in defect.entities else 0
        for defect in CATALOGUE
    ]
    return np.repeat(np.arange(len(CATALOGUE)), weights)


def _copy_share() -> float:
    """The share of copies among defects, for entities that can have any of the common ones."""
    return 6 / sum(defect.weight for defect in CATALOGUE)


def _delay(name: str, draw: float) -> int:
    """How much later than its event a record is sent, for those of LATER; ms."""
    short, long = LATER[name]
    low, high = short if draw < 0.5 else long
    return int(low + (draw * 2 % 1.0) * (high - low))


def _defective(
    name: str, entity: str, draw: float, key: bytes, value: bytes, ident: str
) -> tuple[bytes | None, bytes | None, str | None, _Truth]:
    """Key, value, id and truth of an event's record with this defect, none of OF_CONTENT."""
    if name in AS_IT_IS:
        return key, value, ident, (SOURCE, entity, name, AS_IT_IS[name], ())
    if name in OF_ENVELOPE:
        event = orjson.loads(value)
        rules = _change_envelope(name, event, draw)
        truth = (SOURCE, entity, name, QUARANTINED, rules)
        return key, orjson.dumps(event), event.get("id"), truth
    if name == "null_key":
        return None, value, ident, (SOURCE, entity, name, ACCEPTED, ())
    if name == "conflict":
        value = value[:-2] + b',"note":"other"}}'
        return key, value, ident, (SOURCE, entity, name, QUARANTINED, (name,))
    made, rules = _unreadable(name, value, draw)
    return key, made, None, (None, entity, name, QUARANTINED, rules)


def _unreadable(name: str, value: bytes, draw: float) -> tuple[bytes | None, tuple[str, ...]]:
    """What is left of an event's bytes, and the rule that they break."""
    if name == "broken_json":
        text = value.decode()
        return text[: 1 + int(draw * (len(text) - 2))].encode(), ("malformed_json",)
    if name == "trailing_text":
        return value + b" and so on", ("malformed_json",)
    if name == "non_utf8":
        cut = 1 + int(draw * (len(value) - 2))
        return b"%b\xff%b" % (value[:cut], value[cut:]), ("not_utf8",)
    if name == "duplicate_key":
        return value[:-1] + b',"subject":"again"}', (name,)
    return (b"" if name == "empty_value" else None), (name,)


def _change_envelope(name: str, event: Json, draw: float) -> tuple[str, ...]:
    """Changes an event in place; the rules that it breaks."""
    if name == "missing_id":
        del event["id"]
        return ("id.required",)
    if name == "missing_time":
        del event["time"]
        return ("time.required",)
    if name == "bad_time":
        event["time"] = BAD_TIMES[int(draw * len(BAD_TIMES))]
        return ("time.format",)
    if name == "future_time":
        event["time"] = "9999-12-01T00:00:00Z"
        return ("time.in_future",)
    event["type"] = f"{event['type']}.v0"
    return ("unknown_type",)


def _one_of(names: tuple[str, ...], draw: float) -> str:
    return names[int(draw * len(names))]


# What is wrong with an event's content is put there in place; told is what becomes of it, and the
# rules that it breaks.
_Told = tuple[str, tuple[str, ...]]


def _missing_field(data: Json, entity: str, draw: float) -> _Told:
    column = _one_of(MISSING[entity], draw)
    if draw < 0.5:
        del data[column]
    else:
        data[column] = None
    return QUARANTINED, (f"{column}.required",)


def _malformed_email(data: Json, _entity: str, draw: float) -> _Told:
    data["email"] = _one_of(BAD_MAILS, draw)
    return QUARANTINED, ("email.email",)


def _malformed_phone(data: Json, _entity: str, draw: float) -> _Told:
    data["phone"] = _one_of(BAD_PHONES, draw)
    return QUARANTINED, ("phone.phone",)


def _wrong_type(data: Json, entity: str, draw: float) -> _Told:
    column = _one_of(NUMBERS[entity], draw)
    data[column] = str(data[column])
    return QUARANTINED, (f"{column}.type",)


def _bad_date_format(data: Json, entity: str, draw: float) -> _Told:
    data[DATES[entity]] = _one_of(BAD_DATES, draw)
    return QUARANTINED, (f"{DATES[entity]}.format",)


def _out_of_range(data: Json, entity: str, _draw: float) -> _Told:
    column, value = OUT_OF_RANGE[entity]
    data[column] = value
    return QUARANTINED, (f"{column}.between",)


def _number_too_large(data: Json, entity: str, draw: float) -> _Told:
    data[WHOLE[entity]] = 3_000_000_000 + int(draw * 1e9)
    return QUARANTINED, (f"{WHOLE[entity]}.overflow",)


def _unknown_enum(data: Json, entity: str, _draw: float) -> _Told:
    data[ENUMS[entity]] = "sideways"
    return QUARANTINED, (f"{ENUMS[entity]}.one_of",)


def _missing_optional(data: Json, entity: str, _draw: float) -> _Told:
    del data[DEFAULTED[entity]]
    return ACCEPTED, ()


def _untidy(data: Json, entity: str, _draw: float) -> _Told:
    """Values that cleaning puts right: blanks, capitals, separators in a number."""
    if entity == "customer":
        data["email"] = f" {data['email'].upper()} "
        phone = data["phone"]
        data["phone"] = f"00{phone[1:3]} ({phone[3:6]}) {phone[6:9]}-{phone[9:]}"
    else:
        column = ENUMS[entity]
        data[column] = f"  {data[column].upper()}\t"
    return ACCEPTED, ()


OF_CONTENT: dict[str, Callable[[Json, str, float], _Told]] = {
    "missing_field": _missing_field,
    "malformed_email": _malformed_email,
    "malformed_phone": _malformed_phone,
    "wrong_type": _wrong_type,
    "bad_date_format": _bad_date_format,
    "out_of_range": _out_of_range,
    "number_too_large": _number_too_large,
    "unknown_enum": _unknown_enum,
    "missing_optional": _missing_optional,
    "untidy": _untidy,
}
# Which places of the catalogue are of these.
_OF_CONTENT = np.array([defect.name in OF_CONTENT for defect in CATALOGUE])
_COPIES = np.array([defect.name in COPIES for defect in CATALOGUE])
