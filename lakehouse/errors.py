"""The errors a user can meet. Each says what is wrong, where, and what to do, in one line."""

from __future__ import annotations

import re


class HeadwaterError(Exception):
    """Anything that ends a command with one line on stderr and an exit code other than 0."""

    exit_code = 1


class SettingsError(HeadwaterError):
    """A setting is missing, misspelt or of the wrong type."""

    exit_code = 2


class ContractError(HeadwaterError):
    """A contract breaks the standard or names something that does not exist."""

    exit_code = 2


class BrokerError(HeadwaterError):
    """The broker is not there, or refuses what was asked of it."""


class BrokerAwayError(BrokerError):
    """The broker does not answer; it may come."""


class LedgerError(HeadwaterError):
    """A truth ledger cannot be read or written."""


class LockedError(HeadwaterError):
    """Another process holds the checkpoint or the table."""


class StreamError(HeadwaterError):
    """A streaming query ended by itself."""


class GapError(StreamError):
    """Records are gone that a query had not read yet."""


class FrozenError(StreamError):
    """A record does not fit a contract that lets nothing through which does not (mode freeze)."""


class CheckpointError(StreamError):
    """A file of a query's checkpoint is damaged."""


class TableError(HeadwaterError):
    """A table is missing, or is not what the contracts say."""


class StorageError(HeadwaterError):
    """Where the tables are does not answer, or refuses the login."""


class QualityError(HeadwaterError):
    """A table of Gold breaks what its contract demands of it."""


class WarehouseError(HeadwaterError):
    """A warehouse is not there, refuses what was asked of it, or does not agree with Gold."""


class BusyError(WarehouseError):
    """Another transaction of a warehouse was in the way; another try may pass."""


# What Java and Python both say of a full disk.
NO_SPACE = "No space left on device"
# Py4J gives what the JVM said a line of its own, after a colon.
TELLING = re.compile(r"(?:Caused by: |: )?(?:[\w.$]+\.)?(\w+(?:Exception|Error)): (.+)")
# Before what a query says of a record that a contract does not let through. The plan of the query,
# which stands in every error of a stream, has it as well: but for what Spark puts before an error.
FROZEN = "HEADWATER_FROZEN "
RAISED = re.compile(rf"\[USER_RAISED_EXCEPTION\] {FROZEN}(.*?)(?: SQLSTATE: \w+)?$", re.MULTILINE)
# What only says that something else went wrong.
WRAPPERS = {"ForeachBatchUserFuncException", "StreamingQueryException", "Py4JJavaError"}


def reason(text: str, cause: str = "") -> str:
    """The one line of a JVM's or Python's error that says what went wrong.

    cause: the error behind it, which is asked where the first one does not tell.
    """
    if raised := RAISED.search(text):
        return _short(raised[1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for sign in (NO_SPACE, "OffsetOutOfRange"):
        for line in lines:
            if sign in line and not line.startswith("at "):
                return _short(line.removeprefix("Caused by: "))
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        # Of a topic's records. Before it stands what Spark would have one do, which loses some.
        if line.startswith("Reason:"):
            return _short(line.removeprefix("Reason:").strip() or following)
    told = [match for line in lines if (match := TELLING.match(line))]
    told = [match for match in told if match[1] not in WRAPPERS] or told
    if told:
        return _short(f"{told[-1][1]}: {told[-1][2]}")
    if cause:
        return reason(cause)
    return _short(lines[0]) if lines else "no reason given"


def _short(line: str) -> str:
    return line if len(line) <= 400 else f"{line[:400]} …"
