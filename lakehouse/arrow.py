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
    """The columns of a table, an Arrow table a file; none where there is no table. Of a struct's
    column, such as `order.status`, under its own name; nulls in files that are older than a column.

    By Arrow itself: its threads over the Delta library's files were seen to outlive the
    interpreter, which then aborted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    delta = open_table(settings, table)
    if delta is None:
        return
    schema = pa.schema(delta.schema().to_arrow())
    for uri in delta.file_uris():
        with adls.reaching(settings, uri):
            files, place = adls.file_system(settings, uri if "://" in uri else unquote(uri))
            there = pq.read_schema(place, filesystem=files)
            read = [column for column in columns if _type_of(there, column) is not None]
            # Spark's own timestamps, whose range is not that of nanoseconds.
            how = {"use_threads": False, "coerce_int96_timestamp_unit": "us"}
            found = pq.read_table(place, columns=read, filesystem=files, **how)
        for column in columns:
            if column not in read:
                nulls = pa.nulls(found.num_rows, _type_of(schema, column) or pa.null())
                found = found.append_column(column.rpartition(".")[2], nulls)
        yield found


def _type_of(schema: Any, column: str) -> Any:
    """The type of a column, or of a struct's; None where there is none."""
    first, *inner = column.split(".")
    if first not in schema.names:
        return None
    kind = schema.field(first).type
    for name in inner:
        place = kind.get_field_index(name)
        if place < 0:
            return None
        kind = kind.field(place).type
    return kind


def content(settings: Settings, table: tables.Table, columns: list[str]) -> Any:
    """The columns of a table that is there, as one Arrow table; see `rows`."""
    import pyarrow as pa

    files = list(rows(settings, table, columns))
    if files:
        # A type may have been widened between two files.
        return pa.concat_tables(files, promote_options="permissive")
    schema = pa.schema(open_table(settings, table).schema().to_arrow())
    kinds = {column.rpartition(".")[2]: _type_of(schema, column) for column in columns}
    return pa.table({name: pa.array([], kind or pa.null()) for name, kind in kinds.items()})
