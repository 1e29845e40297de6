"""The jobs by spark-submit on a cluster: a master and two workers as processes of this machine.

The driver runs from an environment that holds the built wheel, and takes it along as an archive, as
docs/deploy.md has it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyspark
import pytest

from lakehouse.settings import Settings
from producer.command import Sending, instant, send_shop, shop_of
from tests import bundle
from tests.helpers import (
    BIN,
    ROOT,
    environment,
    free_port,
    settings_for,
    unlike_the_ledger,
    wait_until,
)
from tests.oracle import different

SPARK_HOME = Path(pyspark.__file__).parent
HOST = "127.0.0.1"
SEED, EVENTS = 12, 4_000


@pytest.fixture
def master(tmp_path: Path) -> Iterator[str]:
    """The address of a standalone cluster's master, once both of its workers are there."""
    port, web = free_port(), free_port()
    address = f"spark://{HOST}:{port}"
    daemon = "org.apache.spark.deploy"
    commands = [
        [f"{daemon}.master.Master", "--host", HOST, "--port", str(port), "--webui-port", str(web)]
    ]
    for number in (1, 2):
        folder = str(tmp_path / f"worker-{number}")
        size = ["--cores", "1", "--memory", "1g", "--work-dir", folder]
        own = ["--host", HOST, "--webui-port", str(free_port())]
        commands.append([f"{daemon}.worker.Worker", *own, *size, address])
    processes, said = [], tmp_path / "cluster.log"
    with said.open("wb") as log:
        for command in commands:
            started = subprocess.Popen(
                [str(SPARK_HOME / "bin/spark-class"), *command],
                env=os.environ | {"SPARK_HOME": str(SPARK_HOME), "SPARK_DAEMON_MEMORY": "256m"},
                stdout=log,
                stderr=log,
            )
            processes.append(started)

    def two_are_there() -> bool:
        assert all(one.poll() is None for one in processes), said.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://{HOST}:{web}/json/", timeout=5) as answer:
                return int(json.load(answer)["aliveworkers"]) == 2
        except OSError:
            return False

    try:
        wait_until(two_are_there, 60, "a master with two workers")
        yield address
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """The archive that docs/deploy.md makes, beside the environment that it is made of.

    Of the versions that are locked, but for venv-pack, which is of no use elsewhere.
    """

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-2000:]}"

    wheel = bundle.build_wheel(ROOT, tmp_path)
    locked = re.findall(
        r"^\S+==[^\\\n]+", (ROOT / "requirements/local.lock").read_text(), re.MULTILINE
    )
    (tmp_path / "locked").write_text("\n".join(locked))
    run(sys.executable, "-m", "venv", "environment")
    install = ["environment/bin/pip", "install", "-q", "--no-cache-dir", "-c", "locked"]
    named = re.search(r"\)\[producer,azure\]\" (.+)", (ROOT / "docs/deploy.md").read_text())
    assert named
    wanted = [word.strip('"') for word in named[1].split()]
    run(*install, f"{wheel}[producer,azure]", *wanted)
    run(*install, "--no-deps", "delta-spark")
    run("environment/bin/venv-pack", "-q", "-p", "environment", "-o", "environment.tar.gz")
    return tmp_path / "environment.tar.gz"


def submit(
    settings: Settings, master: str, archive: Path, script: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A job that a cluster runs, to its end, away from the project's folder."""
    python = archive.parent / "environment/bin/python"
    options = ["--archives", f"{archive}#environment"]
    for key, value in {
        "spark.pyspark.python": "./environment/bin/python",
        "spark.pyspark.driver.python": str(python),
    }.items():
        options += ["--conf", f"{key}={value}"]
    done = subprocess.run(
        [str(BIN / "spark-submit"), "--master", master, *options, str(ROOT / script),
         "--env", "local", *arguments],
        cwd=archive.parent,
        env=environment(settings) | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}: {done.stderr[-3000:]}"
    return done


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_the_spine_on_a_cluster_of_two_workers(
    master: str, packed: Path, bootstrap: str, tmp_path: Path
) -> None:
    """Ends on the audit, the ledger and DuckDB's Gold; either worker ran a part of every job."""
    settings = settings_for(tmp_path, bootstrap)
    for _ in range(2):
        send_shop(settings, Sending(events=EVENTS // 2, seed=SEED, go_on=True))
        submit(settings, master, packed, "streaming/bronze.py", "--available-now")
        submit(settings, master, packed, "streaming/silver.py", "--available-now")
        submit(settings, master, packed, "batch/reconcile.py")
    submit(settings, master, packed, "batch/gold.py")
    said = submit(settings, master, packed, "batch/audit.py", "--json")
    for number in (1, 2):
        ran = list((tmp_path / f"worker-{number}").glob("app-*/*/stderr"))
        assert len(ran) == 8, "an executor of every job on either worker"
        assert list((tmp_path / f"worker-{number}").glob("app-*/*/environment/bin/python"))
    [balance] = json.loads(said.stdout.splitlines()[-1])
    assert (balance["bronze"], balance["pending"]) == (EVENTS, 0)
    assert unlike_the_ledger(settings) == []
    records = list(islice(shop_of(SEED, instant(None, False), 0.3).records(), EVENTS))
    assert different(settings, records) == {}
