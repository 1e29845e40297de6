"""What `contracts check` says of broken files: file, line and key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakehouse import contracts as contract_files
from lakehouse.contracts import Contracts

GOOD = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:test:thing
name: thing
version: 1.0.0
status: active
schema:
  - name: thing
    properties:
      - name: thing_id
        logicalType: string
        primaryKey: true
        quality:
          - type: custom
            engine: headwater
            implementation: {rule: length, min: 1, max: 5}
      - name: price
        logicalType: number
        physicalType: decimal(12,2)
"""


def findings(folder: Path, text: str) -> list[str]:
    (folder / "thing.yaml").write_text(text)
    return [str(finding) for finding in contract_files.check(folder)[1]]


def test_a_good_contract_is_read(tmp_path: Path) -> None:
    assert findings(tmp_path, GOOD) == []
    thing = contract_files.load(tmp_path)["thing"]
    assert thing.event_type == "headwater.thing"
    assert thing.watermark_seconds == 600
    assert [c.spark_type for c in thing.columns] == ["string", "decimal(12,2)"]
    assert thing.column("thing_id").required, "a primary key is required"


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("logicalType: string", "logicalType: banana", 11, "schema.0.properties.0.logicalType"),
        ("primaryKey: true", "primaryKy: true", 12, "schema.0.properties.0.primaryKy"),
        ("max: 5}", "max: 5, most: 6}", 16, "schema.0.properties.0.quality.0.implementation.most"),
        ("rule: length", "rule: lenght", 16, "schema.0.properties.0.quality.0.implementation.rule"),
        ("decimal(12,2)", "decimal(50,2)", 19, "schema.0.properties.1.physicalType"),
        ("decimal(12,2)", "varchar", 19, "schema.0.properties.1.physicalType"),
        ("name: price", "name: thing_id", 17, "schema.0.properties.1.name"),
        ("name: price", "name: Price", 17, "schema.0.properties.1.name"),
        ("status: active", "staus: active", 6, "staus"),
        ("status: active", "version: 2.0.0", 6, "version"),
        ("kind: DataContract", "kind: Contract", 2, "kind"),
        ("engine: headwater", "engine: soda", 14, "schema.0.properties.0.quality.0"),
        ("version: 1.0.0\n", "", 1, ""),
        ("- name: thing\n", "- name: events\n", 8, "schema.0.name"),
        ("min: 1, max: 5", "min: 5, max: 1", 16, "schema.0.properties.0.quality.0.implementation"),
        ("max: 5}", "max: .inf}", 16, "schema.0.properties.0.quality.0.implementation.max"),
        ("max: 5}", "max: abc}", 16, "schema.0.properties.0.quality.0.implementation.max"),
        ("primaryKey: true", "unique: true", 12, "schema.0.properties.0.unique"),
        (
            "primaryKey: true",
            "logicalTypeOptions: {pattern: '^x'}",
            12,
            "schema.0.properties.0.logicalTypeOptions.pattern",
        ),
        (
            "  - name: thing\n",
            "  - name: thing\n    quality: [{type: text, description: be good}]\n",
            9,
            "schema.0.quality",
        ),
        (
            "  - name: thing\n",
            "  - name: thing\n    customProperties: [{property: topic, value: x}]\n",
            9,
            "schema.0.customProperties",
        ),
        ("max: 5}", f"max: {10**23}}}", 16, "schema.0.properties.0.quality.0.implementation.max"),
        (
            "{rule: length, min: 1, max: 5}",
            "\n              rule: length\n              min: 1\n              max: abc",
            19,
            "schema.0.properties.0.quality.0.implementation.max",
        ),
        (
            "- name: price\n",
            "- name: price\n        customProperties:\n          - property: clean\n"
            "            value:\n              - trim\n              - shorten\n",
            22,
            "schema.0.properties.1.customProperties.0.value.1.rule",
        ),
        (
            "name: price",
            "name: price\n        physicalName: a`b",
            18,
            "schema.0.properties.1.physicalName",
        ),
    ],
)
def test_a_wrong_key_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, key: str
) -> None:
    assert old in GOOD
    found = findings(tmp_path, GOOD.replace(old, new, 1))
    start = f"{tmp_path}/thing.yaml:{line}: {key or '(whole file)'}:"
    assert any(said.startswith(start) for said in found), found


def test_yaml_that_cannot_be_read_has_a_line(tmp_path: Path) -> None:
    found = findings(tmp_path, GOOD.replace("name: thing\n", "name: [thing\n", 1))
    assert found
    assert "not readable as YAML" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("status: active", "status: &a active").replace("v3.1.0", "*a"),
        "a: &x {b: *x}",
        "[" * 5000,
        GOOD.replace("status: active", "status: !foo active"),
        GOOD.replace("status: active", "status: !!python/object:os.system {}"),
        GOOD.replace("primaryKey: true", "primaryKey: !!bool maybe"),
        GOOD.replace("status: active", "status: !!timestamp soon"),
        GOOD.replace("status: active", "status: !!int ''"),
        GOOD.replace("logicalType: number", f"items: {'{items: ' * 300}a{'}' * 300}"),
        "\x00",
        "",
        "- 1",
    ],
)
def test_odd_yaml_is_a_finding_and_no_stack_trace(tmp_path: Path, text: str) -> None:
    assert findings(tmp_path, text)


@pytest.mark.parametrize(
    "property_and_value",
    [
        "topic, value: 5",
        "topic, value: [a]",
        "topic, value: 'bad topic!'",
        "topic, value: __consumer_offsets",
        "topic, value: ..",
        "eventType, value: ''",
        "clockTolerance, value: 9999999999 days",
        "watermark, value: 9999999 days",
        "id, value: [[thing_id]]",
        "time, value: [n]",
        "colour, value: red",
        "newFields, value: keep",
        "changedTypes, value: 5",
    ],
)
def test_wrong_custom_properties(tmp_path: Path, property_and_value: str) -> None:
    entry = f"customProperties: [{{property: {property_and_value}}}]\n"
    text = GOOD.replace("schema:\n", f"{entry}schema:\n", 1)
    assert findings(tmp_path, text)


def test_the_line_of_a_wrong_custom_property_is_named(tmp_path: Path) -> None:
    entries = """\
customProperties:
  - {property: topic, value: things}
  - {property: newFields, value: drop}
  - property: watermark
    value: soon
"""
    text = GOOD.replace("schema:\n", f"{entries}schema:\n", 1)
    line = text[: text.index("value: soon")].count("\n") + 1
    [said] = findings(tmp_path, text)
    assert said.endswith(
        f".yaml:{line}: customProperties.2.value: watermark: write it like '10 minutes'"
    ), said


@pytest.mark.parametrize(
    "property_and_value",
    [
        "aliases, value: name",
        "aliases, value: ['a`b']",
        "aliases, value: [price]",
        "aliases, value: [a, A]",
        "pii, value: 1",
        "subject, value: yes please",
        "region, value: 1",
        # Of a number.
        "region, value: true",
    ],
)
def test_wrong_custom_properties_of_a_column(tmp_path: Path, property_and_value: str) -> None:
    mine = "- name: price\n"
    assert mine in GOOD
    entry = f"        customProperties: [{{property: {property_and_value}}}]\n"
    assert findings(tmp_path, GOOD.replace(mine, mine + entry, 1))


def test_an_event_has_one_region_which_is_not_personal(tmp_path: Path) -> None:
    def column(name: str, *marks: str) -> str:
        listed = ", ".join(f"{{property: {mark}, value: true}}" for mark in marks)
        said = f"      - name: {name}\n        logicalType: string\n"
        return f"{said}        customProperties: [{listed}]\n"

    mine = "      - name: price\n"
    assert not findings(tmp_path, GOOD.replace(mine, column("land", "region") + mine))
    both = column("land", "region") + column("city", "region")
    [said] = findings(tmp_path, GOOD.replace(mine, both + mine))
    assert "region: an event has one" in said
    [said] = findings(tmp_path, GOOD.replace(mine, column("city", "region", "pii") + mine))
    assert "region: for text that is not personal" in said


def test_unsafe_pattern_and_unknown_column(tmp_path: Path) -> None:
    text = GOOD.replace("{rule: length, min: 1, max: 5}", "{rule: matches, pattern: '[0-9]\\d'}")
    assert any("explicit ASCII classes" in said for said in findings(tmp_path, text))
    text = GOOD.replace("{rule: length, min: 1, max: 5}", "{rule: not_before, column: nothing}")
    assert any("no column 'nothing'" in said for said in findings(tmp_path, text))


@pytest.mark.parametrize("name", ["of_columns", "was", "wrote", "violations"])
def test_names_that_the_steps_to_silver_have_are_refused(tmp_path: Path, name: str) -> None:
    found = findings(tmp_path, GOOD.replace("- name: thing\n", f"- name: {name}\n"))
    assert any(f"{name!r} is a name of silver.events itself" in said for said in found)


def test_two_checks_of_one_rule_are_refused(tmp_path: Path) -> None:
    """What breaks either would be told by the same name, and one alone would be held."""
    check = GOOD[GOOD.index("          - type: custom") : GOOD.index("      - name: price")]
    found = findings(tmp_path, GOOD.replace(check, check + check))
    assert any("rule 'length' stands twice" in said for said in found)


def test_a_bound_of_a_moment_is_utc_where_it_names_no_offset(tmp_path: Path) -> None:
    """As YAML reads them: a date, and a moment of which it knows the offset."""
    column = GOOD[GOOD.index("      - name: price") :]
    rule = "{rule: between, min: 2020-01-01, max: 2030-01-01T00:00:00Z}"
    moment = (
        "      - name: at\n        logicalType: timestamp\n        quality:\n"
        f"          - {{type: custom, engine: headwater, implementation: {rule}}}\n"
    )
    (tmp_path / "thing.yaml").write_text(GOOD.replace(column, moment + column))
    [check] = contract_files.load(tmp_path)["thing"].column("at").checks
    assert dict(check.arguments) == {
        "min": datetime(2020, 1, 1, tzinfo=UTC),
        "max": datetime(2030, 1, 1, tzinfo=UTC),
    }


def test_two_contracts_of_one_event_type(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(GOOD)
    assert any("is other.yaml's already" in said for said in findings(tmp_path, GOOD))


def test_the_contracts_of_the_shop(contracts: Contracts) -> None:
    assert len(contracts) >= 14
    assert contracts["order"].column("total").spark_type == "decimal(12,2)"
    assert contracts["customer"].column("email").pii
    assert contracts.topics("shop.events")[0] == "shop.events"


@pytest.mark.parametrize(
    ("cleaners", "said"),
    [
        ("{rule: default, value_if_missing: 10000000000}", "10000000000 is beyond decimal(12,2)"),
        ("{rule: default, value_if_missing: 0.005}", "0.005 is beyond decimal(12,2)"),
        ("{rule: default, value_if_missing: 7}", "Decimal('7') breaks the column's between"),
        ("{rule: default, value_if_missing: 5.00}", None),
        ("{rule: default, value_if_missing: much}", "'much' is no decimal(12,2)"),
    ],
)
def test_a_default_that_its_column_does_not_take(
    tmp_path: Path, cleaners: str, said: str | None
) -> None:
    text = GOOD + (
        "        quality:\n          - type: custom\n            engine: headwater\n"
        "            implementation: {rule: between, max: 5}\n"
        f"        customProperties:\n          - {{property: clean, value: [{cleaners}]}}\n"
    )
    found = findings(tmp_path, text)
    assert found == [] if said is None else any(said in one for one in found), found


WORKED_OUT = """\
      - name: count
        logicalType: integer
        physicalType: int
      - name: total
        logicalType: number
        physicalType: decimal(14,2)
        customProperties:
          - {property: clean, value: [{rule: product, column: price, by: count}]}
"""


def test_a_product_is_exact_or_refused(tmp_path: Path) -> None:
    assert findings(tmp_path, GOOD + WORKED_OUT) == []
    for old, new, said in (
        ("column: price", "column: prize", "no other column 'prize'"),
        ("by: count", "by: total", "no other column 'total'"),
        ("by: count", "by: thing_id", "is for a decimal, of a decimal with a scale and of"),
        ("column: price", "column: count", "is for a decimal, of a decimal with a scale and of"),
        ("decimal(14,2)", "double", "is for a decimal"),
        ("by: count", "by: price", "has 4 digits after the point, the column 2"),
        (", by: count", "", "wants the argument by"),
        ("by: count", "by: 3", "3 is no text"),
    ):
        assert old in WORKED_OUT
        found = findings(tmp_path, GOOD + WORKED_OUT.replace(old, new))
        assert [one for one in found if "rule 'product'" in one and said in one], (said, found)
    large = GOOD.replace("decimal(12,2)", "decimal(28,2)") + WORKED_OUT
    assert "may have more than 38 digits" in findings(tmp_path, large)[0]
    # Nor does one type hold both what is worked out and what came.
    finer = GOOD.replace("decimal(12,2)", "decimal(26,2)") + WORKED_OUT
    finer = finer.replace("decimal(14,2)", "decimal(20,10)")
    assert "may have more than 38 digits" in findings(tmp_path, finer)[0]
    never = WORKED_OUT.replace(
        "[{rule: product", "[{rule: default, value_if_missing: 0}, {rule: product"
    )
    assert "comes after a default" in findings(tmp_path, GOOD + never)[0]
