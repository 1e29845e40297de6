"""Contracts that are changed while the streams run: taken up where the tables can take them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from lakehouse import checkpoints, kafka, layouts, tables
from lakehouse import contracts as contract_files
from lakehouse.contracts import Contracts
from lakehouse.errors import ContractError, HeadwaterError, TableError, reason
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
        # Others may have been put there since these were loaded: the first look tells.
        self._taken = self._seen = ""
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
        try:
            found = contract_files.load(self._settings.contracts_dir)
            if dict(found) == dict(self.contracts):
                self._taken = now
                return False
            layouts.load(self._settings.contracts_dir, found)
            self._demand_topics(found)
            tables.can_take(self._spark, self._settings, tables.silver(found))
        except (ContractError, TableError) as error:
            self._taken = now
            self._say(f"{error}\nthe streams go on under the contracts that they have")
            return False
        except (HeadwaterError, PySparkException, Py4JError) as error:
            self._say(f"changed contracts are not looked at as yet: {reason(str(error))}")
            return False
        self._taken, self.contracts = now, found
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
        """Raises ContractError where the topics are not such that the queries can go on.

        One that is being read would be in no contract, or one that is new has lost records.
        """
        topics = set(found.topics(self._settings.topics.events))
        new = sorted(topics - set(self.contracts.topics(self._settings.topics.events)))
        begins = kafka.begin_offsets(self._settings, new) if new else {}
        unknown = set(new) - {topic for topic, _ in begins}
        if unknown and not self._settings.broker.create_topics:
            raise ContractError(
                f"topic {', '.join(sorted(unknown))} is not there: make it first (create_topics is "
                "off), then change the contracts again"
            )
        for (topic, partition), begin in begins.items():
            if begin:
                raise ContractError(
                    f"topic {topic} partition {partition} begins at offset {begin}: what was "
                    "before it is gone; `headwater stream --accept-gap` takes that topic up"
                )
        for query in checkpoints.QUERIES:
            read = checkpoints.committed(checkpoints.SparkFiles(self._spark, self._settings, query))
            if gone := sorted({topic for topic, _ in read} - topics):
                raise ContractError(
                    f"{self._settings.contracts_dir}: topic {', '.join(gone)} is in no contract "
                    f"any more, and stream {query} reads it"
                )
