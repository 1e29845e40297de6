"""How clients log in: TLS and SASL for Kafka's two clients, and tokens of Microsoft Entra ID.

The same settings make the options of Python's client and of Spark's, which is Java: a token that
Python was given cannot be renewed there, so Spark logs in by Kafka's own client-credentials flow.
"""

from __future__ import annotations

import logging
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.errors import BrokerError, SettingsError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from lakehouse.settings import Broker, Identity

TLS_VERSIONS = "TLSv1.3,TLSv1.2"
# Java's classes, by mechanism; a runtime with a copy of its own has them under another prefix.
LOGIN_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "OAUTHBEARER": "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule",
}
INSTALL = "install headwater[azure]"
LOGIN_CALLBACK = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler"


def python_options(broker: Broker, identity: Identity) -> dict[str, Any]:
    """Options for confluent-kafka: what is secret in them stays out of logs, it is for the client.

    Raises SettingsError where one is missing, and BrokerError where no token is to be had.
    """
    options: dict[str, Any] = {"security.protocol": broker.security_protocol}
    if broker.security_protocol != "PLAINTEXT":
        # What is so already unless it is switched off: said, so that it cannot come to be off.
        # Nothing older than TLS 1.2: OpenSSL 3 leaves that out at this level.
        options |= {
            "enable.ssl.certificate.verification": True,
            "ssl.endpoint.identification.algorithm": "https",
            "ssl.cipher.suites": "DEFAULT:@SECLEVEL=2",
        }
        if broker.ssl_ca:
            _certificates(broker.ssl_ca, f"{broker.key}.ssl_ca")
            options["ssl.ca.location"] = broker.ssl_ca
    if broker.sasl_mechanism:
        options["sasl.mechanism"] = broker.sasl_mechanism
    if broker.sasl_mechanism == "PLAIN":
        options |= {"sasl.username": broker.sasl_username, "sasl.password": password(broker)}
    if broker.sasl_mechanism == "OAUTHBEARER":
        # The client would wait ten seconds for a first token that does not come, and not say why.
        token(identity, scope(broker))
        options["oauth_cb"] = lambda _: token(identity, scope(broker))
    return options


def spark_options(broker: Broker, identity: Identity) -> dict[str, str]:
    """Options for Spark's Kafka source. Raises SettingsError where one is missing."""
    options: dict[str, str] = {"security.protocol": broker.security_protocol}
    if broker.security_protocol != "PLAINTEXT":
        options |= {
            "ssl.enabled.protocols": TLS_VERSIONS,
            "ssl.endpoint.identification.algorithm": "https",
            **_trusted(broker.ssl_ca, f"{broker.key}.ssl_ca"),
        }
    if broker.sasl_mechanism:
        options["sasl.mechanism"] = broker.sasl_mechanism
        module = broker.sasl_login_module or LOGIN_MODULES[broker.sasl_mechanism]
    if broker.sasl_mechanism == "PLAIN":
        login = {"username": broker.sasl_username, "password": password(broker)}
        options["sasl.jaas.config"] = _jaas(module, login)
    if broker.sasl_mechanism == "OAUTHBEARER":
        options["sasl.login.callback.handler.class"] = broker.sasl_login_callback or LOGIN_CALLBACK
        if identity.client_secret:
            options["sasl.oauthbearer.token.endpoint.url"] = (
                f"https://{identity.authority}/{identity.tenant_id}/oauth2/v2.0/token"
            )
            login = {
                "clientId": identity.client_id,
                "clientSecret": _secret(identity.client_secret),
                "scope": scope(broker),
                **_trusted(identity.ssl_ca, "identity.ssl_ca"),
            }
        elif broker.sasl_login_callback:
            login = {}
        else:
            raise SettingsError(
                "identity.client_secret: Spark's Kafka client logs in with a service principal's "
                f"secret; where there is none, {broker.key}.sasl_login_callback has to name a "
                "class that brings tokens of its own"
            )
        options["sasl.jaas.config"] = _jaas(module, login)
    return {f"kafka.{name}": value for name, value in options.items()}


def scope(broker: Broker) -> str:
    """What a token is asked for: the namespace that the broker is."""
    host = broker.bootstrap.split(",")[0].rpartition(":")[0]
    return broker.oauth_scope or f"https://{host}/.default"


def token(identity: Identity, scope: str) -> tuple[str, float]:
    """A token, and when it ends in s since 1970. It is the last one until that is about to end.

    Raises BrokerError, which says why there is none, and SettingsError without azure-identity.
    """
    try:
        from azure.core.exceptions import AzureError
    except ImportError:
        raise SettingsError(f"OAUTHBEARER wants azure-identity: {INSTALL}") from None
    try:
        found = credential(identity).get_token(scope)
    except AzureError as error:
        said = " ".join(error.message.split())
        raise BrokerError(
            f"no token for {scope} from {identity.authority} as {_named(identity)}: {said}: "
            f"correct {_who(identity)}, or renew what has expired"
        ) from None
    ended = time.time() - found.expires_on
    if ended >= 0:
        raise BrokerError(
            f"the token for {scope} from {identity.authority} as {_named(identity)} had ended "
            f"{ended:,.0f} s before it came: set the clock of this machine"
        )
    return found.token, float(found.expires_on)


def credential(identity: Identity) -> TokenCredential:
    """Who this process is: the service principal that is set, else whom azure-identity finds."""
    # The secret is looked up at every call: one that was renewed counts from then on.
    secret = _secret(identity.client_secret) if identity.client_secret else None
    return _credential(identity, secret)


@cache
def _credential(identity: Identity, secret: str | None) -> TokenCredential:
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    from lakehouse.settings import Identity

    # What goes wrong is raised and told once, unless somebody listens to their log.
    logging.getLogger("azure").addHandler(logging.NullHandler())

    options: dict[str, Any] = {}
    # Else the library's own: AZURE_AUTHORITY_HOST, or Microsoft's public cloud.
    if identity.authority != Identity().authority:
        # A cloud that azure-identity does not know would be asked for at Microsoft's own.
        known = identity.authority.startswith("login.")
        options = {"authority": identity.authority, "disable_instance_discovery": not known}
    if identity.ssl_ca:
        _certificates(identity.ssl_ca, "identity.ssl_ca")
        options["connection_verify"] = identity.ssl_ca
    if secret is not None:
        return ClientSecretCredential(identity.tenant_id, identity.client_id, secret, **options)
    if identity.client_id:
        options["managed_identity_client_id"] = identity.client_id
    return DefaultAzureCredential(**options)


def remedy(broker: Broker, identity: Identity) -> str:
    """What to do where the broker refuses the login."""
    if broker.sasl_mechanism == "PLAIN":
        return (
            f"correct or renew the secret {broker.sasl_password} ({broker.key}.sasl_password) "
            f"of user {broker.sasl_username}"
        )
    if broker.sasl_mechanism == "OAUTHBEARER":
        return (
            f"give {_named(identity)} the role to read and send there, or correct "
            f"{_who(identity)} and the scope ({scope(broker)})"
        )
    return f"set {broker.key}.sasl_mechanism and what belongs to it"


def _named(identity: Identity) -> str:
    return f"client {identity.client_id}" if identity.client_id else "the default identity"


def _who(identity: Identity) -> str:
    if identity.client_secret:
        return f"identity.tenant_id, client_id and client_secret ({identity.client_secret})"
    return "the identity of this machine, or set identity.tenant_id, client_id and client_secret"


def password(broker: Broker) -> str:
    """What sasl_password refers to: a connection string, for Event Hubs. Raises SettingsError."""
    if broker.sasl_password is None:
        raise SettingsError(f"{broker.key}.sasl_password: wanted with sasl_mechanism PLAIN")
    return _secret(broker.sasl_password)


def _secret(reference: str) -> str:
    # The settings' own imports are not for `--help`.
    from lakehouse.settings import resolve_secret

    return resolve_secret(reference)


def _certificates(path: str, key: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not a file of PEM certificates"
        raise SettingsError(f"{key}: {path}: {said}") from None


def _trusted(path: str, key: str) -> dict[str, str]:
    """Java's options for trusting the certificates of a file, which executors do not have."""
    if not path:
        return {}
    return {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": _certificates(path, key)}


def _jaas(module: str, options: dict[str, str]) -> str:
    quoted = (f' {name}="{_quoted(value)}"' for name, value in options.items())
    return f"{module} required{''.join(quoted)};"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
