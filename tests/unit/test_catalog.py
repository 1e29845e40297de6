"""Names of three levels, masks and grants: each statement taken apart, and held to contracts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from headwater.cli import cli
from lakehouse import catalog
from lakehouse import settings as settings_files
from lakehouse.contracts import Contract, Contracts
from lakehouse.layouts import Layout, Layouts
from lakehouse.settings import Settings, Unity

# The forms that a statement may have, by Databricks' SQL reference.
NAME = r"`(?:[^`]|``)+`"
FULL = rf"{NAME}\.{NAME}\.{NAME}"
TEXT = r"'(?:[^'\\]|\\.)*'"
COLUMN = rf"(?:(?:{NAME}\.)?{NAME}|\w+)"
ITEM = rf"(?:{FULL}\({COLUMN}\)|{COLUMN})(?: AS (?:{NAME}|\w+))?"
FORMS = {
    "function": re.compile(
        rf"CREATE OR REPLACE FUNCTION (?P<name>{FULL})\(value (?P<kind>\w+)\) RETURNS (?P=kind) "
        rf"RETURN CASE WHEN is_account_group_member\((?P<group>{TEXT})\) THEN value "
        rf"ELSE (?:{TEXT}|CAST\(NULL AS (?P=kind)\)) END"
    ),
    "table": re.compile(
        rf"CREATE TABLE IF NOT EXISTS (?P<name>{FULL}) USING delta LOCATION (?P<place>{TEXT})"
    ),
    "view": re.compile(
        rf"CREATE OR REPLACE VIEW (?P<name>{FULL}) AS SELECT (?P<items>{ITEM}(?:, {ITEM})*) "
        rf"FROM (?P<source>{FULL})(?: WHERE \w+ = {TEXT}(?: AND \w+ = {TEXT})*)?"
    ),
    # Of metrics: what its parts are made of is for tests/spark/test_serving.py.
    "serving": re.compile(
        rf"CREATE OR REPLACE VIEW (?P<name>{FULL}) AS (?P<parts>SELECT .+ UNION ALL SELECT .+)"
    ),
    "mask": re.compile(
        rf"ALTER TABLE (?P<name>{FULL}) ALTER COLUMN (?P<column>{NAME}) "
        rf"SET MASK (?P<function>{FULL})"
    ),
    "grant": re.compile(
        r"GRANT (?P<what>USE CATALOG|USE SCHEMA|USE SCHEMA, SELECT|SELECT|EXECUTE) ON "
        rf"(?P<kind>CATALOG|SCHEMA|TABLE|VIEW|FUNCTION) (?P<name>{NAME}(?:\.{NAME}){{0,2}}) "
        rf"TO (?P<who>{NAME})"
    ),
}
Statements = list[tuple[str, dict[str, str]]]
LEVELS = {"CATALOG": 1, "SCHEMA": 2, "TABLE": 3, "VIEW": 3, "FUNCTION": 3}


@pytest.fixture(scope="module")
def unity() -> Settings:
    # As names are that need their quotes.
    names = Unity(catalog="main-1", schema_prefix="dev_", readers="all who read")
    return settings_files.load("local", unity=names)


@pytest.fixture(scope="module")
def statements(unity: Settings) -> Statements:
    """What `headwater catalog sql` prints, taken apart."""
    given = unity.unity.model_dump()
    done = CliRunner().invoke(
        cli,
        ["catalog", "sql"],
        env={f"HEADWATER_UNITY__{key.upper()}": value for key, value in given.items()},
    )
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert all(line.endswith(";") for line in lines)
    return parsed([line.removesuffix(";") for line in lines])


def parsed(statements: list[str]) -> Statements:
    """The form of each statement, and its parts. Fails where one has no form."""
    found = []
    for statement in statements:
        matches = [(form, m) for form, p in FORMS.items() if (m := p.fullmatch(statement))]
        assert len(matches) == 1, statement
        found.append((matches[0][0], matches[0][1].groupdict()))
    return found


def test_every_statement_has_a_form_and_names_what_is_there(
    statements: Statements, unity: Settings, contracts: Contracts, layouts: Layouts
) -> None:
    made = {parts["name"] for form, parts in statements if form not in {"grant", "table"}}
    tables = {parts["name"] for form, parts in statements if form == "table"}
    assert tables >= {catalog.named(unity, "gold", one.name) for one in layouts.gold}
    assert tables >= {catalog.named(unity, "silver", "events"), catalog.named(unity, "ops", "runs")}
    for form, parts in statements:
        if form == "grant":
            name = parts["name"]
            assert len(re.findall(NAME, name)) == LEVELS[parts["kind"]]
            assert name.startswith("`main-1`")
            if LEVELS[parts["kind"]] == 3:
                assert name in (tables if parts["kind"] == "TABLE" else made)
        if form == "serving":
            assert set(re.findall(FULL, parts["parts"])) == {
                catalog.named(unity, "gold", "agg_hourly_metrics"),
                catalog.named(unity, "silver", "minute_metrics"),
            }
        if form == "view":
            assert parts["source"] in tables
            assert set(re.findall(rf"({FULL})\(", parts["items"])) <= made
    views = {catalog.named(unity, "silver", name) for name in [*contracts, "quarantine"]}
    assert views <= made


def test_personal_columns_are_masked_wherever_readers_look(
    statements: Statements, unity: Settings, contracts: Contracts, layouts: Layouts
) -> None:
    items = {p["name"]: p["items"] for form, p in statements if form == "view"}
    granted = {
        p["name"]
        for form, p in statements
        if form == "grant" and p["who"] == "`all who read`" and p["what"] == "SELECT"
    }
    assert catalog.named(unity, "silver", "quarantine") not in granted
    assert catalog.named(unity, "silver", "events") not in granted
    masked = 0
    known: list[tuple[str, Contract | Layout]] = [("silver", one) for one in contracts.values()]
    known += [("gold", one) for one in layouts.gold]
    for layer, one in known:
        plain = catalog.named(unity, layer, one.name)
        name = plain
        if layer == "gold" and any(column.pii for column in one.columns):
            name = catalog.named(unity, layer, f"{one.name}_masked")
            assert plain not in granted
        assert name in granted
        for column in one.columns:
            if not column.pii:
                continue
            masked += 1
            mask = catalog.named(unity, "ops", f"mask_{column.spark_type}")
            shown = re.search(
                rf"{re.escape(mask)}\((?:{NAME}\.)?`{column.name}`\) AS `{column.name}`",
                items[name],
            )
            assert shown, (name, column.name)
            assert items[name].count(f"`{column.name}`") == 2
    assert masked == 20
    # Fields that no contract knows may be anything.
    mask = f"{catalog.named(unity, 'ops', 'mask_string')}(rescued) AS _rescued"
    assert all(mask in items[catalog.named(unity, "silver", name)] for name in contracts)


def test_column_masks_for_a_copy(unity: Settings, layouts: Layouts) -> None:
    given = unity.unity.model_dump()
    done = CliRunner().invoke(
        cli,
        ["catalog", "sql", "--column-masks"],
        env={f"HEADWATER_UNITY__{key.upper()}": value for key, value in given.items()},
    )
    assert done.exit_code == 0, done.output
    found = parsed([line.removesuffix(";") for line in done.output.splitlines()])
    made = {parts["name"] for form, parts in found if form == "function"}
    masked = {
        (parts["name"], parts["column"], parts["function"])
        for form, parts in found
        if form == "mask"
    }
    assert masked == {
        (
            catalog.named(unity, "gold", one.name),
            f"`{column.name}`",
            catalog.named(unity, "ops", f"mask_{column.spark_type}"),
        )
        for one in layouts.gold
        for column in one.columns
        if column.pii
    }
    assert {function for _, _, function in masked} <= made
    # Those of persons and where they live, and nobody else's.
    persons = {"`dim_users`", "`dim_location`", "`dim_telco_customer`"}
    assert {name.rpartition(".")[2] for name, _, _ in masked} == persons


def test_readers_get_nothing_of_bronze_and_stewards_all(statements: Statements) -> None:
    grants = [parts for form, parts in statements if form == "grant"]
    of_readers = [g for g in grants if g["who"] == "`all who read`"]
    assert not [g for g in of_readers if "bronze" in g["name"]]
    assert not [g for g in of_readers if g["kind"] == "SCHEMA" and "SELECT" in g["what"]]
    of_stewards = {g["name"] for g in grants if g["what"] == "USE SCHEMA, SELECT"}
    assert of_stewards == {
        f"`main-1`.`dev_{layer}`" for layer in ("bronze", "silver", "gold", "ops")
    }


def test_a_laptop_has_plain_names_and_no_masks(
    settings: Settings, contracts: Contracts, layouts: Layouts
) -> None:
    assert catalog.functions(settings, contracts, layouts) == []
    assert {catalog.gold_view(settings, one) for one in layouts.gold} == {None}
    view = catalog.entity_view(settings, contracts["customer"])
    assert view.startswith("CREATE OR REPLACE VIEW `silver`.`customer` AS SELECT ")
    assert "`customer`.`email`, " in view
    assert "mask" not in view
    assert catalog.shown(settings, "silver", "customer") == "silver.customer"


@pytest.mark.parametrize("command", ["sql", "apply"])
def test_without_a_catalog_it_is_said_which_setting_names_one(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lakehouse.command import run

    with pytest.raises(SystemExit) as ended:
        run(cli, ["catalog", command, "--data", str(tmp_path)])
    assert ended.value.code == 2
    assert "set HEADWATER_UNITY__CATALOG" in capsys.readouterr().err


def test_the_names_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_UNITY__CATALOG", "main")
    assert catalog.shown(settings_files.load("local"), "gold", "dim_users") == "main.gold.dim_users"
