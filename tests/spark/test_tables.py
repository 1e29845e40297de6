"""What the tables keep of themselves."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from deltalake import DeltaTable as RustTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.functions import udf

from headwater import doctor, status
from lakehouse import gaps, runs, tables
from lakehouse.contracts import Contracts
from lakehouse.delta_log import DeltaLog
from lakehouse.errors import TableError
from lakehouse.layouts import Layouts
from lakehouse.session import side_by_side
from lakehouse.settings import Settings, Unity
from lakehouse.sql import constant, one_of
from tests.house import House, category


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


def test_a_pointer_that_another_writer_is_replacing(
    spark: SparkSession, settings: Settings
) -> None:
    """On a local disk Hadoop holds it against the checksum of the one before."""
    table = tables.gaps()
    tables.ensure(spark, settings, table)
    path = table.path(settings)
    tables.set_properties(spark, tables.quoted_path(path), {"delta.checkpointInterval": "1"})
    for end in range(1, 4):
        gaps.accept(spark, settings, "bronze", [gaps.Gap("t", 0, 0, end)])
    newest = DeltaLog(spark, path).newest()
    assert newest is not None
    assert newest >= 4
    log = Path(path, "_delta_log")
    assert json.loads((log / "_last_checkpoint").read_text())["version"] >= 4
    (log / "._last_checkpoint.crc").write_bytes(b"crc\0\0\0\2\0" + b"\1\2\3\4")
    assert DeltaLog(spark, path).newest() == newest


def test_a_log_of_which_a_file_was_cut_off_is_read_on(
    spark: SparkSession, settings: Settings
) -> None:
    """As by a power cut; what the file would have said is looked for."""
    tables.ensure(spark, settings, tables.gaps())
    log = Path(tables.gaps().path(settings)) / "_delta_log"
    for file in (log / "_last_checkpoint", log / "00000000000000000000.crc"):
        file.write_text('{"version"')
        file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    assert tables.version(spark, settings, tables.gaps()) == 0
    assert DeltaLog(spark, tables.gaps().path(settings)).checksum(0) == {}


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


def test_tables_and_views_as_they_were(house: House, contracts: Contracts) -> None:
    spark, here = house.spark, Contracts([contracts["category"]])
    # Names of its own: those of the session are everybody's.
    unity = Unity(catalog="spark_catalog", schema_prefix="then_")
    settings = house.settings.model_copy(update={"unity": unity})
    # Databricks' own, which the masks ask.
    spark.sql(
        "CREATE OR REPLACE FUNCTION default.is_account_group_member(name string) RETURNS boolean "
        "RETURN false"
    )
    for schema in ("bronze", "silver", "ops"):
        spark.sql(f"CREATE DATABASE then_{schema}")
    house.stream((0, 0, 0, category("1", "Books")))
    [first, *_] = tables.commits(spark, settings, tables.silver(here)).items()
    house.stream((0, 1, 1, category("2", "Toys")))
    known = tables.commits(spark, settings, tables.silver(here))
    after_one = datetime.fromtimestamp(known[first[0]] / 1000, UTC)

    def seen(moment: datetime) -> list[str]:
        names = tables.register(spark, settings, here, Layouts([]), moment)
        if "spark_catalog.then_silver.category" not in names:
            return []
        rows = spark.sql("SELECT name FROM spark_catalog.then_silver.category ORDER BY name")
        return [row.name for row in rows.collect()]

    assert seen(datetime(2020, 1, 1, tzinfo=UTC)) == []
    assert seen(after_one) == ["Books"]
    assert seen(datetime.now(UTC)) == ["Books", "Toys"]
    assert seen(after_one) == ["Books"]


def test_a_commit_that_came_between_is_met_by_another_try(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    """A real one, by another engine, while the MERGE is worked out."""
    table = tables.Table("gold", "counted", {"k": "bigint", "v": "bigint"})
    path, once = table.path(settings), tmp_path / "once"
    tables.create(spark.createDataFrame([(1, 1), (2, 2)], "k bigint, v bigint"), settings, table)

    writes = f"from deltalake import DeltaTable; DeltaTable({path!r}).update({{'v': 'v + 10'}})"
    # Spark's workers are of another Python's packages.
    another = [sys.executable, "-c", writes]

    def meanwhile(value: int) -> int:
        import subprocess

        if not once.exists():
            once.touch()
            subprocess.run(another, check=True)
        return value

    changed = udf(meanwhile, "bigint").asNondeterministic()
    rows = spark.createDataFrame([(1, 5)], "k bigint, v bigint").withColumn("v", changed("v"))
    calls = []

    def attempt() -> None:
        calls.append(1)
        old = DeltaTable.forPath(spark, path).alias("old")
        merged = old.merge(rows.alias("new"), "old.k = new.k")
        merged.whenMatchedUpdate(set={"v": "new.v"}).execute()

    tables.merge(settings, table, attempt)
    assert len(calls) == 2, "once more"
    found = RustTable(path).to_pyarrow_table().to_pylist()
    assert {row["k"]: row["v"] for row in found} == {1: 5, 2: 12}


def test_the_last_run_is_the_last_one_though_the_clock_was_put_back(
    spark: SparkSession, settings: Settings
) -> None:
    with runs.recorded(spark, settings, "gold") as run:
        run.rows = 1
    path = tables.quoted_path(tables.runs().path(settings))
    ahead = "ended_at = ended_at + INTERVAL 365 DAYS, started_at = started_at + INTERVAL 365 DAYS"
    spark.sql(f"UPDATE {path} SET {ahead}")
    for rows in (2, 3):
        with runs.recorded(spark, settings, "gold") as run:
            run.rows = rows
        last = runs.last(spark, settings, "gold")
        assert last is not None
        assert last.rows == rows
        assert {job["job"]: job["rows"] for job in status.jobs(settings)} == {"gold": rows}

    # Some at once are not in each other's way.
    def some(rows: int) -> None:
        for _ in range(3):
            with runs.recorded(spark, settings, f"job {rows}") as run:
                run.rows = rows

    side_by_side(some, range(4))
    found = tables.read(spark, settings, tables.runs()).where("job LIKE 'job %'").collect()
    assert sorted(row.rows for row in found) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    last = runs.last(spark, settings, "gold")
    # What a job is about to do is no run of it.
    runs.begun(spark, settings, "gold", {"there": []})
    assert runs.last(spark, settings, "gold") == last


def test_what_doctor_knows_of_delta_is_what_this_delta_can(spark: SparkSession) -> None:
    assert spark._jvm is not None
    known = spark._jvm.org.apache.spark.sql.delta.TableFeature.allSupportedFeaturesMap().keys()
    assert set(known.mkString(" ").split()) == {name.lower() for name in doctor.WRITER_FEATURES}


def test_days_and_moments_of_long_ago_are_what_they_say(spark: SparkSession) -> None:
    """Of which PySpark takes some for Julian ones, and refuses others."""
    days = ["0001-01-02", "0026-03-01", "0999-12-31", "1500-03-05", "1582-10-10", "2026-03-01"]
    rows = spark.sql(
        "SELECT CAST(d AS date) AS day, CAST(d || 'T10:00:00Z' AS timestamp) AS at FROM VALUES "
        + ", ".join(f"('{day}')" for day in days)
        + " AS t(d)"
    )
    for said in days:
        day = date.fromisoformat(said)
        moment = datetime.combine(day, time(10), UTC)
        for found in (
            rows.where(F.col("day") == constant(day)),
            rows.where(F.col("at") == constant(moment)),
            rows.where(one_of(F.col("day"), [day])),
        ):
            assert [str(row.day) for row in found.collect()] == [said]
    every = [date.fromisoformat(said) for said in days]
    assert rows.where(one_of(F.col("day"), every)).count() == len(days)
    assert rows.where(one_of(F.col("day"), [])).count() == 0


def test_tables_as_they_were_then(house: House, layouts: Layouts) -> None:
    spark, settings = house.spark, house.settings

    def names_at(moment: datetime) -> list[str]:
        return tables.register(spark, settings, house.contracts, layouts, moment)

    def offsets() -> set[int]:
        return {row.offset for row in spark.sql("SELECT offset FROM bronze.events").collect()}

    try:
        house.bronze((0, 0, 0, category("a")))
        then = datetime.now(UTC)
        house.bronze((0, 1, 1, category("b")))
        house.reconcile()
        assert "bronze.events" in names_at(then)
        assert offsets() == {0}
        assert {"silver.category", "silver.quarantine"} <= set(names_at(datetime.now(UTC)))
        assert offsets() == {0, 1}
        assert spark.sql("SELECT * FROM silver.category").count() == 2
        # Nothing was there yet.
        assert names_at(then.replace(year=2020)) == []
    finally:
        for layer in ("bronze", "silver", "gold", "ops"):
            spark.sql(f"DROP DATABASE IF EXISTS {layer} CASCADE")
