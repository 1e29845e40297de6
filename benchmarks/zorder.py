"""Selective queries over Silver before `headwater maintain` and after it: files read, and time.

    headwater bench zorder [--events 500000] [--commits 100] [--rounds 5]

Silver is filled by as many commits as micro-batches would make, with what a shop of 100 events a
second says within an hour or two, so that a day has all of them. Both versions are asked in turns:
the files of the older one are still there. How many files are read is Spark's own metric.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import click

from benchmarks import measure
from benchmarks.gold_increment import take

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

QUESTIONS = {
    "Payments of a day": "entity = 'payment'",
    "Orders of ten minutes": "entity = 'order' AND time BETWEEN '{day} 00:30' AND '{day} 00:40'",
}


@click.command()
@click.option("--events", default=500_000, show_default=True, help="Records in Silver.")
@click.option("--commits", default=100, show_default=True, help="Commits that they come in.")
@click.option("--rounds", default=5, show_default=True, help="Interleaved rounds of each.")
@measure.json_option
def main(events: int, commits: int, rounds: int, as_json: bool) -> None:
    """Selective queries before OPTIMIZE ZORDER and after it."""
    from batch import maintain
    from lakehouse import contracts, layouts, settings, tables
    from lakehouse.session import spark as make_session
    from producer.command import LIVE_RATE, instant, shop_of

    with tempfile.TemporaryDirectory() as folder:
        house = settings.load("local", storage=folder)
        loaded = contracts.load(house.contracts_dir)
        known = layouts.load(house.contracts_dir, loaded)
        spark = make_session(house, "benchmark")
        records = shop_of(1, instant(None, False), 0.3, LIVE_RATE).records()
        size = events // commits
        for number in range(commits):
            take(spark, house, loaded, records, number * size, size)
        silver = tables.silver(loaded)
        before = tables.version(spark, house, silver)
        maintain.keep(spark, house, loaded, known, (silver.full_name,), vacuum=False)
        after = tables.version(spark, house, silver)
        if after == before:
            raise click.ClickException("no day has enough small files: more --commits are wanted")
        whole = tables.read(spark, house, silver)
        [day] = whole.groupBy("date").count().orderBy("count", ascending=False).take(1)
        base, ours = "before maintenance", "after"
        results = []
        for title, condition in QUESTIONS.items():
            there = f"date = DATE '{day['date']}' AND {condition.format(day=day['date'])}"
            asked = {
                name: tables.read(spark, house, silver, version).where(there).select("id", "time")
                for name, version in ((base, before), (ours, after))
            }
            files = {name: [float(files_read(frame))] for name, frame in asked.items()}
            rows = {name: sorted(frame.collect(), key=repr) for name, frame in asked.items()}
            if not rows[base]:
                raise click.ClickException(f"{title}: no row: more --events are wanted")
            if rows[base] != rows[ours]:
                raise click.ClickException(f"{title}: other rows after maintenance")
            timed = {name: measure.seconds(frame.collect) for name, frame in asked.items()}
            found = measure.take_turns(timed, rounds)
            notes = {"records": events, "rows found": len(rows[ours]), "where": there}
            results += [
                measure.Result(title, "files read", base, files, notes, {ours: 0.2}),
                measure.Result(title, "seconds", base, found, notes, {ours: 0.333}),
            ]
        spark.stop()
    for result in results:
        measure.show(result, as_json)


def files_read(frame: DataFrame) -> int:
    """Of a query without a shuffle, once it has run."""
    frame.collect()
    jdf: Any = frame._jdf
    leaves = jdf.queryExecution().executedPlan().collectLeaves()
    scans = (leaves.apply(number) for number in range(leaves.size()))
    return sum(scan.metrics().apply("numFiles").value() for scan in scans)


if __name__ == "__main__":
    main()
