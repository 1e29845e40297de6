"""A disk that fills up, the streams' or the broker's: nothing is lost once there is room again."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyspark.sql import SparkSession

from batch import audit, gold, publish, reconcile
from lakehouse.contracts import Contracts
from lakehouse.errors import WarehouseError
from lakehouse.layouts import Layouts
from lakehouse.settings import MySQL, PostgreSQL, Settings
from tests import servers
from tests.helpers import BIN, environment, settings_for, unlike_the_ledger
from tests.samples_gold import ADDRESS, CUSTOMER, Shop
from tests.servers import Filled, MariaDB, mariadb, postgresql
from tests.servers import PostgreSQL as Server

EVENTS = 15_000
PASSWORD = uuid.uuid4().hex
# On a file system of its own for the data folder. The tables are copied out for the checks before
# it goes.
SCRIPT = """
mount -t tmpfs -o size=3m tmpfs "$DATA" || exit 1
headwater produce --events "$EVENTS" --seed 31 || exit 2
headwater stream --available-now 2>"$OUT/said"; echo $? >"$OUT/code"
mount -o remount,size=1g "$DATA" || exit 3
headwater stream --available-now || exit 4
cp -a "$DATA/." "$OUT/data"
"""


# What is left of the room goes to a file, job after job; then it is given back, and all is done.
# Some is left for a lock, and none for the first of a table's files; or none at all; or enough for
# some files, so that it is full in the middle of the work, or at its end.
JOBS = ("reconcile", "gold", "maintain", "publish")
# The quality gate by itself, and a person's erasure, which goes through all tables.
MORE = ("reconcile", "gold", "quality", "erase")
JOBS_SCRIPT = """
mount -t tmpfs -o size=256m tmpfs "$DATA" || exit 1
headwater produce --events "$EVENTS" --seed 34 || exit 2
HEADWATER_STREAM__MAX_OFFSETS_PER_TRIGGER=600 headwater stream --available-now || exit 3
for job in $JOBS; do
  more=
  test $job = erase && more="--subject C00000001 --yes"
  cat /dev/zero >"$DATA/filler" 2>/dev/null
  truncate -s "-$LEFT" "$DATA/filler"
  headwater $job $more >"$OUT/$job.out" 2>"$OUT/$job.said"; echo $? >"$OUT/$job.code"
  rm "$DATA/filler"
  headwater $job $more || exit 4
done
cp -a "$DATA/." "$OUT/data"
"""
BROKER_SCRIPT = """
mkdir -p "$DATA/broker"
mount -t tmpfs -o size=12m tmpfs "$DATA/broker" || exit 1
headwater broker start || exit 2
headwater produce --events "$EVENTS" --seed 32 >"$OUT/produced" 2>"$OUT/said"
echo $? >"$OUT/code"
headwater broker status >"$OUT/status"
mount -o remount,size=1g "$DATA/broker" || exit 3
headwater broker start || exit 4
headwater produce --events 1000 --seed 33 || exit 5
headwater stream --available-now || exit 6
headwater broker stop
cp -a "$DATA/." "$OUT/data"
"""


def apart(script: str, settings: Settings, out: Path, events: int) -> None:
    """Runs a script in name spaces of its own."""
    before = servers.apart()
    Path(settings.storage).mkdir()
    out.mkdir()
    surroundings = environment(settings)
    surroundings |= {"DATA": settings.storage, "OUT": str(out), "EVENTS": str(events)}
    surroundings["PATH"] = f"{BIN}:{surroundings['PATH']}"
    done = subprocess.run(
        [*before, "sh", "-c", script], env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"


@pytest.mark.long
def test_a_full_disk_of_the_broker_loses_nothing_that_it_acknowledged(
    spark: SparkSession, contracts: Contracts, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    # No address: the broker is the one that the script starts.
    settings = settings_for(data, "")
    apart(BROKER_SCRIPT, settings, out, 200_000)
    assert (out / "code").read_text().strip() == "1"
    assert "no broker runs" in (out / "status").read_text()
    said = [line for line in (out / "said").read_text().splitlines() if line]
    assert said[-1].startswith("headwater: "), said
    assert not any("Traceback" in line for line in said)
    copied = settings.model_copy(update={"storage": str(out / "data")})
    reconcile.reconcile_range(spark, copied, contracts)
    assert audit.audit_tables(spark, copied, contracts).broken == []
    # What the broker took and could not say so is in no ledger line; all that it did say is there.
    unlike = [row for row in unlike_the_ledger(copied) if row[0] is not None]
    assert unlike == []
    acknowledged = duckdb.execute(
        f"""SELECT count("offset") FROM read_parquet('{copied.runtime_dir}/ledger/*.parquet')"""
    ).fetchall()[0][0]
    assert 1_000 < acknowledged < 201_000


@pytest.mark.long
def test_a_full_data_folder_stops_the_streams_and_nothing_is_lost(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    data, out = tmp_path / "small", tmp_path / "out"
    settings = settings_for(data, bootstrap)
    apart(SCRIPT, settings, out, EVENTS)
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


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(("left", "jobs"), [("8k", JOBS), ("0", JOBS), ("8k", MORE)])
def test_a_full_data_folder_stops_every_job_and_nothing_is_half_done(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    bootstrap: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: str,
    jobs: tuple[str, ...],
) -> None:
    data, out = tmp_path / "small", tmp_path / "out"
    settings = settings_for(data, bootstrap)
    monkeypatch.setenv("LEFT", left)
    monkeypatch.setenv("JOBS", " ".join(jobs))
    apart(JOBS_SCRIPT, settings, out, 3_000)
    for job in jobs:
        said = [line for line in (out / f"{job}.said").read_text().splitlines() if line]
        assert (out / f"{job}.code").read_text().strip() == "1", f"{job}: {said}"
        assert said[-1].startswith("headwater: "), f"{job}: {said}"
        assert "No space left on device" in said[-1], f"{job}: {said}"
        assert "make room in" in said[-1], f"{job}: {said}"
        assert not any("Traceback" in line for line in said), f"{job}: {said}"
    copied = settings.model_copy(update={"storage": str(out / "data")})
    assert audit.audit_tables(spark, copied, contracts).broken == []
    assert unlike_the_ledger(copied) == []
    # What a rebuild would make is there already.
    assert gold.build(spark, copied, contracts, layouts, rebuild=True).rows == 0


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_a_warehouse_whose_disk_is_full_is_as_it_was(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server goes on, and has no room for the stage, or for the merge."""
    monkeypatch.setenv("TEST_SECRET", PASSWORD)
    server: MariaDB | Server
    if kind == "mysql":
        server = mariadb(tmp_path)
        server.run("CREATE DATABASE dw", f"CREATE USER dw IDENTIFIED BY '{PASSWORD}'")
        server.run("GRANT ALL ON dw.* TO dw")
        there: MySQL | PostgreSQL = MySQL(
            port=server.port, database="dw", user="dw", password="env:TEST_SECRET"
        )
    else:
        server = postgresql(tmp_path)
        server.run(f"CREATE USER dw PASSWORD '{PASSWORD}'", "CREATE DATABASE dw OWNER dw")
        there = PostgreSQL(port=server.port, database="dw", user="dw", password="env:TEST_SECRET")
    server.stop()
    server.disk = "256m"
    server.start()
    try:
        settings = settings_for(tmp_path / "data", "").model_copy(update={kind: there})
        shop = Shop(spark, settings, contracts, layouts)
        shop.say(("10:00", "customer", CUSTOMER), ("10:00", "address", ADDRESS))
        shop.build()
        publish.copy(spark, settings, layouts, (kind,), gate=False)

        def held() -> list[tuple[Any, ...]]:
            name = "dw_users" if kind == "mysql" else "dim_users"
            return sorted(server.run(f"SELECT * FROM {name}", database="dw"), key=repr)

        before = held()
        assert len(before) == 1
        shop.sql("UPDATE {dim_users} SET last_name = 'Other' WHERE is_current")
        with Filled(server):
            with pytest.raises(WarehouseError) as caught:
                publish.copy(spark, settings, layouts, (kind,), full=True, gate=False)
            assert "\n" not in str(caught.value)
            assert str(server.port) in str(caught.value)
            assert held() == before
        publish.copy(spark, settings, layouts, (kind,), gate=False)
        assert "Other" in str(held())
    finally:
        server.stop()


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("left", ["48k", "192k"])
def test_a_data_folder_that_fills_up_in_the_middle_of_a_job(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    bootstrap: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: str,
) -> None:
    """Some has been written by then. A job that got through with it is as good."""
    data, out = tmp_path / "small", tmp_path / "out"
    settings = settings_for(data, bootstrap)
    monkeypatch.setenv("LEFT", left)
    monkeypatch.setenv("JOBS", " ".join(JOBS))
    apart(JOBS_SCRIPT, settings, out, 3_000)
    stopped = []
    for job in JOBS:
        said = [line for line in (out / f"{job}.said").read_text().splitlines() if line]
        assert not any("Traceback" in line for line in said), f"{job}: {said}"
        if (out / f"{job}.code").read_text().strip() != "0":
            stopped.append(job)
            assert said[-1].startswith("headwater: "), f"{job}: {said}"
            assert "No space left on device" in said[-1], f"{job}: {said}"
            assert len(said[-1]) < 1_000
    assert "gold" in stopped
    copied = settings.model_copy(update={"storage": str(out / "data")})
    assert audit.audit_tables(spark, copied, contracts).broken == []
    assert unlike_the_ledger(copied) == []
    assert gold.build(spark, copied, contracts, layouts, rebuild=True).rows == 0
