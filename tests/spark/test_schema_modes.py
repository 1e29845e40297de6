"""What a contract says about fields that it does not know and values that it cannot hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from lakehouse import decode_pandas
from lakehouse.contracts import Contracts
from lakehouse.errors import FrozenError, reason
from tests.samples import event, parcel_contract
from tests.spark.test_engines import BROKER_TIME, LIMIT, assert_same, in_spark

COLUMNS = """\
      - {name: weight, logicalType: integer, physicalType: int}
      - name: carrier
        logicalType: string
        physicalName: carrierName
        customProperties: [{property: aliases, value: [carrier, shipper]}]
      - {name: sent_on, logicalType: date}
"""

# The data of a record; violations where unknown fields, and where values that do not fit, are
# quarantined; rescued where they evolve.
KNOWN = {"parcel_id": "P1", "weight": 7, "carrierName": "DHL", "sent_on": "2026-03-01"}
Case = tuple[dict[str, Any], list[str], list[str], dict[str, Any], dict[str, Any]]
RECORDS: list[Case] = [
    (KNOWN, [], [], {}, {}),
    (KNOWN | {"colour": "red"}, ["unknown_field"], [], {"colour": "red"}, {}),
    (KNOWN | {"colour": None}, ["unknown_field"], [], {"colour": None}, {}),
    (
        {
            "parcel_id": "P1",
            "Weight": 7,
            "z": {"b": [1, {"a": None}], "a": 1.5},
            'q"\n\x1b': "\x1f\\\\u001b",
        },
        ["unknown_field"],
        [],
        {"Weight": 7, "z": {"b": [1, {"a": None}], "a": 1.5}, 'q"\n\x1b': "\x1f\\\\u001b"},
        {},
    ),
    (KNOWN | {"weight": 2**31}, [], ["weight.overflow"], {}, {"weight": 2**31}),
    (KNOWN | {"weight": "7"}, [], ["weight.type"], {}, {"weight": "7"}),
    (
        KNOWN | {"sent_on": "1.3.26", "weight": 1.5},
        [],
        ["sent_on.format", "weight.type"],
        {},
        {"sent_on": "1.3.26", "weight": 1.5},
    ),
]


def contracts(folder: Path, new: str, changed: str) -> Contracts:
    return parcel_contract(folder, COLUMNS, new, changed)


def records(*data: Any) -> list[dict[str, Any]]:
    return [
        {
            "topic": "t",
            "partition": 3,
            "offset": i,
            "timestamp": BROKER_TIME,
            "value": event("parcel", fields, id=str(i)),
        }
        for i, fields in enumerate(data)
    ]


@pytest.mark.parametrize(
    ("new", "changed"),
    [("evolve", "evolve"), ("evolve", "drop"), ("quarantine", "evolve"), ("drop", "quarantine")],
)
def test_modes(spark: SparkSession, tmp_path: Path, new: str, changed: str) -> None:
    loaded = contracts(tmp_path, new, changed)
    given = [record["value"] for record in records(*(case[0] for case in RECORDS))]
    rows = assert_same(spark, loaded, given)
    for row, (data, unknown, untyped, rescued, unheld) in zip(rows, RECORDS, strict=True):
        wanted = [*(unknown * (new == "quarantine")), *(untyped * (changed == "quarantine"))]
        assert sorted(row["violations"]) == sorted(wanted), data
        assert row["outcome"] == ("quarantined" if wanted else "accepted"), data
        if wanted:
            assert row["rescued"] is None, data
            continue
        kept = (rescued if new == "evolve" else {}) | (unheld if changed == "evolve" else {})
        assert json.loads(row["rescued"] or "{}") == kept, data
        for name in unheld:
            assert row["parcel"][name] is None, data


def test_a_value_that_a_required_column_cannot_hold_is_never_let_go(
    spark: SparkSession, tmp_path: Path
) -> None:
    for mode in ("evolve", "drop"):
        loaded = contracts(tmp_path / mode, "evolve", mode)
        [row] = assert_same(spark, loaded, [event("parcel", {"parcel_id": 5})])
        assert row["violations"] == ["parcel_id.type"]


def test_other_keys_are_read_where_the_first_one_is_missing(
    spark: SparkSession, tmp_path: Path
) -> None:
    data = [
        {"parcel_id": "P1", "shipper": "UPS"},
        {"parcel_id": "P1", "carrier": "DPD", "shipper": "UPS"},
        {"parcel_id": "P1", "carrierName": None, "carrier": "DPD"},
        {"parcel_id": "P1"},
    ]
    loaded = contracts(tmp_path, "evolve", "quarantine")
    rows = assert_same(spark, loaded, [record["value"] for record in records(*data)])
    assert [row["parcel"]["carrier"] for row in rows] == ["UPS", "DPD", None, None]
    assert [row["rescued"] for row in rows] == [None] * 4


@pytest.mark.parametrize(
    ("new", "changed", "data", "said"),
    [
        (
            "freeze",
            "drop",
            {"a\x1b[1m": 1, "b": 2},
            'has fields that are not in it: ["a\\u001B[1m","b"]',
        ),
        ("drop", "freeze", {"weight": "x"}, "has values that it cannot hold: weight.type"),
    ],
)
def test_a_frozen_contract_lets_nothing_through(
    spark: SparkSession, tmp_path: Path, new: str, changed: str, data: dict[str, Any], said: str
) -> None:
    loaded = contracts(tmp_path, new, changed)
    assert in_spark(spark, loaded, records(KNOWN))[0]["outcome"] == "accepted"
    given = records(KNOWN, KNOWN | data)
    with pytest.raises(PySparkException) as in_a_query:
        in_spark(spark, loaded, given)
    told = reason(str(in_a_query.value))
    assert told.startswith("contract parcel is frozen"), told
    assert f"Record t/3/1 {said}" in told, told
    assert told.isprintable()
    with pytest.raises(FrozenError) as without_spark:
        decode_pandas.classify(given, loaded, LIMIT)
    assert str(without_spark.value) == told
