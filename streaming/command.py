"""`headwater stream`, and what `spark-submit streaming/….py` runs: queries until told to stop."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from lakehouse import checkpoints
from lakehouse.command import run, settings_options, stop_on_signals

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakehouse.contracts import Contracts
    from lakehouse.settings import Settings
    from streaming.query import Running

POLL_SECONDS = 0.2


@click.command("stream")
@click.argument("queries", nargs=-1, type=click.Choice(checkpoints.QUERIES))
@click.option(
    "--available-now",
    is_flag=True,
    help="End once everything that the broker holds now is written.",
)
@settings_options
def stream(queries: tuple[str, ...], available_now: bool, settings: Settings) -> None:
    """Write Bronze and Silver from the broker, until SIGTERM or Ctrl-C.

    QUERIES: bronze, silver; both where left out. A stop ends at a batch boundary.
    """
    stopping = threading.Event()

    stop_on_signals(stopping)
    run_queries(settings, queries or checkpoints.QUERIES, available_now, stopping)


def run_queries(
    settings: Settings, names: tuple[str, ...], available_now: bool, stopping: threading.Event
) -> None:
    """Runs queries until all have ended or `stopping` is set. Raises StreamError, LockedError …"""
    from lakehouse import contracts
    from lakehouse.locks import held
    from lakehouse.progress import Ticker, doing
    from lakehouse.session import spark as make_session

    loaded = contracts.load(settings.contracts_dir)
    with ExitStack() as stack:
        for name in names:
            where = f"checkpoint {checkpoints.location(settings, name)}"
            stack.enter_context(held(settings, f"stream-{name}", where))
        with doing("starting Spark and the streams"):
            spark = make_session(settings, "stream")
            stop_on_signals(stopping)
            running = start_all(spark, settings, loaded, names, available_now)
        ticker = stack.enter_context(Ticker())
        meters = {query.name: Meter() for query in running}
        try:
            while any(query.query.isActive for query in running) and not stopping.is_set():
                for query in running:
                    meters[query.name].take(query.query.recentProgress)
                    if failure := query.failure():
                        raise failure
                ticker.show("   ".join(f"{name}: {meter}" for name, meter in meters.items()))
                time.sleep(POLL_SECONDS)
            for query in running:
                if failure := query.failure():
                    raise failure
        finally:
            for query in running:
                query.stop()
                meters[query.name].take(query.query.recentProgress)
    total = {name: meter.rows for name, meter in meters.items()}
    said = ", ".join(f"{name} {rows:,} records" for name, rows in total.items())
    click.echo(f"streams ended at a batch boundary: {said}", err=True)


def start_all(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    names: tuple[str, ...],
    available_now: bool,
) -> list[Running]:
    """Starts the queries by name."""
    from lakehouse.session import side_by_side
    from streaming import bronze, silver

    modules = {bronze.NAME: bronze, silver.NAME: silver}
    return side_by_side(
        lambda name: modules[name].start(spark, settings, contracts, available_now), names
    )


class Meter:
    """Adds up what a query reports of its batches."""

    def __init__(self) -> None:
        self.rows = self.accepted = self.quarantined = self.duplicates = self.late = 0
        self.rate = 0.0
        self.lag: int | None = None
        self.latency: float | None = None
        self._last = -1

    def take(self, reports: Iterable[Any]) -> None:
        """Adds Spark's progress reports; one that was seen before is left out."""
        for report in reports:
            if report.batchId <= self._last:
                continue
            self._last = report.batchId
            self.rows += report.numInputRows
            self.rate = report.processedRowsPerSecond
            behind = [s.metrics.get("maxOffsetsBehindLatest") for s in report.sources if s.metrics]
            if behind and behind[0] is not None:
                self.lag = int(behind[0])
            for state in report.stateOperators:
                self.late += state.numRowsDroppedByWatermark
                self.duplicates += state.customMetrics.get("numDroppedDuplicateRows", 0)
            found = report.observedMetrics.get("silver")
            if found is not None:
                self.accepted += found["accepted"]
                self.quarantined += found["quarantined"]
                if found["oldest"] is not None:
                    self.latency = time.time() - found["oldest"]

    def __str__(self) -> str:
        lag = "?" if self.lag is None else f"{self.lag:,}"
        return f"{self.rows:,} records, {self.rate:,.0f}/s, lag {lag}"


def main(names: list[str]) -> None:
    """What a script under streaming/ runs: the same command with its own query's name."""
    run(stream, [*names, *sys.argv[1:]])
