"""What a Gold increment costs over a small history and over a large one, in one run.

    .venv/bin/python -m benchmarks.gold_increment [--events 20000] [--large 1000000]

Both histories are the simulator's, classified into Silver without a broker, copies included; the
increments are the shop's next events. They take turns. Printed as Markdown: seconds, and the ratio
of large to small.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

    from lakehouse.contracts import Contracts
    from lakehouse.settings import Settings
    from producer.defects import Record

RECORDS_A_FILE = 50_000


@click.command()
@click.option("--events", default=20_000, show_default=True, help="Records of an increment.")
@click.option("--small", default=100_000, show_default=True, help="Records of the small history.")
@click.option("--large", default=1_000_000, show_default=True, help="Records of the large one.")
@click.option("--rounds", default=3, show_default=True, help="Increments of each.")
def main(events: int, small: int, large: int, rounds: int) -> None:
    """Time increments over two histories, and print their ratio."""
    from batch import gold
    from lakehouse import contracts, layouts, settings
    from lakehouse.session import spark as make_session
    from producer.command import instant, shop_of

    with tempfile.TemporaryDirectory() as folder:
        base = settings.load("local", storage=folder)
        loaded = contracts.load(base.contracts_dir)
        known = layouts.load(base.contracts_dir, loaded)
        spark = make_session(base, "benchmark")
        houses = {}
        first: dict[int, float] = {}
        for size in (small, large):
            house = settings.load("local", storage=f"{folder}/{size}")
            records = shop_of(1, instant(None, False), 0.3).records()
            take(spark, house, loaded, records, 0, size)
            started = time.perf_counter()
            gold.build(spark, house, loaded, known)
            first[size] = time.perf_counter() - started
            houses[size] = (house, records, size)
        seconds: dict[int, list[float]] = {small: [], large: []}
        rows: dict[int, list[int]] = {small: [], large: []}
        for turn in range(rounds + 1):
            for size, (house, records, begin) in houses.items():
                take(spark, house, loaded, records, begin + turn * events, events)
                started = time.perf_counter()
                result = gold.build(spark, house, loaded, known)
                if turn:  # the first round warms up
                    seconds[size].append(time.perf_counter() - started)
                    rows[size].append(result.rows)
        spark.stop()
    base_seconds = statistics.median(seconds[small])
    click.echo("| history | first build, s | increment, median s | min | max | rows | ratio |")
    click.echo("|---|---|---|---|---|---|---|")
    for size, found in seconds.items():
        middle = statistics.median(found)
        click.echo(
            f"| {size:,} | {first[size]:.1f} | {middle:.1f} | {min(found):.1f} | {max(found):.1f} "
            f"| {statistics.median(rows[size]):,.0f} | {middle / base_seconds:.2f} |"
        )


def take(
    spark: SparkSession,
    house: Settings,
    contracts: Contracts,
    records: Iterator[Record],
    begin: int,
    count: int,
) -> None:
    """The next `count` records into Silver, in one commit: coordinates from `begin` on."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import functions as F

    from lakehouse import silver, tables

    table = tables.silver(contracts)
    tables.ensure(spark, house, table)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(begin, begin + count, RECORDS_A_FILE):
            some = list(islice(records, min(RECORDS_A_FILE, begin + count - number)))
            columns = {
                "offset": pa.array(range(number, number + len(some)), pa.int64()),
                "timestamp": pa.array([r.at * 1000 for r in some], pa.timestamp("us", "UTC")),
                "key": pa.array([r.key for r in some], pa.binary()),
                "value": pa.array([r.value for r in some], pa.binary()),
            }
            pq.write_table(pa.table(columns), Path(folder) / f"{number}.parquet")
        raw = spark.read.parquet(folder).withColumns({"topic": F.lit("t"), "partition": F.lit(0)})
        rows = silver.classify(raw, contracts, house.stream.max_record_bytes, "stream")
        tables.append(rows, house, table)


if __name__ == "__main__":
    main()
