"""An event hub by AMQP: for namespaces of the Basic tier, or whose Kafka endpoint is shut.

A batch of AMQP goes to one partition key, so records of many keys go in many small batches: some
lanes, each with a connection of its own, send beside one another, and a key always has one lane.
The Kafka protocol is the fast way (docs/event-hubs.md).
"""

from __future__ import annotations

import hashlib
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zlib import crc32

from lakehouse import login
from lakehouse.errors import BrokerError, SettingsError
from lakehouse.settings import Broker, Settings, is_loopback
from producer.targets import Done, Record, TooLarge

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azure.eventhub import EventData, EventHubProducerClient

EMULATOR = re.compile(r"(?i)(?:^|;)\s*UseDevelopmentEmulator\s*=\s*true")
LANES = 8
RECORDS_A_TURN = 1_000
LONGEST_KEY = 128
MOST_UNDER_WAY = 50_000
# How long a hub that is busy or away is asked again, ever more slowly, before that is an error.
PATIENCE_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 30.0
UNAUTHORISED, NOT_FOUND = "unauthorized-access", "not-found"
# Conditions, less `amqp:` and `com.microsoft:`, that another try does not change.
LASTING = {
    UNAUTHORISED,
    NOT_FOUND,
    "not-allowed",
    "link:message-size-exceeded",
    "entity-disabled",
    "argument-error",
}


def options(settings: Settings) -> dict[str, Any]:
    """What azure-eventhub's clients have in common, from the settings of `broker`."""
    broker = settings.broker
    # The lanes try again themselves: the library gives up after three, within two seconds.
    common: dict[str, Any] = {"retry_total": 0}
    if broker.ssl_ca:
        common["connection_verify"] = broker.ssl_ca
    return common


class Tokens:
    """A credential for azure-eventhub that says why there is no token as every login here does.

    refusal: that, where the last one that was asked for did not come. A secret that was renewed
    counts from the next one on.
    """

    def __init__(self, settings: Settings) -> None:
        self._identity = settings.identity
        self.refusal: BrokerError | None = None

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        from azure.core.credentials import AccessToken

        try:
            text, ends = login.token(self._identity, scopes[0])
        except BrokerError as error:
            self.refusal = error
            raise
        self.refusal = None
        return AccessToken(text, int(ends))


def client(
    kind: Any, settings: Settings, hub: str, tokens: Tokens | None = None, **more: Any
) -> Any:
    """A client of azure-eventhub's (a class of it) for a hub of the namespace that `broker` is.

    With sasl_mechanism PLAIN by the connection string in sasl_password, with OAUTHBEARER as
    `identity`, by `tokens` if given. Raises SettingsError.
    """
    broker, more = settings.broker, {**options(settings), **more}
    if broker.sasl_mechanism == "PLAIN":
        text = login.password(broker)
        try:
            _check_host(broker, text)
            return kind.from_connection_string(text, eventhub_name=hub, **more)
        except ValueError:
            raise SettingsError(
                f"{broker.key}.sasl_password: {broker.sasl_password} is no connection string of "
                "Event Hubs (Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…)"
            ) from None
    if broker.sasl_mechanism == "OAUTHBEARER":
        host = broker.bootstrap.split(",")[0].rpartition(":")[0]
        return kind(host, hub, credential=tokens or Tokens(settings), **more)
    raise SettingsError(
        f"{broker.key}.sasl_mechanism: PLAIN (a connection string) or OAUTHBEARER (an identity) is "
        "wanted for Event Hubs by AMQP"
    )


def _check_host(broker: Broker, text: str) -> None:
    """That a connection string leads to the namespace that is set, and by TLS.

    The emulator's flag in it goes without, which is for this machine alone. Raises SettingsError,
    and ValueError where it is no connection string.
    """
    from azure.eventhub import parse_connection_string

    host = urlsplit(parse_connection_string(text).endpoint).hostname
    wanted = broker.bootstrap.split(",")[0].rpartition(":")[0].strip("[]").lower()
    if host != wanted:
        raise SettingsError(
            f"{broker.key}.sasl_password: {broker.sasl_password} is for {host}, and "
            f"{broker.key}.bootstrap is {wanted}: let both be one namespace"
        )
    if EMULATOR.search(text) and not is_loopback(wanted):
        raise SettingsError(
            f"{broker.key}.sasl_password: {broker.sasl_password} has UseDevelopmentEmulator, which "
            "goes without TLS: take it out, it is for an emulator on this machine"
        )


class HubTarget:
    """Sends records to an event hub: see producer.targets.Target.

    Key, value and headers become partition key, body and application properties.
    """

    def __init__(self, settings: Settings, hub: str, done: Done, too_large: TooLarge) -> None:
        try:
            from azure.eventhub import EventHubProducerClient
            from azure.eventhub.exceptions import EventHubError
        except ImportError:
            raise SettingsError(f"AMQP wants azure-eventhub: {login.INSTALL}") from None
        self._settings, self._hub = settings, hub
        self._done, self._too_large = done, too_large
        self._told: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._next = 0
        self._tokens = Tokens(settings)
        lanes = [client(EventHubProducerClient, settings, hub, self._tokens) for _ in range(LANES)]
        try:
            # Wrong settings are told before anything is read.
            lanes[0].get_partition_ids()
        except (EventHubError, BrokerError) as error:
            raise self._refused(error) from None
        self._waiting: list[queue.SimpleQueue[Record | None]] = []
        self._threads = []
        for lane in lanes:
            waiting: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
            thread = threading.Thread(target=self._run, args=(lane, waiting), daemon=True)
            self._waiting.append(waiting)
            self._threads.append(thread)
            thread.start()

    def send(self, record: Record) -> None:
        if record.key is None:
            self._next += 1
        lane = self._next if record.key is None else crc32(record.key)
        self._waiting[lane % LANES].put(record)

    def poll(self, seconds: float) -> None:
        try:
            self._told.get(timeout=seconds)() if seconds else self._told.get_nowait()()
            while True:
                self._told.get_nowait()()
        except queue.Empty:
            return

    def close(self) -> None:
        self._stopped.set()
        for waiting in self._waiting:
            waiting.put(None)
        for thread in self._threads:
            thread.join(5)

    def _run(self, lane: EventHubProducerClient, waiting: queue.SimpleQueue[Record | None]) -> None:
        """One lane, in a thread of its own: what waits, by key, as long as there is something."""
        with lane:
            while (records := _turn(waiting)) and not self._stopped.is_set():
                by_key: dict[bytes | None, list[Record]] = {}
                for record in records:
                    by_key.setdefault(record.key, []).append(record)
                for key, group in by_key.items():
                    try:
                        self._send(lane, key, group)
                    except Exception as error:
                        self._told.put(self._failure(group[0], error))
                        return

    def _send(self, lane: EventHubProducerClient, key: bytes | None, group: list[Record]) -> None:
        """Records of one key, in order, in batches as large as the hub takes them."""

        def fresh() -> Any:
            return self._patiently(lambda: lane.create_batch(partition_key=partition_key(key)))

        within: list[Record] = []
        batch = fresh()
        for record in group:
            event = event_of(record)
            if not _fits(batch, event):
                self._flush(lane, batch, within)
                batch, within = fresh(), []
                if not _fits(batch, event):
                    limit = batch.max_size_in_bytes
                    self._told.put(self._aside(record, f"more than the hub's {limit} bytes"))
                    continue
            within.append(record)
        self._flush(lane, batch, within)

    def _flush(self, lane: EventHubProducerClient, batch: Any, within: list[Record]) -> None:
        if within:
            self._patiently(lambda: lane.send_batch(batch))
            self._told.put(self._safe(within))

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """Calls again, after pauses that grow, while the hub is busy or away."""
        from azure.eventhub.exceptions import EventHubError
        from tenacity import (
            Retrying,
            retry_if_exception,
            sleep_using_event,
            stop_after_delay,
            stop_when_event_set,
            wait_random_exponential,
        )

        def may_pass(error: BaseException) -> bool:
            there_is_a_token = self._tokens.refusal is None
            return isinstance(error, EventHubError) and there_is_a_token and not _lasting(error)

        return Retrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_delay(PATIENCE_SECONDS) | stop_when_event_set(self._stopped),
            wait=wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_SECONDS),
            sleep=sleep_using_event(self._stopped),
            reraise=True,
        )(call)

    def _safe(self, records: list[Record]) -> Callable[[], None]:
        def tell() -> None:
            for record in records:
                self._done(record)

        return tell

    def _aside(self, record: Record, why: str) -> Callable[[], None]:
        return lambda: self._too_large(record, why)

    def _failure(self, record: Record, error: Exception) -> Callable[[], None]:
        def tell() -> None:
            raise BrokerError(f"{record} could not be sent on: {self._refused(error)}") from None

        return tell

    def _refused(self, error: Exception) -> BrokerError:
        return self._tokens.refusal or refused(self._settings, self._hub, error)


class HubProducer:
    """So much of confluent-kafka's Producer as the sink asks of it, for an event hub.

    A delivery is told without a message: AMQP does not say where an event came to lie.
    """

    def __init__(self, settings: Settings, hub: str) -> None:
        self._under_way: dict[int, Callable[[Any, Any], None]] = {}
        self._sent = 0
        self._target = HubTarget(settings, hub, self._done, self._too_large)

    def __len__(self) -> int:
        return len(self._under_way)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        _partition: int,
        on_delivery: Callable[[Any, Any], None],
    ) -> None:
        """Takes an event. Raises BufferError where there is no room for it."""
        if len(self._under_way) >= MOST_UNDER_WAY:
            raise BufferError
        self._sent += 1
        self._under_way[self._sent] = on_delivery
        self._target.send(Record(topic, 0, self._sent, key, value, [], None))

    def poll(self, seconds: float) -> None:
        self._target.poll(seconds)

    def flush(self, seconds: float) -> int:
        """Waits so long at most; returns how many are under way still."""
        ends = time.monotonic() + seconds
        while self._under_way and time.monotonic() < ends:
            self._target.poll(0.05)
        return len(self._under_way)

    def _done(self, record: Record) -> None:
        self._under_way.pop(record.offset)(None, None)

    def _too_large(self, record: Record, why: str) -> None:
        from confluent_kafka import KafkaError

        error = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, f"record {record.offset} is {why}")
        self._under_way.pop(record.offset)(error, None)


def refused(settings: Settings, hub: str, error: Exception) -> BrokerError:
    """An error of azure-eventhub's in one line that says where, and what to do."""
    from azure.eventhub.exceptions import AuthenticationError

    broker = settings.broker
    said = (str(error) or type(error).__name__).splitlines()[0]
    where = f"event hub {hub} at {broker.bootstrap.rpartition(':')[0]}"
    condition = getattr(error, "error", None)
    if isinstance(error, AuthenticationError) or condition == UNAUTHORISED:
        do = login.remedy(broker, settings.identity)
        return BrokerError(f"{where} refused the login ({said}): {do}")
    if condition == NOT_FOUND:
        return BrokerError(f"{where} is not there ({said}): make it, or correct its name")
    return BrokerError(f"{where} does not take what is sent ({said})")


def partition_key(key: bytes | None) -> str | None:
    """A record's key as an event hub has it: a text of at most 128 characters."""
    if key is None:
        return None
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = ""
    return text if 0 < len(text) <= LONGEST_KEY else hashlib.sha256(key).hexdigest()


def event_of(record: Record) -> EventData:
    """Body and properties. A second header of a name is kept as NAME.2, a third as NAME.3 …"""
    from azure.eventhub import EventData

    event = EventData(record.value or b"")
    properties: dict[str | bytes, Any] = {}
    for name, value in record.headers:
        own, times = name, 1
        while own in properties:
            times += 1
            own = f"{name}.{times}"
        properties[own] = value
    if record.key is not None and partition_key(record.key) != record.key.decode(errors="replace"):
        properties["headwater.key"] = record.key
    event.properties = properties
    return event


def _turn(waiting: queue.SimpleQueue[Record | None]) -> list[Record]:
    """What waits, after a moment in which more may come; empty where it is to end."""
    records: list[Record] = []
    first = waiting.get()
    if first is not None:
        time.sleep(0.02)
    while first is not None:
        records.append(first)
        if len(records) == RECORDS_A_TURN:
            break
        try:
            first = waiting.get_nowait()
        except queue.Empty:
            break
    return records


def _fits(batch: Any, event: EventData) -> bool:
    try:
        batch.add(event)
    except ValueError:
        return False
    return True


def _lasting(error: BaseException) -> bool:
    from azure.eventhub.exceptions import AuthenticationError

    return isinstance(error, AuthenticationError) or getattr(error, "error", None) in LASTING
