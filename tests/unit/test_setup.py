"""Set-up says in one line what is missing, before it begins what takes a minute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

JAVA_17 = "#!/bin/sh\necho 'openjdk version \"17.0.1\" 2021-10-19' >&2\n"
DEAD = "#!/bin/sh\nexit 1\n"


def refused(script: Path, **environment: str) -> str:
    """The one line that set-up ends with."""
    done = subprocess.run(
        ["bash", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    return line


OLD = "#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.2 && exit\nexit 1\n"


@pytest.mark.parametrize(
    ("python", "said"),
    [(None, "with venv: none found; install"), (OLD, "with venv: found Python 3.9.2; install")],
)
def test_a_python_that_is_missing_or_too_old_is_one_line(
    tmp_path: Path, python: str | None, said: str
) -> None:
    clone, programs = tmp_path / "clone/scripts", tmp_path / "bin"
    for folder in (clone, programs):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/setup.sh", clone)
    for name in ("bash", "dirname", "head"):
        (programs / name).symlink_to(str(shutil.which(name)))
    if python is not None:
        (programs / "python3").write_text(python)
        (programs / "python3").chmod(0o755)
    line = refused(clone / "setup.sh", PATH=str(programs))
    assert line.startswith("headwater: needs Python 3.11 or newer")
    assert said in line


@pytest.mark.parametrize(
    ("java", "maven", "said"),
    [
        (None, None, "needs a JDK 17 or 21: none found; install"),
        (DEAD, None, "needs a JDK 17 or 21: found version unknown; install"),
        (JAVA_17.replace("17.0.1", "11.0.2"), None, "needs a JDK 17 or 21: found version 11;"),
        (JAVA_17, None, "needs Maven 3.6 or newer: none found; install maven"),
        (JAVA_17, DEAD, "needs Maven 3.6 or newer: found unknown; install maven"),
        (JAVA_17, "#!/bin/sh\necho Apache Maven 3.5.4\n", "newer: found 3.5; install maven"),
    ],
)
def test_what_is_missing_is_one_line(
    tmp_path: Path, java: str | None, maven: str | None, said: str
) -> None:
    clone, programs = tmp_path / "clone", tmp_path / "bin"
    programs.mkdir()
    for part in (
        "scripts/setup.sh",
        "requirements/build.lock",
        "requirements/local.lock",
        "pom.xml",
    ):
        (clone / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, clone / part)
    # No other program of this machine's: neither its java nor its mvn.
    for name in ("bash", "cat", "cksum", "dirname", "head", "rm", "sed", "sort", "tr", "uname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").symlink_to(os.path.realpath(sys.executable))
    for name, script in (("java", java), ("mvn", maven)):
        if script is not None:
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
    python = str(programs / "python3")
    line = refused(clone / "scripts/setup.sh", PATH=str(programs), PYTHON=python)
    assert line.startswith("headwater: ")
    assert said in line
    assert not (clone / ".venv").exists()
