"""Contracts: one YAML file a table, in the Open Data Contract Standard (ODCS v3).

A file is checked against the standard's own JSON schema, then for what Headwater reads from it:

- `schema[0].properties`: the columns. `physicalType` is a Spark SQL type, `physicalName` the key in
  the JSON where it differs from `name`, `required` and `primaryKey` as in the standard.
- `quality` of a property: the checks, each `{type: custom, engine: headwater, implementation:
  {rule: NAME, …arguments}}`, NAME being one of lakehouse.rules.CHECKS.
- `customProperties` of a property: `clean` (a list of cleaners, each a name or `{rule: NAME, …}`),
  `jsonType: string` (values come as text, as in a CSV export), `aliases` (other keys of the JSON,
  read where the first one is missing), `pii: true`, `subject: true` (it identifies the person that
  the record is about), `region: true` (it says where an event belongs in metrics by region).
- `customProperties` of the contract: the keys of CONTRACT_KEYS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lakehouse import rules
from lakehouse.errors import ContractError
from lakehouse.rules import Rule

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
JSON_KEY = re.compile(r"[^`'\"\[\]\\\x00-\x1f]{1,200}")
TOPIC = re.compile(r"(?!__|[.]{1,2}$)[a-zA-Z0-9._-]{1,249}")
DURATION = re.compile(r"([0-9]{1,7}) (second|minute|hour|day)s?")
MAX_SECONDS = 366 * 86400
# Columns of silver.events and of the steps towards it, and names that its views have.
RESERVED = frozenset(
    """
    topic partition offset timestamp timestamp_type date hour key value headers raw digest entity
    outcome violations written_by source id type time subject events quarantine minute_metrics doc
    data problems record_problem envelope_problems parsed unreadable enveloped envelope dedup_key
    event_time action existing rescued unknown_fields of_columns was wrote yields waits
    """.split()  # noqa: SIM905
)
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
SPARK_TYPES = {
    "string": "string",
    "integer": "bigint",
    "number": "double",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    "object": "string",
    "array": "string",
}
# ODCS's severities of a rule of a table: whether what breaks it is kept from the warehouses.
ERROR, WARNING = "error", "warning"
DEBEZIUM = "debezium"
EVOLVE, FREEZE, QUARANTINE, DROP = MODES = ("evolve", "freeze", "quarantine", "drop")
CONTRACT_KEYS = {
    "eventType": "the CloudEvents type of its records; headwater.NAME where left out",
    "topic": "the topic of plain JSON objects, for a contract without envelope",
    "id": "the JSON keys that identify a record of such a topic; its content where left out",
    "time": "the column of such a topic, or of files, that holds the event time; the broker's, or "
    "the file's, where left out",
    "changes": "debezium: the records of such a topic are changes of a database's table, as "
    "Debezium writes them; their ids and times are those of the changes",
    "watermark": "how long duplicates are looked for in the stream; 10 minutes where left out",
    "clockTolerance": "how far an event may be ahead of the broker; 5 minutes where left out",
    "newFields": "what a field that is not in the contract does to its record: evolve (it is kept "
    "in `rescued`; where left out), drop (it is left out), quarantine, freeze (nothing is written "
    "until a person decides)",
    "changedTypes": "what a value that its column cannot hold does to its record, unless the "
    "column is required or the record's time: quarantine (where left out), evolve, drop, freeze",
}
COLUMN_KEYS = frozenset({"aliases", "clean", "jsonType", "pii", "region", "subject"})


def decimal_of(spark_type: str) -> tuple[int, int] | None:
    """Precision and scale of a decimal type; None for any other one."""
    found = re.fullmatch(r"decimal\(([0-9]+),([0-9]+)\)", spark_type)
    return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True)
class Column:
    """One column: its name, its key in the JSON, its Spark SQL type, and what it has to meet."""

    name: str
    json_key: str
    logical_type: str
    spark_type: str
    required: bool
    primary_key: bool
    from_text: bool
    pii: bool
    references: str | None
    max_length: int | None
    description: str
    cleaners: tuple[Rule, ...]
    checks: tuple[Rule, ...]
    aliases: tuple[str, ...] = ()
    subject: bool = False
    region: bool = False

    @property
    def decimal(self) -> tuple[int, int] | None:
        """Precision and scale of a decimal column."""
        return decimal_of(self.spark_type)

    @property
    def json_keys(self) -> tuple[str, ...]:
        """Every key that its value may stand under, the first one that is there counts."""
        return (self.json_key, *self.aliases)

    @property
    def indispensable(self) -> bool:
        """Whether a record without a value for it is refused."""
        return self.required and not any(rule.name == rules.DEFAULT for rule in self.cleaners)


@dataclass(frozen=True)
class Contract:
    """One entity: where its records come from, and its columns. text: its file.

    changes: whether they are changes of a database's table, as Debezium writes them.
    """

    name: str
    version: str
    description: str
    columns: tuple[Column, ...]
    event_type: str
    topic: str | None
    id_keys: tuple[str, ...]
    time_column: str | None
    watermark_seconds: int
    clock_tolerance_seconds: int
    path: Path = field(compare=False)
    text: str = field(default="", compare=False, repr=False)
    new_fields: str = EVOLVE
    changed_types: str = QUARANTINE
    changes: bool = False

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def spark_struct(self) -> str:
        """Its typed columns as a Spark SQL struct type."""
        inner = ", ".join(f"`{column.name}`: {column.spark_type}" for column in self.columns)
        return f"struct<{inner}>"

    @property
    def json_keys(self) -> list[str]:
        """Every key of the JSON that a column reads, in order."""
        return sorted(key for column in self.columns for key in column.json_keys)

    def does_without(self, column: Column) -> bool:
        """Whether a record is taken though this column cannot hold the value that came for it.

        One that is required, or that says when it was, is never made up.
        """
        firm = column.required or column.name == self.time_column
        return self.changed_types in {EVOLVE, DROP} and not firm


class Contracts(Mapping[str, Contract]):
    """All contracts of a folder, by name, in the order of their names."""

    def __init__(self, contracts: list[Contract]) -> None:
        self._by_name = {c.name: c for c in sorted(contracts, key=lambda c: c.name)}

    def __getitem__(self, name: str) -> Contract:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    @cached_property
    def enveloped(self) -> tuple[Contract, ...]:
        return tuple(c for c in self.values() if c.topic is None)

    @cached_property
    def plain(self) -> tuple[Contract, ...]:
        return tuple(c for c in self.values() if c.topic is not None)

    @property
    def watermark_seconds(self) -> int:
        """One query has one watermark: the longest that a contract asks for."""
        return max((c.watermark_seconds for c in self.values()), default=600)

    @property
    def clock_tolerance_seconds(self) -> int:
        """How far ahead of the broker's clock an event's time may be, by any contract."""
        return max((c.clock_tolerance_seconds for c in self.values()), default=300)

    def topics(self, events: str) -> list[str]:
        """The topic of enveloped events and those of the plain contracts. Raises ContractError."""
        for contract in self.plain:
            if contract.topic == events:
                raise ContractError(
                    f"{contract.path}: topic {events!r} is the one of enveloped events "
                    "(topics.events): plain objects want a topic of their own"
                )
        return sorted({events, *(c.topic for c in self.plain if c.topic)})


@dataclass(frozen=True)
class Finding:
    """One thing wrong in one file: line (from 1) and the key it is about."""

    path: Path
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.key or '(whole file)'}: {self.message}"


def load(folder: Path) -> Contracts:
    """All contracts under `folder`. Raises ContractError, with every finding."""
    contracts, findings = check(folder)
    if findings:
        raise ContractError("\n".join(str(finding) for finding in findings))
    return contracts


def files(folder: Path) -> list[Path]:
    """The files of contracts in a folder, in the order of their names."""
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def check(folder: Path) -> tuple[Contracts, list[Finding]]:
    """What can be read of the contracts under `folder`, and everything that is wrong."""
    if not folder.is_dir():
        raise ContractError(f"{folder} is no folder of contracts; set HEADWATER_CONTRACTS")
    paths = files(folder)
    if not paths:
        raise ContractError(f"{folder} holds no contract (*.yaml)")
    contracts: list[Contract] = []
    findings: list[Finding] = []
    for path in paths:
        reader = Reader(path)
        raw = reader.read()
        contract = None if raw is None else reader.contract(raw)
        findings += reader.findings
        if contract is None:
            continue
        reader.findings = []
        for other in contracts:
            for what, key in (("name", ""), ("event_type", "eventType"), ("topic", "topic")):
                value = getattr(contract, what)
                if value is not None and value == getattr(other, what):
                    where = reader.custom_at.get(key, ("schema", 0, "name"))
                    reader.find(where, f"{value!r} is {other.path.name}'s already")
        findings += reader.findings
        contracts.append(contract)
    return Contracts(contracts), findings


@lru_cache
def _standard() -> Any:
    from jsonschema import Draft201909Validator

    text = resources.files("open_data_contract_standard").joinpath("schema.json").read_text()
    return Draft201909Validator(json.loads(text))


Path_ = tuple[str | int, ...]


class Reader:
    """Reads one file, and keeps where each key stands."""

    column_keys: frozenset[str] = COLUMN_KEYS
    severities: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = ""
        self.findings: list[Finding] = []
        self.lines: dict[Path_, int] = {(): 1}
        # Where the value of each of the contract's own custom properties is.
        self.custom_at: dict[str, Path_] = {}

    def find(self, where: Path_, message: str) -> None:
        key = where
        while key not in self.lines and key:
            key = key[:-1]
        named = ".".join(str(part) for part in where)
        self.findings.append(Finding(self.path, self.lines[key], named, message))

    def read(self) -> dict[str, Any] | None:
        try:
            text = self.text = self.path.read_text(encoding="utf-8")
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    said = "aliases (*name) are not for contracts: write it out"
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    self.findings.append(Finding(self.path, line, "", said))
                    return None
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            said = getattr(error, "problem", None) or str(error)
            line = mark.line + 1 if mark else 1
            self.findings.append(Finding(self.path, line, "", f"not readable as YAML: {said}"))
            return None
        try:
            raw = self._plain(node, ()) if node is not None else None
            if not isinstance(raw, dict):
                self.find((), "has to be a mapping")
                return None
            broken = _standard().iter_errors(raw)
            for finding in sorted(broken, key=lambda found: [str(p) for p in found.absolute_path]):
                self._standard_finding(finding)
        except RecursionError:
            self.find((), "is nested too deep for a contract")
        return None if self.findings else raw

    def _plain(self, node: yaml.Node, where: Path_) -> Any:
        self.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                inner = (*where, key)
                self.lines[inner] = key_node.start_mark.line + 1
                if key in result:
                    self.find(inner, "stands twice")
                result[key] = self._plain(value_node, inner)
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(child, (*where, i)) for i, child in enumerate(node.value)]
        loader = yaml.SafeLoader("")
        try:
            value = loader.construct_object(node)
        except Exception as error:
            # A tag on what is none of its kind (`!!bool maybe`) is met by whatever Python raises.
            self.find(where, getattr(error, "problem", None) or f"is no {node.tag}: {error}")
            return None
        finally:
            loader.dispose()
        return value.isoformat() if isinstance(value, date | datetime) else value

    def _standard_finding(self, error: Any) -> None:
        where = tuple(error.absolute_path)
        # An `allOf` or `anyOf` hides what is wrong one level further down.
        while error.context:
            error = min(error.context, key=lambda e: -len(e.absolute_path))
            where = tuple(error.absolute_path)
        message = error.message if len(error.message) < 300 else f"{error.message[:300]} …"
        extra = re.findall(r"'([^']+)'", message) if "unexpected" in message else []
        for key in extra or [None]:
            self.find((*where, key) if key else where, f"breaks ODCS: {message}")

    def contract(self, raw: dict[str, Any]) -> Contract | None:
        table = self.table(raw)
        if table is None:
            return None
        base: Path_ = ("schema", 0)
        name = table["name"]
        if name in RESERVED:
            self.find((*base, "name"), f"{name!r} is a name of silver.events itself")
        for key in ("quality", "customProperties"):
            if table.get(key):
                self.find((*base, key), "nothing reads it of a whole schema: say it of a property")
        custom = self.custom(raw, (), set(CONTRACT_KEYS))
        columns = self.columns(table)
        if not columns:
            self.find((*base, "properties"), "a contract wants at least one property")
        topic, time_column = custom.get("topic"), custom.get("time")
        event_type, id_keys = custom.get("eventType", f"headwater.{name}"), custom.get("id", [])
        id_keys = [id_keys] if isinstance(id_keys, str) else id_keys
        if topic is not None and not (isinstance(topic, str) and TOPIC.fullmatch(topic)):
            self.find_custom("topic", f"{topic!r} is no name of a topic")
        if not isinstance(event_type, str) or not event_type.strip():
            self.find_custom("eventType", f"{event_type!r} is no text")
        if "id" in custom and topic is None:
            self.find_custom("id", "is for a contract with a topic")
        changes = custom.get("changes")
        if changes is not None:
            self._changes(changes, custom, columns)
        moments = {column.name for column in columns if column.spark_type == "timestamp"}
        if time_column is not None and str(time_column) not in moments:
            self.find_custom("time", f"no timestamp column {time_column!r}")
        if len([column for column in columns if column.region]) > 1:
            self.find((*base, "properties"), "region: an event has one: mark one column")
        known = {column.json_key for column in columns}
        modes = {}
        for key, fallback in (("newFields", EVOLVE), ("changedTypes", QUARANTINE)):
            modes[key] = custom.get(key, fallback)
            if modes[key] not in MODES:
                self.find_custom(key, f"{modes[key]!r} is none of {', '.join(MODES)}")
        if not isinstance(id_keys, list) or any(str(key) not in known for key in id_keys):
            self.find_custom("id", f"{id_keys!r} has to name keys of the JSON")
            id_keys = []
        seconds = {}
        for key, fallback in (("watermark", "10 minutes"), ("clockTolerance", "5 minutes")):
            found = DURATION.fullmatch(str(custom.get(key, fallback)))
            if not found:
                self.find_custom(key, "write it like '10 minutes'")
            seconds[key] = int(found[1]) * SECONDS[found[2]] if found else 0
            if seconds[key] > MAX_SECONDS:
                self.find_custom(key, "at most 366 days")
        if self.findings:
            return None
        description = raw.get("description") or {}
        return Contract(
            name=name,
            version=str(raw["version"]),
            description=str(description.get("purpose", "")) if description else "",
            columns=tuple(columns),
            event_type=str(event_type),
            topic=topic,
            id_keys=tuple(id_keys),
            time_column=time_column,
            watermark_seconds=seconds["watermark"],
            clock_tolerance_seconds=seconds["clockTolerance"],
            path=self.path,
            text=self.text,
            new_fields=modes["newFields"],
            changed_types=modes["changedTypes"],
            changes=changes is not None,
        )

    def _changes(self, kind: Any, custom: dict[str, Any], columns: list[Column]) -> None:
        if kind != DEBEZIUM:
            self.find_custom("changes", f"{kind!r}: only {DEBEZIUM}")
        if "topic" not in custom:
            self.find_custom("changes", "is for a contract with a topic")
        for key in ("id", "time"):
            if key in custom:
                self.find_custom(key, "a change has its own")
        if not any(column.primary_key for column in columns):
            self.find(("schema", 0, "properties"), "changes want the primary key of their table")

    def table(self, raw: dict[str, Any]) -> dict[str, Any] | None:
        """The one table of a contract."""
        tables = raw.get("schema") or []
        if len(tables) != 1:
            self.find(("schema",), "has to hold one table")
            return None
        found: dict[str, Any] = tables[0]
        if not NAME.fullmatch(found["name"]):
            self.find(("schema", 0, "name"), "lower case letters, digits and _ only")
        return found

    def columns(self, table: dict[str, Any]) -> list[Column]:
        """Its columns, none of them twice."""
        columns: list[Column] = []
        for i, item in enumerate(table.get("properties") or []):
            where = ("schema", 0, "properties", i)
            column = self.column(item, where)
            if any(column.name == other.name for other in columns):
                self.find((*where, "name"), f"{column.name!r} stands twice")
            taken = [key.lower() for other in columns for key in other.json_keys]
            for key in column.json_keys:
                if key.lower() in taken:
                    self.find((*where, "name"), f"the key {key!r} is read already")
                taken.append(key.lower())
            columns.append(column)
        kinds = {column.name: column.spark_type for column in columns}
        for i, column in enumerate(columns):
            for rule in column.checks:
                other = rule.arguments.get("column")
                at: Path_ = ("schema", 0, "properties", i, "quality")
                if other is not None and other not in kinds:
                    self.find(at, f"rule {rule.name!r}: no column {other!r}")
                elif other is not None and kinds[other] != column.spark_type:
                    self.find(at, f"rule {rule.name!r}: {other!r} has another type")
            for rule in column.cleaners:
                if rule.name in rules.ARITHMETIC and (said := _not_exact(column, rule, kinds)):
                    at = ("schema", 0, "properties", i, "customProperties")
                    self.find(at, f"rule {rule.name!r}: {said}")
        return columns

    def custom(self, item: dict[str, Any], where: Path_, known: Iterable[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for i, entry in enumerate(item.get("customProperties") or []):
            key = entry["property"]
            at = (*where, "customProperties", i, "property")
            if key not in known:
                self.find(at, f"no custom property {key!r}; there are: {', '.join(sorted(known))}")
            elif key in found:
                self.find(at, f"{key!r} stands twice")
            found[key] = entry["value"]
            if not where:
                self.custom_at[key] = (*at[:-1], "value")
        return found

    def find_custom(self, key: str, message: str) -> None:
        """Something wrong with one of the contract's own custom properties."""
        self.find(self.custom_at.get(key, ("customProperties",)), f"{key}: {message}")

    def column(self, item: dict[str, Any], where: Path_) -> Column:
        name = item["name"]
        if not NAME.fullmatch(name):
            self.find((*where, "name"), f"{name!r}: lower case letters, digits and _ only")
        json_key = item.get("physicalName", name)
        if not JSON_KEY.fullmatch(json_key):
            self.find((*where, "physicalName"), f"{json_key!r}: no quotes, brackets or backslashes")
        if item.get("unique"):
            self.find((*where, "unique"), "nothing holds events to it: leave it out")
        for key in sorted(set(item.get("logicalTypeOptions") or {}) - {"maxLength"}):
            at = (*where, "logicalTypeOptions", key)
            self.find(at, "nothing reads it: say it as a check (quality)")
        logical = item.get("logicalType", "string")
        if logical not in SPARK_TYPES:
            self.find((*where, "logicalType"), f"{logical!r}: one of {', '.join(SPARK_TYPES)}")
            logical = "string"
        spark_type = str(item.get("physicalType", SPARK_TYPES[logical])).replace(" ", "").lower()
        if not _type_fits(logical, spark_type):
            self.find((*where, "physicalType"), f"{spark_type!r} does not hold a {logical}")
            spark_type = SPARK_TYPES[logical]
        custom = self.custom(item, where, self.column_keys)
        if custom.get("jsonType", "string") != "string":
            self.find((*where, "customProperties"), "jsonType: only 'string'")
        for key in ("pii", "region", "subject"):
            if not isinstance(custom.get(key, False), bool):
                self.find((*where, "customProperties"), f"{key}: true or false")
        if custom.get("subject") and logical not in {"string", "integer"}:
            self.find((*where, "customProperties"), "subject: for what names a person")
        if custom.get("region") and (logical != "string" or custom.get("pii")):
            self.find((*where, "customProperties"), "region: for text that is not personal")
        aliases = custom.get("aliases", [])
        if not isinstance(aliases, list) or not all(
            isinstance(key, str) and JSON_KEY.fullmatch(key) for key in aliases
        ):
            self.find((*where, "customProperties"), f"aliases: {aliases!r} is no list of keys")
            aliases = []
        checks: list[Rule] = []
        for i, quality in enumerate(item.get("quality") or []):
            at = (*where, "quality", i)
            if quality.get("type") != "custom" or quality.get("engine") != "headwater":
                self.find(at, "Headwater reads checks of type custom, engine headwater")
                continue
            severity = quality.get("severity")
            if severity is not None and severity not in self.severities:
                known = ", ".join(self.severities) or "none: what breaks it is quarantined"
                self.find((*at, "severity"), f"{severity!r}; there are: {known}")
            rule = self._rule(quality["implementation"], (*at, "implementation"), rules.CHECKS)
            if rule is not None:
                rule = self._typed(rule, spark_type, (*at, "implementation"))
                if rule.name in {check.name for check in checks}:
                    # A broken rule is told by its name, which would not say which of them it is.
                    self.find((*at, "implementation"), f"rule {rule.name!r} stands twice")
                    continue
                checks.append(replace(rule, critical=severity != WARNING))
        cleaners = []
        steps = custom.get("clean", [])
        given = [entry["property"] for entry in item.get("customProperties") or []]
        for j, step in enumerate(steps if isinstance(steps, list) else [steps]):
            at = (*where, "customProperties", given.index("clean"), "value")
            at = (*at, j) if isinstance(steps, list) else at
            rule = self._rule({"rule": step} if isinstance(step, str) else step, at, rules.CLEANERS)
            cleaners += [self._typed(rule, spark_type, at)] if rule else []
            # Of a rule that is wrong itself nothing can be told.
            sound = not self.findings and rule is not None and j == len(steps) - 1
            if sound and cleaners[-1].name == rules.DEFAULT:
                value = cleaners[-1].arguments["value_if_missing"]
                for broken in (check for check in checks if rules.keeps(check, value) is False):
                    self.find(at, f"rule 'default': {value!r} breaks the column's {broken.name}")
        return Column(
            name=name,
            json_key=json_key,
            logical_type=logical,
            spark_type=spark_type,
            required=bool(item.get("required", False) or item.get("primaryKey", False)),
            primary_key=bool(item.get("primaryKey", False)),
            from_text=custom.get("jsonType") == "string",
            pii=bool(custom.get("pii", False)),
            references=custom.get("references"),
            max_length=(item.get("logicalTypeOptions") or {}).get("maxLength"),
            description=str(item.get("description", "")),
            cleaners=tuple(cleaners),
            checks=tuple(checks),
            aliases=tuple(aliases),
            subject=bool(custom.get("subject", False)),
            region=bool(custom.get("region", False)),
        )

    def _rule(self, raw: Any, where: Path_, catalogue: Mapping[str, rules.Check]) -> Rule | None:
        if not isinstance(raw, dict) or not isinstance(raw.get("rule"), str):
            self.find(where, "has to be {rule: NAME, …arguments}")
            return None
        rule = Rule(raw["rule"], {k: v for k, v in raw.items() if k != "rule"})
        if problem := rules.argument_error(catalogue, rule):
            key, said = problem
            self.find((*where, key), said)
            return None
        return rule

    def _typed(self, rule: Rule, spark_type: str, where: Path_) -> Rule:
        """The rule with its literals in the column's own type."""
        text_only = {"length", "matches", "email", "phone"} | (
            set(rules.CLEANERS) - {rules.DEFAULT} - rules.ARITHMETIC
        )
        if rule.name in text_only and spark_type != "string":
            self.find((*where, "rule"), f"rule {rule.name!r} is for text, not for {spark_type}")
        if rule.name == "between" and spark_type in {"string", "boolean"}:
            self.find((*where, "rule"), f"rule 'between' is not for {spark_type}")
        arguments = dict(rule.arguments)
        if rule.name != "length":
            for key in {"min", "max", "value_if_missing", "values"} & set(arguments):
                value = arguments[key]
                try:
                    arguments[key] = (
                        [_literal(each, spark_type) for each in value]
                        if key == "values"
                        else _literal(value, spark_type)
                    )
                except (ValueError, TypeError, ArithmeticError):
                    said = f"rule {rule.name!r}: {key}: {value!r} is no {spark_type}"
                    self.find((*where, key), said)
                    return rule
        if rule.name == rules.DEFAULT and (decimal := decimal_of(spark_type)):
            value, (precision, scale) = arguments["value_if_missing"], decimal
            if abs(value) >= 10 ** (precision - scale) or round(value, scale) != value:
                said = f"rule {rule.name!r}: value_if_missing: {value} is beyond {spark_type}"
                self.find((*where, "value_if_missing"), said)
        low, high = arguments.get("min"), arguments.get("max")
        if low is not None and high is not None and low > high:
            self.find(where, f"rule {rule.name!r}: min {low} is above max {high}")
        return Rule(rule.name, arguments)


def _not_exact(column: Column, rule: Rule, kinds: Mapping[str, str]) -> str | None:
    """Why what a rule works out of two other columns would not be exact in this one, or None."""
    digits = {"int": (10, 0), "bigint": (20, 0)}
    parts = []
    for name in rules.COLUMNS:
        other = rule.arguments[name]
        if other == column.name or other not in kinds:
            return f"no other column {other!r}"
        parts.append(digits.get(kinds[other]) or decimal_of(kinds[other]))
    (first, second), own = parts, column.decimal
    if own is None or first is None or second is None or not (first[1] or second[1]):
        return "is for a decimal, of a decimal with a scale and of another one or an integer"
    if first[1] + second[1] > own[1]:
        return f"has {first[1] + second[1]} digits after the point, the column {own[1]}"
    # As the engines count what a product may have, and what holds both it and the column's own.
    digits_of = first[0] + second[0] + 1, first[1] + second[1]
    before_point = max(digits_of[0] - digits_of[1], own[0] - own[1])
    if digits_of[0] > 38 or before_point + max(digits_of[1], own[1]) > 38:
        return "may have more than 38 digits"
    names = [one.name for one in column.cleaners]
    if rules.DEFAULT in names[: names.index(rule.name)]:
        return "comes after a default, which leaves nothing to be worked out"
    return None


def _type_fits(logical: str, spark_type: str) -> bool:
    if logical == "number":
        if found := decimal_of(spark_type):
            return 1 <= found[0] <= 38 and found[1] <= found[0]
        return spark_type == "double"
    return (
        spark_type in {"int", "bigint"}
        if logical == "integer"
        else (spark_type == SPARK_TYPES[logical])
    )


def _literal(value: Any, spark_type: str) -> rules.Literal:
    if spark_type == "string":
        if not isinstance(value, str):
            raise TypeError(value)
        return value
    if isinstance(value, bool) != (spark_type == "boolean"):
        raise TypeError(value)
    if spark_type.startswith("decimal"):
        number = Decimal(str(value))
        if not number.is_finite() or abs(number) >= 10**38:
            raise ValueError(value)
        return number
    if spark_type in {"int", "bigint"}:
        limit = 2**31 if spark_type == "int" else 2**63
        if int(value) != value or not -limit <= value < limit:
            raise ValueError(value)
        return int(value)
    if spark_type == "double":
        if abs(float(value)) == float("inf") or float(value) != float(value):
            raise ValueError(value)
        return float(value)
    if spark_type == "date":
        return date.fromisoformat(str(value))
    if spark_type == "timestamp":
        moment = datetime.fromisoformat(str(value))
        # A bound without an offset is UTC's, as a date is its midnight there.
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return bool(value)
