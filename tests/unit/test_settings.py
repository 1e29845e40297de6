"""Settings: sources, their order, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse import kafka, settings
from lakehouse.errors import BrokerError, SettingsError


def test_variables_win_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_BROKER__BOOTSTRAP", "somewhere:9092")
    found = settings.load("local")
    assert found.broker.bootstrap == "somewhere:9092"
    assert found.broker.create_topics, "the rest is the file's"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("brokr: {}", "brokr"),
        ("broker: {bootstrp: x}", "broker.bootstrp"),
        ("stream: {state_partitions: many}", "stream.state_partitions"),
        ("stream: {state_partitions: 0}", "stream.state_partitions"),
        ("broker: {sasl_password: plain-text}", "broker.sasl_password"),
        ("- a list", "has to be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said.replace(".", "[.]")):
        settings.load(str(path))


def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_BROKER__BOOTSTRP", "x")
    with pytest.raises(SettingsError, match="HEADWATER_BROKER__BOOTSTRP"):
        settings.load("local")


def test_an_unknown_environment_lists_those_that_are() -> None:
    with pytest.raises(SettingsError, match="azure, local"):
        settings.load("moon")


def test_a_secret_is_a_reference_and_stays_out_of_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EVENTHUB_CONNECTION_STRING", raising=False)
    azure = settings.load("azure")
    with pytest.raises(SettingsError, match="EVENTHUB_CONNECTION_STRING"):
        kafka.client_options(azure)
    monkeypatch.setenv("EVENTHUB_CONNECTION_STRING", 'a"b')
    assert kafka.client_options(azure)["sasl.password"] == 'a"b'
    jaas = kafka.spark_options(azure)["kafka.sasl.jaas.config"]
    assert jaas.startswith("kafkashaded.org.apache.kafka.common.security.plain.PlainLoginModule")
    assert 'password="a\\"b"' in jaas
    assert 'a"b' not in repr(azure)


def test_no_broker_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="headwater broker start"):
        kafka.bootstrap(settings.load("local", storage=str(tmp_path)))
