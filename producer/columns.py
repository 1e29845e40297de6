"""Texts and numbers by the column: what thousands of events say, made at once."""

from __future__ import annotations

import re
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


def draws(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone.

    Only `random` is to be asked of it: what it returns is fixed (NEP 19), on every machine.
    """
    seed = int.from_bytes(sha256(name.encode()).digest()[:16], "big")
    return np.random.Generator(np.random.PCG64(seed))


def filled(template: str, **columns: Texts | Ints) -> Texts:
    """A text a row: the template with every <name> in it replaced by that column's value."""
    pieces: list[Any] = []
    for number, part in enumerate(_HOLE.split(template)):
        if number % 2:
            column = columns[part]
            pieces.append(digits(column) if isinstance(column, np.ndarray) else column)
        elif part:
            pieces.append(part)
    return pc.binary_join_element_wise(*pieces, "")


def digits(numbers: Ints) -> Texts:
    """Whole numbers as they are written."""
    return pa.array(numbers).cast(pa.string())


def numbered(letter: str, numbers: Ints, width: int) -> Texts:
    """Ids: letters and a number of so many digits, with leading zeros."""
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
