"""Whether one set of contracts can take what was written under another.

A change is backward compatible where every record that was written to the old contract's columns,
under one key each, and that it accepts, is accepted by the new one; forward compatible where it is
the other way round: the words as schema registries use them. What cannot be told from the contracts
alone counts as not compatible.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lakehouse.contracts import DROP, EVOLVE, Column, Contract, Contracts, decimal_of
from lakehouse.rules import ARITHMETIC, DEFAULT, Rule, keeps

# Digits before the point that Delta wants where a whole number becomes a decimal.
DIGITS = {"int": 10, "bigint": 20}
# With these modes of a contract a record is taken all the same.
LENIENT = {EVOLVE, DROP}


@dataclass(frozen=True)
class Change:
    """where: an entity, or a column of it."""

    where: str
    what: str
    backward: bool
    forward: bool


def diff(old: Contracts, new: Contracts) -> list[Change]:
    """Every change that bears on which records are accepted, or on what becomes of them."""
    found = []
    for name in sorted({*old, *new}):
        if name not in new:
            found.append(Change(name, "removed: its events are unknown from now on", False, True))
        elif name not in old:
            found.append(Change(name, "added: the old contracts do not know it", True, False))
        else:
            found += _entity(old[name], new[name])
    return found


def _entity(old: Contract, new: Contract) -> Iterator[Change]:
    for what, before, after in (
        ("event type", old.event_type, new.event_type),
        ("topic", old.topic, new.topic),
        ("identity", old.id_keys, new.id_keys),
        ("column of the event time", old.time_column, new.time_column),
        ("kind of its records", *("changes" if c.changes else "states" for c in (old, new))),
        ("keys, of which ids are made", _keys_of_changes(old), _keys_of_changes(new)),
    ):
        if before != after:
            yield Change(old.name, f"{what}: {before} is {after} now", False, False)
    if old.clock_tolerance_seconds != new.clock_tolerance_seconds:
        was_ahead, may_be = old.clock_tolerance_seconds, new.clock_tolerance_seconds
        what = f"clockTolerance: {was_ahead} s are {may_be} s now"
        yield Change(old.name, what, may_be >= was_ahead, was_ahead >= may_be)
    takes = [contract.new_fields in LENIENT for contract in (old, new)]
    lenient = [contract.changed_types in LENIENT for contract in (old, new)]
    for key, (took, takes_now), mode, mode_now in (
        ("newFields", takes, old.new_fields, new.new_fields),
        ("changedTypes", lenient, old.changed_types, new.changed_types),
    ):
        if mode != mode_now:
            what = f"{key}: {mode} is {mode_now} now"
            yield Change(old.name, what, takes_now or not took, took or not takes_now)
    was = {column.name: column for column in old.columns}
    now = {column.name: column for column in new.columns}
    for name, name_now in _renamed(was, now):
        where = f"{old.name}.{name}"
        then, renamed = was.pop(name), now.pop(name_now)
        lost = [old.does_without(then), new.does_without(renamed)]
        yield from _column(where, then, renamed, lost, takes)
        yield Change(where, f"is called {name_now} now, and read from the same key", True, True)
    for name in [*was, *(name for name in now if name not in was)]:
        where = f"{old.name}.{name}"
        taken = _key_of_another(name, now, old.columns) or _key_of_another(name, was, new.columns)
        if taken:
            yield Change(where, f"its key is that of {taken} on the other side", False, False)
        if name not in now:
            yield Change(where, "removed", takes[1], _does_without(was[name]))
        elif name not in was:
            kind = "required" if now[name].indispensable else "optional"
            yield Change(where, f"added, {kind}", _does_without(now[name]), takes[0])
        else:
            lost = [old.does_without(was[name]), new.does_without(now[name])]
            yield from _column(where, was[name], now[name], lost, takes)


def _keys_of_changes(contract: Contract) -> list[tuple[str, ...]]:
    """The keys of the JSON that the ids of changes are made of, in order."""
    keys = (column for column in contract.columns if column.primary_key)
    return [column.json_keys for column in keys] if contract.changes else []


def _does_without(column: Column) -> bool:
    """Whether a column takes every record that has no value for it: also what it then makes up."""
    made_up = [rule for rule in column.cleaners if rule.name in {DEFAULT, *ARITHMETIC}]
    if not made_up or column.indispensable:
        return not column.indispensable
    last = column.cleaners[-1]
    value = last.arguments.get("value_if_missing")
    is_known = len(made_up) == 1 and last.name == DEFAULT
    return all(is_known and keeps(check, value) is True for check in column.checks)


def _renamed(was: dict[str, Column], now: dict[str, Column]) -> list[tuple[str, str]]:
    """Columns that have another name, the same key, and no other column that shares it."""
    pairs = []
    for name in was.keys() - now.keys():
        keys = set(was[name].json_keys)
        after = [other for other in now if keys & set(now[other].json_keys)]
        if len(after) == 1 and after[0] not in was:
            keys |= set(now[after[0]].json_keys)
            before = [other for other in was if keys & set(was[other].json_keys)]
            if before == [name]:
                pairs.append((name, after[0]))
    return sorted(pairs)


def _key_of_another(name: str, mine: dict[str, Column], others: tuple[Column, ...]) -> str | None:
    """The column of another name that has the same key on the other side."""
    if name not in mine:
        return None
    keys = set(mine[name].json_keys)
    return next((c.name for c in others if c.name != name and keys & set(c.json_keys)), None)


def _column(
    where: str, old: Column, new: Column, may_lose: list[bool], takes: list[bool]
) -> Iterator[Change]:
    """may_lose: whether the old and the new one do without a value that they cannot hold; takes:
    whether the old and the new contract take a record with a field that they do not know."""
    if old.json_keys != new.json_keys:
        before, after = (" or ".join(map(repr, c.json_keys)) for c in (old, new))
        what = f"its key was {before} and is {after}"
        backward, forward = _reads(new, old, takes[1]), _reads(old, new, takes[0])
        yield Change(where, what, backward, forward)
    if old.from_text != new.from_text:
        yield Change(where, "jsonType differs: text on one side, values on the other", False, False)
    if (old.logical_type, old.spark_type) != (new.logical_type, new.spark_type):
        wider = widens(old.spark_type, new.spark_type)
        narrower = widens(new.spark_type, old.spark_type)
        what = f"{_type(old)} is {_type(new)} now"
        if old.spark_type != new.spark_type and not (wider or narrower):
            what += "; tables that have the column refuse the new contract until they are rebuilt"
        backward = _takes_type(new, wider, may_lose[1], may_lose[0])
        forward = _takes_type(old, narrower, may_lose[0], may_lose[1])
        yield Change(where, what, backward, forward)
    if old.required != new.required:
        what = "required now" if new.required else "optional now"
        # A required column does not do without what it cannot hold.
        backward = not new.indispensable and (may_lose[1] or not may_lose[0])
        forward = not old.indispensable and (may_lose[0] or not may_lose[1])
        yield Change(where, what, backward, forward)
    if old.cleaners != new.cleaners:
        yield Change(where, "cleaned in another way: other values are checked", False, False)
    if old.checks != new.checks:
        backward, forward = _implied(new.checks, old.checks), _implied(old.checks, new.checks)
        yield Change(where, f"checks: {_named(old)} are {_named(new)} now", backward, forward)


def _takes_type(mine: Column, wider: bool, may_lose: bool, other_may_lose: bool) -> bool:
    """Whether a column takes what one of another type took, which may have lost any value."""
    if other_may_lose:
        return may_lose and not mine.checks
    return wider or may_lose


def _type(column: Column) -> str:
    nested = column.logical_type in {"object", "array"}
    return column.logical_type if nested else column.spark_type


def _reads(mine: Column, theirs: Column, takes: bool) -> bool:
    """Whether a column finds the values that were written for another one, or does without."""
    found = set(theirs.json_keys) <= set(mine.json_keys)
    return found or (takes and not mine.indispensable)


def widens(narrow: str, wide: str) -> bool:
    """Whether a type holds every value of another one, and a table's column can become it.

    Source: type widening of the Delta protocol, for the types that contracts have.
    """
    small, large = decimal_of(narrow), decimal_of(wide)
    if narrow == "int" and wide in {"bigint", "double"}:
        return True
    if large is None:
        return False
    whole = large[0] - large[1]
    if small is not None:
        return small != large and large[1] >= small[1] and whole >= small[0] - small[1]
    return narrow in DIGITS and whole >= DIGITS[narrow]


def _implied(wanted: tuple[Rule, ...], given: tuple[Rule, ...]) -> bool:
    """Whether what meets the given checks meets the wanted ones too."""
    return all(any(_implies(rule, other) for other in given) for rule in wanted)


def _implies(wanted: Rule, given: Rule) -> bool:
    if wanted == given:
        return True
    if wanted.name != given.name:
        return False
    mine, theirs = wanted.arguments, given.arguments
    if wanted.name == "one_of":
        return set(theirs["values"]) <= set(mine["values"])
    if wanted.name in {"between", "length"}:
        least = 0 if wanted.name == "length" else None
        low, high = mine.get("min", least), mine.get("max")
        their_low, their_high = theirs.get("min", least), theirs.get("max")
        return (low is None or (their_low is not None and their_low >= low)) and (
            high is None or (their_high is not None and their_high <= high)
        )
    return False


def _named(column: Column) -> str:
    said = [
        f"{rule.name}({', '.join(f'{key}={value}' for key, value in rule.arguments.items())})"
        for rule in column.checks
    ]
    return ", ".join(said) or "none"
