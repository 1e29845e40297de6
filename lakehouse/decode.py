"""From raw bytes to typed columns, in Spark; lakehouse/decode_pandas.py is its twin.

Nothing here raises on bad input: whatever cannot be read becomes a null with a named problem. The
one exception is asked for: a contract in mode freeze. Each record is parsed once, into a VARIANT,
which keeps apart what a schema of strings cannot: `"3"` and `3`, a missing key and a null, two
equal keys.

Problems of a whole record: tombstone, empty_value, record_too_large, not_utf8, lone_surrogate,
malformed_json, duplicate_key, nesting_too_deep, not_an_object, unknown_type, unknown_field (where
the contract says newFields: quarantine). Problems of a field, as `field.what`: required, type
(another JSON type), format (text that is no date, time or number), overflow (beyond the range of
the column), precision (more digits than the column keeps), in_future, unsupported. Of a change of a
database (`changes` in its contract) fields are the envelope's too: op, source.position,
source.ts_ms, before, after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.contracts import DROP, EVOLVE, FREEZE, QUARANTINE, Column, Contract, Contracts
from lakehouse.errors import FROZEN
from lakehouse.sql import literal, quoted, when

# JSON text in quotes, without back-tracking: what is left holds structural brackets only. One that
# does not end goes to the end of the record: each of its quotes would be tried as a beginning else.
QUOTED = r'"(?:[^"\\]++|\\[\s\S]?)*+"?'
# An escape of half a surrogate pair, which no UTF-8 can hold: two such keys become equal, and two
# such ids. What is no half is taken away first: escaped backslashes, then whole pairs.
SURROGATE = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
SURROGATE_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# Jackson stops at 1,000 levels, and the parse below wraps every record in one of its own.
MAX_DEPTH = 999
DATE = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\z"
OFFSET = r"(?:Z|[+-](?:0[0-9]|1[0-7]):[0-5][0-9]|[+-]18:00)"
TIMESTAMP = (
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    rf"(?:[.][0-9]{{1,9}})?{OFFSET}\z"
)
FIRST, LAST = "0001-01-02 00:00:00+00:00", "9999-12-30 00:00:00+00:00"
TEXT_NUMBER = r"\A[+-]?[0-9]{1,60}(?:[.][0-9]{1,60})?\z"
TEXT_INTEGER = r"\A[+-]?[0-9]{1,60}\z"
BLANKS = " \t\r\n"
# Between names of problems: no name of a column or a rule holds one.
SEPARATOR = "\n"
UNKNOWN_FIELD = "unknown_field"
TRUE, FALSE = ["true", "yes", "1", "1.0"], ["false", "no", "0", "0.0"]


def get(value: SparkColumn, spark_type: str, path: str = "$") -> SparkColumn:
    return F.try_variant_get(value, path, spark_type)


def decode(records: DataFrame, contracts: Contracts, max_record_bytes: int) -> DataFrame:
    """Parses and types raw records.

    records: topic, partition, offset, timestamp (the broker's), key, value.
    Adds: digest (SHA-256 of the value), entity, source, id, type, time, subject, problems (what is
    wrong with the record or its envelope, as `joined` gives it), rescued (fields that no column
    took, where the contract says evolve, as a JSON object), and for every contract `<entity>`,
    a struct of its typed columns, and `<entity>__problems`, a struct of what is wrong with each.
    Both are null in rows of another entity, and of one without an object.

    A step's columns are used more than once in the next, which keeps Spark from computing them more
    than once; and all that a step does for an entity stands in one CASE, so that a record costs
    what its own entity asks, and not what all of them do.
    """
    df = _parse(records, max_record_bytes)
    df = _envelope(df, contracts)
    every = list(contracts.values())
    df = df.withColumns(
        {
            raw(c): F.expr(when((f"entity = {literal(c.name)}", _data_as(c, _fields_of(c)))))
            for c in every
        }
    )
    df = df.withColumns({kinds(c): _each(c, _Field.kind_of) for c in every})
    df = df.withColumns({c.name: _each(c, _Field.in_type) for c in every})
    df = df.withColumns({problems(c): _each(c, _Field.problem) for c in every})
    df = _plain_identity(df, contracts)
    df = _change_identity(df, contracts)
    df = _unknown_fields(df, contracts)
    tolerances: dict[int, list[str]] = {}
    for contract in every:
        tolerances.setdefault(contract.clock_tolerance_seconds, []).append(contract.name)
    ahead = when(
        *(
            (
                f"entity IN ({', '.join(map(literal, names))})",
                f"timestamp + INTERVAL {seconds} SECONDS",
            )
            for seconds, names in tolerances.items()
        )
    )
    in_future = when((f"time > {ahead}", "'time.in_future'"))
    unknown = when(*(_unwanted(c) for c in every if c.new_fields in {QUARANTINE, FREEZE}))
    untyped = when(*(_frozen_type(c) for c in every if c.changed_types == FREEZE))
    found = joined(["record_problem", "envelope_problems", in_future, unknown, untyped])
    gone = ["doc", "record_problem", "envelope_problems", "unknown_fields", *map(raw, every)]
    return df.withColumn("problems", F.expr(found)).drop(*gone, *map(kinds, every))


def raw(contract: Contract) -> str:
    """The column with an entity's fields as they came, while its records are decoded."""
    return f"{contract.name}__raw"


def kinds(contract: Contract) -> str:
    """The column with the JSON types of these fields, as `kind_of` names them."""
    return f"{contract.name}__kinds"


def problems(contract: Contract) -> str:
    """The column with what is wrong with each of an entity's columns."""
    return f"{contract.name}__problems"


def joined(names: Sequence[str]) -> str:
    """Those of the names that are not null, as one text; null where there is none.

    Spark compiles this. What takes the nulls out of an array it interprets, tens of times slower.
    """
    text = f"concat_ws({SEPARATOR!r}, {', '.join(names)})"
    return when((f"{text} != ''", text))


def split(names: SparkColumn) -> SparkColumn:
    """What `joined` put together, as an array; an empty one for null."""
    return F.coalesce(F.split(names, SEPARATOR), F.array().cast("array<string>"))


def _each(contract: Contract, what: Callable[[_Field], str]) -> SparkColumn:
    """A struct with `what` of every column of an entity; null in rows of another one."""
    parts = (f"{literal(c.name)}, {what(_Field(contract, c))}" for c in contract.columns)
    there = f"{quoted(raw(contract))} IS NOT NULL"
    return F.expr(when((there, f"named_struct({', '.join(parts)})")))


def _parse(records: DataFrame, max_record_bytes: int) -> DataFrame:
    value = F.col("value")
    text = value.cast("string")
    size = F.octet_length(value)
    unreadable = (
        F.when(value.isNull(), "tombstone")
        .when(size == 0, "empty_value")
        .when(size > max_record_bytes, "record_too_large")
        .when(~F.is_valid_utf8(text), "not_utf8")
        .when(text.contains("\\u") & _lone_surrogate(text), "lone_surrogate")
    )
    # Parsers stop at the end of the first value and take what trails for nothing. So the record is
    # parsed as the first of two elements, the second being its own digest, which no record can
    # hold: where the second is not found, the text was not exactly one JSON value.
    wrapped = F.concat(F.lit("["), text, F.lit(',"'), F.col("digest"), F.lit('"]'))
    complete = F.try_variant_get("parsed", "$[1]", "string") == F.col("digest")
    doc = F.when(complete, F.try_variant_get("parsed", "$[0]", "variant"))
    # The strict parser refuses equal keys without saying so; the other one lets them pass.
    lenient = F.from_json(
        wrapped,
        "array<string>",
        {"allowNonNumericNumbers": "false", "allowSingleQuotes": "false"},
    )
    is_object = F.ltrim(text, F.lit(BLANKS)).startswith("{")
    return (
        records.withColumn("digest", F.sha2(value, 256))
        .withColumn("unreadable", unreadable)
        .withColumn("parsed", F.when(F.col("unreadable").isNull(), F.try_parse_json(wrapped)))
        .withColumn("doc", doc)
        .withColumn(
            "record_problem",
            F.when(F.col("unreadable").isNotNull(), F.col("unreadable"))
            .when(F.col("doc").isNotNull() & is_object, F.lit(None))
            .when(F.col("doc").isNotNull(), "not_an_object")
            .when(_depth(text) > MAX_DEPTH, "nesting_too_deep")
            .when(F.try_element_at(lenient, F.lit(2)) == F.col("digest"), "duplicate_key")
            .otherwise("malformed_json"),
        )
        .withColumn("doc", F.when(F.col("record_problem").isNull(), F.col("doc")))
        .drop("parsed", "unreadable")
    )


def _lone_surrogate(text: SparkColumn) -> SparkColumn:
    # By a blank: what stood on both sides of one is no pair.
    unescaped = F.replace(text, F.lit("\\\\"), F.lit(" "))
    return F.regexp_replace(unescaped, SURROGATE_PAIR, "").rlike(SURROGATE)


def _depth(text: SparkColumn) -> SparkColumn:
    """The deepest nesting of JSON text; 0 where it holds too few brackets to be too deep."""
    brackets = F.regexp_replace(F.regexp_replace(text, QUOTED, ""), r"[^\[\]{}]", "")
    enough = F.length(text) - F.length(F.translate(text, "[{", "")) > MAX_DEPTH
    deepest = F.aggregate(
        F.split(brackets, ""),
        F.struct(F.lit(0).alias("now"), F.lit(0).alias("most")),
        lambda depth, sign: _step(depth, sign),
        lambda depth: depth["most"],
    )
    return F.when(enough, deepest).otherwise(0)


def _step(depth: SparkColumn, sign: SparkColumn) -> SparkColumn:
    change = F.when(sign.isin("[", "{"), 1).when(sign.isin("]", "}"), -1).otherwise(0)
    now = depth["now"] + change
    return F.struct(now.alias("now"), F.greatest(depth["most"], now).alias("most"))


ATTRIBUTES = ["specversion", "id", "source", "type", "time", "subject"]
# Looked up in place: a VARIANT that is taken out of another one is built anew.
DATA = "$.data"
# Of a change: what was done, and what the row was before and is after it.
OP, BEFORE, AFTER = "$.op", "$.before", "$.after"
DELETED = "d"
# By Debezium's `op`, the end of the event's type. Others (t, m) are no change of a row.
CHANGES = {"c": "created", "u": "updated", DELETED: "deleted", "r": "read"}
DELETED_TYPE = f".{CHANGES[DELETED]}"
# Where in the log of MariaDB or MySQL a change stands: the number of the file, the place in it, the
# row of that statement.
POSITION = (
    ("file", r"[0-9]{1,10}\z", 10),
    ("pos", r"\A[0-9]{1,20}\z", 20),
    ("row", r"\A[0-9]{1,10}\z", 10),
)
MILLIS = r"\A[0-9]{1,14}\z"


def _envelope(df: DataFrame, contracts: Contracts) -> DataFrame:
    """entity of every record; CloudEvents attributes and problems of enveloped ones."""
    attributes = ", ".join(f"{name}: variant" for name in ATTRIBUTES)
    plain_topics = [contract.topic for contract in contracts.plain]
    df = df.withColumn("enveloped", F.col("doc").isNotNull() & ~F.col("topic").isin(plain_topics))
    df = df.withColumn(
        "envelope", F.when(F.col("enveloped"), get(F.col("doc"), f"struct<{attributes}>"))
    )
    df = df.withColumns({f"{k}_kind": F.expr(kind_of(f"envelope.{k}")) for k in ATTRIBUTES})
    df = df.withColumns(
        {
            f"{k}_text": F.when(F.col(f"{k}_kind") == "STRING", get(F.col("envelope")[k], "string"))
            for k in ATTRIBUTES
        }
    )
    of_topic = [(f"topic = {literal(c.topic or '')}", c) for c in contracts.plain]
    of_type = [(f"type_text = {literal(c.event_type)}", c) for c in contracts.enveloped]
    entity = when(*((mine, literal(c.name)) for mine, c in [*of_topic, *of_type]))
    event_type = when(
        *((mine, literal(c.event_type)) for mine, c in of_topic), otherwise="type_text"
    )
    readable = F.col("doc").isNotNull()
    df = df.withColumns(
        {
            "entity": F.when(readable, F.expr(entity)),
            "source": F.col("source_text"),
            "id": F.col("id_text"),
            "type": F.when(readable, F.expr(event_type)),
            "time": F.expr(timestamp_of("time_text")),
            "subject": F.col("subject_text"),
        }
    )
    data = f"try_variant_get(doc, '{DATA}', 'variant')"
    no_object = f"try_variant_get(doc, '{DATA}', 'struct<>') IS NULL"
    found = [
        when(
            (f"NOT {present('specversion_kind')}", "'specversion.required'"),
            ("NOT coalesce(specversion_text = '1.0', false)", "'specversion.unsupported'"),
        ),
        *(
            when(
                (f"NOT {present(f'{key}_kind')} OR {_blank(key)}", literal(f"{key}.required")),
                (f"{key}_kind != 'STRING'", literal(f"{key}.type")),
            )
            for key in ("id", "source")
        ),
        when(
            (f"NOT {present('type_kind')}", "'type.required'"),
            ("type_kind != 'STRING'", "'type.type'"),
            ("entity IS NULL", "'unknown_type'"),
        ),
        when(
            (f"NOT {present('time_kind')}", "'time.required'"),
            ("time_kind != 'STRING'", "'time.type'"),
            ("time IS NULL", "'time.format'"),
        ),
        when(
            (f"{no_object} AND {present(kind_of(data))}", "'data.type'"),
            (no_object, "'data.required'"),
        ),
    ]
    problems_there = F.expr(when(("enveloped", joined(found))))
    return df.withColumn("envelope_problems", problems_there).drop(
        "envelope", "enveloped", *(f"{k}_{what}" for k in ATTRIBUTES for what in ("kind", "text"))
    )


def _plain_identity(df: DataFrame, contracts: Contracts) -> DataFrame:
    """source, id and time of records without an envelope, as their contracts say.

    An id that the contract does not name is the record's content; a time, the broker's.
    """
    for contract in contracts.plain:
        if contract.changes:
            continue
        mine = F.col("entity") == contract.name
        of_key = {column.json_key: column for column in contract.columns}
        fields = [_Field(contract, of_key[key]).value for key in contract.id_keys]
        texts = [f"try_variant_get({field}, '$', 'string')" for field in fields]
        parts = [when((f"NOT {_blank(said)}", said)) for said in texts] or ["digest"]
        # Lengths keep apart ("a", "bc") and ("ab", "c").
        with_length = [f"concat(length({part}), ':', {part})" for part in parts]
        identity = F.expr(f"concat({', '.join(with_length)})" if len(parts) > 1 else parts[0])
        time = F.col("timestamp")
        if contract.time_column is not None:
            time = F.coalesce(F.col(contract.name)[contract.time_column], time)
        missing = mine & identity.isNull()
        df = df.withColumns(
            {
                "source": _source(contract),
                "id": F.when(mine, identity).otherwise(F.col("id")),
                "time": F.when(mine, time).otherwise(F.col("time")),
                "envelope_problems": F.when(missing, "id.required").otherwise(
                    F.col("envelope_problems")
                ),
            }
        )
    return df


def _change_identity(df: DataFrame, contracts: Contracts) -> DataFrame:
    """source, id, type, time and digest of changes of a database's tables.

    An id is the place in the database's log, the moment and the key: the same change, sent twice,
    is a duplicate, though Debezium writes into it when it was sent.
    """
    for contract in contracts.plain:
        if not contract.changes:
            continue
        mine = F.col("entity") == contract.name
        op, millis = _text(OP), _text("$.source.ts_ms")
        places = [
            f"lpad(nullif(regexp_extract({_text(f'$.source.{name}')}, {literal(form)}, 0), ''), "
            f"{digits}, '0')"
            for name, form, digits in POSITION
        ]
        keys = [_Field(contract, column).value for column in contract.columns if column.primary_key]
        texts = [f"try_variant_get({value}, '$', 'string')" for value in keys]
        moment = when((f"{millis} RLIKE {literal(MILLIS)}", f"try_cast({millis} AS bigint)"))
        # Lengths keep apart ("a", "bc") and ("ab", "c"). Without its key a row has no id.
        key = ", ".join(f"'/', length({text}), ':', {text}" for text in texts)
        place = ", '/', ".join((*places, moment))
        ident = f"concat({place}, {key})"
        row = when((f"{op} = {literal(DELETED)}", literal(BEFORE)), otherwise=literal(AFTER))
        row = f"substr({row}, 3)"
        of_row = _data_as(contract, "variant")
        found = joined(
            [
                when(
                    (f"{op} IS NULL", "'op.required'"),
                    (f"{op} NOT IN ({', '.join(map(literal, CHANGES))})", "'op.unsupported'"),
                ),
                when((f"concat({', '.join(places)}) IS NULL", "'source.position'")),
                when((f"{moment} IS NULL", "'source.ts_ms'")),
                when(
                    (f"NOT {present(kind_of(of_row))}", f"{row} || '.required'"),
                    (f"{quoted(raw(contract))} IS NULL", f"{row} || '.type'"),
                ),
            ]
        )
        states = (f"coalesce(to_json({_variant(path)}), '')" for path in (BEFORE, AFTER))
        content = f"sha2(concat_ws({SEPARATOR!r}, {op}, {', '.join(states)}), 256)"
        words = ((f"{op} = {literal(short)}", literal(word)) for short, word in CHANGES.items())
        kind = f"concat({literal(contract.event_type + '.')}, {when(*words)})"
        values = {
            "id": ident,
            "type": kind,
            "time": f"timestamp_millis({moment})",
            "digest": content,
            "envelope_problems": found,
        }
        df = df.withColumns(
            {
                name: F.when(mine, F.expr(value)).otherwise(F.col(name))
                for name, value in values.items()
            }
            | {"source": _source(contract)}
        )
    return df


def _source(contract: Contract) -> SparkColumn:
    """The source, which is the topic, of records without an envelope: also of what is no JSON."""
    mine = F.col("topic") == (contract.topic or "")
    return F.when(mine, F.lit(f"kafka:{contract.topic}")).otherwise(F.col("source"))


def _text(path: str) -> str:
    return f"try_variant_get(doc, {literal(path)}, 'string')"


def _variant(path: str) -> str:
    return f"try_variant_get(doc, {literal(path)}, 'variant')"


def _unknown_fields(df: DataFrame, contracts: Contracts) -> DataFrame:
    """unknown_fields: whether a record has a field that its contract does not know; rescued.

    Fields are counted before they are named: nearly every record has none that is unknown.
    """
    watched = [contract for contract in contracts.values() if contract.new_fields != DROP]
    found = when(*((f"entity = {literal(c.name)}", _has_unknown(c)) for c in watched))
    df = df.withColumn("unknown_fields", F.expr(f"coalesce({found}, false)"))
    cases = []
    for contract in contracts.values():
        reasons, kept = [], []
        if contract.new_fields == EVOLVE:
            reasons.append("unknown_fields")
            kept.append(f"NOT {_is_known(contract)}")
        if contract.changed_types == EVOLVE:
            for column in contract.columns:
                problem = f"{quoted(problems(contract))}.{quoted(column.name)} IS NOT NULL"
                keys = ", ".join(map(literal, column.json_keys))
                reasons.append(problem)
                kept.append(f"({problem} AND k IN ({keys}))")
        if reasons:
            mine = f"entity = {literal(contract.name)} AND ({' OR '.join(reasons)})"
            wanted = f"(k, v) -> {' OR '.join(kept)}"
            cases.append((mine, f"to_json(map_filter({_fields(contract)}, {wanted}))"))
    return df.withColumn("rescued", F.expr(f"CAST({when(*cases)} AS string)"))


def _fields(contract: Contract) -> str:
    """All fields of a record by key; null in one without an object."""
    return _data_as(contract, "map<string, variant>")


def _data_as(contract: Contract, spark_type: str) -> str:
    """What a record says of its entity: of a change, the row that was deleted, or is there now."""

    def at(path: str) -> str:
        return f"try_variant_get(doc, {literal(path)}, {literal(spark_type)})"

    if contract.changes:
        return f"if({_text(OP)} = {literal(DELETED)}, {at(BEFORE)}, {at(AFTER)})"
    return at("$" if contract.topic else DATA)


def _has_unknown(contract: Contract) -> str:
    mine = quoted(raw(contract))
    known = [f"CAST({mine}.{quoted(key)} IS NOT NULL AS int)" for key in contract.json_keys]
    return f"size({_fields(contract)}) > {' + '.join(known)}"


def _is_known(contract: Contract) -> str:
    return f"k IN ({', '.join(map(literal, contract.json_keys))})"


def _unwanted(contract: Contract) -> tuple[str, str]:
    """What an unknown field does where a contract does not take it."""
    mine = f"unknown_fields AND entity = {literal(contract.name)}"
    if contract.new_fields == QUARANTINE:
        return mine, literal(UNKNOWN_FIELD)
    named = f"map_keys(map_filter({_fields(contract)}, (k, v) -> NOT {_is_known(contract)}))"
    return mine, _refused(
        contract, "newFields", f"has fields that are not in it: ', to_json({named})"
    )


def _frozen_type(contract: Contract) -> tuple[str, str]:
    of_column = [f"{quoted(problems(contract))}.{quoted(c.name)}" for c in contract.columns]
    named = f"concat_ws(', ', {', '.join(of_column)})"
    mine = f"entity = {literal(contract.name)} AND {named} != ''"
    return mine, _refused(contract, "changedTypes", f"has values that it cannot hold: ', {named}")


def _refused(contract: Contract, mode: str, what: str) -> str:
    """SQL that ends the query; `what` goes on from within a literal."""
    said = f"{FROZEN}{frozen(contract, mode)}"
    record = "topic, '/', partition, '/', offset"
    return f"CAST(raise_error(concat({literal(said)}, {record}, ' {what})) AS string)"


def frozen(contract: Contract, mode: str) -> str:
    """The beginning of what is said where mode freeze meets a record; its coordinates follow."""
    return (
        f"contract {contract.name} is frozen ({mode}: freeze), and nothing more is written: change "
        f"it, or choose another mode (evolve, quarantine, drop), and start again. Record "
    )


def _fields_of(contract: Contract) -> str:
    return f"struct<{', '.join(f'{quoted(key)}: variant' for key in contract.json_keys)}>"


def digits_within(scale: int) -> str:
    """Numbers as text that a scale holds: what comes after its digits is zeros."""
    return rf"\A[+-]?[0-9]+(?:[.][0-9]{{0,{scale}}}0*)?\z"


# What is asked of each of a hundred columns is written as SQL text, which goes to Spark in one call
# an entity. Put together from Column objects it took ten thousand calls and several seconds.


def timestamp_of(value: str) -> str:
    """ISO-8601 text with an offset as an instant between the years 1 and 9999; else null."""
    instant = when((f"{value} RLIKE {literal(TIMESTAMP)}", f"try_cast({value} AS timestamp)"))
    return when((f"{instant} BETWEEN timestamp'{FIRST}' AND timestamp'{LAST}'", instant))


def date_of(value: str) -> str:
    """`YYYY-MM-DD` text as a date; else null."""
    good = f"{value} RLIKE {literal(DATE)} AND NOT startswith({value}, '0000')"
    return when((good, f"try_cast({value} AS date)"))


def kind_of(value: str) -> str:
    """The JSON type of a VARIANT: OBJECT, ARRAY, or of anything else what schema_of_variant says.

    Of an array's elements that function makes one schema, which takes a time by the square of how
    many names they have: minutes for a record of 1 MB.
    """
    return when(
        (f"try_variant_get({value}, '$', 'struct<>') IS NOT NULL", "'OBJECT'"),
        (f"try_variant_get({value}, '$[0]', 'variant') IS NOT NULL", "'ARRAY'"),
        otherwise=f"schema_of_variant({value})",
    )


def present(kind: str) -> str:
    """Whether a value is there. kind: its JSON type, as `kind_of` names it: null
    where it is missing, VOID where it is null, STRING, BIGINT …"""
    return f"({kind} IS NOT NULL AND {kind} != 'VOID')"


def _blank(value: str) -> str:
    return f"btrim({value}, {BLANKS!r}) = ''"


def _finite(double: str) -> str:
    return when((f"abs({double}) < double('Infinity')", double))


class _Field:
    """One column of an entity, as expressions of SQL over what decoding has found of it so far.

    value: the field as it came, a VARIANT. kind: its JSON type. typed: it in the column's type.
    """

    def __init__(self, contract: Contract, column: Column) -> None:
        self.column = column
        keys = [f"{quoted(raw(contract))}.{quoted(key)}" for key in column.json_keys]
        self.value = keys[0] if len(keys) == 1 else f"coalesce({', '.join(keys)})"
        self.kind = f"{quoted(kinds(contract))}.{quoted(column.name)}"
        self.typed = f"{quoted(contract.name)}.{quoted(column.name)}"

    def kind_of(self) -> str:
        return kind_of(self.value)

    def in_type(self) -> str:
        """The VARIANT in the column's type; null where it is missing or does not fit."""
        column, kind = self.column, self.kind
        logical = column.logical_type
        said = when((f"{kind} = 'STRING'", self._get("string")))
        if logical == "string":
            return said
        if logical == "date":
            return date_of(said)
        if logical == "timestamp":
            return timestamp_of(said)
        if logical in {"object", "array"}:
            return when((f"startswith({kind}, {literal(logical.upper())})", self._get("string")))
        if logical == "boolean":
            native = when((f"{kind} = 'BOOLEAN'", self._get("boolean")))
        elif logical == "integer":
            native = when((self._whole(), self._get(column.spark_type)))
        else:
            native = when((self._number(), self._kept()))
        if not column.from_text:
            return native
        if logical == "boolean":
            # Where yes is the text 1, it may be the number.
            exact = f"{kind} IN ('STRING', 'BIGINT') OR startswith({kind}, 'DECIMAL')"
            said = when((exact, self._get("string")))
        return f"coalesce({native}, {self._from_text(f'btrim({said}, {BLANKS!r})')})"

    def problem(self) -> str:
        """Why a value that is there could not be typed; null where there is none."""
        column, kind, logical = self.column, self.kind, self.column.logical_type
        found = self._named("type")
        if logical in {"date", "timestamp"}:
            found = when((f"{kind} != 'STRING'", found), otherwise=self._named("format"))
        elif logical == "integer":
            beyond = f"{kind} = 'DOUBLE' AND abs({self._get('double')}) >= double('{2.0**63}')"
            too_large = (f"{self._whole()} OR {beyond}", self._named("overflow"))
            found = when(too_large, otherwise=found)
        elif logical == "number":
            lost = (self._number(), self._digits(self._get(column.spark_type)))
            found = when(lost, otherwise=found)
        if column.from_text and logical in {"integer", "number", "boolean"}:
            said = f"btrim({self._get('string')}, {BLANKS!r})"
            not_blank = when((f"{said} != ''", self._named("format")))
            if logical != "boolean":
                pattern = literal(TEXT_INTEGER if logical == "integer" else TEXT_NUMBER)
                is_one = f"{said} RLIKE {pattern}"
                cast = when((is_one, f"try_cast({said} AS {column.spark_type})"))
                not_blank = when((is_one, self._digits(cast)), otherwise=not_blank)
            found = when((f"{kind} = 'STRING'", not_blank), otherwise=found)
        return when((f"{self.typed} IS NULL AND {present(kind)}", found))

    def _get(self, spark_type: str) -> str:
        return f"try_variant_get({self.value}, '$', '{spark_type}')"

    def _named(self, what: str) -> str:
        return literal(f"{self.column.name}.{what}")

    def _number(self) -> str:
        return f"({self.kind} IN ('BIGINT', 'DOUBLE') OR startswith({self.kind}, 'DECIMAL'))"

    def _whole(self) -> str:
        no_digits = f"startswith({self.kind}, 'DECIMAL') AND endswith({self.kind}, ',0)')"
        return f"({self.kind} = 'BIGINT' OR {no_digits})"

    def _kept(self) -> str:
        """A JSON number in the column's type, unless that loses digits or ends in infinity."""
        double, decimal = self._get("double"), self.column.decimal
        if decimal is None:
            return _finite(double)
        typed = self._get(self.column.spark_type)
        scale = f"try_cast(regexp_extract({self.kind}, ',([0-9]+)', 1) AS int)"
        as_double = (f"{self.kind} = 'DOUBLE'", f"CAST({typed} AS double) = {double}")
        exact = when(as_double, otherwise=f"coalesce({scale}, 0) <= {decimal[1]}")
        return when((exact, typed))

    def _from_text(self, said: str) -> str:
        column = self.column
        if column.logical_type == "boolean":
            spelt = [
                (f"lower({said}) IN ({', '.join(map(literal, words))})", result)
                for words, result in ((TRUE, "true"), (FALSE, "false"))
            ]
            return when(*spelt)
        cast = f"try_cast({said} AS {column.spark_type})"
        if column.logical_type == "integer":
            return when((f"{said} RLIKE {literal(TEXT_INTEGER)}", cast))
        digits = when((f"{said} RLIKE {literal(TEXT_NUMBER)}", said))
        if column.decimal is None:
            return _finite(f"try_cast({digits} AS double)")
        within = f"{digits} RLIKE {literal(digits_within(column.decimal[1]))}"
        return when((within, f"try_cast({digits} AS {column.spark_type})"))

    def _digits(self, cast: str) -> str:
        """What was wrong with a number that did not keep its value: its digits, or its size."""
        if self.column.decimal is None:
            return self._named("overflow")
        lost = (f"{cast} IS NOT NULL", self._named("precision"))
        return when(lost, otherwise=self._named("overflow"))
