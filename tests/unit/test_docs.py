"""The environments that the docs show are environments, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

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


def test_what_the_deployment_names_is_in_the_bundle() -> None:
    text = (ROOT / "docs/deploy.md").read_text()
    bundle = yaml.safe_load((ROOT / "databricks.yml").read_text())
    jobs: dict[str, dict[str, object]] = {}
    for path in (ROOT / "resources").glob("*.yml"):
        jobs |= yaml.safe_load(path.read_text())["resources"].get("jobs", {})
    run = re.findall(r"bundle (?:run|open) -t \w+ (\w+)", text)
    assert {"smoke", "backfill", "streaming"} <= set(run) <= set(jobs)
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(jobs)
    given = set(re.findall(r"BUNDLE_VAR_(\w+)=", text)) | set(re.findall(r"--var (\w+)=", text))
    assert given <= set(bundle["variables"])
    # Nothing that prod wants is left out.
    set_by_target = set(bundle["targets"]["prod"]["variables"])
    wanted = {
        name
        for name, one in bundle["variables"].items()
        if not {"default", "lookup"} & set(one) and name not in set_by_target
    }
    assert wanted <= given
    assert set(re.findall(r"-t (\w+)", text)) <= set(bundle["targets"])
    (parameters,) = re.findall(r"--params (\S+)", text)
    named = [pair.partition("=")[0] for pair in parameters.split(",")]
    declared = jobs["backfill"]["parameters"]
    assert isinstance(declared, list)
    assert named == [one["name"] for one in declared]


PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_tests_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    named = re.findall(r"`((?:tests|scripts|conf|lakehouse|resources)/[\w/.]+)`", text)
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert [link for link in links if link and not (folder / link).exists()] == []
    assert [p for p in named if "NAME" not in p and not (ROOT / p).exists()] == []
    assert set(re.findall(r"\btest_\w+\.py", text)) <= there
