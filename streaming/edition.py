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
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse import checkpoints
from lakehouse import contracts as contract_files
from lakehouse.contracts import Contracts
from lakehouse.errors import CheckpointError, ContractError
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from lakehouse.checkpoints import SparkFiles

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


def unfinished(files: SparkFiles, now: Edition) -> tuple[int, Edition] | None:
    """The number of a batch that was cut off under other rules than those of now, and its edition.

    Raises CheckpointError where the checkpoint was written by a version with another kind of state.
    """
    kept = newest(files)
    number = checkpoints.unfinished(files)
    if number is None or kept is None or kept.given_up == number or kept.same_rules(now):
        return None
    return number, kept


def newest(files: SparkFiles) -> Edition | None:
    """What was kept last; None where nothing was. Raises CheckpointError."""
    numbers = _numbers(files)
    if not numbers:
        return None
    name = f"{FOLDER}/{numbers[-1]}"
    try:
        found = json.loads(files.text(name) or "")
        state, writer = found["state_format"], found["version"]
        if state == STATE_FORMAT:
            return Edition(
                _contracts(found["contracts"]), found["max_record_bytes"], found["given_up"]
            )
    except (ValueError, KeyError, TypeError, ContractError) as error:
        raise CheckpointError(
            f"{files.root}/{name} cannot be read ({error}): it holds the rules that the last batch "
            f"ran under; {checkpoints.remedy(files.root)}"
        ) from None
    raise CheckpointError(
        f"checkpoint {files.root} was written by Headwater {writer}, whose state (format {state}) "
        f"this version (format {STATE_FORMAT}) cannot go on from: use that version, or "
        f"{checkpoints.remedy(files.root)}"
    )


def keep(files: SparkFiles, edition: Edition) -> None:
    """Writes it down. Raises CheckpointError where what is there cannot be gone on from."""
    if newest(files) == edition:
        return
    text = json.dumps(
        {
            "state_format": STATE_FORMAT,
            "version": version("headwater"),
            "max_record_bytes": edition.max_record_bytes,
            "given_up": edition.given_up,
            "contracts": {c.path.name: c.text for c in edition.contracts.values()},
        }
    )
    numbers = _numbers(files)
    files.write(f"{FOLDER}/{numbers[-1] + 1 if numbers else 0}", text)
    for old in numbers[:-1]:
        files.remove(f"{FOLDER}/{old}")


def give_up(files: SparkFiles, edition: Edition) -> None:
    """Writes down that the batch that is planned has not begun: it may run under any rules."""
    keep(files, replace(edition, given_up=checkpoints.unfinished(files)))


def _numbers(files: SparkFiles) -> list[int]:
    return sorted(int(name) for name in files.names(FOLDER) if name.isdigit())


def _contracts(texts: dict[str, str]) -> Contracts:
    with tempfile.TemporaryDirectory(prefix="headwater-edition-") as folder:
        for name, text in texts.items():
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        return contract_files.load(Path(folder))
