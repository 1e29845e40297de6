"""Catching up with a long topic: whether a query slows down as its tables and its state grow.

    headwater bench history [--events 13000000]

A live shop is sent first, so many events within a minute or two of its own time that none of their
keys leaves the state while Silver catches up: four in five records are one. Bronze catches up by
itself, then Silver does. Rates are of what each commit adds to the query's table, by its time in
the table's log; a curve has ten parts. The first warms up, so the last is held against the second.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import click

from benchmarks import measure
from benchmarks.latency import commits

if TYPE_CHECKING:
    from lakehouse.settings import Settings

PARTS = 10
LEAST_COMMITS = 4
# Fast enough that all of it lies within the watermark.
EVENTS_A_SECOND = 100_000.0


@click.command()
@click.option("--events", default=13_000_000, show_default=True, help="Records in the topic.")
@measure.json_option
def main(events: int, as_json: bool) -> None:
    """The rates of Bronze and Silver along a long topic, all its keys in the state."""
    from headwater import broker
    from lakehouse import checkpoints, contracts, kafka, settings
    from lakehouse.session import spark as make_session
    from lakehouse.silver import ACCEPTED
    from producer.command import Sending, send_shop
    from streaming.command import start_all
    from tests.helpers import table

    with tempfile.TemporaryDirectory() as folder:
        base = settings.load("local", storage=folder)
        loaded = contracts.load(base.contracts_dir)
        where = base.broker.model_copy(update={"bootstrap": broker.start(base).bootstrap})
        local = base.model_copy(update={"broker": where})
        lines: dict[str, list[float]] = {}
        state: dict[str, float] = {}
        try:
            kafka.ensure_topics(local, loaded.topics(local.topics.events))
            click.echo(f"sending {events:,} records", err=True)
            send_shop(local, Sending(events=events, live=True, rate=EVENTS_A_SECOND))
            spark = make_session(local, "benchmark")
            spark.sparkContext.setLogLevel("ERROR")
            for name in checkpoints.QUERIES:
                click.echo(f"{name} catches up", err=True)
                [running] = start_all(spark, local, loaded, [name], True)
                running.query.awaitTermination()
                lines[name] = rates(local, name)
                if (last := running.query.lastProgress) and last.stateOperators:
                    state = last.stateOperators[0].customMetrics
            spark.stop()
        finally:
            broker.stop(base)
        outcomes = table(local, "silver/events", ["outcome"])["outcome"].to_pylist()
    keys = outcomes.count(ACCEPTED)
    points = [part * events / PARTS / 1e6 for part in range(1, PARTS + 1)]
    notes = {
        "records": f"{events:,}",
        "keys in the state": f"{keys:,}",
        "bytes of its files a key": f"{state['rocksdbSstFileSize'] / keys:.0f}",
        **{
            f"last part of {name} to the second": f"{r[-1] / r[1]:.2f}" for name, r in lines.items()
        },
    }
    what = "Catching up, by what lies behind"
    curve = measure.Curve(what, "records/s", "millions of records", points, lines, notes)
    measure.show(curve, as_json)


def rates(local: Settings, query: str) -> list[float]:
    """Of each of ten equal parts of what a query wrote after its first commit: rows a second.

    Raises ClickException where there are fewer than LEAST_COMMITS.
    """
    import numpy as np
    import pyarrow.parquet as pq

    found = [(at, files) for at, files in commits(local, f"{query}/events") if files]
    if len(found) < LEAST_COMMITS:
        raise click.ClickException(
            f"{query}: {len(found)} commits are too few to tell a rate by: more --events"
        )
    times = [at for at, _ in found]
    rows = [sum(pq.ParquetFile(file).metadata.num_rows for file in files) for _, files in found]
    reached = np.cumsum(rows)
    levels = np.linspace(reached[0], reached[-1], PARTS + 1)
    moments = np.interp(levels, reached, times)
    return [float(rate) for rate in np.diff(levels) / np.diff(moments)]


if __name__ == "__main__":
    main()
