"""What tests over small tables share."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from batch import judge
from lakehouse.contracts import Contracts
from lakehouse.settings import Settings
from tests.house import House


@pytest.fixture(scope="module")
def few(contracts: Contracts) -> Contracts:
    return Contracts([contracts["category"]])


@pytest.fixture
def house(
    spark: SparkSession, settings: Settings, few: Contracts, monkeypatch: pytest.MonkeyPatch
) -> House:
    """Tables alone: what the queries have committed is given."""
    made = House(spark, settings, few)
    monkeypatch.setattr(judge, "committed_by_all", lambda *_: made.ends)
    return made
