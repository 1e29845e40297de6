"""What is made of a broker's refusals, without a broker."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from lakehouse import kafka
from lakehouse.errors import BrokerError
from lakehouse.settings import Broker, Settings


def refusing(code: int) -> Any:
    def ask(_: Any) -> dict[str, str]:
        raise KafkaException(KafkaError(code))

    return ask


@pytest.mark.parametrize("code", [KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE])
def test_a_broker_that_does_not_know_the_question(settings: Settings, code: int) -> None:
    there = settings.model_copy(update={"broker": Broker(bootstrap="127.0.0.1:1")})
    none: dict[str, str] = {}
    assert kafka._asked(there, refusing(code), none) == {}
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1"):
        kafka._asked(there, refusing(code))
    with pytest.raises(BrokerError):
        kafka._asked(there, refusing(KafkaError.TOPIC_AUTHORIZATION_FAILED), none)
