"""The one line that is told of an error of Spark's."""

from __future__ import annotations

from lakehouse.errors import RAISED, reason

FROZEN = "contract c is frozen (newFields: freeze). Record t/0/7 has fields that are not in it: [1]"
PLAN = """\
=== Streaming Query ===
Logical Plan:
Project [CASE WHEN x THEN raise_error(concat(HEADWATER_FROZEN contract c is frozen, topic#12)) END]
"""


def test_what_a_frozen_contract_refused_is_told_as_it_was_said() -> None:
    said = (
        "Job aborted due to stage failure: org.apache.spark.SparkRuntimeException: "
        f"[USER_RAISED_EXCEPTION] HEADWATER_FROZEN {FROZEN} SQLSTATE: P0001\n\tat x.y(z)\n{PLAN}"
    )
    assert reason(said) == FROZEN


def test_another_failure_of_a_query_with_a_frozen_contract_is_told_as_what_it_is() -> None:
    said = f"java.io.IOException: No space left on device\n{PLAN}"
    assert reason(said) == "java.io.IOException: No space left on device"
    assert RAISED.search(said) is None


def test_an_error_that_tells_nothing_is_told_by_what_is_behind_it() -> None:
    cause = (
        "org.apache.kafka.common.KafkaException: refused\n\tat x.y(z)\nCaused by: a.BException: why"
    )
    assert (
        reason("Failed to create new client\n\nJVM stacktrace:\nx.y(z)", cause) == "BException: why"
    )
    assert reason("java.io.IOException: full", cause) == "IOException: full"
    assert reason("Failed to create new client") == "Failed to create new client"


def test_of_records_that_are_gone_the_reason_is_told_and_not_how_to_lose_more() -> None:
    """As Spark 4.1 words it; before the reason it advises to set failOnDataLoss to false."""
    said = (
        "[STREAM_FAILED] Query [id = x] terminated with exception: [KAFKA_DATA_LOSS."
        "PARTITIONS_DELETED] Some data may have been lost because they are not available in Kafka "
        "any more;\neither the data was aged out by Kafka or the topic may have been deleted "
        "before all the data in the\ntopic was processed.\nIf you don't want your streaming query "
        "to fail on such cases, set the source option failOnDataLoss to false.\nReason:\n"
        "Partitions shop-0,shop-1 have been deleted. SQLSTATE: 22000\n=== Streaming Query ===\n"
    )
    assert reason(said) == "Partitions shop-0,shop-1 have been deleted. SQLSTATE: 22000"


def test_of_an_error_in_a_batch_what_the_jvm_said_is_told() -> None:
    said = (
        "[FOREACH_BATCH_USER_FUNCTION_ERROR] An error occurred in the user provided function. "
        "Reason: An exception was raised by the Python Proxy. Return Message: Traceback:\n"
        '  File "streaming/query.py", line 1, in run\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o73.save.\n"
        ": java.util.concurrent.TimeoutException: no answer within 120 seconds\n"
        "\tat x.y(z)\n"
    )
    assert reason(said) == "TimeoutException: no answer within 120 seconds"
