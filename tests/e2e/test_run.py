"""As a user goes it: `headwater run` twice, status, sql, and the scripts by spark-submit."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import islice
from pathlib import Path

import click
import duckdb
import pytest
from deltalake import DeltaTable

from headwater import broker
from lakehouse import settings as settings_files
from lakehouse.settings import Settings
from producer.command import Sending, instant, send_shop, shop_of
from tests.helpers import (
    BIN,
    ROOT,
    environment,
    headwater,
    settings_for,
    table,
    unlike_the_ledger,
)
from tests.oracle import different

EVENTS = 10_000


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.long)])
def test_run_and_run_again(tmp_path: Path, times: int) -> None:
    """On embedded defaults: a broker of its own, which is gone afterwards."""
    settings = settings_files.load("local", storage=str(tmp_path))
    for time in range(1, times + 1):
        done = headwater(settings, "run", "--events", str(EVENTS), "--rate", "5000")
        for said in (
            "Tables and views",
            "Quarantine by rule",
            "Revenue by category",
            "Best customers",
            "the law holds",
            f"{tmp_path}/warehouse.duckdb",
            "Try next:",
        ):
            assert said in done.stdout
        persons = {row["last_name"] for row in table(settings, "gold/dim_users").to_pylist()}
        assert len(persons) > 10
        assert not [name for name in persons if name and name in done.stdout]
        assert not broker.status(settings).running
        assert unlike_the_ledger(settings) == []
        assert table(settings, "bronze/events", ["offset"]).num_rows == time * EVENTS

    sent = times * EVENTS
    status = json.loads(headwater(settings, "status", "--json").stdout)
    rows = {found["table"]: found["rows"] for found in status["tables"]}
    assert rows["bronze.events"] == sent
    jobs = {job["job"]: job["result"] for job in status["jobs"]}
    names = ["reconcile", "gold", "maintain", "quality", "publish"]
    assert jobs == dict.fromkeys(names, "succeeded")
    of_gold = next(job for job in status["jobs"] if job["job"] == "gold")
    [(of_silver, version)] = of_gold["read"].items()
    history = DeltaTable(f"{settings.tables}/silver/events").history()
    since = {commit["operation"] for commit in history if commit["version"] > version}
    assert (of_silver, since - {"OPTIMIZE"}) == ("silver.events", set()), "only upkeep came later"
    assert set(of_gold["written"]) == {name for name in rows if name.startswith("gold.")}
    opens = instant(None, False)
    records = list(islice(shop_of(1, opens, 0.3).records(), sent))
    assert different(settings, records) == {}, "Gold is what DuckDB makes of the bytes"
    with duckdb.connect(str(settings.duckdb_file), read_only=True) as db:
        [(revenue,)] = db.execute("SELECT sum(revenue) FROM agg_category_metrics").fetchall()
    category_rows = table(settings, "gold/agg_category_metrics", ["revenue"])
    assert revenue == sum(category_rows["revenue"].to_pylist())
    assert [stream["committed"] for stream in status["streams"]] == [sent] * 2

    statement = "SELECT count(*) AS n FROM silver.quarantine"
    [answer] = json.loads(headwater(settings, "sql", "--json", statement).stdout)
    silver = table(settings, "silver/events", ["outcome"])
    outcomes = silver["outcome"].to_pylist()
    assert answer["n"] == outcomes.count("quarantined")
    statement = "SELECT layer, sum(events) AS n FROM gold.hourly_metrics GROUP BY ALL"
    served = json.loads(headwater(settings, "sql", "--json", statement).stdout)
    assert {row["layer"] for row in served} == {"batch", "speed"}
    assert sum(row["n"] for row in served) == outcomes.count("accepted")


def submitted(settings: Settings, script: str, *arguments: str) -> str:
    """What a job by spark-submit prints."""
    done = subprocess.run(
        [str(BIN / "spark-submit"), script, "--env", "local", *arguments],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}: {done.stderr[-3000:]}"
    return done.stdout


def test_a_job_by_spark_submit(bootstrap: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, bootstrap)
    send_shop(settings, Sending(events=500, seed=5))
    submitted(settings, "streaming/bronze.py", "--available-now")
    assert table(settings, "bronze/events", ["offset"]).num_rows == 500


@pytest.mark.long
def test_every_job_by_spark_submit(bootstrap: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, bootstrap)
    headwater(settings, "produce", "--events", "2000", "--seed", "5")
    for script, *arguments in (
        ("streaming/bronze.py", "--available-now"),
        ("streaming/silver.py", "--available-now"),
        ("batch/reconcile.py",),
        ("batch/gold.py",),
        ("batch/maintain.py", "--dry-run", "gold.fact_orders"),
        ("batch/quality.py",),
        ("batch/publish.py",),
        ("batch/audit.py", "--json"),
    ):
        said = submitted(settings, script, *arguments)
    # spark-submit puts what a script says on stderr on stdout as well.
    [balance] = json.loads(said.splitlines()[-1])
    assert (balance["bronze"], balance["pending"]) == (2_000, 0)
    assert unlike_the_ledger(settings) == []
    broken = headwater(settings, "sql", "SELECT * FROM silver.nothing", code=1)
    assert "silver.order" in broken.stderr, "an unknown table lists those that are"
    assert "Traceback" not in broken.stderr
    assert "at org.apache.spark" not in broken.stderr


def test_commands_of_the_readme_exist() -> None:
    """Every `headwater …` in README and docs is a command with these options."""
    from headwater.cli import COMMANDS, cli

    texts = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = 0
    for text in texts:
        for line in re.findall(r"^ *(?:\.venv/bin/)?headwater (.+)$", text.read_text(), re.M):
            words = line.split(" #")[0].split()
            assert words[0] in COMMANDS, f"{text.name}: {line}"
            command = cli.get_command(None, words[0])  # type: ignore[arg-type]
            assert command is not None
            known = {option for parameter in command.params for option in parameter.opts}
            if isinstance(command, click.Group):
                context = click.Context(command)
                for name in command.list_commands(context):
                    sub = command.get_command(context, name)
                    assert sub is not None
                    known |= {option for parameter in sub.params for option in parameter.opts}
            used = [word for word in words[1:] if word.startswith("--")]
            assert set(used) <= known, f"{text.name}: {line}"
            found += 1
    assert found > 10
