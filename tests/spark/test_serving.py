"""Metrics by the hour as they are served, held against DuckDB over the same Silver."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest
from pyspark.sql import SparkSession

from batch import merge
from lakehouse import checkpoints, tables
from lakehouse.contracts import Contract, Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings, Stream
from streaming import metrics
from tests.helpers import table
from tests.samples_gold import Shop, order, payment, when

BOUNDS = [100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 3_600_000]
BOUNDS += [86_400_000]
# What is told of every hour of these rows of Silver.
COUNTED = f"""
(SELECT * REPLACE (list_min(list_filter({BOUNDS}, lambda b: b >= p95))::BIGINT AS p95) FROM (
  SELECT hour, type, region, currency, count(*) AS events, sum(late)::DECIMAL(25,0) AS sum_ms,
    list_sort(list(late))[(count(*) * 95 + 99) // 100] AS p95, sum(net)::DECIMAL(18,2) AS revenue
  FROM (
    SELECT date_trunc('hour', time) AS hour, type,
      coalesce(CASE entity WHEN 'order' THEN "order".country_code WHEN 'payment'
        THEN payment.country_code END, 'unknown') AS region,
      CASE entity WHEN 'payment' THEN payment.currency ELSE 'XXX' END AS currency,
      greatest(0, epoch_ms(timestamp) - epoch_ms(time)) AS late,
      CASE entity WHEN 'payment' THEN payment.amount * CASE payment.status
        WHEN 'captured' THEN 1 WHEN 'refunded' THEN -1 ELSE 0 END END AS net
    FROM {{0}} WHERE outcome = 'accepted' AND time IS NOT NULL) GROUP BY ALL))
"""
# closed: Silver as Gold has read it. now: as the stream has.
SERVED = f"""
WITH passed AS (SELECT max(least(time, timestamp, now())) - INTERVAL 10 MINUTE AS until
  FROM closed WHERE outcome = 'accepted' AND time IS NOT NULL),
batch AS (SELECT * FROM {COUNTED.format("closed")}
  WHERE hour + INTERVAL 1 HOUR <= (SELECT until FROM passed)),
speed AS (SELECT * FROM {COUNTED.format("now")}
  WHERE hour > coalesce((SELECT max(hour) FROM batch), TIMESTAMP '0001-01-01'))
SELECT *, 'batch' AS layer FROM batch UNION ALL SELECT *, 'speed' FROM speed ORDER BY ALL
"""
# Of a checkpoint.
FILES = ("offsets/0", "commits/0", "metadata", "counted", "state")
COLUMNS = ["time", "timestamp", "outcome", "entity", "type", "order", "payment"]


class Served:
    """The view of a shop, and what it is to show.

    gold, stream: the versions of Silver that each has counted; None before the first run.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.gold: int | None = None
        self.stream: int | None = None
        # Which of the two there were when names were given.
        self.known = (True, True)

    def version(self) -> int:
        return tables.version(self.shop.spark, self.shop.settings, self.shop.silver)

    def count(self) -> None:
        """The stream counts all that is there."""
        shop = self.shop
        running = metrics.start(shop.spark, shop.settings, shop.contracts, available_now=True)
        running.query.awaitTermination()
        self.stream = self.version()

    def build(self) -> None:
        self.shop.build()
        self.gold = self.version()

    def register(self) -> None:
        """Has SQL know the tables that there are by now."""
        shop = self.shop
        if (self.gold is None, self.stream is None) != self.known:
            names = tables.register(shop.spark, shop.settings, shop.contracts, shop.layouts)
            assert "gold.hourly_metrics" in names
            self.known = (self.gold is None, self.stream is None)

    def check(self) -> list[tuple[Any, ...]]:
        """Holds the view against DuckDB; its rows."""
        shop, spark = self.shop, self.shop.spark
        self.register()
        found = spark.sql(
            "SELECT hour, type, region, currency, events, latency_sum_ms, latency_p95_ms, revenue, "
            "layer, latency_avg_ms FROM gold.hourly_metrics"
        ).collect()
        with duckdb.connect() as db:
            db.execute("SET TimeZone = 'UTC'")
            for name, version in (("closed", self.gold), ("now", self.stream)):
                rows = table(shop.settings, "silver/events", COLUMNS, version or 0)
                db.register(name, rows.slice(0, 0 if version is None else None))
            db.execute("CREATE TABLE served AS " + SERVED)
            db.execute("ALTER TABLE served ALTER hour TYPE TIMESTAMP")
            wanted = db.execute("FROM served").fetchall()
        shown = [(*row[:7], row.revenue, row.layer) for row in found]
        assert sorted(shown, key=repr) == sorted(wanted, key=repr)
        for row in found:
            mean = row.latency_sum_ms / row.events
            assert row.latency_avg_ms == mean.quantize(Decimal("0.001"), ROUND_HALF_UP)
        return shown


@pytest.fixture(autouse=True)
def names(spark: SparkSession) -> Iterator[None]:
    """Those that SQL knows are the session's: of one test alone."""

    def forget() -> None:
        for layer in ("bronze", "silver", "gold", "ops"):
            spark.sql(f"DROP DATABASE IF EXISTS {layer} CASCADE")

    forget()
    yield
    forget()


@pytest.fixture
def shop(spark: SparkSession, settings: Settings, contracts: Contracts, layouts: Layouts) -> Shop:
    return Shop(spark, settings, contracts, layouts)


@contextmanager
def looking(spark: SparkSession, totals: set[int]) -> Iterator[None]:
    """Looks at the view all the time: how many events there are by it."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            [row] = spark.sql("SELECT sum(events) AS n FROM gold.hourly_metrics").collect()
            totals.add(row.n)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield
    finally:
        stop.set()
        looker.join()


def moment(clock: str) -> datetime:
    return datetime.fromisoformat(when(clock))


def some(random: Random, first: str, last: str, number: int) -> list[tuple[str, str, Any]]:
    """Orders and payments between two times of the day."""
    begin, end = moment(first), moment(last)
    found: list[tuple[str, str, Any]] = []
    for _ in range(number):
        at = begin + (end - begin) * random.random()
        country = random.choice(["DE", "FR", None])
        which = random.randrange(10**6)
        made = (
            ("order", order(which, f"{at:%H:%M}", country_code=country))
            if random.random() < 0.5
            else (
                "payment",
                payment(
                    which,
                    which,
                    random.choice(["captured", "captured", "failed", "refunded"]),
                    country_code=country,
                    amount=random.randrange(1, 10_000) / 100,
                ),
            )
        )
        found.append((f"{at:%H:%M}", *made))
    return found


@pytest.mark.parametrize("goes_on", [False, pytest.param(True, marks=pytest.mark.long)])
def test_every_event_is_served_once_at_every_step(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    random, served = Random(5), Served(shop)

    def say(first: str, last: str, number: int, sent: str) -> None:
        shop.say(*some(random, first, last, number), sent=moment(sent))

    # Before Gold has counted anything, all of it is the stream's.
    say("08:00", "10:30", 40, "10:30")
    served.count()
    assert {row[8] for row in served.check()} == {"speed"}
    # The hours until ten are closed; what comes then is the stream's alone, late or not.
    served.build()
    assert {(row[0].hour, row[8]) for row in served.check()} == {
        *((8, "batch"), (9, "batch"), (10, "speed")),
    }
    say("10:10", "11:20", 30, "11:20")
    served.check()
    served.count()
    served.check()
    # Late ones, for a closed hour and for an open one, as a reconcile brings them.
    say("09:10", "09:50", 5, "11:25")
    say("10:00", "10:20", 5, "11:25")
    served.count()
    served.check()
    # What a reconcile finds to be a conflict counts no more; another one is gone.
    shop.sql("UPDATE {silver} SET outcome = 'conflict' WHERE offset IN (1, 41)")
    shop.sql("DELETE FROM {silver} WHERE offset IN (45, 46)")
    # Nor does one that was erased for a person.
    erased = "entity = NULL, type = NULL, time = NULL, order = NULL, payment = NULL"
    shop.sql("UPDATE {silver} SET " + erased + " WHERE offset IN (2, 47)")
    served.count()
    before = served.check()

    # While Gold is built: before each of its tables is brought, and after.
    bring, steps, totals = merge.bring, [], set[int]()

    def watched(*arguments: Any, **more: Any) -> Any:
        if arguments[2].name != "agg_hourly_metrics":
            return bring(*arguments, **more)
        steps.append(served.check())
        with looking(shop.spark, totals):
            found = bring(*arguments, **more)
        served.gold = served.version()
        steps.append(served.check())
        return found

    monkeypatch.setattr(merge, "bring", watched)
    served.build()
    assert steps[0] == before
    assert steps[1] != before
    # Whoever looks while it commits sees what was there before, or after.
    assert totals
    assert totals <= {sum(row[4] for row in step) for step in steps}
    assert {(row[0].hour, row[8]) for row in served.check()} == {
        *((8, "batch"), (9, "batch"), (10, "batch"), (11, "speed")),
    }
    if not goes_on:
        return
    # A whole hour without an event, and an event of it that comes after it was closed.
    say("13:30", "13:40", 10, "13:40")
    served.count()
    served.build()
    served.check()
    say("12:05", "12:06", 1, "13:41")
    served.count()
    served.check()
    served.build()
    served.check()
    # A checkpoint that is gone: all is counted anew, and nothing twice.
    checkpoints.SparkFiles(shop.spark, shop.settings, metrics.NAME).clear()
    served.count()
    served.check()
    say("13:30", "13:50", 10, "13:50")
    served.count()
    served.check()
    served.build()
    served.check()
    assert shop.build(rebuild=True).rows == 0


@pytest.mark.parametrize(
    "lost", ["table", *(pytest.param(one, marks=pytest.mark.long) for one in FILES)]
)
def test_a_checkpoint_that_it_cannot_go_on_from_is_begun_anew(shop: Shop, lost: str) -> None:
    served = Served(shop)
    shop.say(("10:00", "order", order(1, "10:00")), sent=moment("10:01"))
    served.count()
    place = Path(shop.settings.checkpoints) / metrics.NAME / lost
    if lost == "table":
        place = Path(tables.minutes().path(shop.settings))
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.write_text("v1\n{")
    shop.say(("10:00", "order", order(2, "10:00")), sent=moment("10:02"))
    metrics.count(shop.spark, shop.settings, shop.contracts)
    served.stream = served.version()
    assert [row[4] for row in served.check()] == [2]


def test_what_gold_has_closed_is_not_counted_once_more(shop: Shop) -> None:
    """But for the last day of it, whose hours may be open again."""
    served = Served(shop)
    for clock in ("10:00", "03T10:00", "04T11:00"):
        shop.say((clock, "order", order(1, clock)), sent=moment(clock))
    served.build()
    served.count()
    counted = table(shop.settings, "silver/minute_metrics").to_pylist()
    # The last closed hour is ten on the third day.
    assert sorted(row["minute"] for row in counted) == [
        datetime(2026, 3, 3, 10, 0, tzinfo=UTC),
        datetime(2026, 3, 4, 11, 0, tzinfo=UTC),
    ]
    assert [row[8] for row in sorted(served.check())] == ["batch", "batch", "speed"]


@pytest.mark.long
def test_an_hour_that_is_open_for_long_is_counted_for_as_long(
    spark: SparkSession, settings: Settings, contracts: Contracts, layouts: Layouts
) -> None:
    """A contract's watermark is longer than what the settings have counted by the minute."""
    slow = [replace(one, watermark_seconds=3 * 3600) for one in contracts.values()]
    short = settings.model_copy(update={"stream": Stream(metrics_hours=1)})
    shop = Shop(spark, short, Contracts(slow), layouts)
    served = Served(shop)
    for clock in ("10:00", "13:30", "13:31"):
        shop.say((clock, "order", order(1, clock)), sent=moment(clock))
        served.count()
    # The watermark is at 10:31: hour ten is open, and this is 3 h 20 min behind the newest.
    shop.say(("10:11", "order", order(2, "10:11")), sent=moment("13:32"))
    served.count()
    served.build()
    served.register()
    [ten] = [row for row in shop.rows("agg_hourly_metrics") if row["hour"].hour == 10]
    assert not ten["is_closed"]
    rows = spark.sql("SELECT hour, events FROM gold.hourly_metrics ORDER BY hour").collect()
    assert [(row.hour.hour, row.events) for row in rows] == [(10, 2), (13, 2)]


@pytest.mark.long
def test_another_region_is_counted_anew_by_both(shop: Shop) -> None:
    served = Served(shop)
    shop.say(
        ("10:00", "payment", payment(1, 1, country_code="DE")),
        ("10:00", "payment", payment(2, 2, country_code="FR")),
        ("12:00", "payment", payment(3, 3, country_code="FR")),
        sent=moment("12:00"),
    )
    served.count()
    served.build()
    assert {row[2] for row in served.check()} == {"DE", "FR"}

    def marked(contract: Contract) -> Contract:
        if contract.name != "payment":
            return contract
        columns = (replace(c, region=c.name == "method") for c in contract.columns)
        return replace(contract, columns=tuple(columns))

    shop.contracts = Contracts([marked(one) for one in shop.contracts.values()])
    shop.sql("DELETE FROM {silver} WHERE payment.payment_id = 'Y0000000002'")
    served.count()
    assert shop.build().mode == "full"
    shown = shop.spark.sql("SELECT hour, region, events FROM gold.hourly_metrics").collect()
    assert sorted((row.hour.hour, row.region, row.events) for row in shown) == [
        (10, "card", 1),
        (12, "card", 1),
    ]
    assert shop.build(rebuild=True).rows == 0


@pytest.mark.long
def test_a_clock_that_is_centuries_ahead_is_in_the_way_of_nobody(shop: Shop) -> None:
    """Of who makes events and of who sends them."""
    served, ahead = Served(shop), "2199-12-31T23:00:00Z"
    shop.say(("10:00", "order", order(1, "10:00")), sent=moment("10:01"))
    served.count()
    shop.say((ahead, "order", order(2, "10:00")), sent=moment(ahead))
    served.count()
    now = datetime.now(UTC).replace(microsecond=0)
    for minutes in (3, 2, 1):
        at = f"{now - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:00Z}"
        shop.say((at, "order", order(minutes, "10:00")), sent=now)
        served.count()
        assert sum(row[4] for row in served.check()) == 6 - minutes
    # Once there is nothing of a minute it is not told of.
    shop.sql("DELETE FROM {silver} WHERE order.order_id = 'O0000000002' AND year(time) = 2199")
    served.count()
    assert sum(row[4] for row in served.check()) == 4
    served.build()
    assert sum(row[4] for row in served.check()) == 4


@pytest.mark.long
def test_later_than_is_counted_by_the_minute(shop: Shop) -> None:
    """A day after its time an event is told by the hour alone."""
    served = Served(shop)
    shop.say(("10:00", "order", order(1, "10:00")), sent=moment("10:01"))
    served.count()
    for clock in ("03T10:00", "03T10:01"):
        # What a batch has seen counts as passed from the one after the next on.
        shop.say((clock, "order", order(2, clock)), sent=moment(clock))
        served.count()
        served.check()
    shop.say(("10:30", "order", order(3, "10:30")), sent=moment("03T10:01"))
    served.count()
    counted = table(shop.settings, "silver/minute_metrics").to_pylist()
    assert sorted(row["minute"] for row in counted) == [
        datetime(2026, 3, 1, 10, 0, tzinfo=UTC),
        datetime(2026, 3, 3, 10, 0, tzinfo=UTC),
        datetime(2026, 3, 3, 10, 1, tzinfo=UTC),
    ]
    served.build()
    assert len(served.check()) == 2
    [hour] = [row for row in served.check() if row[0] == datetime(2026, 3, 1, 10)]
    assert (hour[4], hour[8]) == (2, "batch")


def test_minutes_are_those_of_the_events(shop: Shop) -> None:
    shop.say(
        ("10:00", "payment", payment(1, 1, country_code="DE")),
        ("10:00", "payment", payment(2, 2, country_code="DE")),
        ("10:01", "payment", payment(3, 3, country_code="DE")),
        sent=moment("10:01") + timedelta(seconds=30),
    )
    Served(shop).count()
    rows = table(shop.settings, "silver/minute_metrics").to_pylist()
    told = ("type", "region", "currency", "events", "latency_sum_ms", "latency_le_60000")
    # 90 s each, and 30 s.
    assert {row["minute"].minute: tuple(row[name] for name in told) for row in rows} == {
        0: ("headwater.shop.payment", "DE", "EUR", 2, 180_000, 0),
        1: ("headwater.shop.payment", "DE", "EUR", 1, 30_000, 1),
    }
    assert {row["minute"].minute: float(row["revenue"]) for row in rows} == {0: 89.76, 1: 44.88}
