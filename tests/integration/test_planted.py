"""Secrets planted wherever one can be given, looked for in all that a full run writes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote, quote_plus

import psutil
import pyarrow.parquet as pq
import pytest

from lakehouse import settings as settings_files
from lakehouse.settings import MySQL, PostgreSQL, Settings
from tests.helpers import (
    BIN,
    environment,
    free_port,
    headwater,
    settings_for,
    table,
    wait_until,
)
from tests.house import category
from tests.secured import TOKEN, Secured, Vault

EVENTS = 2_000
# Everything that Spark and its clients have to say, into a file.
LOG4J = """\
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {file}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c: %m%n%ex
"""
PAGES = ("environment/", "SQL/", "StreamingQuery/", "jobs/", "executors/")


# Stands in for what a Databricks Runtime brings: scopes are folders, keys their files.
RUNTIME = """\
from pathlib import Path
from types import SimpleNamespace
get = lambda scope, key: Path({folder!r}, scope, key).read_text()
dbutils = SimpleNamespace(secrets=SimpleNamespace(get=get))
"""
PAYMENTS = """\
payment_id,order_id,method,status,amount,currency
Y0000000001,O0000000001,card,captured,1.50,EUR
"""


def forms(secret: str) -> set[str]:
    """How a secret may turn up in text."""
    escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
    return {
        secret,
        escaped,
        escaped.replace("\\", "\\\\").replace('"', '\\"'),
        json.dumps(secret)[1:-1],
        quote(secret, safe=""),
        quote_plus(secret),
        secret.replace("&", "&amp;").replace('"', "&quot;"),
        base64.b64encode(secret.encode()).decode(),
    }


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Every file under a folder, by name and as text; those of Parquet as what is in them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix == ".parquet":
            yield str(path), repr(pq.ParquetFile(path).read().to_pylist())
        elif path.is_file():
            yield str(path), path.read_bytes().decode(errors="replace")


def pages(port: int) -> Iterator[tuple[str, str]]:
    """What Spark's own pages show of a running driver, and what its API answers."""
    base = f"http://127.0.0.1:{port}"

    def text(url: str) -> str:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read().decode())

    for page in PAGES:
        yield page, text(f"{base}/{page}")
    [application] = json.loads(text(f"{base}/api/v1/applications"))
    for part in ("environment", "sql?details=true&planDescription=true", "jobs"):
        yield part, text(f"{base}/api/v1/applications/{application['id']}/{part}")


@pytest.fixture
def vault(secured: Secured) -> Iterator[Vault]:
    running = Vault(secured.authority)
    yield running
    running.stop()


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_no_planted_secret_is_in_anything_that_a_full_run_writes(
    secured: Secured,
    mysql: MySQL,
    postgresql: PostgreSQL,
    vault: Vault,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broker, hub, database, storage and identity have a secret each; commands succeed and fail."""
    database, storage, identity = os.environ["TEST_SECRET"], uuid.uuid4().hex, f"{uuid.uuid4()}~&+/"
    hub, signature, principal = f"{uuid.uuid4().hex}+/=", uuid.uuid4().hex, uuid.uuid4().hex
    planted = {
        "PLANTED_BROKER": secured.password,
        "PLANTED_CLIENT": secured.tokens.secret,
        "PLANTED_IDENTITY": identity,
        # A connection string of a hub that is not there.
        "PLANTED_HUB": f"Endpoint=sb://127.0.0.1:9/;SharedAccessKeyName=x;SharedAccessKey={hub}",
    }
    planted["PLANTED_ACCOUNT"] = base64.b64encode(uuid.uuid4().bytes * 4).decode()
    for name, secret in planted.items():
        monkeypatch.setenv(name, secret)
    planted["TEST_SECRET_2"] = os.environ["TEST_SECRET_2"]
    planted |= {"storage": storage, "hub": hub, "signature": signature, "database": database}
    planted |= {"token of the vault": TOKEN, "service principal": principal}
    # One password is in a scope, one in a vault, which an identity's token opens.
    (tmp_path / "scope").mkdir()
    (tmp_path / "scope" / "mysql").write_text(database)
    runtime = tmp_path / "runtime" / "databricks" / "sdk"
    runtime.mkdir(parents=True)
    (runtime / "runtime.py").write_text(RUNTIME.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(tmp_path / "runtime")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'runtime'}:{os.environ.get('PYTHONPATH', '')}")
    vault.secrets["postgresql"] = os.environ["TEST_SECRET_2"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secured.authority.ca))
    for name, value in vault.identity().items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "written"
    for name in ("events", "local", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "log4j2.properties").write_text(LOG4J.format(file=folder / "spark.log"))
    broker = secured.by_password(sasl_password="env:PLANTED_BROKER")
    ours = secured.identity().model_copy(update={"client_secret": "env:PLANTED_IDENTITY"})
    there = mysql.model_copy(update={"password": "databricks:scope/mysql"})
    in_vault = f"keyvault:{vault.host}/postgresql"
    postgresql = postgresql.model_copy(update={"password": in_vault})
    settings = settings_for(folder, broker.bootstrap)
    port = free_port()
    account = "spark.hadoop.fs.azure.account"
    onwards = {f"to__{name}": value for name, value in broker.model_dump().items()}
    onwards = {k: v for k, v in onwards.items() if v not in ("", None)} | {"topic": "onwards"}
    extra = variables(broker=broker, identity=ours, mysql=there, postgresql=postgresql) | {
        **{f"HEADWATER_BRIDGE__{name}".upper(): str(value) for name, value in onwards.items()},
        "HEADWATER_SPARK": json.dumps(
            {
                f"{account}.key.one.dfs.core.windows.net": storage,
                f"{account}.oauth2.client.secret.one.dfs.core.windows.net": principal,
                "spark.hadoop.fs.azure.sas.box.one.blob.core.windows.net": f"v=1&sig={signature}",
                "spark.eventLog.enabled": "true",
                "spark.eventLog.compress": "false",
                "spark.eventLog.dir": (folder / "events").as_uri(),
                "spark.ui.enabled": "true",
                "spark.ui.port": str(port),
            }
        ),
        "HEADWATER_PUBLISH_TO": json.dumps(["duckdb", "mysql", "postgresql"]),
        # What is put down for a while is looked at, too, as far as it is left.
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "TMPDIR": str(folder / "tmp"),
        "SPARK_SUBMIT_OPTS": f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
    }
    said: list[tuple[str, str]] = []

    def run(*words: str, code: int = 0, **changed: str) -> str:
        done = headwater(settings, *words, code=code, extra=extra | changed)
        said.append((" ".join(words), done.stdout + done.stderr))
        return done.stdout + done.stderr

    run("produce", "--events", str(EVENTS))
    said += while_it_streams(settings, extra, port)
    by_token = {
        **dict.fromkeys(extra.keys() & {"HEADWATER_BROKER__SASL_USERNAME"}, ""),
        **variables(broker=secured.by_token()),
        "HEADWATER_BROKER__SASL_PASSWORD": "env:PLANTED_BROKER",
        "HEADWATER_IDENTITY__CLIENT_SECRET": "env:PLANTED_CLIENT",
    }
    run("produce", "--events", "100", "--continue", code=0, **by_token)
    run("stream", "--available-now", code=0, **by_token)
    run("reconcile")
    run("gold")
    run("quality")
    run("publish")
    run("maintain")
    run("audit", "--json")
    run("bridge", "--available-now")
    with patch.dict(os.environ, environment(settings) | extra):
        loaded = settings_files.load()
    said.append(("settings", f"{loaded!r} {loaded} {loaded.broker!r}"))
    in_azure = {
        "HEADWATER_STORAGE": "abfss://box@one.dfs.core.windows.net/lake",
        "HEADWATER_RUNTIME": str(folder / "runtime"),
        "HEADWATER_ADLS__AUTH": "key",
        "HEADWATER_ADLS__KEY": "env:PLANTED_ACCOUNT",
    }
    assert "env:PLANTED_ACCOUNT" in run("config", "show", code=0, **in_azure)
    # What is secret among Spark's own properties is named there.
    run("config", "check", code=1, **in_azure)
    run("config", "check", code=1)
    lake = f"abfss://box@one.dfs.core.windows.net/lake?sig={signature}"
    for misplaced in (
        {"HEADWATER_STORAGE": lake},
        {"HEADWATER_BROKER__SASL_PASSWORD": f"env:{planted['PLANTED_HUB']}"},
        {"HEADWATER_MYSQL__HOST": f"writer:{database}@db.example.net"},
    ):
        run("config", "check", code=1, **in_azure | misplaced)
        run("config", "show", code=2, **in_azure | misplaced)
    for words in ("status", "config show", "report", "doctor"):
        run(*words.split())
    run("catalog", "sql", HEADWATER_UNITY__CATALOG="main")
    run("synapse", HEADWATER_SYNAPSE__STAGING="abfss://box@one.dfs.core.windows.net/stage")
    drops = tmp_path / "drops"
    drops.mkdir()
    (drops / "1.csv").write_text(PAYMENTS)
    os.utime(drops / "1.csv", (0, 0))
    run("ingest", str(drops), "--entity", "payment")
    run("stream", "--available-now")
    run("reconcile", "--full")
    broken = run("quarantine", "list", "--rule", "malformed_json", "--json")
    listed = json.loads(broken[broken.index("{") :].splitlines()[0])
    record = listed["records"][0]["record"]
    run("quarantine", "show", record, "--reveal")
    (drops / "new").write_bytes(category("repaired"))
    run("quarantine", "repair", record, "--from", str(drops / "new"))
    run("quarantine", "replay")
    run("replay", "--from-offset", "0")
    run("gold", "--rebuild")
    run("publish")
    subject = table(settings, "gold/dim_users", ["customer_id"])["customer_id"].to_pylist()[0]
    run("erase", "--subject", subject, "--yes")
    # What fails says where it was going, and as whom.
    wrong = {"HEADWATER_MYSQL__USER": "nobody"}
    assert "nobody" in run("publish", "--full", "--to", "mysql", code=1, **wrong)
    wrong = {"HEADWATER_POSTGRESQL__USER": "nobody"}
    assert "nobody" in run("publish", "--full", "--to", "postgresql", code=1, **wrong)
    away = {"HEADWATER_BROKER__SASL_USERNAME": "somebody"}
    run("produce", "--events", "1", code=1, **away)
    run("stream", "--available-now", code=1, **away)
    by_amqp = {
        "HEADWATER_BRIDGE__TO__PROTOCOL": "amqp",
        "HEADWATER_BRIDGE__TO__BOOTSTRAP": "127.0.0.1:9",
        "HEADWATER_BRIDGE__TO__SASL_PASSWORD": "env:PLANTED_HUB",
    }
    run("bridge", "--available-now", code=1, **by_amqp)

    looked_at = [*said, *texts(folder)]
    names = [name for name, _ in looked_at]
    kinds = "spark.log", "written/events/", "silver/events/", "ledger/", "environment", "arguments"
    for kind in kinds:
        assert any(kind in name for name in names), f"nothing of {kind} was looked at"
    # What is no secret is found there: the search can tell.
    for shown, kind in (
        (broker.bootstrap, "spark.log"),
        ("spark.redaction.regex", "written/events/"),
        (settings.topics.events, "silver/events/"),
        ("spark.redaction.regex", "environment"),
        ("spark.redaction.regex", "arguments"),
    ):
        assert any(kind in name and shown in text for name, text in looked_at), (shown, kind)
    log = (folder / "spark.log").read_text()
    assert "sasl.jaas.config = [hidden]" in log
    # Clients say as which group they read: one for each query.
    for query in ("bronze", "silver"):
        assert f"group.id = headwater-{query}-" in log
    found = [
        (name, of)
        for name, text in looked_at
        for of, secret in planted.items()
        if any(form in text for form in forms(secret))
    ]
    assert found == []


def variables(**models: object) -> dict[str, str]:
    """Groups of settings as variables of the environment."""
    return {
        f"HEADWATER_{group}__{name}".upper(): str(value)
        for group, model in models.items()
        for name, value in model.model_dump(exclude_defaults=True).items()  # type: ignore[attr-defined]
    }


def while_it_streams(settings: Settings, extra: dict[str, str], port: int) -> list[tuple[str, str]]:
    """What a running stream shows on Spark's pages once it has committed, and what it prints."""
    process = subprocess.Popen(
        [str(BIN / "headwater"), "stream"],
        env=environment(settings) | extra,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    done = Path(settings.checkpoints.removeprefix("file://")) / "silver/commits/0"

    def has_committed() -> bool:
        assert process.poll() is None, process.communicate()[0][-3000:]
        return done.exists()

    try:
        wait_until(has_committed, 180, "the first commit of Silver")
        shown = list(pages(port))
        for one in (mine := psutil.Process(process.pid)), *mine.children(recursive=True):
            # One that has ended meanwhile has none any more.
            with suppress(psutil.NoSuchProcess):
                shown.append(("arguments", " ".join(one.cmdline())))
    finally:
        process.terminate()
        printed = process.communicate(timeout=60)[0]
    return [*shown, ("stream", printed)]
