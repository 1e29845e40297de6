"""The errors a user can meet. Each says what is wrong, where, and what to do, in one line."""

from __future__ import annotations


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


class LockedError(HeadwaterError):
    """Another process holds the checkpoint or the table."""


class StreamError(HeadwaterError):
    """A streaming query ended by itself."""


class TableError(HeadwaterError):
    """A table is missing, or is not what the contracts say."""
