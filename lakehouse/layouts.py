"""Contracts of whole tables, under `tables/` beside those of the entities, in ODCS v3 too.

They say how a table is laid out and kept, and of Gold's tables what columns they have, what these
have to meet and where they are published to. `customProperties` of such a contract: the keys of
LAYOUT_KEYS; of a property: `pii: true`, `references: TABLE` for a surrogate key of another table.
`slaProperties`: latency, how far the table may be behind what there is; `headwater status` tells.
retention, how long rows of Bronze are kept; `headwater maintain` removes older ones.
`quality` of a property: as in the contract of an entity; a check of `severity: warning` lowers the
table's score, any other one keeps the table from the warehouses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lakehouse.contracts import ERROR, NAME, WARNING, Column, Contracts, Finding, Path_, Reader
from lakehouse.errors import ContractError
from lakehouse.metrics import SERVING

LAYERS = ("bronze", "silver", "gold", "ops")
LAYOUT_KEYS = {
    "layer": "bronze, silver, gold or ops",
    "entity": "the entity that a dimension follows",
    "hourOf": "of a dimension with scd 1, the column whose hour stands in year, month, day, hour; "
    "the time of the event, where it is missing",
    "scd": "1: the last state of each member; 2: every state with its time",
    "partitionBy": "columns that the table is partitioned by",
    "zorderBy": "columns that OPTIMIZE sorts the files of a partition by",
    "vacuumHours": "how long older versions are kept: their files, and their log, h",
    "warehouse": "its name by kind of warehouse, where that is not its own: {mysql: dw_users}",
}
# Of warehouses.
KINDS = ("duckdb", "mysql", "postgresql", "synapse")
# Headwater's own tables there begin so; the longest such beginning leaves that of the 63 characters
# that PostgreSQL has for a name.
OWN, LONGEST = "headwater_", 42
PROMISES = ("latency", "retention")
# Of a promise, in s.
UNITS = {"min": 60.0, "h": 3600.0, "d": 86400.0}
# What Headwater itself knows of a dimension's rows; all other columns are the entity's.
TECHNICAL = frozenset({"effective_from", "effective_to", "is_current", "is_inferred"})
# Facts by name: the entity whose last states they are, and what of them Gold itself works out. All
# other columns are the entity's.
_REPORTED = frozenset({"reporting_currency", "reporting_rate"})
FACTS: dict[str, tuple[str, frozenset[str]]] = {
    "fact_orders": (
        "order",
        _REPORTED
        | {"order_month", "time_key", "user_key", "location_key", "store_key", "status_at"}
        | {"cancelled_at", "returned_at", "net_total", "reporting_total", "reporting_net_total"},
    ),
    "fact_order_items": (
        "order_item",
        _REPORTED
        | {"sold_month", "time_key", "user_key", "product_key", "order_status", "sold_at"}
        | {"cancelled_quantity", "returned_quantity", "net_total", "reporting_line_total"}
        | {"reporting_net_total"},
    ),
    "fact_payments": (
        "payment",
        _REPORTED
        | {"paid_month", "time_key", "user_key", "paid_at", "net_amount", "reporting_net_amount"},
    ),
    "fact_inventory": (
        "inventory",
        frozenset({"snapshot_date", "snapshot_month", "store_key", "product_key", "changed_at"})
        | {"is_carried"},
    ),
}
# What is made of a column's hour.
HOUR_PARTS = ("year", "month", "day", "hour")


@dataclass(frozen=True)
class Layout:
    """One table: its columns (of Gold's tables only), how it is laid out, kept and published.

    natural_key: of a dimension, the column with the key of its entity; of_changes: the
    topic of the changes of a database's table that this tells of it by. hour_of: see LAYOUT_KEYS.
    latency: how far it may be behind what there is, s; retention: how long its rows are kept, s;
    None where nothing is said.
    """

    layer: str
    name: str
    description: str
    columns: tuple[Column, ...]
    entity: str | None
    scd: int | None
    natural_key: str | None
    of_changes: str | None
    hour_of: str | None
    partition_by: tuple[str, ...]
    zorder_by: tuple[str, ...]
    vacuum_hours: int
    latency: float | None
    retention: float | None
    warehouse: Mapping[str, str]
    path: Path = field(compare=False)

    @property
    def full_name(self) -> str:
        return f"{self.layer}.{self.name}"

    @cached_property
    def primary_key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.primary_key)

    @property
    def published(self) -> dict[str, str]:
        """What it is called, by kind of warehouse that it is published to."""
        # The tables of MySQL are those that have a name for it.
        own = {} if self.layer != "gold" else {kind: self.name for kind in KINDS if kind != "mysql"}
        return own | dict(self.warehouse)

    def attributes(self, natural: str) -> list[str]:
        """The columns of a dimension that come from its entity, the natural key left out."""
        own = {*self.primary_key, *TECHNICAL, natural}
        return [column.name for column in self.columns if column.name not in own]


class Layouts(Mapping[str, Layout]):
    """All layouts of a folder by full name (`gold.dim_users`), in the order of their names."""

    def __init__(self, layouts: list[Layout]) -> None:
        self._by_name = {one.full_name: one for one in sorted(layouts, key=lambda o: o.full_name)}

    def __getitem__(self, name: str) -> Layout:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    @cached_property
    def gold(self) -> tuple[Layout, ...]:
        return tuple(layout for layout in self.values() if layout.layer == "gold")


def load(folder: Path, contracts: Contracts) -> Layouts:
    """All layouts under `folder`/tables, and those of Headwater's own tables that it has not.

    contracts: those of the entities. Raises ContractError, with every finding.
    """
    layouts, findings = check(folder, contracts)
    if findings:
        raise ContractError("\n".join(str(finding) for finding in findings))
    return Layouts([*layouts.values(), *_own(layouts, contracts)])


def _own(known: Mapping[str, Layout], contracts: Contracts) -> Iterator[Layout]:
    """How Headwater keeps its own tables where nobody says otherwise: nothing is promised of them,
    and no row is removed."""
    from lakehouse.settings import default_contracts

    inner = default_contracts() / "tables"
    for layer in set(LAYERS) - {"gold"}:
        for path in sorted(inner.glob(f"{layer}_*.yaml")):
            if path.stem.replace("_", ".", 1) in known:
                continue
            reader = _Reader(path)
            layout = reader.layout(reader.read() or {}, contracts)
            assert layout is not None, reader.findings
            yield replace(layout, latency=None, retention=None)


def check(folder: Path, contracts: Contracts) -> tuple[Layouts, list[Finding]]:
    """What can be read of them, and everything that is wrong."""
    layouts: list[Layout] = []
    findings: list[Finding] = []
    inner = folder / "tables"
    for path in sorted([*inner.glob("*.yaml"), *inner.glob("*.yml")]):
        reader = _Reader(path)
        raw = reader.read()
        layout = None if raw is None else reader.layout(raw, contracts)
        findings += reader.findings
        if layout is None:
            continue
        if any(layout.full_name == other.full_name for other in layouts):
            findings.append(Finding(path, 1, "name", f"{layout.full_name} stands twice"))
        layouts.append(layout)
    known = {layout.name: layout for layout in layouts}
    for layout in layouts:
        for column in layout.columns:
            if column.references is not None and column.references not in known:
                said = f"{column.name}: references {column.references!r}, which has no contract"
                findings.append(Finding(layout.path, 1, "references", said))
        for kind, name in layout.published.items():
            namesake = next(o for o in layouts if o.published.get(kind) == name)
            if namesake is not layout:
                said = f"{kind}: {name} is the name of {namesake.full_name} there"
                findings.append(Finding(layout.path, 1, "warehouse", said))
    return Layouts(layouts), findings


class _Reader(Reader):
    """Reads one file; see Reader."""

    column_keys = frozenset({"pii", "references"})
    severities = (ERROR, WARNING)

    def layout(self, raw: dict[str, Any], contracts: Contracts) -> Layout | None:
        table = self.table(raw)
        if table is None:
            return None
        custom = self.custom(raw, (), set(LAYOUT_KEYS))
        columns = self.columns(table)
        names = {column.name for column in columns}
        layer = custom.get("layer")
        if layer not in LAYERS:
            self.find_custom("layer", f"{layer!r} is none of {', '.join(LAYERS)}")
        if (layer == "gold") != bool(columns):
            self.find(("schema", 0), "tables of gold have their columns here, the others have none")
        for i, column in enumerate(columns):
            if column.spark_type == "double":
                said = f"{column.name}: a double is written differently by every warehouse, and "
                said += "cannot be held against it: physicalType: decimal(p,s)"
                self.find(("schema", 0, "properties", i), said)
        lists = {}
        for key in ("partitionBy", "zorderBy"):
            value = custom.get(key, [])
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                self.find_custom(key, f"{value!r} is no list of columns")
                value = []
            for name in value:
                if columns and name not in names:
                    self.find_custom(key, f"no column {name!r}")
            lists[key] = tuple(value)
        if shared := set(lists["partitionBy"]) & set(lists["zorderBy"]):
            self.find_custom("zorderBy", f"{sorted(shared)} is what the table is partitioned by")
        hours = custom.get("vacuumHours", 720)
        if not isinstance(hours, int) or isinstance(hours, bool) or hours < 1:
            self.find_custom("vacuumHours", f"{hours!r} is no number of hours")
            hours = 720
        promised = self._promises(raw)
        if "retention" in promised and layer != "bronze":
            self.find(("slaProperties",), "retention: rows are removed from Bronze alone")
        if "latency" in promised and layer == "ops":
            self.find(("slaProperties",), "latency: a table of ops follows nothing")
        if (layer, table["name"]) == SERVING:
            self.find(("schema", 0, "name"), f"{'.'.join(SERVING)} is a view's name already")
        warehouse = custom.get("warehouse", {})
        if not isinstance(warehouse, dict):
            self.find_custom("warehouse", f"{warehouse!r} is no mapping of kinds to names")
            warehouse = {}
        for kind, name in warehouse.items():
            if kind not in KINDS:
                self.find_custom("warehouse", f"{kind!r} is none of {', '.join(KINDS)}")
            elif not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > LONGEST:
                said = f"{name!r} is no name: lower case, digits and _, {LONGEST} characters"
                self.find_custom("warehouse", f"{kind}: {said}")
            elif name.startswith(OWN):
                self.find_custom("warehouse", f"{kind}: {name}: {OWN}… are Headwater's own tables")
        entity, scd = custom.get("entity"), custom.get("scd")
        if layer == "gold" and not any(column.primary_key for column in columns):
            self.find(("schema", 0, "properties"), "a table of gold wants a primary key")
        if (entity is None) != (scd is None):
            self.find_custom("entity" if scd is None else "scd", "entity and scd go together")
        if layer == "gold":
            self._fact(table["name"], columns, contracts)
        natural, hour_of = None, custom.get("hourOf")
        if hour_of is not None:
            self._hour_of(hour_of, scd, columns)
        if entity is not None and scd is not None:
            made = HOUR_PARTS if hour_of is not None else ()
            natural = self._dimension(entity, scd, columns, contracts, made)
        if self.findings:
            return None
        source = None if entity is None else contracts[entity]
        description = raw.get("description") or {}
        return Layout(
            layer=str(layer),
            name=table["name"],
            description=str(description.get("purpose", "")),
            columns=tuple(columns),
            entity=entity,
            scd=scd,
            natural_key=natural,
            of_changes=source.topic if source is not None and source.changes else None,
            hour_of=hour_of,
            partition_by=lists["partitionBy"],
            zorder_by=lists["zorderBy"],
            vacuum_hours=hours,
            latency=promised.get("latency"),
            retention=promised.get("retention"),
            warehouse=warehouse,
            path=self.path,
        )

    def _fact(self, name: str, columns: list[Column], contracts: Contracts) -> None:
        """What a fact takes from its entity has to be there under that name."""
        entity, made = FACTS.get(name, ("", frozenset()))
        if entity not in contracts:
            return
        there = {column.name for column in contracts[entity].columns}
        for column in columns:
            if column.name not in made | there:
                said = f"{column.name}: {entity} has no such column, and {name} takes it from there"
                self.find(("schema", 0, "properties"), said)

    def _promises(self, raw: dict[str, Any]) -> dict[str, float]:
        """What is promised in slaProperties of ODCS, s."""
        found: dict[str, float] = {}
        for i, promise in enumerate(raw.get("slaProperties") or []):
            at: Path_ = ("slaProperties", i)
            name, value, unit = promise["property"], promise["value"], promise.get("unit")
            if name not in PROMISES:
                self.find(at, f"property: {name!r}: only {' and '.join(PROMISES)} are looked after")
            elif name in found:
                self.find(at, f"{name} stands twice")
            elif isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                self.find(at, f"value: {value!r} is no time")
            elif unit not in UNITS:
                self.find(at, f"unit: {unit!r} is none of {', '.join(UNITS)}")
            else:
                found[name] = value * UNITS[unit]
        return found

    def _hour_of(self, name: Any, scd: Any, columns: list[Column]) -> None:
        kinds = {column.name: column.spark_type for column in columns}
        if scd != 1:
            self.find_custom("hourOf", "is for a dimension with scd 1")
        if not isinstance(name, str) or kinds.get(name) != "timestamp":
            self.find_custom("hourOf", f"no timestamp column {name!r}")
        for part in HOUR_PARTS:
            if kinds.get(part) != "int":
                self.find(("schema", 0, "properties"), f"hourOf wants {part}, physicalType: int")

    def _dimension(
        self,
        entity: Any,
        scd: Any,
        columns: list[Column],
        contracts: Contracts,
        made: tuple[str, ...],
    ) -> str | None:
        """Its natural key. made: columns that are not the entity's."""
        if scd not in (1, 2):
            self.find_custom("scd", f"{scd!r} is neither 1 nor 2")
        wanted = TECHNICAL if scd == 2 else {"is_inferred"}
        names = {column.name: column for column in columns}
        if missing := sorted(wanted - set(names)):
            self.find(("schema", 0, "properties"), f"scd {scd} wants columns {', '.join(missing)}")
        keys = [column.name for column in columns if column.primary_key]
        if len(keys) != 1 or names[keys[0]].spark_type != "bigint":
            self.find(("schema", 0, "properties"), "a dimension has one primary key, a bigint")
        source = contracts.get(entity)
        if source is None:
            self.find_custom("entity", f"no contract {entity!r}")
            return None
        if source.changes and scd == 2:
            self.find_custom("scd", f"2: of changes, the view silver.{entity} is the history")
        natural = [column.name for column in source.columns if column.primary_key]
        if len(natural) != 1 or natural[0] not in names:
            self.find_custom(
                "entity", f"{entity} wants one primary key, and a column of its name here"
            )
            return None
        of_entity = {column.name: column.spark_type for column in source.columns}
        for column in columns:
            if column.name in {*keys, *TECHNICAL, *made}:
                continue
            if of_entity.get(column.name) != column.spark_type:
                self.find(
                    ("schema", 0, "properties"),
                    f"{column.name}: {entity} has no such column of type {column.spark_type}",
                )
        return natural[0]
