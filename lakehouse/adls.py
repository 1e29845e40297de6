"""How Spark, and commands without a JVM, log in to the storage accounts of `abfss://` URIs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lakehouse.errors import HeadwaterError, StorageError
from lakehouse.settings import resolve_secret

if TYPE_CHECKING:
    from lakehouse.settings import Settings

# How object_store names itself in errors of the Delta library.
AWAY = re.compile(r"MicrosoftAzure|[Oo]bject ?[Ss]tore|Generic \w+ error")
# What is only for the eye: the library draws its errors, in colours.
DRAWN = re.compile("\x1b\\[[0-9;]*m|↳")
TOKENS = "org.apache.hadoop.fs.azurebfs.oauth2"


def spark_options(settings: Settings) -> dict[str, str]:
    """Spark properties for the accounts of `storage`, `checkpoint_root` and `synapse.staging`; none
    of another scheme.

    As hadoop-azure's documentation of the ABFS connector names them. TLS is the scheme's own, and
    1.2 at least by the JVM's default. Raises SettingsError where a secret is missing.
    """
    auth, identity = settings.adls.auth, settings.identity
    options: dict[str, str] = {}
    if auth == "key" and settings.adls.key:
        options = {"auth.type": "SharedKey", "key": resolve_secret(settings.adls.key)}
    elif auth == "service_principal" and identity.client_secret:
        options = {
            "auth.type": "OAuth",
            "oauth.provider.type": f"{TOKENS}.ClientCredsTokenProvider",
            "oauth2.client.endpoint": (
                f"https://{identity.authority}/{identity.tenant_id}/oauth2/token"
            ),
            "oauth2.client.id": identity.client_id,
            "oauth2.client.secret": resolve_secret(identity.client_secret),
        }
    elif auth == "managed_identity":
        options = {"auth.type": "OAuth", "oauth.provider.type": f"{TOKENS}.MsiTokenProvider"}
        if identity.tenant_id:
            options["oauth2.msi.tenant"] = identity.tenant_id
        if identity.client_id:
            options["oauth2.client.id"] = identity.client_id
    return {
        f"spark.hadoop.fs.azure.account.{name}.{account}": value
        for account in accounts(settings)
        for name, value in options.items()
    }


def delta_options(settings: Settings, uri: str) -> dict[str, str]:
    """Storage options of the Delta library for a table of that URI; none of another scheme.

    As object_store's documentation of Azure names them; a managed identity is what it looks for by
    itself. Raises SettingsError where a secret is missing.
    """
    names = {
        "account_key": "azure_storage_account_key",
        "tenant_id": "azure_storage_tenant_id",
        "client_id": "azure_storage_client_id",
        "client_secret": "azure_storage_client_secret",
    }
    if urlsplit(uri).scheme != "abfss":
        return {}
    return {names[key]: value for key, value in _login(settings).items()}


def file_system(settings: Settings, uri: str) -> tuple[Any, str]:
    """Arrow's file system for a URI or path, and the path in it.

    Raises SettingsError where a secret is missing.
    """
    from pyarrow import fs

    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    place = urlsplit(uri)
    if place.scheme != "abfss" or not place.hostname:
        files, path = fs.FileSystem.from_uri(uri)
        return files, path
    account = place.hostname.partition(".")[0]
    azure = fs.AzureFileSystem(account, **_login(settings))
    return azure, f"{place.username}{unquote(place.path)}"


@contextmanager
def reaching(settings: Settings, uri: str) -> Iterator[None]:
    """Has what goes wrong on the way to a URI raised as StorageError; but for what is not there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        kinds = (OSError, ValueError)
        of_arrow = type(error).__module__.startswith("pyarrow")
        if "://" not in uri or isinstance(error, HeadwaterError):
            raise
        if not of_arrow and not isinstance(error, kinds) and not AWAY.search(str(error)):
            raise
        said = " ".join(DRAWN.sub("", str(error)).split())
        raise StorageError(
            f"{uri} cannot be reached: {said[:300]}: correct the place, or the login to its "
            f"account (adls.auth, now {settings.adls.auth or 'left to this machine'}), and give "
            "that the role Storage Blob Data Contributor there"
        ) from None


def _login(settings: Settings) -> dict[str, str]:
    """What is set of a login, by the names of Arrow's AzureFileSystem."""
    auth, identity = settings.adls.auth, settings.identity
    if auth == "key" and settings.adls.key:
        return {"account_key": resolve_secret(settings.adls.key)}
    if auth == "service_principal" and identity.client_secret:
        return {
            "tenant_id": identity.tenant_id,
            "client_id": identity.client_id,
            "client_secret": resolve_secret(identity.client_secret),
        }
    if auth == "managed_identity" and identity.client_id:
        return {"client_id": identity.client_id}
    return {}


def accounts(settings: Settings) -> list[str]:
    """The hosts of the storage accounts, `NAME.dfs.core.windows.net`, in order."""
    places = (settings.storage, settings.checkpoint_root, settings.synapse.staging)
    uris = (urlsplit(uri) for uri in places)
    return sorted({uri.hostname for uri in uris if uri.scheme == "abfss" and uri.hostname})
