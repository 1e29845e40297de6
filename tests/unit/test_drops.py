"""Files that are dropped into a folder: which are read, and what their rows become."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse import contracts as contract_files
from lakehouse import kafka
from lakehouse.contracts import Contract, Contracts
from lakehouse.errors import SettingsError
from lakehouse.settings import Settings
from producer import drops
from producer.drops import Known, Manifest, Names, events, ready, rows

SAMPLE = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:test:sample
name: sample
version: 1.0.0
status: active
schema:
  - name: sample
    properties:
      - {name: column_one, logicalType: string}
      - {name: column_two, logicalType: string}
"""
KNOWN = "files/telco_customer.jsonl"
LONG_AGO = time.time() - 3_600


@pytest.fixture
def order(contracts: Contracts) -> Contract:
    return contracts["order"]


def old(file: Path, content: bytes = b"x") -> Path:
    """A file that nobody has written to for an hour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (LONG_AGO, LONG_AGO))
    return file


def test_only_whole_files_are_read(tmp_path: Path) -> None:
    wanted = [old(tmp_path / "a.csv"), old(tmp_path / "later/b.json")]
    for name in (".hidden.csv", "_SUCCESS", "c.csv.part", "d.tmp", "e.parquet.PARTIAL"):
        old(tmp_path / name)
    old(tmp_path / "_temporary/f.csv")
    (tmp_path / "fresh.csv").write_bytes(b"being written")
    assert ready(tmp_path, 10, time.time()) == (wanted, 6, [])
    every = [*wanted[:1], tmp_path / "fresh.csv", *wanted[1:]]
    assert ready(tmp_path, 0, time.time()) == (every, 5, [])


def test_a_link_to_nothing_and_a_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "nothing")
    assert ready(tmp_path, 10, time.time()) == ([], 0, [])
    gone = tmp_path / "gone"
    said = f"{gone} cannot be read: No such file or directory"
    assert ready(gone, 10, time.time()) == ([], 0, [said])


def test_a_file_that_cannot_be_read_stops_no_other(
    tmp_path: Path, settings: Settings, contracts: Contracts, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, telco = tmp_path / "drops", contracts["telco_customer"]
    locked = old(folder / "a.csv")
    good = old(folder / "b.csv", b"customerID,seen\n1,2026-03-01 09:00\n")
    other = old(folder / "c.csv", b"customerID,when\n1,2026-03-01 09:00\n")
    opened = Path.open

    def refuse(file: Path, *how: Any, **more: Any) -> Any:
        if file == locked:
            raise PermissionError(13, "Permission denied")
        return opened(file, *how, **more)

    sent: list[Any] = []

    def send(_: Settings, __: Path, records: Iterator[Any], *___: Any) -> int:
        made = [json.loads(record.value) for record in records]
        sent.extend(made)
        return len(made)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(drops, "_send", send)
    taken = drops.take_in(settings, folder, telco, "seen")
    assert (taken.files, taken.rows) == (1, 1)
    assert taken.failed == [
        f"{locked} cannot be read: Permission denied",
        f"{other} has no column seen (--time): it has customer_id, "
        "1 that telco_customer does not have",
    ]
    # What a column is called that it has may be what the contract calls otherwise.
    [said] = taken.lacking
    assert said.startswith(f"{good}: none of its columns is gender, senior_citizen, ")
    assert "email; 1 are none of telco_customer's" in said
    # A time in a column that no contract knows.
    assert [one["time"] for one in sent] == ["2026-03-01T09:00:00Z"]
    assert [known.file for known in Manifest(settings.runtime_dir / KNOWN).known.values()] == [
        str(good)
    ]


def told(file: Path, contract: Contract) -> list[Any]:
    """What stands in the JSON of a file's rows; bytes of those that are none."""
    return [
        row if isinstance(row, bytes) else json.loads(made.value or b"")["data"]
        for row, made in zip(
            rows(file, contract), events(file, "f" * 64, contract, None), strict=True
        )
    ]


def test_a_csv_by_its_contract(tmp_path: Path, order: Contract) -> None:
    file = old(
        tmp_path / "orders.csv",
        b"\xef\xbb\xbforder_id,item_count,total,note,placed_at\r\n"
        b'O0000000001,2,19.90,"a, ""b""\nc",2026-03-01T10:00:00Z\r\n'
        b"O0000000002,,007,true,\r\n"
        b"\r\n"
        b"O0000000003,1\r\n"
        b'O0000000004,1,1e3,"caf\xe9",x\r\n'
        b"O0000000005,-1,.5,3,x",
    )
    assert told(file, order) == [
        {
            "order_id": "O0000000001",
            "item_count": 2,
            "total": 19.9,
            "note": 'a, "b"\nc',
            "placed_at": "2026-03-01T10:00:00Z",
        },
        # 007 is no number of JSON: a text, which the contract refuses by name.
        {
            "order_id": "O0000000002",
            "item_count": None,
            "total": "007",
            "note": "true",
            "placed_at": None,
        },
        b"O0000000003,1",
        b'O0000000004,1,1e3,"caf\xe9",x',
        {
            "order_id": "O0000000005",
            "item_count": -1,
            "total": ".5",
            "note": "3",
            "placed_at": "x",
        },
    ]
    [first, *_] = events(file, "f" * 64, order, None)
    # Cents stay as they are written.
    assert b'"total":19.90' in (first.value or b"")
    envelope = json.loads(first.value or b"")
    assert envelope.pop("data")
    written = datetime.fromtimestamp(int(LONG_AGO * 1000) / 1000, UTC)
    assert abs((datetime.fromisoformat(envelope.pop("time")) - written).total_seconds()) < 0.01
    assert envelope == {
        "specversion": "1.0",
        "id": f"{'f' * 32}-1",
        "source": "/headwater/files/order",
        "type": "headwater.shop.order",
        "subject": "O0000000001",
        "datacontenttype": "application/json",
    }
    assert first.key == b"O0000000001"


def test_a_banks_rates(tmp_path: Path, contracts: Contracts) -> None:
    text = b"currency,reporting_currency,rate_date,rate\nUSD,EUR,2026-03-01,0.92345678\nJPY,EUR,"
    file = old(tmp_path / "rates.csv", text + b"2026-03-01,0.0061\n")
    usd, jpy = told(file, contracts["exchange_rate"])
    day = {"reporting_currency": "EUR", "rate_date": "2026-03-01"}
    assert usd == {"currency": "USD", "rate": 0.92345678, **day}
    assert jpy == {"currency": "JPY", "rate": 0.0061, **day}


def test_names_and_times_of_another_systems_file(tmp_path: Path, contracts: Contracts) -> None:
    """Names are the contract's by their letters; its `time` says when a row was true."""
    telco = contracts["telco_customer"]
    text = (
        b"customerID,Senior Citizen,Monthly-Charges,TotalCharges,UPDATED_AT,Churn\n"
        b"0001-A,1,20.0, ,2026-03-01T10:00:00Z,No\n0002-B,0,,5,,\n"
    )
    file = old(tmp_path / "customers.csv", text)
    first, second = told(file, telco)
    assert first == {
        "customer_id": "0001-A",
        "senior_citizen": "1",
        "monthly_charges": 20.0,
        "total_charges": " ",
        "updated_at": "2026-03-01T10:00:00Z",
        "Churn": "No",
    }
    assert (second["monthly_charges"], second["updated_at"], second["Churn"]) == (None, None, None)
    made = [json.loads(one.value or b"") for one in events(file, "f" * 64, telco, None)]
    assert [one["subject"] for one in made] == ["0001-A", "0002-B"]
    assert made[0]["time"] == "2026-03-01T10:00:00Z"
    written = datetime.fromisoformat(made[1]["time"])
    assert abs(written.timestamp() - LONG_AGO) < 0.01

    # As pandas spells a moment, and as a person does; a blank is none.
    moments = b"customer_id,updated_at\na,2026-03-01 09:00:00\nb,2026-03-01T09:00:00.5\nc, \n"
    file = old(tmp_path / "moments.csv", moments)
    wanted = ["2026-03-01T09:00:00Z", "2026-03-01T09:00:00.5Z", None]
    assert [row["updated_at"] for row in told(file, telco)] == wanted
    made = [json.loads(one.value or b"") for one in events(file, "f" * 64, telco, None)]
    assert [one["time"] for one in made[:2]] == wanted[:2]
    assert abs(datetime.fromisoformat(made[2]["time"]).timestamp() - LONG_AGO) < 0.01
    blank = old(tmp_path / "blank.jsonl", b'{"customer_id":"a","updated_at":" "}')
    [one] = [json.loads(one.value or b"") for one in events(blank, "f" * 64, telco, None)]
    assert abs(datetime.fromisoformat(one["time"]).timestamp() - LONG_AGO) < 0.01
    # A column may be named as the file does.
    stamped = old(tmp_path / "stamped.csv", b"customerID,UpdatedAt\na,2026-03-01T10:00:00Z\n")
    [one] = [json.loads(one.value or b"") for one in events(stamped, "f" * 64, telco, "UpdatedAt")]
    assert one["time"] == "2026-03-01T10:00:00Z"

    # Two that would be the same stay apart; one that is the contract's counts.
    both = old(tmp_path / "both.jsonl", b'{"customerID":"a","customer_id":"b"}\n{"Gender":"x"}')
    assert told(both, telco) == [{"customerID": "a", "customer_id": "b"}, {"gender": "x"}]
    pq.write_table(pa.table({"customerID": ["0003-C"]}), tmp_path / "c.parquet")
    parquet = old(tmp_path / "c.parquet", (tmp_path / "c.parquet").read_bytes())
    assert told(parquet, telco) == [{"customer_id": "0003-C"}]


def test_a_key_that_is_a_number(tmp_path: Path, contracts: Contracts) -> None:
    file = old(tmp_path / "lines.csv", b"order_id,line_number\nO0000000001,5\n")
    [one] = events(file, "f" * 64, contracts["order_item"], None)
    assert one.key == b"O0000000001/5"


def test_names_that_letters_do_not_tell_apart_stay(tmp_path: Path) -> None:
    folder = tmp_path / "contracts"
    folder.mkdir()
    text = SAMPLE.replace("column_one", "line_1").replace("column_two", "line1")
    (folder / "sample.yaml").write_text(text)
    names = Names(contract_files.load(folder)["sample"])
    assert names.of(["Line 1", "line_1", "other"]) == ["Line 1", "line_1", "other"]


def test_json_lines_and_a_list(tmp_path: Path, order: Contract) -> None:
    lines = old(tmp_path / "a.jsonl", b'{"order_id":"O1","total":1.10}\n\n[1]\nnot json\n{"a":1}')
    assert told(lines, order) == [
        {"order_id": "O1", "total": 1.1},
        b"[1]",
        b"not json",
        {"a": 1},
    ]
    listed = old(tmp_path / "b.json", b' [{"order_id":"O1"}, 7, {"order_id":"O2"}]')
    assert told(listed, order) == [{"order_id": "O1"}, b"7", {"order_id": "O2"}]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-03-01", "2026-03-01T00:00:00Z"),
        (" 2026-03-01 09:30 ", "2026-03-01T09:30:00Z"),
        ("2026-03-01T09:30:05.25", "2026-03-01T09:30:05.25Z"),
        ("2026-03-01 09:30:05+00:00", "2026-03-01T09:30:05+00:00"),
        ("2026-03-01 09:30:05.1-0330", "2026-03-01T09:30:05.1-03:30"),
        ("2026-03-01 09:30:05+02", "2026-03-01T09:30:05+02:00"),
        ("2026-03-01T09:30:05Z", "2026-03-01T09:30:05Z"),
        ("01.03.2026 09:30", "01.03.2026 09:30"),
        ("2026-03-01 9:30", "2026-03-01 9:30"),
    ],
)
def test_moments_as_they_are_written_in_files_of_any_kind(
    tmp_path: Path, contracts: Contracts, written: str, meant: str
) -> None:
    telco = contracts["telco_customer"]
    row = {"customerID": "a", "updated_at": written}
    files = {
        "a.csv": f"customerID,updated_at\na,{written}\n".encode(),
        "a.jsonl": json.dumps(row).encode(),
        "a.json": json.dumps([row]).encode(),
    }
    made = [old(tmp_path / name, content) for name, content in files.items()]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for file in (*made, tmp_path / "a.parquet"):
        assert told(file, telco) == [{"customer_id": "a", "updated_at": meant}]
        [one] = events(file, "f" * 64, telco, None)
        assert json.loads(one.value or b"")["time"] == meant


def test_numbers_of_json_stay_as_they_are_spelled(tmp_path: Path, order: Contract) -> None:
    numbers = b'{"order_id":123456789012345678901234,"total":1234567890123456.78,"x":[1.10,-1e30]}'
    for name, content in (("a.jsonl", numbers + b"\n"), ("b.json", b"[" + numbers + b"]")):
        [one] = events(old(tmp_path / name, content), "f" * 64, order, None)
        assert numbers in (one.value or b"")
        assert one.key == b"123456789012345678901234"
    # Too deep to be written again: sent as it is.
    deep = b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"
    assert list(rows(old(tmp_path / "c.jsonl", deep + b"\n"), order)) == [deep]


def test_parquet(tmp_path: Path, order: Contract) -> None:
    table = pa.table(
        {
            "order_id": ["O1"],
            "total": pa.array([Decimal("19.90")], pa.decimal128(12, 2)),
            "placed_at": [datetime(2026, 3, 1, 10, tzinfo=UTC)],
            "day": [date(2026, 3, 1)],
            "naive": [datetime(2026, 3, 1, 10)],
            "many": [[1, 2]],
            "none": pa.array([None], pa.string()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    file = old(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert told(file, order) == [
        {
            "order_id": "O1",
            "total": 19.9,
            "placed_at": "2026-03-01T10:00:00+00:00",
            "day": "2026-03-01",
            "naive": "2026-03-01T10:00:00Z",
            "many": [1, 2],
            "none": None,
        }
    ]
    [row] = events(file, "f" * 64, order, "placed_at")
    assert json.loads(row.value or b"")["time"] == "2026-03-01T10:00:00+00:00"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.parquet", b"PAR1 cut off", "Parquet"),
        ("a.json", b'[{"a":1},', "unexpected end of data"),
        ("a.jsonl", b'{"a":1}\n{"a":2,"b', "its last line is cut off, or no JSON"),
        ("a.csv", b'order_id,b\n1,"2', "unexpected end of data"),
        ("a.csv", b"order_id,b\n1,2\n3", "line 3, its last one, is cut off"),
        ("a.csv", b"order_id,b\n1,2\n3,caf\xc3", "line 3, its last one, is cut off"),
        ("a.csv", b"a,a\n1,2", "line 1 has no name for column 2, or one that it had before"),
        ("a.csv", b"a,\n1,2", "line 1 has no name for column 2, or one that it had before"),
    ],
)
def test_a_file_that_is_cut_off_is_named(
    tmp_path: Path, order: Contract, name: str, content: bytes, said: str
) -> None:
    file = old(tmp_path / name, content)
    with pytest.raises(SettingsError, match=rf"{file} cannot be read: .*{said}"):
        list(rows(file, order))


def test_a_manifest_over_deaths(tmp_path: Path) -> None:
    path = tmp_path / "files/order.jsonl"
    one, two = Known("/a", "1" * 64, 5, 2, "x"), Known("/b", "2" * 64, 6, 3, "y")
    Manifest(path).add(one)
    # Dies over the second one.
    path.write_text(path.read_text() + '{"file": "/b", "sha2')
    again = Manifest(path)
    assert list(again.known.values()) == [one]
    again.add(two)
    assert list(Manifest(path).known.values()) == [one, two]


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=8))
def test_a_row_for_each_that_was_written(
    tmp_path_factory: pytest.TempPathFactory, contracts: Contracts, written: list[list[str]]
) -> None:
    import csv

    file = tmp_path_factory.mktemp("drops") / "a.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([["order_id", "x"], *written])
    found = [row for row in rows(file, contracts["order"]) if isinstance(row, dict)]
    assert [[row["order_id"] or "", row["x"] or ""] for row in found] == written


def test_parquet_that_json_has_no_words_for(tmp_path: Path, order: Contract) -> None:
    """Nothing of a value is changed on the way: what cannot be told is refused by its name."""
    moments = [1_772_359_200_000_000, 400_000_000_000_000_000, None]
    table = pa.table(
        {
            "order_id": ["O1", "O2", "O3"],
            "placed_at": pa.array(moments, pa.timestamp("us")),
            "total": [float("nan"), float("inf"), 1.5],
            "prices": pa.array(
                [[("a", Decimal("2.20"))], [], None], pa.map_(pa.string(), pa.decimal128(9, 2))
            ),
            "twice": pa.array([[("a", 1), ("a", 2)], [], []], pa.map_(pa.string(), pa.int64())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second, third = told(old(tmp_path / "a.parquet", read(tmp_path)), order)
    assert first == {
        "order_id": "O1",
        "placed_at": "2026-03-01T10:00:00.000000Z",
        "total": "NaN",
        "prices": {"a": 2.2},
        "twice": [["a", 1], ["a", 2]],
    }
    # The contract's own rules have a word for both.
    assert (second["total"], third["total"], third["placed_at"]) == ("Infinity", 1.5, None)
    assert second["placed_at"].startswith("14645-")
    [made, *_] = events(tmp_path / "a.parquet", "f" * 64, order, None)
    assert b'"prices":{"a":2.20}' in (made.value or b"")

    keys = pa.table({"order_id": pa.array([b"\xff\xfe", b"\xfe\xff", b"O1"], pa.binary())})
    pq.write_table(keys, tmp_path / "a.parquet")
    assert told(old(tmp_path / "a.parquet", read(tmp_path)), order) == [
        rb"{'order_id': b'\xff\xfe'}",
        rb"{'order_id': b'\xfe\xff'}",
        {"order_id": "O1"},
    ]

    # Days that nothing has a spelling for: the file is named.
    days = pa.array([[2**30]], pa.list_(pa.date32()))
    pq.write_table(pa.table({"order_id": ["O1"], "days": days}), tmp_path / "a.parquet")
    with pytest.raises(SettingsError, match=r"a\.parquet cannot be read: "):
        list(rows(old(tmp_path / "a.parquet", read(tmp_path)), order))


def read(folder: Path) -> bytes:
    return (folder / "a.parquet").read_bytes()


def test_json_as_windows_writes_it(tmp_path: Path, order: Contract) -> None:
    mark = b"\xef\xbb\xbf"
    for name, content in (
        ("a.jsonl", b'{"order_id":"O1"}\r\n{"order_id":"O2"}\r\n'),
        ("b.json", b'[{"order_id":"O1"},\n{"order_id":"O2"}]\n'),
        ("c.json", b' [{"order_id":"O1"},{"order_id":"O2"}]'),
    ):
        file = old(tmp_path / name, mark + content)
        assert told(file, order) == [{"order_id": "O1"}, {"order_id": "O2"}]


def test_a_key_that_stands_twice_is_not_decided_here(tmp_path: Path, order: Contract) -> None:
    inner = b'{"order_id":"O1","note":{"a":1,"a":1.10}}'
    outer = b'{"order_id":"O1","order_id":"O2"}'
    lines = old(tmp_path / "a.jsonl", inner + b"\n" + outer + b"\n")
    listed = old(tmp_path / "b.json", b"[" + inner + b"," + outer + b"]")
    for file in (lines, listed):
        first, second = events(file, "f" * 64, order, None)
        assert inner in (first.value or b"")
        assert second.value == outer


def test_what_is_too_deep_is_not_cut_off(tmp_path: Path, order: Contract) -> None:
    """Where it is whole, and its envelope would be too deep to be written, it goes as it is."""
    for depth in (252, 253, 254, 300):
        deep = b'{"order_id":"O1","a":' + b"[" * depth + b"]" * depth + b"}"
        file = old(tmp_path / "a.jsonl", b'{"order_id":"O2"}\n' + deep)
        first, second = events(file, "f" * 64, order, None)
        assert json.loads(first.value or b"")["data"] == {"order_id": "O2"}
        assert deep in (second.value or b"")


def test_a_row_that_cannot_be_sent_stops_no_other_file(
    tmp_path: Path, settings: Settings, contracts: Contracts, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "drops"
    row = '{"customer_id":"a"}\n{"customer_id":"' + "x" * 16_000_000 + '"}\n'
    long = old(folder / "a.jsonl", row.encode())
    old(folder / "b.jsonl", b'{"customer_id":"b"}\n')
    monkeypatch.setattr(drops, "_send", lambda _, __, records, *___: len(list(records)))
    monkeypatch.setattr(kafka, "max_message_bytes", lambda *_: None)
    taken = drops.take_in(settings, folder, contracts["telco_customer"])
    assert (taken.files, taken.rows) == (1, 1)
    [said] = taken.failed
    assert said.startswith(f"{long}: row 2 has 16,000,018 bytes as JSON, more than can be sent")
    # The topic may take less than a client sends: it would refuse it, and end all of it.
    most = drops.ENVELOPE_BYTES + 1_000
    monkeypatch.setattr(kafka, "max_message_bytes", lambda *_: most)
    old(folder / "c.jsonl", b'{"customer_id":"%b"}\n' % (b"c" * 2_000))
    old(folder / "d.jsonl", b'{"customer_id":"d"}\n')
    taken = drops.take_in(settings, folder, contracts["telco_customer"])
    assert (taken.files, taken.known, len(taken.failed)) == (1, 1, 2)


def test_a_row_whose_quotes_are_wrong_is_one_alone(tmp_path: Path, order: Contract) -> None:
    """As others escape them; before the names are lines that say nothing."""
    lines = [
        b"",
        b"order_id,status",
        b'O1,"say \\"hi\\" now"',
        b'O2,"a ""quote"""',
        b'O3,"5" pipe"',
        b"O4,paid",
    ]
    file = old(tmp_path / "a.csv", b"\r\n".join(lines) + b"\r\n")
    assert list(rows(file, order)) == [
        lines[2],
        {"order_id": "O2", "status": 'a "quote"'},
        lines[4],
        {"order_id": "O4", "status": "paid"},
    ]
    file = old(tmp_path / "b.csv", b'order_id,status\nO1,"never closed\nO2,x\n')
    with pytest.raises(SettingsError, match="unexpected end of data"):
        list(rows(file, order))
    file = old(tmp_path / "c.csv", b"order_id;status\nO1;paid\n")
    with pytest.raises(SettingsError, match="line 1 names no column of order"):
        list(rows(file, order))


def test_linked_folders_are_looked_into_once(tmp_path: Path) -> None:
    there = old(tmp_path / "elsewhere/a.csv")
    folder = tmp_path / "drops"
    folder.mkdir()
    (folder / "today").symlink_to(there.parent)
    (there.parent / "round").symlink_to(folder)
    assert ready(folder, 10, time.time()) == ([folder / "today/a.csv"], 0, [])


def test_a_day_that_is_written_as_its_midnight(tmp_path: Path, contracts: Contracts) -> None:
    rate = contracts["exchange_rate"]
    said = ["2026-03-01 00:00:00", "2026-03-02T00:00:00.000Z", "2026-03-03", "2026-03-04 12:00:00"]
    lines = "".join(f"USD,{one}\n" for one in said)
    file = old(tmp_path / "a.csv", f"currency,rate_date\n{lines}".encode())
    wanted = ["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04 12:00:00"]
    assert [row["rate_date"] for row in rows(file, rate) if isinstance(row, dict)] == wanted
    days = pa.array([datetime(2026, 3, 1), None], pa.timestamp("ns"))
    pq.write_table(
        pa.table({"currency": ["USD", "GBP"], "rate_date": days}), tmp_path / "b.parquet"
    )
    found = [row for row in rows(tmp_path / "b.parquet", rate) if isinstance(row, dict)]
    assert [row["rate_date"] for row in found] == ["2026-03-01", None]


def test_parquet_as_spark_writes_it(tmp_path: Path, order: Contract) -> None:
    """Its moments have a range of their own, which is not that of nanoseconds."""
    moments = [datetime(9999, 12, 31, 23, 59, 59), datetime(1, 1, 1), datetime(2026, 3, 1)]
    named = pa.table({"order_id": ["a", "b", "c"], "placed_at": pa.array(moments)})
    file = tmp_path / "a.parquet"
    pq.write_table(named, file, use_deprecated_int96_timestamps=True)
    assert [row["placed_at"] for row in rows(file, order) if isinstance(row, dict)] == [
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "2026-03-01T00:00:00Z",
    ]
    pq.write_table(pa.table([["a"], ["b"]], names=["order_id", "order_id"]), file)
    with pytest.raises(SettingsError, match="two columns have one name"):
        list(rows(file, order))


def test_nobody_is_named_where_a_column_is_missing(tmp_path: Path, contracts: Contracts) -> None:
    """A file without a line of names has a person there."""
    customer = contracts["customer"]
    file = old(tmp_path / "a.csv", b"1001,jane.doe@example.com,email\n1,2,3\n")
    with pytest.raises(SettingsError) as error:
        drops._looked_through(file, customer, "registered_at", 1_000_000)
    wanted = "has no column registered_at (--time): it has email, 2 that customer does not have"
    assert str(error.value) == f"{file} {wanted}"
    doubled = old(tmp_path / "b.csv", b"1001,jane.doe@example.com,1001\n1,2,3\n")
    with pytest.raises(SettingsError, match="line 1 has no name for column 3, or one that it"):
        list(rows(doubled, customer))


def test_a_time_that_no_clock_has(tmp_path: Path) -> None:
    ahead, far = tmp_path / "a.csv", tmp_path / "b.csv"
    for file, by in ((ahead, 1_800), (far, 10_000)):
        file.write_bytes(b"x")
        os.utime(file, (time.time() + by, time.time() + by))
    assert ready(tmp_path, 10, time.time()) == ([far], 1, [])


def test_a_row_is_not_sent_with_a_time_that_no_clock_has(
    tmp_path: Path, contracts: Contracts
) -> None:
    """All of them would be refused for it, and the file be known for sent."""
    customer = contracts["customer"]
    file = tmp_path / "a.csv"
    file.write_bytes(b"customer_id,registered_at\nC00000001,2026-01-01\nC00000002,\n")
    os.utime(file, (time.time() + 10_000, time.time() + 10_000))
    with pytest.raises(SettingsError, match=r"a.csv: row 1 has no time .* `touch` the file"):
        drops._looked_through(file, customer, None, 1_000_000)
    with pytest.raises(SettingsError, match=r"a.csv: row 2 has no time of its own"):
        drops._looked_through(file, customer, "registered_at", 1_000_000)
    old(file, b"customer_id,registered_at\nC00000001,2026-01-01\nC00000002,\n")
    found = drops._looked_through(file, customer, None, 1_000_000)
    assert found == (2, {"customer_id", "registered_at"})
    # Without an envelope there is no such time: it is the broker's.
    plain = dataclasses.replace(customer, topic="crm.members")
    os.utime(file, (time.time() + 10_000, time.time() + 10_000))
    assert drops._looked_through(file, plain, None, 1_000_000) == found
