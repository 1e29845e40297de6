"""How measurements are told: medians, spread and ratios, worked out by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from benchmarks import measure
from headwater.bench import bench
from headwater.cli import cli

RESULT = measure.Result(
    "A thing",
    "seconds",
    "plain",
    {"plain": [4.0, 2.0, 9.0], "ours": [1.0, 3.0, 2.0]},
    {"records": 7},
    {"ours": 0.6},
)


def test_a_result_is_told_by_medians_and_their_ratio() -> None:
    plain, ours = RESULT.rows()
    assert (plain["median"], plain["min"], plain["max"], plain["ratio"]) == (4.0, 2.0, 9.0, 1.0)
    assert (ours["median"], ours["min"], ours["max"], ours["ratio"]) == (2.0, 1.0, 3.0, 0.5)
    told = measure.markdown(RESULT)
    assert "| ours | 2.00 | 1.00 | 3.00 | 3 | 0.50 | 0.6 |" in told
    assert 'x-axis ["plain", "ours"]' in told
    assert 'y-axis "seconds" 0 --> 4.00\n    bar [4.00, 2.00]\n```' in told


def test_a_curve_is_told_as_its_points_and_as_a_chart(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {"p50": [1.0, 2.5], "p99": [12345.6, 0.25]}
    curve = measure.Curve("A way", "seconds", "minute", [1.0, 2.0], lines, {"records": 7})
    told = measure.markdown(curve)
    assert "| minute | p50 | p99 |\n|---|---|---|\n| 1.00 | 1.00 | 12,346 |" in told
    assert 'x-axis "minute" [1, 2]' in told
    assert 'y-axis "seconds" 0 --> 12346' in told
    assert '    line "p99" [12346, 0.25]' in told
    measure.show(curve, as_json=True)
    assert json.loads(capsys.readouterr().out)["lines"] == lines


def test_a_result_as_json_says_on_what_it_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    measure.show(RESULT, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [case["ratio"] for case in told["cases"]] == [1.0, 0.5]
    assert told["notes"] == {"records": 7}
    assert told["machine"]["pyspark"]
    assert told["machine"]["cores"] >= 1


def test_what_is_compared_takes_turns_and_the_first_round_is_left_out() -> None:
    order: list[str] = []

    def case(name: str) -> Iterator[float]:
        for value in (100.0, 1.0, 2.0):
            order.append(name)
            yield value

    a, b = case("a"), case("b")
    found = measure.take_turns({"a": lambda: next(a), "b": lambda: next(b)}, rounds=2)
    assert found == {"a": [1.0, 2.0], "b": [1.0, 2.0]}
    assert order == ["a", "b"] * 3


def test_a_rate_is_records_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 12.5))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert measure.rate(lambda: None, 1_000)() == 400.0


def test_every_benchmark_is_a_command_that_says_what_it_measures() -> None:
    listed = bench.list_commands(None)  # type: ignore[arg-type]
    assert {"gold_increment", "simulator", "streaming"} <= set(listed)
    assert "measure" not in listed
    for name in listed:
        done = CliRunner().invoke(cli, ["bench", name, "--help"])
        assert done.exit_code == 0, done.output
        assert "--json" in done.output
