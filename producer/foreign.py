"""Foreign bytes: what a file or a folder holds, as records, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lakehouse.errors import SettingsError
from producer.defects import Record


def records(path: Path) -> Iterator[Record]:
    """One record a line of a file, or one a file of a folder and the folders in it, by name.

    A line comes without its line end; an empty one is an empty record. Raises SettingsError where
    there is nothing to read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if not files:
            raise SettingsError(f"{path} holds no file to send")
        for file in files:
            yield _record(_read(file))
    elif path.is_file():
        with path.open("rb") as lines:
            for line in lines:
                yield _record(line.removesuffix(b"\n").removesuffix(b"\r"))
    else:
        raise SettingsError(f"{path}: no such file or folder")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None


def _record(value: bytes) -> Record:
    return Record(0, None, value, None, None, "", None, "", ())
