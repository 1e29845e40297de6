"""The rules that a query's batches began under, kept beside its checkpoint.

A batch that was cut off is run again, and it has to come out as it did: its table may hold it
already, and the state of the deduplication is made from it. So every start writes down the
contracts and limits that it runs under, and a start that finds an unfinished batch of other ones
ends that batch under them first.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse import checkpoints
from lakehouse import contracts as contract_files
from lakehouse.contracts import Contracts
from lakehouse.errors import CheckpointError, ContractError
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from lakehouse.checkpoints import Files, SparkFiles

FOLDER = "editions"
# Of what a query keeps in its state: another number cannot go on from it.
STATE_FORMAT = 1


@dataclass(frozen=True)
class Edition:
    """given_up: a batch that was planned under these rules, and given up before it began."""

    contracts: Contracts
    max_record_bytes: int
    given_up: int | None = None

    def same_rules(self, other: Edition) -> bool:
        mine, theirs = dict(self.contracts), dict(other.contracts)
        return mine == theirs and self.max_record_bytes == other.max_record_bytes


def current(settings: Settings, contracts: Contracts) -> Edition:
    return Edition(contracts, settings.stream.max_record_bytes)


def begun(files: Files) -> int | None:
    """The number of a batch that was cut off after it had begun; None where there is none.

    Raises CheckpointError where the checkpoint was written by a version with another kind of state.
    """
    found = _newest(files)
    number = checkpoints.unfinished(files)
    return None if found is None or found.get("given_up") == number else number


def newest(files: Files) -> Edition | None:
    """What was kept last; None where nothing was. Raises CheckpointError."""
    found = _newest(files)
    if found is None:
        return None
    try:
        contracts = _contracts(found["contracts"])
        return Edition(contracts, found["max_record_bytes"], found["given_up"])
    except (KeyError, TypeError, AttributeError, ContractError) as error:
        raise CheckpointError(
            f"{files.root}/{FOLDER} cannot be read ({error}): it holds the rules of the batch that "
            f"was cut off; {checkpoints.remedy(files.root)}"
        ) from None


def keep(files: SparkFiles, edition: Edition) -> None:
    """Writes it down. Raises CheckpointError where what is there cannot be gone on from."""
    kept = {
        "state_format": STATE_FORMAT,
        "version": _version(),
        "max_record_bytes": edition.max_record_bytes,
        "given_up": edition.given_up,
        "contracts": {c.path.name: c.text for c in edition.contracts.values()},
    }
    if _newest(files) == kept:
        return
    numbers = _numbers(files)
    files.write(f"{FOLDER}/{numbers[-1] + 1 if numbers else 0}", json.dumps(kept))
    for old in numbers[:-1]:
        files.remove(f"{FOLDER}/{old}")


def give_up(files: SparkFiles, edition: Edition, begun: int | None) -> None:
    """Writes down that the batch that is planned has not begun: it may run under any rules.

    begun: one that had, before this start.
    """
    number = checkpoints.unfinished(files)
    if number != begun:
        keep(files, replace(edition, given_up=number))


def _newest(files: Files) -> dict[str, Any] | None:
    """What is written in the newest edition; an empty one where that cannot be read."""
    numbers = _numbers(files)
    if not numbers:
        return None
    try:
        found: dict[str, Any] = dict(json.loads(files.text(f"{FOLDER}/{numbers[-1]}") or ""))
    except (ValueError, TypeError):
        return {}
    state = found.get("state_format", STATE_FORMAT)
    if state != STATE_FORMAT:
        raise CheckpointError(
            f"checkpoint {files.root} was written by Headwater {found.get('version')}, whose state "
            f"(format {state}) this version (format {STATE_FORMAT}) cannot go on from: use that "
            f"version, or {checkpoints.remedy(files.root)}"
        )
    return found


def _version() -> str:
    """For those who read it: nothing hangs on it."""
    try:
        return version("headwater")
    except PackageNotFoundError:
        return "unknown"


def _numbers(files: Files) -> list[int]:
    return sorted(int(name) for name in files.names(FOLDER) if name.isdigit())


def _contracts(texts: dict[str, str]) -> Contracts:
    with tempfile.TemporaryDirectory(prefix="headwater-edition-") as folder:
        for name, text in texts.items():
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        return contract_files.load(Path(folder))
