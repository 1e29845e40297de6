"""What stands in for Event Hubs and Entra ID: a broker with TLS and logins, and who gives tokens.

All of it is made when the tests start, certificates and credentials too, and is on loopback.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from headwater import broker
from lakehouse import settings as settings_files
from lakehouse.settings import Broker, Identity
from tests.helpers import free_port

USER = "$ConnectionString"
SCOPE = "api://events/.default"
KEY_ID = "of-the-tests"
# What the vault lets in.
TOKEN = "a-token-of-the-tests"


class Authority:
    """Certificates: `ca` (PEM) signs `server` (PEM, with its key) for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Headwater tests")])
        ca = self._certificate(name, name, self.key, x509.BasicConstraints(True, None))
        key = rsa.generate_private_key(65537, 2048)
        host = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        server = self._certificate(host, name, key, address)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        pem = serialization.Encoding.PEM
        self.ca, self.server = folder / "ca.pem", folder / "server.pem"
        self.ca.write_bytes(ca.public_bytes(pem))
        self.server.write_bytes(server.public_bytes(pem) + private)

    def _certificate(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: rsa.RSAPrivateKey,
        extension: x509.ExtensionType,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self.key, hashes.SHA256())
        )


class Tokens:
    """A token endpoint that answers as Entra ID does, by TLS.

    lifetime: of the tokens that it gives, in s. refuses: what it says instead, where not empty.
    asked: how often it was asked for one. jwks: a file of the key that signs them.
    """

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.tenant, self.client, self.secret = (uuid.uuid4().hex for _ in range(3))
        self.lifetime, self.refuses, self.asked = 3600.0, "", 0
        self._key = rsa.generate_private_key(65537, 2048)
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [{**public, "kid": KEY_ID, "use": "sig"}]}))
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, endpoint.configuration())

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                form = parse_qs(self.rfile.read(length).decode())
                given = form.get("client_id", [""])[0], form.get("client_secret", [""])[0]
                if basic := self.headers.get("Authorization"):
                    text = base64.b64decode(basic.removeprefix("Basic ")).decode()
                    given = text.partition(":")[0], text.partition(":")[2]
                self._answer(*endpoint.give(given, form.get("scope", [""])[0]))

            def _answer(self, code: int, body: dict[str, object]) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """A test's own output is enough."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.server)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.issuer = f"https://{self.host}/{self.tenant}/v2.0"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def configuration(self) -> dict[str, object]:
        base = f"https://{self.host}/{self.tenant}/oauth2/v2.0"
        return {
            "issuer": self.issuer,
            "token_endpoint": f"{base}/token",
            "authorization_endpoint": f"{base}/authorize",
        }

    def give(self, given: tuple[str, str], scope: str) -> tuple[int, dict[str, object]]:
        self.asked += 1
        said = self.refuses
        if given != (self.client, self.secret):
            said = "AADSTS7000215: Invalid client secret provided."
        if said:
            return 401, {"error": "invalid_client", "error_description": said}
        now = time.time()
        claims = {
            "iss": self.issuer,
            "aud": scope.removesuffix("/.default"),
            "sub": self.client,
            "scope": scope,
            "jti": uuid.uuid4().hex,
            "iat": int(now),
            "exp": int(now + self.lifetime),
        }
        signed = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": KEY_ID})
        body = {"token_type": "Bearer", "expires_in": int(self.lifetime), "access_token": signed}
        return 200, body

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Vault:
    """What a Key Vault answers: `secrets` by name; `codes` are answered first, one a request.

    Under /identity it answers as an identity that is managed by App Service does.
    """

    def __init__(self, authority: Authority) -> None:
        self.secrets: dict[str, Any] = {}
        self.codes: list[int] = []
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                outer.asked.append(address.path)
                name = address.path.removeprefix("/secrets/")
                code, body = 200, dict[str, Any](value=outer.secrets.get(name))
                if outer.codes:
                    code, body = outer.codes.pop(0), {"error": {"message": "said\nthe vault"}}
                elif address.path == "/identity":
                    expires = str(int(time.time()) + 3600)
                    body = {"access_token": TOKEN, "expires_on": expires, "token_type": "Bearer"}
                elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                    code, body = 401, {}
                elif parse_qs(address.query) != {"api-version": ["7.4"]}:
                    code, body = 400, {}
                elif name not in outer.secrets:
                    code, body = 404, {"error": {"message": f"{name} was not found"}}
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.server)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def identity(self) -> dict[str, str]:
        """Variables by which azure-identity finds the managed identity."""
        return {"IDENTITY_ENDPOINT": f"https://{self.host}/identity", "IDENTITY_HEADER": "any"}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller_port}},\
CONNECTION://127.0.0.1:{plain},TOKEN://127.0.0.1:{oauth}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},\
CONNECTION://127.0.0.1:{plain},TOKEN://127.0.0.1:{oauth}
listener.security.protocol.map=\
PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CONNECTION:SASL_SSL,TOKEN:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={server}
connections.max.reauth.ms=3600000
listener.name.connection.sasl.enabled.mechanisms=PLAIN
listener.name.connection.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.token.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.token.oauthbearer.sasl.server.callback.handler.class=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.token.sasl.oauthbearer.jwks.endpoint.url={jwks}
listener.name.token.sasl.oauthbearer.expected.audience={audience}
listener.name.token.sasl.oauthbearer.expected.issuer={issuer}
listener.name.token.sasl.oauthbearer.clock.skew.seconds=0
"""


class Secured:
    """A running broker with three listeners, and what it takes to be let in.

    plain: without TLS or login. password: of USER at the listener for PLAIN.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.tokens = Tokens(folder, self.authority)
        # As a connection string looks, quotes and backslashes for good measure.
        self.password = f'Endpoint=sb://x/;SharedAccessKey={uuid.uuid4().hex}="\\'
        self._connection, self._token = free_port(), free_port()
        self.plain = ""

    def start(self) -> None:
        jwks = self.tokens.jwks.resolve().as_uri()
        lines = PROPERTIES.format(
            plain=self._connection,
            oauth=self._token,
            server=self.authority.server,
            user=USER,
            # A properties file has escapes of its own.
            password=escaped(self.password).replace("\\", "\\\\"),
            jwks=jwks,
            audience=SCOPE.removesuffix("/.default"),
            issuer=self.tokens.issuer,
        )
        with pytest.MonkeyPatch.context() as patch:
            # Of two lines for one property the later one counts.
            patch.setattr(broker, "PROPERTIES", broker.PROPERTIES + lines)
            allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks}"
            patch.setenv("JAVA_TOOL_OPTIONS", allowed)
            self.plain = str(broker.start(self._settings()).bootstrap)

    def stop(self) -> None:
        broker.stop(self._settings())
        self.tokens.stop()

    def _settings(self) -> settings_files.Settings:
        return settings_files.load("local", storage=str(self.folder / "data"))

    def by_password(self, **more: str) -> Broker:
        """The listener for PLAIN. The password is looked for in the variable TEST_SECRET."""
        return Broker(
            bootstrap=f"127.0.0.1:{self._connection}",
            security_protocol="SASL_SSL",
            **{
                "sasl_mechanism": "PLAIN",
                "sasl_username": USER,
                "sasl_password": "env:TEST_SECRET",
                "ssl_ca": str(self.authority.ca),
                **more,
            },  # type: ignore[arg-type]
        )

    def by_token(self) -> Broker:
        return Broker(
            bootstrap=f"127.0.0.1:{self._token}",
            security_protocol="SASL_SSL",
            sasl_mechanism="OAUTHBEARER",
            oauth_scope=SCOPE,
            ssl_ca=str(self.authority.ca),
        )

    def identity(self) -> Identity:
        """A service principal. Its secret is looked for in the variable TEST_SECRET."""
        return Identity(
            tenant_id=self.tokens.tenant,
            client_id=self.tokens.client,
            client_secret="env:TEST_SECRET",
            authority=self.tokens.host,
            ssl_ca=str(self.authority.ca),
        )


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@contextmanager
def running(folder: Path) -> Iterator[Secured]:
    secured = Secured(folder)
    secured.start()
    try:
        yield secured
    finally:
        secured.stop()
