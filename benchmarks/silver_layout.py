"""What one Silver commit costs: one table, with and without partitions, against a table an entity.

    .venv/bin/python -m benchmarks.silver_layout [--rows 5000] [--rounds 7]

The simulator's mix, classified once and kept in memory, is appended in interleaved rounds:

    one table             one commit, unpartitioned
    one table by date     one commit, partitioned by the broker's date (what Headwater does)
    one table by entity   one commit, partitioned by date and entity
    a table an entity     fifteen commits, one after the other: an entity each, and the quarantine
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.settings import Settings


@click.command()
@click.option("--rows", default=5_000, show_default=True, help="Records a commit.")
@click.option("--rounds", default=7, show_default=True, help="Commits of each layout.")
def main(rows: int, rounds: int) -> None:
    """Print the median, smallest and largest seconds of a commit by layout, as Markdown."""
    from lakehouse import settings

    with tempfile.TemporaryDirectory() as folder:
        measure(settings.load("local", storage=folder), rows, rounds)


def measure(settings: Settings, rows: int, rounds: int) -> None:
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
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    for turn in range(rounds + 2):
        for name, commit in layouts.items():
            started = time.perf_counter()
            commit()
            if turn >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - started)
    base = statistics.median(seconds["one table by date"])
    click.echo(
        f"{rows:,} records, {rounds} rounds, {platform.machine()}, Python "
        f"{platform.python_version()}, Spark {spark.version}, "
        f"{json.dumps(session.session_conf(settings)['spark.sql.shuffle.partitions'])} tasks"
    )
    click.echo("| layout | median s | min | max | against by date |\n|---|---|---|---|---|")
    for name, found in seconds.items():
        middle = statistics.median(found)
        click.echo(
            f"| {name} | {middle:.2f} | {min(found):.2f} | {max(found):.2f} | {middle / base:.2f} |"
        )


def append(frame: DataFrame, path: str, by: tuple[str, ...]) -> None:
    writer = frame.write.format("delta").mode("append")
    (writer.partitionBy(*by) if by else writer).save(path)


if __name__ == "__main__":
    main()
