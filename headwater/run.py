"""`headwater run`: all of it, once, on this machine, ending on the audit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse.command import settings_options, show, stop_on_signals
from lakehouse.errors import HeadwaterError
from producer.command import MOST, Finite, Sending, instant

if TYPE_CHECKING:
    from lakehouse.contracts import Contracts
    from lakehouse.layouts import Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Table
    from producer.kafka_sink import Report
    from streaming.supervise import Meter

POLL_SECONDS = 0.25
ROWS_SHOWN = 15
BEST_SHOWN = 5
# The one table of Gold in the summary that no other table wants: its contract may be gone.
CATEGORIES = "gold.dim_category"


@click.command("run")
@click.option(
    "--events",
    type=click.IntRange(min=1, max=MOST),
    default=100_000,
    show_default=True,
    help="How many records to send.",
)
@click.option(
    "--rate",
    type=Finite(min=0.001, max=MOST),
    default=10_000.0,
    show_default=True,
    help="Records a second at most.",
)
@click.option(
    "--defects",
    type=Finite(0, 1),
    default=0.3,
    show_default=True,
    help="Share of records that carry one defect.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Which shop.")
@click.option("--start", default=None, metavar="TIME", help="When the shop opens, ISO-8601.")
@settings_options
def run(
    events: int, rate: float, defects: float, seed: int, start: str | None, settings: Settings
) -> None:
    """Go the whole way: broker, streams, events, reconcile, Gold, warehouse, audit, summary.

    A second run goes on where the first one ended.
    """
    instant(start, False)  # before anything is started
    stopping = threading.Event()
    stop_on_signals(stopping)
    if not _run(settings, Sending(events, seed, start, rate, defects, go_on=True), stopping):
        raise click.exceptions.Exit(1)


def _run(
    settings: Settings,
    sending: Sending,
    stopping: threading.Event,
) -> bool:
    from batch import audit, gold, maintain, publish, quality, reconcile
    from lakehouse import checkpoints, contracts, layouts
    from lakehouse.locks import STREAM, held
    from lakehouse.progress import doing
    from lakehouse.session import spark as make_session
    from producer.command import finish
    from streaming import metrics
    from streaming.command import start_all
    from streaming.supervise import Meter

    loaded = contracts.load(settings.contracts_dir)
    known = layouts.load(settings.contracts_dir, loaded)
    gold.demand(settings, loaded, known)
    with ExitStack() as stack:
        for name in checkpoints.ALL:
            where = f"checkpoint {checkpoints.location(settings, name)}"
            stack.enter_context(held(settings, f"{STREAM}{name}", where))
        for job in ("reconcile", gold.JOB, maintain.JOB, publish.JOB):
            stack.enter_context(held(settings, job, f"the tables of job {job}"))
        # Sending begins while Spark starts: the broker holds it until the streams are there.
        broker_is_up = stack.enter_context(_broker(settings))
        sender = stack.enter_context(Sender(settings, sending, stopping, broker_is_up))
        with doing("starting the broker, Spark and the streams; sending"):
            spark = make_session(settings, "run")
            stop_on_signals(stopping)
            broker_is_up()
            running = start_all(spark, settings, loaded, checkpoints.QUERIES, False)
        meters = {query.name: Meter() for query in running}
        try:
            report = _follow(settings, sender, running, meters, loaded)
        finally:
            with doing("stopping the streams at a batch boundary"):
                for query in running:
                    query.stop()
        sent = f"{report.acknowledged:,} records were acknowledged and are safe"
        _unless(stopping, sent)
        with doing("reconciling"):
            result = reconcile.reconcile_range(spark, settings, loaded)
        click.echo(reconcile.describe(result))
        _unless(stopping, "every record has its outcome")
        with ThreadPoolExecutor() as pool:
            # What stands beside something else here neither waits for it nor changes its rows.
            auditing = pool.submit(audit.audit_tables, spark, settings, loaded)
            pool.submit(quality.load)
            with doing("building Gold, auditing"):
                built = gold.build(spark, settings, loaded, known)
                found = auditing.result()
            click.echo(gold.describe(built))
            _unless(stopping, "Gold is built, and not published")
            with doing("maintaining tables, counting minutes, publishing, summing up"):
                counting = pool.submit(metrics.count, spark, settings, loaded)
                # Looking for old files takes a second a table: left to `headwater maintain`.
                keeping = pool.submit(maintain.keep, spark, settings, loaded, known, vacuum=False)
                published = publish.copy(spark, settings, known, settings.publish_to)
                keeping.result()
                counting.result()
                summary = _summary(settings, loaded, known)
            click.echo(publish.describe(published))
    _show(summary, settings)
    audit.show(found)
    for line in found.broken:
        click.echo(f"headwater: audit: {line}", err=True)
    _next_steps(settings)
    if report.failed or report.caught_up:
        finish(report)
    return found.holds


def _unless(stopping: threading.Event, so_far: str) -> None:
    """Raises HeadwaterError where a signal came: between two steps, which each end whole."""
    if stopping.is_set():
        raise HeadwaterError(f"interrupted: {so_far}; `headwater run` goes on from here")


@contextmanager
def _broker(settings: Settings) -> Iterator[Callable[[], object]]:
    """Starts the embedded broker beside the caller where none is there, and stops it at the end.

    Gives what waits until it is up, and raises BrokerError where it does not come up.
    """
    from headwater import broker

    if settings.broker.bootstrap or broker.status(settings).running:
        yield lambda: None
        return
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(broker.start, settings)
        try:
            yield starting.result
        finally:
            wait([starting])
            broker.stop(settings)


class Sender:
    """Sends a shop's records in a thread of its own. Leaving it stops that thread."""

    def __init__(
        self,
        settings: Settings,
        what: Sending,
        stopping: threading.Event,
        broker_is_up: Callable[[], object],
    ) -> None:
        from producer.kafka_sink import Report

        self.what, self.stopping, self._broker_is_up = what, stopping, broker_is_up
        self.report, self.done = Report(), threading.Event()
        self.error: Exception | None = None
        self._settings = settings
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.done.is_set():
            self.stopping.set()
        self._thread.join()

    def _send(self) -> None:
        from producer.command import send_shop

        try:
            self._broker_is_up()
            self.report = send_shop(self._settings, self.what, self.stopping.is_set, self._take)
        except Exception as error:  # raised by the thread that waits
            self.error = error
        self.done.set()

    def _take(self, report: Report) -> None:
        self.report = report


def _follow(
    settings: Settings,
    sender: Sender,
    running: list[Any],
    meters: dict[str, Meter],
    loaded: Any,
) -> Report:
    """Shows how far everything is; returns once all that was sent is committed by all queries, as
    they report it: what is shown last has all of it."""
    from lakehouse import kafka

    ends: kafka.Offsets | None = None
    with Panel(sender.what.events) as panel:
        while True:
            for query in running:
                meters[query.name].take(query.query.recentProgress)
                if failure := query.failure():
                    raise failure
            panel.show(sender.report, meters)
            if sender.done.is_set():
                if sender.error is not None:
                    raise sender.error
                if sender.stopping.is_set():
                    break
                if ends is None:
                    ends = kafka.end_offsets(settings, loaded.topics(settings.topics.events))
                done = [meter.position for meter in meters.values()]
                if all(d.get(k, 0) >= end for d in done for k, end in ends.items()):
                    break
            time.sleep(POLL_SECONDS)
        panel.show(sender.report, meters, last=True)
    return sender.report


class Panel:
    """What flows, as it flows: redrawn on a terminal, else a line every five seconds."""

    EVERY_SECONDS = 5.0

    def __init__(self, total: int) -> None:
        from rich.live import Live

        from lakehouse.progress import console

        self._console = console()
        self._total = total
        self._live = Live(console=self._console) if self._console.is_terminal else None
        self._last = 0.0
        self._batches, self._since = 0, time.monotonic()

    def __enter__(self) -> Panel:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, report: Report, meters: dict[str, Meter], last: bool = False) -> None:
        silver = meters["silver"]
        if silver.batches != self._batches:
            self._batches, self._since = silver.batches, time.monotonic()
        latency = "?" if silver.latency is None else f"{silver.latency:.1f} s"
        lag = max(0, report.acknowledged - silver.rows)
        seconds = time.monotonic() - self._since
        working = f"Silver's micro-batch {silver.batches + 1}, {seconds:.0f} s"
        facts = {
            "sent": f"{report.sent:,} of {self._total:,}",
            "events/s": f"{report.sent / report.seconds if report.seconds else 0:,.0f} sent, "
            f"{silver.rate:,.0f} through Silver",
            "lag": f"{lag:,} records",
            "in work": "nothing" if last else working,
            "latency": f"{latency} (oldest record of the last micro-batch)",
            "bronze": f"{meters['bronze'].rows:,}",
            "accepted": f"{silver.accepted:,}",
            "quarantined": f"{silver.quarantined:,}",
            "duplicates": f"{silver.duplicates:,}",
            "late": f"{silver.late:,} (left to reconcile)",
        }
        if self._live:
            from rich.table import Table

            table = Table(show_header=False, title="Headwater", title_justify="left")
            for name, value in facts.items():
                table.add_row(name, value)
            self._live.update(table)
        elif last or time.monotonic() - self._last > self.EVERY_SECONDS:
            self._last = time.monotonic()
            line = ", ".join(f"{name} {value}" for name, value in facts.items())
            self._console.print(line, highlight=False, soft_wrap=True)


def _summary(
    settings: Settings, loaded: Contracts, known: Layouts
) -> dict[str, list[tuple[Any, ...]]]:
    """Rows by table and view, quarantined records by rule, and what was sold.

    By DuckDB over the tables' files: as questions to Spark they took a few seconds of a short run.
    """
    import duckdb

    from batch.star import build
    from headwater import status
    from lakehouse import arrow, tables

    database = duckdb.connect()

    def put(name: str, table: Table, columns: str) -> None:
        database.register(name, arrow.content(settings, table, columns.split()))

    put("silver", tables.silver(loaded), "entity outcome violations")
    if CATEGORIES in known:
        put("category", tables.gold(known[CATEGORIES]), "category_id name")
    else:
        database.execute("CREATE TABLE category (category_id VARCHAR, name VARCHAR)")
    put("sales", tables.gold(known[build.CATEGORY_METRICS]), "category_id currency units revenue")
    put("spent", tables.gold(known[build.USER_METRICS]), "customer_id orders revenue currency")

    def ask(question: str) -> list[tuple[Any, ...]]:
        return database.execute(question).fetchall()

    held = {row["table"]: row["rows"] for row in status.sizes(settings, loaded, known)}
    counts = ask("SELECT entity, outcome, count(*) FROM silver GROUP BY ALL")
    accepted = {entity: count for entity, outcome, count in counts if outcome == "accepted"}
    return {
        "tables": [
            *((name, held[name]) for name in ("bronze.events", "silver.events")),
            ("silver.quarantine", sum(row[2] for row in counts if row[1] == "quarantined")),
            *((f"silver.{name}", accepted.get(name, 0)) for name in loaded),
            *((layout.full_name, held[layout.full_name]) for layout in known.gold),
        ],
        "rules": ask(
            f"""SELECT rule, count(*) FROM
            (SELECT unnest(violations) AS rule FROM silver WHERE outcome = 'quarantined')
            GROUP BY rule ORDER BY count(*) DESC, rule LIMIT {ROWS_SHOWN}"""
        ),
        "categories": [
            (category, name or "", units, f"{revenue:,}", currency)
            for category, name, units, revenue, currency in ask(
                f"""SELECT category_id, any_value(name), sum(units)::BIGINT, sum(revenue), currency
                FROM sales LEFT JOIN category USING (category_id) GROUP BY category_id, currency
                ORDER BY sum(revenue) DESC, category_id LIMIT {ROWS_SHOWN}"""
            )
        ],
        # By their ids: names are personal, and this is a console.
        "best": [
            (customer, orders, f"{revenue:,}", currency)
            for customer, orders, revenue, currency in ask(
                f"""SELECT customer_id, orders, revenue, currency FROM spent
                ORDER BY revenue DESC, customer_id LIMIT {BEST_SHOWN}"""
            )
        ],
    }


def _show(summary: dict[str, list[tuple[Any, ...]]], settings: Settings) -> None:
    show("Tables and views", ("name", "rows"), summary["tables"])
    show("Quarantine by rule", ("rule", "records"), summary["rules"])
    money = ("revenue", "currency")
    show("Revenue by category", ("category", "name", "units", *money), summary["categories"])
    show("Best customers", ("customer", "orders", *money), summary["best"])
    click.echo(f"tables:      {settings.tables}")
    click.echo(f"checkpoints: {settings.checkpoints}")
    click.echo(f"ledger:      {settings.runtime_dir / 'ledger'}")
    if "duckdb" in settings.publish_to:
        click.echo(f"warehouse:   {settings.duckdb_file} (DuckDB)")


def _next_steps(settings: Settings) -> None:
    # A folder that is given as a path is kept whole: `data` is that of where the command is called.
    data = "" if settings.storage == str(Path("data").resolve()) else f" --data {settings.storage}"
    click.echo("Try next:")
    for line in (
        f'headwater sql{data} "SELECT status, count(*) FROM silver.order GROUP BY status"',
        f'headwater sql{data} "SELECT * FROM gold.dim_users WHERE NOT is_current LIMIT 5"',
        f'headwater sql{data} "SELECT * FROM gold.hourly_metrics ORDER BY hour DESC LIMIT 5"',
        f'headwater sql{data} "SELECT violations, raw FROM silver.quarantine LIMIT 5"',
        f"headwater report{data}",
        f"headwater status{data}",
        f"headwater run{data} --events 50000",
    ):
        click.echo(f"  .venv/bin/{line}")
