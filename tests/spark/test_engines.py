"""One rule set, two engines: Spark and pandas give the same outcome for the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse import contracts as contract_files
from lakehouse import decode_pandas, rules, silver
from lakehouse.contracts import Contracts
from lakehouse.decode_pandas import flat
from tests.helpers import ROOT
from tests.samples import change, every_rule_contract

BROKER_TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT = 1_048_576
SLOW = profile(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TEXT = st.text(
    st.one_of(
        st.sampled_from(' \t\r\n\u00a0\u2003@.+-0123456789aZzKſİıßéÄ中😀\u0000"\\\u200b'),
        st.characters(codec="utf-8"),
    ),
    max_size=12,
)
DATES = st.sampled_from(
    ["2026-02-28", "2026-02-29", "2024-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "26-1-1"]
)
TIMES = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.123456789+05:30",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00+18:00",
        "2026-01-01T00:00:00+18:01",
        "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:59Z",
        "1969-12-31T23:59:59.999Z",
    ]
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from(
        [0, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**37, 10**38, 10**39]
    ),
    st.decimals(
        allow_nan=False, allow_infinity=False, places=2, min_value=-(10**6), max_value=10**6
    ),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, DATES, TIMES)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
# Of some doubles JDK 17 writes a digit more than they need, which a digest would show.
WITHOUT_DOUBLES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), TEXT, DATES, TIMES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def few(contracts: Contracts) -> Contracts:
    """Two contracts: what is to be shown does not depend on how many there are."""
    return Contracts([contracts["category"], contracts["order"]])


def spell(value: Any) -> str:
    """JSON text with decimals as numbers of their own digits."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{spell(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(spell(item) for item in value) + "]"
    return str(value) if type(value).__name__ == "Decimal" else json.dumps(value)


def in_spark(
    spark: SparkSession, contracts: Contracts, records: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    columns = "topic string, partition int, offset bigint, timestamp timestamp, value binary"
    frame = spark.createDataFrame(
        [
            tuple(r[k] for k in ("topic", "partition", "offset", "timestamp", "value"))
            for r in records
        ],
        columns,
    ).withColumn("key", F.lit(None).cast("binary"))
    rows = silver.classify(frame, contracts, LIMIT, "stream").collect()
    return [row.asDict(recursive=True) for row in sorted(rows, key=lambda row: row.offset)]


def assert_same(
    spark: SparkSession,
    contracts: Contracts,
    values: Sequence[bytes | None],
    topic: str = "shop.events",
) -> list[dict[str, Any]]:
    """Returns the rows."""
    records = [
        {"topic": topic, "partition": 0, "offset": i, "timestamp": BROKER_TIME, "value": value}
        for i, value in enumerate(values)
    ]
    there = in_spark(spark, contracts, records)
    here = decode_pandas.classify(records, contracts, LIMIT)
    for i, row in enumerate(there):
        mine = here.iloc[i]
        said = f"{values[i]!r}: {row['violations']} in Spark, {mine['violations']} in pandas"
        assert sorted(row["violations"]) == sorted(mine["violations"]), said
        assert row["outcome"] == mine["outcome"], said
        for name in ("entity", "source", "id", "type", "subject", "digest"):
            assert row[name] == _plain(mine[name]), f"{values[i]!r}: {name}"
        if row["outcome"] != "accepted":
            continue
        kept = _plain(mine["rescued"])
        assert row["rescued"] == kept, f"{values[i]!r}: {row['rescued']!r} and {kept!r}"
        contract = contracts[row["entity"]]
        for column in contract.columns:
            found = row[contract.name][column.name]
            if isinstance(found, datetime):
                found = found.replace(tzinfo=UTC)
            expected = _plain(mine[flat(contract, column)])
            assert found == expected, f"{values[i]!r}: {column.name}"
    return there


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


@pytest.mark.long
@SLOW
@given(
    st.lists(
        st.one_of(st.binary(max_size=20), VALUES.map(lambda v: spell(v).encode())), max_size=30
    )
)
def test_any_bytes_have_the_same_outcome(
    spark: SparkSession, few: Contracts, values: list[bytes]
) -> None:
    assert_same(spark, few, list(values))


@SLOW
@given(st.data())
def test_envelopes_have_the_same_outcome(
    spark: SparkSession, few: Contracts, data: st.DataObject
) -> None:
    good = {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "headwater.shop.category",
        "time": "2026-01-01T00:00:00Z",
        "subject": "K001",
        "data": {"category_id": "K001", "name": "Books"},
    }
    values = []
    for _ in range(30):
        event = dict(good)
        for key in data.draw(st.lists(st.sampled_from(sorted(good)), max_size=2)):
            if data.draw(st.booleans()):
                event.pop(key, None)
            else:
                event[key] = data.draw(VALUES)
        values.append(spell(event).encode())
    assert_same(spark, few, values)


@pytest.fixture(scope="module")
def members() -> Contracts:
    return contract_files.load(ROOT / "conf/sources/rewards")


def test_changes_of_a_database_have_the_same_outcome(
    spark: SparkSession, members: Contracts
) -> None:
    topic = members["reward_member"].topic
    good = change("u")
    places: list[dict[str, Any]] = [
        {"file": "no number"},
        {"file": 7},
        {"pos": "12"},
        {"pos": 12.0},
        {"pos": -1},
        {"row": None},
        {"ts_ms": 10**14},
        {"ts_ms": -1},
        {"ts_ms": {"a": 1}},
    ]
    others: list[Any] = [None, [], {}, "x"]
    values: list[Any] = [
        *(change(op) for op in ("c", "r", "u", "d", "t", "")),
        *({**good, "op": op} for op in (None, 1, ["d"])),
        *({**good, "source": {**good["source"], **place}} for place in places),
        *({**good, "source": source} for source in others),
        *({**change("d"), "before": row} for row in others),
        change("d", before={"tier": "iron", "email": None, "spent": "19.999", "points": "x"}),
        {**change("d"), "before": {"member_id": 5}},
        change("u", after={"tier": "iron", "spent": "19.999", "points": "x"}),
        *({key: value for key, value in good.items() if key != gone} for gone in good),
        change("c", after={"member_id": None}),
        change("c", after={"more": "than it knows", "tier": "iron"}),
        change("u", before={"email": '\x00\x1f\u2028 "\\ \u20ac \U0001f642', "points": 1.5e300}),
        [good],
    ]
    rows = assert_same(spark, members, [spell(one).encode() for one in values], topic or "")
    assert {row["outcome"] for row in rows} == {"accepted", "quarantined"}
    assert len({row["digest"] for row in rows[:4]}) == 4


@pytest.mark.long
@SLOW
@given(st.data())
def test_any_change_of_a_database_has_the_same_outcome(
    spark: SparkSession, members: Contracts, data: st.DataObject
) -> None:
    values = []
    for _ in range(30):
        one = change(data.draw(st.sampled_from("crud")))
        for _ in range(data.draw(st.integers(0, 3))):
            where = data.draw(st.sampled_from([one, one["source"], one["before"], one["after"]]))
            if isinstance(where, dict) and where:
                where[data.draw(st.sampled_from(sorted(where)))] = data.draw(WITHOUT_DOUBLES)
            if not isinstance(one["source"], dict):
                break
        values.append(spell(one).encode())
    assert_same(spark, members, values, members["reward_member"].topic or "")


@pytest.fixture(params=["interpreted", pytest.param("compiled", marks=pytest.mark.long)])
def plans(request: pytest.FixtureRequest, spark: SparkSession) -> Iterator[None]:
    """Plans as on a laptop, and as on a cluster."""
    compiled = request.param == "compiled"
    wanted = {
        "spark.sql.codegen.factoryMode": "CODEGEN_ONLY" if compiled else "NO_CODEGEN",
        "spark.sql.codegen.wholeStage": str(compiled).lower(),
    }
    before = {name: str(spark.conf.get(name)) for name in wanted}
    for name, value in wanted.items():
        spark.conf.set(name, value)
    yield
    for name, value in before.items():
        spark.conf.set(name, value)


@pytest.mark.usefixtures("plans")
@SLOW
@given(st.data())
def test_every_rule_and_type_of_the_catalogue(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder: Path = tmp_path_factory.mktemp("rules")
    contracts = every_rule_contract(folder)
    contract = contracts["sample"]
    used = {r.name for c in contract.columns for r in (*c.checks, *c.cleaners)}
    assert used == set(rules.CHECKS) | set(rules.CLEANERS), "a rule is in no column of the sample"
    drawn = st.one_of(
        VALUES,
        TEXT,
        st.emails(),
        NUMBERS.map(str),
        st.from_regex(r"[+0(]{0,2}[0-9 ()/-]{5,18}", fullmatch=True),
        st.sampled_from(["true", "NO", " 1 ", "web", " WEB", "Web\t", "KELVIN", "12.5", "-0", ""]),
    )
    values = [
        spell(
            {c.json_key: data.draw(drawn) for c in contract.columns if data.draw(st.booleans())}
        ).encode()
        for _ in range(25)
    ]
    assert_same(spark, contracts, values, topic="sample.topic")


def test_rules_are_equal_on_hand_picked_text(spark: SparkSession) -> None:
    """Every text rule over characters on which regular expressions and case mapping differ."""
    texts = [
        "",
        " ",
        "a",
        "A\n",
        "\u0661\u0662",
        "İ",
        "ſ",
        "K",
        "ß",
        "a\u0000",
        "é",
        "😀",
        "x\u0085",
    ]
    checks: dict[str, Any] = {
        "matches": {"pattern": "[a-z]+"},
        "length": {"min": 1, "max": 1},
        "email": {},
        "phone": {},
        "one_of": {"values": ["a", "k", "i"]},
    }
    cleaners: dict[str, Any] = {
        "trim": {},
        "lower": {},
        "upper": {},
        "blank_to_null": {},
        "e164": {"country_code": "49"},
    }
    frame = pd.DataFrame({"v": pd.Series(texts, dtype=pd.ArrowDtype(pa.string()))})
    catalogue = [(rules.CHECKS, checks), (rules.CLEANERS, cleaners)]
    expressions = {
        name: rules.apply(functions, rules.Rule(name, arguments), nw.col("v"), nw.col)
        for functions, wanted in catalogue
        for name, arguments in wanted.items()
    }
    here = nw.from_native(frame).with_columns(**expressions).to_native()
    there = nw.from_native(spark.createDataFrame([(t,) for t in texts], "v string"))
    rows = there.with_columns(**expressions).to_native().collect()
    for name in expressions:
        mine = [_plain(value) for value in here[name].to_list()]
        assert [row[name] for row in rows] == mine, name
