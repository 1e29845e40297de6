"""How Spark logs in to the storage accounts of `abfss://` URIs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lakehouse.settings import resolve_secret

if TYPE_CHECKING:
    from lakehouse.settings import Settings

TOKENS = "org.apache.hadoop.fs.azurebfs.oauth2"


def spark_options(settings: Settings) -> dict[str, str]:
    """Spark properties for the accounts of `storage` and `checkpoint_root`; none of another scheme.

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


def accounts(settings: Settings) -> list[str]:
    """The hosts of the storage accounts, `NAME.dfs.core.windows.net`, in order."""
    uris = (urlsplit(uri) for uri in (settings.storage, settings.checkpoint_root))
    return sorted({uri.hostname for uri in uris if uri.scheme == "abfss" and uri.hostname})
