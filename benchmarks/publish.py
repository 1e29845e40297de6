"""Gold into MySQL's protocol, against LOAD DATA LOCAL INFILE of the same rows.

    headwater bench publish [--events 300000] [--rounds 3]

A MariaDB of this machine. Every round fills a database that was empty. LOAD DATA gets files that
lie ready in its own format, into tables made by the same statements, and checks nothing; publish
reads Gold, stages, merges all tables in one transaction and holds them against Gold. At the end
both databases have the same rows, or the benchmark fails.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import measure
from benchmarks.gold_increment import take

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import MariaDB

BASE = "LOAD DATA"


@click.command()
@click.option("--events", default=300_000, show_default=True, help="Records that Gold is made of.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved rounds of each.")
@measure.json_option
def main(events: int, rounds: int, as_json: bool) -> None:
    """Gold into an empty database of MariaDB, against LOAD DATA."""
    from batch import gold, publish
    from lakehouse import contracts, layouts, settings
    from lakehouse.session import spark as make_session
    from producer.command import instant, shop_of
    from tests import servers

    with tempfile.TemporaryDirectory() as folder:
        server = servers.mariadb(_made(folder, "server"), None, "--local-infile=1")
        try:
            user = settings.MySQL(port=server.port, user="writer", password="env:BENCHMARK_SECRET")
            os.environ["BENCHMARK_SECRET"] = uuid.uuid4().hex
            server.run(
                f"CREATE USER 'writer'@'%' IDENTIFIED BY '{os.environ['BENCHMARK_SECRET']}'",
                "GRANT ALL ON *.* TO 'writer'@'%'",
            )
            house = settings.load("local", storage=f"{folder}/house")
            loaded = contracts.load(house.contracts_dir)
            known = layouts.load(house.contracts_dir, loaded)
            spark = make_session(house, "benchmark")
            take(spark, house, loaded, shop_of(1, instant(None, False), 0.3).records(), 0, events)
            gold.build(spark, house, loaded, known)
            numbers = count()
            last: dict[str, str] = {}

            def empty(case: str) -> str:
                last[case] = name = f"round_{next(numbers)}"
                server.run(f"CREATE DATABASE {name}")
                return name

            def published(case: str, gate: bool) -> float:
                to = user.model_copy(update={"database": empty(case)})
                here = house.model_copy(update={"mysql": to})
                return measure.seconds(
                    lambda: publish.copy(spark, here, known, ("mysql",), gate=gate)
                )()

            published("model", False)
            files = _made(folder, "files")
            model = Model(server, last["model"], files)

            def by_load_data() -> float:
                name = empty(BASE)
                return measure.seconds(lambda: model.load(name))()

            ours = "publish, the quality gate aside"
            cases: dict[str, Callable[[], float]] = {
                BASE: by_load_data,
                ours: partial(published, ours, False),
                "publish": partial(published, "publish", True),
            }
            found = measure.take_turns(cases, rounds)
            model.demand_equal(last[BASE], last[ours])
            spark.stop()
        finally:
            server.stop()
    rates = {name: [model.rows / taken for taken in values] for name, values in found.items()}
    notes = {"rows": f"{model.rows:,}", "tables": len(model.tables)}
    title, target = "Gold to MariaDB", {ours: 0.7}
    measure.show(measure.Result(title, "rows/s", BASE, rates, notes, target), as_json)


class Model:
    """A database that was published: how its tables are made, and their rows in files."""

    def __init__(self, server: MariaDB, database: str, files: Path) -> None:
        from batch.warehouses.base import STATE

        self._server, self._files = server, files
        self.tables: dict[str, str] = {}
        self.rows = 0
        of = f"FROM information_schema.tables WHERE table_schema = '{database}'"
        for (name,) in server.run(f"SELECT table_name {of} AND table_name <> '{STATE}'"):
            [(_, made)] = server.run(f"SHOW CREATE TABLE {database}.{name}")
            self.tables[name] = made
            server.run(f"SELECT * INTO OUTFILE '{files / name}' FROM {database}.{name}")
            [(rows,)] = server.run(f"SELECT count(*) FROM {database}.{name}")
            self.rows += rows

    def load(self, database: str) -> None:
        """The same tables and rows into an empty database."""
        import pymysql

        with (
            pymysql.connect(
                unix_socket=str(self._server.folder / "socket"),
                user="root",
                database=database,
                charset="utf8mb4",
                local_infile=True,
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            for name, made in self.tables.items():
                cursor.execute(made)
                # As it was written: else it would be read in the database's own default.
                cursor.execute(
                    f"LOAD DATA LOCAL INFILE '{self._files / name}' INTO TABLE {name} "
                    "CHARACTER SET utf8mb4"
                )

    def demand_equal(self, one: str, other: str) -> None:
        """Raises ClickException where a table has other rows."""
        for name in self.tables:
            found = self._server.run(f"CHECKSUM TABLE {one}.{name}, {other}.{name}")
            if len({checksum for _, checksum in found}) != 1:
                raise click.ClickException(f"table {name} is not the same in both: {found}")


def _made(folder: str, name: str) -> Path:
    path = Path(folder, name)
    path.mkdir()
    return path


if __name__ == "__main__":
    main()
