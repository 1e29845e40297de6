"""What one Silver commit costs: one table, with and without partitions, against a table an entity.

    headwater bench silver_layout [--rows 5000] [--rounds 7]

The simulator's mix, classified once and kept in memory, is appended in interleaved rounds:

    one table             one commit, unpartitioned
    one table by date     one commit, partitioned by the broker's date (what Headwater does)
    one table by entity   one commit, partitioned by date and entity
    a table an entity     fifteen commits, one after the other: an entity each, and the quarantine
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from benchmarks import measure

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.settings import Settings


@click.command()
@click.option("--rows", default=5_000, show_default=True, help="Records a commit.")
@click.option("--rounds", default=7, show_default=True, help="Commits of each layout.")
@measure.json_option
def main(rows: int, rounds: int, as_json: bool) -> None:
    """What a commit of Silver costs by layout."""
    from lakehouse import settings

    with tempfile.TemporaryDirectory() as folder:
        local = settings.load("local", storage=folder)
        measure.show(commits(local, rows, rounds), as_json)


def commits(settings: Settings, rows: int, rounds: int) -> measure.Result:
    from pyspark.sql import functions as F

    from lakehouse import contracts, session, tables
    from lakehouse.silver import classify
    from producer.command import instant, shop_of

    spark = session.spark(settings, "benchmark")
    spark.sparkContext.setLogLevel("ERROR")
    loaded = contracts.load(settings.contracts_dir)
    records = islice(shop_of(1, instant(None, False), 0.3).records(), 20_000, 20_000 + rows)
    raw = spark.createDataFrame(
        [
            ("shop.events", i % 4, i, datetime.now(UTC), r.key, r.value)
            for i, r in enumerate(records)
        ],
        "topic string, partition int, offset bigint, timestamp timestamp, key binary, value binary",
    )
    silver = tables.silver(loaded)
    frame = classify(raw, loaded, settings.stream.max_record_bytes, "stream")
    # Two partitions, as the stream's shuffle leaves them.
    frame = frame.select(*silver.columns).repartition(2).localCheckpoint()

    def path(name: str) -> str:
        return f"{settings.storage}/{name}"

    def one(name: str, *by: str) -> Callable[[], None]:
        return lambda: append(frame, path(name), by)

    def many() -> None:
        for name in loaded:
            mine = (F.col("entity") == name) & (F.col("outcome") == "accepted")
            append(
                frame.where(mine).select("topic", "partition", "offset", "date", f"{name}.*"),
                path(f"many_{name}"),
                ("date",),
            )
        bad = frame.where("outcome = 'quarantined'").drop(*loaded)
        append(bad, path("many_quarantine"), ("date",))

    layouts = {
        "one table": one("plain"),
        "one table by date": one("dated", "date"),
        "one table by date and entity": one("entities", "date", "entity"),
        "a table an entity": many,
    }
    timed = {name: measure.seconds(commit) for name, commit in layouts.items()}
    found = measure.take_turns(timed, rounds, warm=2)
    notes = {"records": rows, "partitions of the shuffle": settings.stream.state_partitions}
    return measure.Result("A commit of Silver", "seconds", "one table by date", found, notes)


def append(frame: DataFrame, path: str, by: tuple[str, ...]) -> None:
    writer = frame.write.format("delta").mode("append")
    (writer.partitionBy(*by) if by else writer).save(path)


if __name__ == "__main__":
    main()
