"""Delta tables without a JVM: their logs by delta-rs, their files by Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from lakehouse import adls, tables
from lakehouse.errors import TableError
from lakehouse.settings import Settings


def open_table(settings: Settings, table: tables.Table) -> Any:
    """A Delta table without Spark; None where there is none. Raises TableError where it cannot be
    read, and StorageError where the storage is not reached."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    path = table.path(settings)
    try:
        with adls.reaching(settings, path):
            return DeltaTable(path, storage_options=adls.delta_options(settings, path))
    except TableNotFoundError:
        return None
    except DeltaError as error:
        said = str(error).splitlines()[0]
        raise TableError(
            f"{table.full_name} ({path}) cannot be read: {said}: a file of its _delta_log is cut "
            "off; bring it back from a copy, or see docs/operate.md for what is made of what"
        ) from None


def rows(settings: Settings, table: tables.Table, columns: list[str]) -> Iterator[Any]:
    """The columns of a table, an Arrow table a file; none where there is no table.

    By Arrow itself: its threads over the Delta library's files were seen to outlive the
    interpreter, which then aborted.
    """
    import pyarrow.parquet as pq

    delta = open_table(settings, table)
    for uri in delta.file_uris() if delta is not None else []:
        with adls.reaching(settings, uri):
            files, place = adls.file_system(settings, uri if "://" in uri else unquote(uri))
            found = pq.read_table(place, columns=columns, use_threads=False, filesystem=files)
        yield found


def content(settings: Settings, table: tables.Table, columns: list[str]) -> Any:
    """The columns of a table that is there, as one Arrow table: of a struct's column, such as
    `order.status`, under its own name."""
    import pyarrow as pa

    files = list(rows(settings, table, columns))
    if files:
        return pa.concat_tables(files)
    schema = pa.schema(open_table(settings, table).schema().to_arrow())
    empty = {}
    for column in columns:
        first, *inner = column.split(".")
        kind = schema.field(first).type
        for name in inner:
            kind = kind.field(name).type
        empty[column.rpartition(".")[2]] = pa.array([], kind)
    return pa.table(empty)
