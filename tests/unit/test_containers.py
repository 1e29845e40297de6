"""Dockerfiles and compose file, read and held against the sources: there is no engine here."""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import pytest
import yaml

from headwater.cli import cli
from lakehouse import settings as settings_files
from tests.helpers import ROOT

FILES = sorted((ROOT / "containers").glob("*.Dockerfile"))
# hadolint's DL3006 and DL3007: a version of three parts, and what it is built on.
PINNED = re.compile(r"[a-z/-]+:[0-9]+\.[0-9]+\.[0-9]+[\w.-]*")
KNOWN = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "VOLUME", "WORKDIR"
}  # fmt: skip


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and rest of each instruction, comments left out and lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            found.append((name, " ".join(rest.split())))
    return found


def wrong(text: str) -> list[str]:
    """What an image must not be: unpinned, root's, without hashes, made of what is not there."""
    return list(_wrong(instructions(text)))


def _wrong(listed: list[tuple[str, str]]) -> Iterator[str]:
    arguments: dict[str, str] = {}
    stages: set[str] = set()
    user = ""
    for name, rest in listed:
        if name not in KNOWN:
            yield f"{name} is not used here"
        if name == "ARG":
            key, _, value = rest.partition("=")
            arguments[key] = value
        elif name == "FROM":
            image, _, stage = rest.partition(" AS ")
            image = re.sub(r"\$\{(\w+)\}", lambda m: arguments.get(m[1], ""), image)
            if image not in stages and not PINNED.fullmatch(image):
                yield f"FROM {image}: no version"
            stages.add(stage)
            user = ""
        elif name == "USER":
            user = rest
        elif name == "COPY":
            yield from _copied(rest, stages)
        elif name == "ENV":
            if re.search(r"(?i)password|secret|token|_key", rest):
                yield f"ENV {rest}: no place for a secret"
        elif name == "RUN":
            for command in re.split(r"&&|;", rest):
                words = shlex.split(command)
                if words[0] in {"sudo", "curl", "wget", "apt-get"}:
                    yield f"RUN {words[0]}: nothing is fetched without a hash"
                if words[:2] == ["pip", "install"]:
                    if "--no-cache-dir" not in words:
                        yield "pip: --no-cache-dir is missing"
                    if not {"--require-hashes", "--no-deps"} & set(words):
                        yield "pip: neither --require-hashes nor --no-deps"
        elif name in {"ENTRYPOINT", "CMD"} and not rest.startswith("["):
            yield f"{name}: a shell would keep signals to itself"
    # DL3002; a number, so that it can be seen not to be root.
    if not user.isdigit() or int(user) == 0:
        yield f"USER {user or 'root'}: has to be a number other than 0"


def _copied(rest: str, stages: set[str]) -> Iterator[str]:
    words = shlex.split(rest)
    if words[0].startswith("--from="):
        if words[0].removeprefix("--from=") not in stages:
            yield f"COPY {words[0]}: no such stage"
        return
    for source in words[:-1]:
        if not (ROOT / source).exists():
            yield f"COPY {source}: not there"
        elif not _let_in(source):
            yield f"COPY {source}: .dockerignore leaves it out"


def _let_in(source: str) -> bool:
    rules = [r for r in (ROOT / ".dockerignore").read_text().split("\n") if r and r[0] != "#"]
    let_in = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        if pattern == "*" or any(
            fnmatch.fnmatch(str(part), pattern) for part in (Path(source), *Path(source).parents)
        ):
            let_in = rule.startswith("!")
    return let_in


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_an_image_is_pinned_small_and_nobodys(path: Path) -> None:
    text = path.read_text()
    assert wrong(text) == []
    listed = instructions(text)
    packages = {one.name for one in ROOT.iterdir() if (one / "__init__.py").exists()}
    packages -= {"tests", "benchmarks", "scripts"}
    copied = {words.split()[0] for name, words in listed if name == "COPY"}
    assert packages <= copied
    *_, entry = [json.loads(rest) for name, rest in listed if name == "ENTRYPOINT"]
    *_, command = [json.loads(rest) for name, rest in listed if name == "CMD"]
    assert f'"{entry[0]}=' in (ROOT / "setup.py").read_text()
    assert command[-1] == "--help"
    assert cli.get_command(click.Context(cli), command[0]) is not None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("3.11.13-slim-bookworm", "latest", "FROM python:latest: no version"),
        ("USER 10001", "USER root", "USER root"),
        ("USER 10001\n", "", "USER root"),
        ("COPY pyproject.toml", "COPY project.toml", "COPY project.toml: not there"),
        ("COPY setup.py", "COPY Makefile setup.py", "COPY Makefile: .dockerignore"),
        ("--from=build", "--from=built", "no such stage"),
        ("--require-hashes", "", "neither --require-hashes"),
        ("--no-cache-dir", "", "--no-cache-dir is missing"),
        ("RUN python", "RUN curl x && python", "RUN curl"),
        ('ENTRYPOINT ["headwater"]', "ENTRYPOINT headwater", "keep signals"),
        ("PYTHONUNBUFFERED=1", "MYSQL_PASSWORD=1", "no place for a secret"),
        ("WORKDIR /data", "ADD . /data", "ADD is not used"),
    ],
)
def test_what_is_wrong_with_one_is_found(old: str, new: str, said: str) -> None:
    text = (ROOT / "containers/producer.Dockerfile").read_text()
    text = text.replace(
        "COPY setup.py pyproject.toml ./", "COPY setup.py ./\nCOPY pyproject.toml ./"
    )
    assert wrong(text) == []
    assert old in text
    assert any(said in line for line in wrong(text.replace(old, new)))


HADOLINT = ROOT / ".venv/bin/hadolint"
# On other systems than Linux on x86-64 there is no package of it.
on_its_system = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="hadolint has no wheel here"
)


def linted(text: str, folder: Path) -> list[str]:
    """What hadolint finds in an image's file: its rules' codes."""
    file = folder / "Dockerfile"
    file.write_text(text)
    command = [str(HADOLINT), "--no-color", "--format", "json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return [finding["code"] for finding in json.loads(done.stdout)]


@on_its_system
@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_hadolint_finds_nothing(path: Path, tmp_path: Path) -> None:
    assert linted(path.read_text(), tmp_path) == []


@on_its_system
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("USER 10001\n", "USER root\n", "DL3002"),
        ("${PYTHON}\nRUN", "python:latest\nRUN", "DL3007"),
        ("WORKDIR /data", "WORKDIR data", "DL3000"),
        ("CMD [", 'CMD ["x"]\nCMD [', "DL4003"),
        ("RUN useradd", "RUN cd /tmp && useradd", "DL3003"),
        ("RUN useradd", "RUN cat /x | sort && useradd", "DL4006"),
        ("RUN useradd", "RUN apt-get install curl && useradd", "DL3008"),
        ('ENTRYPOINT ["headwater"]', "ENTRYPOINT headwater", "DL3025"),
    ],
)
def test_hadolint_finds_what_is_wrong(old: str, new: str, code: str, tmp_path: Path) -> None:
    text = (ROOT / "containers/producer.Dockerfile").read_text()
    assert old in text
    assert code in linted(text.replace(old, new), tmp_path)


def test_both_are_built_of_the_versions_that_are_tested() -> None:
    tested = _pins("local")
    for name in ("producer", "spark"):
        held = _pins(name)
        assert held
        assert held.items() <= tested.items()
    assert "pyspark" not in _pins("producer")
    pom = (ROOT / "pom.xml").read_text()
    assert f"<spark.version>{_pins('spark')['pyspark']}</spark.version>" in pom


def _pins(name: str) -> dict[str, str]:
    text = (ROOT / f"requirements/{name}.lock").read_text()
    return dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.MULTILINE))


@pytest.fixture
def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def test_the_services_are_pinned_or_built_here(composed: dict[str, Any]) -> None:
    assert set(composed["services"]) >= {"broker", "warehouse", "stream", "produce", "audit"}
    for name, service in composed["services"].items():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]) in FILES, name
        else:
            assert PINNED.fullmatch(service["image"]), name
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in composed["services"][other], name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in composed["volumes"]
        for secret in service.get("secrets", []):
            assert secret in composed["secrets"]
        assert "privileged" not in service


def test_their_commands_and_settings_are_headwaters(composed: dict[str, Any]) -> None:
    ours = {name: one for name, one in composed["services"].items() if "build" in one}
    assert {"stream", "produce", "reconcile", "gold", "publish", "audit"} == set(ours)
    for name, service in ours.items():
        command = cli.get_command(click.Context(cli), service["command"][0])
        assert command is not None
        command.make_context(name, list(service["command"][1:]))
        with patch.dict(os.environ, service["environment"]):
            settings = settings_files.load("local")
        assert settings.broker.bootstrap == "broker:9092"
        assert settings.mysql.host == "warehouse"
        assert str(settings.mysql.password).startswith("file:/run/secrets/")
        assert settings.storage == "/data"
        assert service["volumes"] == ["data:/data"]


def test_secrets_of_a_clone_are_not_committed(composed: dict[str, Any]) -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for secret in composed["secrets"].values():
        assert Path(secret["file"]).name in ignored


ONLY = """
import importlib.metadata as metadata, sys
allowed = set(sys.argv[1].split())
of_module = metadata.packages_distributions()

class Others:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        owners = {owner.lower().replace("_", "-") for owner in of_module.get(top, [])}
        if owners and not owners & allowed:
            raise ModuleNotFoundError(f"No module named {name!r}: not in the image", name=name)

sys.meta_path.insert(0, Others())
from headwater.cli import cli
cli(sys.argv[2:], standalone_mode=False)
"""


@pytest.mark.parametrize(
    "command",
    [
        ["produce", "--events", "10"],
        ["produce", "--from", "FILE"],
        ["bridge", "--available-now"],
    ],
)
def test_the_image_of_the_producer_has_all_that_its_commands_want(
    command: list[str], tmp_path: Path
) -> None:
    """Up to the broker, which is not there, with nothing to import but what its lock has."""
    lock = (ROOT / "requirements/producer.lock").read_text()
    allowed = {line.split("==")[0].lower() for line in lock.splitlines() if "==" in line}
    assert {"confluent-kafka", "pyarrow"} <= allowed
    assert "pandas" not in allowed
    file = tmp_path / "lines"
    file.write_text("{}\n")
    given = [str(file) if word == "FILE" else word for word in command]
    environment = os.environ | {
        "HEADWATER_STORAGE": str(tmp_path),
        "HEADWATER_BROKER__BOOTSTRAP": "127.0.0.1:9",
        "HEADWATER_BRIDGE__TO__BOOTSTRAP": "127.0.0.1:7",
    }
    done = subprocess.run(
        [sys.executable, "-c", ONLY, " ".join({*allowed, "headwater"}), *given],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "BrokerAwayError" in last, done.stderr
    assert "127.0.0.1:9" in last
    # And what sending itself imports, once there is a broker.
    modules = "import producer.ledger, producer.ahead, producer.kafka_sink, producer.hub"
    code = ONLY.replace("from headwater.cli import cli\ncli(sys.argv[2:], standalone_mode=False)",
                        f"{modules}\nfrom producer.ahead import Shop\n"
                        "assert len(list(Shop(1, 0, 0.3, take=500).records())) == 500")  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", code, " ".join({*allowed, "headwater"})], cwd=ROOT, check=True
    )
