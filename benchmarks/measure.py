"""What all measurements share: rounds that take turns, and how a result is shown.

A figure is worth something beside another one of the same run alone. So what is compared takes
turns, the first round of each is not counted, and what is told is a ratio of medians, with the
spread of the rounds beside it.
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


def show(result: Result, as_json: bool) -> None:
    """Prints a result as one line of JSON, or as Markdown."""
    if as_json:
        told: dict[str, Any] = {"title": result.title, "unit": result.unit, "base": result.base}
        told |= {"cases": result.rows(), "notes": result.notes, "machine": machine()}
        click.echo(json.dumps(told, default=str))
        return
    click.echo(markdown(result))


def markdown(result: Result) -> str:
    """A result as a table, with what it was made on below."""
    lines = [
        f"**{result.title}**, {result.unit}",
        "",
        "| case | median | min | max | rounds | ratio | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result.rows():
        target = "" if row["target"] is None else f"{row['target']:g}"
        spread = " | ".join(_figure(row[name]) for name in ("median", "min", "max"))
        lines.append(
            f"| {row['case']} | {spread} | {row['rounds']} | {row['ratio']:.2f} | {target} |"
        )
    said = {**result.notes, **machine()}
    lines += ["", ", ".join(f"{name} {value}" for name, value in said.items())]
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
