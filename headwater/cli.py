"""The command line. Each subcommand is imported when it is called: --help answers at once."""

from __future__ import annotations

from importlib import import_module

import click

from lakehouse.command import run

# name: (module, attribute, what `headwater --help` says of it)
COMMANDS = {
    "run": ("headwater.run", "run", "Go the whole way: broker, streams, events, audit, summary."),
    "broker": (
        "headwater.commands",
        "broker_group",
        "Start, stop and ask for the embedded broker.",
    ),
    "produce": ("producer.command", "produce", "Send the shop's events, or foreign bytes."),
    "ingest": (
        "producer.drops",
        "ingest",
        "Send the rows of files dropped into a folder.",
    ),
    "bridge": ("producer.bridge", "bridge", "Send a topic's records on to Event Hubs."),
    "stream": ("streaming.command", "stream", "Write Bronze and Silver from the broker."),
    "reconcile": ("batch.reconcile", "reconcile", "Give every pending record its outcome."),
    "replay": ("batch.replay", "replay", "Make Silver anew from Bronze for a range."),
    "quarantine": (
        "batch.quarantine",
        "quarantine_group",
        "See what is quarantined, repair it, judge it again.",
    ),
    "gold": ("batch.gold", "gold", "Build dimensions, facts and metrics from Silver."),
    "quality": ("batch.quality", "quality", "Hold Gold against its contracts; keep scores."),
    "publish": ("batch.publish", "publish", "Bring warehouses to the newest versions of Gold."),
    "maintain": ("batch.maintain", "maintain", "OPTIMIZE, ZORDER and VACUUM by the contracts."),
    "audit": ("batch.audit", "audit", "Hold Bronze against Silver: nothing lost or doubled."),
    "erase": ("batch.erase", "erase", "Remove a person everywhere, for good, with a proof."),
    "catalog": (
        "headwater.access",
        "catalog_group",
        "Name tables in Unity Catalog; grants and masks from the contracts.",
    ),
    "synapse": (
        "headwater.access",
        "synapse_sql",
        "Print the SQL that makes a Synapse pool ready.",
    ),
    "config": ("headwater.config", "config_group", "Show the settings; say what is missing."),
    "contracts": ("headwater.commands", "contracts_group", "Check the contracts."),
    "status": ("headwater.commands", "status", "Show tables, stream lag and the last jobs."),
    "report": ("headwater.report", "report", "Draw sales and quality as one HTML page."),
    "doctor": ("headwater.commands", "doctor", "Find what is wrong, and say what to do."),
    "sql": ("headwater.commands", "sql", "Query every table and view by name."),
    "bench": ("headwater.bench", "bench", "Measure how fast it is, against what else there is."),
}


class Commands(click.Group):
    """Subcommands by name, imported when they are needed."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _text = COMMANDS[name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=Commands)
@click.version_option(package_name="headwater")
def cli() -> None:
    """Headwater: a Spark Structured Streaming lakehouse for e-commerce events."""


def main() -> None:
    run(cli)
