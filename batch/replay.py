"""Replay: Silver for a range is made anew from Bronze, as after a change of a rule.

In place and in one commit: until it is there, readers see what was. A copy of an event whose first
one is not accepted any more gets an outcome of its own in the same commit.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from lakehouse.command import moment, run, settings_options, user

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

    from batch.judge import Result
    from lakehouse.contracts import Contracts
    from lakehouse.settings import Settings

JOB = "replay"
LAST_OFFSET = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """Records from `begin` up to `end`, which is not in it: offsets, or ISO-8601 broker times.

    topic, partition: of these alone, where given.
    """

    begin: int | str
    end: int | str | None = None
    topic: str | None = None
    partition: int | None = None

    def condition(self) -> Column:
        """On rows of Bronze and of Silver. Raises BadParameter."""
        from pyspark.sql import functions as F

        from lakehouse.sql import constant

        name = "offset" if isinstance(self.begin, int) else "timestamp"
        first, last = _limit(self.begin, "--from-time"), _limit(self.end, "--to")
        found = F.col(name) >= constant(first)
        if last is not None:
            found = found & (F.col(name) < constant(last))
        if self.topic is not None:
            found = found & (F.col("topic") == self.topic)
        if self.partition is not None:
            found = found & (F.col("partition") == self.partition)
        return found


def _limit(value: int | str | None, option: str) -> object:
    return moment(value, option) if isinstance(value, str) else value


@click.command("replay")
@click.option(
    "--from-offset",
    type=click.IntRange(0, LAST_OFFSET),
    help="First offset, of each partition.",
)
@click.option("--from-time", metavar="TIME", help="When the broker took the first one, ISO-8601.")
@click.option("--to", metavar="OFFSET|TIME", help="Up to there; all that is committed if left out.")
@click.option("--topic", default=None, help="Of this topic alone.")
@click.option("--partition", type=click.IntRange(0, 2**31 - 1), help="Of this partition alone.")
@click.option(
    "--bronze",
    is_flag=True,
    help="First read from the broker what Bronze lacks of it.",
)
@click.option("--by", help="Who; the user of this machine where left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options
def replay(
    from_offset: int | None,
    from_time: str | None,
    to: str | None,
    topic: str | None,
    partition: int | None,
    bronze: bool,
    by: str | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Make Silver anew from Bronze for a range, under the rules as they are now."""
    from lakehouse import contracts
    from lakehouse.locks import held
    from lakehouse.progress import doing
    from lakehouse.session import spark as make_session

    wanted = _range(from_offset, from_time, to, topic, partition)
    who = by or user()
    loaded = contracts.load(settings.contracts_dir)
    topics = loaded.topics(settings.topics.events)
    if topic is not None and topic not in topics:
        raise click.BadParameter(f"{topic!r} is none of {', '.join(topics)}", param_hint="--topic")
    with held(settings, "reconcile", "replay of silver.events"):
        with doing("starting Spark"):
            spark = make_session(settings, JOB)
        refilled = 0
        if bronze:
            from batch.refill import refill

            with doing("reading from the broker what Bronze lacks"):
                refilled = refill(spark, settings, wanted)
        with doing("replaying"):
            result = replay_range(spark, settings, loaded, wanted, who)
    if as_json:
        click.echo(json.dumps({"refilled": refilled, **asdict(result)}))
        return
    if bronze:
        click.echo(f"{refilled:,} records read again from the broker into bronze.events")
    click.echo(
        f"{result.pending:,} records judged anew: {result.accepted:,} accepted, "
        f"{result.quarantined:,} quarantined, {result.duplicates:,} duplicates; "
        f"{result.corrected:,} rows outside the range corrected"
    )


def _range(
    from_offset: int | None,
    from_time: str | None,
    to: str | None,
    topic: str | None,
    partition: int | None,
) -> Range:
    if (from_offset is None) == (from_time is None):
        raise click.UsageError("--from-offset or --from-time: one of them")
    if from_time is not None:
        begin = moment(from_time, "--from-time")
        if to is not None and moment(to, "--to") <= begin:
            raise click.BadParameter(f"{to} is not after {from_time}", param_hint="--to")
        return Range(from_time, to, topic, partition)
    if to is not None and not (re.fullmatch("[0-9]{1,19}", to) and int(to) <= LAST_OFFSET):
        raise click.BadParameter(f"{to!r} is no offset, as --from-offset is", param_hint="--to")
    if to is not None and int(to) <= (from_offset or 0):
        raise click.BadParameter(f"{to} is not after {from_offset}", param_hint="--to")
    return Range(from_offset or 0, None if to is None else int(to), topic, partition)


def replay_range(
    spark: SparkSession, settings: Settings, contracts: Contracts, wanted: Range, by: str = JOB
) -> Result:
    """Judges every committed record of the range anew. by: who had it done, for ops.repairs.

    The result counts those, and what had no row in Silver, of the whole of Bronze.
    """

    from batch import judge
    from lakehouse import runs, tables
    from lakehouse.silver import COORDINATES

    with runs.recorded(spark, settings, JOB) as run:
        committed = judge.within({}, judge.committed_by_all(spark, settings))
        table = tables.silver(contracts)
        tables.ensure(spark, settings, table)
        rows = tables.read(spark, settings, table).where(committed & wanted.condition())
        again = rows.select(*COORDINATES)
        done = judge.judge(spark, settings, contracts, committed, committed, JOB, again, by)
        run.rows = done.rows
        run.details = {**asdict(wanted), **asdict(done.result)}
        run.written = {table.full_name: done.version}
    return done.result


if __name__ == "__main__":
    run(replay, sys.argv[1:])
