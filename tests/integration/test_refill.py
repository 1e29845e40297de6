"""Bronze that lacks what the broker still has."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from pyspark.sql import SparkSession

from batch import audit, reconcile
from batch.refill import refill
from batch.replay import Range
from lakehouse import gaps, kafka, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import BrokerError, GapError, StreamError
from lakehouse.settings import Broker, Settings
from producer.command import Sending, send_shop
from tests.helpers import drain, settings_for, table, unlike_the_ledger, wait_until


def in_order(settings: Settings) -> pa.Table:
    order = [("partition", "ascending"), ("offset", "ascending")]
    return table(settings, "bronze/events").sort_by(order)


@pytest.mark.long
def test_bronze_is_made_whole_again_from_the_broker(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    send_shop(settings, Sending(events=300, seed=71))
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    before = in_order(settings)
    path = tables.bronze().path(settings)
    spark.sql(f"DELETE FROM {tables.quoted_path(path)} WHERE offset % 7 = 3 OR partition = 2")
    lost = before.num_rows - table(settings, "bronze/events", ["offset"]).num_rows
    assert 0 < lost < 300
    admin = AdminClient(kafka.client_options(settings))
    for done in admin.create_partitions([NewPartitions(settings.topics.events, 5)]).values():
        done.result(10)
    # What comes meanwhile is the stream's, not the refill's.
    send_shop(settings, Sending(events=20, seed=72))
    assert not audit.audit_tables(spark, settings, contracts).holds
    # Of one partition, and of it only what is asked for.
    held = {(row["partition"], row["offset"]) for row in in_order(settings).to_pylist()}
    gone = [
        row["offset"]
        for row in before.to_pylist()
        if (0, row["offset"]) not in held and row["partition"] == 0
    ]
    some = Range(gone[1], gone[3], settings.topics.events, 0)
    assert refill(spark, settings, some) == 2
    held |= {(0, gone[1]), (0, gone[2])}
    assert {(row["partition"], row["offset"]) for row in in_order(settings).to_pylist()} == held
    assert refill(spark, settings) == lost - 2
    assert refill(spark, settings) == 0
    after = in_order(settings)
    assert after.equals(before)
    drain(spark, settings, contracts)
    # The whole table, as by a mistaken rm: readers of the old one have to look anew.
    shutil.rmtree(path)
    spark.catalog.clearCache()
    assert refill(spark, settings) == 320
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    assert [balance.bronze for balance in found.balances] == [320]
    assert unlike_the_ledger(settings) == []


@pytest.mark.long
def test_a_topic_that_is_gone_hides_nothing_of_the_others(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    """Ids are told of those that are there; and what was read before is not made anew."""
    settings = settings_for(tmp_path, bootstrap)
    topic = settings.topics.events
    send_shop(settings, Sending(events=100, seed=74))
    drain(spark, settings, contracts)
    ids = kafka.topic_ids(settings, [topic])
    with pytest.raises(BrokerError, match="does not answer"):
        kafka.topic_ids(
            settings.model_copy(update={"broker": Broker(bootstrap="127.0.0.1:1")}), ids
        )
    assert kafka.topic_ids(settings, [f"{topic}.gone", topic]) == ids
    admin = AdminClient(kafka.client_options(settings))
    for done in admin.delete_topics([topic]).values():
        done.result(10)
    wait_until(lambda: topic not in admin.list_topics(timeout=5).topics, 20, "deletion")
    with pytest.raises(BrokerError, match=f"has no topic {topic} any more"):
        refill(spark, settings)
    # It would be made anew, and its offsets taken for those that were read.
    with pytest.raises(StreamError, match=f"has no topic {topic} any more, which was read before"):
        drain(spark, settings, contracts, "bronze")
    assert topic not in admin.list_topics(timeout=5).topics


@pytest.mark.long
def test_what_was_removed_for_its_age_stays_away(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    send_shop(settings, Sending(events=60, seed=73))
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    tables.ensure(spark, settings, tables.gaps())
    old = gaps.Gap(settings.topics.events, 1, 0, 3, gaps.RETIRED)
    gaps.accept(spark, settings, "bronze", [old])
    path = tables.quoted_path(tables.bronze().path(settings))
    spark.sql(f"DELETE FROM {path} WHERE partition = 1 AND offset < 5")
    assert refill(spark, settings) == 2
    held = table(settings, "bronze/events", ["partition", "offset"]).to_pylist()
    assert sorted(row["offset"] for row in held if row["partition"] == 1)[0] == 3
    assert audit.audit_tables(spark, settings, contracts).broken == []


@pytest.mark.long
def test_a_table_and_a_checkpoint_that_are_both_gone_are_no_fresh_start(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    send_shop(settings, Sending(events=300, seed=73))
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    topic = settings.topics.events
    admin = AdminClient(kafka.client_options(settings))
    for done in admin.delete_records([TopicPartition(topic, 1, 10)]).values():
        done.result(10)
    checkpoint = Path(settings.checkpoints) / "bronze"
    moved = checkpoint.rename(tmp_path / "moved")
    shutil.rmtree(tables.bronze().path(settings))
    spark.catalog.clearCache()
    lost = f"topic {topic} partition 1: offsets 0 to 9 (10 records)"
    with pytest.raises(GapError, match=re.escape(lost)):
        drain(spark, settings, contracts, "bronze")
    ops = table(settings, "ops/gaps").num_rows if Path(settings.tables, "ops/gaps").exists() else 0
    assert ops == 0, "nothing was written down as never read"
    shutil.rmtree(checkpoint, ignore_errors=True)
    moved.rename(checkpoint)
    assert refill(spark, settings) == 290
    broken = audit.audit_tables(spark, settings, contracts).broken
    assert any(lost in line for line in broken), broken
