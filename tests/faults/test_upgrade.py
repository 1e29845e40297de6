"""Another version over a live checkpoint, and back: wheels as they are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse import checkpoints
from lakehouse.contracts import Contracts
from lakehouse.settings import Settings
from producer.command import Sending, send_shop
from tests.helpers import ROOT, environment, put, settings_for, table, unlike_the_ledger
from tests.samples import event

PACKAGES = ("headwater", "lakehouse", "producer", "streaming", "batch", "conf")
EVENTS = 2_000
MOTTO = """\
      - name: motto
        logicalType: string
"""


def wheel(folder: Path, version: str, *changes: tuple[str, str, str]) -> Path:
    """A wheel of the project as another version, unpacked. changes: file, text, text instead."""
    source = folder / "source"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    for name, text, instead in (("setup.py", 'version="0.1.0"', f'version="{version}"'), *changes):
        path = source / name
        before = path.read_text()
        assert text in before, f"{name} has no {text!r}"
        path.write_text(before.replace(text, instead, 1))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True, cwd=folder)
    [built] = folder.glob("*.whl")
    assert version in built.name
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def stream(site: Path, settings: Settings, code: int = 0) -> str:
    """`headwater stream --available-now` of that wheel; returns what it said."""
    main = "from headwater.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", main, "stream", "--available-now"],
        cwd=site,
        env=os.environ | environment(settings) | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stderr[-3_000:]
    return done.stderr


def written_by(settings: Settings) -> str:
    """The version that the checkpoint of Silver was last run by."""
    found = (Path(settings.checkpoints) / "silver/editions").glob("[0-9]*")
    newest = max(found, key=lambda path: int(path.name))
    return str(json.loads(newest.read_text())["version"])


@pytest.mark.long
def test_a_new_version_over_a_live_checkpoint_and_back(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    old = wheel(tmp_path / "old", "0.1.0")
    category = "conf/contracts/category.yaml"
    head = re.search(r"    properties:\n", (ROOT / category).read_text())
    assert head is not None
    new = wheel(tmp_path / "new", "9.9.9", (category, head[0], head[0] + MOTTO))
    state = ("streaming/edition.py", "STATE_FORMAT = 1", "STATE_FORMAT = 2")
    other = wheel(tmp_path / "other", "10.0.0", state)

    settings = settings_for(tmp_path / "data", bootstrap)
    known = {"category_id": "K001", "name": "Books"}
    for turn, site in enumerate((old, new, old)):
        # Each goes on in the shop of the one before: copies of its events are still known.
        send_shop(settings, Sending(events=EVENTS, seed=92, go_on=turn > 0))
        put(settings, event("category", {**known, "motto": "read"}, id=f"motto-{turn}"))
        stream(site, settings)
        assert written_by(settings) == ("9.9.9" if site == new else "0.1.0")
    said = stream(other, settings, code=1)
    assert "was written by Headwater 0.1.0, whose state (format 1)" in said
    assert "use that version, or move the folder" in said
    assert written_by(settings) == "0.1.0"

    rows = table(settings, "silver/events", ["id", "source", "category", "rescued"]).to_pylist()
    mottos = {
        row["id"]: (row["category"].get("motto"), row["rescued"])
        for row in rows
        if row["source"] == "test"
    }
    assert mottos == {
        "motto-0": (None, '{"motto":"read"}'),
        "motto-1": ("read", None),
        "motto-2": (None, '{"motto":"read"}'),
    }
    files = checkpoints.ArrowFiles(settings, "silver")
    assert sum(checkpoints.committed(files).values()) == 3 * EVENTS + 3
    reconcile.reconcile_range(spark, settings, contracts)
    assert audit.audit_tables(spark, settings, contracts).broken == []
    # Our own three are in no ledger.
    strangers = [row for row in unlike_the_ledger(settings) if row[0] is not None]
    assert strangers == []
