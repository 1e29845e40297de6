"""`headwater bench`: the measurements of the project's folder benchmarks/."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import click

from lakehouse.errors import HeadwaterError

PROJECT = Path(__file__).parents[1]
SHARED = {"measure"}


class Benchmarks(click.Group):
    """Modules of the package benchmarks, each with a command `main`."""

    def list_commands(self, _: click.Context) -> list[str]:
        if not (PROJECT / "benchmarks").is_dir():
            raise HeadwaterError(
                "the benchmarks are in the project's folder, not in the wheel: run it there, by "
                "`.venv/bin/headwater bench`"
            )
        found = pkgutil.iter_modules([str(PROJECT / "benchmarks")])
        return sorted({module.name for module in found} - SHARED)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(context):
            return None
        if str(PROJECT) not in sys.path:
            sys.path.append(str(PROJECT))
        command: click.Command = import_module(f"benchmarks.{name}").main
        return command


@click.command("bench", cls=Benchmarks)
def bench() -> None:
    """Measure: what is compared takes turns, and ratios are told with their spread."""
