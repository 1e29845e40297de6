"""Logins to ADLS Gen2: the properties that hadoop-azure's documentation of ABFS names."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import adls, settings
from lakehouse.errors import SettingsError, StorageError

LAKE = "abfss://lake@one.dfs.core.windows.net/headwater"
PREFIX = "spark.hadoop.fs.azure.account."
PRINCIPAL = "{tenant_id: t1, client_id: c1, client_secret: 'env:PLANTED'}"


def load(tmp_path: Path, text: str, storage: str = LAKE) -> settings.Settings:
    path = tmp_path / "x.yml"
    path.write_text(f"storage: {storage}\nruntime: {tmp_path}\n{text}\n")
    return settings.load(str(path))


def test_each_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "planted")
    host = "one.dfs.core.windows.net"
    tokens = "org.apache.hadoop.fs.azurebfs.oauth2."
    for text, wanted in (
        ("", {}),
        ("adls: {auth: key, key: 'env:PLANTED'}", {"auth.type": "SharedKey", "key": "planted"}),
        (
            f"adls: {{auth: service_principal}}\nidentity: {PRINCIPAL}",
            {
                "auth.type": "OAuth",
                "oauth.provider.type": f"{tokens}ClientCredsTokenProvider",
                "oauth2.client.endpoint": "https://login.microsoftonline.com/t1/oauth2/token",
                "oauth2.client.id": "c1",
                "oauth2.client.secret": "planted",
            },
        ),
        (
            "adls: {auth: managed_identity}\nidentity: {client_id: c1}",
            {
                "auth.type": "OAuth",
                "oauth.provider.type": f"{tokens}MsiTokenProvider",
                "oauth2.client.id": "c1",
            },
        ),
    ):
        found = adls.spark_options(load(tmp_path, text))
        assert found == {f"{PREFIX}{name}.{host}": value for name, value in wanted.items()}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("adls: {auth: key, key: 'env:PLANTED'}", {"azure_storage_account_key": "cGxhbnRlZA=="}),
        (
            f"adls: {{auth: service_principal}}\nidentity: {PRINCIPAL}",
            {
                "azure_storage_tenant_id": "t1",
                "azure_storage_client_id": "c1",
                "azure_storage_client_secret": "cGxhbnRlZA==",
            },
        ),
        (
            "adls: {auth: managed_identity}\nidentity: {client_id: c1}",
            {"azure_storage_client_id": "c1"},
        ),
    ],
)
def test_commands_without_a_jvm_log_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wanted: dict[str, str]
) -> None:
    monkeypatch.setenv("PLANTED", "cGxhbnRlZA==")
    found = load(tmp_path, text)
    assert adls.delta_options(found, f"{LAKE}/tables/ops/runs") == wanted
    assert adls.delta_options(found, str(tmp_path)) == {}
    files, place = adls.file_system(found, f"{LAKE}/tables/ops/runs/part%20one.parquet")
    assert (files.type_name, place) == ("abfs", "lake/headwater/tables/ops/runs/part one.parquet")
    files, place = adls.file_system(found, "/data/a b%20c/x")
    assert (files.type_name, place) == ("local", "/data/a b%20c/x")


def test_each_account_has_the_login_and_no_other_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", "planted")
    text = "adls: {auth: key, key: 'env:PLANTED'}"
    other = "checkpoint_root: abfss://lake@two.dfs.core.windows.net/x\n"
    other += "synapse: {staging: 'abfss://stage@three.dfs.core.windows.net/x'}\n"
    hosts = {
        name.partition(".key.")[2] for name in adls.spark_options(load(tmp_path, other + text))
    }
    assert hosts == {f"{name}.dfs.core.windows.net" for name in ("one", "two", "three")} | {""}
    assert adls.spark_options(load(tmp_path, text, str(tmp_path))) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adls: {auth: key}", "adls: .*key go together"),
        ("adls: {key: 'env:PLANTED'}", "adls: .*key go together"),
        ("adls: {auth: service_principal}", "adls.auth: service_principal wants identity"),
        ("adls: {auth: key, key: plain}", "adls.key"),
    ],
)
def test_a_login_that_lacks_something_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(tmp_path, text)


def test_a_storage_that_is_not_reached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each way that commands without a JVM go: no name leads there."""
    monkeypatch.setenv("PLANTED", "cGxhbnRlZA==")
    monkeypatch.setenv("AZURE_STORAGE_MAX_RETRIES", "0")
    found = load(
        tmp_path,
        "adls: {auth: key, key: 'env:PLANTED'}",
        "abfss://lake@nowhere.dfs.example.invalid/headwater",
    )

    def refused(*_: object, **__: object) -> None:
        raise OSError(
            "Generic MicrosoftAzure error: error\n  \x1b[31m↳\x1b[0m no answer\n\nmore of it"
        )

    with pytest.raises(StorageError) as raised, adls.reaching(found, found.storage):
        refused()
    said = str(raised.value)
    assert said.startswith("abfss://lake@nowhere.dfs.example.invalid/headwater cannot be reached: ")
    assert "Generic MicrosoftAzure error: error no answer more of it: correct the place" in said
    assert "adls.auth, now key" in said
    assert "Storage Blob Data Contributor" in said
    assert "\n" not in said
    for kind in (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        with pytest.raises(StorageError), adls.reaching(found, found.storage):
            raise kind("planted")
    # What is not there, and what is on this machine, is somebody else's to tell.
    with pytest.raises(FileNotFoundError), adls.reaching(found, found.storage):
        raise FileNotFoundError("planted")
    with pytest.raises(OSError, match="planted"), adls.reaching(found, str(tmp_path)):
        raise OSError("planted")
