"""What keeping unknown fields costs: the same records classified with `newFields` drop and evolve.

    headwater bench rescued_fields [--rows 200000] [--rounds 7]

The simulator's mix, which has no unknown fields, and the same with two more in the data of every
record; read from memory, classified, and thrown away (Spark's noop sink), in interleaved rounds.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from benchmarks import measure

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from lakehouse.settings import Settings


@click.command()
@click.option("--rows", default=200_000, show_default=True, help="Records a round.")
@click.option("--rounds", default=7, show_default=True, help="Rounds of each.")
@measure.json_option
def main(rows: int, rounds: int, as_json: bool) -> None:
    """What keeping unknown fields costs."""
    from lakehouse import settings

    with tempfile.TemporaryDirectory() as folder:
        local = settings.load("local", storage=folder)
        measure.show(classified(local, rows, rounds), as_json)


def classified(settings: Settings, rows: int, rounds: int) -> measure.Result:
    from lakehouse import contracts, session
    from lakehouse.contracts import Contracts
    from lakehouse.silver import classify

    spark = session.spark(settings, "benchmark")
    spark.sparkContext.setLogLevel("ERROR")
    loaded = contracts.load(settings.contracts_dir)
    inputs = {"as they are": records(spark, rows, b""), "two more": records(spark, rows, MORE)}

    def case(mode: str, raw: DataFrame) -> Callable[[], None]:
        changed = Contracts([dataclasses.replace(c, new_fields=mode) for c in loaded.values()])
        frame = classify(raw, changed, settings.stream.max_record_bytes, "benchmark")
        return lambda: frame.write.format("noop").mode("overwrite").save()

    cases = {
        f"{mode}, fields {name}": measure.seconds(case(mode, raw))
        for mode in ("drop", "evolve")
        for name, raw in inputs.items()
    }
    found = measure.take_turns(cases, rounds, warm=2)
    base = "drop, fields as they are"
    return measure.Result("Unknown fields", "seconds", base, found, {"records": rows})


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
