"""Names of three levels and masks, in Spark's own catalog in the place of Unity Catalog."""

from __future__ import annotations

import pytest

from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.errors import TableError
from lakehouse.layouts import Layouts
from lakehouse.settings import Unity
from tests.house import House
from tests.samples import event

PERSON = {
    "customer_id": "C00000001",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "email": "ada@example.com",
    "birth_date": "1915-12-10",
    "address_id": "A00000001",
    "nickname": "the Countess",
}


@pytest.mark.long
def test_readers_see_masks_and_stewards_what_is_there(house: House, contracts: Contracts) -> None:
    spark, customers = house.spark, Contracts([contracts["customer"]])
    house = House(spark, house.settings, customers)
    house.stream((0, 0, 0, event("customer", PERSON, id="1")))
    # Databricks' own, which says who is in a group.
    spark.sql(
        "CREATE OR REPLACE FUNCTION default.is_account_group_member(name string) RETURNS boolean "
        "RETURN name = 'the stewards'"
    )
    query = "SELECT first_name, email, birth_date, address_id, _rescued FROM spark_catalog."
    for schema in ("readers_", "stewards_"):
        spark.sql(f"CREATE DATABASE {schema}silver")
        spark.sql(f"CREATE DATABASE {schema}ops")
        group = "the stewards" if schema == "stewards_" else "others"
        unity = Unity(catalog="spark_catalog", schema_prefix=schema, stewards=group)
        settings = house.settings.model_copy(update={"unity": unity})
        spark.sql(f"CREATE DATABASE {schema}bronze")
        names = tables.register(spark, settings, customers, Layouts([]))
        assert f"spark_catalog.{schema}silver.customer" in names
    (hidden,) = spark.sql(f"{query}readers_silver.customer").collect()
    assert tuple(hidden) == ("***", "***", None, "A00000001", "***")
    (whole,) = spark.sql(f"{query}stewards_silver.customer").collect()
    assert (whole.first_name, whole.email) == ("Ada", "ada@example.com")
    assert str(whole.birth_date) == "1915-12-10"
    assert "the Countess" in whole._rescued
    # As after the loss of a storage account: names outlive it.
    moved = house.settings.model_copy(update={"storage": f"{house.settings.storage}/other"})
    House(spark, moved, customers)
    with pytest.raises(TableError, match=r"bronze`.`events` leads to .*: DROP TABLE `spark_"):
        tables.register(spark, moved.model_copy(update={"unity": unity}), customers, Layouts([]))
