"""Reconcile: every pending record of a closed range gets its outcome.

Pending is what is in Bronze and not in Silver: events later than the watermark, copies, and events
with an id that another event has.

The range is closed where every query has committed it and begins where the last reconcile ended.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from lakehouse.command import moment, run, settings_options
from lakehouse.errors import BrokerError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from batch.judge import Result
    from lakehouse.contracts import Contracts
    from lakehouse.kafka import Offsets
    from lakehouse.settings import Settings

# Before any record of a broker, one without a timestamp (1 ms before 1970) included.
BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)


@click.command("reconcile")
@click.option(
    "--since",
    metavar="TIME",
    help="Look again at what came to the broker from then on (ISO-8601), too.",
)
@click.option("--full", is_flag=True, help="Look at all of Bronze.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options
def reconcile(since: str | None, full: bool, as_json: bool, settings: Settings) -> None:
    """Give every pending record of the closed range its outcome.

    Exit code 1, once that is done, where the broker is about to let go of records that no stream
    has read.
    """
    from lakehouse import contracts, runs
    from lakehouse.locks import held
    from lakehouse.progress import doing
    from lakehouse.session import spark as make_session

    if full and since is not None:
        raise click.UsageError("--full and --since: one of them")
    begin = BEGINNING if full else None if since is None else moment(since, "--since")
    loaded = contracts.load(settings.contracts_dir)
    with held(settings, "reconcile", "reconcile of silver.events"):
        with doing("starting Spark"):
            spark = make_session(settings, "reconcile")
        with doing("reconciling"):
            result = reconcile_range(spark, settings, loaded, begin)
            closed = runs.closed_range(spark, settings)
    click.echo(json.dumps(asdict(result)) if as_json else describe(result))
    _demand_read(settings, loaded, closed)


def _demand_read(settings: Settings, contracts: Contracts, closed: Offsets) -> None:
    """Raises GapError where records are close to the end of the broker's retention, unread. For the
    schedule that this is on: whoever hears of its failures hears of that."""
    from lakehouse import kafka, lag
    from lakehouse.errors import GapError

    try:
        topics = contracts.topics(settings.topics.events)
        found = lag.unread(settings, closed, kafka.end_offsets(settings, topics))
    except BrokerError:
        return  # a reconcile does without it
    if found and found[0].share >= lag.LATE:
        raise GapError(f"{found[0]}: is `headwater stream` running? (`headwater doctor`)")


def describe(result: Result) -> str:
    return (
        f"{result.pending:,} pending records: {result.accepted:,} accepted late, "
        f"{result.quarantined:,} quarantined, {result.duplicates:,} duplicates; "
        f"{result.corrected:,} rows of Silver corrected"
    )


def reconcile_range(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    since: datetime | None = None,
) -> Result:
    """Reconciles up to what every query has committed.

    From the last run's end on, and of what came to the broker since a moment, all of it again.
    """
    from pyspark.sql import functions as F

    from batch import judge
    from lakehouse import runs, tables

    with runs.recorded(spark, settings, "reconcile") as run:
        end = judge.committed_by_all(spark, settings)
        closed = runs.closed_range(spark, settings)
        committed = judge.within({}, end)
        looked_at = judge.within(closed, end)
        if since is not None:
            # What is open in any case; of the closed range, whole days at a time are left out.
            since = max(since, BEGINNING)  # which Spark can compare with
            looked_at = looked_at | (
                committed
                & (F.col("timestamp") >= since)
                & (F.col("date") >= since.astimezone(UTC).date())
            )
        tables.read(spark, settings, tables.bronze())  # says so where there is none
        tables.ensure(spark, settings, tables.silver(contracts))
        run.read = tables.versions(spark, settings, [tables.bronze(), tables.silver(contracts)])
        done = judge.judge(spark, settings, contracts, looked_at, committed, "reconcile")
        end = end | {key: min(end[key], first) for key, first in done.waiting.items()}
        run.rows = done.rows
        run.offsets = closed | end
        run.details = asdict(done.result)
        run.written = {tables.silver(contracts).full_name: done.version}
        # What was closed before was looked at then, unless the broker was away.
        _write_down_vacant(spark, settings, closed if since is None else {}, end)
    return done.result


def _write_down_vacant(
    spark: SparkSession, settings: Settings, begin: Offsets, end: Offsets
) -> None:
    """Which of the offsets that Bronze lacks never were records: a broker says so only as long as
    it keeps what is around them."""
    from lakehouse import gaps, tables

    recent = {key: last for key, last in end.items() if last > begin.get(key, 0)}
    missing = gaps.holes(spark, settings, begin, recent)
    missing = gaps.without(missing, gaps.accepted(spark, settings, "bronze")) if missing else []
    if missing:
        # Where the broker does not answer, the audit asks it again, and so does who looks again.
        with suppress(BrokerError):
            if found := gaps.vacant(settings, missing):
                tables.ensure(spark, settings, tables.gaps())
                found = [replace(gap, why=gaps.VACANT) for gap in found]
                gaps.accept(spark, settings, "bronze", found)


if __name__ == "__main__":
    run(reconcile, sys.argv[1:])
