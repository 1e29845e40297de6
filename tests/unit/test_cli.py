"""The command line without a JVM: help, usage errors, and what is imported for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headwater.cli import COMMANDS
from lakehouse.progress import Ticker
from tests.helpers import ROOT

JOBS = sorted(file.stem for file in (ROOT / "batch").glob("*.py") if "__main__" in file.read_text())


def headwater(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from headwater.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_help(name: str) -> None:
    done = headwater(name, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert len(done.stdout.splitlines()) > 4


@pytest.mark.parametrize(
    ("script", "command"),
    [(f"streaming/{name}.py", "stream") for name in ("bronze", "silver")]
    + [(f"batch/{name}.py", name) for name in JOBS]
    + [("producer/bridge.py", "bridge")],
)
def test_a_script_takes_what_its_command_takes(script: str, command: str) -> None:
    """As spark-submit starts it: a file, and no package around it."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # The same but for the name that stands before the options.
    told = headwater(command, "--help").stdout
    assert done.stdout.split("\n", 1)[1] == told.split("\n", 1)[1]


@pytest.mark.parametrize("option", ["--from-offset", "--to", "--partition"])
@pytest.mark.parametrize("number", [str(2**63), "9" * 5_000])
def test_an_offset_that_no_topic_has(option: str, number: str, tmp_path: Path) -> None:
    given = {"--from-offset": "0", option: number}
    arguments = [part for pair in given.items() for part in pair]
    done = headwater("replay", "--data", str(tmp_path), *arguments)
    assert done.returncode == 2
    assert f"Invalid value for {option}" in done.stderr.replace("'", "")


def test_a_line_that_changes_is_text(capfd: pytest.CaptureFixture[str]) -> None:
    with Ticker() as ticker:
        ticker.show("a[/b] orders[eu].csv")
    assert "a[/b] orders[eu].csv" in capfd.readouterr().err


def test_help_needs_none_of_the_heavy_imports() -> None:
    heavy = "pyspark", "pandas", "pyarrow", "pydantic", "confluent_kafka", "rich", "faker"
    code = (
        "import sys\n"
        "from headwater.cli import COMMANDS, cli\n"
        "for name in COMMANDS: cli.get_command(None, name)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_are_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "none"
    for arguments in (
        ["produce", "--data", str(tmp_path), "--events", "1"],
        ["produce", "--data", str(tmp_path), "--start", "soon"],
        ["produce", "--data", str(tmp_path), "--rate", "inf"],
        ["produce", "--data", str(tmp_path), "--rate", "nan"],
        ["produce", "--data", str(tmp_path), "--defects", "nan"],
        ["produce", "--data", str(tmp_path), "--events", str(10**30)],
        ["produce", "--data", str(tmp_path), "--live", "--continue"],
        ["produce", "--data", str(tmp_path), "--from", __file__, "--events", "10"],
        ["run", "--data", str(tmp_path), "--start", "garbage"],
        ["contracts", "check", str(empty)],
        ["status", "--env", "moon"],
        ["reconcile", "--since", "0001-01-01T00:00:00+14:00"],
        ["reconcile", "--since", ""],
        ["quarantine", "replay", "--since", ""],
        ["quarantine", "list", "--since", "2026-03-02", "--until", "2026-03-01"],
        ["gold", "--from", ""],
        ["gold", "--from", "2026-03-02", "--to", "2026-03-02"],
        ["quarantine", "show", "topic\udcff"],
        [
            "erase",
            "--subject",
            "C00000001",
            "--proof",
            str(empty / "proof"),
            "--data",
            str(tmp_path),
        ],
    ):
        done = headwater(*arguments)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith(("headwater:", "Error:"))
