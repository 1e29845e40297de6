"""TLS and logins as Event Hubs has them, against a real broker: both kinds, and what is refused."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession

from batch import audit, gold, reconcile
from lakehouse import checkpoints, kafka, login
from lakehouse.contracts import Contracts
from lakehouse.errors import BrokerError
from lakehouse.layouts import Layouts
from lakehouse.settings import Bridge, BridgeTo, Settings
from producer import bridge
from producer.command import Sending, send_shop
from streaming.command import start_all
from tests.helpers import headwater, settings_for, unlike_the_ledger
from tests.secured import SCOPE, Secured, escaped

EVENTS = 200


@pytest.fixture(params=["PLAIN", "OAUTHBEARER"])
def settings(
    request: pytest.FixtureRequest,
    secured: Secured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    return logging_in(secured, tmp_path, monkeypatch, request.param)


def logging_in(
    secured: Secured, folder: Path, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> Settings:
    """Settings with a topic of their own, and the secret of the login in the environment."""
    plain = mechanism == "PLAIN"
    broker = secured.by_password() if plain else secured.by_token()
    monkeypatch.setenv("TEST_SECRET", secured.password if plain else secured.tokens.secret)
    settings = settings_for(folder, broker.bootstrap, identity=secured.identity())
    return settings.model_copy(update={"broker": broker})


def secret_of(secured: Secured, settings: Settings) -> str:
    plain = settings.broker.sasl_mechanism == "PLAIN"
    return secured.password if plain else secured.tokens.secret


def test_a_shop_is_sent_and_counted(settings: Settings) -> None:
    report = send_shop(settings, Sending(events=EVENTS))
    assert (report.acknowledged, report.failed) == (EVENTS, 0)
    assert sum(kafka.end_offsets(settings, [settings.topics.events]).values()) == EVENTS


def test_a_wrong_secret_is_one_line(
    secured: Secured, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the command, as a user calls it: what, where and what to do, and nothing of the secret."""
    wrong = secret_of(secured, settings) + uuid.uuid4().hex
    broker, identity = settings.broker, settings.identity
    variables = {
        f"HEADWATER_{group}__{name.upper()}": str(value)
        for group, model in (("BROKER", broker), ("IDENTITY", identity))
        for name, value in model.model_dump(exclude_defaults=True).items()
    }
    monkeypatch.setenv("TEST_SECRET", wrong)
    done = headwater(settings, "produce", "--events", "1", code=1, extra=variables)
    said = done.stderr.strip()
    assert len(said.splitlines()) == 1, said
    assert "env:TEST_SECRET" in said
    if broker.sasl_mechanism == "PLAIN":
        assert f"broker {broker.bootstrap} refused the login" in said
        assert "Invalid username or password" in said
    else:
        assert f"no token for {SCOPE} from {identity.authority} as client" in said
        assert "AADSTS7000215" in said
    assert wrong not in done.stderr + done.stdout


def test_an_expired_secret_and_one_without_a_role(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = logging_in(secured, tmp_path, monkeypatch, "OAUTHBEARER")
    login._credential.cache_clear()
    monkeypatch.setattr(secured.tokens, "refuses", "AADSTS7000222: The secret keys are expired.")
    with pytest.raises(BrokerError, match="AADSTS7000222: The secret keys are expired"):
        kafka.end_offsets(settings, [settings.topics.events])
    monkeypatch.setattr(secured.tokens, "refuses", "")
    # A token for something else: the broker has the last word.
    other = settings.broker.model_copy(update={"oauth_scope": "api://other/.default"})
    elsewhere = settings.model_copy(update={"broker": other})
    with pytest.raises(BrokerError) as refused:
        kafka.end_offsets(elsewhere, [settings.topics.events])
    said = str(refused.value)
    assert f"broker {settings.broker.bootstrap} refused the login" in said
    assert f"give client {secured.tokens.client} the role" in said
    assert "api://other/.default" in said


def test_whom_the_client_does_not_trust(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's certificates do not know the tests' own; the name has to be right as well."""
    settings = logging_in(secured, tmp_path, monkeypatch, "PLAIN")
    topic = [settings.topics.events]

    def refusal(**changed: Any) -> str:
        broker = settings.broker.model_copy(update=changed)
        with pytest.raises(BrokerError) as refused:
            kafka.end_offsets(settings.model_copy(update={"broker": broker}), topic)
        return str(refused.value)

    where = settings.broker.bootstrap
    assert f"no TLS connection to broker {where}" in (said := refusal(ssl_ca=""))
    assert "certificate verify failed" in said
    assert "broker.ssl_ca" in said
    by_name = where.replace("127.0.0.1", "localhost")
    assert f"no TLS connection to broker {by_name}" in refusal(bootstrap=by_name)


@pytest.mark.long
def test_a_producer_outlives_its_tokens(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of some seconds: the broker ends a session with its token unless it is renewed."""
    settings = logging_in(secured, tmp_path, monkeypatch, "OAUTHBEARER")
    monkeypatch.setattr(secured.tokens, "lifetime", 3.0)
    login._credential.cache_clear()
    kafka.ensure_topics(settings, [settings.topics.events])
    troubles, errors = kafka.Troubles(), []
    producer = kafka.client(Producer, settings, troubles)
    asked, sent = secured.tokens.asked, 0
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        done = lambda error, _: errors.append(error) if error else None  # noqa: E731
        producer.produce(settings.topics.events, b"{}", on_delivery=done)
        sent += 1
        assert producer.flush(5) == 0, troubles.telling("no acknowledgement")
        time.sleep(0.2)
    assert errors == []
    assert secured.tokens.asked - asked >= 2
    monkeypatch.setattr(secured.tokens, "lifetime", 3600.0)
    login._credential.cache_clear()
    assert sum(kafka.end_offsets(settings, [settings.topics.events]).values()) == sent


@pytest.mark.long
def test_spark_reads_by_the_same_settings_and_shows_no_secret(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    secured: Secured,
    settings: Settings,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Both queries, Gold and the audit; then plans, what Spark's page is made of, and the log."""
    send_shop(settings, Sending(events=EVENTS))
    running = start_all(spark, settings, contracts, checkpoints.QUERIES, True)
    for query in running:
        query.query.awaitTermination()
        assert query.failure() is None
    reconcile.reconcile_range(spark, settings, contracts)
    assert gold.build(spark, settings, contracts, layouts).rows > 0
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    assert [balance.bronze for balance in found.balances] == [EVENTS]
    assert unlike_the_ledger(settings) == []
    shared: Any = spark._jsparkSession.sharedState()
    executions = shared.statusStore().executionsList()
    shown = [executions.apply(index) for index in range(executions.size())]
    texts = [execution.physicalPlanDescription() for execution in shown]
    configs = [execution.modifiedConfigs() for execution in shown]
    texts += [one.toString() for one in configs if one is not None]
    texts += [str(query.query._jsq.explainInternal(True)) for query in running]
    texts += [report.json for query in running for report in query.query.recentProgress]
    assert any("kafka" in text.lower() for text in texts)
    texts += list(capfd.readouterr())
    secret = secret_of(secured, settings)
    for form in (secret, escaped(secret)):
        assert [text for text in texts if form in text] == []


@pytest.mark.long
def test_spark_says_in_one_line_why_it_is_refused(
    spark: SparkSession,
    contracts: Contracts,
    secured: Secured,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The secret is withdrawn between what Python asks of the broker and what Spark does."""
    send_shop(settings, Sending(events=EVENTS))
    options, wrong = kafka.spark_options, secret_of(secured, settings) + uuid.uuid4().hex

    def withdrawn(of: Settings) -> dict[str, str]:
        monkeypatch.setenv("TEST_SECRET", wrong)
        return options(of)

    monkeypatch.setattr(kafka, "spark_options", withdrawn)
    [running] = start_all(spark, settings, contracts, ("bronze",), True)
    with pytest.raises(StreamingQueryException):
        running.query.awaitTermination()
    said = str(running.failure())
    plain = settings.broker.sasl_mechanism == "PLAIN"
    assert ("Invalid username or password" if plain else "AADSTS7000215") in said
    assert "\n" not in said
    assert wrong not in str(running.query.exception())


@pytest.mark.long
def test_a_bridge_that_is_refused_while_it_runs_says_so_and_ends(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = logging_in(secured, tmp_path, monkeypatch, "OAUTHBEARER")
    to = Bridge(to=BridgeTo(bootstrap=secured.plain, create_topics=True), topic="there")
    settings = settings.model_copy(update={"bridge": to})
    monkeypatch.setattr(secured.tokens, "lifetime", 3.0)
    monkeypatch.setattr(bridge, "REFUSED_SECONDS", 2.0)
    login._credential.cache_clear()
    send_shop(settings, Sending(events=EVENTS))

    def refuse(report: bridge.Report) -> None:
        if report.acknowledged == EVENTS:
            secured.tokens.refuses = "AADSTS7000222: The secret keys are expired."

    try:
        with pytest.raises(BrokerError) as refused:
            bridge.send_on(settings, progress=refuse)
    finally:
        secured.tokens.refuses, secured.tokens.lifetime = "", 3600.0
        login._credential.cache_clear()
    assert f"no token for {SCOPE} from {secured.tokens.host}" in str(refused.value)
    assert "AADSTS7000222" in str(refused.value)
