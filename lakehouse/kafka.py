"""Where the broker is and how to talk to it: the same settings for Python's client and Spark's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from lakehouse import login
from lakehouse.errors import BrokerAwayError, BrokerError

if TYPE_CHECKING:
    from lakehouse.settings import Settings

Offsets = dict[tuple[str, int], int]
Answer = TypeVar("Answer")
Client = TypeVar("Client")
TIMEOUT_SECONDS = 5.0
# Azure's load balancers cut connections that were idle for four minutes, without a word.
IDLE_MILLISECONDS = 180_000
# A client that is refused tries again, and says so, more often than that.
PERSISTENT_SECONDS = 30.0
# How long before it is looked whether the broker has refused, which no call would say.
PATIENCE_SECONDS = 1
# For so long a topic that was just made may not be known everywhere.
NEW_TOPIC_SECONDS = 3.0
# What a broker says that keeps no ids of topics (Kafka before 2.8).
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"


def bootstrap(settings: Settings) -> str:
    """`host:port` of the broker: the one set, else the embedded one. Raises BrokerError."""
    if settings.broker.bootstrap:
        return settings.broker.bootstrap
    state = settings.runtime_dir / "broker" / "broker.json"
    try:
        return f"127.0.0.1:{json.loads(state.read_text())['port']}"
    except (OSError, ValueError, KeyError, TypeError):
        raise BrokerError(
            f"no broker is set and none was started in {state.parent}: "
            "run `headwater broker start`, or set HEADWATER_BROKER__BOOTSTRAP"
        ) from None


def client_options(settings: Settings) -> dict[str, Any]:
    """Options for confluent-kafka. Raises SettingsError and BrokerError."""
    return {
        "bootstrap.servers": bootstrap(settings),
        "connections.max.idle.ms": IDLE_MILLISECONDS,
        "socket.keepalive.enable": True,
        "log_level": 0,
        **login.python_options(settings.broker, settings.identity),
    }


def spark_options(settings: Settings) -> dict[str, str]:
    """Options for Spark's Kafka source. Raises SettingsError and BrokerError."""
    return {
        "kafka.bootstrap.servers": bootstrap(settings),
        "kafka.connections.max.idle.ms": str(IDLE_MILLISECONDS),
        "kafka.metadata.max.age.ms": str(IDLE_MILLISECONDS),
        **login.spark_options(settings.broker, settings.identity),
    }


class Troubles:
    """What a client says goes wrong behind the calls that fail: a call itself just times out."""

    def __init__(self) -> None:
        self._heard: list[tuple[float, Any]] = []

    def take(self, error: Any) -> None:
        """For a client's `error_cb`: keeps refusals of the login and of TLS."""
        from confluent_kafka import KafkaError

        if error.code() in {KafkaError._AUTHENTICATION, KafkaError._SSL}:
            self._heard = [*self._heard[-99:], (time.monotonic(), error)]

    def telling(self, error: Any) -> Any:
        """What lies behind a client's error: the newest refusal that was heard, else itself."""
        return self._heard[-1][1] if self._heard else error

    def lasting(self, since: float, seconds: float) -> Any:
        """The newest refusal, where there are some since a time (of time.monotonic) that go on for
        so many seconds; else None.
        """
        now = time.monotonic()
        heard = [(at, error) for at, error in self._heard if at >= since]
        going_on = heard and now - heard[0][0] > seconds and now - heard[-1][0] < PERSISTENT_SECONDS
        return heard[-1][1] if going_on else None


def client(
    kind: Callable[[dict[str, Any]], Client], settings: Settings, troubles: Troubles, **more: Any
) -> Client:
    """A client of Python's: a class of confluent-kafka, with further options of its own.

    Raises SettingsError, and BrokerError where it cannot even be made.
    """
    from confluent_kafka import KafkaException

    options = {**client_options(settings), "error_cb": troubles.take, **more}
    try:
        return kind(options)
    except KafkaException as error:
        raise refused(settings, error.args[0]) from None


class _Admin:
    """A client for questions about topics, and what it hears."""

    def __init__(self, settings: Settings) -> None:
        from confluent_kafka.admin import AdminClient

        self._settings, self._troubles = settings, Troubles()
        self.client: Any = client(AdminClient, settings, self._troubles)

    def topics(self) -> dict[str, Any]:
        """The topics that there are, by name. Raises KafkaException: at a refusal at once."""
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                found: dict[str, Any] = self.client.list_topics(timeout=PATIENCE_SECONDS).topics
            except KafkaException as error:
                self.client.poll(0)
                behind = self._troubles.telling(error.args[0])
                if behind is not error.args[0] or time.monotonic() > deadline:
                    raise KafkaException(behind) from None
            else:
                return found

    def refused(self, error: Any) -> BrokerError:
        """Why a call failed. error: its KafkaException."""
        self.client.poll(0)
        return refused(self._settings, self._troubles.telling(error.args[0]))


def begin_offsets(settings: Settings, topics: Iterable[str]) -> Offsets:
    """The offset of the first record that every partition still has. Raises BrokerError."""
    from confluent_kafka.admin import OffsetSpec

    return _offsets(settings, topics, OffsetSpec.earliest())  # type: ignore[no-untyped-call]


def end_offsets(settings: Settings, topics: Iterable[str]) -> Offsets:
    """The offset after the last record of every partition. Raises BrokerError."""
    from confluent_kafka.admin import OffsetSpec

    return _offsets(settings, topics, OffsetSpec.latest())  # type: ignore[no-untyped-call]


def newest_timestamps(settings: Settings, topics: Iterable[str]) -> Offsets:
    """The highest timestamp of a record by topic and partition, ms since 1970.

    Empty partitions are left out, and all of them where the broker cannot tell. Raises BrokerError.
    """
    from confluent_kafka.admin import OffsetSpec

    newest = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
    found = _offsets(settings, topics, newest, "timestamp", unsupported={})
    return {key: at for key, at in found.items() if at >= 0}


def _offsets(
    settings: Settings,
    topics: Iterable[str],
    spec: Any,
    field: str = "offset",
    unsupported: Offsets | None = None,
) -> Offsets:
    from confluent_kafka import TopicPartition

    def ask(admin: _Admin) -> Offsets:
        known = admin.topics()
        wanted = {
            TopicPartition(topic, partition): spec
            for topic in topics
            if topic in known
            for partition in known[topic].partitions
        }
        options = {"request_timeout": TIMEOUT_SECONDS}
        asked = admin.client.list_offsets(wanted, **options) if wanted else {}
        return {
            (at.topic, at.partition): getattr(found.result(), field) for at, found in asked.items()
        }

    return _asked(settings, ask, unsupported)


def timestamps_at(settings: Settings, positions: Offsets) -> Offsets:
    """When the record at each position, or the next one that there is, was sent: ms since 1970.

    Partitions where none came within TIMEOUT_SECONDS are left out. Raises BrokerError.
    """
    from confluent_kafka import Consumer, TopicPartition

    if not positions:
        return {}
    troubles = Troubles()
    consumer: Any = client(
        Consumer,
        settings,
        troubles,
        # A group is asked for; nothing is committed to it.
        **{"group.id": "headwater-doctor", "enable.auto.commit": False},
        **{"auto.offset.reset": "earliest"},
    )
    found: Offsets = {}
    try:
        consumer.assign([TopicPartition(t, p, at) for (t, p), at in positions.items()])
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(found) < len(positions) and time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is None:
                continue
            if (error := message.error()) is not None:
                if error.retriable():
                    continue
                raise refused(settings, troubles.telling(error))
            key = message.topic(), message.partition()
            if key not in found:
                found[key] = message.timestamp()[1]
                consumer.pause([TopicPartition(*key)])
    finally:
        consumer.close()
    return found


def retention(settings: Settings, topics: Iterable[str]) -> dict[str, float]:
    """How long a topic's records are kept, in s; without those whose broker keeps them for ever, or
    does not tell (Event Hubs does not; a right may not be given), if `topics.retention_hours` does
    not say it either.
    """
    said = settings.topics.retention_hours
    unsaid = {} if said is None else dict.fromkeys(topics, said * 3600)
    told = _configured(settings, topics, "retention.ms")
    kept = unsaid | {topic: ms / 1000 for topic, ms in told.items()}
    return {topic: seconds for topic, seconds in kept.items() if seconds > 0}


def max_message_bytes(settings: Settings, topic: str) -> int | None:
    """The largest batch of records that a topic takes; None where the broker does not tell."""
    return _configured(settings, [topic], "max.message.bytes").get(topic)


def _configured(settings: Settings, topics: Iterable[str], name: str) -> dict[str, int]:
    """A number of the topics' configuration, where the broker tells it."""
    from confluent_kafka.admin import ConfigResource

    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]

    def ask(admin: _Admin) -> dict[str, int]:
        asked = admin.client.describe_configs(resources, request_timeout=TIMEOUT_SECONDS)
        told = {resource.name: future.result() for resource, future in asked.items()}
        return {topic: int(found[name].value) for topic, found in told.items() if name in found}

    try:
        return _asked(settings, ask)
    except BrokerError:
        return {}


def topic_ids(settings: Settings, topics: Iterable[str]) -> dict[str, str]:
    """The id that the broker gave each topic when it was made; none where it gives none, and none
    of a topic that is not there.

    A topic that was deleted and made anew has the same name and another id. Raises BrokerError.
    """
    from confluent_kafka import KafkaError, KafkaException, TopicCollection

    names = TopicCollection(list(topics))
    patient_until = time.monotonic() + NEW_TOPIC_SECONDS

    def ask(admin: _Admin) -> dict[str, str]:
        asked = admin.client.describe_topics(names, request_timeout=TIMEOUT_SECONDS)
        told = {}
        for topic, found in asked.items():
            try:
                told[topic] = str(found.result().topic_id)
            except KafkaException as error:
                is_gone = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
                if not is_gone or time.monotonic() < patient_until:
                    raise
        return told

    none: dict[str, str] = {}
    found = _asked(settings, ask, unsupported=none)
    return {topic: name for topic, name in found.items() if name != NO_TOPIC_ID}


def _asked(
    settings: Settings, ask: Callable[[_Admin], Answer], unsupported: Answer | None = None
) -> Answer:
    """What the broker answers, asked again while leaders are elected. Raises BrokerError.

    unsupported: what to take for the answer of a broker that does not know the question.
    """
    from confluent_kafka import KafkaError, KafkaException
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

    admin = _Admin(settings)
    attempts = Retrying(
        retry=retry_if_exception(_electing),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(TIMEOUT_SECONDS),
        reraise=True,
    )
    try:
        return attempts(ask, admin)
    except KafkaException as error:
        unknown = {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE}
        if unsupported is not None and error.args[0].code() in unknown:
            return unsupported
        raise admin.refused(error) from None


def _electing(error: BaseException) -> bool:
    """Whether a partition has no leader yet: one that was just made, or whose broker went away."""
    from confluent_kafka import KafkaError, KafkaException

    codes = {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
    return isinstance(error, KafkaException) and error.args[0].code() in codes


def missing_topics(settings: Settings, topics: Iterable[str]) -> list[str]:
    """Those topics that are not there. Raises BrokerError."""
    from confluent_kafka import KafkaException

    admin = _Admin(settings)
    try:
        known = admin.topics()
    except KafkaException as error:
        raise admin.refused(error) from None
    return [topic for topic in topics if topic not in known]


def demand_topics(settings: Settings, topics: Iterable[str]) -> None:
    """Raises BrokerError where a topic is missing, or no broker answers."""
    if missing := missing_topics(settings, topics):
        raise BrokerError(
            f"{bootstrap(settings)} has no topic {', '.join(missing)}: correct the name, or make "
            "it there first"
        )


def ensure_topics(
    settings: Settings, topics: Iterable[str], config: dict[str, str] | None = None
) -> None:
    """Makes topics that are missing. config: theirs, where it is not to be the broker's own.

    Raises BrokerError where no broker answers or it refuses.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import NewTopic

    admin = _Admin(settings)
    try:
        known = admin.topics()
        missing = [topic for topic in topics if topic not in known]
        if not missing:
            return
        if not settings.broker.create_topics:
            raise BrokerError(
                f"{bootstrap(settings)} has no topic {', '.join(missing)}: make it there first "
                f"({settings.broker.key}.create_topics is off)"
            )
        partitions = settings.topics.partitions
        made = admin.client.create_topics(
            [NewTopic(topic, partitions, config=config or {}) for topic in missing]
        )
        for topic, future in made.items():
            try:
                future.result(TIMEOUT_SECONDS)
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise BrokerError(
                        f"{bootstrap(settings)} would not make topic {topic}: {error.args[0].str()}"
                    ) from None
            except TimeoutError:
                raise BrokerError(
                    f"{bootstrap(settings)} does not say whether it made topic {topic}, for "
                    f"{TIMEOUT_SECONDS:g} s: is it well? Run it again"
                ) from None
    except KafkaException as error:
        raise admin.refused(error) from None


def refused(settings: Settings, error: Any) -> BrokerError:
    """A client's error (a KafkaError) in one line that says where, and what to do."""
    from confluent_kafka import KafkaError

    where, said, broker = bootstrap(settings), error.str(), settings.broker
    if error.code() in {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}:
        if broker.sasl_mechanism == "OAUTHBEARER":
            # A client whose token could not be renewed does not say why.
            try:
                login.token(settings.identity, login.scope(broker))
            except BrokerError as untold:
                return untold
        do = login.remedy(broker, settings.identity)
        return BrokerError(f"broker {where} refused the login ({said}): {do}")
    if error.code() == KafkaError._SSL:
        return BrokerError(
            f"no TLS connection to broker {where} ({said}): its certificate has to be for that "
            f"host, and signed by one of {broker.ssl_ca or 'the certificates of this system'} "
            f"({broker.key}.ssl_ca)"
        )
    if error.code() in {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }:
        return BrokerError(
            f"broker {where} does not let this login do it ({said}): give it that right"
        )
    start = "" if broker.bootstrap else "start it with `headwater broker start`, or "
    variable = f"HEADWATER_{broker.key.upper().replace('.', '__')}__BOOTSTRAP"
    return BrokerAwayError(f"broker {where} does not answer ({said}): {start}correct {variable}")
