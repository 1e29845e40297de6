"""Which runs keep each other away: those that write to the same place."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lakehouse import locks
from lakehouse import settings as settings_files
from lakehouse.errors import LockedError
from lakehouse.locks import held
from lakehouse.settings import Settings


def settings_of(storage: str, runtime: Path, checkpoints: str = "") -> Settings:
    return settings_files.load(
        "local", storage=storage, runtime=str(runtime), checkpoint_root=checkpoints
    )


def refused(one: Settings, other: Settings, job: str) -> bool:
    with held(one, job, "one"):
        try:
            with held(other, job, "the other"):
                return False
        except LockedError:
            return True


@pytest.mark.parametrize("job", ["gold", "stream-silver"])
def test_another_runtime_folder_is_not_another_lock(tmp_path: Path, job: str) -> None:
    data = str(tmp_path / "data")
    one, other = settings_of(data, tmp_path / "a"), settings_of(data, tmp_path / "b")
    assert refused(one, other, job)
    elsewhere = settings_of(str(tmp_path / "more"), tmp_path / "a")
    assert not refused(one, elsewhere, job)


def test_a_stream_is_kept_from_the_checkpoints_and_the_tables_of_another(tmp_path: Path) -> None:
    shared = str(tmp_path / "checkpoints")
    one = settings_of(str(tmp_path / "a"), tmp_path / "a", shared)
    other = settings_of(str(tmp_path / "b"), tmp_path / "b", shared)
    assert refused(one, other, "stream-silver")
    assert not refused(one, other, "gold")
    same_tables = settings_of(str(tmp_path / "a"), tmp_path / "b", str(tmp_path / "others"))
    assert refused(one, same_tables, "stream-silver")


@pytest.mark.parametrize("storage", ["abfss://lake@one.dfs.core.windows.net/x", "/Volumes/c/s/v"])
def test_an_object_store_takes_no_lock(tmp_path: Path, storage: str) -> None:
    settings = settings_of(storage, tmp_path, "/Volumes/c/s/checkpoints")
    assert refused(settings, settings, "stream-silver")
    assert [file.name for file in (tmp_path / "locks").iterdir()] == ["stream-silver.lock"]


def test_a_broker_is_of_its_runtime_folder(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    one, other = settings_of(data, tmp_path / "a"), settings_of(data, tmp_path / "b")
    assert not refused(one, other, "broker")
    assert refused(one, one, "broker")


def test_appends_go_side_by_side_and_a_merge_alone(settings: Settings) -> None:
    """In the order in which they came to be: a merge waits for appends, and these for it."""
    done: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def append() -> None:
        with locks.turn(settings, "silver.events", alone=False):
            inside.set()
            go_on.wait(30)
            done.append("append")

    def merge() -> None:
        with locks.turn(settings, "silver.events", alone=True):
            done.append("merge")

    first = threading.Thread(target=append)
    first.start()
    assert inside.wait(30)
    with locks.turn(settings, "silver.events", alone=False):
        done.append("another append")
    with locks.turn(settings, "bronze.events", alone=True):
        done.append("a merge into another table")
    second = threading.Thread(target=merge)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    go_on.set()
    first.join(30)
    second.join(30)
    assert done == ["another append", "a merge into another table", "append", "merge"]
