"""The rule catalogue: what a contract can ask of a column, once for every engine.

Checks and cleaners are functions from a Narwhals expression over one typed column to another, so
that the same one runs in a Spark DataFrame, a streaming one included, and in pandas with pyarrow
types. A check is false where the value breaks the rule. What it says where there is no value does
not count: `required` alone speaks about missing ones.

Engines differ in what `\\d \\w \\s . $` and lower case mean outside ASCII, so patterns use explicit
classes, are anchored with `\\A … \\z`, and letters change case only in ASCII text.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import narwhals as nw

Literal = int | float | str | bool | Decimal | date | datetime
WHITESPACE = " \t\r\n"
# The cleaner that makes a missing value into one.
DEFAULT = "default"
# Arguments that name another column of the record.
COLUMNS = ("column", "by")
# What such a cleaner gives has another type than its column: each engine brings it back.
ARITHMETIC = frozenset({"product"})
ASCII = r"\A[\x00-\x7F]*\z"
REPEATED_GROUP = re.compile(r"\)[*+{]")
LONGEST_OF_GROUPS = 1_000
# Repeats of a pattern without a bound, or with one of a hundred and more. An engine may try each
# way to share out a text among them: by their number, how long a text may be.
REPEAT = re.compile(r"[*+]|\{[0-9]+,\}|\{(?:[0-9]*,)?[0-9]{3,}\}")
LONGEST_OF_REPEATS = {2: 1_000, 3: 300, 4: 100}
LEAST = 50
# RFC 5321 limits, and of its grammar the part that mail providers hand out.
MAILBOX = "[a-z0-9!#$%&'*+/=?^_{|}~-]+"
EMAIL = rf"{MAILBOX}([.]{MAILBOX})*@([a-z0-9]([a-z0-9-]*[a-z0-9])?[.])+[a-z]{{2,63}}"
# ITU-T E.164: a plus, a country code that does not begin with 0, at most 15 digits.
E164 = r"[+][1-9][0-9]{6,14}"
# A backslash before a letter or digit, a group that is more than a group, a possessive quantifier.
UNSAFE_PATTERN = re.compile(r"\\[A-Za-z0-9]|\(\?(?!:)|[*+?}]\+")
CHARACTER_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
QUANTIFIER = re.compile(r"\{[0-9]{1,4}(?:,[0-9]{0,4})?\}")


@dataclass(frozen=True)
class Rule:
    """One use of a function of the catalogue: its name and its arguments.

    critical: whether what breaks it, in a table of Gold, is not to be published.
    """

    name: str
    arguments: Mapping[str, Any]
    critical: bool = True


Check = Callable[..., nw.Expr]
CHECKS: dict[str, Check] = {}
CLEANERS: dict[str, Check] = {}


def _check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def _cleaner(function: Check) -> Check:
    CLEANERS[function.__name__] = function
    return function


def full_match(value: nw.Expr, pattern: str) -> nw.Expr:
    return value.str.contains(rf"\A(?:{pattern})\z")


@_check
def one_of(value: nw.Expr, *, values: list[Literal]) -> nw.Expr:
    """The value is one of a list."""
    return value.is_in(values)


@_check
def between(value: nw.Expr, *, min: Literal | None = None, max: Literal | None = None) -> nw.Expr:
    """min <= value <= max; either may be left out. Unit: the column's own."""
    low = value >= nw.lit(min) if min is not None else None
    high = value <= nw.lit(max) if max is not None else None
    if low is not None and high is not None:
        return low & high
    if low is None and high is None:
        raise ValueError("between wants min, max or both")
    return low if low is not None else high  # type: ignore[return-value]


@_check
def length(value: nw.Expr, *, min: int = 0, max: int) -> nw.Expr:
    """A text of min to max code points."""
    count = value.str.len_chars()
    return (count >= min) & (count <= max)


@_check
def matches(value: nw.Expr, *, pattern: str) -> nw.Expr:
    """The whole text matches the pattern (explicit ASCII classes, no look-around).

    A pattern that repeats a group, or two things without a bound, matches no text of more than
    1,000 characters; with three such repeats it is 300, with four 100, with more 50.
    """
    most, matched = _longest(pattern), full_match(value, pattern)
    return matched if most is None else _short(value, most, matched)


def _longest(pattern: str) -> int | None:
    """How many characters a text may have that is held against a pattern; None for any number."""
    outside = re.sub(r"\\.", "", CHARACTER_CLASS.sub("", pattern))
    found = [LONGEST_OF_GROUPS] if REPEATED_GROUP.search(outside) else []
    if (repeats := len(REPEAT.findall(outside))) > 1:
        found.append(LONGEST_OF_REPEATS.get(repeats, LEAST))
    return min(found, default=None)


@_check
def email(value: nw.Expr) -> nw.Expr:
    """An address in lower case, of at most 254 characters (RFC 5321)."""
    return _short(value, 254, full_match(value, EMAIL))


def _short(value: nw.Expr, most: int, check: nw.Expr) -> nw.Expr:
    """The check, of a text of so many characters at most; others are not looked at.

    Java's engine goes a call deeper at every turn of a group: some thousand end its stack, and
    with it the JVM. And what no way of sharing out fits is tried in all ways.
    """
    return nw.when(value.str.len_chars() <= most).then(check).otherwise(nw.lit(False))


@_check
def phone(value: nw.Expr) -> nw.Expr:
    """A number in E.164 form."""
    return full_match(value, E164)


@_check
def not_before(value: nw.Expr, *, column: nw.Expr) -> nw.Expr:
    """The value is not smaller than that of another column of the record."""
    return value >= column


@_cleaner
def trim(value: nw.Expr) -> nw.Expr:
    """Without blanks, tabs and line ends at both ends."""
    return value.str.strip_chars(WHITESPACE)


@_cleaner
def lower(value: nw.Expr) -> nw.Expr:
    """ASCII text in lower case; other text as it is, because engines differ there."""
    return nw.when(value.str.contains(ASCII)).then(value.str.to_lowercase()).otherwise(value)


@_cleaner
def upper(value: nw.Expr) -> nw.Expr:
    """ASCII text in upper case; other text as it is."""
    return nw.when(value.str.contains(ASCII)).then(value.str.to_uppercase()).otherwise(value)


@_cleaner
def blank_to_null(value: nw.Expr) -> nw.Expr:
    """A text of nothing but blanks is a missing one."""
    return nw.when(value.str.contains(r"[^ \t\r\n]")).then(value)


@_cleaner
def e164(value: nw.Expr, *, country_code: str) -> nw.Expr:
    """Separators and brackets go, `00` becomes `+`, a single leading 0 the country code."""
    digits = value.str.replace_all(r"[ ()./\t-]", "")
    return (
        nw.when(digits.str.contains(r"\A00"))
        .then(digits.str.replace_all(r"\A00", "+"))
        .when(digits.str.contains(r"\A0"))
        .then(digits.str.replace_all(r"\A0", f"+{country_code}"))
        .otherwise(digits)
    )


@_cleaner
def default(value: nw.Expr, *, value_if_missing: Literal) -> nw.Expr:
    """A stated value where there is none."""
    return nw.when(value.is_null()).then(nw.lit(value_if_missing)).otherwise(value)


@_cleaner
def product(value: nw.Expr, *, column: nw.Expr, by: nw.Expr) -> nw.Expr:
    """The product of two other columns where there is no value, of these as they came.

    None where one of the two is missing, or where the column cannot hold it.
    """
    return nw.when(value.is_null()).then(column * by).otherwise(value)


def argument_error(catalogue: Mapping[str, Check], rule: Rule) -> tuple[str, str] | None:
    """The key that is wrong in a rule (`rule`, or an argument) and why, or None; literals are typed
    elsewhere."""
    if rule.name not in catalogue:
        return "rule", f"no rule {rule.name!r}; there are: {', '.join(sorted(catalogue))}"
    parameters = list(inspect.signature(catalogue[rule.name]).parameters.values())[1:]
    known = {parameter.name for parameter in parameters}
    if unknown := set(rule.arguments) - known:
        first, *_ = named = sorted(unknown)
        return first, f"rule {rule.name!r} has no argument {', '.join(named)}"
    wanted = {p.name for p in parameters if p.default is inspect.Parameter.empty}
    if missing := wanted - set(rule.arguments):
        return "rule", f"rule {rule.name!r} wants the argument {', '.join(sorted(missing))}"
    if rule.name == "between" and not rule.arguments:
        return "rule", "rule 'between' wants min, max or both"
    for name, value in rule.arguments.items():
        if problem := _value_error(rule.name, name, value):
            return name, f"rule {rule.name!r}: {name}: {problem}"
    return None


def _value_error(rule: str, name: str, value: Any) -> str | None:
    if name in {*COLUMNS, "pattern", "country_code"} and not isinstance(value, str):
        return f"{value!r} is no text"
    if name == "pattern":
        return pattern_error(value)
    if name == "country_code" and not re.fullmatch("[1-9][0-9]{0,2}", value):
        return f"{value!r} is no country code"
    if name == "values" and not (isinstance(value, list) and value):
        return "has to be a list with at least one value"
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    if rule == "length" and not whole:
        return f"{value!r} is no number of characters"
    return None


def pattern_error(pattern: str) -> str | None:
    """Why a pattern would not mean the same in every engine, or None."""
    if found := UNSAFE_PATTERN.search(pattern):
        return (
            f"{pattern!r}: {found.group()!r} differs from engine to engine; "
            "write explicit ASCII classes such as [0-9], and (?:…) groups only"
        )
    for inside in CHARACTER_CLASS.findall(pattern):
        if "[" in inside[1:] or "&&" in inside:
            return f"{pattern!r}: '[' and '&&' within a class differ from engine to engine"
    outside = QUANTIFIER.sub("", re.sub(r"\\.", "", CHARACTER_CLASS.sub("", pattern)))
    if found := re.search(r"[.^$\[\]{}]", outside):
        return f"{pattern!r}: {found.group()!r} is for classes only; the match is whole"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{pattern!r}: {error}"
    return None


def keeps(rule: Rule, value: Any) -> bool | None:
    """Whether a value, in its column's own type, keeps a check; None where its record decides."""
    given = rule.arguments
    if rule.name == "one_of":
        return value in given["values"]
    if rule.name in {"between", "length"}:
        size = len(value) if rule.name == "length" else value
        low, high = given.get("min"), given.get("max")
        return (low is None or size >= low) and (high is None or size <= high)
    pattern = {"matches": given.get("pattern"), "email": EMAIL, "phone": E164}.get(rule.name)
    if pattern is None:
        return None
    most = _longest(pattern) if rule.name == "matches" else None
    return (most is None or len(value) <= most) and re.fullmatch(pattern, value) is not None


def apply(
    catalogue: Mapping[str, Check], rule: Rule, value: nw.Expr, column: Callable[[str], nw.Expr]
) -> nw.Expr:
    """The expression of one rule over `value`; `column` finds another column of the record."""
    arguments = dict(rule.arguments)
    arguments |= {name: column(arguments[name]) for name in COLUMNS if name in arguments}
    return catalogue[rule.name](value, **arguments)
