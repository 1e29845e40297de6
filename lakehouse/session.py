"""The Spark session: made in one place, passed to whoever needs it."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from lakehouse import adls
from lakehouse.errors import HeadwaterError
from lakehouse.redact import SECRET_NAMES
from lakehouse.settings import Settings
from lakehouse.tables import MARK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Item = TypeVar("Item")
Made = TypeVar("Made")
SIDE_BY_SIDE = 4
# Before the names of Hadoop's own properties.
HADOOP = "spark.hadoop."


def side_by_side(work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """What `work` makes of each item, in order; some at once, for a small job mostly waits."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(pool.map(work, items))


def session_conf(settings: Settings) -> dict[str, str]:
    """What is set beside conf/spark-defaults.conf, each with its reason."""
    cores = str(os.cpu_count() or 2)
    return {
        "spark.sql.session.timeZone": "UTC",
        # A shuffle of 200 partitions, and Delta's 50 for its own log, cost seconds on two cores.
        "spark.sql.shuffle.partitions": str(settings.stream.state_partitions),
        "spark.databricks.delta.snapshotPartitions": cores,
        # Bounded state, larger than memory, without a count of its rows at every batch.
        "spark.sql.streaming.stateStore.providerClass": (
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
        ),
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "false",
        # How often an idle query asks the broker for its newest offsets; Spark's 10 ms took a third
        # of what the broker and its clients did in a run.
        "spark.sql.streaming.pollingDelay": "200ms",
        # Old files of the state are removed by then; a driver that dies every minute never was, and
        # left them all.
        "spark.sql.streaming.stateStore.maintenanceInterval": "15s",
        # Nothing goes back further than to the last committed batch, and Spark's 100 batches of
        # state and offsets are what most of a checkpoint is made of.
        "spark.sql.streaming.minBatchesToRetain": "20",
        # A micro-batch without records would only move the watermark; the next one does that too.
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        # Keeps the call site of every expression: half of the time that a wide plan takes to make.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        # Gold has some hundreds of plans; compiled anew at every run, they took a sixth longer.
        "spark.sql.codegen.cache.maxEntries": "2000",
        # Not wherever the command happens to be called.
        "spark.sql.warehouse.dir": str(settings.runtime_dir / "warehouse"),
        # 93 typed columns side by side are no mistake.
        "spark.sql.debug.maxToStringFields": "50",
        # Spark's own pattern does not know a storage account's key, nor a login of Kafka's.
        "spark.redaction.regex": SECRET_NAMES,
        # A page, and a group of rows, is held against its size after so many rows, and not after a
        # hundred first: records may be of 16 MB.
        "spark.hadoop.parquet.page.size.row.check.min": "10",
        "spark.hadoop.parquet.block.size.row.check.min": "10",
        # Who wrote a version: gold refuses to go on from one that was made by hand.
        "spark.databricks.delta.commitInfo.userMetadata": MARK,
        **adls.spark_options(settings),
        **settings.spark,
    }


def _is_hadoop_secret(name: str, value: str) -> bool:
    return name.startswith(HADOOP) and any(re.search(SECRET_NAMES, text) for text in (name, value))


def _is_none_of_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in record.pathname


def has_jvm(session: SparkSession) -> bool:
    """Whether the JVM of a session still answers."""
    from py4j.protocol import Py4JError

    context: Any = session.sparkContext
    try:
        context._jvm.java.lang.System.nanoTime()
    except (Py4JError, ConnectionError):
        return False
    return True


def spark(settings: Settings, name: str) -> SparkSession:
    """The session of this process, made at the first call. Raises HeadwaterError without a JVM."""
    from pyspark.errors import PySparkException
    from pyspark.logger import PySparkLogger
    from pyspark.sql import SparkSession

    # PySpark makes datetimes in the process's zone, without saying so.
    os.environ["TZ"] = "UTC"
    time.tzset()
    # They write every error to stderr, stack trace and all, before whoever asked has caught it.
    for logger in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(logger).setLevel(logging.CRITICAL)
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    # It also writes to the root logger, which is nobody's.
    logging.getLogger().addFilter(_is_none_of_py4j)
    builder = SparkSession.builder.appName(f"headwater-{name}")
    # spark-submit has said where it runs.
    if not {"PYSPARK_GATEWAY_PORT", "MASTER", "SPARK_REMOTE"} & os.environ.keys():
        builder = builder.config("spark.master", os.environ.get("SPARK_MASTER", "local[*]"))
    conf = session_conf(settings)
    # What a session begins with is on the JVM's command line, which everybody on the machine sees.
    secrets = {
        name: conf.pop(name) for name, value in list(conf.items()) if _is_hadoop_secret(name, value)
    }
    for key, value in conf.items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        raise HeadwaterError(
            f"Spark could not start: {str(error).splitlines()[0]}: is a JDK 17 or 21 on the PATH, "
            "and was `make setup` run?"
        ) from error
    context: Any = session.sparkContext
    hadoop = context._jsc.hadoopConfiguration()
    for key, value in secrets.items():
        hadoop.set(key.removeprefix(HADOOP), value)
    return session
