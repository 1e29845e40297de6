"""Warehouses: copies of Gold that can be rebuilt, one class a kind behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.layouts import KINDS

if TYPE_CHECKING:
    from batch.warehouses.base import Warehouse
    from lakehouse.settings import Settings


def connect(kind: str, settings: Settings) -> Warehouse:
    """An open connection to a kind of warehouse. Raises WarehouseError where it is not there."""
    from lakehouse.errors import SettingsError

    if kind not in KINDS:
        raise SettingsError(f"publish_to: {kind!r} is none of {', '.join(KINDS)}")
    if kind == "mysql":
        from batch.warehouses.mysql import MySQL

        return MySQL(settings.mysql, settings.runtime_dir)
    if kind == "postgresql":
        from batch.warehouses.postgresql import PostgreSQL

        return PostgreSQL(settings.postgresql)
    if kind == "synapse":
        from batch.warehouses.synapse import Synapse

        return Synapse(settings).open()
    from batch.warehouses.duckdb_file import DuckDB

    return DuckDB(settings.duckdb_file, settings.runtime_dir / "staging")
