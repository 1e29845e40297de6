"""Files of an order database, dropped into a folder, through a real broker to Silver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse.contracts import Contracts
from lakehouse.settings import Settings
from tests.helpers import BIN, drain, environment, headwater, settings_for, table, wait_until

PAYMENT = '{"payment_id":"Y%010d","order_id":"O0000000001","method":"card","status":"captured"'


def drop(folder: Path, name: str, content: bytes) -> Path:
    """A file that nobody has written to for an hour."""
    file = folder / name
    file.write_bytes(content)
    moment = time.time() - 3_600
    os.utime(file, (moment, moment))
    return file


def lines(*numbers: int) -> bytes:
    texts = [PAYMENT % n + f',"amount":{n}.50,"currency":"EUR"}}' for n in numbers]
    return "\n".join(texts).encode()


def accepted(settings: Settings) -> list[tuple[str, str]]:
    """Ids and amounts of the payments in Silver, by another engine than Spark."""
    silver = table(settings, "silver/events", ["outcome", "payment"])
    payments = [row["payment"] for row in silver.to_pylist() if row["outcome"] == "accepted"]
    return sorted((row["payment_id"], str(row["amount"])) for row in payments)


@pytest.mark.long
def test_files_of_three_kinds_each_once(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "data", bootstrap)
    folder = tmp_path / "drops"
    folder.mkdir()
    drop(
        folder,
        "1.csv",
        b"payment_id,order_id,method,status,amount,currency\n"
        b"Y0000000001,O0000000001,card,captured,1.50,EUR\n"
        b"Y0000000002,O0000000001,card,captured,much,EUR\n"
        b"half a row\n",
    )
    drop(folder, "2.jsonl", lines(3))
    rows = [json.loads(line) for line in lines(4, 5).splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "3.parquet")
    drop(folder, "3.parquet", (folder / "3.parquet").read_bytes())
    drop(folder, "4.jsonl.part", lines(6))
    drop(folder, "notes.txt", b"hello")
    half = drop(folder, "5.parquet", (folder / "3.parquet").read_bytes()[:200])

    def ingest(code: int = 0) -> tuple[str, str]:
        done = headwater(settings, "ingest", str(folder), "--entity", "payment", code=code)
        return done.stdout, done.stderr

    said, errors = ingest(code=1)
    assert said.startswith("3 files sent, 6 rows; 0 were sent before, 1 are not whole yet")
    assert "notes.txt" in said
    assert f"{half} cannot be read" in errors
    half.unlink()
    # The one that was written is whole now; a copy of another one by another name is known.
    (folder / "4.jsonl.part").rename(folder / "4.jsonl")
    shutil.copy2(folder / "2.jsonl", folder / "6.jsonl")
    said, _ = ingest()
    assert said.startswith("1 files sent, 1 rows; 4 were sent before, 0 are not whole yet")
    # As after a death between the broker's word and the manifest's line.
    (settings.runtime_dir / "files/payment.jsonl").unlink()
    said, _ = ingest()
    assert said.startswith("4 files sent, 7 rows; 1 were sent before")

    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    # All of them came twice; what is refused is refused again.
    [balance] = found.balances
    assert (balance.bronze, balance.accepted) == (14, 5)
    assert (balance.quarantined, balance.duplicates, balance.pending) == (4, 5, 0)
    assert accepted(settings) == [(f"Y{n:010d}", f"{n}.50") for n in (1, 3, 4, 5, 6)]
    silver: list[dict[str, Any]] = table(
        settings, "silver/events", ["outcome", "violations", "raw"]
    ).to_pylist()
    refused = [(row["violations"], row["raw"]) for row in silver if row["raw"] is not None]
    assert [raw for rules, raw in refused if rules == ["malformed_json"]] == [b"half a row"] * 2
    assert sum(rules == ["amount.type"] for rules, _ in refused) >= 1


@pytest.mark.long
def test_a_folder_that_is_watched(bootstrap: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", bootstrap)
    folder = tmp_path / "drops"
    folder.mkdir()
    manifest = settings.runtime_dir / "files/payment.jsonl"
    command = ["ingest", str(folder), "--entity", "payment", "--watch", "0.2", "--settle", "0"]
    process = subprocess.Popen(
        [str(BIN / "headwater"), *command],
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def sent() -> int:
        text = manifest.read_text() if manifest.exists() else ""
        return len([line for line in text.splitlines() if line])

    try:
        drop(folder, "a.jsonl", lines(1, 2))
        wait_until(lambda: sent() == 1, 60, "the first file")
        drop(folder, "b.jsonl", lines(3))
        wait_until(lambda: sent() == 2, 60, "the second file")
        # Another one at the same manifest would send them once more.
        second = headwater(settings, "ingest", str(folder), "--entity", "payment", code=1)
        assert f"is in use by process {process.pid}" in second.stderr
        process.terminate()
        said, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, errors
    assert said.splitlines()[0].startswith("1 files sent, 2 rows")
