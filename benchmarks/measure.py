"""What all measurements share: rounds that take turns, and how a result or a curve is shown.

A figure is worth something beside another one of the same run alone. So what is compared takes
turns, the first round of each is not counted, and what is told is a ratio of medians, with the
spread of the rounds beside it. What changes along a run is a curve.

Both are told as a Markdown table and, below it, a chart as Mermaid draws it from text.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import psutil

PACKAGES = ("pyspark", "delta-spark", "deltalake", "pyarrow", "confluent-kafka")


@dataclass
class Result:
    """Rounds of each case, in `unit`; ratios are of medians, to that of the case `base`.

    notes: what else was seen, by name. target: what the ratio is to reach, by case.
    """

    title: str
    unit: str
    base: str
    cases: dict[str, list[float]]
    notes: dict[str, Any] = field(default_factory=dict)
    target: dict[str, float] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """case, median, min, max, rounds, ratio and target of each case."""
        base = statistics.median(self.cases[self.base])
        return [
            {
                "case": name,
                "median": statistics.median(found),
                "min": min(found),
                "max": max(found),
                "rounds": len(found),
                "ratio": statistics.median(found) / base,
                "target": self.target.get(name),
            }
            for name, found in self.cases.items()
        ]


@dataclass
class Curve:
    """Lines over the same points: what was measured, in `unit`, along a run.

    along: what the points are, with their unit. notes: as of a Result.
    """

    title: str
    unit: str
    along: str
    points: list[float]
    lines: dict[str, list[float]]
    notes: dict[str, Any] = field(default_factory=dict)


def seconds(work: Callable[[], object]) -> Callable[[], float]:
    """The same work, which returns how long it took."""

    def timed() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return timed


def rate(work: Callable[[], object], records: int) -> Callable[[], float]:
    """The same work over so many records, which returns how many of them it did a second."""
    timed = seconds(work)
    return lambda: records / timed()


def take_turns(
    cases: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1
) -> dict[str, list[float]]:
    """What each case returns, round by round; the first `warm` rounds are left out."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + warm):
        for name, once in cases.items():
            value = once()
            click.echo(f"round {turn + 1 - warm} of {rounds}, {name}: {value:,.1f}", err=True)
            if turn >= warm:
                found[name].append(value)
    return found


def machine() -> dict[str, Any]:
    """What the figures were made on: a ratio can differ by the machine, too."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    model = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": model[0] if model else platform.machine(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def show(result: Result | Curve, as_json: bool) -> None:
    """Prints a result or a curve as one line of JSON, or as Markdown."""
    if not as_json:
        click.echo(markdown(result))
        return
    told: dict[str, Any] = {"title": result.title, "unit": result.unit}
    if isinstance(result, Curve):
        told |= {"along": result.along, "points": result.points, "lines": result.lines}
    else:
        told |= {"base": result.base, "cases": result.rows()}
    told |= {"notes": result.notes, "machine": machine()}
    click.echo(json.dumps(told, default=str))


def markdown(result: Result | Curve) -> str:
    """As a table and a chart, with what it was made on below."""
    told = _curve(result) if isinstance(result, Curve) else _result(result)
    said = {**result.notes, **machine()}
    below = ", ".join(f"{name} {value}" for name, value in said.items())
    return "\n".join([f"**{result.title}**, {result.unit}", "", *told, "", below])


def _result(result: Result) -> list[str]:
    rows = result.rows()
    lines = [
        "| case | median | min | max | rounds | ratio | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:g}"
        spread = " | ".join(_figure(row[name]) for name in ("median", "min", "max"))
        lines.append(
            f"| {row['case']} | {spread} | {row['rounds']} | {row['ratio']:.2f} | {target} |"
        )
    names = [f'"{row["case"]}"' for row in rows]
    medians = {"bar": [row["median"] for row in rows]}
    return [*lines, "", *_chart(result.title, f"[{', '.join(names)}]", result.unit, medians)]


def _curve(curve: Curve) -> list[str]:
    lines = [
        f"| {curve.along} | {' | '.join(curve.lines)} |",
        f"|---{'|---' * len(curve.lines)}|",
    ]
    for point, *values in zip(curve.points, *curve.lines.values(), strict=True):
        lines.append(f"| {' | '.join(map(_figure, (point, *values)))} |")
    axis = f"[{', '.join(f'{point:g}' for point in curve.points)}]"
    drawn = {f'line "{name}"': values for name, values in curve.lines.items()}
    return [*lines, "", *_chart(curve.title, f'"{curve.along}" {axis}', curve.unit, drawn)]


def _chart(title: str, x: str, unit: str, drawn: dict[str, list[float]]) -> list[str]:
    """In the language of Mermaid's xychart (mermaid.js.org/syntax/xyChart.html)."""

    def numbers(values: list[float]) -> str:
        return ", ".join(_figure(value).replace(",", "") for value in values)

    highest = max(max(values) for values in drawn.values())
    return [
        "```mermaid",
        "xychart-beta",
        f'    title "{title}"',
        f"    x-axis {x}",
        f'    y-axis "{unit}" 0 --> {numbers([highest])}',
        *(f"    {what} [{numbers(values)}]" for what, values in drawn.items()),
        "```",
    ]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
