"""From send to visible in Silver, record by record, while a shop is sent at a steady rate.

    headwater bench latency [--rate 5000] [--minutes 10] [--warm 2]

`headwater stream` runs as a process of its own. A record's latency is the commit time of the
version of silver.events that shows it, as that table's log has it, less the broker's CreateTime.
Duplicates, and late records until a reconcile, have no row, and so none.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import measure

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.settings import Settings

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "maximum": 1.0}
START_SECONDS, DRAIN_SECONDS = 120, 120


@click.command()
@click.option("--rate", default=5_000, show_default=True, help="Records a second.")
@click.option("--minutes", default=10.0, show_default=True, help="How long they are measured.")
@click.option("--warm", default=2.0, show_default=True, help="Minutes before, not counted.")
@measure.json_option
def main(rate: int, minutes: float, warm: float, as_json: bool) -> None:
    """From send to visible in Silver, record by record, at a steady rate."""
    from headwater import broker
    from lakehouse import settings
    from producer.command import Sending, send_shop

    with tempfile.TemporaryDirectory() as folder:
        base = settings.load("local", storage=folder)
        where = base.broker.model_copy(update={"bootstrap": broker.start(base).bootstrap})
        local = base.model_copy(update={"broker": where})
        stream = start_stream(local, Path(folder) / "stream.log")
        try:
            # Until both queries have committed something, what is sent waits for them to start.
            send_shop(local, Sending(events=1_000, rate=rate))
            wait_for(stream, lambda: rows_of(local) > 0, START_SECONDS, "a first commit to Silver")
            begun = time.time() + warm * 60
            events = int(rate * (minutes + warm) * 60)
            report = send_shop(local, Sending(events=events, rate=rate, go_on=True))
            ended = time.time()
            wait_for(stream, lambda: settled(local), DRAIN_SECONDS, "an end of Silver's commits")
            found = latencies(local, begun, ended)
        finally:
            stream.send_signal(signal.SIGTERM)
            stream.wait(60)
            broker.stop(base)
    sent = report.sent / report.seconds
    if sent < 0.95 * rate:
        raise click.ClickException(f"only {sent:,.0f} records/s were sent, not {rate:,}")
    lines = by_minute(found)
    notes = {
        "records": found.num_rows,
        "sent, records/s": round(sent),
        **{name: f"{quantile(found, share):.2f} s" for name, share in QUANTILES.items()},
    }
    title = f"From send to visible in Silver at {rate:,} records/s"
    points = [minute + 1.0 for minute in range(len(lines["p50"]))]
    measure.show(measure.Curve(title, "seconds", "minute", points, lines, notes), as_json)


def start_stream(local: Settings, said: Path) -> subprocess.Popen[bytes]:
    from tests.helpers import BIN, environment

    plain = {k: v for k, v in environment(local).items() if k != "SPARK_SUBMIT_OPTS"}
    with said.open("wb") as log:
        return subprocess.Popen(
            [str(BIN / "headwater"), "stream"],
            env=plain,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def wait_for(stream: subprocess.Popen[bytes], condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if stream.poll() is not None:
            raise click.ClickException(f"the stream ended while {what} was waited for")
        if time.monotonic() > deadline:
            raise click.ClickException(f"no {what} within {seconds:.0f} s")
        time.sleep(0.5)


def commits(local: Settings, table: str = "silver/events") -> list[tuple[float, list[str]]]:
    """Of each version of a table: when it was committed (s since 1970), and its new files."""
    folder = Path(local.tables, table)
    found = []
    for entry in sorted((folder / "_delta_log").glob("*.json")):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        [info] = [action["commitInfo"] for action in actions if "commitInfo" in action]
        files = [str(folder / action["add"]["path"]) for action in actions if "add" in action]
        found.append((info["timestamp"] / 1000, files))
    return found


def rows_of(local: Settings) -> int:
    return sum(len(files) for _, files in commits(local))


def settled(local: Settings) -> bool:
    """Whether both queries have committed all that the broker holds."""
    from headwater import status

    return all(stream["lag"] == 0 for stream in status.state(local)["streams"])


def latencies(local: Settings, begun: float, ended: float) -> pa.Table:
    """sent and latency, in s, of every record that was sent between two moments."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    parts = []
    for committed, files in commits(local):
        for file in files:
            moments = pq.ParquetFile(file).read(columns=["timestamp"])["timestamp"]
            sent = pc.divide(pc.cast(moments, pa.timestamp("us")).cast(pa.int64()), 1e6)
            parts.append(pa.table({"sent": sent, "latency": pc.subtract(committed, sent)}))
    found = pa.concat_tables(parts)
    within = pc.and_(pc.greater_equal(found["sent"], begun), pc.less(found["sent"], ended))
    return found.filter(within)


def by_minute(found: pa.Table) -> dict[str, list[float]]:
    """Quantiles of the latencies of what was sent in each minute, in the order of minutes."""
    import pyarrow.compute as pc

    minutes = pc.floor(pc.divide(pc.subtract(found["sent"], pc.min(found["sent"])), 60.0))
    parts = [found.filter(pc.equal(minutes, minute)) for minute in sorted(set(minutes.to_pylist()))]
    return {name: [quantile(part, share) for part in parts] for name, share in QUANTILES.items()}


def quantile(found: pa.Table, share: float) -> float:
    import pyarrow.compute as pc

    value: float = pc.quantile(found["latency"], share, interpolation="higher")[0].as_py()
    return value


if __name__ == "__main__":
    main()
