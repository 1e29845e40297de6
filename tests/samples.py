"""Contracts and events that several tests use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lakehouse import contracts as contract_files
from lakehouse.contracts import Contracts

# Every check and cleaner of the catalogue, and every type, in one contract of plain objects.
EVERY_RULE = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:test:sample
name: sample
version: 1.0.0
status: active
customProperties:
  - {property: topic, value: sample.topic}
schema:
  - name: sample
    properties:
      - {name: plain, logicalType: string}
      - name: trimmed
        logicalType: string
        customProperties: [{property: clean, value: [trim, lower]}]
        quality:
          - {type: custom, engine: headwater, implementation: {rule: one_of, values: [web, kelvin]}}
      - name: raised
        logicalType: string
        physicalName: Raised Up
        customProperties:
          - {property: clean, value: [upper, blank_to_null, {rule: default, value_if_missing: X}]}
        quality:
          - {type: custom, engine: headwater, implementation: {rule: length, min: 1, max: 3}}
      - name: mail
        logicalType: string
        customProperties: [{property: clean, value: [trim, lower]}]
        quality:
          - {type: custom, engine: headwater, implementation: {rule: email}}
      - name: phone
        logicalType: string
        customProperties: [{property: clean, value: [{rule: e164, country_code: "49"}]}]
        quality:
          - {type: custom, engine: headwater, implementation: {rule: phone}}
      - name: code
        logicalType: string
        quality:
          - type: custom
            engine: headwater
            implementation: {rule: matches, pattern: '[A-Za-z0-9]{1,5}'}
      - name: small
        logicalType: integer
        physicalType: int
        quality:
          - {type: custom, engine: headwater, implementation: {rule: between, min: -5, max: 5000}}
      - {name: large, logicalType: integer}
      - name: later
        logicalType: integer
        quality:
          - {type: custom, engine: headwater, implementation: {rule: not_before, column: large}}
      - name: price
        logicalType: number
        physicalType: decimal(12,2)
        quality:
          - {type: custom, engine: headwater, implementation: {rule: between, min: 0.01}}
      - name: worked_out
        logicalType: number
        physicalType: decimal(14,2)
        customProperties: [{property: clean, value: [{rule: product, column: price, by: small}]}]
      - {name: ratio, logicalType: number}
      - {name: flag, logicalType: boolean}
      - {name: day, logicalType: date}
      - {name: moment, logicalType: timestamp}
      - {name: thing, logicalType: object}
      - {name: list, logicalType: array}
      - name: text_small
        logicalType: integer
        physicalType: int
        customProperties: [{property: jsonType, value: string}]
      - name: text_price
        logicalType: number
        physicalType: decimal(10,2)
        customProperties: [{property: jsonType, value: string}]
      - name: text_flag
        logicalType: boolean
        customProperties: [{property: jsonType, value: string}]
      - {name: wanted, logicalType: string, required: true}
"""


def every_rule_contract(folder: Path) -> Contracts:
    (folder / "sample.yaml").write_text(EVERY_RULE)
    return contract_files.load(folder)


# An entity that the shop has not: its modes and columns are the test's.
PARCEL = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:test:parcel
name: parcel
version: 1.0.0
status: active
customProperties:
  - {property: eventType, value: headwater.shop.parcel}
  - {property: newFields, value: NEW}
  - {property: changedTypes, value: CHANGED}
schema:
  - name: parcel
    properties:
      - {name: parcel_id, logicalType: string, required: true}
"""


def parcel_contract(
    folder: Path, columns: str, new: str = "evolve", changed: str = "quarantine"
) -> Contracts:
    """Writes the contract of a parcel: its id, and those columns. new, changed: its modes."""
    folder.mkdir(exist_ok=True)
    head = PARCEL.replace("NEW", new).replace("CHANGED", changed)
    (folder / "parcel.yaml").write_text(head + columns)
    return contract_files.load(folder)


def event(entity: str, data: dict[str, Any] | None, **envelope: Any) -> bytes:
    """A CloudEvent of an entity as bytes; attributes given as None are left out."""
    whole = {
        "specversion": "1.0",
        "id": "1",
        "source": "test",
        "type": f"headwater.shop.{entity}",
        "time": "2026-01-01T00:00:00Z",
        "data": data,
        **envelope,
    }
    return json.dumps({k: v for k, v in whole.items() if v is not None}).encode()


def change(
    op: str,
    *,
    file: str = "mariadb-bin.000007",
    pos: int = 1234,
    row: int = 0,
    ts_ms: int = 1772366400123,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A change of a member of the rewards programme, as Debezium writes it. before, after: what is
    otherwise there."""
    was = {
        "member_id": 5,
        "customer_id": "C00000005",
        "email": " Ann@Example.com",
        "tier": "silver",
        "points": 10,
        "spent": "19.90",
        "joined_at": "2026-02-01T10:00:00.123Z",
    }
    place = {"file": file, "pos": pos, "row": row, "ts_ms": 1772366400000, "snapshot": "false"}
    return {
        "before": None if op in "cr" else {**was, **(before or {})},
        "after": None if op == "d" else {**was, "points": 20, **(after or {})},
        "source": {"connector": "mariadb", "name": "rewards", "db": "rewards", **place},
        "op": op,
        "ts_ms": ts_ms,
    }
