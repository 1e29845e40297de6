"""`headwater stream`, and what `spark-submit streaming/….py` runs: queries until told to stop."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

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
@click.argument("queries", nargs=-1, type=click.Choice(checkpoints.ALL))
@click.option(
    "--available-now",
    is_flag=True,
    help="End once everything that the broker holds now is written, and counted.",
)
@click.option(
    "--accept-gap",
    is_flag=True,
    help="Write down records that the broker let go of before they were read, and go on.",
)
@settings_options
def stream(
    queries: tuple[str, ...], available_now: bool, accept_gap: bool, settings: Settings
) -> None:
    """Write Bronze and Silver from the broker, and metrics from Silver, until SIGTERM or Ctrl-C.

    QUERIES: bronze, silver, metrics; all where left out. A stop ends at a batch boundary. A query
    that ends by itself is started again after a pause that doubles (settings stream.restarts and
    stream.restart_seconds); with --available-now, that is left to whoever calls it. Contracts that
    are changed meanwhile are taken up, or it is said why they cannot be.
    """
    stopping = threading.Event()
    stop_on_signals(stopping)
    names = tuple(dict.fromkeys(queries)) or checkpoints.ALL
    run_queries(settings, names, available_now, stopping, accept_gap)


def run_queries(
    settings: Settings,
    names: Sequence[str],
    available_now: bool,
    stopping: threading.Event,
    accept_gap: bool = False,
) -> None:
    """Runs queries until all have ended or `stopping` is set. Raises StreamError, LockedError …"""
    from py4j.protocol import Py4JError

    from lakehouse import contracts, privacy
    from lakehouse.errors import BrokerAwayError, StreamError
    from lakehouse.locks import STREAM, held
    from lakehouse.progress import Ticker, console, doing
    from lakehouse.session import has_jvm
    from lakehouse.session import spark as make_session
    from streaming import metrics
    from streaming.query import ADVICE
    from streaming.reload import Reload
    from streaming.supervise import Supervised
    from streaming.watch import TopicWatch

    # Of the JVM, or because there is none any more.
    errors = Py4JError, ConnectionError
    # Queries that have not begun yet: once they have, records that are gone are an error again.
    accepting = set(names) if accept_gap else set[str]()

    def again(name: str, failures: int) -> Running:
        accept = name in accepting
        [running] = start_all(
            spark, settings, reload.contracts, (name,), available_now, accept, failures
        )
        accepting.discard(name)
        return running

    def say(line: str) -> None:
        console().print(privacy.line(line), markup=False, highlight=False, soft_wrap=True)

    loaded = contracts.load(settings.contracts_dir)
    with ExitStack() as stack:
        for name in names:
            where = f"checkpoint {checkpoints.location(settings, name)}"
            stack.enter_context(held(settings, f"{STREAM}{name}", where))
        # Metrics are there for who looks: beside others they begin when these run, whatever is
        # wrong with them, or, where there is an end, once Silver has come to it.
        first = [name for name in names if name != checkpoints.METRICS] or list(names)
        later = [name for name in names if name not in first]
        with doing("starting Spark and the streams"):
            spark = make_session(settings, "stream")
            stop_on_signals(stopping)
            reload = Reload(spark, settings, loaded, say)
            running: list[Running] = []
            try:
                running = start_all(spark, settings, loaded, first, available_now, accept_gap)
                accepting.clear()
            except BrokerAwayError:
                if available_now:
                    raise
                # It may come, as it may come back later: each is started until it runs.
                later = list(names)
            watch = None
            if checkpoints.METRICS not in first:
                watch = TopicWatch(settings, loaded.topics(settings.topics.events))
                stack.callback(watch.close)
        stream = settings.stream
        if available_now:
            # Left to whoever calls it, but for what can be begun anew.
            restarts = 0 if watch is not None else metrics.FAILED_ANEW
            stream = stream.model_copy(update={"restarts": restarts})
        queries = [Supervised(query.name, query, again, stream, say) for query in running]
        if not available_now:
            queries += [
                Supervised(name, None, again, stream, say, beside=name not in first)
                for name in later
            ]
        ticker = stack.enter_context(Ticker())

        def follow() -> None:
            """Until all queries have ended, or are to."""
            while any(query.active for query in queries) and not stopping.wait(POLL_SECONDS):
                for query in queries:
                    query.tend()
                if watch is not None:
                    watch.check()
                if not available_now and reload.changed():
                    for query in queries:
                        say(f"contracts changed: {query.name} starts again under the new ones")
                        query.start_anew()
                ticker.show("   ".join(f"{query.name}: {query.meter}" for query in queries))

        try:
            follow()
            if later and available_now and not stopping.is_set():
                stream = stream.model_copy(update={"restarts": metrics.FAILED_ANEW})
                queries += [Supervised(name, None, again, stream, say) for name in later]
                follow()
        except errors:
            if has_jvm(spark):
                raise
            raise StreamError(
                "the JVM that Spark runs in has ended (killed, or out of memory?), and all streams "
                f"with it{ADVICE}"
            ) from None
        finally:
            for query in queries:
                try:
                    query.stop()
                except errors:
                    if has_jvm(spark):
                        raise
    said = ", ".join(f"{query.name} {query.meter.rows:,} records" for query in queries)
    click.echo(f"streams ended at a batch boundary: {said}", err=True)


def start_all(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    names: Sequence[str],
    available_now: bool,
    accept_gap: bool = False,
    failures: int = 0,
) -> list[Running]:
    """Starts the queries by name: all of them, or none where one cannot start.

    failures: how often those have failed without a batch between.
    """
    from lakehouse import tables
    from lakehouse.session import side_by_side
    from streaming import bronze, metrics, silver

    if accept_gap:
        # Before the queries write to it side by side: only one can make a table.
        tables.ensure(spark, settings, tables.gaps())
    start = {bronze.NAME: bronze.start, silver.NAME: silver.start}

    def one(name: str) -> Running | Exception:
        try:
            if name == metrics.NAME:
                return metrics.start(spark, settings, contracts, available_now, failures)
            return start[name](spark, settings, contracts, available_now, accept_gap)
        except Exception as error:
            return error

    tried = side_by_side(one, names)
    running = [query for query in tried if not isinstance(query, Exception)]
    for error in tried:
        if isinstance(error, Exception):
            for query in running:
                query.stop()
            raise error
    return running


def main(names: list[str]) -> None:
    """What a script under streaming/ runs: the same command with its own query's name."""
    run(stream, [*names, *sys.argv[1:]])
