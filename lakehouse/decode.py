"""From raw bytes to typed columns, in Spark; lakehouse/decode_pandas.py is its twin.

Nothing here raises on bad input: whatever cannot be read becomes a null with a named problem. Each
record is parsed once, into a VARIANT, which keeps apart what a schema of strings cannot: `"3"` and
`3`, a missing key and a null, two equal keys.

Problems of a whole record: tombstone, empty_value, record_too_large, not_utf8, lone_surrogate,
malformed_json, duplicate_key, nesting_too_deep, not_an_object, unknown_type. Problems of a field,
as `field.what`: required, type (another JSON type), format (text that is no date, time or number),
overflow (beyond the range of the column), precision (more digits than the column keeps), in_future,
unsupported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.contracts import Column, Contract, Contracts

# JSON text in quotes, without back-tracking: what is left holds structural brackets only.
QUOTED = r'"(?:[^"\\]++|\\[\s\S])*+"'
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
TRUE, FALSE = ["true", "yes", "1"], ["false", "no", "0"]


def kind_of(value: SparkColumn) -> SparkColumn:
    """A VARIANT's JSON type as Spark names it: null if missing, VOID if null, STRING, BIGINT …"""
    return F.schema_of_variant(value)


def get(value: SparkColumn, spark_type: str, path: str = "$") -> SparkColumn:
    return F.try_variant_get(value, path, spark_type)


def present(kind: SparkColumn) -> SparkColumn:
    return kind.isNotNull() & (kind != "VOID")


def decode(records: DataFrame, contracts: Contracts, max_record_bytes: int) -> DataFrame:
    """Parses and types raw records.

    records: topic, partition, offset, timestamp (the broker's), key, value.
    Adds: digest (SHA-256 of the value), entity, source, id, type, time, subject, problems (what is
    wrong with the record or its envelope, as `joined` gives it), and for every contract `<entity>`,
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
            raw(c): F.when(
                F.col("entity") == c.name,
                get(F.col("doc"), _fields_of(c), "$" if c.topic else DATA),
            )
            for c in every
        }
    )
    df = df.withColumns({kinds(c): _each(c, lambda value, *_: kind_of(value)) for c in every})
    df = df.withColumns({c.name: _each(c, _typed) for c in every})
    df = df.withColumns({problems(c): _each(c, _problem) for c in every})
    df = _plain_identity(df, contracts)
    tolerances: dict[int, list[str]] = {}
    for contract in every:
        tolerances.setdefault(contract.clock_tolerance_seconds, []).append(contract.name)
    ahead = chain(
        (F.col("entity").isin(names), F.expr(f"timestamp + INTERVAL {seconds} SECONDS"))
        for seconds, names in tolerances.items()
    )
    in_future = F.when(F.col("time") > ahead, "time.in_future")
    found = [F.col("record_problem"), F.col("envelope_problems"), in_future]
    gone = ["doc", "record_problem", "envelope_problems", *map(raw, every)]
    return df.withColumn("problems", joined(found)).drop(*gone, *map(kinds, every))


def raw(contract: Contract) -> str:
    """The column with an entity's fields as they came, while its records are decoded."""
    return f"{contract.name}__raw"


def kinds(contract: Contract) -> str:
    """The column with the JSON types of these fields, as `kind_of` names them."""
    return f"{contract.name}__kinds"


def problems(contract: Contract) -> str:
    """The column with what is wrong with each of an entity's columns."""
    return f"{contract.name}__problems"


def joined(names: Sequence[SparkColumn]) -> SparkColumn:
    """Those of the names that are not null, as one text; null where there is none.

    Spark compiles this. What takes the nulls out of an array it interprets, tens of times slower.
    """
    text = F.concat_ws(SEPARATOR, *names)
    return F.when(text != "", text)


def split(names: SparkColumn) -> SparkColumn:
    """What `joined` put together, as an array; an empty one for null."""
    return F.coalesce(F.split(names, SEPARATOR), F.array().cast("array<string>"))


def _each(
    contract: Contract, what: Callable[[SparkColumn, SparkColumn, SparkColumn, Column], SparkColumn]
) -> SparkColumn:
    """A struct with `what` of every column of an entity; null in rows of another one.

    what: gets a field as it came, its kind, its typed value (each once there is one), its column.
    """
    fields, types, typed = F.col(raw(contract)), F.col(kinds(contract)), F.col(contract.name)
    found = F.struct(
        *(
            what(fields[c.json_key], types[c.name], typed[c.name], c).alias(c.name)
            for c in contract.columns
        )
    )
    return F.when(fields.isNotNull(), found)


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
    unescaped = F.replace(text, F.lit("\\\\"), F.lit(""))
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


def _envelope(df: DataFrame, contracts: Contracts) -> DataFrame:
    """entity of every record; CloudEvents attributes and problems of enveloped ones."""
    attributes = ", ".join(f"{name}: variant" for name in ATTRIBUTES)
    plain_topics = [contract.topic for contract in contracts.plain]
    df = df.withColumn("enveloped", F.col("doc").isNotNull() & ~F.col("topic").isin(plain_topics))
    df = df.withColumn(
        "envelope", F.when(F.col("enveloped"), get(F.col("doc"), f"struct<{attributes}>"))
    )
    df = df.withColumns({f"{k}_kind": kind_of(F.col("envelope")[k]) for k in ATTRIBUTES})
    df = df.withColumns(
        {
            f"{k}_text": F.when(F.col(f"{k}_kind") == "STRING", get(F.col("envelope")[k], "string"))
            for k in ATTRIBUTES
        }
    )
    entity = chain(
        [
            *((F.col("topic") == c.topic, F.lit(c.name)) for c in contracts.plain),
            *((F.col("type_text") == c.event_type, F.lit(c.name)) for c in contracts.enveloped),
        ]
    )
    event_type = chain(
        [
            *((F.col("topic") == c.topic, F.lit(c.event_type)) for c in contracts.plain),
            (F.lit(True), F.col("type_text")),
        ]
    )
    readable = F.col("doc").isNotNull()
    df = df.withColumns(
        {
            "entity": F.when(readable, entity),
            "source": F.col("source_text"),
            "id": F.col("id_text"),
            "type": F.when(readable, event_type),
            "time": timestamp_of(F.col("time_text")),
            "subject": F.col("subject_text"),
        }
    )
    kind = {k: F.col(f"{k}_kind") for k in ATTRIBUTES}
    data = get(F.col("doc"), "variant", DATA)
    no_object = get(F.col("doc"), "struct<>", DATA).isNull()
    found = [
        F.when(~present(kind["specversion"]), "specversion.required").when(
            ~F.coalesce(F.col("specversion_text") == "1.0", F.lit(False)), "specversion.unsupported"
        ),
        *(
            F.when(~present(kind[key]) | _blank(F.col(key)), f"{key}.required").when(
                kind[key] != "STRING", f"{key}.type"
            )
            for key in ("id", "source")
        ),
        F.when(~present(kind["type"]), "type.required")
        .when(kind["type"] != "STRING", "type.type")
        .when(F.col("entity").isNull(), "unknown_type"),
        F.when(~present(kind["time"]), "time.required")
        .when(kind["time"] != "STRING", "time.type")
        .when(F.col("time").isNull(), "time.format"),
        F.when(no_object, F.when(present(kind_of(data)), "data.type").otherwise("data.required")),
    ]
    problems_there = F.when(F.col("enveloped"), joined(found))
    return df.withColumn("envelope_problems", problems_there).drop(
        "envelope", "enveloped", *(f"{k}_{what}" for k in ATTRIBUTES for what in ("kind", "text"))
    )


def _plain_identity(df: DataFrame, contracts: Contracts) -> DataFrame:
    """source, id and time of records without an envelope, as their contracts say.

    An id that the contract does not name is the record's content; a time, the broker's.
    """
    for contract in contracts.plain:
        mine = F.col("entity") == contract.name
        texts = [get(F.col(raw(contract))[key], "string") for key in contract.id_keys]
        parts = [F.when(~_blank(text), text) for text in texts]
        # Lengths keep apart ("a", "bc") and ("ab", "c").
        joined = F.concat(*(F.concat(F.length(p).cast("string"), F.lit(":"), p) for p in parts))
        identity = (joined if len(parts) > 1 else parts[0]) if parts else F.col("digest")
        time = F.col("timestamp")
        if contract.time_column is not None:
            time = F.coalesce(F.col(contract.name)[contract.time_column], time)
        missing = mine & identity.isNull()
        df = df.withColumns(
            {
                "source": F.when(mine, F.lit(f"kafka:{contract.topic}")).otherwise(F.col("source")),
                "id": F.when(mine, identity).otherwise(F.col("id")),
                "time": F.when(mine, time).otherwise(F.col("time")),
                "envelope_problems": F.when(missing, "id.required").otherwise(
                    F.col("envelope_problems")
                ),
            }
        )
    return df


def _fields_of(contract: Contract) -> str:
    keys = {column.json_key for column in contract.columns}
    return f"struct<{', '.join(f'`{key}`: variant' for key in sorted(keys))}>"


def timestamp_of(text: SparkColumn) -> SparkColumn:
    """ISO-8601 text with an offset as an instant between the years 1 and 9999; else null."""
    instant = F.when(text.rlike(TIMESTAMP), text.try_cast("timestamp"))
    return F.when(
        instant.between(F.lit(FIRST).cast("timestamp"), F.lit(LAST).cast("timestamp")), instant
    )


def date_of(text: SparkColumn) -> SparkColumn:
    """`YYYY-MM-DD` text as a date; else null."""
    return F.when(text.rlike(DATE) & ~text.startswith("0000"), text.try_cast("date"))


def _typed(
    value: SparkColumn, kind: SparkColumn, _typed: SparkColumn, column: Column
) -> SparkColumn:
    """A VARIANT in the column's type; null where it is missing or does not fit."""
    text = F.when(kind == "STRING", get(value, "string"))
    logical, spark_type = column.logical_type, column.spark_type
    if logical == "string":
        return text
    if logical == "date":
        return date_of(text)
    if logical == "timestamp":
        return timestamp_of(text)
    if logical in {"object", "array"}:
        is_kind = kind.startswith("OBJECT" if logical == "object" else "ARRAY")
        return F.when(is_kind, get(value, "string"))
    if logical == "boolean":
        native = F.when(kind == "BOOLEAN", get(value, "boolean"))
    elif logical == "integer":
        native = F.when(_whole(kind), get(value, spark_type))
    else:
        native = F.when(_number(kind), _kept(value, kind, column))
    if not column.from_text:
        return native
    return F.coalesce(native, _from_text(F.btrim(text, F.lit(BLANKS)), column))


def _from_text(text: SparkColumn, column: Column) -> SparkColumn:
    if column.logical_type == "boolean":
        lowered = F.lower(text)
        return F.when(lowered.isin(TRUE), True).when(lowered.isin(FALSE), False)
    if column.logical_type == "integer":
        return F.when(text.rlike(TEXT_INTEGER), text.try_cast(column.spark_type))
    digits = F.when(text.rlike(TEXT_NUMBER), text)
    if column.decimal is None:
        return _finite(digits.try_cast("double"))
    return F.when(
        digits.rlike(digits_within(column.decimal[1])), digits.try_cast(column.spark_type)
    )


def digits_within(scale: int) -> str:
    """Numbers as text that a scale holds: what comes after its digits is zeros."""
    return rf"\A[+-]?[0-9]+(?:[.][0-9]{{0,{scale}}}0*)?\z"


def _number(kind: SparkColumn) -> SparkColumn:
    return kind.isin("BIGINT", "DOUBLE") | kind.startswith("DECIMAL")


def _whole(kind: SparkColumn) -> SparkColumn:
    return (kind == "BIGINT") | (kind.startswith("DECIMAL") & kind.endswith(",0)"))


def _kept(value: SparkColumn, kind: SparkColumn, column: Column) -> SparkColumn:
    """A JSON number in the column's type, unless that loses digits or ends in infinity."""
    double = get(value, "double")
    if column.decimal is None:
        return _finite(double)
    typed = get(value, column.spark_type)
    scale = F.regexp_extract(kind, ",([0-9]+)", 1).try_cast("int")
    exact = F.when(kind == "DOUBLE", typed.cast("double") == double).otherwise(
        F.coalesce(scale, F.lit(0)) <= column.decimal[1]
    )
    return F.when(exact, typed)


def _finite(double: SparkColumn) -> SparkColumn:
    return F.when(F.abs(double) < float("inf"), double)


def _problem(
    value: SparkColumn, kind: SparkColumn, typed: SparkColumn, column: Column
) -> SparkColumn:
    """Why a value that is there could not be typed; null where there is none."""
    name, logical = column.name, column.logical_type
    problem = F.lit(f"{name}.type")
    if logical in {"date", "timestamp"}:
        problem = F.when(kind != "STRING", problem).otherwise(f"{name}.format")
    elif logical == "integer":
        beyond = (kind == "DOUBLE") & (F.abs(get(value, "double")) >= 2.0**63)
        problem = F.when(_whole(kind) | beyond, f"{name}.overflow").otherwise(problem)
    elif logical == "number":
        problem = F.when(_number(kind), _digits(get(value, column.spark_type), column)).otherwise(
            problem
        )
    if column.from_text and logical in {"integer", "number", "boolean"}:
        text = F.btrim(get(value, "string"), F.lit(BLANKS))
        said = F.when(text != "", f"{name}.format")
        if logical != "boolean":
            pattern = TEXT_INTEGER if logical == "integer" else TEXT_NUMBER
            cast = F.when(text.rlike(pattern), text.try_cast(column.spark_type))
            said = F.when(text.rlike(pattern), _digits(cast, column)).otherwise(said)
        problem = F.when(kind == "STRING", said).otherwise(problem)
    return F.when(typed.isNull() & present(kind), problem)


def _digits(cast: SparkColumn, column: Column) -> SparkColumn:
    """What was wrong with a number that did not keep its value: too many digits, or too large."""
    if column.decimal is None:
        return F.lit(f"{column.name}.overflow")
    return F.when(cast.isNotNull(), f"{column.name}.precision").otherwise(f"{column.name}.overflow")


def _blank(text: SparkColumn) -> SparkColumn:
    return F.btrim(text, F.lit(BLANKS)) == ""


def chain(cases: object) -> SparkColumn:
    """CASE WHEN … over (condition, result) pairs; null where none holds."""
    pairs = list(cases)  # type: ignore[call-overload]
    if not pairs:
        return F.lit(None)
    head, *tail = pairs
    return reduce(lambda case, pair: case.when(*pair), tail, F.when(*head))
