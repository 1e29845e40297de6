"""A telephone company's customers, from its file through a real broker to a real PostgreSQL."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from batch import audit, gold, publish, reconcile
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import PostgreSQL, Settings
from tests.helpers import drain, headwater, settings_for
from tests.published import plain
from tests.servers import PostgreSQL as Server
from tests.telco import telco

TABLE = "dim_telco_customer"
# When the file was written; its rows do not say when they were true.
WRITTEN = datetime(2026, 3, 1, 10, 20, tzinfo=UTC)


def drop(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    moment = time.time() - 3_600
    os.utime(folder / name, (moment, moment))


def rows_of(server: Server, settings: Settings) -> dict[str, dict[str, Any]]:
    """The table in PostgreSQL, by customer, without its key."""
    database = settings.postgresql.database
    columns = server.run(
        f"SELECT column_name FROM information_schema.columns WHERE table_name = '{TABLE}' "
        "ORDER BY ordinal_position",
        database=database,
    )
    names = [name for (name,) in columns]
    rows = server.run(f"SELECT * FROM {TABLE}", database=database)
    found = {row["customer_id"]: row for row in (dict(zip(names, r, strict=True)) for r in rows)}
    assert len(found) == len(rows)
    assert len({row.pop("telco_customer_key") for row in found.values()}) == len(rows)
    return found


def of_time(moment: datetime) -> dict[str, Any]:
    parts = {"year": moment.year, "month": moment.month, "day": moment.day, "hour": moment.hour}
    return {"updated_at": plain(moment), **parts}


@pytest.mark.long
def test_a_published_file_and_what_comes_after_it(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    bootstrap: str,
    postgres: Server,
    postgresql: PostgreSQL,
    tmp_path: Path,
) -> None:
    settings = settings_for(tmp_path / "data", bootstrap, postgresql=postgresql)
    folder = tmp_path / "drops"
    folder.mkdir()
    file = telco()
    os.utime(file.write(folder / "customers.csv"), (WRITTEN.timestamp(), WRITTEN.timestamp()))
    wanted = {name: row | of_time(WRITTEN) for name, row in file.wanted.items()}

    def bring(quarantined: int) -> dict[str, dict[str, Any]]:
        headwater(settings, "ingest", str(folder), "--entity", "telco_customer")
        drain(spark, settings, contracts)
        reconcile.reconcile_range(spark, settings, contracts)
        found = audit.audit_tables(spark, settings, contracts)
        assert found.broken == []
        [balance] = found.balances
        assert (balance.quarantined, balance.pending) == (quarantined, 0)
        gold.build(spark, settings, contracts, layouts)
        publish.copy(spark, settings, layouts, ("postgresql",))
        return rows_of(postgres, settings)

    assert sum(line[14] == " " for line in file.lines) == 11
    assert bring(quarantined=0) == wanted

    # From then on its files say when, and more: a later state, an earlier one, one of a customer
    # that nobody has told of, and one that is no state at all.
    first, second, third = list(file.wanted)[:3]
    drop(
        folder,
        "changes.csv",
        "customer_id,tenure,monthly_charges,total_charges,updated_at,first_name,email\n"
        f"{first},10,20.05,,2026-03-02T23:59:59Z,Åsa, Asa@Example.com\n"
        f"{first},9,20.05,180.45,2026-03-02T22:00:00Z,Åsa,\n"
        f"{second},1,1.00,1.00,2026-02-01T00:00:00Z,,\n"
        "9999-NEWER,3,10,,2026-03-01T11:00:00+01:00,,\n"
        f"{third},-1,1.00,1.00,2026-03-03T00:00:00Z,,\n",
    )
    stated: dict[str, Any] = {
        "gender": "unknown",
        "senior_citizen": False,
        "partner": False,
        "dependents": False,
        "phone_service": False,
        "internet_service": "no",
        "contract": "month-to-month",
        "first_name": "unknown",
        "last_name": "unknown",
        "email": None,
        "is_inferred": False,
    }
    wanted[first] = {
        **stated,
        "customer_id": first,
        "tenure": 10,
        "monthly_charges": Decimal("20.05"),
        "total_charges": Decimal("200.50"),
        "first_name": "Åsa",
        "email": "asa@example.com",
        **of_time(datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC)),
    }
    wanted["9999-NEWER"] = {
        **stated,
        "customer_id": "9999-NEWER",
        "tenure": 3,
        "monthly_charges": Decimal("10.00"),
        "total_charges": Decimal("30.00"),
        **of_time(datetime(2026, 3, 1, 10, tzinfo=UTC)),
    }
    assert bring(quarantined=1) == wanted
    places = {
        path.relative_to(Path(settings.tables, "gold", TABLE)).parent
        for path in Path(settings.tables, "gold", TABLE).glob("year=*/**/*.parquet")
    }
    assert places == {
        Path(f"year=2026/month=3/day={day}/hour={hour}") for day, hour in ((1, 10), (2, 23))
    }
