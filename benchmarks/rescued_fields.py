"""What keeping unknown fields costs: the same records classified with `newFields` drop and evolve.

    .venv/bin/python -m benchmarks.rescued_fields [--rows 200000] [--rounds 7]

The simulator's mix, which has no unknown fields, and the same with two more in the data of every
record; read from memory, classified, and thrown away (Spark's noop sink), in interleaved rounds.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from lakehouse.settings import Settings


@click.command()
@click.option("--rows", default=200_000, show_default=True, help="Records a round.")
@click.option("--rounds", default=7, show_default=True, help="Rounds of each.")
def main(rows: int, rounds: int) -> None:
    """Print the median, smallest and largest seconds by mode and input, as Markdown."""
    from lakehouse import settings

    with tempfile.TemporaryDirectory() as folder:
        measure(settings.load("local", storage=folder), rows, rounds)


def measure(settings: Settings, rows: int, rounds: int) -> None:
    from lakehouse import contracts, session
    from lakehouse.contracts import Contracts
    from lakehouse.silver import classify

    spark = session.spark(settings, "benchmark")
    spark.sparkContext.setLogLevel("ERROR")
    loaded = contracts.load(settings.contracts_dir)
    inputs = {"as they are": records(spark, rows, b""), "two more": records(spark, rows, MORE)}
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 2):
        for mode in ("drop", "evolve"):
            changed = [dataclasses.replace(c, new_fields=mode) for c in loaded.values()]
            for name, raw in inputs.items():
                limit = settings.stream.max_record_bytes
                frame = classify(raw, Contracts(changed), limit, "benchmark")
                started = time.perf_counter()
                frame.write.format("noop").mode("overwrite").save()
                if turn >= 2:  # the first two warm up
                    seconds.setdefault((mode, name), []).append(time.perf_counter() - started)
    click.echo(
        f"{rows:,} records, {rounds} rounds, {platform.machine()}, Python "
        f"{platform.python_version()}, Spark {spark.version}"
    )
    click.echo(
        "| newFields | fields | median s | min | max | against drop |\n|---|---|---|---|---|---|"
    )
    for (mode, name), found in seconds.items():
        middle = statistics.median(found)
        ratio = middle / statistics.median(seconds["drop", name])
        values = " | ".join(f"{value:.2f}" for value in (middle, min(found), max(found), ratio))
        click.echo(f"| {mode} | {name} | {values} |")


MORE = b'"data":{"colour":"red","nested":{"a":[1,2,3]},'


def records(spark: SparkSession, rows: int, more: bytes) -> DataFrame:
    from producer.command import instant, shop_of

    drawn = islice(shop_of(1, instant(None, False), 0.3).records(), 20_000, 20_000 + rows)
    return spark.createDataFrame(
        [
            (
                *("shop.events", i % 4, i, datetime.now(UTC), r.key),
                r.value.replace(b'"data":{', more, 1) if more and r.value else r.value,
            )
            for i, r in enumerate(drawn)
        ],
        "topic string, partition int, offset bigint, timestamp timestamp, key binary, value binary",
    ).localCheckpoint()


if __name__ == "__main__":
    main()
