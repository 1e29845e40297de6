"""The wheel among the packages of a Databricks Runtime, and no others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import bundle
from tests.helpers import ROOT

# Of the runtime's packages, those that the wheel leaves to it.
BROUGHT = ["azure-identity", "orjson", "pandas", "psutil", "pyarrow"]
# Spark is the runtime's own; ours stands in, which is Python alone and 455 MB.
SPARK = ["pyspark", "py4j", "delta"]
IMPORT_ALL = """
import importlib, pkgutil
for top in ("headwater", "lakehouse", "producer", "streaming", "batch"):
    for found in pkgutil.walk_packages(importlib.import_module(top).__path__, f"{top}."):
        importlib.import_module(found.name)
"""


def python() -> str:
    """The runtime's version of Python where this machine has it, be it one of pyenv's."""
    by_pyenv = sorted(Path.home().glob(".pyenv/versions/3.12.*/bin/python3.12"))
    for found in (shutil.which("python3.12"), *map(str, by_pyenv), sys.executable):
        works = found and subprocess.run(
            [found, "-c", "import ensurepip"], check=False, capture_output=True
        )
        if found and works and works.returncode == 0:
            return found
    raise AssertionError("no Python that can make a virtual environment")


@pytest.mark.long
def test_every_task_starts_with_what_a_runtime_has(tmp_path: Path) -> None:
    def run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    wheel = bundle.build_wheel(ROOT, tmp_path)
    run(python(), "-m", "venv", "runtime")
    requirements = ROOT / "requirements"
    run("runtime/bin/python", "-m", "pip", "install", "-q", str(wheel), *BROUGHT,
        "-r", str(requirements / "databricks.txt"),
        "-r", str(requirements / "databricks-quality.txt"),
        "-c", str(requirements / "databricks-runtime-18.txt"))  # fmt: skip
    run("runtime/bin/python", "-m", "pip", "check")
    (site,) = tmp_path.glob("runtime/lib/python*/site-packages")
    for name in SPARK:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (site / name).symlink_to(Path(spec.origin).parent)
    tasks = bundle.commands(ROOT)
    assert ["stream", "silver"] in tasks
    assert ["catalog", "apply"] in tasks
    assert ["quality"] in [words[:1] for words in tasks]
    for words in tasks:
        run("runtime/bin/headwater-job", *words, "--help")
    run("runtime/bin/headwater-job", "contracts", "check")
    run("runtime/bin/headwater", "--version")
    run("runtime/bin/python", "-c", IMPORT_ALL)
