"""Secrets that are kept elsewhere: Azure Key Vault, and Databricks secret scopes.

A value is kept for SECONDS and then asked for anew, so that a renewed secret counts without a
restart. Where who keeps it does not answer, the last value counts until it does.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from lakehouse.errors import SettingsError, reason

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

SECONDS = 300.0
API_VERSION = "7.4"
TRIES = 3
CONNECT_SECONDS = 10
# What a secret scope says of what another try does not change.
LASTING = re.compile(
    r"(?i)does[ _]?not[ _]?exist|not found|permission|denied|unauthorized|forbidden|invalid"
)

_kept: dict[str, tuple[float, str]] = {}
_lock = threading.Lock()


class AwayError(SettingsError):
    """Who keeps a secret does not answer."""


def value(reference: str) -> str:
    """The value behind `keyvault:VAULT/NAME[/VERSION]` or `databricks:SCOPE/KEY`.

    VAULT is a name, or the host of a vault in another cloud. Raises SettingsError, which says what
    to do.
    """
    kind, _, where = reference.partition(":")
    place, _, name = where.partition("/")
    with _lock:
        asked, last = _kept.get(reference, (None, None))
        if asked is not None and last is not None and time.monotonic() - asked < SECONDS:
            return last
        try:
            ask = _key_vault if kind == "keyvault" else _scope
            last = ask(reference, place, name)
        except AwayError:
            if last is None:
                raise
        _kept[reference] = time.monotonic(), last
    return last


def _key_vault(reference: str, vault: str, name: str) -> str:
    # Plain HTTPS by the library that azure-identity stands on: the vault's own would add only this.
    try:
        from azure.core import PipelineClient
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
        from azure.core.rest import HttpRequest
    except ImportError:
        raise SettingsError(
            f"secret {reference}: package azure-identity is not installed: pip install "
            "azure-identity, or use another kind of reference (env:, file:)"
        ) from None

    logging.getLogger("azure").addHandler(logging.NullHandler())
    host = vault if "." in vault else f"{vault}.vault.azure.net"
    # A token is for the cloud that the host is in, and of no use to another host.
    scope = f"https://{host.partition(':')[0].partition('.')[2]}/.default"
    policies = [
        RetryPolicy(retry_total=TRIES - 1, retry_backoff_factor=0.2),
        BearerTokenCredentialPolicy(_credential(), scope),
    ]
    url = f"https://{host}/secrets/{name}"
    request = HttpRequest("GET", url, params={"api-version": API_VERSION})
    client: PipelineClient[Any, Any] = PipelineClient(url, policies=policies)
    try:
        with client:
            answer = client.send_request(request, connection_timeout=CONNECT_SECONDS)
            code, body = answer.status_code, answer.json() if answer.content else {}
    except ClientAuthenticationError as error:
        raise SettingsError(
            f"secret {reference}: no token for {scope}: {' '.join(error.message.split())}: give "
            "this machine an identity, or set what azure-identity reads (AZURE_CLIENT_ID …)"
        ) from None
    except (AzureError, ValueError) as error:
        raise AwayError(
            f"secret {reference}: {host} does not answer: {' '.join(str(error).split())}: correct "
            "the name, or let this machine reach it"
        ) from None
    if code == 200:
        if not isinstance(body, dict) or not isinstance(body.get("value"), str):
            raise AwayError(
                f"secret {reference}: {host} answers 200 without a secret, as no vault does: is "
                "that a proxy? Let this machine reach the vault itself"
            )
        return str(body["value"])
    said = (body.get("error") or {}).get("message", "") if isinstance(body, dict) else ""
    said = f"{host} answers {code} {said.splitlines()[0] if said else ''}".rstrip()
    if code in (401, 403):
        raise SettingsError(
            f"secret {reference}: {said}: give the identity the role Key Vault Secrets User there"
        )
    if code == 404:
        raise SettingsError(f"secret {reference}: {said}: put it there, or correct the name")
    raise AwayError(f"secret {reference}: {said}: try again")


def _credential() -> TokenCredential:
    """Whom azure-identity finds: what opens the vault cannot be in it."""
    from lakehouse.login import credential
    from lakehouse.settings import Identity

    return credential(Identity())


def _scope(reference: str, scope: str, key: str) -> str:
    try:
        # A runtime brings it; elsewhere it asks the workspace of DATABRICKS_HOST.
        from databricks.sdk.runtime import dbutils
    except ImportError:
        raise SettingsError(
            f"secret {reference}: this is no Databricks Runtime: use another kind of reference "
            "here (env:, file:, keyvault:), or install databricks-sdk and set DATABRICKS_HOST"
        ) from None
    try:
        return str(dbutils.secrets.get(scope=scope, key=key))
    except Exception as error:
        # Of the runtime's own kinds, which are not to be had here.
        said = f"secret {reference}: {reason(str(error))}"
        if not LASTING.search(str(error)):
            raise AwayError(f"{said}: try again") from None
        raise SettingsError(
            f"{said}: put it there (databricks secrets put-secret {scope} {key}), or let this "
            "job's user read the scope"
        ) from None
