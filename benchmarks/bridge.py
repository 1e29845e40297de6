"""The bridge by Kafka's protocol against the bridge by AMQP, both to servers of this machine.

    .venv/bin/python -m benchmarks.bridge [--records 30000] [--rounds 3]

Records of 300 bytes, of few keys and of many. The hub is the tests' own server in this process, so
the figures are a lower bound of what AMQP can do, and say nothing of Azure.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import uuid
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lakehouse.settings import Settings

KEYS = (50, 5_000)


@click.command()
@click.option("--records", default=30_000, show_default=True, help="Records a round.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved rounds of each.")
def main(records: int, rounds: int) -> None:
    """Print records a second by protocol and number of keys, as Markdown."""
    from headwater import broker
    from lakehouse import settings
    from lakehouse.settings import Bridge, BridgeTo
    from producer.bridge import send_on
    from tests.hub_server import HubServer

    server = HubServer(hub=4)
    os.environ["BENCHMARK_SECRET"] = server.connection_string
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        local = settings.load("local", storage=folder)
        where = str(broker.start(local).bootstrap)
        targets = {
            "Kafka": BridgeTo(bootstrap=where, create_topics=True),
            "AMQP": BridgeTo(
                bootstrap=f"127.0.0.1:{server.port}",
                protocol="amqp",
                security_protocol="SASL_SSL",
                sasl_mechanism="PLAIN",
                sasl_password="env:BENCHMARK_SECRET",
            ),
        }
        try:
            for keys in KEYS:
                topic = f"keys-{keys}"
                fill(local, topic, records, keys)
                for turn in range(rounds + 1):
                    for name, to in targets.items():
                        group = uuid.uuid4().hex
                        there = Bridge(to=to, topic="hub", group=group)
                        found = local.model_copy(update={"bridge": there})
                        report = send_on(found, topic, available_now=True)
                        if turn:  # the first round warms up
                            rate = report.acknowledged / report.seconds
                            rates.setdefault((name, keys), []).append(rate)
        finally:
            broker.stop(local)
            server.stop()
    click.echo("| by | keys | records/s, median | min | max | ratio |\n|---|---|---|---|---|---|")
    for (name, keys), found_rates in rates.items():
        middle = statistics.median(found_rates)
        ratio = statistics.median(rates["Kafka", keys]) / middle
        low, high = min(found_rates), max(found_rates)
        click.echo(
            f"| {name} | {keys:,} | {middle:,.0f} | {low:,.0f} | {high:,.0f} | {ratio:.1f} |"
        )


def fill(local: Settings, topic: str, records: int, keys: int) -> None:
    """Sends records of so many keys in turn."""
    from confluent_kafka import Producer

    from lakehouse import kafka

    kafka.ensure_topics(local, [topic])
    producer = Producer({**kafka.client_options(local), "enable.idempotence": True})
    for number in range(records):
        producer.produce(topic, os.urandom(150).hex().encode(), b"key-%d" % (number % keys))
        producer.poll(0)
    assert producer.flush(60) == 0


if __name__ == "__main__":
    main()
