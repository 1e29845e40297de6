"""The SQL for a Synapse pool: read by a parser of its dialect, and held against a golden file.

No pool can be had where this is tested: what runs the SQL is tested with a connection that takes it
down and answers as the pool would.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from sqlfluff.core import Linter

from batch.warehouses.base import STATE, STATE_COLUMNS, Content, Target
from batch.warehouses.synapse import Synapse
from lakehouse import settings as settings_files
from lakehouse.errors import BusyError, SettingsError, WarehouseError
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings
from lakehouse.tables import Version
from tests.synapse_dialect import parser, unparsable

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def dialect() -> Linter:
    return parser()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_files.load(
        "local",
        storage=str(tmp_path),
        synapse=settings_files.Synapse(
            server="example.sql.azuresynapse.net",
            staging="abfss://staging@example.dfs.core.windows.net/headwater",
            first_month="2025-11",
            months=3,
        ),
    )


class Pool:
    """A connection that takes everything down. answers: rows by what a statement begins with, the
    longest such beginning first."""

    def __init__(self, answers: dict[str, list[tuple[Any, ...]]]) -> None:
        self.said: list[str] = []
        self._answers = answers
        self.description: Any = None
        self._rows: list[tuple[Any, ...]] = []

    def cursor(self) -> Pool:
        return self

    def close(self) -> None:
        pass

    def execute(self, statement: str, *_: Any) -> None:
        self.said.append(statement)
        begins = sorted(filter(statement.startswith, self._answers), key=len, reverse=True)
        found = [self._answers[each] for each in begins]
        self._rows = found[0] if found else []
        self.description = object() if found else None

    def nextset(self) -> bool:
        return False

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows


def golden(name: str, text: str) -> None:
    """Held against a file, which WRITE_GOLDEN=1 makes anew, to be read before it counts."""
    path = GOLDEN / name
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_what_a_pool_is_set_up_with(settings: Settings, layouts: Layouts, dialect: Linter) -> None:
    said = Synapse(settings).set_up(layouts.gold, "readers", "stewards")
    for statement in said:
        assert unparsable(dialect, statement) == [], statement
    golden("synapse_set_up.sql", "".join(f"{statement};\nGO\n" for statement in said))


def test_a_publish_as_the_pool_hears_it(
    settings: Settings, layouts: Layouts, dialect: Linter
) -> None:
    warehouse = Synapse(settings)
    layout = layouts["gold.fact_orders"]
    pool = Pool({"SELECT COUNT_BIG": [(2, 11, 22)]})
    warehouse._connection = pool
    target = Target(layout, "fact_orders", Version(7, 1000), False, 2, Content(2, 11, 22), list)
    warehouse.begin_stage(target.stage, layout)
    warehouse.execute(warehouse.copy_into(target.stage))
    warehouse.merge([target])
    warehouse.drop_stage(target.stage)
    for statement in pool.said:
        assert unparsable(dialect, statement) == [], statement
    # When it was published is all that differs from one day to the next.
    said = [re.sub(r"'[^']*T[^']*\+00:00'", "'2026-03-01T12:00:00+00:00'", o) for o in pool.said]
    golden("synapse_publish.sql", "".join(f"{statement};\nGO\n" for statement in said))


def test_a_table_that_came_after_the_set_up(
    settings: Settings, layouts: Layouts, dialect: Linter
) -> None:
    """Its statistics, its masks, and the policy by which its persons are seen, come with it."""
    warehouse = Synapse(settings)
    pool = Pool({"SELECT COLUMN_NAME": []})
    warehouse._connection = pool
    undo: list[str] = []
    warehouse.make([layouts["gold.dim_users"]], undo)
    made = len(pool.said)
    # The policy holds the table fast.
    warehouse.take_back(undo)
    assert [statement.split(" ")[:3] for statement in pool.said[made:]] == [
        ["IF", "EXISTS", "(SELECT"],
        ["IF", "OBJECT_ID('[dim].[dim_users]')", "IS"],
        ["DELETE", "FROM", "[stg].[headwater_publish]"],
        ["IF", "OBJECT_ID('[stg].[headwater_publish]')", "IS"],
    ]
    assert pool.said[made].endswith("DROP FILTER PREDICATE ON [dim].[dim_users]")
    for statement in pool.said[made:]:
        assert unparsable(dialect, statement) == [], statement
    del pool.said[made:]
    warehouse._add("ALTER TABLE [dim].[dim_users] ADD [x] INT NULL")
    for statement in pool.said:
        # Where a value goes the driver has a sign of its own.
        assert unparsable(dialect, statement.replace("?", "'x'")) == [], statement
    *_, statistics, policy, _ = pool.said
    assert statistics.startswith("CREATE STATISTICS [stats_dim_users_")
    assert policy == (
        "IF EXISTS (SELECT 1 FROM sys.security_policies WHERE name = 'persons') "
        "ALTER SECURITY POLICY [stg].[persons] ADD FILTER PREDICATE [stg].[may_see_persons]"
        "([user_key]) ON [dim].[dim_users]"
    )


def test_what_would_not_agree_is_rolled_back(
    settings: Settings, layouts: Layouts, dialect: Linter
) -> None:
    warehouse = Synapse(settings)
    layout = layouts["gold.dim_users"]
    sums = list(range(len(layout.columns)))
    # The key alone, and then with more columns; or, where it is by column, the next sum.
    alone = warehouse.row_text([layout.columns[0]])
    by_column = f"SELECT COUNT_BIG(*), coalesce(sum({warehouse.hash_of(alone)}), 0), coalesce(sum("
    by_column += warehouse.hash_of(warehouse.row_text([layout.columns[1]]))
    pool = Pool({"SELECT COUNT_BIG": [(2, 11, 23)], by_column: [(2, *sums)]})
    warehouse._connection = pool
    others = [*sums[:-1], 99]
    target = Target(
        layout, "dim_users", Version(7, 1000), True, 2, Content(2, 11, 22), lambda: others
    )
    said = rf"example.sql.*dim_users would not be .*other values in {layout.columns[-1].name}\)"
    with pytest.raises(WarehouseError, match=said):
        warehouse.merge([target])
    assert pool.said[0] == "BEGIN TRANSACTION"
    assert pool.said[-1] == "ROLLBACK"
    # All rows were to be brought: those that Gold has no more go.
    assert [one for one in pool.said if "NOT EXISTS" in one]
    for statement in pool.said:
        assert unparsable(dialect, statement) == [], statement


def test_tables_of_others_are_left_alone(settings: Settings, layouts: Layouts) -> None:
    warehouse = Synapse(settings)
    warehouse._connection = Pool({"SELECT COLUMN_NAME": [(name,) for name in STATE_COLUMNS]})
    with pytest.raises(WarehouseError, match="is there and is not Headwater's"):
        warehouse.states(list(layouts.gold))


def test_errors_of_the_driver(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import mssql_python

    warehouse = Synapse(settings)

    class Refusing(Pool):
        def execute(self, *_: Any) -> None:
            raise mssql_python.DatabaseError(*(["Transaction was deadlocked (1205)"] * 2))

    warehouse._connection = Refusing({})
    with pytest.raises(BusyError, match=r"Synapse example.sql.azuresynapse.net/headwater: .*1205"):
        warehouse.execute("SELECT 1")
    nowhere = settings.model_copy(update={"synapse": settings_files.Synapse()})
    with pytest.raises(SettingsError, match=r"synapse.server and synapse.staging"):
        Synapse(nowhere).open()
    # A real one, to an address where nothing is.
    monkeypatch.setattr("lakehouse.login.token", lambda *_: ("token", 0.0))
    away = settings.synapse.model_copy(update={"server": "127.0.0.1,1"})
    with pytest.raises(WarehouseError, match=r"Synapse 127.0.0.1,1/headwater: "):
        Synapse(settings.model_copy(update={"synapse": away})).open()


def test_its_names(settings: Settings) -> None:
    warehouse = Synapse(settings)
    assert [warehouse.table(name) for name in ("dim_users", "fact_orders", "agg_x", STATE)] == [
        "[dim].[dim_users]", "[fact].[fact_orders]", "[fact].[agg_x]", f"[stg].[{STATE}]"
    ]  # fmt: skip


@pytest.mark.parametrize("staging", ["/tmp/x", "abfss://x", "https://a.dfs.core.windows.net/x"])
def test_a_staging_folder_that_is_none(staging: str) -> None:
    with pytest.raises(ValueError, match="wants abfss://CONTAINER@ACCOUNT"):
        settings_files.Synapse(staging=staging)
