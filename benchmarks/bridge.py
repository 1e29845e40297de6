"""The bridge by Kafka's protocol against the bridge by AMQP, both to servers of this machine.

    headwater bench bridge [--records 30000] [--rounds 3]

Records of 300 bytes, of few keys and of many. The hub is the tests' own server in this process, so
the figures are a lower bound of what AMQP can do, and say nothing of Azure.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from functools import partial
from typing import TYPE_CHECKING

import click

from benchmarks import measure

if TYPE_CHECKING:
    from lakehouse.settings import Settings

KEYS = (50, 5_000)


@click.command()
@click.option("--records", default=30_000, show_default=True, help="Records a round.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved rounds of each.")
@measure.json_option
def main(records: int, rounds: int, as_json: bool) -> None:
    """The bridge by Kafka's protocol and by AMQP, for few keys and for many."""
    from headwater import broker
    from lakehouse import settings
    from lakehouse.settings import Bridge, BridgeTo
    from producer.bridge import send_on
    from tests.hub_server import HubServer

    server = HubServer(hub=4)
    os.environ["BENCHMARK_SECRET"] = server.connection_string
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

        def once(topic: str, to: BridgeTo) -> float:
            there = Bridge(to=to, topic="hub", group=uuid.uuid4().hex)
            report = send_on(local.model_copy(update={"bridge": there}), topic, available_now=True)
            return report.acknowledged / report.seconds

        try:
            for keys in KEYS:
                topic = f"keys-{keys}"
                fill(local, topic, records, keys)
                cases = {name: partial(once, topic, to) for name, to in targets.items()}
                found = measure.take_turns(cases, rounds)
                notes = {"records": records, "keys": keys}
                result = measure.Result("The bridge", "records/s", "AMQP", found, notes)
                measure.show(result, as_json)
        finally:
            broker.stop(local)
            server.stop()


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
