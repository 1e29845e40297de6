"""Another writer's commits in the way of a MERGE: it is tried so often, and then it is said."""

from __future__ import annotations

import pytest
import tenacity
from delta.exceptions import ConcurrentAppendException, ConcurrentDeleteReadException

from lakehouse import retries, tables
from lakehouse.errors import TableError
from lakehouse.settings import Settings


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "wait_random_exponential", lambda **_: tenacity.wait_none())


@pytest.mark.parametrize("met", [0, 1, 9])
def test_commits_between_are_tried_again(settings: Settings, met: int) -> None:
    calls = []

    def attempt() -> None:
        calls.append(1)
        if len(calls) <= met:
            kind = (ConcurrentAppendException, ConcurrentDeleteReadException)[len(calls) % 2]
            raise kind("another writer was first", "")

    tables.merge(settings, tables.bronze(), attempt)
    assert len(calls) == met + 1


def test_the_tenth_time_is_the_last_and_names_the_table(settings: Settings) -> None:
    calls = []

    def attempt() -> None:
        calls.append(1)
        raise ConcurrentAppendException("another writer was first", "")

    path = tables.bronze().path(settings)
    with pytest.raises(
        TableError, match=rf"bronze.events \({path}\): 10 attempts met commits of another writer"
    ):
        tables.merge(settings, tables.bronze(), attempt)
    assert len(calls) == 10


def test_what_another_try_cannot_mend_is_not_tried(settings: Settings) -> None:
    calls = []

    def attempt() -> None:
        calls.append(1)
        raise ValueError("not this")

    with pytest.raises(ValueError, match="not this"):
        tables.merge(settings, tables.bronze(), attempt)
    assert len(calls) == 1
