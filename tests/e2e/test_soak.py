"""The soak itself, for some minutes: that it kills, and that its report says what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.soak import NO_KILLS
from tests.helpers import ROOT

MINUTES, KILLS, RATE = 3, 3, 300


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_short_soak_under_load(tmp_path: Path) -> None:
    options = ["--minutes", str(MINUTES), "--kills", str(KILLS), "--rate", str(RATE)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.soak", "--load-only", *options, "--data", tmp_path],
        cwd=ROOT,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, (report, done.stderr[-2000:])
    records = MINUTES * 60 * RATE
    [balance] = report["balance"]
    parts = ("accepted", "quarantined", "duplicates", "pending")
    assert balance["bronze"] == sum(balance[part] for part in parts) == records
    assert (report["law_holds"], balance["pending"], report["exceptions"]) == (True, 0, [])
    hit = {name: times for name, times in report["kills"].items() if name not in NO_KILLS}
    assert sum(hit.values()) == KILLS
    assert report["jobs_done"].get("reconcile", 0) > 0
    assert (report["gold_mended"], report["publish_mended"]) == (0, 0)
