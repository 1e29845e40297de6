"""Gold of a seeded run, against what DuckDB makes of the bytes and the ledger."""

from __future__ import annotations

from itertools import islice

import pytest
from pyspark.sql import SparkSession

from batch import gold, reconcile
from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings, Stream
from producer.command import Sending, instant, send_shop, shop_of
from producer.defects import Record
from tests.helpers import drain, settings_for
from tests.oracle import different

SEED, EVENTS, INCREMENTS = 41, 12_000, 10


@pytest.fixture(scope="module")
def records() -> list[Record]:
    opens = instant(None, False)
    return list(islice(shop_of(SEED, opens, 0.3).records(), EVENTS))


@pytest.fixture(scope="module")
def house(
    spark: SparkSession,
    contracts: Contracts,
    bootstrap: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """A seeded run in Silver, in more than ten versions of it."""
    settings = settings_for(tmp_path_factory.mktemp("gold"), bootstrap)
    send_shop(settings, Sending(events=EVENTS, seed=SEED))
    drain(spark, settings, contracts, "bronze")
    small = Stream(max_offsets_per_trigger=EVENTS // INCREMENTS)
    drain(spark, settings.model_copy(update={"stream": small}), contracts, "silver")
    reconcile.reconcile_range(spark, settings, contracts)
    return settings


def test_gold_equals_an_independent_engines(
    spark: SparkSession,
    house: Settings,
    contracts: Contracts,
    layouts: Layouts,
    records: list[Record],
) -> None:
    """After the first run, after ten increments, late events among them, and after a rebuild.

    From nothing: the first run and the rebuild work everything out from Silver alone.
    """
    newest = tables.version(spark, house, tables.silver(contracts))
    first = gold.build(spark, house, contracts, layouts, until=newest - INCREMENTS)
    assert first.mode == "full"
    assert different(house, records, newest - INCREMENTS) == {}
    written = 0
    for version in range(newest - INCREMENTS + 1, newest + 1):
        result = gold.build(spark, house, contracts, layouts, until=version)
        assert result.mode == "increment"
        written += result.rows
    assert written > 1_000
    assert different(house, records) == {}

    anew = gold.build(spark, house, contracts, layouts, rebuild=True)
    assert (anew.mode, anew.rows) == ("full", 0), "a rebuild finds nothing to change"
