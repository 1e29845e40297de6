"""Tables and checkpoints in Azure's storage emulator, from Bronze to Gold and the warehouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from lakehouse.settings import Settings
from producer.command import Sending, instant, send_shop, shop_of
from tests import servers
from tests.helpers import headwater, settings_for, table, unlike_the_ledger
from tests.oracle import different

SEED, EVENTS = 8, 4_000


@pytest.fixture
def in_azurite(bootstrap: str, tmp_path: Path) -> Iterator[Settings]:
    server = servers.azurite(tmp_path)
    local = settings_for(tmp_path, bootstrap)
    storage = "wasb://lake@devstoreaccount1/headwater"
    yield local.model_copy(update={"storage": storage, "runtime": str(tmp_path)})
    server.terminate()
    server.wait(30)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_from_bronze_to_gold(in_azurite: Settings) -> None:
    """As commands, with a restart between two halves; ends on the ledger and on DuckDB's Gold."""
    emulator = {"spark.hadoop.fs.azure.storage.emulator.account.name": "devstoreaccount1"}
    extra = {"HEADWATER_RUNTIME": in_azurite.runtime, "HEADWATER_SPARK": json.dumps(emulator)}
    for half in (EVENTS // 2, EVENTS):
        send_shop(in_azurite, Sending(events=EVENTS // 2, seed=SEED, go_on=True))
        headwater(in_azurite, "stream", "--available-now", extra=extra)
        assert table(in_azurite, "bronze/events", ["offset"]).num_rows == half
    headwater(in_azurite, "reconcile", extra=extra)
    headwater(in_azurite, "gold", extra=extra)
    headwater(in_azurite, "publish", extra=extra)
    [balance] = json.loads(headwater(in_azurite, "audit", "--json", extra=extra).stdout)
    assert (balance["bronze"], balance["pending"]) == (EVENTS, 0)
    assert unlike_the_ledger(in_azurite) == []
    records = list(islice(shop_of(SEED, instant(None, False), 0.3).records(), EVENTS))
    assert different(in_azurite, records) == {}
