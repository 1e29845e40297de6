"""What the commands in a wheel say to a task's words: a process of its own, run by tests/bundle.py.

    python -I wheel_commands.py FOLDER    the unpacked wheel, which alone Headwater is taken from

For each line of stdin, JSON of `words` (as after the entry point's name) and `variables` (the
cluster's), a line of JSON goes to stdout: `errors`, and `paths`, the values of options that are
files or folders. The words are parsed to the end, and nothing is called.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import Any


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    # An editable install would lend what the wheel lacks.
    sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(answer(asked["words"], asked["variables"])), flush=True)


def answer(words: list[str], variables: dict[str, str]) -> dict[str, list[str]]:
    import click

    from headwater.config import leaves, unfilled
    from headwater.job import SETTING
    from lakehouse import settings as settings_files
    from lakehouse.errors import SettingsError

    words, given = list(words), dict(variables)
    while words and (found := SETTING.fullmatch(words[0])):
        given[found[1]] = found[2]
        del words[0]
    try:
        # What --help would print is no answer.
        with redirect_stdout(StringIO()):
            context = _parsed(words)
    except (click.ClickException, click.exceptions.Exit) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else "does nothing"
        return {"errors": [f"{' '.join(words)}: {said}"], "paths": []}
    paths = [
        str(context.params[option.name])
        for option in context.command.params
        if context.params.get(option.name or "")
        and (isinstance(option.type, click.Path) or option.name in {"data", "contracts"})
    ]
    chosen = context.params.get("environment")
    if chosen is None:
        return {"errors": [], "paths": paths}
    if chosen == "local":
        return {"errors": [f"{' '.join(words)}: environment local is a laptop's"], "paths": paths}
    before = dict(os.environ)
    os.environ.update(given)
    try:
        loaded = settings_files.load(chosen)
    except SettingsError as error:
        return {"errors": [str(error)], "paths": paths}
    finally:
        os.environ.clear()
        os.environ.update(before)
    errors = []
    if not loaded.storage.startswith("abfss://"):
        errors.append(f"storage: {loaded.storage} is the machine's own, which goes away with it")
    if not loaded.broker.bootstrap:
        errors.append("broker.bootstrap: none, and a cluster has no embedded broker")
    root = loaded.checkpoint_root
    if root and not root.startswith(("/Volumes/", "abfss://")):
        errors.append(f"checkpoint_root: {root} is the machine's own, which goes away with it")
    for name in ("HEADWATER_CONTRACTS", "HEADWATER_MYSQL__SSL_CA", "HEADWATER_BROKER__SSL_CA"):
        place = given.get(name, "")
        if place and not place.startswith("/Volumes/"):
            errors.append(f"{name}: {place} is on no machine that Databricks starts")
    for kind in set(loaded.publish_to) - {"mysql", "postgresql", "synapse"}:
        errors.append(f"publish_to: {kind} is a file of the machine's, which goes away with it")
    if "duckdb" in context.params.get("kinds", ()):
        errors.append("publish --to duckdb: is a file of the machine's, which goes away with it")
    if variables and not root:
        errors.append("checkpoint_root: none, and checkpoints belong in a volume")
    # Of secrets that lie in the process's environment, only what the task gives it is there.
    for parts, value, secret in leaves(loaded):
        variable = str(value).removeprefix("env:")
        told = variables or parts[0] == "broker"
        if secret and told and str(value).startswith("env:") and variable not in given:
            errors.append(f"{'.'.join(parts)}: {value}, and no variable {variable} is given")
    # What only sends is told of the broker alone.
    for line in unfilled(loaded):
        if variables or line.startswith("broker."):
            errors.append(line)
    return {"errors": errors, "paths": paths}


def _parsed(words: list[str]) -> Any:
    """The innermost command's context."""
    import click

    from headwater.cli import cli

    context: click.Context = cli.make_context("headwater", list(words))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        if command is None:
            raise click.UsageError(f"no command {name}")
        context = command.make_context(name or "", rest, parent=context)
    return context


if __name__ == "__main__":
    main()
