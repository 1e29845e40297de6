"""Killed while a file is written that no commit names yet, or that stands for many others."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from batch import audit, maintain, reconcile
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings, Stream
from producer.command import Sending, send_shop
from tests.helpers import BIN, drain, environment, settings_for, unlike_the_ledger

EVENTS = 20_000
BATCH = 400
SECONDS = 240
TRIES = 5
# So that there are snapshots of the state within seconds.
OFTEN = (
    '{"spark.sql.streaming.stateStore.maintenanceInterval": "500ms", '
    '"spark.sql.streaming.stateStore.minDeltasForSnapshot": "2"}'
)
# Where a file appears, and what stands in its name, when the stream dies; in this order.
MOMENTS = [
    ("checkpoints/silver/state", ".zip"),
    ("tables/bronze/events/_delta_log", ".checkpoint."),
    ("tables/silver/events/_delta_log", ".checkpoint."),
    ("checkpoints/silver/state", ".zip"),
]


def named(folder: Path, part: str) -> Iterator[str]:
    """Files below a folder with that in their names, temporary ones too."""
    for place, _, files in os.walk(folder):
        yield from (f"{place}/{name}" for name in files if part in name)


def is_unfinished(file: Path) -> bool:
    """Whether a file is not yet under its name, or not whole."""
    if file.suffix == ".tmp":
        return True
    if file.suffix == ".parquet":
        return file.read_bytes()[-4:] != b"PAR1"
    return file.suffix == ".zip" and not zipfile.is_zipfile(file)


def kill_half_way(settings: Settings, folder: Path, part: str, *command: str) -> None:
    """Kills a command as it writes, until it has left something unfinished."""
    left = []
    for _ in range(TRIES):
        left.append(kill_as_it_writes(settings, folder, part, *command))
        if any(map(is_unfinished, left[-1])):
            return
    raise AssertionError(f"never caught half-way: {left}")


def kill_as_it_writes(settings: Settings, folder: Path, part: str, *command: str) -> list[Path]:
    """Starts a command, and kills it with its JVM at the first sight of a new file. Returns those
    that it leaves."""
    known = set(named(folder, part))
    process = subprocess.Popen(
        [str(BIN / "headwater"), *command],
        env=environment(settings)
        | {
            "HEADWATER_SPARK": OFTEN,
            "HEADWATER_STREAM__MAX_OFFSETS_PER_TRIGGER": str(BATCH),
            "HEADWATER_STREAM__TRIGGER": "100 milliseconds",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + SECONDS
    try:
        # Without a pause that would be longer than the writing.
        while not set(named(folder, part)) - known:
            assert process.poll() is None, f"{command} ended by itself: {process.communicate()[1]}"
            assert time.monotonic() < deadline, f"no {part} in {folder} within {SECONDS} s"
            time.sleep(0.002)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    return [Path(name) for name in set(named(folder, part)) - known]


@pytest.mark.long
def test_killed_during_a_snapshot_a_log_checkpoint_and_optimize(
    spark: SparkSession, contracts: Contracts, layouts: Layouts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(
        tmp_path / "data", bootstrap, stream=Stream(max_offsets_per_trigger=BATCH)
    )
    send_shop(settings, Sending(events=EVENTS, seed=23))
    for folder, part in MOMENTS:
        kill_half_way(settings, Path(settings.storage) / folder, part, "stream")
    drain(spark, settings.model_copy(update={"stream": Stream()}), contracts)
    silver = Path(settings.tables) / "silver/events"
    for _ in range(2):
        kill_half_way(settings, silver, "part-", "maintain", "silver.events")
        assert maintain.keep(spark, settings, contracts, layouts, ("silver.events",), dry_run=True)[
            0
        ].partitions, "what died has committed nothing"
    done = maintain.keep(spark, settings, contracts, layouts, ("silver.events",))
    assert done[0].partitions > 0
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    assert [balance.bronze for balance in found.balances] == [EVENTS]
    assert [balance.pending for balance in found.balances] == [0]
    assert unlike_the_ledger(settings) == []
