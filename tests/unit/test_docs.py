"""The environments that the docs show are environments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lakehouse import login
from lakehouse import settings as settings_files
from tests.helpers import ROOT

BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/event-hubs.md").read_text(), re.DOTALL)
NAMESPACE = "NAMESPACE.servicebus.windows.net"


@pytest.mark.parametrize("block", BLOCKS)
def test_an_environment_of_the_docs_makes_options_for_both_clients(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shown.yml"
    path.write_text(block)
    for name in re.findall(r"env:(\w+)", block):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setattr(login, "token", lambda *_: ("a token", 0.0))
    settings = settings_files.load(str(path))
    broker = settings.bridge.to if settings.bridge.to.bootstrap else settings.broker
    assert broker.bootstrap == f"{NAMESPACE}:9093"
    java = login.spark_options(broker, settings.identity)
    python = login.python_options(broker, settings.identity)
    assert "planted" in java["kafka.sasl.jaas.config"]
    assert python["sasl.mechanism"] == broker.sasl_mechanism
    if broker.sasl_mechanism == "OAUTHBEARER":
        assert login.scope(broker) == f"https://{NAMESPACE}/.default"


def test_there_are_some() -> None:
    assert len(BLOCKS) == 4
