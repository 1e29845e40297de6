"""What TLS and logins become for Python's client and for Java's, and what is refused before."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from lakehouse import kafka, login
from lakehouse import settings as settings_files
from lakehouse.errors import BrokerError, SettingsError
from lakehouse.settings import Broker, Identity, Settings
from tests.helpers import free_port
from tests.secured import SCOPE, Authority, Tokens

HUBS = "namespace.example.net:9093"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """With what has to be escaped in a line of Java's login configuration."""
    value = f'a"b\\c={uuid.uuid4().hex}'
    monkeypatch.setenv("TEST_SECRET", value)
    return value


def by_password(**more: Any) -> Broker:
    return Broker(
        bootstrap=HUBS,
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="$ConnectionString",
        sasl_password="env:TEST_SECRET",
        **more,
    )


def by_token(**more: Any) -> Broker:
    return Broker(
        bootstrap=HUBS, security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", **more
    )


def principal(**more: Any) -> Identity:
    return Identity(tenant_id="t", client_id="c", client_secret="env:TEST_SECRET", **more)


def test_a_connection_string_for_both_clients(secret: str, authority: Authority) -> None:
    broker = by_password(
        ssl_ca=str(authority.ca), sasl_login_module="shaded.plain.PlainLoginModule"
    )
    python = login.python_options(broker, Identity())
    assert python["sasl.mechanism"] == "PLAIN"
    assert (python["sasl.username"], python["sasl.password"]) == ("$ConnectionString", secret)
    assert python["enable.ssl.certificate.verification"] is True
    assert python["ssl.endpoint.identification.algorithm"] == "https"
    assert python["ssl.ca.location"] == str(authority.ca)
    java = login.spark_options(broker, Identity())
    quoted = secret.replace("\\", "\\\\").replace('"', '\\"')
    assert java["kafka.sasl.jaas.config"] == (
        f'shaded.plain.PlainLoginModule required username="$ConnectionString" password="{quoted}";'
    )
    assert java["kafka.ssl.enabled.protocols"] == "TLSv1.3,TLSv1.2"
    assert java["kafka.ssl.endpoint.identification.algorithm"] == "https"
    assert java["kafka.ssl.truststore.certificates"] == authority.ca.read_text()


def test_a_service_principal_for_spark(secret: str, authority: Authority) -> None:
    identity = principal(ssl_ca=str(authority.ca), authority="login.example.net")
    java = login.spark_options(by_token(), identity)
    assert java["kafka.sasl.oauthbearer.token.endpoint.url"] == (
        "https://login.example.net/t/oauth2/v2.0/token"
    )
    assert java["kafka.sasl.login.callback.handler.class"] == login.LOGIN_CALLBACK
    jaas = java["kafka.sasl.jaas.config"]
    assert jaas.startswith(f'{login.LOGIN_MODULES["OAUTHBEARER"]} required clientId="c" ')
    assert 'scope="https://namespace.example.net/.default"' in jaas
    assert "\n" not in jaas, "Java reads a quoted text to the end of its line"
    assert secret not in repr(identity)
    with pytest.raises(SettingsError, match=r"identity\.client_secret"):
        login.spark_options(by_token(), Identity())
    own = login.spark_options(by_token(sasl_login_callback="own.Handler"), Identity())
    assert own["kafka.sasl.login.callback.handler.class"] == "own.Handler"
    assert "kafka.sasl.oauthbearer.token.endpoint.url" not in own


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("broker: {security_protocol: SASL_PLAINTEXT}", "broker.security_protocol"),
        ("broker: {security_protocol: SASL_SSL, bootstrap: 'h:1'}", "broker: .*go together"),
        ("broker: {sasl_mechanism: PLAIN, bootstrap: 'h:1'}", "broker: .*go together"),
        ("broker: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN}", "broker: .*bootstrap"),
        (
            "broker: {bootstrap: 'h:1', security_protocol: SASL_SSL, sasl_mechanism: OAUTHBEARER, "
            "sasl_login_module: org.apache.kafka.common.security.plain.PlainLoginModule}",
            "broker: .*sasl_login_module",
        ),
        ("identity: {client_secret: 'env:X'}", "identity: .*tenant_id and client_id"),
    ],
)
def test_half_a_login_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        settings_files.load(str(path))


def test_what_is_missing_is_named(secret: str, tmp_path: Path) -> None:
    assert secret
    missing = by_password(ssl_ca=str(tmp_path / "none.pem"))
    for options in (login.python_options, login.spark_options):
        with pytest.raises(SettingsError, match=r"broker\.ssl_ca: .*none\.pem: No such file"):
            options(missing, Identity())


def test_a_library_that_is_not_installed_is_named(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert secret
    monkeypatch.setitem(sys.modules, "azure.core.exceptions", None)
    with pytest.raises(SettingsError, match=r"azure-identity: install headwater\[azure\]"):
        login.python_options(by_token(), principal())


def test_tokens_are_kept_renewed_and_refused_in_one_line(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Tokens(tmp_path, authority)
    identity = Identity(
        tenant_id=endpoint.tenant,
        client_id=endpoint.client,
        client_secret="env:TEST_SECRET",
        authority=endpoint.host,
        ssl_ca=str(authority.ca),
    )
    try:
        monkeypatch.setenv("TEST_SECRET", f"{endpoint.secret}x")
        with pytest.raises(BrokerError) as wrong:
            login.token(identity, SCOPE)
        said = str(wrong.value)
        for part in (endpoint.host, endpoint.client, "AADSTS7000215", "client_secret", "renew"):
            assert part in said
        assert endpoint.secret not in said
        assert "\n" not in said
        # The secret was put right where it is kept: it counts from the next call on.
        monkeypatch.setenv("TEST_SECRET", endpoint.secret)
        first, ends = login.token(identity, SCOPE)
        assert 3_500 < ends - time.time() <= 3_600
        asked = endpoint.asked
        assert login.token(identity, SCOPE)[0] == first
        assert endpoint.asked == asked, "a token is asked for once"

        endpoint.lifetime = 30
        short, _ = login.token(identity, "api://other/.default")
        assert login.token(identity, "api://other/.default")[0] != short, "one that ends is renewed"
        endpoint.lifetime = -5
        with pytest.raises(BrokerError, match=r"had ended \d s before it came: set the clock"):
            login.token(identity, "api://third/.default")
    finally:
        endpoint.stop()


@pytest.mark.long
def test_who_gives_tokens_is_not_trusted_unseen(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library tries again for some seconds."""
    endpoint = Tokens(tmp_path, authority)
    monkeypatch.setenv("TEST_SECRET", endpoint.secret)
    identity = principal(authority=endpoint.host)
    try:
        with pytest.raises(BrokerError, match="certificate verify failed"):
            login.token(identity, SCOPE)
    finally:
        endpoint.stop()
    assert endpoint.asked == 0


def test_nothing_older_than_tls_1_2_is_spoken(
    authority: Authority, settings: Settings, secret: str
) -> None:
    """A server of this machine that has nothing newer: the client does not go down to it."""
    assert secret
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    spoken: list[str | None] = []
    port = free_port()
    listening = threading.Event()

    def serve() -> None:
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(10)
            listening.set()
            try:
                with context.wrap_socket(server.accept()[0], server_side=True) as connection:
                    spoken.append(connection.version())
            except OSError as error:
                spoken.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    assert listening.wait(10)
    broker = by_password(ssl_ca=str(authority.ca)).model_copy(
        update={"bootstrap": f"127.0.0.1:{port}"}
    )
    there = settings.model_copy(update={"broker": broker})
    client = kafka.client(AdminClient, there, kafka.Troubles())
    with suppress(KafkaException):
        client.list_topics(timeout=1)
    thread.join(15)
    [said] = spoken
    assert "UNSUPPORTED_PROTOCOL" in str(said)
