"""How values are spelled in records: from tables, because formatting each took half of the time."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
EPOCH = date(1970, 1, 1)

_CENTS = [f".{cents:02d}" for cents in range(100)]
_TWO = [f"{number:02d}" for number in range(60)]
_MILLIS = [f".{ms:03d}Z" for ms in range(1000)]
_OF_DAY = [f"T{hour}:{minute}:" for hour in _TWO[:24] for minute in _TWO]
_OF_MINUTE = [second + ms for second in _TWO for ms in _MILLIS]


def money(cents: int) -> str:
    """Cents as a JSON number with two digits after the point."""
    return f"{cents // 100}{_CENTS[cents % 100]}"


def numbered(letter: str, number: int, digits: int) -> str:
    """An id: a letter and a number with leading zeros."""
    return letter + str(number).zfill(digits)


def day_of(ms: int) -> str:
    """The UTC day of an instant, ISO-8601."""
    return _day(ms // DAY)


def time_of(ms: int) -> str:
    """An instant as ISO-8601 in UTC, to the millisecond."""
    return _day(ms // DAY) + _OF_DAY[ms % DAY // MINUTE] + _OF_MINUTE[ms % MINUTE]


@lru_cache(maxsize=4096)
def _day(number: int) -> str:
    return (EPOCH + timedelta(days=number)).isoformat()
