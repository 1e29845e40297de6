"""What the tables keep of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse import tables
from lakehouse.errors import TableError
from lakehouse.settings import Settings


# Spark masks what it takes for a secret or an address by its letters: here a name, and an id.
@pytest.mark.parametrize(
    ("topic", "name"), [("url-tokens", "AAAA"), ("events", "Bt0urlYuRlCKhHFUx6Ysv")]
)
def test_the_id_of_a_topic_is_compared_whatever_its_letters(
    spark: SparkSession, settings: Settings, topic: str, name: str
) -> None:
    assert tables.ensure(spark, settings, tables.of_topics(tables.gaps(), {topic: name}))
    assert not tables.ensure(spark, settings, tables.of_topics(tables.gaps(), {topic: name}))
    with pytest.raises(TableError, match=rf"{topic} was deleted .*\(id {name} then, BBBB now\)"):
        tables.ensure(spark, settings, tables.of_topics(tables.gaps(), {topic: "BBBB"}))


@pytest.mark.parametrize("left", [(), (".00000000000000000000.json.0f3a.tmp", "_staged_commits/")])
def test_a_table_whose_making_was_cut_off_is_made(
    spark: SparkSession, settings: Settings, left: tuple[str, ...]
) -> None:
    """By a kill, or a full disk: there is a log by then, and no commit in it."""
    log = Path(tables.gaps().path(settings)) / "_delta_log"
    log.mkdir(parents=True)
    for name in left:
        if name.endswith("/"):
            (log / name).mkdir()
        else:
            (log / name).write_text('{"commitInfo"')
    assert tables.ensure(spark, settings, tables.gaps())
    assert tables.read(spark, settings, tables.gaps()).count() == 0
    assert not tables.ensure(spark, settings, tables.gaps())


def test_a_column_comes_before_its_statistics(spark: SparkSession, settings: Settings) -> None:
    """Delta refuses to keep statistics of a column that is not there."""

    def thing(*columns: str) -> tables.Table:
        kept = {tables.STATISTICS: ",".join(columns)}
        return tables.Table("gold", "thing", dict.fromkeys(columns, "int"), (), kept)

    assert tables.ensure(spark, settings, thing("a"))
    assert not tables.ensure(spark, settings, thing("a", "b"))
    path = thing("a").path(settings)
    assert spark.read.format("delta").load(path).columns == ["a", "b"]
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{path}`").collect()[0]
    assert detail.properties[tables.STATISTICS] == "a,b"
