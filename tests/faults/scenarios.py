"""Every scenario of the fault suite, as long as there is time: what a soak does after its load.

    python -m tests.faults.scenarios MINUTES

Its last line is the result as JSON: by test, passed, failed, skipped, or not run.
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
    "tests/integration/test_refill.py",
)


class AsTimeAllows:
    """A pytest plugin: begins no test after the deadline, and keeps what became of each."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self.results: dict[str, str] = {}
        self.stopped = False
        # Files that could not be read: none of their tests is run.
        self.broken: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # What kills and damages first, should the time be short.
        items.sort(key=lambda item: item.path.parent.name != "faults")

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
        if time.monotonic() > self._deadline:
            self.stopped = True
            self._session.shouldstop = "the time is over"


@click.command()
@click.argument("minutes", type=click.FloatRange(min=0))
def main(minutes: float) -> None:
    plugin = AsTimeAllows(minutes * 60)
    code = pytest.main(["-m", "long or not long", *WHERE], plugins=[plugin])
    results = plugin.results | plugin.broken
    click.echo(json.dumps(results))
    found = Counter(results.values())
    ended = code == pytest.ExitCode.OK or (plugin.stopped and code == pytest.ExitCode.INTERRUPTED)
    sys.exit(0 if ended and found["passed"] and not found["failed"] else 1)


if __name__ == "__main__":
    main()
