"""Key Vault over real HTTPS on loopback, Databricks scopes at the runtime's own module."""

from __future__ import annotations

import json
import re
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ServiceRequestError

from lakehouse import login, redact, settings, vault
from lakehouse.errors import SettingsError
from lakehouse.settings import Identity, resolve_secret
from tests.secured import TOKEN, Authority, Vault


class Credential:
    """Who asks: notes for what."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken(TOKEN, int(time.time()) + 3600)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed; nothing is kept from one test to the next."""
    now = [1000.0]
    monkeypatch.setattr(vault, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(vault, "_kept", {})
    return now


@pytest.fixture
def credential(monkeypatch: pytest.MonkeyPatch) -> Credential:
    found = Credential()
    monkeypatch.setattr(vault, "_credential", lambda: found)
    return found


@pytest.fixture
def server(
    authority: Authority,
    clock: list[float],  # noqa: ARG001
    credential: Credential,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Vault]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.ca))
    running = Vault(authority)
    yield running
    running.stop()


def test_a_secret_of_a_vault_is_kept_for_a_time_and_then_asked_for_anew(
    server: Vault, clock: list[float], credential: Credential
) -> None:
    reference = f"keyvault:{server.host}/eventhub"
    server.secrets["eventhub"] = "planted-first"
    assert [resolve_secret(reference) for _ in range(3)] == ["planted-first"] * 3
    assert server.asked == ["/secrets/eventhub"]
    server.secrets["eventhub"] = "planted-second"
    clock[0] += vault.SECONDS - 1
    assert resolve_secret(reference) == "planted-first"
    clock[0] += 2
    assert resolve_secret(reference) == "planted-second"
    assert redact.redacted("said planted-first and planted-second") == "said ***** and *****"
    # Of the host, without its first part: what a vault's token is for.
    assert set(credential.scopes) == {"https://0.0.1/.default"}


def test_a_version_may_be_named(server: Vault) -> None:
    version = "0123456789abcdef" * 2
    server.secrets[f"eventhub/{version}"] = "planted-old"
    assert resolve_secret(f"keyvault:{server.host}/eventhub/{version}") == "planted-old"


def test_where_the_vault_is_away_the_last_value_counts(server: Vault, clock: list[float]) -> None:
    reference = f"keyvault:{server.host}/eventhub"
    server.secrets["eventhub"] = "planted-first"
    assert resolve_secret(reference) == "planted-first"
    clock[0] += vault.SECONDS + 1
    server.codes = [503] * vault.TRIES
    assert resolve_secret(reference) == "planted-first"
    assert server.codes == []
    # A definite answer is one: a secret that was taken away is not to be used any more.
    clock[0] += vault.SECONDS + 1
    del server.secrets["eventhub"]
    with pytest.raises(SettingsError, match="404 eventhub was not found: put it there"):
        resolve_secret(reference)


@pytest.mark.parametrize("value", [None, 5, ["x"]])
def test_what_answers_without_a_secret_is_no_vault(server: Vault, value: Any) -> None:
    server.secrets["eventhub"] = value
    with pytest.raises(SettingsError, match="answers 200 without a secret, as no vault does"):
        resolve_secret(f"keyvault:{server.host}/eventhub")


def test_a_vault_of_another_cloud_is_logged_in_to_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """By azure-identity's own variable, unless the settings name one."""
    asked: list[str] = []

    def send(_: Any, request: Any, **__: Any) -> Any:
        asked.append(request.url.split("/")[2])
        raise ServiceRequestError("planted")

    monkeypatch.setattr("azure.core.pipeline.transport.RequestsTransport.send", send)
    for name, value in {
        "AZURE_AUTHORITY_HOST": "https://login.chinacloudapi.cn",
        "AZURE_TENANT_ID": "00000000-0000-4000-8000-000000000000",
        "AZURE_CLIENT_ID": "00000000-0000-4000-8000-000000000001",
        "AZURE_CLIENT_SECRET": "planted-secret",
    }.items():
        monkeypatch.setenv(name, value)
    login._credential.cache_clear()
    with pytest.raises(SettingsError, match=r"no token for https://vault.azure.cn/[.]default"):
        resolve_secret("keyvault:example.vault.azure.cn/eventhub")
    login._credential.cache_clear()
    assert set(asked) == {"login.chinacloudapi.cn"}


def test_a_busy_vault_is_asked_again(server: Vault) -> None:
    server.secrets["eventhub"] = "planted-first"
    server.codes = [429, 503]
    assert resolve_secret(f"keyvault:{server.host}/eventhub") == "planted-first"
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ([403], "403 said: give the identity the role Key Vault Secrets User there"),
        ([500] * vault.TRIES, "500 said: try again"),
    ],
)
def test_a_refusal_is_one_line_with_what_to_do(codes: list[int], said: str, server: Vault) -> None:
    server.codes = codes
    with pytest.raises(SettingsError) as refused:
        resolve_secret(f"keyvault:{server.host}/eventhub")
    assert str(refused.value).endswith(said)
    assert "\n" not in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_a_vault_with_another_certificate_gets_no_token(
    server: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(SettingsError, match=r"does not answer: .*certificate verify failed"):
        resolve_secret(f"keyvault:{server.host}/eventhub")
    assert server.asked == []


def test_a_vault_is_a_name_or_a_host(
    credential: Credential, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clock
    asked = []

    class Client:
        def __init__(self, url: str, **_: Any) -> None:
            asked.append(url)

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def send_request(self, *_: Any, **__: Any) -> Any:
            answer = {"value": "planted"}
            return types.SimpleNamespace(status_code=200, json=lambda: answer, content=b"{}")

    made = []
    monkeypatch.setattr("azure.core.PipelineClient", Client)
    policy = lambda _, scope: made.append(scope)  # noqa: E731
    monkeypatch.setattr("azure.core.pipeline.policies.BearerTokenCredentialPolicy", policy)
    for where in ("mine", "mine.vault.azure.cn"):
        assert resolve_secret(f"keyvault:{where}/name") == "planted"
    assert asked == [
        "https://mine.vault.azure.net/secrets/name",
        "https://mine.vault.azure.cn/secrets/name",
    ]
    assert made == ["https://vault.azure.net/.default", "https://vault.azure.cn/.default"]
    assert credential.scopes == []


def test_without_an_identity_it_is_said(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    assert clock

    class Nobody:
        def get_token(self, *_: str, **__: Any) -> AccessToken:
            raise ClientAuthenticationError("nobody\nis logged in")

    monkeypatch.setattr(vault, "_credential", Nobody)
    said = "no token for https://vault.azure.net/.default: nobody is logged in: give this machine"
    with pytest.raises(SettingsError, match=re.escape(said)):
        resolve_secret("keyvault:mine/name")


def test_who_asks_is_whom_azure_identity_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.identity import DefaultAzureCredential

    monkeypatch.setenv("AZURE_CLIENT_ID", "11111111-1111-1111-1111-111111111111")
    assert isinstance(vault._credential(), DefaultAzureCredential)
    assert Identity().client_secret is None


def scopes(monkeypatch: pytest.MonkeyPatch, get: Any) -> None:
    """Has the runtime's module be there, with a `dbutils` whose secrets are what `get` gives."""
    module = types.ModuleType("databricks.sdk.runtime")
    module.dbutils = types.SimpleNamespace(  # type: ignore[attr-defined]
        secrets=types.SimpleNamespace(get=get)
    )
    monkeypatch.setitem(sys.modules, "databricks.sdk", types.ModuleType("databricks.sdk"))
    monkeypatch.setitem(sys.modules, "databricks.sdk.runtime", module)


def test_a_key_of_a_databricks_scope(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get(scope: str, key: str) -> str:
        asked.append((scope, key))
        return f"planted-{len(asked)}"

    scopes(monkeypatch, get)
    assert [resolve_secret("databricks:headwater/eventhub") for _ in range(2)] == ["planted-1"] * 2
    clock[0] += vault.SECONDS + 1
    assert resolve_secret("databricks:headwater/eventhub") == "planted-2"
    assert asked == [("headwater", "eventhub")] * 2


def test_a_key_that_is_not_there_is_named(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clock

    def get(**_: str) -> str:
        raise RuntimeError("Secret does not exist with scope: headwater and key: eventhub")

    scopes(monkeypatch, get)
    with pytest.raises(SettingsError, match="put-secret headwater eventhub"):
        resolve_secret("databricks:headwater/eventhub")


def test_elsewhere_than_on_databricks_it_is_said(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clock
    monkeypatch.setitem(sys.modules, "databricks.sdk.runtime", None)
    with pytest.raises(SettingsError, match="this is no Databricks Runtime: use another kind"):
        resolve_secret("databricks:headwater/eventhub")


@pytest.mark.parametrize(
    "reference",
    ["keyvault:mine", "keyvault:mine/", "keyvault:mine/a_b", "keyvault:a b/c", "databricks:scope",
     "databricks:a/b/c", "vault:mine/name", "keyvault:mine/../name"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(reference: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text(json.dumps({"mysql": {"password": reference}}))
    with pytest.raises(SettingsError, match=r"mysql\.password"):
        settings.load(str(path))
