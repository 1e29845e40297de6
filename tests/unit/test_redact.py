"""No credential in what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse import redact
from lakehouse.redact import redacted, remember

# Planted.
PLANTED = "not/a+secret=="


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_known", set())


@pytest.mark.parametrize(
    "text",
    [
        f"Endpoint=sb://ns.example.net/;SharedAccessKeyName=Root;SharedAccessKey={PLANTED};x=1",
        f"DefaultEndpointsProtocol=https;AccountKey={PLANTED};EndpointSuffix=example.net",
        f"jdbc:mysql://host:3306/db?user=u&password={PLANTED}&useSSL=true",
        f'org.apache.PlainLoginModule required username="u" password="{PLANTED}";',
        f"mysql://someone:{PLANTED.replace('/', '_')}@host/db",
        f"contracts: no folder https:/someone:{PLANTED.replace('/', '_')}@host/contracts",
        f"https://account.example.net/c?sv=1&sig={PLANTED}&se=2",
        f"Authorization: Bearer {PLANTED}",
        f"redis://:{PLANTED}@host",
        f"fs.azure.account.key.name.dfs.core.example.net={PLANTED}",
        f"api-key={PLANTED}",
        json.dumps({"client_secret": PLANTED, "sasl.password": PLANTED}),
        f"client_secret='{PLANTED}'",
        f"TOKEN = {PLANTED}",
        f"password: {PLANTED}",
        f"X-Api-Key: {PLANTED}, more",
        f"AccountKey: {PLANTED}",
        f"headwater --mysql-password {PLANTED} publish",
        f"<password>{PLANTED}</password>",
        f"sasl_password => {PLANTED}",
        json.dumps(json.dumps({"password": PLANTED, "user": "u"})),
        f"Pwd={{{PLANTED};with more}};Server=s",
        f"-----BEGIN RSA PRIVATE KEY-----\n{PLANTED}\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    for form in (PLANTED, PLANTED.replace("/", "_")):
        assert form not in redacted(text)
    assert redact.MASK in redacted(text)


def test_a_token_of_its_own_is_masked() -> None:
    parts = ("eyJ" + "a1" * 8, "b2" * 8, "c3" * 8)
    assert redacted(f"refused ({'.'.join(parts)}): expired") == f"refused ({redact.MASK}): expired"


def test_what_is_secret_is_masked_to_its_end() -> None:
    assert redacted("Pwd={My;Pass1};Server=s") == f"Pwd={redact.MASK};Server=s"
    assert redacted('{"sasl.password": 12345678}') == f'{{"sasl.password":{redact.MASK}}}'
    token = "dapi" + "0a" * 16
    assert redacted(f"refused {token}: gone") == f"refused {redact.MASK}: gone"


@pytest.mark.parametrize(
    "text",
    [
        "broker.sasl_password: wanted with a sasl_mechanism",
        "secret env:EVENTHUB_CONNECTION_STRING: no environment variable",
        "topic tokens partition 1: offsets 70 to 74 (5 records)",
        "azure.yml: broker.sasl_password: String should match pattern '^(env|file):.+$'",
        "see https://example.org/a@b and abfss://c@account.example.net/x",
        "design=1 max_tokens=5 config=x",
        "mysql.password: env:DW_PASSWORD_2, and adls.account_key: keyvault:vault/name-1",
        "token: 3 of them were asked for",
        "wanted: --password NAME or --token",
    ],
)
def test_sentences_about_credentials_stay(text: str) -> None:
    assert redacted(text) == text


@given(
    secret=st.text(min_size=redact.SHORTEST).filter(lambda s: len(s.strip()) >= redact.SHORTEST),
    before=st.text(max_size=5),
    after=st.text(max_size=5),
)
def test_a_resolved_secret_is_masked_in_every_form(secret: str, before: str, after: str) -> None:
    redact._known.clear()
    remember(secret)
    value = secret.strip()
    if value.isalnum() and len(value) < redact.LONG:
        before, after = f"{before} ", f" {after}"
    for form in (value, quote(value, safe=""), json.dumps(value)[1:-1]):
        for clean in (redacted, redact.without_known):
            assert form not in clean(f"{before}{form}{after}").replace(redact.MASK, "")


def test_a_simple_secret_breaks_no_number_and_no_word() -> None:
    remember("123456")
    remember("headwater")
    assert redact.without_known('{"rows": 1234567, "of": "headwaters"}') == (
        '{"rows": 1234567, "of": "headwaters"}'
    )
    assert redact.without_known("refused: headwater") == f"refused: {redact.MASK}"


def test_the_key_within_a_connection_string_is_known_by_itself() -> None:
    remember(f"Endpoint=sb://ns.example.net/;SharedAccessKeyName=Root;SharedAccessKey={PLANTED}")
    assert redacted(f"refused: {PLANTED}") == f"refused: {redact.MASK}"


SCRIPT = """
import sys
import click
from lakehouse.command import run
from lakehouse.errors import BrokerError
from lakehouse.settings import resolve_secret

@click.command()
@click.argument("how")
def command(how):
    value = resolve_secret("file:" + sys.argv[2])
    if how == "error":
        raise BrokerError(f"refused {value}")
    if how == "crash":
        raise ValueError(f"password={value}")
    click.echo(f"row: {value} token=abcdefgh")
    click.echo(f"said: {value} token=abcdefgh", err=True)

run(command, sys.argv[1:2])
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("how", ["error", "crash", "print"])
def test_nothing_that_a_command_prints_holds_one(how: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{PLANTED}\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, str(tmp_path / "secret")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert PLANTED not in done.stdout + done.stderr
    assert redact.MASK in done.stderr
    assert (done.returncode == 0) == (how == "print")
    if how == "print":
        assert done.stdout == f"row: {redact.MASK} token=abcdefgh\n", "data is not guessed at"
