"""Contracts that change under a running stream, and a batch that was cut off by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse import checkpoints, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import CheckpointError, FrozenError
from lakehouse.settings import Settings, Stream
from streaming import silver
from streaming.query import Running
from tests.helpers import drain, put, settings_for, wait_until, while_streaming
from tests.samples import event, parcel_contract

SMALL = "      - {name: weight, logicalType: integer, physicalType: int}\n"
LIGHT = """\
      - name: weight
        logicalType: integer
        physicalType: int
        quality:
          - {type: custom, engine: headwater, implementation: {rule: between, max: 5}}
"""
LARGE = "      - {name: weight, logicalType: integer, physicalType: bigint}\n"
TEXT = "      - {name: weight, logicalType: string}\n"
COLOUR = "      - {name: colour, logicalType: string}\n"
SENT = "      - {name: sent_on, logicalType: date}\n"
CARRIER = "      - {name: carrier, logicalType: string}\n"
SHIPPER = """\
      - name: carrier
        logicalType: string
        physicalName: shipper
        customProperties: [{property: aliases, value: [carrier]}]
"""


def write(folder: Path, *columns: str, mode: str = "evolve") -> Contracts:
    return parcel_contract(folder, "".join(columns), mode)


def send(settings: Settings, *parcels: dict[str, Any]) -> None:
    values = [event("parcel", data, id=f"{data['parcel_id']}", source="test") for data in parcels]
    put(settings, *values)


def outcomes(spark: SparkSession, settings: Settings, contracts: Contracts) -> dict[str, Any]:
    """By id: the parcel and what was rescued of it, or what it is quarantined for."""
    rows = tables.read(spark, settings, tables.silver(contracts)).collect()
    found = {}
    for row in rows:
        assert row.id not in found
        good = row.outcome == "accepted"
        typed = row.parcel.asDict() if good else {}
        kept = {name: value for name, value in typed.items() if value is not None}
        found[row.id] = (kept, json.loads(row.rescued or "{}")) if good else row.violations
    return found


def settings_of(tmp_path: Path, bootstrap: str, **more: Any) -> Settings:
    return settings_for(tmp_path, bootstrap, contracts=str(tmp_path / "contracts"), **more)


@pytest.mark.long
def test_changes_under_a_running_stream(
    spark: SparkSession, bootstrap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(tmp_path, bootstrap, stream=Stream(trigger="200 milliseconds"))
    folder = tmp_path / "contracts"
    contracts = write(folder, SMALL, CARRIER, SENT)
    tables.ensure(spark, settings, tables.silver(contracts))
    said: list[str] = []

    def has(ident: str) -> bool:
        return ident in outcomes(spark, settings, contracts)

    def heard(text: str, times: int = 1) -> bool:
        said.append(capsys.readouterr().err)
        return "".join(said).count(text) >= times

    big = {"weight": 3_000_000_000}

    def script() -> None:
        nonlocal contracts
        send(
            settings,
            {"parcel_id": "1", "weight": 7, "carrier": "DHL", "sent_on": "2026-03-01"},
            {"parcel_id": "2", "colour": "red"},
            {"parcel_id": "3", **big},
        )
        wait_until(lambda: has("3"), 120, "the third parcel")
        # A new optional column, a widened type, a key of another name; then a column less.
        write(folder, LARGE, SHIPPER, SENT, COLOUR)
        wait_until(lambda: heard("silver starts again under the new ones"), 120, "a restart")
        send(
            settings,
            {"parcel_id": "4", "colour": "blue", "shipper": "UPS", **big},
            {"parcel_id": "5", "carrier": "DPD", "sent_on": "2026-03-02"},
        )
        wait_until(lambda: has("5"), 120, "the fifth parcel")
        contracts = write(folder, LARGE, SHIPPER, COLOUR)
        wait_until(lambda: heard("silver starts again under the new ones", 2), 120, "a restart")
        send(settings, {"parcel_id": "6", "sent_on": "2026-03-03", "weight": 1})
        wait_until(lambda: has("6"), 120, "the sixth parcel")
        # What the table cannot take, and what nobody can.
        write(folder, TEXT, SHIPPER, COLOUR)
        wait_until(lambda: heard("column parcel.weight is bigint"), 120, "a refusal")
        (folder / "parcel.yaml").write_text("name: [")
        wait_until(lambda: heard("not readable as YAML"), 120, "another one")
        assert heard("the streams go on under the contracts that they have", 2)
        send(settings, {"parcel_id": "7", "weight": 2})
        wait_until(lambda: has("7"), 120, "the seventh parcel")

    while_streaming(settings, script)
    found = outcomes(spark, settings, contracts)
    day = found["1"][0].pop("sent_on")
    assert str(day) == "2026-03-01"
    assert str(found["5"][0].pop("sent_on")) == "2026-03-02"
    assert found == {
        "1": ({"parcel_id": "1", "weight": 7, "carrier": "DHL"}, {}),
        "2": ({"parcel_id": "2"}, {"colour": "red"}),
        "3": ["weight.overflow"],
        "4": ({"parcel_id": "4", "weight": 3_000_000_000, "carrier": "UPS", "colour": "blue"}, {}),
        "5": ({"parcel_id": "5", "carrier": "DPD"}, {}),
        "6": ({"parcel_id": "6", "weight": 1}, {"sent_on": "2026-03-03"}),
        "7": ({"parcel_id": "7", "weight": 2}, {}),
    }
    reconcile.reconcile_range(spark, settings, contracts)
    assert audit.audit_tables(spark, settings, contracts).broken == []

    # Back to what the contracts were: the table stays wide, and takes what is narrow.
    contracts = write(folder, SMALL, CARRIER, SENT)
    send(settings, {"parcel_id": "8", "weight": 9, "colour": "green"}, {"parcel_id": "9", **big})
    drain(spark, settings, contracts)
    found = outcomes(spark, settings, contracts)
    assert found["8"] == ({"parcel_id": "8", "weight": 9}, {"colour": "green"})
    assert found["9"] == ["weight.overflow"]


def start(spark: SparkSession, settings: Settings, contracts: Contracts) -> Running:
    return silver.start(spark, settings, contracts, available_now=True)


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.long), "after"])
def test_a_batch_that_was_cut_off_ends_under_the_rules_it_began_with(
    spark: SparkSession,
    bootstrap: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    settings = settings_of(tmp_path, bootstrap, stream=Stream(max_offsets_per_trigger=2))
    old = write(tmp_path / "contracts", SMALL)
    send(settings, {"parcel_id": "1", "weight": 1}, {"parcel_id": "2", "weight": 8})
    send(settings, {"parcel_id": "3", "weight": 9}, {"parcel_id": "1", "weight": 1})
    append = tables.append

    def cut_off(*arguments: Any) -> None:
        if moment == "after":
            append(*arguments)
        raise SystemError("cut off")

    monkeypatch.setattr(tables, "append", cut_off)
    running = start(spark, settings, old)
    wait_until(lambda: not running.query.isActive, 120, "the end of the query")
    monkeypatch.undo()
    assert checkpoints.unfinished(checkpoints.SparkFiles(spark, settings, "silver")) == 0

    new = write(tmp_path / "contracts", LIGHT)
    start(spark, settings, new).query.awaitTermination()
    # The first two by the rules that their batch began under. The last record is the first one
    # again: the batch has left its ids in the state.
    assert outcomes(spark, settings, new) == {
        "1": ({"parcel_id": "1", "weight": 1}, {}),
        "2": ({"parcel_id": "2", "weight": 8}, {}),
        "3": ["weight.between"],
    }


def test_a_batch_that_has_not_begun_runs_under_the_rules_of_now(
    spark: SparkSession, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, bootstrap)
    frozen = write(tmp_path / "contracts", SMALL, mode="freeze")
    send(settings, {"parcel_id": "1", "weight": 7, "colour": "red"})
    files = checkpoints.SparkFiles(spark, settings, "silver")
    # Nothing is written of a batch that meets a frozen contract.
    running = start(spark, settings, frozen)
    wait_until(lambda: not running.query.isActive, 120, "the end of the query")
    failure = running.failure()
    assert isinstance(failure, FrozenError)
    assert 'has fields that are not in it: ["colour"]' in str(failure)
    assert checkpoints.unfinished(files) == 0

    # Given up at the gate.
    running = start(spark, settings, write(tmp_path / "contracts", SMALL))
    running.closing.set()
    wait_until(lambda: not running.query.isActive, 120, "the end of the query")
    assert checkpoints.unfinished(files) == 0
    assert outcomes(spark, settings, frozen) == {}

    new = write(tmp_path / "contracts", LIGHT)
    start(spark, settings, new).query.awaitTermination()
    assert outcomes(spark, settings, new) == {"1": ["weight.between"]}


def test_a_state_of_another_format_is_refused(
    spark: SparkSession, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, bootstrap)
    contracts = write(tmp_path / "contracts", SMALL)
    drain(spark, settings, contracts)
    [newest] = sorted((Path(settings.checkpoints) / "silver/editions").glob("[0-9]*"))
    kept = json.loads(newest.read_text()) | {"state_format": 2, "version": "9.9.9"}
    newest.write_text(json.dumps(kept))
    crc = newest.parent / f".{newest.name}.crc"
    crc.unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"written by Headwater 9\.9\.9.*\(format 2\)"):
        start(spark, settings, contracts)
