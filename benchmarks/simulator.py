"""The simulator, ledger included, against confluent-kafka sending prebuilt bytes to one broker.

    .venv/bin/python -m benchmarks.simulator [--events 200000] [--rounds 3]

All send with the same client options and a delivery report a record; the simulator compresses with
lz4, as its settings say, so prebuilt bytes are sent both ways. They are the simulator's own first
20,000 records, over and over.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import islice
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lakehouse.settings import Settings


@click.command()
@click.option("--events", default=200_000, show_default=True, help="Records a round.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved rounds of each.")
def main(events: int, rounds: int) -> None:
    """Print records a second of both and their ratio, as Markdown."""
    from headwater import broker
    from lakehouse import kafka, settings
    from producer.command import Sending, instant, send_shop, shop_of

    with tempfile.TemporaryDirectory() as folder:
        local = settings.load("local", storage=folder)
        broker.start(local)
        try:
            kafka.ensure_topics(local, ["prebuilt", "simulated"])
            records = list(islice(shop_of(1, instant(None, False), 0.3).records(), 20_000))
            prebuilt = [(record.key, record.value) for record in records]
            rates: dict[str, list[float]] = {
                "prebuilt bytes": [],
                "prebuilt bytes, lz4": [],
                "simulator": [],
            }
            for turn in range(rounds + 1):
                marks = [time.perf_counter()]
                for compression in ("none", "lz4"):
                    send_prebuilt(local, prebuilt, events, compression)
                    marks.append(time.perf_counter())
                send_shop(local, Sending(events=events, topic="simulated"))
                marks.append(time.perf_counter())
                if turn:  # the first round warms up
                    for name, begin, end in zip(rates, marks, marks[1:], strict=False):
                        rates[name].append(events / (end - begin))
        finally:
            broker.stop(local)
    base = statistics.median(rates["prebuilt bytes"])
    click.echo("| what | records/s, median | min | max | ratio |\n|---|---|---|---|---|")
    for name, found in rates.items():
        middle = statistics.median(found)
        click.echo(
            f"| {name} | {middle:,.0f} | {min(found):,.0f} | {max(found):,.0f} "
            f"| {middle / base:.2f} |"
        )


def send_prebuilt(
    local: Settings, prebuilt: list[tuple[bytes | None, bytes | None]], n: int, compression: str
) -> None:
    from confluent_kafka import Producer

    from lakehouse import kafka
    from producer.kafka_sink import OPTIONS

    producer = Producer({**kafka.client_options(local), **OPTIONS, "compression.type": compression})
    acknowledged = 0

    def delivered(error: object, _message: object) -> None:
        nonlocal acknowledged
        acknowledged += error is None

    for number in range(n):
        key, value = prebuilt[number % len(prebuilt)]
        while True:
            try:
                producer.produce("prebuilt", value, key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 500 == 0:
            producer.poll(0)
    producer.flush()
    if acknowledged != n:
        raise RuntimeError(f"{acknowledged} of {n} acknowledged")


if __name__ == "__main__":
    main()
