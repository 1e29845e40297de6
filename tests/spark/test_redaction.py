"""What Spark itself shows of the options that a stream is given: no secret."""

from __future__ import annotations

import uuid

import pytest
from pyspark.sql import SparkSession

from lakehouse import kafka
from lakehouse.settings import Broker, Identity, Settings


@pytest.mark.parametrize("mechanism", ["PLAIN", "OAUTHBEARER"])
def test_a_login_is_hidden_wherever_spark_lists_settings(
    spark: SparkSession, settings: Settings, mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the rule that Spark's page, event log and plans go by as well (spark.redaction.regex)."""
    secret = uuid.uuid4().hex
    monkeypatch.setenv("TEST_SECRET", secret)
    broker = Broker.model_validate(
        {
            "bootstrap": "namespace.example.net:9093",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_username": "$ConnectionString",
            "sasl_password": "env:TEST_SECRET",
        }
    )
    identity = Identity(tenant_id="t", client_id="c", client_secret="env:TEST_SECRET")
    there = settings.model_copy(update={"broker": broker, "identity": identity})
    options = kafka.spark_options(there)
    assert secret in options["kafka.sasl.jaas.config"]
    try:
        for name, value in options.items():
            spark.conf.set(name, value)
        shown = {row.key: row.value for row in spark.sql("SET").collect()}
    finally:
        for name in options:
            spark.conf.unset(name)
    assert shown["kafka.bootstrap.servers"] == "namespace.example.net:9093"
    assert "redacted" in shown["kafka.sasl.jaas.config"]
    assert [name for name, value in shown.items() if secret in value] == []
