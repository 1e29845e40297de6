"""The scenarios of a soak: each is made by tests that exist, and told by the worst of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults import scenarios
from tests.helpers import ROOT


@pytest.mark.parametrize("begins", scenarios.SCENARIOS.values())
def test_a_scenario_has_a_test(begins: str) -> None:
    file, _, function = begins.partition("::")
    assert file in scenarios.WHERE or any(file.startswith(f"{one}/") for one in scenarios.WHERE)
    text = (ROOT / file).read_text()
    assert f"def {function.partition('[')[0]}" in text


def test_the_worst_of_its_tests_is_what_became_of_it() -> None:
    names = list(scenarios.SCENARIOS)
    ids = dict(zip(names, scenarios.SCENARIOS.values(), strict=True))
    results = dict.fromkeys(ids.values(), "passed")
    assert set(scenarios.by_scenario(results).values()) == {"passed"}
    for worse in ("not run", "skipped", "failed"):
        results[f"{ids[names[3]]}_as_well[x]"] = worse
        found = scenarios.by_scenario(results)
        assert [name for name in names if found[name] == worse] == [names[3]]
    del results[ids[names[5]]]
    assert scenarios.by_scenario(results)[names[5]] == "failed", "one without a test"


def test_what_is_of_a_scenario_comes_first() -> None:
    first, last = next(iter(scenarios.SCENARIOS.values())), "tests/faults/test_other.py::test_x"
    assert (scenarios.place(first), scenarios.place(last)) == (0, len(scenarios.SCENARIOS))


@pytest.mark.parametrize(("each", "left"), [(False, 0), (True, 1)])
def test_after_the_deadline_none_is_begun_but_what_is_of_a_scenario(each: bool, left: int) -> None:
    class Session:
        shouldstop = ""

    plugin = scenarios.AsTimeAllows(0, each)
    session: Any = Session()
    plugin._session = session
    of_one, of_none = next(iter(scenarios.SCENARIOS.values())), "tests/faults/test_other.py::test_x"
    plugin.results = {of_one: "not run", of_none: "not run"}
    plugin.pytest_runtest_logfinish()
    assert plugin.stopped == (left == 0)
    plugin.results[of_one] = "passed"
    plugin.pytest_runtest_logfinish()
    assert (plugin.stopped, session.shouldstop) == (True, "the time is over")
