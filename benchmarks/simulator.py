"""The simulator, ledger included, against confluent-kafka sending prebuilt bytes to one broker.

    headwater bench simulator [--events 2000000] [--rounds 3]

All send with the same client options and a delivery report a record; the simulator compresses with
lz4, as its settings say, so prebuilt bytes are sent both ways. They are the simulator's own first
20,000 records, over and over.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from typing import TYPE_CHECKING

import click

from benchmarks import measure

if TYPE_CHECKING:
    from lakehouse.settings import Settings


BASE = "prebuilt bytes"


@click.command()
@click.option("--events", default=2_000_000, show_default=True, help="Records a round.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved rounds of each.")
@measure.json_option
def main(events: int, rounds: int, as_json: bool) -> None:
    """The simulator against sending prebuilt bytes."""
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
            what = Sending(events=events, topic="simulated")
            cases = {
                BASE: lambda: send_prebuilt(local, prebuilt, events, "none"),
                "prebuilt bytes, lz4": lambda: send_prebuilt(local, prebuilt, events, "lz4"),
                "simulator": lambda: send_shop(local, what),
            }
            timed = {name: measure.rate(send, events) for name, send in cases.items()}
            found = measure.take_turns(timed, rounds)
        finally:
            broker.stop(local)
    target = {"simulator": 0.5}
    result = measure.Result("Sending", "records/s", BASE, found, {"records": events}, target)
    measure.show(result, as_json)


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
