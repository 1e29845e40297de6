"""Contracts of tables: what comes with the distribution, and what is wrong with a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batch import gold
from lakehouse import layouts as layout_files
from lakehouse import settings as settings_files
from lakehouse.contracts import Contracts
from lakehouse.errors import ContractError
from lakehouse.layouts import Layouts
from lakehouse.settings import default_contracts

HEAD = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:test:dim_things
name: dim_things
version: 1.0.0
status: active
customProperties:
"""
COLUMNS = """\
schema:
  - name: dim_things
    properties:
      - {name: thing_key, logicalType: integer, primaryKey: true}
      - {name: category_id, logicalType: string}
      - {name: name, logicalType: string}
      - {name: is_inferred, logicalType: boolean}
"""


def written(folder: Path, custom: str, columns: str = COLUMNS) -> Path:
    (folder / "tables").mkdir()
    (folder / "tables" / "dim_things.yaml").write_text(HEAD + custom + columns)
    return folder


def test_those_that_come_with_headwater(layouts: Layouts) -> None:
    users = layouts["gold.dim_users"]
    assert (users.entity, users.scd, users.primary_key) == ("customer", 2, ("user_key",))
    assert users.attributes("customer_id") == [
        "first_name",
        "last_name",
        "email",
        "phone",
        "birth_date",
        "loyalty_tier",
        "address_id",
        "marketing_opt_in",
    ]
    assert layouts["gold.fact_order_items"].primary_key == ("order_id", "line_number")
    assert layouts["bronze.events"].vacuum_hours == 168
    assert layouts["silver.events"].vacuum_hours == 720
    published = {o.warehouse["mysql"] for o in layouts.gold if "mysql" in o.warehouse}
    assert published == {"dw_users", "dw_locations", "dw_products", "dw_orders", "dw_user_metrics"}


def test_a_new_dimension_is_a_contract_alone(tmp_path: Path, contracts: Contracts) -> None:
    custom = "  - {property: layer, value: gold}\n  - {property: entity, value: category}\n"
    folder = written(tmp_path, custom + "  - {property: scd, value: 1}\n")
    found = layout_files.load(folder, contracts)
    assert found["gold.dim_things"].attributes("category_id") == ["name"]


GOLD = "  - {property: layer, value: gold}\n"
FOLLOWS = GOLD + "  - {property: entity, value: category}\n"
WRONG = [
    ("  - {property: layer, value: lead}\n", COLUMNS, "layer: 'lead' is none of"),
    (GOLD + "  - {property: zorder, value: [x]}\n", COLUMNS, "no custom property 'zorder'"),
    (GOLD + "  - {property: zorderBy, value: [x]}\n", COLUMNS, "zorderBy: no column 'x'"),
    (GOLD + "  - {property: vacuumHours, value: soon}\n", COLUMNS, "vacuumHours: 'soon'"),
    (GOLD + "  - {property: scd, value: 1}\n", COLUMNS, "entity and scd go together"),
    (GOLD, COLUMNS.replace(", primaryKey: true", ""), "wants a primary key"),
    (
        GOLD + "  - {property: entity, value: category}\n  - {property: scd, value: 2}\n",
        COLUMNS,
        "scd 2 wants columns effective_from, effective_to, is_current",
    ),
    (
        GOLD + "  - {property: entity, value: category}\n  - {property: scd, value: 1}\n",
        COLUMNS.replace("{name: name,", "{name: title,"),
        "title: category has no such column",
    ),
    (
        FOLLOWS + "  - {property: scd, value: 2}\n  - {property: hourOf, value: name}\n",
        COLUMNS,
        "hourOf: is for a dimension with scd 1",
    ),
    (
        FOLLOWS + "  - {property: scd, value: 1}\n  - {property: hourOf, value: name}\n",
        COLUMNS,
        "hourOf: no timestamp column 'name'",
    ),
    (
        FOLLOWS + "  - {property: scd, value: 1}\n  - {property: hourOf, value: name}\n",
        COLUMNS,
        "hourOf wants month, physicalType: int",
    ),
    (
        FOLLOWS + "  - {property: scd, value: 1}\n  - {property: hourOf, value: [name]}\n",
        COLUMNS,
        "hourOf: no timestamp column ['name']",
    ),
    (
        GOLD,
        COLUMNS.replace(
            "{name: name, logicalType: string}",
            "{name: other_key, logicalType: integer, "
            "customProperties: [{property: references, value: dim_none}]}",
        ),
        "references 'dim_none', which has no contract",
    ),
    *(
        (GOLD + f"  - {{property: warehouse, value: {{{given}}}}}\n", COLUMNS, said)
        for given, said in {
            "mysqll: things": "'mysqll' is none of duckdb, mysql, postgresql, synapse",
            "mysql: null": "mysql: None is no name",
            "mysql: [a]": "mysql: ['a'] is no name",
            'duckdb: "x\'; DROP TABLE y; --"': "is no name: lower case",
            "mysql: " + "a" * 43: "42 characters",
            "mysql: headwater_publish": "headwater_… are Headwater's own tables",
        }.items()
    ),
    (
        "  - {property: layer, value: ops}\n",
        "slaProperties: [{property: latency, value: 1, unit: h}]\nschema: [{name: dim_things}]\n",
        "latency: a table of ops follows nothing",
    ),
]


@pytest.mark.parametrize(("custom", "columns", "said"), WRONG, ids=[w[2][:30] for w in WRONG])
def test_what_is_wrong_is_found(
    tmp_path: Path, contracts: Contracts, custom: str, columns: str, said: str
) -> None:
    _, findings = layout_files.check(written(tmp_path, custom, columns), contracts)
    assert any(said in str(finding) for finding in findings), [str(f) for f in findings]
    assert all(str(f).startswith(f"{tmp_path}/tables/dim_things.yaml:") for f in findings)


def test_what_a_fact_takes_is_there(contracts: Contracts, layouts: Layouts) -> None:
    """Under another name it would be null in every new row, and nobody would be told."""
    folder = layouts["gold.fact_orders"].path.parent.parent
    assert layout_files.check(folder, contracts)[1] == []
    order = contracts["order"]
    for name in ("channel", "total"):
        columns = (
            replace(one, name=f"sales_{name}", aliases=(name,)) if one.name == name else one
            for one in order.columns
        )
        renamed = replace(order, columns=tuple(columns))
        changed = Contracts([*(c for c in contracts.values() if c is not order), renamed])
        [said] = [str(finding) for finding in layout_files.check(folder, changed)[1]]
        assert f"{name}: order has no such column, and fact_orders takes it from there" in said


def test_two_tables_of_one_name_in_a_warehouse(tmp_path: Path, contracts: Contracts) -> None:
    def of(name: str, there: str) -> str:
        custom = GOLD + f"  - {{property: warehouse, value: {{{there}}}}}\n"
        return (HEAD + custom + COLUMNS).replace("dim_things", name)

    (tmp_path / "tables").mkdir()
    for name, there in {
        "dim_a": "mysql: dw_things",
        "dim_b": "mysql: dw_things",
        "dim_c": "postgresql: dim_a",
    }.items():
        (tmp_path / "tables" / f"{name}.yaml").write_text(of(name, there))
    _, findings = layout_files.check(tmp_path, contracts)
    assert [str(finding).partition("warehouse: ")[2] for finding in findings] == [
        "mysql: dw_things is the name of gold.dim_a there",
        "postgresql: dim_a is the name of gold.dim_a there",
    ]


def test_what_is_promised(tmp_path: Path, layouts: Layouts, contracts: Contracts) -> None:
    assert layouts["silver.events"].latency == 15 * 60
    assert layouts["gold.fact_orders"].latency == 3 * 3600
    assert layouts["gold.dim_time"].latency is None
    promises = """\
slaProperties:
  - {property: latency, value: 2, unit: weeks}
  - {property: latency, value: -1, unit: h}
  - {property: availability, value: 99, unit: percent}
"""
    custom = "  - {property: layer, value: gold}\n"
    written(tmp_path, custom, promises + COLUMNS)
    _, findings = layout_files.check(tmp_path, contracts)
    assert [str(finding).partition(": ")[2] for finding in findings] == [
        "slaProperties.0: unit: 'weeks' is none of min, h, d",
        "slaProperties.1: value: -1 is no time",
        "slaProperties.2: property: 'availability': only latency and retention are looked after",
    ]


def test_own_tables_are_kept_where_nobody_says_how(tmp_path: Path, contracts: Contracts) -> None:
    """As with a folder of one contract, for a topic of somebody's own."""
    names = {"bronze.events", "silver.events", "silver.minute_metrics"}
    names |= {f"ops.{name}" for name in ("runs", "quality", "gaps", "repairs", "erasures")}
    found = layout_files.load(tmp_path, contracts)
    assert set(found) == names
    assert {(one.latency, one.retention) for one in found.values()} == {(None, None)}
    assert found["bronze.events"].vacuum_hours == 168
    (tmp_path / "tables").mkdir()
    theirs = (
        (default_contracts() / "tables" / "bronze_events.yaml").read_text().replace("168", "200")
    )
    (tmp_path / "tables" / "mine.yaml").write_text(theirs)
    found = layout_files.load(tmp_path, contracts)
    assert set(found) == names
    assert found["bronze.events"].vacuum_hours == 200
    assert found["bronze.events"].retention == 90 * 86_400


def test_gold_wants_every_entity_that_it_is_made_from(
    contracts: Contracts, layouts: Layouts
) -> None:
    some = Contracts([one for one in contracts.values() if one.name != "exchange_rate"])
    local = settings_files.load("local")
    gold.demand(local, contracts, layouts)
    with pytest.raises(ContractError, match=r"exchange_rate: no contract under .*; Gold wants"):
        gold.demand(local, some, layouts)
