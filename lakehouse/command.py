"""What all commands share: their common options, and errors as one line with an exit code."""

from __future__ import annotations

import getpass
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click

from lakehouse import privacy
from lakehouse.errors import NO_SPACE, HeadwaterError, reason
from lakehouse.redact import guard_streams

NAME_LENGTH = 40


def environment_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --env, --data and --contracts, and passes them by these names, the first whole."""
    for option in (
        click.option(
            "--contracts",
            default=None,
            metavar="FOLDER",
            help="Folder of contracts, in place of the environment's.",
        ),
        click.option(
            "--data",
            default=None,
            metavar="FOLDER",
            help="Data folder, in place of the environment's.",
        ),
        click.option(
            "--env",
            "environment",
            default="local",
            metavar="NAME|FILE",
            show_default=True,
            help="Environment: a name under conf/environments, or such a file.",
        ),
    ):
        function = option(function)
    return function


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the same, and passes `settings` in their place."""

    @environment_options
    @wraps(function)
    def with_settings(
        *args: Any, environment: str, data: str | None, contracts: str | None, **kwargs: Any
    ) -> Any:
        from lakehouse import settings

        loaded = settings.load(environment, storage=data, contracts=contracts)
        return function(*args, settings=loaded, **kwargs)

    return with_settings


def moment(text: str, option: str) -> datetime:
    """An option's ISO-8601 time, in UTC, also where it names no zone. Raises BadParameter."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        said = f"{text!r} is no ISO-8601 time between the years 1 and 9999"
        raise click.BadParameter(said, param_hint=option) from None


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout: numbers to the right, with separators."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = [list(row) for row in rows]
    table = Table(*columns, title=title or None, title_justify="left")
    # On a narrow terminal a name still is one to copy, and nothing is left out.
    for name in table.columns[:1]:
        name.no_wrap = all(len(str(row[0])) <= NAME_LENGTH for row in listed)
    for index, column in enumerate(table.columns):
        column.overflow = "fold"
        if listed and all(isinstance(row[index], int | float) for row in listed):
            column.justify = "right"
    for row in listed:
        # Text, not markup: a record may hold square brackets of its own.
        table.add_row(*(Text(f"{v:,}" if type(v) is int else str(v)) for v in row))
    Console().print(table)


def user() -> str:
    """Who runs this process. Raises UsageError where the system has no name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise click.UsageError("the user of this process has no name: say who (--by)") from None


def stop_on_signals(stopping: threading.Event) -> None:
    """SIGTERM and Ctrl-C set the event. To be called again once Spark runs, which takes Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())


def _with_room(said: str) -> str:
    """What went wrong, and where there is to be room, which neither Java nor Python says."""
    room = "make room in the data folder, or where Spark keeps temporary files (spark.local.dir)"
    wanted = NO_SPACE in said and "make room" not in said
    return f"{said}: {room}, and run it again" if wanted else said


def _demand_text(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"an argument is no UTF-8 text: {argument!a}") from None


def run(command: click.Command, arguments: list[str] | None = None) -> None:
    """Runs a command to its exit code; what a user can meet is one line on stderr."""
    guard_streams()
    try:
        _demand_text(sys.argv[1:] if arguments is None else arguments)
        # What is underneath takes it from here.
        command.context_settings.setdefault("help_option_names", ["-h", "--help"])
        code = command.main(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except HeadwaterError as error:
        # It may name what stood in a record.
        click.echo(f"headwater: {privacy.line(_with_room(str(error)))}", err=True)
        code = error.exit_code
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        said = error.strerror or str(error) or type(error).__name__
        click.echo(f"headwater: {_with_room(said)}{where}", err=True)
        code = 1
    except Exception as error:
        # Spark's own errors come with the stack of two languages.
        if not type(error).__module__.startswith(("pyspark", "py4j", "delta")):
            raise
        click.echo(f"headwater: Spark: {privacy.line(_with_room(reason(str(error))))}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
