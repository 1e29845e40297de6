"""How far tables are behind, without a JVM: logs and runs are written by delta-rs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

from headwater import commands, freshness
from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings

IDLE: dict[str, Any] = {"lag": 0, "oldest_age": None}
UNKNOWN: dict[str, Any] = {"lag": None, "oldest_age": None}


def commit(settings: Settings, table: tables.Table, rows: int = 1) -> int:
    """Appends rows to a table; returns when that was committed, ms since 1970."""
    path = table.path(settings)
    write_deltalake(path, pa.table({"n": pa.array(range(rows), pa.int64())}), mode="append")
    moment: int = DeltaTable(path).history(1)[0]["timestamp"]
    return moment


def gold_read(settings: Settings, version: int, result: str = "succeeded") -> None:
    now = datetime.now(UTC)
    read = pa.array([[("silver.events", version)]], pa.map_(pa.string(), pa.int64()))
    row = {
        "job": pa.array(["gold"]),
        "started_at": pa.array([now], pa.timestamp("us", "UTC")),
        "ended_at": pa.array([now], pa.timestamp("us", "UTC")),
        "result": pa.array([result]),
        "rows": pa.array([0], pa.int64()),
        "read": read,
        "written": pa.array([[]], pa.map_(pa.string(), pa.int64())),
        "details": pa.array(["{}"]),
    }
    write_deltalake(tables.runs().path(settings), pa.table(row), mode="append")


def found(
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    bronze: dict[str, Any] = IDLE,
    silver: dict[str, Any] = IDLE,
) -> dict[str, freshness.Freshness]:
    streams = [{"query": "bronze"} | bronze, {"query": "silver"} | silver]
    listed = freshness.of_tables(settings, contracts, layouts, streams)
    return {one.table: one for one in listed}


def at(monkeypatch: pytest.MonkeyPatch, milliseconds: float) -> None:
    monkeypatch.setattr("headwater.freshness.time.time", lambda: milliseconds / 1000)


def test_gold_is_behind_by_the_oldest_commit_that_it_has_not_read(
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silver, users = tables.silver(contracts), tables.gold(layouts["gold.dim_users"])
    commit(settings, silver)
    first_unread = commit(settings, silver)
    commit(settings, silver)
    commit(settings, users)
    commit(settings, tables.gold(layouts["gold.dim_time"]))
    gold_read(settings, 0)
    gold_read(settings, 2, "failed")
    minute = 60_000
    at(monkeypatch, first_unread + 180 * minute)
    of_users = found(settings, contracts, layouts)["gold.dim_users"]
    assert (of_users.promised, of_users.kept) == (10_800, True)
    assert of_users.behind == pytest.approx(10_800)
    at(monkeypatch, first_unread + 192 * minute)
    of_users = found(settings, contracts, layouts)["gold.dim_users"]
    assert of_users.kept is False
    assert of_users.said == (
        "gold.dim_users is 3.2 h behind, where its contract promises 3.0 h: see that "
        "`headwater gold` runs"
    )
    gold_read(settings, 2)
    of_users = found(settings, contracts, layouts)["gold.dim_users"]
    assert (of_users.behind, of_users.kept) == (0, True)
    # Files put together bring no record.
    DeltaTable(silver.path(settings)).optimize.compact()
    assert DeltaTable(silver.path(settings)).version() == 3
    assert found(settings, contracts, layouts)["gold.dim_users"].behind == 0
    # The contract of the calendar promises nothing.
    assert "gold.dim_time" not in found(settings, contracts, layouts)


def test_a_table_of_gold_that_is_gone_is_as_far_behind_as_can_be(
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gold has read all there is; one of its tables was removed, or got a contract since."""
    first = commit(settings, tables.silver(contracts))
    commit(settings, tables.gold(layouts["gold.dim_users"]))
    gold_read(settings, 0)
    at(monkeypatch, first + 4 * 3_600_000)
    both = found(settings, contracts, layouts)
    assert (both["gold.dim_users"].behind, both["gold.dim_users"].kept) == (0, True)
    assert both["gold.fact_orders"].behind == pytest.approx(4 * 3_600)
    assert both["gold.fact_orders"].kept is False


def test_a_stream_is_behind_by_the_oldest_record_that_it_has_not_read(
    settings: Settings, contracts: Contracts, layouts: Layouts
) -> None:
    commit(settings, tables.bronze())
    commit(settings, tables.silver(contracts))
    late = {"lag": 3, "oldest_age": 901.0}
    in_time = {"lag": 3, "oldest_age": 899.0}
    both = found(settings, contracts, layouts, late, in_time)
    assert {name: one.kept for name, one in both.items() if "gold." not in name} == {
        "bronze.events": False,
        "silver.events": True,
    }
    assert "bronze.events is 15 min behind" in both["bronze.events"].said
    assert "`headwater stream`" in both["bronze.events"].said
    nobody = found(settings, contracts, layouts, UNKNOWN, UNKNOWN)
    assert {one.kept for name, one in nobody.items() if "gold." not in name} == {None}
    assert "without the broker" in nobody["silver.events"].said
    # What there is to read, and nothing says how old it is, is not as good as read.
    untold = {"lag": 3, "oldest_age": None}
    unread = found(settings, contracts, layouts, untold, IDLE)
    assert (unread["bronze.events"].kept, unread["silver.events"].kept) == (None, True)


def test_status_exits_with_1_where_a_promise_is_broken(
    settings: Settings,
    contracts: Contracts,
    layouts: Layouts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = commit(settings, tables.silver(contracts))
    commit(settings, tables.gold(layouts["gold.dim_users"]))
    arguments = ["--data", settings.storage]
    at(monkeypatch, moment + 60_000)
    done = CliRunner().invoke(commands.status, arguments)
    assert done.exit_code == 0, done.output
    at(monkeypatch, moment + 4 * 3_600_000)
    done = CliRunner().invoke(commands.status, arguments)
    assert done.exit_code == 1
    assert "gold.dim_users is 4.0 h behind" in done.output
    done = CliRunner().invoke(commands.status, [*arguments, "--json"])
    assert done.exit_code == 1
    listed = {one["table"]: one["kept"] for one in json.loads(done.stdout)["freshness"]}
    # Those that no run has made yet are as far behind; dim_time and dim_date promise nothing.
    promised = {layout.full_name for layout in layouts.gold if layout.latency is not None}
    assert len(promised) == len(layouts.gold) - 2
    assert listed == {"silver.events": None, **dict.fromkeys(promised, False)}
