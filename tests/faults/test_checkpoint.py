"""Files of a checkpoint that are gone or damaged: named, put right as said, nothing lost."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse.contracts import Contracts
from lakehouse.errors import CheckpointError, StreamError
from lakehouse.settings import Settings, Stream
from producer.command import Sending, send_shop
from streaming.command import start_all
from tests.helpers import drain, settings_for, unlike_the_ledger, wait_until

EVENTS = 2_000


@pytest.fixture(scope="module")
def house(
    spark: SparkSession,
    contracts: Contracts,
    bootstrap: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """Three batches of each query and a reconcile; then as many records that no one has read."""
    small = Stream(max_offsets_per_trigger=EVENTS // 2)
    settings = settings_for(tmp_path_factory.mktemp("checkpoint"), bootstrap, stream=small)
    send_shop(settings, Sending(events=EVENTS, seed=51))
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    send_shop(settings, Sending(events=EVENTS, seed=51))
    return settings


def newest(folder: Path) -> Path:
    return max((f for f in folder.iterdir() if f.name.isdigit()), key=lambda f: int(f.name))


def gone(file: Path) -> None:
    file.unlink()
    (file.parent / f".{file.name}.crc").unlink(missing_ok=True)


def cut(file: Path, kept: float = 0.0) -> None:
    """As a power cut leaves it: the name is there, the bytes, or some of them, are not."""
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])


def commit_gone(checkpoints: Path) -> None:
    for query in ("bronze", "silver"):
        gone(newest(checkpoints / query / "commits"))


def all_lost(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints)


def not_begun(checkpoints: Path) -> None:
    """As after a start that ended before its first batch: a new id, and nothing else."""
    shutil.rmtree(checkpoints)
    for query in ("bronze", "silver"):
        (checkpoints / query).mkdir(parents=True)
        (checkpoints / query / "metadata").write_text(json.dumps({"id": str(uuid.uuid4())}))


def bronze_put_back(checkpoints: Path) -> None:
    """An older copy: the next batch would have the number of one that the table has."""
    for folder in ("offsets", "commits"):
        gone(newest(checkpoints / "bronze" / folder))


def silver_put_back(checkpoints: Path) -> None:
    for folder in ("offsets", "commits"):
        gone(newest(checkpoints / "silver" / folder))


def id_left(checkpoints: Path) -> None:
    """The table knows the id, and would skip its first batches."""
    for folder in ("offsets", "commits", "sources"):
        shutil.rmtree(checkpoints / "bronze" / folder)


def id_and_state_left(checkpoints: Path) -> None:
    for folder in ("offsets", "commits", "sources"):
        shutil.rmtree(checkpoints / "silver" / folder)


def metadata_gone(checkpoints: Path) -> None:
    gone(checkpoints / "silver/metadata")


def commit_cut(checkpoints: Path, kept: float = 0.0) -> None:
    cut(newest(checkpoints / "silver/commits"), kept)


def offsets_cut(checkpoints: Path, kept: float = 0.0) -> None:
    cut(newest(checkpoints / "bronze/offsets"), kept)


def metadata_cut(checkpoints: Path, kept: float = 0.0) -> None:
    cut(checkpoints / "silver/metadata", kept)


def state_cut(checkpoints: Path, kept: float = 0.0) -> None:
    files = [f for f in (checkpoints / "silver/state").rglob("*") if f.is_file()]
    assert any(f.suffix == ".changelog" for f in files)
    for file in files:
        if file.suffix in {".changelog", ".zip"}:
            cut(file, kept)


def commit_halved(checkpoints: Path) -> None:
    commit_cut(checkpoints, 0.5)


def offsets_halved(checkpoints: Path) -> None:
    offsets_cut(checkpoints, 0.5)


def metadata_halved(checkpoints: Path) -> None:
    metadata_cut(checkpoints, 0.5)


def state_halved(checkpoints: Path) -> None:
    state_cut(checkpoints, 0.5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (commit_gone, None),
        (not_begun, None),
        (id_left, None),
        (id_and_state_left, r"silver/offsets is damaged: move the folder (\S+) away"),
        (metadata_gone, r"silver/metadata is damaged: move the folder (\S+) away"),
        (all_lost, None),
        (
            bronze_put_back,
            r"is older than bronze.events: .*: move the folder (\S+) away",
        ),
        (
            silver_put_back,
            r"is older than silver.events: .*: move the folder (\S+) away",
        ),
        (commit_cut, r"silver/commits/\d+ is damaged: delete it"),
        (offsets_cut, r"bronze/offsets/\d+ is damaged: move the folder (\S+) away"),
        (metadata_cut, r"silver/metadata is damaged: move the folder (\S+) away"),
        (state_cut, r"its state cannot be read: move the folder (\S+) away"),
        (commit_halved, r"silver/commits/\d+ is damaged: delete it"),
        (offsets_halved, r"bronze/offsets/\d+ is damaged: move the folder (\S+) away"),
        (metadata_halved, r"silver/metadata is damaged: move the folder (\S+) away"),
        (state_halved, r"its state cannot be read: move the folder (\S+) away"),
    ],
)
def test_a_damaged_checkpoint(
    spark: SparkSession,
    contracts: Contracts,
    house: Settings,
    tmp_path: Path,
    damage: Callable[[Path], None],
    said: str | None,
) -> None:
    shutil.copytree(house.storage, tmp_path / "data")
    settings = house.model_copy(update={"storage": str(tmp_path / "data")})
    checkpoints = Path(settings.checkpoints)
    damage(checkpoints)
    if said is not None:
        with pytest.raises(StreamError, match=said) as refused:
            drain_or_raise(spark, settings, contracts)
        # What the error says is done, to the letter.
        if found := re.search(said, str(refused.value)):
            if found.groups():
                shutil.move(found[1], tmp_path / "away")
            else:
                assert isinstance(refused.value, CheckpointError)
                gone(newest(checkpoints / "silver/commits"))
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    result = audit.audit_tables(spark, settings, contracts)
    assert result.broken == []
    assert [balance.bronze for balance in result.balances] == [2 * EVENTS]
    assert unlike_the_ledger(settings) == []


def drain_or_raise(spark: SparkSession, settings: Settings, contracts: Contracts) -> None:
    """Queries to their ends; what a supervisor would see is raised."""
    running = start_all(spark, settings, contracts, ("bronze", "silver"), True)
    wait_until(lambda: not any(query.query.isActive for query in running), 120, "their ends")
    for query in running:
        if (failure := query.failure()) is not None:
            raise failure
