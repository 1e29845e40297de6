"""Foreign bytes: what a file or a folder holds, as records, unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lakehouse.errors import SettingsError
from producer.defects import Record

# What the ledger says of bytes that are not ours, column by column.
NOTHING = (None, None, None, None, None, None)


def records(path: Path) -> Iterator[Record]:
    """One record a line of a file, or one a file of a folder and the folders in it, by name.

    A line comes without its line end; an empty one is an empty record. Raises SettingsError where
    there is nothing to read.
    """
    if path.is_dir():
        files = sorted(_inside(path))
        if not files:
            raise SettingsError(f"{path} holds no file to send")
        for file in files:
            yield _record(_read(file))
    elif path.exists():
        empty = True
        try:
            with path.open("rb") as lines:
                for line in lines:
                    empty = False
                    end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
                    yield _record(line.removesuffix(end))
        except OSError as error:
            raise _unreadable(path, error) from None
        if empty:
            raise SettingsError(f"{path} holds no line to send")
    else:
        raise SettingsError(f"{path}: no such file or folder")


def _inside(folder: Path) -> Iterator[Path]:
    """Every file of a folder and of those in it. Raises SettingsError where one is not to be read,
    so that nothing is left out in silence."""

    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error)

    for place, folders, names in os.walk(folder, onerror=refuse):
        for name in folders:
            if (link := Path(place, name)).is_symlink():
                raise SettingsError(
                    f"{link} is a link to a folder, which is not followed: give the folder itself"
                )
        for name in names:
            file = Path(place, name)
            if not file.is_file():
                raise SettingsError(f"{file} is no file, or a link that leads to none: remove it")
            if not os.access(file, os.R_OK):
                raise SettingsError(f"{file}: may not be read: let it be, or move it away")
            yield file


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"{path}: {error.strerror}")


def _record(value: bytes) -> Record:
    return Record(0, None, value, *NOTHING)
