"""What `contracts diff` says, against what the contracts make of records."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater.commands import contracts_group
from lakehouse import contracts as contract_files
from lakehouse import decode_pandas
from lakehouse.compatibility import Change, diff
from lakehouse.contracts import Column, Contract, Contracts
from lakehouse.rules import Rule

LIMIT = 1_000
LOGICAL = {"int": "integer", "bigint": "integer", "double": "number", "string": "string"}


def column(
    kind: str,
    required: bool = False,
    check: Rule | None = None,
    default: Any = None,
    key: str = "k",
    name: str = "value",
    aliases: tuple[str, ...] = (),
) -> Column:
    return Column(
        name=name,
        json_key=key,
        logical_type=LOGICAL.get(kind, "number"),
        spark_type=kind,
        required=required,
        primary_key=False,
        from_text=False,
        pii=False,
        references=None,
        max_length=None,
        description="",
        cleaners=() if default is None else (Rule("default", {"value_if_missing": default}),),
        checks=() if check is None else (check,),
        aliases=aliases,
    )


def contracts_of(
    *columns: Column, new_fields: str = "evolve", changed_types: str = "quarantine"
) -> Contracts:
    contract = Contract(
        name="thing",
        version="1",
        description="",
        columns=columns,
        event_type="headwater.thing",
        topic="things",
        id_keys=(),
        time_column=None,
        watermark_seconds=600,
        clock_tolerance_seconds=300,
        path=Path("thing.yaml"),
        new_fields=new_fields,
        changed_types=changed_types,
    )
    return Contracts([contract])


OTHER = column("string", key="other", name="other")
NUMBERS = st.integers(-3, 3)
TEXTS = st.sampled_from(["a", "bb", "ccc"])


@st.composite
def columns(draw: st.DrawFn) -> Column | None:
    """A column of one of several types with at most one check; None for no such column."""
    kind = draw(
        st.sampled_from(
            ["int", "bigint", "double", "decimal(3,1)", "decimal(12,2)", "string", None]
        )
    )
    if kind is None:
        return None
    # As the reader of contracts types them.
    typed = {"double": float, "string": str}.get(kind, Decimal if "decimal" in kind else int)
    numbers = NUMBERS.map(typed)
    values = TEXTS if kind == "string" else numbers
    low, high = draw(st.none() | numbers), draw(st.none() | numbers)
    between = {key: v for key, v in (("min", low), ("max", high)) if v is not None}
    checks: list[st.SearchStrategy[Rule | None]] = [
        st.none(),
        st.lists(values, min_size=1, unique=True).map(lambda v: Rule("one_of", {"values": v})),
    ]
    if kind == "string":
        ends = st.builds(lambda a, b: Rule("length", {"min": a, "max": a + b}), *2 * (small,))
        checks.append(ends)
    elif between:
        checks.append(st.just(Rule("between", between)))
    check = draw(st.one_of(checks))
    # A default that breaks the column's own check would be a fault of one contract by itself.
    default = draw(st.none() | values) if check is None else None
    key = draw(st.sampled_from("kk2"))
    aliases = draw(st.sampled_from([(), (), ("2" if key == "k" else "k",)]))
    return column(kind, draw(st.booleans()), check, default, key, aliases=aliases)


small = st.integers(0, 3)
VALUES: tuple[Any, ...] = (
    *(None, "a", "bb", "ccc", "", True, [], {}),
    *(-3, -1, 0, 1, 2, 3, 99, 100, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, 2**63),
    *(0.5, 99.9, 0.25, 9_999_999_999.25),
)
RECORDS = [
    {},
    *({"k": value} for value in VALUES),
    *({"2": value} for value in VALUES),
]
# Freeze lets no more through than quarantine does.
MODES = st.fixed_dictionaries(
    {
        "new_fields": st.sampled_from(["evolve", "evolve", "drop", "quarantine"]),
        "changed_types": st.sampled_from(["quarantine", "quarantine", "drop", "evolve"]),
    }
)
USUAL = {"new_fields": "evolve", "changed_types": "quarantine"}
STRICT = {"new_fields": "quarantine", "changed_types": "quarantine"}


def keys(contracts: Contracts) -> set[str]:
    return set(contracts["thing"].json_keys)


def accepted(contracts: Contracts) -> list[bool]:
    sent = datetime(2026, 1, 1, tzinfo=UTC)
    records = [
        {
            "topic": "things",
            "partition": 0,
            "offset": number,
            "timestamp": sent,
            "value": json.dumps(record).encode(),
        }
        for number, record in enumerate(RECORDS)
    ]
    found = decode_pandas.classify(records, contracts, LIMIT)
    return [outcome == "accepted" for outcome in found["outcome"]]


@given(columns(), columns(), MODES, MODES)
@example(column("int", True), column("double", True), USUAL, USUAL)
@example(column("int", True), column("decimal(12,2)", True), USUAL, USUAL)
@example(column("string"), column("string", key="2"), STRICT, STRICT)
@settings(max_examples=120, deadline=None)
def test_what_is_called_compatible_is(
    before: Column | None,
    after: Column | None,
    of_old: dict[str, str],
    of_new: dict[str, str],
) -> None:
    """What is written to one side's columns and accepted there, the other side accepts too."""
    old = contracts_of(OTHER, *([before] if before else []), **of_old)
    new = contracts_of(OTHER, *([after] if after else []), **of_new)
    changes = diff(old, new)
    backward = all(change.backward for change in changes)
    forward = all(change.forward for change in changes)
    assert ((before, of_old) == (after, of_new)) == (changes == [])
    for record, by_old, by_new in zip(RECORDS, accepted(old), accepted(new), strict=True):
        if backward and by_old and record.keys() <= keys(old):
            assert by_new, record
        if forward and by_new and record.keys() <= keys(new):
            assert by_old, record


OPTIONAL, REQUIRED = column("string"), column("string", True)
DEFAULTED = column("string", True, default="a")
UP_TO_5 = column("string", False, Rule("length", {"max": 5}))
SHORT_ENOUGH = column("string", False, Rule("length", {"max": 5}), default="abc")
TOO_LONG = column("string", False, Rule("length", {"max": 2}), default="abc")


@pytest.mark.parametrize(
    ("before", "after", "backward", "forward"),
    [
        (None, OPTIONAL, True, True),
        (None, REQUIRED, False, True),
        (None, DEFAULTED, True, True),
        (None, SHORT_ENOUGH, True, True),
        (None, TOO_LONG, False, True),
        (TOO_LONG, None, True, False),
        (REQUIRED, None, True, False),
        (OPTIONAL, REQUIRED, False, True),
        (REQUIRED, OPTIONAL, True, False),
        (column("int"), column("bigint"), True, False),
        (OPTIONAL, column("int"), False, False),
        (UP_TO_5, column("string", False, Rule("length", {"min": 0, "max": 5})), True, True),
        (UP_TO_5, column("string", False, Rule("length", {"min": 1, "max": 5})), False, True),
    ],
)
def test_the_usual_changes(
    before: Column | None, after: Column | None, backward: bool, forward: bool
) -> None:
    """As one says them by hand: too careful would be a fault as well."""
    found = diff(
        contracts_of(OTHER, *([before] if before else [])),
        contracts_of(OTHER, *([after] if after else [])),
    )
    assert [(change.backward, change.forward) for change in found] == [(backward, forward)]


def test_what_is_worked_out_may_break_its_own_check() -> None:
    """Of a price of 10 and two of them the total is 20."""
    product = Rule("product", {"column": "price", "by": "count"})
    checked = column("decimal(14,2)", check=Rule("between", {"max": 5}))
    total = replace(checked, cleaners=(product,))
    parts = column("decimal(12,2)", key="p", name="price"), column("int", key="c", name="count")
    [change] = diff(contracts_of(*parts), contracts_of(*parts, total))
    assert (change.backward, change.forward) == (False, True)
    [change] = diff(contracts_of(*parts), contracts_of(*parts, replace(total, checks=())))
    assert (change.backward, change.forward) == (True, True)


def test_the_key_of_a_database_s_table_makes_ids() -> None:
    """The same change, sent again, is another event under a longer key."""
    ident = replace(column("int", True, key="id", name="id"), primary_key=True)
    tier = column("string", True, key="tier", name="tier")
    old, new = (
        Contracts([replace(contracts_of(*columns)["thing"], changes=True)])
        for columns in ((ident, tier), (ident, replace(tier, primary_key=True)))
    )
    [change] = diff(old, new)
    assert (change.what.partition(":")[0], change.backward, change.forward) == (
        "keys, of which ids are made",
        False,
        False,
    )
    # Under another name it is the same key.
    renamed = Contracts([replace(old["thing"], columns=(replace(ident, name="number"), tier))])
    assert all(change.backward and change.forward for change in diff(old, renamed))


def test_a_renamed_key_breaks_those_who_need_it() -> None:
    assert diff(contracts_of(REQUIRED), contracts_of(column("string", True, key="new"))) == [
        Change("thing.value", "its key was 'k' and is 'new'", False, False)
    ]


def test_a_key_that_is_another_columns_now() -> None:
    """Other values come under it, whatever the names say."""
    text, number = column("string", key="k"), column("int", key="2", name="number")
    swapped = column("string", key="2"), column("int", key="k", name="number")
    renamed = column("int", key="k", name="number")
    for old, new in (((text, number), swapped), ((text,), (renamed,))):
        found = diff(contracts_of(*old), contracts_of(*new))
        assert not any(change.backward and change.forward for change in found[:1])
        assert not all(change.backward for change in found)
        assert not all(change.forward for change in found)


def test_a_column_with_another_name_and_its_old_key_as_an_alias() -> None:
    """Both contracts take what either wrote, the old one without the value."""
    old = column("string", key="carrier", name="carrier")
    new = column("string", key="shipper", name="shipper", aliases=("carrier",))
    found = diff(contracts_of(old), contracts_of(new))
    assert [(change.where, change.backward, change.forward) for change in found] == [
        ("thing.carrier", True, True),
        ("thing.carrier", True, True),
    ]
    assert "is called shipper now" in found[-1].what
    # Required, the old one does not do without it.
    old, new = (
        column("string", True, key=key, name=key, aliases=aliases)
        for key, aliases in (("carrier", ()), ("shipper", ("carrier",)))
    )
    found = diff(contracts_of(old), contracts_of(new))
    assert all(change.backward for change in found)
    assert not all(change.forward for change in found)


def test_the_command(tmp_path: Path, contracts: Contracts) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        for contract in (contracts["store"], contracts["category"]):
            (folder / contract.path.name).write_text(contract.path.read_text())
    assert diff(contract_files.load(old), contract_files.load(new)) == []
    same = CliRunner().invoke(contracts_group, ["diff", str(old), str(new), "--require", "full"])
    assert (same.exit_code, same.output) == (0, "no change that bears on records\n")

    (new / "store.yaml").unlink()
    found = CliRunner().invoke(contracts_group, ["diff", str(old), str(new), "--json"])
    assert found.exit_code == 0
    [change] = json.loads(found.output)
    assert (change["where"], change["backward"], change["forward"]) == ("store", False, True)
    for wanted, code in (("forward", 0), ("backward", 1), ("full", 1)):
        said = CliRunner().invoke(
            contracts_group, ["diff", str(old), str(new), "--require", wanted]
        )
        assert said.exit_code == code, said.output
