"""Texts and numbers by the column: what thousands of events say, made at once."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Texts: TypeAlias = pa.StringArray

_ZERO = ord("0")
_HOLE = re.compile(r"<(\w+)>")


class Draws:
    """Random numbers that depend on a name alone, on every machine and under every numpy: what a
    bit generator gives is fixed (NEP 19), what is made of it here has no rounding."""

    def __init__(self, name: str) -> None:
        seed = int.from_bytes(sha256(name.encode()).digest()[:16], "big")
        self._bits = np.random.PCG64(seed)

    def random(self, shape: int | tuple[int, ...]) -> Floats:
        """Numbers in [0, 1), of 53 bits."""
        return (self._bits.random_raw(shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def filled(template: str, **columns: Texts | Ints) -> Texts:
    """A text a row: the template with every <name> in it replaced by that column's value."""
    pieces: list[Any] = []
    for number, part in enumerate(_parts(template)):
        if number % 2:
            column = columns[part]
            pieces.append(digits(column) if isinstance(column, np.ndarray) else column)
        elif part:
            pieces.append(part)
    return pc.binary_join_element_wise(*pieces, "")


@cache
def _parts(template: str) -> list[str]:
    """What stands between the names, and these: by turns."""
    return _HOLE.split(template)


def digits(numbers: Ints) -> Texts:
    """Whole numbers as they are written."""
    return pa.array(numbers).cast(pa.string())


def numbered(letter: str, numbers: Ints, width: int) -> Texts:
    """Ids: letters and a number of so many digits, with leading zeros; it has no more of them."""
    signs = np.empty((len(numbers), len(letter) + width), np.uint8)
    signs[:, : len(letter)] = np.frombuffer(letter.encode(), np.uint8)
    _write(signs, len(letter), width, numbers)
    return _fixed(signs)


def money(cents: Ints) -> Texts:
    """Cents as JSON numbers with two digits after the point."""
    return pc.binary_join_element_wise(digits(cents // 100), _CENTS.take(pa.array(cents % 100)), "")


def instants(ms: Ints) -> Texts:
    """Instants, ms since 1970, as ISO-8601 in UTC, to the millisecond."""
    signs = np.empty((len(ms), 24), np.uint8)
    signs[:] = np.frombuffer(b"0000-00-00T00:00:00.000Z", np.uint8)
    signs[:, :10] = _day_signs(ms)
    of_day = ms % DAY
    _write(signs, 11, 2, of_day // HOUR)
    _write(signs, 14, 2, of_day // MINUTE % 60)
    _write(signs, 17, 2, of_day // 1000 % 60)
    _write(signs, 20, 3, of_day % 1000)
    return _fixed(signs)


def days(ms: Ints) -> Texts:
    """The UTC days of instants, ISO-8601."""
    return _fixed(_day_signs(ms))


class Waiting:
    """Rows that wait until their time (`at`, ms since 1970) has come, kept by spans of time."""

    def __init__(self, span: int) -> None:
        self._span = span
        self._new: list[pa.Table] = []
        self._kept: dict[int, list[pa.Table]] = defaultdict(list)

    def put(self, rows: pa.Table) -> None:
        self._new.append(rows)

    def before(self, end: int) -> pa.Table:
        """Takes those whose time is before `end`, in order of time, and of putting where that is
        the same. At least one table has to have been put at some time."""
        ready = [self._split(self._kept.pop(span), end) for span in self._due(end)]
        ready.append(self._split(self._new, end))
        # None of them, but what columns they have.
        self._new = [self._new[0].slice(0, 0)]
        return in_order(ready)

    def _due(self, end: int) -> list[int]:
        return [span for span in sorted(self._kept) if span * self._span < end]

    def _split(self, tables: list[pa.Table], end: int) -> pa.Table:
        """The rows that are due; the others are kept."""
        rows = pa.concat_tables(tables)
        due = rows.column("at").to_numpy() < end
        if due.all():
            return rows
        later = in_order([rows.filter(pa.array(~due))])
        spans = later.column("at").to_numpy() // self._span
        edges = np.flatnonzero(np.diff(spans, prepend=spans[0] - 1)).tolist()
        for begin, stop in zip(edges, [*edges[1:], len(spans)], strict=True):
            self._kept[int(spans[begin])].append(later.slice(begin, stop - begin))
        return rows.filter(pa.array(due))


def in_order(tables: list[pa.Table]) -> pa.Table:
    """All rows in order of time (`at`), those of the same time in the order that they have."""
    rows = pa.concat_tables(tables).combine_chunks()
    return rows.take(pa.array(np.argsort(rows.column("at").to_numpy(), kind="stable")))


def within(sizes: Ints) -> Ints:
    """The place of each row in its group, from 0, for groups of these sizes one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def running(values: Ints, sizes: Ints) -> Ints:
    """The sum of each row's value and of those before it in its group."""
    total = np.cumsum(values)
    ends = np.cumsum(sizes)
    before = np.concatenate([[0], total])[ends - sizes]
    found: Ints = total - np.repeat(before, sizes)
    return found


def _day_signs(ms: Ints) -> npt.NDArray[np.uint8]:
    numbers, which = np.unique(ms // DAY, return_inverse=True)
    spelt = np.datetime_as_string(numbers.astype("datetime64[D]")).astype("S10")
    return spelt.view(np.uint8).reshape(-1, 10)[which]


def _write(signs: npt.NDArray[np.uint8], begin: int, width: int, numbers: Ints) -> None:
    """Numbers as so many digits into the columns from `begin` on."""
    for column in range(begin + width - 1, begin - 1, -1):
        numbers, last = np.divmod(numbers, 10)
        signs[:, column] = last + _ZERO


def _fixed(signs: npt.NDArray[np.uint8]) -> Texts:
    """Texts of one length, from a row of ASCII each."""
    rows, width = signs.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(
        rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(signs))
    )


_CENTS = pa.array([f".{cents:02d}" for cents in range(100)])
