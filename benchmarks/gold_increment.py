"""What a Gold increment costs over a small history and over a large one, in one run.

    headwater bench gold_increment [--events 20000] [--large 1000000]

Both histories are the simulator's, classified into Silver without a broker, copies included; the
increments are the shop's next events.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
@measure.json_option
def main(events: int, small: int, large: int, rounds: int, as_json: bool) -> None:
    """What a Gold increment costs over a small history and over a large one."""
    from batch import gold
    from lakehouse import contracts, layouts, settings
    from lakehouse.session import spark as make_session
    from producer.command import instant, shop_of

    with tempfile.TemporaryDirectory() as folder:
        base = settings.load("local", storage=folder)
        loaded = contracts.load(base.contracts_dir)
        known = layouts.load(base.contracts_dir, loaded)
        spark = make_session(base, "benchmark")
        first: dict[str, str] = {}

        def over(size: int) -> Callable[[], float]:
            house = settings.load("local", storage=f"{folder}/{size}")
            records = shop_of(1, instant(None, False), 0.3).records()
            sent = 0

            def grow(count: int) -> float:
                nonlocal sent
                take(spark, house, loaded, records, sent, count)
                sent += count
                return measure.seconds(lambda: gold.build(spark, house, loaded, known))()

            first[f"first build of {size:,}, s"] = f"{grow(size):.1f}"
            return lambda: grow(events)

        cases = {f"a history of {size:,}": over(size) for size in (small, large)}
        found = measure.take_turns(cases, rounds)
        spark.stop()
    notes = {"records of an increment": events, **first}
    over_small, over_large = cases
    target = {over_large: 1.5}
    result = measure.Result("A Gold increment", "seconds", over_small, found, notes, target)
    measure.show(result, as_json)


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
