"""What is asked of tables without Spark, where one of them is damaged."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import write_deltalake

from headwater.cli import cli
from lakehouse import arrow, tables
from lakehouse.errors import TableError
from lakehouse.settings import Settings


def test_a_log_that_was_cut_off_is_named(settings: Settings) -> None:
    table = tables.bronze()
    path = table.path(settings)
    write_deltalake(path, pa.table({"x": [1]}))
    log = Path(path, "_delta_log/00000000000000000000.json")
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    with pytest.raises(TableError, match=rf"bronze.events \({path}\) cannot be read: .*_delta_log"):
        arrow.open_table(settings, table)
    done = CliRunner().invoke(cli, ["status", "--data", settings.storage])
    assert isinstance(done.exception, TableError)


@pytest.mark.parametrize("start", ["0001-01-01", "9999-12-01T00:00:00Z"])
def test_a_shop_opens_in_years_that_can_be_told(start: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["produce", "--start", start, "--data", str(tmp_path)])
    assert done.exit_code == 2
    assert "a shop opens between the years 2 and 9900" in done.output
