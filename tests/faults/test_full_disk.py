"""A data folder that fills up: one line says so, and nothing is lost once there is room again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse.contracts import Contracts
from tests.helpers import BIN, environment, settings_for, unlike_the_ledger

EVENTS = 15_000
# A file system of its own for the data folder, in name spaces of its own: it takes no root and
# leaves nothing behind. The tables are copied out for the checks before it goes.
APART = ("unshare", "--user", "--map-root-user", "--mount")
SCRIPT = """
mount -t tmpfs -o size=3m tmpfs "$DATA" || exit 1
headwater produce --events "$EVENTS" --seed 31 || exit 2
headwater stream --available-now 2>"$OUT/said"; echo $? >"$OUT/code"
mount -o remount,size=1g "$DATA" || exit 3
headwater stream --available-now || exit 4
cp -a "$DATA/." "$OUT/data"
"""


def test_a_full_data_folder_stops_the_streams_and_nothing_is_lost(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this kernel does not let its users mount a small file system")
    data, out = tmp_path / "small", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    settings = settings_for(data, bootstrap)
    surroundings = environment(settings)
    surroundings |= {"DATA": str(data), "OUT": str(out), "EVENTS": str(EVENTS)}
    surroundings["PATH"] = f"{BIN}:{surroundings['PATH']}"
    done = subprocess.run(
        [*APART, "sh", "-c", SCRIPT], env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
    assert (out / "code").read_text().strip() == "1"
    said = [line for line in (out / "said").read_text().splitlines() if line]
    assert said[-1].startswith("headwater: "), said
    assert "No space left on device" in said[-1]
    assert f"checkpoint {data}" in said[-1]
    assert not any("Traceback" in line for line in said)
    copied = settings.model_copy(update={"storage": str(out / "data")})
    reconcile.reconcile_range(spark, copied, contracts)
    found = audit.audit_tables(spark, copied, contracts)
    assert found.broken == []
    assert [balance.bronze for balance in found.balances] == [EVENTS]
    assert unlike_the_ledger(copied) == []
