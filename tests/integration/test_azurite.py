"""Tables and checkpoints in Azure's storage emulator, from Bronze to Gold and the warehouse.

By `abfss://`, TLS and the account's key, as in ADLS Gen2. The emulator has the blob endpoint alone,
so that hadoop-azure is told to use that one, and where it is.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from pyarrow import fs

from lakehouse.settings import Settings
from producer.command import Sending, instant, send_shop, shop_of
from tests import servers
from tests.helpers import SHORT_LIVED, headwater, settings_for, table, unlike_the_ledger
from tests.oracle import different
from tests.secured import Authority

SEED, EVENTS = 8, 4_000
CONTAINER = "lake"


@pytest.fixture
def in_azurite(
    bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings for the emulator; what else commands and delta-rs need is in the environment."""
    authority = Authority(tmp_path)
    server = servers.azurite(tmp_path, authority.server)
    trusted = trust_store(authority.ca)
    storage = f"abfss://{CONTAINER}@{server.account}.dfs.core.windows.net/headwater"
    emulator = {
        "fs.azure.abfs.endpoint": f"127.0.0.1:{server.port}",
        "fs.azure.fns.account.service.type": "BLOB",
        "fs.azure.ingress.service.type": "BLOB",
        "fs.azure.account.hns.enabled": "false",
        "fs.azure.ssl.channel.mode": "Default_JSSE",
    }
    spark = {f"spark.hadoop.{name}": value for name, value in emulator.items()}
    for name, value in {
        "SPARK_SUBMIT_OPTS": f"{SHORT_LIVED} -Djavax.net.ssl.trustStore={trusted}",
        "HEADWATER_RUNTIME": str(tmp_path),
        "HEADWATER_ADLS__AUTH": "key",
        "HEADWATER_ADLS__KEY": "env:AZURE_STORAGE_ACCOUNT_KEY",
        "HEADWATER_SPARK": json.dumps(spark),
        "AZURE_STORAGE_ACCOUNT_KEY": server.key,
        "AZURE_STORAGE_ENDPOINT": f"https://127.0.0.1:{server.port}/{server.account}",
        "SSL_CERT_FILE": str(authority.ca),
    }.items():
        monkeypatch.setenv(name, value)
    at = f"127.0.0.1:{server.port}"
    fs.AzureFileSystem(
        server.account,
        account_key=server.key,
        blob_storage_authority=at,
        dfs_storage_authority=at,
    ).create_dir(CONTAINER)
    local = settings_for(tmp_path, bootstrap)
    yield local.model_copy(update={"storage": storage, "runtime": str(tmp_path)})
    server.process.terminate()
    server.process.wait(30)


def trust_store(certificate: Path) -> Path:
    """A file of the JVM's kind that holds a certificate. It is read without its password."""
    store, password = certificate.with_suffix(".jks"), uuid.uuid4().hex
    subprocess.run(
        [
            *("keytool", "-importcert", "-noprompt", "-alias", "tests"),
            *("-file", str(certificate), "-keystore", str(store)),
            *("-storetype", "JKS", "-storepass", password),
        ],
        check=True,
        capture_output=True,
    )
    return store


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_from_bronze_to_gold(in_azurite: Settings) -> None:
    """As commands, with a restart between two halves; ends on the ledger and on DuckDB's Gold."""
    for half in (EVENTS // 2, EVENTS):
        send_shop(in_azurite, Sending(events=EVENTS // 2, seed=SEED, go_on=True))
        headwater(in_azurite, "stream", "--available-now")
        assert table(in_azurite, "bronze/events", ["offset"]).num_rows == half
    headwater(in_azurite, "reconcile")
    headwater(in_azurite, "gold")
    headwater(in_azurite, "publish")
    [balance] = json.loads(headwater(in_azurite, "audit", "--json").stdout)
    assert (balance["bronze"], balance["pending"]) == (EVENTS, 0)
    assert unlike_the_ledger(in_azurite) == []
    records = list(islice(shop_of(SEED, instant(None, False), 0.3).records(), EVENTS))
    assert different(in_azurite, records) == {}
