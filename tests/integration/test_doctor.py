"""What the doctor finds, on a broker and on tables and checkpoints that were made without Spark."""

from __future__ import annotations

import json
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import CommitProperties, Transaction, write_deltalake

from batch import reconcile
from headwater import doctor, status
from headwater.doctor import ERROR, OK, WARNING, Finding
from lakehouse import checkpoints, kafka, tables
from lakehouse import contracts as contract_files
from lakehouse.errors import GapError
from lakehouse.settings import Settings
from producer.command import Sending, send_shop
from tests.helpers import headwater, settings_for

EVENTS = 300


def checkpoint(settings: Settings, query: str, ends: kafka.Offsets, batch: int = 0) -> Path:
    """A checkpoint with a committed batch of that number, as Spark writes it."""
    folder = Path(settings.checkpoints) / query
    offsets: dict[str, dict[str, int]] = {}
    for (topic, partition), end in ends.items():
        offsets.setdefault(topic, {})[str(partition)] = end
    for name, text in {
        "metadata": json.dumps({"id": query}),
        f"commits/{batch}": 'v1\n{"nextBatchWatermarkMs":0}',
        f"offsets/{batch}": f"v1\n{{}}\n{json.dumps(offsets)}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write(settings: Settings, layer: str, ends: kafka.Offsets, batch: int | None = 0) -> None:
    """The coordinates of all records up to there, as a table `events` of a layer that has that
    batch of its query, or none."""
    rows = [(t, p, offset) for (t, p), end in ends.items() for offset in range(end)]
    topics, partitions, offsets = zip(*rows, strict=True)
    columns = {"topic": topics, "partition": pa.array(partitions, pa.int32()), "offset": offsets}
    path = f"{settings.tables}/{layer}/events"
    name = f"{layer}.events:{layer}"
    batches = [] if batch is None else [Transaction(name, batch)]
    of_it = CommitProperties(app_transactions=batches)
    write_deltalake(path, pa.table(columns), mode="overwrite", commit_properties=of_it)


@pytest.fixture
def settings(bootstrap: str, tmp_path: Path) -> Settings:
    """All as it should be: every record is in Bronze, and both queries have committed it."""
    settings = settings_for(tmp_path / "a data folder", bootstrap)
    send_shop(settings, Sending(events=EVENTS))
    ends = kafka.end_offsets(settings, [settings.topics.events])
    for query in ("bronze", "silver"):
        write(settings, query, ends)
        checkpoint(settings, query, ends)
    return settings


def wrong(settings: Settings) -> list[Finding]:
    return [finding for finding in doctor.examine(settings) if finding.state != OK]


def test_nothing_is_found_where_all_is_well(settings: Settings) -> None:
    done = headwater(settings, "doctor", "--json")
    found = json.loads(done.stdout)
    assert {finding["check"] for finding in found} == set(doctor.CHECKS) - {"jobs"} | {"clock"}
    assert [f for f in found if f["state"] == ERROR] == []
    said = [f["said"] for f in found]
    assert any(f"topic {settings.topics.events}, 4 partitions up to 300" in line for line in said)
    assert "silver has committed 300" in said


def test_what_the_broker_does_not_have_any_more(settings: Settings) -> None:
    topic = settings.topics.events
    send_shop(settings, Sending(events=EVENTS, go_on=True))
    ends = kafka.end_offsets(settings, [topic])
    read = {(t, p): end // 2 for (t, p), end in ends.items()}
    for query in ("bronze", "silver"):
        write(settings, query, read)
        checkpoint(settings, query, read)
    gone = TopicPartition(topic, 2, read[topic, 2] + 3)
    admin = AdminClient(kafka.client_options(settings))
    for done in admin.delete_records([gone]).values():
        done.result(10)
    first = read[topic, 2]
    for query, finding in zip(("bronze", "silver"), wrong(settings), strict=True):
        assert (finding.check, finding.state) == ("checkpoints", ERROR)
        assert f"{query}: topic {topic} partition 2: offsets {first} to {first + 2}" in finding.said
        assert "--accept-gap" in finding.remedy
    failed = headwater(settings, "doctor", code=1)
    assert "--accept-gap" in failed.stdout
    # Accepted for Bronze, as by its stream: Silver's goes on after it by itself.
    row = {"query": "bronze", "topic": topic, "partition": 2, "begin": first, "end": first + 3}
    write_deltalake(tables.gaps().path(settings), pa.Table.from_pylist([row]))
    assert wrong(settings) == []


def test_a_damaged_checkpoint_and_rows_that_are_gone(settings: Settings) -> None:
    (Path(settings.checkpoints) / "silver/metadata").write_bytes(b"")
    ends = kafka.end_offsets(settings, [settings.topics.events])
    short = {**ends, (settings.topics.events, 3): 1}
    write(settings, "bronze", short)
    [of_bronze, of_silver] = wrong(settings)
    last = ends[settings.topics.events, 3] - 1
    assert f"partition 3 up to offset {last}, and bronze.events ends at 0" in of_bronze.said
    assert "silver/metadata is damaged" in of_silver.said


def test_a_table_that_is_gone(settings: Settings) -> None:
    shutil.rmtree(Path(settings.tables, "silver"))
    [finding] = wrong(settings)
    assert (finding.check, finding.state) == ("checkpoints", ERROR)
    assert finding.said == "silver has committed 300 records, and there is no table silver.events"
    assert "headwater replay --from-offset 0" in finding.remedy


def test_a_silver_that_is_older_than_its_checkpoint(settings: Settings) -> None:
    """Of Bronze its coordinates tell that."""
    checkpoint(settings, "silver", kafka.end_offsets(settings, [settings.topics.events]), batch=7)
    [finding] = wrong(settings)
    assert (finding.check, finding.state) == ("checkpoints", ERROR)
    said = "silver has committed batch 7, and silver.events has its batches up to 0"
    assert finding.said == said
    assert "headwater replay --from-offset 0" in finding.remedy


def test_tables_that_were_made_anew_are_whole(settings: Settings) -> None:
    """As a replay makes them: with all rows, and none of the streams' batches."""
    ends = kafka.end_offsets(settings, [settings.topics.events])
    for query in checkpoints.QUERIES:
        shutil.rmtree(Path(settings.tables, query))
        write(settings, query, ends, batch=None)
    assert wrong(settings) == []


@pytest.mark.parametrize("query", checkpoints.QUERIES)
def test_a_table_that_has_what_its_checkpoint_never_read(settings: Settings, query: str) -> None:
    topic = settings.topics.events
    ends = kafka.end_offsets(settings, [topic])
    last = ends[topic, 2] - 1
    checkpoint(settings, query, ends | {(topic, 2): last})
    [finding] = wrong(settings)
    assert (finding.check, finding.state) == ("checkpoints", ERROR)
    assert f"{query}.events has offset {last} of topic {topic} partition 2" in finding.said
    assert f"planned up to {last - 1}" in finding.said
    assert "move the folder" in finding.remedy


def asking(settings: Settings, *, reader: int, writer: int, **features: list[str]) -> list[Finding]:
    """What is found where Silver's next commit asks that of whoever reads or writes it."""
    log = Path(settings.tables, "silver/events/_delta_log")
    protocol = {"minReaderVersion": reader, "minWriterVersion": writer, **features}
    (log / f"{1:020}.json").write_text(json.dumps({"protocol": protocol}) + "\n")
    return [finding for finding in doctor.table_logs(settings) if finding.state != OK]


def test_a_table_that_asks_more_than_what_goes_without_saying(settings: Settings) -> None:
    # Reader version 2 is column mapping, from before there were lists of features.
    [finding] = asking(settings, reader=2, writer=5)
    assert (finding.check, finding.state) == ("tables", WARNING)
    assert finding.said == "silver.events asks of its readers columnMapping"
    features = {"readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz", "fromAfar"]}
    [finding] = asking(settings, reader=3, writer=7, **features)
    assert (finding.check, finding.state) == ("tables", ERROR)
    assert finding.said.startswith("silver.events asks of its writers fromAfar")
    both = ["timestampNtz", "deletionVectors"]
    [finding] = asking(settings, reader=3, writer=7, readerFeatures=both, writerFeatures=both)
    assert (finding.state, finding.said[-15:]) == (WARNING, "deletionVectors")


def test_a_record_from_the_future(settings: Settings) -> None:
    producer = Producer(kafka.client_options(settings))
    later = int((time.time() + 3_600) * 1_000)
    producer.produce(settings.topics.events, b"{}", partition=1, timestamp=later)
    assert producer.flush(10) == 0
    [finding] = wrong(settings)
    assert (finding.check, finding.state) == ("clock", ERROR)
    where = f"topic {settings.topics.events} partition 1"
    assert re.fullmatch(rf"{where} has a record of 3,(5\d\d|600) s in the future", finding.said)


@pytest.mark.long
def test_no_broker_no_room_and_a_job_that_failed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    run: dict[str, Any] = {
        "job": "gold",
        "started_at": now,
        "ended_at": now,
        "result": "failed",
        "rows": 0,
        "details": '{"error": "out of luck"}',
    }
    columns = {name: [value] for name, value in run.items()}
    versions = pa.array([[]], pa.map_(pa.string(), pa.int64()))
    rows = pa.table({**columns, "read": versions, "written": versions})
    write_deltalake(f"{settings.tables}/ops/runs", rows)
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 2**60)
    away = settings.model_copy(
        update={"broker": settings.broker.model_copy(update={"bootstrap": "127.0.0.1:1"})}
    )
    states = [(f.check, f.state) for f in wrong(away)]
    assert states == [("storage", WARNING), ("broker", ERROR), ("jobs", ERROR)]
    [failed] = [f for f in wrong(settings) if f.check == "jobs"]
    assert "gold failed at 2026-01-02T03:04:05" in failed.said
    assert "out of luck" in failed.said


def test_a_folder_that_cannot_be_written_to(settings: Settings) -> None:
    away = settings.model_copy(update={"storage": "/proc/headwater", "runtime": ""})
    assert ("storage", ERROR) in {(f.check, f.state) for f in wrong(away)}


def test_records_that_go_before_they_are_read(settings: Settings) -> None:
    """The tests' broker keeps records for 168 hours, as the embedded one does."""
    topic = settings.topics.events
    ends = kafka.end_offsets(settings, [topic])
    producer = Producer(kafka.client_options(settings))
    for partition, hours in {1: 20, 2: 100, 3: 150}.items():
        at = int((time.time() - hours * 3_600) * 1_000)
        producer.produce(topic, b"{}", partition=partition, timestamp=at)
        producer.produce(topic, b"{}", partition=partition)
    assert producer.flush(10) == 0
    told = {
        (
            f"topic {topic} partition {p}: the oldest unread record (offset {ends[topic, p]}) is "
            f"{hours}.0 h old; 168.0 h are kept"
        ): state
        for p, hours, state in ((3, 150, ERROR), (2, 100, WARNING))
    }
    found = wrong(settings)
    assert [(f.check, f.state, f.said) for f in found] == [
        ("lag", state, f"{query}: {said}")
        for query in ("bronze", "silver")
        for said, state in told.items()
    ]
    assert "headwater stream" in found[0].remedy
    # And it is what makes the scheduled job fail, which somebody is told of.
    loaded = contract_files.load(settings.contracts_dir)
    with pytest.raises(GapError, match=r"partition 3: .* is `headwater stream` running"):
        reconcile._demand_read(settings, loaded, ends)
    late = {(topic, 3): ends[topic, 3] + 2}
    reconcile._demand_read(settings, loaded, ends | late)
    [of_bronze, _] = status.state(settings)["streams"]
    assert of_bronze["lag"] == 6
    oldest = of_bronze["oldest_unread"]
    assert (oldest["partition"], oldest["offset"]) == (3, ends[topic, 3])
    assert oldest["kept"] == 168 * 3_600
    assert abs(oldest["age"] - 150 * 3_600) < 300
    assert oldest["said"] in told
