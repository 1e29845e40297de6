"""An event hub by AMQP: azure-eventhub itself, against a server of this machine."""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient, TransportType
from azure.eventhub.exceptions import EventHubError

from lakehouse import settings as settings_files
from lakehouse.errors import BrokerError, SettingsError
from lakehouse.settings import Broker, Identity, Settings
from producer import hub
from producer.command import Sending, send_shop
from producer.hub import HubTarget
from producer.targets import Record
from tests.helpers import wait_until
from tests.hub_server import HubServer
from tests.secured import Authority, Tokens


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Two hubs, and the connection string in the variable TEST_SECRET."""
    server = HubServer(orders=4, small=2)
    monkeypatch.setenv("TEST_SECRET", server.connection_string)
    yield server
    server.stop()


@pytest.fixture
def there(settings: Settings, server: HubServer) -> Settings:
    return settings.model_copy(update={"broker": server.broker()})


def record(offset: int, key: bytes | None, value: bytes | None, **headers: bytes) -> Record:
    return Record("t", 1, offset, key, value, list(headers.items()), None)


class Told:
    """What a target tells: offsets that are safe, and what was too large."""

    def __init__(self, settings: Settings, name: str = "orders") -> None:
        self.safe: list[int] = []
        self.large: list[tuple[int, str]] = []
        self.target = HubTarget(
            settings,
            name,
            lambda record: self.safe.append(record.offset),
            lambda record, why: self.large.append((record.offset, why)),
        )

    def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        def reached() -> bool:
            self.target.poll(0.05)
            return condition()

        wait_until(reached, seconds, "what the hub was to tell")


def received(server: HubServer, name: str, count: int) -> list[tuple[str, EventData]]:
    """What a consumer of the library's own gets, by partition; as much as is asked for."""
    found: list[tuple[str, EventData]] = []
    client = EventHubConsumerClient.from_connection_string(
        server.connection_string, consumer_group="$Default", eventhub_name=name
    )

    def take(context: Any, events: list[EventData]) -> None:
        found.extend((context.partition_id, event) for event in events)

    how = {"on_event_batch": take, "starting_position": "-1", "max_batch_size": 1_000}
    reader = threading.Thread(target=client.receive_batch, kwargs=how, daemon=True)
    reader.start()
    wait_until(lambda: len(found) >= count, 60, "all events")
    client.close()
    reader.join(30)
    return found


def test_a_consumer_gets_what_was_sent_in_the_order_of_keys(
    there: Settings, server: HubServer
) -> None:
    told = Told(there)
    sent: dict[str | None, list[bytes]] = defaultdict(list)
    for offset in range(2_000):
        key = f"key-{offset % 7}" if offset % 10 else None
        value = b"%d" % offset
        sent[key].append(value)
        told.target.send(record(offset, key.encode() if key else None, value, traced=value))
    told.until(lambda: len(told.safe) == 2_000)
    told.target.close()
    got: dict[str | None, list[bytes]] = defaultdict(list)
    places: dict[str | None, set[str]] = defaultdict(set)
    for partition, event in received(server, "orders", 2_000):
        key = event.partition_key.decode() if event.partition_key else None
        value = b"".join(event.body)  # type: ignore[arg-type]
        assert event.properties == {b"traced": value}
        got[key].append(value)
        places[key].add(partition)
    assert {key: values for key, values in got.items() if key} == {
        key: values for key, values in sent.items() if key
    }
    assert sorted(got[None]) == sorted(sent[None])
    assert all(len(parts) == 1 for key, parts in places.items() if key)
    sendings = server.hubs["orders"].sendings
    assert sum(one.events for one in sendings) == 2_000
    assert len(sendings) < 400, "events of a key go in batches"


def test_batches_are_as_large_as_the_hub_takes_them(there: Settings, server: HubServer) -> None:
    server.largest = 20_000
    told = Told(there, "small")
    for offset in range(100):
        told.target.send(record(offset, b"k", bytes(1_500)))
    told.target.send(record(100, b"k", bytes(30_000)))
    told.target.send(record(101, b"k", b"last"))
    told.until(lambda: len(told.safe) == 101)
    told.target.close()
    assert [offset for offset, _ in told.large] == [100]
    assert "20000 bytes" in told.large[0][1]
    sendings = server.hubs["small"].sendings
    assert all(one.taken for one in sendings), "none was refused for its size"
    assert max(one.bytes for one in sendings) > 18_000
    assert told.safe == [offset for offset in range(102) if offset != 100]


def test_a_busy_hub_is_asked_again_ever_more_slowly(
    there: Settings, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library itself tries again once, and at once."""
    pauses: list[float] = []
    told = Told(there)
    wait = told.target._stopped.wait

    def waited(timeout: float) -> bool:
        pauses.append(timeout)
        return wait(min(timeout, 0.01))

    monkeypatch.setattr(told.target._stopped, "wait", waited)
    server.busy = 12
    for offset in range(50):
        told.target.send(record(offset, b"k", b"%d" % offset))
    told.until(lambda: len(told.safe) == 50)
    told.target.close()
    assert told.safe == list(range(50)), "nothing overtook what had to wait"
    assert len(pauses) == 6
    assert max(pauses) <= hub.LONGEST_PAUSE_SECONDS
    assert sum(pauses[3:]) > sum(pauses[:3])
    assert [one.taken for one in server.hubs["orders"].sendings][:13] == [False] * 12 + [True]


def test_what_does_not_pass_is_one_line(
    there: Settings, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BrokerError, match=r"event hub nowhere at 127\.0\.0\.1 is not there"):
        Told(there, "nowhere")
    told = Told(there)
    told.target.send(record(4, b"k", b"value"))
    told.until(lambda: told.safe == [4])
    server.largest = 10  # smaller than it said that it was
    told.target.send(record(5, b"k", b"value"))
    with pytest.raises(BrokerError, match="topic t partition 1 offset 5 could not be sent on"):
        told.until(lambda: False, 10)
    told.target.close()
    server.refuses = "no such policy"
    with pytest.raises(BrokerError) as refused:
        Told(there)
    assert "env:TEST_SECRET (broker.sasl_password)" in str(refused.value)
    assert server.secret not in str(refused.value)
    monkeypatch.setenv("TEST_SECRET", "no connection string")
    with pytest.raises(SettingsError, match="env:TEST_SECRET is no connection string"):
        Told(there)


def test_the_shop_is_sent_with_its_ledger(there: Settings, server: HubServer) -> None:
    report = send_shop(there, Sending(events=500, seed=3, topic="orders"))
    assert (report.sent, report.acknowledged, report.failed) == (500, 500, 0)
    events = server.events("orders")
    assert len(events) == 500
    assert all(Path(file).exists() for file in there.runtime_dir.glob("ledger/*.parquet"))
    keys = {key for key, _ in events}
    assert len(keys) > 10


@pytest.mark.parametrize(
    ("key", "wanted"),
    [(None, None), (b"C1", "C1"), (b"\xff", None), (b"x" * 200, None), (b"", None)],
)
def test_a_key_that_is_no_partition_key_is_kept_beside_it(
    key: bytes | None, wanted: str | None
) -> None:
    found = hub.partition_key(key)
    properties = hub.event_of(record(0, key, b"v", a=b"1")).properties
    assert properties[b"a" if b"a" in properties else "a"] == b"1"
    if key is None or wanted is not None:
        assert found == wanted
        assert "headwater.key" not in properties
    else:
        assert found is not None
        assert len(found) == 64
        assert properties["headwater.key"] == key


def test_headers_of_one_name_are_all_kept() -> None:
    twice = Record("t", 0, 0, None, b"v", [("h", b"1"), ("h", b"2"), ("h", None)], None)
    assert hub.event_of(twice).properties == {"h": b"1", "h.2": b"2", "h.3": None}


def test_an_identity_and_tls_whose_certificates_are_verified(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    endpoint = Tokens(tmp_path, authority)
    server = HubServer(certificate=authority.server, orders=3)
    monkeypatch.setenv("TEST_SECRET", endpoint.secret)
    broker = Broker(
        bootstrap="127.0.0.1:9093",
        protocol="amqp",
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        ssl_ca=str(authority.ca),
    )
    identity = Identity(
        tenant_id=endpoint.tenant,
        client_id=endpoint.client,
        client_secret="env:TEST_SECRET",
        authority=endpoint.host,
        ssl_ca=str(authority.ca),
    )
    # The library knows no port but AMQP's own otherwise.
    there: dict[str, Any] = {
        "custom_endpoint_address": f"sb://127.0.0.1:{server.port}",
        "transport_type": TransportType.Amqp,
    }
    trusting = settings.model_copy(update={"broker": broker, "identity": identity})
    unknown = broker.model_copy(update={"ssl_ca": ""})
    untrusting = settings.model_copy(update={"broker": unknown, "identity": identity})
    try:
        with hub.client(EventHubProducerClient, trusting, "orders", **there) as client:
            assert client.get_partition_ids() == ["0", "1", "2"]
        [token] = set(server.tokens)
        claims = jwt.decode(token, options={"verify_signature": False})
        assert (claims["sub"], claims["aud"]) == (endpoint.client, "https://eventhubs.azure.net/")
        with (
            hub.client(EventHubProducerClient, untrusting, "orders", **there) as client,
            pytest.raises(EventHubError, match="certificate verify failed"),
        ):
            client.get_partition_ids()
        # A secret that is none, or has ended, is said as in every other login, and not waited for.
        monkeypatch.setenv("TEST_SECRET", "of-yesterday")
        tokens = hub.Tokens(trusting)
        with (
            hub.client(EventHubProducerClient, trusting, "orders", tokens, **there) as client,
            pytest.raises((EventHubError, BrokerError)),
        ):
            client.get_partition_ids()
        said = str(tokens.refusal)
        assert "AADSTS7000215" in said
        assert "client_secret (env:TEST_SECRET), or renew what has expired" in said
    finally:
        server.stop()
        endpoint.stop()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Endpoint=sb://other.servicebus.windows.net/;{key}",
            "is for other.servicebus.windows.net",
        ),
        (
            "Endpoint=sb://ns.servicebus.windows.net/;{key};UseDevelopmentEmulator=true",
            "without TLS",
        ),
        ("rubbish", "no connection string"),
        ("Endpoint=sb://ns.servicebus.windows.net/", "no connection string"),
    ],
)
def test_a_connection_string_leads_to_the_namespace_that_is_set(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by TLS; nothing is asked before that."""
    key = "SharedAccessKeyName=x;SharedAccessKey=" + uuid.uuid4().hex
    monkeypatch.setenv("TEST_SECRET", text.format(key=key))
    broker = Broker(
        bootstrap="ns.servicebus.windows.net:5671",
        protocol="amqp",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_password="env:TEST_SECRET",
    )
    settings = settings_files.load("local", broker=broker)
    with pytest.raises(SettingsError, match=said) as refused:
        hub.client(EventHubProducerClient, settings, "events")
    assert key not in str(refused.value)
