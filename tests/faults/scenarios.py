"""Every scenario of the fault suite, as long as there is time: what a soak does after its load.

    python -m tests.faults.scenarios MINUTES [--each]

With --each every scenario is run, however long that takes.

Its last line is the result as JSON: by scenario and by test, passed, failed, skipped, or not run. A
scenario has one test or more; they come first, in this order, and other tests of faults after them.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import click
import pytest

# The faults of the layers have their tests where these layers' other tests are.
WHERE = (
    *("tests/faults", "tests/integration/test_publish.py", "tests/integration/test_hostile.py"),
    *("tests/integration/test_publish_postgresql.py", "tests/integration/test_schema_change.py"),
    *("tests/spark/test_law.py", "tests/spark/test_quarantine.py", "tests/spark/test_maintain.py"),
    *("tests/integration/test_refill.py", "tests/integration/test_pipeline.py"),
)


# What has happened, and the beginning of the ids of the tests that make it happen.
FAULTS = "tests/faults/test_"
FAILS = f"{FAULTS}kill_gold.py::test_a_shop_whose_warehouse"
SCENARIOS = {
    "streams and reconcile killed around each commit": (
        f"{FAULTS}kill.py::test_killed_in_every_phase[phases1]"
    ),
    "killed while a snapshot, a log's checkpoint or OPTIMIZE is written": (
        f"{FAULTS}kill_writing.py"
    ),
    "Gold and publish killed": f"{FAULTS}kill_gold.py::test_a_shop_whose_jobs",
    "maintenance killed": f"{FAULTS}kill.py::test_maintenance",
    "a replay killed": f"{FAULTS}kill.py::test_what_a_killed_replay",
    "the broker killed, partitions added": f"{FAULTS}broker.py::test_partitions_added",
    "the broker does not answer for a minute": f"{FAULTS}broker.py::test_a_broker_that_does_not",
    "the broker's disk full": f"{FAULTS}full_disk.py::test_a_full_disk_of_the_broker",
    "offsets expired before they were read": f"{FAULTS}broker.py::test_records_that_expired",
    "a checkpoint without its newest commit, damaged, or lost": f"{FAULTS}checkpoint.py",
    "copies within a batch, across batches, restarts and the watermark": f"{FAULTS}duplicates.py",
    "a partition lags by an hour": f"{FAULTS}beside_stream.py::test_a_partition_that_lags",
    "a clock runs ahead": "tests/integration/test_pipeline.py::test_a_clock_that_runs_ahead",
    "the same id with other content": "tests/spark/test_law.py::test_late_duplicate_conflict",
    "OPTIMIZE, VACUUM and MERGE beside a stream": f"{FAULTS}beside_stream.py::test_optimize",
    # All of these in one life of a shop, to the audit and the ledger.
    "two Gold runs at once": FAILS,
    "a warehouse gone, a connection cut between staging and merge": FAILS,
    "a deadlock": FAILS,
    "a primary key collision": FAILS,
    "a full disk under the streams": f"{FAULTS}full_disk.py::test_a_full_data_folder_stops_the",
    "a full disk under every job": f"{FAULTS}full_disk.py::test_a_full_data_folder_stops_every",
    "a full disk of a warehouse": f"{FAULTS}full_disk.py::test_a_warehouse_whose_disk",
    "a hostile folder": "tests/integration/test_hostile.py",
}


def place(nodeid: str) -> int:
    """Of which scenario a test is, by number; after all of them, where it is of none."""
    found = (number for number, of in enumerate(SCENARIOS.values()) if nodeid.startswith(of))
    return next(found, len(SCENARIOS))


def by_scenario(results: dict[str, str]) -> dict[str, str]:
    """What became of each scenario: the worst of its tests; failed where it has none."""
    worst = ("failed", "skipped", "not run", "passed")
    found = {}
    for name, of in SCENARIOS.items():
        of_it = {outcome for nodeid, outcome in results.items() if nodeid.startswith(of)}
        found[name] = next((one for one in worst if one in of_it), "failed")
    return found


class AsTimeAllows:
    """A pytest plugin: begins no test after the deadline, and keeps what became of each.

    each: whether those that are of a scenario are begun all the same.
    """

    def __init__(self, seconds: float, each: bool) -> None:
        self._deadline, self._each = time.monotonic() + seconds, each
        self.results: dict[str, str] = {}
        self.stopped = False
        # Files that could not be read: none of their tests is run.
        self.broken: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: (place(item.nodeid), item.path.parent.name != "faults"))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken[report.nodeid] = "failed"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._session = session
        self.results = {item.nodeid: "not run" for item in session.items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.results[report.nodeid] = report.outcome

    def pytest_runtest_logfinish(self) -> None:
        left = (nodeid for nodeid, outcome in self.results.items() if outcome == "not run")
        wanted = self._each and any(place(nodeid) < len(SCENARIOS) for nodeid in left)
        if time.monotonic() > self._deadline and not wanted:
            self.stopped = True
            self._session.shouldstop = "the time is over"


@click.command()
@click.argument("minutes", type=click.FloatRange(min=0))
@click.option("--each", is_flag=True, help="Every scenario, however long that takes.")
def main(minutes: float, each: bool) -> None:
    plugin = AsTimeAllows(minutes * 60, each)
    code = pytest.main(["-m", "long or not long", *WHERE], plugins=[plugin])
    results = plugin.results | plugin.broken
    click.echo(json.dumps({"scenarios": by_scenario(plugin.results), "tests": results}))
    found = Counter(results.values())
    ended = code == pytest.ExitCode.OK or (plugin.stopped and code == pytest.ExitCode.INTERRUPTED)
    sys.exit(0 if ended and found["passed"] and not found["failed"] else 1)


if __name__ == "__main__":
    main()
