"""What Silver knows of each key: every accepted event, and which one is the last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.decode import DELETED_TYPE

# Events of one key in order: by their own time, then as the broker got them.
ORDER = ("_time", "_timestamp", "_topic", "_partition", "_offset")
COORDINATES = ("_topic", "_partition", "_offset")
# The type of a change that was none: what a row is about is worked out anew all the same.
AGAIN = "again"
# Above so many keys a join that copies them to every task costs more than it saves.
BROADCAST_KEYS = 2_000_000


@dataclass(frozen=True)
class Keys:
    """A set of keys: a frame of distinct rows, held in place, with the number of them."""

    frame: DataFrame
    count: int


@dataclass(frozen=True)
class Source:
    """Accepted rows of silver.events at one version.

    rows: all of them. at: when that version was committed. changed: those that came or went since
    another version, with `_change_type` (AGAIN for those that did not) and `_commit_version`; None
    where everything is worked out.
    """

    rows: DataFrame
    at: datetime
    changed: DataFrame | None

    def history(self, entity: str, keys: Keys | None, *more: str) -> DataFrame:
        """Events of an entity (of those keys): its columns, typed, those of ORDER, and more of
        silver.events, named like these."""
        named = (F.col(name.removeprefix("_")).alias(name) for name in more)
        return among(_events(self.rows, entity, *named), keys)

    def touched(self, entity: str, *key: str | Column) -> DataFrame | None:
        """Keys of an entity's events that came or went; None: as good as all."""
        if self.changed is None:
            return None
        return _events(self.changed, entity).select(*key)

    def changed_value(self, entity: str, key: str, value: str, keys: Keys) -> Keys | None:
        """Those keys whose last event has another `value` than at the version before, or AGAIN."""
        if self.changed is None:
            return None
        changed = _events(self.changed, entity, "_change_type", "_commit_version")
        # A row may have come and gone more than once: its first change tells what was before.
        went = F.col("_change_type").isin("delete", "update_preimage")
        in_order = Window.partitionBy(*COORDINATES).orderBy("_commit_version", ~went)
        first = changed.withColumn("_rank", F.row_number().over(in_order)).where("_rank = 1")
        was = first.where(went).drop("_rank", "_change_type", "_commit_version")
        now = self.history(entity, keys)
        untouched = now.join(first.select(*COORDINATES), [*COORDINATES], "left_anti")
        before = untouched.unionByName(was)
        old = latest(before, key).select(key, F.struct(value).alias("_old"))
        new = latest(now, key).select(key, F.struct(value).alias("_new"))
        both = new.join(old, key, "full_outer")
        moved = both.where(~F.col("_old").eqNullSafe(F.col("_new"))).select(key)
        return keys_of(moved, changed.where(F.col("_change_type") == AGAIN).select(key))


def _events(rows: DataFrame, entity: str, *more: str | Column) -> DataFrame:
    return rows.where(F.col("entity") == entity).select(
        f"`{entity}`.*",
        *(F.col(name.removeprefix("_")).alias(name) for name in ORDER),
        *more,
    )


def keys_of(*frames: DataFrame | None) -> Keys | None:
    """The distinct rows of frames of the same columns; None if one of them is None."""
    given = [frame for frame in frames if frame is not None]
    if len(given) < len(frames):
        return None
    first = given[0].columns[0]
    one = reduce(DataFrame.unionByName, given).where(F.col(first).isNotNull()).distinct()
    held = one.localCheckpoint()
    return Keys(held, held.count())


def among(rows: DataFrame, keys: Keys | None) -> DataFrame:
    """Rows whose key is among the keys; all of them for None."""
    return rows if keys is None else rows.join(_small(keys), keys.frame.columns, "left_semi")


def outside(rows: DataFrame, keys: Keys | None) -> DataFrame:
    """Rows whose key is not among the keys; none of them for None."""
    if keys is None:
        return rows.limit(0)
    return rows.join(_small(keys), keys.frame.columns, "left_anti")


def _small(keys: Keys) -> DataFrame:
    return F.broadcast(keys.frame) if keys.count <= BROADCAST_KEYS else keys.frame


def committed_last(changes: DataFrame, topic: str, *key: str) -> DataFrame:
    """The last change of each key in the order in which they were committed, without keys that it
    has deleted. changes: with `_type` (see lakehouse.decode); those of other topics are left out.

    A key's changes come in that order, within its partition; when a topic was given more of these
    it may have gone to another one. The places in the database's log would not tell: that may begin
    anew.
    """
    of_partition = Window.partitionBy(*key, "_partition")
    window = Window.partitionBy(*key).orderBy(
        *(F.col(name).desc() for name in ("_begun", "_partition", "_offset"))
    )
    ranked = (
        changes.where(F.col("_topic") == topic)
        .withColumn("_begun", F.min("_timestamp").over(of_partition))
        .withColumn("_rank", F.row_number().over(window))
        .where("_rank = 1")
    )
    return ranked.where(~F.endswith("_type", F.lit(DELETED_TYPE))).drop("_rank", "_begun")


def latest(events: DataFrame, *key: str) -> DataFrame:
    """The last event of each key, by ORDER."""
    window = Window.partitionBy(*key).orderBy(*(F.col(name).desc() for name in ORDER))
    ranked = events.withColumn("_rank", F.row_number().over(window))
    return ranked.where("_rank = 1").drop("_rank")
