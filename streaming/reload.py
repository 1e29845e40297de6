"""Contracts that are changed while the streams run: taken up where the tables can take them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lakehouse import checkpoints, tables
from lakehouse import contracts as contract_files
from lakehouse.contracts import Contracts
from lakehouse.errors import ContractError, HeadwaterError
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

POLL_SECONDS = 2.0


class Reload:
    """Looks at the folder of contracts every POLL_SECONDS.

    contracts: those that the streams run under. say: is told why others are not taken.
    """

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        contracts: Contracts,
        say: Callable[[str], None],
    ) -> None:
        self._spark, self._settings, self._say = spark, settings, say
        self.contracts = contracts
        self._taken = self._seen = self._digest()
        self._due = time.monotonic() + POLL_SECONDS

    def changed(self) -> bool:
        """Whether there are other contracts now, and all is well with them.

        They are looked at once they have stayed the same from one look to the next.
        """
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + POLL_SECONDS
        now = self._digest()
        if now != self._seen:
            self._seen = now
            return False
        if now == self._taken:
            return False
        self._taken = now
        try:
            found = contract_files.load(self._settings.contracts_dir)
            if dict(found) == dict(self.contracts):
                return False
            self._demand_topics(found)
            tables.can_take(self._spark, self._settings, tables.silver(found))
        except HeadwaterError as error:
            self._say(f"{error}\nthe streams go on under the contracts that they have")
            return False
        self.contracts = found
        return True

    def _digest(self) -> str:
        found = hashlib.sha256()
        for path in contract_files.files(self._settings.contracts_dir):
            try:
                found.update(b"%b\0%b\0" % (path.name.encode(), path.read_bytes()))
            except OSError:
                # A file that is just being put in the place of another one: next time.
                found.update(path.name.encode())
        return found.hexdigest()

    def _demand_topics(self, found: Contracts) -> None:
        """Raises ContractError where a topic that is being read would be in no contract."""
        topics = set(found.topics(self._settings.topics.events))
        for query in checkpoints.QUERIES:
            read = checkpoints.committed(checkpoints.SparkFiles(self._spark, self._settings, query))
            if gone := sorted({topic for topic, _ in read} - topics):
                raise ContractError(
                    f"{self._settings.contracts_dir}: topic {', '.join(gone)} is in no contract "
                    f"any more, and stream {query} reads it"
                )
