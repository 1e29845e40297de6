"""Names for SQL: plain ones on a laptop, three levels in Unity Catalog, from the same contracts.

In Unity Catalog readers see personal columns (pii) through a function that shows them to stewards
alone. Views do that, and not column masks of the tables: Headwater reads and writes tables by their
paths, which Unity Catalog refuses of a table with a mask. So readers are granted views, and of
tables those without a personal column. `column_masks` is for copies that others read by name.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from lakehouse import metrics
from lakehouse.contracts import Column, Contract, Contracts
from lakehouse.layouts import Layout, Layouts
from lakehouse.metrics import HOURS, MINUTES, SERVING
from lakehouse.privacy import MASK
from lakehouse.settings import Settings
from lakehouse.sql import literal, quoted

MASKED = "_masked"


def parts(settings: Settings, layer: str, name: str = "") -> list[str]:
    """The levels of a name; of the layer's schema where there is no name."""
    unity = settings.unity
    return [part for part in (unity.catalog, f"{unity.schema_prefix}{layer}", name) if part]


def named(settings: Settings, layer: str, name: str = "") -> str:
    """The same as it stands in SQL."""
    return ".".join(quoted(part) for part in parts(settings, layer, name))


def shown(settings: Settings, layer: str, name: str) -> str:
    """The same as people read it."""
    return ".".join(parts(settings, layer, name))


def functions(settings: Settings, contracts: Contracts, layouts: Layouts) -> list[str]:
    """Makes a function for each type that is masked; none without Unity Catalog."""
    if not settings.unity.catalog:
        return []
    found = []
    for kind in _kinds(contracts, layouts):
        hidden = literal(MASK) if kind == "string" else f"CAST(NULL AS {kind})"
        found.append(
            f"CREATE OR REPLACE FUNCTION {_mask(settings, kind)}(value {kind}) RETURNS {kind} "
            f"RETURN CASE WHEN is_account_group_member({literal(settings.unity.stewards)}) "
            f"THEN value ELSE {hidden} END"
        )
    return found


def external_table(settings: Settings, layer: str, name: str, path: str) -> str:
    """Names the table at a path, where nothing has that name yet."""
    there = f"USING delta LOCATION {literal(path)}"
    return f"CREATE TABLE IF NOT EXISTS {named(settings, layer, name)} {there}"


def quarantine_view(settings: Settings) -> str:
    """Makes the view of refused records, for those who may see them as they came."""
    return (
        f"CREATE OR REPLACE VIEW {named(settings, 'silver', 'quarantine')} AS SELECT topic, "
        "partition, offset, timestamp, date, entity, violations, written_by, source, id, type, "
        f"time, subject, key, raw FROM {named(settings, 'silver', 'events')} "
        "WHERE outcome = 'quarantined'"
    )


def entity_view(
    settings: Settings,
    contract: Contract,
    rescued: str = "rescued",
    there: Container[str] | None = None,
) -> str:
    """Makes the view of an entity's accepted records.

    rescued: the expression for `_rescued`. there: columns that the table has of the entity, where
    it is an older version that lacks some: those are null.
    """
    columns = _columns(settings, contract.columns, f"{quoted(contract.name)}.", there)
    # What no contract knows may be personal.
    rescued = _masked(settings, "string", rescued)
    return (
        f"CREATE OR REPLACE VIEW {named(settings, 'silver', contract.name)} AS SELECT {columns}, "
        "source AS _source, id AS _id, type AS _type, time AS _time, topic AS _topic, "
        "partition AS _partition, "
        f"offset AS _offset, timestamp AS _timestamp, date AS _date, {rescued} AS _rescued "
        f"FROM {named(settings, 'silver', 'events')} "
        f"WHERE entity = {literal(contract.name)} AND outcome = 'accepted'"
    )


def gold_view(settings: Settings, layout: Layout) -> str | None:
    """Makes the view of a table of Gold with personal columns; None where there is none to make."""
    if not settings.unity.catalog or not _personal(layout.columns):
        return None
    return (
        f"CREATE OR REPLACE VIEW {named(settings, 'gold', layout.name + MASKED)} AS "
        f"SELECT {_columns(settings, layout.columns, '')} "
        f"FROM {named(settings, 'gold', layout.name)}"
    )


def serving_view(settings: Settings, *layers: tuple[str, str]) -> str:
    """Makes the view of metrics by the hour: closed hours from Gold, later ones from the stream.

    layers: HOURS, MINUTES, as far as they are there. Where the hours are closed stands in the very
    rows that tell of them, so that one commit of Gold moves both: an event is in one of the two.
    """
    measures = ", ".join(metrics.MEASURES)
    keys = ", ".join(("hour", *metrics.KEYS))
    hours, minutes = (named(settings, *one) for one in (HOURS, MINUTES))
    closed = " WHERE is_closed" if MINUTES in layers else ""
    batch = (
        f"SELECT {keys}, {measures}, latency_avg_ms, latency_p95_ms, 'batch' AS layer "
        f"FROM {hours}{closed}"
    )
    sums = ", ".join(
        f"CAST(sum({name}) AS {kind}) AS {name}" for name, kind in metrics.MEASURES.items()
    )
    by_hour = f"SELECT date_trunc('hour', minute) AS hour, * FROM {minutes}"
    later = ""
    if HOURS in layers:
        last = f"SELECT max(hour) AS last FROM {hours} WHERE is_closed"
        later = f" CROSS JOIN ({last}) WHERE last IS NULL OR hour > last"
    speed = (
        f"SELECT {keys}, {measures}, {metrics.AVERAGE} AS latency_avg_ms, "
        f"{metrics.P95} AS latency_p95_ms, 'speed' AS layer FROM (SELECT {keys}, {sums} "
        f"FROM ({by_hour}){later} GROUP BY {keys}) WHERE events > 0"
    )
    parts = {HOURS: batch, MINUTES: speed}
    union = " UNION ALL ".join(parts[one] for one in layers)
    return f"CREATE OR REPLACE VIEW {named(settings, *SERVING)} AS {union}"


def column_masks(settings: Settings, layouts: Layouts) -> list[str]:
    """Masks of the personal columns of Gold's tables themselves, and the right to read these."""
    readers = quoted(settings.unity.readers)
    found = []
    for layout in layouts.gold:
        name = named(settings, "gold", layout.name)
        personal = [column for column in layout.columns if column.pii]
        found += [
            f"ALTER TABLE {name} ALTER COLUMN {quoted(column.name)} "
            f"SET MASK {_mask(settings, column.spark_type)}"
            for column in personal
        ]
        if personal:
            found.append(f"GRANT SELECT ON TABLE {name} TO {readers}")
    return found


def grants(settings: Settings, contracts: Contracts, layouts: Layouts) -> list[str]:
    """What readers and stewards may see. Stewards see all, as it is."""
    unity = settings.unity
    readers, stewards = quoted(unity.readers), quoted(unity.stewards)
    found = [
        f"GRANT USE CATALOG ON CATALOG {quoted(unity.catalog)} TO {who}"
        for who in (readers, stewards)
    ]
    for layer in ("bronze", "silver", "gold", "ops"):
        found.append(f"GRANT USE SCHEMA, SELECT ON SCHEMA {named(settings, layer)} TO {stewards}")
        if layer != "bronze":
            found.append(f"GRANT USE SCHEMA ON SCHEMA {named(settings, layer)} TO {readers}")
    for kind in _kinds(contracts, layouts):
        for who in (readers, stewards):
            found.append(f"GRANT EXECUTE ON FUNCTION {_mask(settings, kind)} TO {who}")
    for name in contracts:
        found.append(f"GRANT SELECT ON VIEW {named(settings, 'silver', name)} TO {readers}")
    for layout in layouts.gold:
        personal = _personal(layout.columns)
        kind, name = ("VIEW", layout.name + MASKED) if personal else ("TABLE", layout.name)
        found.append(f"GRANT SELECT ON {kind} {named(settings, 'gold', name)} TO {readers}")
    found.append(f"GRANT SELECT ON TABLE {named(settings, *MINUTES)} TO {readers}")
    found.append(f"GRANT SELECT ON VIEW {named(settings, *SERVING)} TO {readers}")
    found.append(f"GRANT SELECT ON TABLE {named(settings, 'ops', 'runs')} TO {readers}")
    return found


def _columns(
    settings: Settings, columns: Iterable[Column], of: str, there: Container[str] | None = None
) -> str:
    return ", ".join(
        f"CAST(NULL AS {c.spark_type}) AS {quoted(c.name)}"
        if there is not None and c.name not in there
        else f"{_masked(settings, c.spark_type, of + quoted(c.name))} AS {quoted(c.name)}"
        if c.pii and settings.unity.catalog
        else f"{of}{quoted(c.name)}"
        for c in columns
    )


def _kinds(contracts: Contracts, layouts: Layouts) -> list[str]:
    """Types that a mask is wanted for; text always is, for `_rescued`."""
    known: list[Contract | Layout] = [*contracts.values(), *layouts.gold]
    return sorted({"string", *(c.spark_type for one in known for c in one.columns if c.pii)})


def _personal(columns: Iterable[Column]) -> bool:
    return any(column.pii for column in columns)


def _masked(settings: Settings, kind: str, value: str) -> str:
    return f"{_mask(settings, kind)}({value})" if settings.unity.catalog else value


def _mask(settings: Settings, kind: str) -> str:
    return named(settings, "ops", f"mask_{re.sub('[^a-z0-9]+', '_', kind).strip('_')}")
