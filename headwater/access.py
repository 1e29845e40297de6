"""Who may see what, as SQL from the contracts: in Unity Catalog, and in a Synapse pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lakehouse.command import settings_options
from lakehouse.errors import SettingsError

if TYPE_CHECKING:
    from lakehouse.contracts import Contracts
    from lakehouse.layouts import Layouts
    from lakehouse.settings import Settings


@click.group("catalog")
def catalog_group() -> None:
    """Unity Catalog: names of three levels, who may see what, and personal data masked."""


@catalog_group.command("sql")
@click.option(
    "--column-masks",
    is_flag=True,
    help="Print masks of the columns of Gold's tables instead, for tables that no job writes.",
)
@settings_options
def catalog_sql(column_masks: bool, settings: Settings) -> None:
    """Print what `apply` does, a statement a line, to be read or run elsewhere.

    Entities and tables that do not exist yet are in it; `apply` leaves these out. It makes views
    for readers; a column mask would keep Headwater's own jobs, which go by paths, from a table:
    --column-masks is for a copy of Gold (a deep clone, a share) in a catalog of its own.
    """
    from lakehouse import catalog, metrics, tables

    contracts, layouts = _known(settings)
    if column_masks:
        for statement in (
            *catalog.functions(settings, contracts, layouts),
            *catalog.column_masks(settings, layouts),
        ):
            click.echo(f"{statement};")
        return
    views = [catalog.entity_view(settings, contract) for contract in contracts.values()]
    masked = [view for layout in layouts.gold if (view := catalog.gold_view(settings, layout))]
    named = [
        catalog.external_table(settings, table.layer, table.name, table.path(settings))
        for table in tables.all_tables(contracts, layouts)
    ]
    for statement in (
        *catalog.functions(settings, contracts, layouts),
        *named,
        catalog.quarantine_view(settings),
        *views,
        *masked,
        catalog.serving_view(settings, metrics.HOURS, metrics.MINUTES),
        *catalog.grants(settings, contracts, layouts),
    ):
        click.echo(f"{statement};")


@catalog_group.command("apply")
@settings_options
def catalog_apply(settings: Settings) -> None:
    """Name every table that exists, make its views, and grant what readers and stewards may see.

    As often as you like; a new contract wants it once.
    """
    from lakehouse import catalog, tables
    from lakehouse.progress import doing
    from lakehouse.session import spark as make_session

    contracts, layouts = _known(settings)
    with doing("starting Spark"):
        spark = make_session(settings, "catalog")
    with doing("naming tables"):
        names = set(tables.register(spark, settings, contracts, layouts))
    with doing("granting"):
        for statement in catalog.grants(settings, contracts, layouts):
            # Of what is not there yet nothing can be granted.
            granted = statement.split(" ON ")[1].split(" TO ")[0].split(" ", 1)
            if granted[0] not in {"TABLE", "VIEW"} or granted[1].replace("`", "") in names:
                spark.sql(statement)
    click.echo(f"{len(names)} tables and views are named in {settings.unity.catalog}")


@click.command("synapse")
@settings_options
def synapse_sql(settings: Settings) -> None:
    """Print the SQL that a dedicated SQL pool is set up with, once, by its administrator.

    Schemas, tables with their distribution, partitions and statistics, roles, masks of personal
    columns and rows by role. `headwater publish --to synapse` brings the rows.
    """
    from batch.warehouses.synapse import Synapse
    from lakehouse import contracts, layouts

    known = layouts.load(settings.contracts_dir, contracts.load(settings.contracts_dir))
    unity = settings.unity
    for statement in Synapse(settings).set_up(known.gold, unity.readers, unity.stewards):
        click.echo(f"{statement};\nGO")


def _known(settings: Settings) -> tuple[Contracts, Layouts]:
    from lakehouse import contracts, layouts

    if not settings.unity.catalog:
        raise SettingsError(
            f"unity.catalog: environment {settings.environment} has none: set "
            "HEADWATER_UNITY__CATALOG to the catalog of Unity Catalog"
        )
    loaded = contracts.load(settings.contracts_dir)
    return loaded, layouts.load(settings.contracts_dir, loaded)
