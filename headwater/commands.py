"""The smaller commands: broker, contracts, status, doctor, sql."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lakehouse.command import moment, settings_options, show
from lakehouse.errors import ContractError, HeadwaterError

if TYPE_CHECKING:
    from lakehouse.settings import Settings


@click.group("broker")
def broker_group() -> None:
    """The embedded broker: a single-node Kafka in KRaft mode under the data folder."""


@broker_group.command("start")
@settings_options
def broker_start(settings: Settings) -> None:
    """Start it, or find it running; its port is kept from start to start."""
    from headwater import broker
    from lakehouse.progress import doing

    with doing("starting the broker"):
        status = broker.start(settings)
    click.echo(f"broker runs at {status.bootstrap} (process {status.pid}, {status.folder})")


@broker_group.command("stop")
@settings_options
def broker_stop(settings: Settings) -> None:
    """Stop it, and wait until it is gone."""
    from headwater import broker
    from lakehouse.progress import doing

    with doing("stopping the broker"):
        stopped = broker.stop(settings)
    click.echo("broker stopped" if stopped else "no broker runs here")


@broker_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@settings_options
def broker_status(as_json: bool, settings: Settings) -> None:
    """Say whether it runs, and where. Exit code 1 where it does not."""
    from headwater import broker

    status = broker.status(settings)
    if as_json:
        click.echo(json.dumps(asdict(status)))
    elif status.running:
        click.echo(f"broker runs at {status.bootstrap} (process {status.pid}, {status.folder})")
    else:
        click.echo(f"no broker runs in {status.folder}: `headwater broker start`")
    sys.exit(0 if status.running else 1)


@click.group("contracts")
def contracts_group() -> None:
    """The contracts: what every table holds, and the rules of it."""


@contracts_group.command("check")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@settings_options
def contracts_check(folder: Path | None, settings: Settings) -> None:
    """Check every contract of FOLDER; say file, line and key where one is wrong."""
    from lakehouse import contracts, layouts

    where = folder or settings.contracts_dir
    found, findings = contracts.check(where)
    tables, more = layouts.check(where, found)
    findings += more
    for finding in findings:
        click.echo(str(finding), err=True)
    if findings:
        raise ContractError(f"{len(findings)} findings in {where}")
    columns = sum(len(contract.columns) for contract in found.values())
    click.echo(
        f"{len(found)} contracts with {columns} columns, and {len(tables)} of tables, in {where}: "
        "all as they should be"
    )


@contracts_group.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), required=False)
@click.option(
    "--require",
    type=click.Choice(["backward", "forward", "full"]),
    help="Exit with 1 where a change is not compatible in this way; full: both.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the changes as a JSON list.")
@settings_options
def contracts_diff(
    old: Path, new: Path | None, require: str | None, as_json: bool, settings: Settings
) -> None:
    """Say whether the contracts of NEW can take what was written under those of OLD.

    Backward: what OLD accepts, NEW accepts. Forward: what NEW accepts, OLD accepts. NEW is the
    environment's folder where left out.
    """
    from lakehouse import compatibility, contracts

    changes = compatibility.diff(contracts.load(old), contracts.load(new or settings.contracts_dir))
    if as_json:
        click.echo(json.dumps([asdict(change) for change in changes]))
    elif changes:
        words = {True: "compatible", False: "breaks"}
        rows = [(c.where, c.what, words[c.backward], words[c.forward]) for c in changes]
        show("", ("where", "what", "backward", "forward"), rows)
    else:
        click.echo("no change that bears on records")
    backward = require in {"backward", "full"}
    forward = require in {"forward", "full"}
    if any((backward and not c.backward) or (forward and not c.forward) for c in changes):
        raise click.exceptions.Exit(1)


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@settings_options
def status(as_json: bool, settings: Settings) -> None:
    """Show tables (rows, files, bytes, last commit), how fresh each is, stream lag and the last run
    of each job.

    Exit code 1 where a table is further behind than its contract promises.
    """
    from headwater import status as found_by

    found = found_by.state(settings)
    late = [one for one in found["freshness"] if one["kept"] is False]
    if as_json:
        click.echo(json.dumps(found, default=str))
        sys.exit(1 if late else 0)
    behind = {one["table"]: one["short"] for one in found["freshness"]}
    tables = [
        (
            *(t[name] for name in ("table", "rows", "files", "bytes")),
            t["last_commit"][:19].replace("T", "\n"),
            behind.get(t["table"], ""),
        )
        for t in found["tables"]
    ]
    show("Tables", ("table", "rows", "files", "bytes", "last commit", "behind"), tables)
    streams = [
        (
            s["query"],
            s["committed"],
            "?" if s["lag"] is None else s["lag"],
            s["oldest_unread"]["said"] if s["oldest_unread"] else "",
        )
        for s in found["streams"]
    ]
    show("Streams", ("query", "records committed", "lag", "oldest unread"), streams)
    if found["broker_error"]:
        click.echo(found["broker_error"])
    jobs = [
        (
            job["job"],
            f"{job['started_at'][:19]}\n{job['ended_at'][:19]}",
            job["result"],
            job["rows"],
            f"{_versions(job['read'])} → {_versions(job['written'])}\n{_short(job['details'])}",
        )
        for job in found["jobs"]
    ]
    show("Jobs", ("job", "last run", "result", "rows", "read → written"), jobs)
    for one in found["freshness"]:
        if one["kept"] is not True:
            click.echo(f"freshness: {one['said']}", err=True)
    if late:
        raise click.exceptions.Exit(1)


def _short(details: str) -> str:
    """What a run said of itself, lists by how long they are."""
    told = json.loads(details)
    return json.dumps({k: len(v) if isinstance(v, list) else v for k, v in told.items()})


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list.")
@settings_options
def doctor(as_json: bool, settings: Settings) -> None:
    """Check environment, contracts, storage, broker, clock, checkpoints, tables and jobs.

    Each finding comes with its remedy. Exit code 1 where one is an error. Nothing is changed.
    """
    from headwater import doctor as doctor_checks
    from lakehouse.progress import Ticker

    with Ticker() as ticker:
        found = doctor_checks.examine(settings, ticker.show)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found]))
    else:
        rows = [(f.check, f.state, f.said, f.remedy) for f in found]
        show("", ("check", "state", "what", "remedy"), rows)
    if any(finding.state == doctor_checks.ERROR for finding in found):
        raise click.exceptions.Exit(1)


def _versions(by_table: dict[str, int]) -> str:
    """Tables and their versions, on one line; --json has them all."""
    if len(by_table) > 1:
        return f"{len(by_table)} tables"
    return ", ".join(f"{name}@{version}" for name, version in by_table.items())


@click.command("sql")
@click.argument("statement")
@click.option(
    "--limit",
    type=click.IntRange(1, 2**31 - 2),
    default=100,
    show_default=True,
    help="Rows to show at most.",
)
@click.option("--as-of", metavar="TIME", help="Tables as they were then, ISO-8601.")
@click.option("--json", "as_json", is_flag=True, help="Print rows as a JSON list.")
@settings_options
def sql(statement: str, limit: int, as_of: str | None, as_json: bool, settings: Settings) -> None:
    """Run one Spark SQL STATEMENT; tables and views have their names: silver.order, bronze.events.

    `SHOW VIEWS IN silver` lists the views.
    """
    from pyspark.errors import PySparkException

    from headwater import status
    from lakehouse import contracts, layouts, tables
    from lakehouse.progress import doing
    from lakehouse.session import spark as make_session

    loaded = contracts.load(settings.contracts_dir)
    then = None if as_of is None else moment(as_of, "--as-of")
    if then is not None and settings.unity.catalog:
        raise click.BadParameter(
            f"names of {settings.unity.catalog} are everybody's: write TIMESTAMP AS OF '{as_of}' "
            "after the table in the statement",
            param_hint="--as-of",
        )
    with doing("starting Spark"):
        spark = make_session(settings, "sql")
        # What a statement changes is changed by hand.
        spark.conf.unset("spark.databricks.delta.commitInfo.userMetadata")
        known_layouts = layouts.load(settings.contracts_dir, loaded)
        names = tables.register(spark, settings, loaded, known_layouts, then)
    try:
        with doing("running the statement"):
            frame = spark.sql(statement)
            rows = frame.limit(limit + 1).collect()
    except PySparkException as error:
        # Of what cannot be parsed the first line is an empty one.
        said = str(error).split("\n\nJVM")[0].strip().splitlines()[0]
        known = f"; there are: {', '.join(names) or 'no tables yet'}"
        missing = "TABLE_OR_VIEW_NOT_FOUND" in said
        raise HeadwaterError(f"sql: {said}{known if missing else ''}") from None
    values = [[status.plain(value) for value in row] for row in rows[:limit]]
    if as_json:
        if twice := sorted({name for name in frame.columns if frame.columns.count(name) > 1}):
            raise HeadwaterError(
                f"sql: more than one column is called {', '.join(twice)}: name them (AS), or leave "
                "--json out"
            )
        listed = [dict(zip(frame.columns, row, strict=True)) for row in values]
        click.echo(json.dumps(listed, default=str))
    else:
        show("", frame.columns, values)
    if len(rows) > limit:
        click.echo(f"more than {limit} rows: --limit shows more", err=True)
