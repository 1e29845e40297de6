"""The twin of lakehouse/decode.py without a JVM: the same names, outcomes and types, in pandas.

Columns have pyarrow types. It reads records one by one, which is meant for small batches; Spark is
for the others. tests/spark/test_engines.py holds the two equal.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from math import isfinite
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from lakehouse.contracts import EVOLVE, FREEZE, QUARANTINE, Column, Contract, Contracts
from lakehouse.decode import (
    CHANGES,
    DATE,
    DELETED,
    DELETED_TYPE,
    FALSE,
    FIRST,
    LAST,
    MAX_DEPTH,
    MILLIS,
    POSITION,
    QUOTED,
    SURROGATE,
    SURROGATE_PAIR,
    TEXT_INTEGER,
    TEXT_NUMBER,
    TIMESTAMP,
    TRUE,
    UNKNOWN_FIELD,
    frozen,
)
from lakehouse.errors import FrozenError
from lakehouse.rules import ARITHMETIC
from lakehouse.silver import ACCEPTED, QUARANTINED
from lakehouse.validate import cleaned, kept

WHITESPACE = " \t\r\n"
ARROW_TYPES = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
}
# The columns of a row before those of its entity.
HEAD = {
    **dict.fromkeys(("topic", "entity", "source", "id", "type", "subject"), pa.string()),
    **dict.fromkeys(("digest", "rescued"), pa.string()),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "time": ARROW_TYPES["timestamp"],
}
REQUIRED = "required"
# What a record without an object is told by, or a change: there is no column to look at then.
NO_OBJECT = {"data.required", "data.type"}
NO_ROW = {f"{of}.{what}" for of in ("before", "after") for what in ("required", "type")}
LIMITS = {"int": 2**31, "bigint": 2**63}
# A number of more digits, and a name of more characters, is refused by Spark's parser.
MAX_NUMBER = 1000
MAX_NAME = 50_000
# Python's own module writes the digits of such an escape in lower case, Spark in upper case.
ESCAPED = re.compile(r'[\x00-\x1f"\\]')
SHORT_ESCAPES = {
    '"': r"\"",
    "\\": r"\\",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
}


class Real(float):
    """A JSON number that Spark keeps as a double: with an exponent, or of more than 38 digits."""


def arrow_type(column: Column) -> pa.DataType:
    if column.decimal:
        return pa.decimal128(*column.decimal)
    return ARROW_TYPES[column.spark_type]


def classify(
    records: Sequence[Mapping[str, Any]], contracts: Contracts, max_record_bytes: int
) -> pd.DataFrame:
    """Raw records (topic, partition, offset, timestamp, value) with their outcomes.

    Returns topic, partition, offset, entity, outcome, violations, source, id, type, time, subject,
    digest, rescued, and `<entity>__<column>` in pyarrow types, cleaned. Raises FrozenError where a
    contract in mode freeze meets a record that it does not fit.
    """
    rows = [_decode(record, contracts, max_record_bytes) for record in records]
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in HEAD.items()}
    for contract in contracts.values():
        mine = [i for i, row in enumerate(rows) if row.get("entity") == contract.name]
        typed = _checked(contract, [rows[i] for i in mine])
        place = dict(zip(mine, range(len(mine)), strict=True))
        typed = typed.take(pa.array([place.get(i) for i in range(len(rows))], pa.int64()))
        # Cleaners leave texts of a larger kind.
        columns |= {flat(contract, c): typed[c.name].cast(arrow_type(c)) for c in contract.columns}
    violations = [row["problems"] for row in rows]
    result: pd.DataFrame = pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)
    return result.assign(
        violations=pd.Series(violations, dtype=object),
        outcome=[QUARANTINED if found else ACCEPTED for found in violations],
    )


def _checked(contract: Contract, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The contract's columns of its own rows, clean; what they break is added to their problems."""
    frame = pa.table(
        {
            column.name: pa.array([row[flat(contract, column)] for row in rows], arrow_type(column))
            for column in contract.columns
        }
    ).to_pandas(types_mapper=pd.ArrowDtype)
    read: nw.DataFrame[pd.DataFrame] = nw.from_native(frame, eager_only=True)
    if clean := cleaned(contract, nw.col):
        read = nw.from_native(_fitted(read.with_columns(**clean).to_native(), contract))
    flags: dict[tuple[str, str], nw.Expr] = {}
    for column_name, rules in kept(contract, nw.col).items():
        missing = nw.col(column_name).is_null()
        if contract.column(column_name).required:
            flags[column_name, REQUIRED] = missing
        for rule, expression in rules.items():
            flags[column_name, rule] = ~missing & ~expression
    # What a row without an object is told by, it is told by alone.
    whole = [not row["no_object"] & set(row["problems"]) for row in rows]
    for (column_name, rule), broken in flags.items():
        raised = read.select(broken.alias(rule)).to_native()[rule]
        for i in np.flatnonzero(raised.fillna(False)).tolist():
            row = rows[i]
            # A column that could not be typed has its name already: missing is not another fault.
            told = rule == REQUIRED and column_name in row["untyped"]
            if whole[i] and column_name in row.get("looked_at", {column_name}) and not told:
                row["problems"].append(f"{column_name}.{rule}")
    return pa.Table.from_pandas(read.to_native(), preserve_index=False)


def _fitted(frame: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """What was worked out has a type of its own: in that of its column again, null where it is too
    large for it."""
    for column in contract.columns:
        if column.decimal and any(rule.name in ARITHMETIC for rule in column.cleaners):
            precision, scale = column.decimal
            limit = Decimal(10) ** (precision - scale)
            values = frame[column.name].to_list()
            fitting = [None if pd.isna(v) or abs(v) >= limit else v for v in values]
            of_type = pd.ArrowDtype(arrow_type(column))
            frame = frame.assign(**{column.name: pd.Series(fitting, dtype=of_type)})
    return frame


def flat(contract: Contract, column: Column) -> str:
    """The name of a contract's column: those of all contracts stand side by side in one row."""
    return f"{contract.name}__{column.name}"


def _decode(record: Mapping[str, Any], contracts: Contracts, limit: int) -> dict[str, Any]:
    value: bytes | None = record["value"]
    row: dict[str, Any] = {key: record[key] for key in ("topic", "partition", "offset")}
    row["digest"] = hashlib.sha256(value).hexdigest() if value is not None else None
    doc, problem = parse(value, limit)
    row["problems"], row["untyped"] = [problem] if problem else [], set()
    plain = next((c for c in contracts.plain if c.topic == record["topic"]), None)
    if plain is not None:
        row["source"] = f"kafka:{plain.topic}"
    if doc is None:
        return row
    if plain is not None:
        contract: Contract | None = plain
        data: Any = doc.get(_row_of(doc)) if plain.changes else doc
    else:
        contract = _envelope(doc, contracts, row)
        data = doc.get("data")
    if contract is None:
        return row
    row["entity"] = contract.name
    row["no_object"] = NO_ROW if contract.changes else NO_OBJECT
    fields = data if isinstance(data, dict) else {}
    unheld: dict[str, str] = {}
    for column in contract.columns:
        typed, what = _typed(fields.get(_key(column, fields)), column)
        row[flat(contract, column)] = typed
        if what:
            unheld[column.name] = f"{column.name}.{what}"
            row["untyped"].add(column.name)
            if not contract.does_without(column):
                row["problems"].append(unheld[column.name])
    _unknown_fields(contract, fields, unheld, row)
    if plain is not None and plain.changes:
        _change_identity(plain, doc, fields, row)
        if (row["type"] or "").endswith(DELETED_TYPE):
            # It is gone, whatever it was.
            row["looked_at"] = {column.name for column in plain.columns if column.primary_key}
            unimportant = [unheld[name] for name in unheld.keys() - row["looked_at"]]
            row["problems"] = [name for name in row["problems"] if name not in unimportant]
    elif plain is not None:
        _plain_identity(record, plain, fields, row)
    time, tolerance = row.get("time"), timedelta(seconds=contract.clock_tolerance_seconds)
    if time is not None and time > record["timestamp"] + tolerance:
        row["problems"].append("time.in_future")
    return row


def _key(column: Column, fields: Mapping[str, Any]) -> str:
    """The key that a column's value stands under: the first one that is there."""
    return next((key for key in column.json_keys if key in fields), column.json_key)


def _unknown_fields(
    contract: Contract, fields: Mapping[str, Any], unheld: Mapping[str, str], row: dict[str, Any]
) -> None:
    """What becomes of fields without a column, and of values that their column cannot hold."""
    unknown = sorted(fields.keys() - set(contract.json_keys))
    record = f"{row['topic']}/{row['partition']}/{row['offset']}"
    if unknown and contract.new_fields == FREEZE:
        said = f"{frozen(contract, 'newFields')}{record} has fields that are not in it: "
        raise FrozenError(said + to_json(unknown))
    if unheld and contract.changed_types == FREEZE:
        said = f"{frozen(contract, 'changedTypes')}{record} has values that it cannot hold: "
        raise FrozenError(said + ", ".join(unheld.values()))
    if unknown and contract.new_fields == QUARANTINE:
        row["problems"].append(UNKNOWN_FIELD)
    kept = set(unknown) if contract.new_fields == EVOLVE else set()
    if contract.changed_types == EVOLVE:
        kept |= {key for name in unheld for key in contract.column(name).json_keys if key in fields}
    if kept:
        row["rescued"] = to_json({key: fields[key] for key in kept})


def parse(value: bytes | None, limit: int) -> tuple[dict[str, Any] | None, str | None]:
    """The object that a record holds, or the problem of it."""
    if value is None:
        return None, "tombstone"
    if not value:
        return None, "empty_value"
    if len(value) > limit:
        return None, "record_too_large"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None, "not_utf8"
    if "\\u" in text and _lone_surrogate(text):
        return None, "lone_surrogate"
    if _depth(text) > MAX_DEPTH:
        return None, "nesting_too_deep"
    twice = False

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        found = dict(pairs)
        # What comes after it may still be no JSON.
        twice = twice or len(found) != len(pairs)
        if len(text) > MAX_NAME and any(len(name) > MAX_NAME for name in found):
            raise ValueError
        return found

    try:
        with _deep_stack():
            doc = json.loads(
                text,
                object_pairs_hook=fields,
                parse_int=_whole,
                parse_float=_real,
                parse_constant=_constant,
            )
    except ValueError:
        return None, "malformed_json"
    if twice:
        return None, "duplicate_key"
    return (doc, None) if isinstance(doc, dict) else (None, "not_an_object")


def _lone_surrogate(text: str) -> bool:
    unescaped = text.replace("\\\\", " ")
    return re.search(SURROGATE, re.sub(SURROGATE_PAIR, "", unescaped)) is not None


@contextmanager
def _deep_stack() -> Iterator[None]:
    """For what takes steps of the interpreter's own stack for each level of nesting."""
    stack = sys.getrecursionlimit()
    sys.setrecursionlimit(stack + 3 * MAX_DEPTH)
    try:
        yield
    finally:
        sys.setrecursionlimit(stack)


def _whole(text: str) -> int | Real:
    _demand_few_digits(text)
    return int(text) if len(text.lstrip("-").lstrip("0")) <= 38 else Real(text)


def _demand_few_digits(text: str) -> None:
    if sum(map(str.isdigit, text)) > MAX_NUMBER:
        raise ValueError(text)


def _real(text: str) -> Decimal | Real:
    _demand_few_digits(text)
    if "e" in text or "E" in text:
        return Real(text)
    number = Decimal(text)
    digits = len(number.normalize().as_tuple().digits)
    scale = -int(number.normalize().as_tuple().exponent)
    return number if max(digits, scale) <= 38 and _unscaled(text) <= 38 else Real(text)


def _unscaled(text: str) -> int:
    return len(text.lstrip("-").replace(".", "").lstrip("0"))


def _constant(text: str) -> Any:
    raise ValueError(text)


def _depth(text: str) -> int:
    """The deepest nesting of JSON text; 0 where it holds too few brackets to be too deep."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for sign in re.sub(QUOTED, "", text):
        if sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]}":
            depth -= 1
    return deepest


def _envelope(doc: dict[str, Any], contracts: Contracts, row: dict[str, Any]) -> Contract | None:
    problems: list[str] = row["problems"]

    def text(key: str) -> str | None:
        value = doc.get(key)
        return value if isinstance(value, str) else None

    version = doc.get("specversion")
    if version is None:
        problems.append("specversion.required")
    elif version != "1.0":
        problems.append("specversion.unsupported")
    for key in ("id", "source"):
        row[key] = text(key)
        if doc.get(key) is None or _blank(row[key]):
            problems.append(f"{key}.required")
        elif row[key] is None:
            problems.append(f"{key}.type")
    row["type"], row["subject"] = text("type"), text("subject")
    contract = next((c for c in contracts.enveloped if c.event_type == row["type"]), None)
    if doc.get("type") is None:
        problems.append("type.required")
    elif row["type"] is None:
        problems.append("type.type")
    elif contract is None:
        problems.append("unknown_type")
    written = text("time")
    row["time"] = timestamp_of(written)
    if doc.get("time") is None:
        problems.append("time.required")
    elif written is None:
        problems.append("time.type")
    elif row["time"] is None:
        problems.append("time.format")
    if doc.get("data") is None:
        problems.append("data.required")
    elif not isinstance(doc["data"], dict):
        problems.append("data.type")
    return contract


def _plain_identity(
    record: Mapping[str, Any], contract: Contract, fields: Mapping[str, Any], row: dict[str, Any]
) -> None:
    row["type"] = contract.event_type
    of_key = {column.json_key: column for column in contract.columns}
    parts = [_as_text(fields.get(_key(of_key[key], fields))) for key in contract.id_keys]
    if not parts:
        row["id"] = row["digest"]
    elif any(part is None or _blank(part) for part in parts):
        row["problems"].insert(0, "id.required")
    elif len(parts) == 1:
        row["id"] = parts[0]
    else:
        row["id"] = "".join(f"{len(part or '')}:{part}" for part in parts)
    row["time"] = record["timestamp"]
    if contract.time_column:
        typed = row[flat(contract, contract.column(contract.time_column))]
        row["time"] = typed if typed is not None else record["timestamp"]


def _row_of(doc: Mapping[str, Any]) -> str:
    """Which of its two rows a change is about."""
    return "before" if _as_text(doc.get("op")) == DELETED else "after"


def _change_identity(
    contract: Contract, doc: Mapping[str, Any], fields: Mapping[str, Any], row: dict[str, Any]
) -> None:
    op, source = _as_text(doc.get("op")), doc.get("source")
    place = source if isinstance(source, dict) else {}
    parts: list[str | None] = []
    for name, form, digits in POSITION:
        found = re.search(form.replace(r"\z", r"\Z"), _as_text(place.get(name)) or "")
        parts.append(found[0].rjust(digits, "0") if found else None)
    millis = _as_text(place.get("ts_ms"))
    if millis is None or not re.search(MILLIS.replace(r"\z", r"\Z"), millis):
        millis = None
    problems = []
    if op not in CHANGES:
        problems.append("op.required" if op is None else "op.unsupported")
    if None in parts:
        problems.append("source.position")
    if millis is None:
        problems.append("source.ts_ms")
    if not isinstance(said := doc.get(_row_of(doc)), dict):
        problems.append(f"{_row_of(doc)}.{'required' if said is None else 'type'}")
    row["problems"][:0] = problems
    keys = [column for column in contract.columns if column.primary_key]
    parts.append(None if millis is None else str(int(millis)))
    for text in (_as_text(fields.get(_key(column, fields))) for column in keys):
        parts.append(None if text is None else f"{len(text)}:{text}")
    row["id"] = None if None in parts else "/".join(map(str, parts))
    row["type"] = None
    if op in CHANGES:
        row["type"] = f"{contract.event_type}.{CHANGES[op]}"
    row["time"] = None
    if millis is not None:
        row["time"] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(millis))
    states = (to_json(doc[name]) if name in doc else "" for name in ("before", "after"))
    content = "\n".join([*([] if op is None else [op]), *states])
    row["digest"] = hashlib.sha256(content.encode()).hexdigest()


def _blank(text: str | None) -> bool:
    return text is not None and not text.strip(WHITESPACE)


def _as_text(value: Any) -> str | None:
    """A JSON value as Spark casts it to text."""
    if value is None:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return _digits(value)
    if isinstance(value, float):
        return _as_java(value)
    if isinstance(value, dict | list):
        return to_json(value)
    return str(value)


def to_json(value: Any) -> str:
    """A nested value as compact JSON with sorted keys, as Spark prints a VARIANT."""

    def spell(inner: Any) -> str:
        if isinstance(inner, dict):
            # As Java compares texts: by units of UTF-16.
            pairs = sorted(inner.items(), key=lambda pair: pair[0].encode("utf-16-be"))
            return "{" + ",".join(f"{spell(key)}:{spell(item)}" for key, item in pairs) + "}"
        if isinstance(inner, list):
            return "[" + ",".join(spell(item) for item in inner) + "]"
        if isinstance(inner, Decimal):
            return _digits(inner)
        if isinstance(inner, float):
            return _as_java(inner) if isfinite(inner) else f'"{_as_java(inner)}"'
        if isinstance(inner, str):
            return f'"{ESCAPED.sub(_escape, inner)}"'
        return json.dumps(inner)

    with _deep_stack():
        return spell(value)


def _digits(value: Decimal) -> str:
    """As Java has no zero that is negative."""
    return f"{value.normalize() + 0:f}"


def _as_java(value: float) -> str:
    """A double as Java writes it: 1.0E20, where Python writes 1e+20."""
    if not isfinite(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(float(value))
    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    rest = "".join(map(str, digits[1:])) or "0"
    return f"{'-' * sign}{digits[0]}.{rest}E{int(exponent) + len(digits) - 1}"


def _escape(sign: re.Match[str]) -> str:
    return SHORT_ESCAPES.get(sign[0], f"\\u{ord(sign[0]):04X}")


def timestamp_of(text: str | None) -> datetime | None:
    """ISO-8601 text with an offset as an instant between the years 1 and 9999; else None."""
    if text is None or not re.fullmatch(TIMESTAMP.replace(r"\A", "").replace(r"\z", ""), text):
        return None
    # Python 3.11 takes six digits of a second at most; Spark cuts there too.
    cut = re.sub(r"([.][0-9]{6})[0-9]+", r"\1", text.replace("Z", "+00:00"))
    try:
        instant = datetime.fromisoformat(cut).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    first, last = (datetime.fromisoformat(limit) for limit in (FIRST, LAST))
    return instant if first <= instant <= last else None


def date_of(text: str | None) -> date | None:
    """`YYYY-MM-DD` text as a date; else None."""
    if text is None or not re.fullmatch(DATE.replace(r"\A", "").replace(r"\z", ""), text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


Typed = tuple[Any, str | None]


def _typed(value: Any, column: Column) -> Typed:
    """The value in the column's type, or what kept it from being typed."""
    if value is None:
        return None, None
    logical = column.logical_type
    if logical in {"integer", "number", "boolean"}:
        if isinstance(value, str) and column.from_text:
            return _from_text(value.strip(WHITESPACE), column)
        return _NATIVE[logical](value, column)
    if logical in {"object", "array"}:
        wanted = dict if logical == "object" else list
        return (to_json(value), None) if isinstance(value, wanted) else (None, "type")
    if not isinstance(value, str):
        return None, "type"
    if logical == "string":
        return value, None
    typed = date_of(value) if logical == "date" else timestamp_of(value)
    return typed, None if typed is not None else "format"


def _from_text(text: str, column: Column) -> Typed:
    if text == "":
        return None, None
    if column.logical_type == "boolean":
        lowered = text.lower()
        if lowered in TRUE or lowered in FALSE:
            return lowered in TRUE, None
        return None, "format"
    pattern = TEXT_INTEGER if column.logical_type == "integer" else TEXT_NUMBER
    if not re.fullmatch(pattern.replace(r"\A", "").replace(r"\z", ""), text):
        return None, "format"
    if column.logical_type == "integer":
        return _in_range(int(text), column)
    return _number(Decimal(text), column)


def _boolean(value: Any, column: Column) -> Typed:
    if isinstance(value, bool):
        return value, None
    # Where yes is the text 1, it may be the number.
    if column.from_text and isinstance(value, int | Decimal) and value in (0, 1):
        return value == 1, None
    return None, "type"


def _integer(value: Any, column: Column) -> Typed:
    if isinstance(value, bool):
        return None, "type"
    if isinstance(value, int):
        return _in_range(value, column)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return _in_range(int(value), column)
    if isinstance(value, Real) and abs(value) >= 2.0**63:
        return None, "overflow"
    return None, "type"


def _in_range(value: int, column: Column) -> Typed:
    limit = LIMITS[column.spark_type]
    return (value, None) if -limit <= value < limit else (None, "overflow")


def _number(value: Any, column: Column) -> Typed:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | float):
        return None, "type"
    exact = float(value)
    if abs(exact) == float("inf"):
        return None, "overflow"
    if column.decimal is None:
        return exact, None
    precision, scale = column.decimal
    number = Decimal(repr(float(value))) if isinstance(value, Real) else Decimal(value)
    try:
        rounded = number.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP)
    except InvalidOperation:
        return None, "overflow"
    if len(rounded.as_tuple().digits) > precision and abs(rounded) >= Decimal(10) ** (
        precision - scale
    ):
        return None, "overflow"
    same = float(rounded) == exact if isinstance(value, Real) else rounded == number
    return (rounded, None) if same else (None, "precision")


_NATIVE: dict[str, Callable[[Any, Column], Typed]] = {
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
}
