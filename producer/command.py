"""`headwater produce`: the shop's events, or foreign bytes, to a topic."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse.command import moment, settings_options, stop_on_signals
from lakehouse.errors import BrokerError, HeadwaterError

if TYPE_CHECKING:
    from lakehouse.settings import Settings
    from producer.ahead import Shop
    from producer.kafka_sink import Report

START = "2025-10-01T00:00:00Z"
LIVE_RATE = 100.0
# Of a live shop: above it two visits are not told apart by their times.
MOST_LIVE_RATE = 1_000_000.0
# Another number where the same seed and start make other bytes than before.
EDITION = 2
# In live mode an order's life of some days goes by within minutes.
LIVE_TEMPO = 1000.0


# Years in which a shop may open: what happens in it later has to have a year of four digits, too.
EARLIEST, LATEST = 2, 9_900
# Of records, or of records a second.
MOST = 10**12


class Finite(click.FloatRange):
    """A number of a range, which nan is not."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found: float = super().convert(value, param, ctx)
        if found != found:
            self.fail(f"{value} is no number", param, ctx)
        return found


@click.command("produce")
@click.option(
    "--events",
    type=click.IntRange(min=1, max=MOST),
    default=100_000,
    show_default=True,
    help="How many records to send.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Which shop.")
@click.option(
    "--start",
    default=None,
    metavar="TIME",
    help=f"When the shop opens, ISO-8601.  [default: {START}; now with --live]",
)
@click.option(
    "--rate",
    type=Finite(min=0.001, max=MOST),
    default=None,
    help=f"Records a second at most.  [default: as fast as it goes; {LIVE_RATE:.0f} with --live]",
)
@click.option(
    "--defects",
    type=Finite(0, 1),
    default=0.3,
    show_default=True,
    help="Share of records that carry one defect.",
)
@click.option(
    "--live", is_flag=True, help="Events happen now, at the clock, until Ctrl-C or --events."
)
@click.option(
    "--continue",
    "go_on",
    is_flag=True,
    help="Go on after the last record of this shop that a ledger knows.",
)
@click.option(
    "--from",
    "path",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE|FOLDER",
    help="Send foreign bytes as they are: a line of a file or a file of a folder each.",
)
@click.option(
    "--generators",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=None,
    metavar="FOLDER",
    help="Further generators: each *.py with a function events(world).",
)
@click.option("--topic", default=None, help="Topic.  [default: the environment's for events]")
@settings_options
def produce(
    events: int,
    seed: int,
    start: str | None,
    rate: float | None,
    defects: float,
    live: bool,
    go_on: bool,
    path: Path | None,
    topic: str | None,
    generators: Path | None,
    settings: Settings,
) -> None:
    """Send events to the broker, with a ledger of what each has to become.

    What is sent depends on --seed and --start alone (and on --defects, which says how much of it is
    broken; on further --generators; and, with --live, on --rate, which says how much happens): not
    on how many, how fast or where to.
    """
    from lakehouse.progress import Ticker

    if path is not None and (of_a_shop := _given(*OF_A_SHOP)):
        raise click.UsageError(
            f"--from sends foreign bytes, all of them: {', '.join(of_a_shop)} are of a shop"
        )
    if live and go_on and start is None:
        raise click.UsageError("--continue with --live wants --start: when the shop opened")
    if live and rate is not None and rate > MOST_LIVE_RATE:
        raise click.UsageError(f"--live wants a --rate of at most {MOST_LIVE_RATE:,.0f}")
    stopping = threading.Event()
    stop_on_signals(stopping)
    total = None if path else events
    with Ticker(total) as ticker:

        def show(report: Report) -> None:
            ticker.show(describe(report, total), report.sent)

        if path is not None:
            report = send_foreign(settings, path, topic, rate, stopping.is_set, show)
        else:
            sending = Sending(events, seed, start, rate, defects, live, go_on, topic, generators)
            report = send_shop(settings, sending, stopping.is_set, show)
    finish(report)


# Options that --from has no use for: parameters, and what they are called.
OF_A_SHOP = ("events", "seed", "start", "defects", "live", "go_on", "generators")


def _given(*names: str) -> list[str]:
    """Those of the command's options that were given, as they are written."""
    from click.core import ParameterSource

    context = click.get_current_context()
    written = {one.name: one.opts[0] for one in context.command.params}
    default = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return [written[name] for name in names if context.get_parameter_source(name) not in default]


def describe(report: Report, total: int | None) -> str:
    """Sent and acknowledged so far, the rate and what remains."""
    rate = report.sent / report.seconds if report.seconds else 0.0
    left = f", {(total - report.sent) / rate:,.0f} s left" if total and rate else ""
    of = f" of {total:,}" if total else ""
    return f"sent {report.sent:,}{of}, acknowledged {report.acknowledged:,}, {rate:,.0f}/s{left}"


def finish(report: Report) -> None:
    """Says what was sent. Raises BrokerError where a record was not acknowledged."""
    if report.failed:
        raise BrokerError(
            f"{report.failed:,} of {report.sent:,} records were not acknowledged, the first: "
            f"{report.first_error}; their lines in the ledger have no coordinates"
        )
    word = "interrupted: " if report.interrupted else ""
    click.echo(f"{word}{describe(report, None)}, in {report.seconds:.1f} s", err=True)
    if report.caught_up:
        raise HeadwaterError(
            f"the shop's history reached the present after {report.sent:,} records: "
            "choose an earlier --start, or --live"
        )


@dataclass(frozen=True)
class Sending:
    """What of a shop is sent; the options of `produce` by the same names (go_on: --continue)."""

    events: int = 100_000
    seed: int = 1
    start: str | None = None
    rate: float | None = None
    defects: float = 0.3
    live: bool = False
    go_on: bool = False
    topic: str | None = None
    generators: Path | None = None


def send_shop(
    settings: Settings,
    what: Sending,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Sends records of a shop, with a ledger."""
    from producer.ahead import made_ahead
    from producer.generators import identity
    from producer.kafka_sink import send
    from producer.ledger import Ledger, sent

    opens = instant(what.start, what.live)
    density = (what.rate or LIVE_RATE) if what.live else None
    world: dict[str, Any] = {
        "seed": what.seed,
        "start": opens,
        "defects": what.defects,
        "live": density,
        "edition": EDITION,
    }
    if more := identity(what.generators):
        world["generators"] = more
    folder = settings.runtime_dir / "ledger"
    first = sent(folder, world) if what.go_on else 0
    topic = what.topic or settings.topics.events
    ledger = Ledger(folder, run_name(), topic, world, first + 1)
    shop = shop_of(what.seed, opens, what.defects, density)
    folder_given = str(what.generators) if what.generators else None
    shop = shop._replace(generators=folder_given, skip=first, take=what.events)
    with made_ahead(shop, stop) as blocks:
        # A live shop sets its own pace; the rate is then how much happens in it.
        return send(
            blocks,
            settings,
            topic,
            ledger,
            rate=None if what.live else what.rate,
            live=what.live,
            stop=stop,
            progress=progress,
        )


def send_foreign(
    settings: Settings,
    path: Path,
    topic: str | None = None,
    rate: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Sends the bytes of a file or folder."""
    from producer import foreign
    from producer.ahead import blocks
    from producer.kafka_sink import send
    from producer.ledger import Ledger

    name = topic or settings.topics.events
    folder = settings.runtime_dir / "ledger"
    ledger = Ledger(folder, run_name(), name, {"from": str(path)})
    records = blocks(foreign.records(path))
    return send(records, settings, name, ledger, rate=rate, stop=stop, progress=progress)


def shop_of(seed: int, opens: int, defects: float, density: float | None = None) -> Shop:
    """A shop by what the options say. opens: ms since 1970; density: events/s of a live one."""
    from producer.ahead import Shop

    return Shop(seed, opens, defects, density, LIVE_TEMPO if density else 1.0)


def instant(start: str | None, live: bool) -> int:
    """--start in ms since 1970. Raises a usage error."""
    if start is None:
        if live:
            return int(time.time() * 1000)
        start = START
    opens = moment(start, "--start")
    if not EARLIEST <= opens.year <= LATEST:
        said = f"a shop opens between the years {EARLIEST} and {LATEST}, not {start}"
        raise click.BadParameter(said, param_hint="--start")
    return round(opens.timestamp() * 1000)


def run_name() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
