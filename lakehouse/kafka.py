"""Where the broker is and how to talk to it: the same settings for Python's client and Spark's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from lakehouse.errors import BrokerError, SettingsError

if TYPE_CHECKING:
    from lakehouse.settings import Broker, Settings

Offsets = dict[tuple[str, int], int]
Answer = TypeVar("Answer")
TIMEOUT_SECONDS = 5
# What a broker says that keeps no ids of topics (Kafka before 2.8).
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"


def bootstrap(settings: Settings) -> str:
    """`host:port` of the broker: the one set, else the embedded one. Raises BrokerError."""
    if settings.broker.bootstrap:
        return settings.broker.bootstrap
    state = settings.runtime_dir / "broker" / "broker.json"
    try:
        return f"127.0.0.1:{json.loads(state.read_text())['port']}"
    except (OSError, ValueError, KeyError):
        raise BrokerError(
            f"no broker is set and none was started in {state.parent}: "
            "run `headwater broker start`, or set HEADWATER_BROKER__BOOTSTRAP"
        ) from None


def client_options(settings: Settings) -> dict[str, Any]:
    """Options for confluent-kafka."""
    broker = settings.broker
    options: dict[str, Any] = {
        "bootstrap.servers": bootstrap(settings),
        "security.protocol": broker.security_protocol,
        "log_level": 0,
    }
    if broker.sasl_mechanism:
        options |= {
            "sasl.mechanism": broker.sasl_mechanism,
            "sasl.username": broker.sasl_username,
            "sasl.password": _password(broker),
        }
    return options


def spark_options(settings: Settings) -> dict[str, str]:
    """Options for Spark's Kafka source."""
    broker = settings.broker
    options = {
        "kafka.bootstrap.servers": bootstrap(settings),
        "kafka.security.protocol": broker.security_protocol,
    }
    if broker.sasl_mechanism:
        login = (
            f'{broker.sasl_login_module} required username="{_quoted(broker.sasl_username)}" '
            f'password="{_quoted(_password(broker))}";'
        )
        options |= {
            "kafka.sasl.mechanism": broker.sasl_mechanism,
            "kafka.sasl.jaas.config": login,
        }
    return options


def _password(broker: Broker) -> str:
    from lakehouse.settings import resolve_secret

    if broker.sasl_password is None:
        raise SettingsError("broker.sasl_password: wanted with a sasl_mechanism")
    return resolve_secret(broker.sasl_password)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


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

    def ask(admin: Any) -> Offsets:
        known = admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        wanted = {
            TopicPartition(topic, partition): spec
            for topic in topics
            if topic in known
            for partition in known[topic].partitions
        }
        asked = admin.list_offsets(wanted, request_timeout=TIMEOUT_SECONDS) if wanted else {}
        return {
            (at.topic, at.partition): getattr(found.result(), field) for at, found in asked.items()
        }

    return _asked(settings, ask, unsupported)


def topic_ids(settings: Settings, topics: Iterable[str]) -> dict[str, str]:
    """The id that the broker gave each topic when it was made; none where it gives none.

    A topic that was deleted and made anew has the same name and another id. Raises BrokerError.
    """
    from confluent_kafka import TopicCollection

    names = TopicCollection(list(topics))

    def ask(admin: Any) -> dict[str, str]:
        asked = admin.describe_topics(names, request_timeout=TIMEOUT_SECONDS)
        return {topic: str(found.result().topic_id) for topic, found in asked.items()}

    none: dict[str, str] = {}
    found = _asked(settings, ask, unsupported=none)
    return {topic: name for topic, name in found.items() if name != NO_TOPIC_ID}


def _asked(
    settings: Settings, ask: Callable[[Any], Answer], unsupported: Answer | None = None
) -> Answer:
    """What the broker answers, asked again while leaders are elected. Raises BrokerError.

    unsupported: what to take for the answer of a broker that does not know the question.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

    admin = AdminClient(client_options(settings))
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
        raise unreachable(settings, error) from None


def _electing(error: BaseException) -> bool:
    """Whether a partition has no leader yet: one that was just made, or whose broker went away."""
    from confluent_kafka import KafkaError, KafkaException

    codes = {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
    return isinstance(error, KafkaException) and error.args[0].code() in codes


def ensure_topics(settings: Settings, topics: Iterable[str]) -> None:
    """Makes topics that are missing. Raises BrokerError where no broker answers or it refuses."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient(client_options(settings))
    try:
        known = admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        missing = [topic for topic in topics if topic not in known]
        if not missing:
            return
        if not settings.broker.create_topics:
            raise BrokerError(
                f"{bootstrap(settings)} has no topic {', '.join(missing)}: make it there first "
                "(broker.create_topics is off)"
            )
        partitions = settings.topics.partitions
        made = admin.create_topics([NewTopic(topic, partitions) for topic in missing])
        for topic, future in made.items():
            try:
                future.result(TIMEOUT_SECONDS)
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise BrokerError(
                        f"{bootstrap(settings)} would not make topic {topic}: {error.args[0].str()}"
                    ) from None
    except KafkaException as error:
        raise unreachable(settings, error) from None


def unreachable(settings: Settings, error: Any) -> BrokerError:
    said = error.args[0].str() if error.args else str(error)
    return BrokerError(
        f"broker {bootstrap(settings)} does not answer ({said}): start it with "
        "`headwater broker start`, or correct HEADWATER_BROKER__BOOTSTRAP"
    )
