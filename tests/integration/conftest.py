"""Servers that integration tests alone need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from tests import secured as secured_servers
from tests.helpers import settings_for
from tests.samples_gold import ADDRESS, CATEGORY, CUSTOMER, PRODUCT, Shop, line, order
from tests.secured import Secured


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with TLS and logins, and who gives the tokens, for as long as the tests live."""
    with secured_servers.running(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture(scope="module")
def shop(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    bootstrap: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shop:
    """A Gold with a little of everything that a warehouse may stumble over."""
    settings = settings_for(tmp_path_factory.mktemp("publish"), bootstrap)
    shop = Shop(spark, settings, contracts, layouts)
    odd = {**CUSTOMER, "customer_id": "C00000002", "first_name": "🙂 'ä\\", "phone": None}
    shop.say(
        ("10:00", "customer", CUSTOMER),
        ("10:01", "customer", odd),
        ("10:00", "address", ADDRESS),
        ("09:00", "product", PRODUCT),
        ("09:00", "category", CATEGORY),
        ("14:00", "customer", {**CUSTOMER, "phone": None}),
        *(("15:00", "order", order(n, "15:00")) for n in range(1, 6)),
        *(("15:00", "order_item", line(n)) for n in range(1, 6)),
    )
    shop.build()
    return shop
