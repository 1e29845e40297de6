"""`headwater config`: every setting with where it is from, and all that is missing at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from headwater import config
from headwater.cli import cli
from lakehouse import redact
from lakehouse import settings as settings_files
from lakehouse.errors import SettingsError

FILE = """
storage: {folder}
broker:
  bootstrap: example.servicebus.windows.net:9093
  security_protocol: SASL_SSL
  sasl_mechanism: PLAIN
  sasl_username: $ConnectionString
  sasl_password: env:THE_CONNECTION_STRING
spark:
  spark.hadoop.fs.azure.account.key.example.dfs.core.windows.net: planted-account-key
  spark.sql.shuffle.partitions: "8"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("THE_CONNECTION_STRING", "planted-connection-string")
    path = tmp_path / "mine.yml"
    path.write_text(FILE.format(folder=tmp_path / "data"))
    return str(path)


def values(file: str, *options: str) -> dict[str, tuple[str, str]]:
    done = CliRunner().invoke(cli, ["config", "show", "--json", "--env", file, *options])
    assert done.exit_code == 0, done.output
    return {one["key"]: (one["value"], one["origin"]) for one in json.loads(done.output)}


def test_every_setting_is_shown_with_where_it_is_from(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_TOPICS__EVENTS", "from.a.variable")
    monkeypatch.setenv("HEADWATER_STREAM", '{"trigger": "5 seconds"}')
    found = values(file, "--data", str(tmp_path / "other"))
    assert found["topics.events"] == ("from.a.variable", "HEADWATER_TOPICS__EVENTS")
    assert found["stream.trigger"] == ("5 seconds", "HEADWATER_STREAM")
    assert found["stream.restarts"] == ("10", "default")
    assert found["storage"] == (str(tmp_path / "other"), "--data")
    assert found["broker.sasl_username"] == ("$ConnectionString", "mine.yml")
    assert found["spark.spark.sql.shuffle.partitions"] == ("8", "mine.yml")
    assert found["environment"] == ("mine", "--env")
    keys = {".".join(parts) for parts, _, _ in config.leaves(settings_files.load(file))}
    assert set(found) == keys
    assert {"bridge.to.sasl_password", "identity.client_secret", "mysql.port"} <= keys


def test_secrets_are_shown_as_references_and_masked_elsewhere(file: str) -> None:
    done = CliRunner().invoke(cli, ["config", "show", "--env", file], env={"COLUMNS": "300"})
    assert done.exit_code == 0
    assert "env:THE_CONNECTION_STRING" in done.output
    assert "planted" not in done.output
    assert values(file)["spark.spark.hadoop.fs.azure.account.key.example.dfs.core.windows.net"] == (
        "*****",
        "mine.yml",
    )


def check(*options: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(cli, ["config", "check", *options])
    return done.exit_code, done.output.splitlines()


def test_all_that_azure_lacks_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTHUB_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("MYSQL_PASSWORD", raising=False)
    monkeypatch.setenv("HEADWATER_MYSQL__SSL_CA", "/no/such/file")
    monkeypatch.setenv("HEADWATER_PUBLISH_TO", '["mysql", "moon"]')
    code, lines = check("--env", "azure")
    assert code == 1
    for key, remedy in (
        ("storage", "set HEADWATER_STORAGE"),
        ("broker.bootstrap", "set HEADWATER_BROKER__BOOTSTRAP"),
        ("mysql.host", "set HEADWATER_MYSQL__HOST"),
        ("broker.sasl_password", "no environment variable EVENTHUB_CONNECTION_STRING"),
        ("mysql.password", "no environment variable MYSQL_PASSWORD"),
        ("mysql.ssl_ca", "set HEADWATER_MYSQL__SSL_CA"),
        ("publish_to", "'moon' is no kind of warehouse"),
    ):
        assert [line for line in lines if line.startswith(f"{key}: ") and remedy in line], key
    assert len(lines) == 7


@pytest.fixture
def in_azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that conf/environments/azure.yml wants."""
    certificates = tmp_path / "ca.pem"
    certificates.write_text("-----BEGIN CERTIFICATE-----\n")
    for name, value in {
        "HEADWATER_STORAGE": "abfss://lakehouse@example.dfs.core.windows.net/headwater",
        "HEADWATER_BROKER__BOOTSTRAP": "example.servicebus.windows.net:9093",
        "HEADWATER_MYSQL__HOST": "example.mysql.database.azure.com",
        "HEADWATER_MYSQL__SSL_CA": str(certificates),
        "EVENTHUB_CONNECTION_STRING": (
            "SharedAccessKeyName=send;SharedAccessKey=planted=;Endpoint=sb://example.servicebus"
            ".windows.net/"
        ),
        "MYSQL_PASSWORD": "planted",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("in_azure")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EVENTHUB_CONNECTION_STRING", "Endpoint=sb://example.servicebus.windows.net/",
         "broker.sasl_password: env:EVENTHUB_CONNECTION_STRING is no connection string"),
        ("EVENTHUB_CONNECTION_STRING", "Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey=",
         "broker.sasl_password: env:EVENTHUB_CONNECTION_STRING is no connection string"),
        ("HEADWATER_STORAGE", "abfss://CONTAINER@example.dfs.core.windows.net/x",
         "storage: CONTAINER in abfss://CONTAINER@example.dfs.core.windows.net/x stands for"),
        ("HEADWATER_IDENTITY__TENANT_ID", "my tenant", "identity.tenant_id: "),
        ("HEADWATER_IDENTITY__AUTHORITY", "http://evil.example", "identity.authority: "),
    ],
)  # fmt: skip
def test_what_would_only_be_refused_later_is_said(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    code, lines = check("--env", "azure")
    assert code == 1
    assert [line for line in lines if line.startswith(said)], lines


@pytest.mark.usefixtures("in_azure")
def test_an_authority_may_be_written_as_in_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_IDENTITY__AUTHORITY", "https://login.microsoftonline.us/")
    loaded = settings_files.load("azure")
    assert loaded.identity.authority == "login.microsoftonline.us"


@pytest.mark.usefixtures("in_azure")
def test_nothing_is_missing_where_all_is_given() -> None:
    code, [said, *notes] = check("--env", "azure")
    assert (code, said) == (0, "environment azure: nothing is missing")
    assert [note.split()[1] for note in notes] == ["broker.sasl_login_module", "adls.auth"]


@pytest.mark.usefixtures("in_azure")
@pytest.mark.parametrize(
    "given",
    [
        {"DATABRICKS_RUNTIME_VERSION": "18.0"},
        {
            "HEADWATER_BROKER__SASL_LOGIN_MODULE": "",
            "HEADWATER_ADLS__AUTH": "key",
            "HEADWATER_ADLS__KEY": "env:ACCOUNT_KEY",
            "ACCOUNT_KEY": "cGxhbnRlZA==",
        },
    ],
)
def test_what_is_not_so_everywhere_is_noted_elsewhere(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert check("--env", "azure") == (0, ["environment azure: nothing is missing"])


BROKEN = [
    ({"HEADWATER_PUBLISH_TO": "[1]"}, "publish_to: Input should be a valid string"),
    ({"HEADWATER_PUBLISH_TO": '[{"a":1}]'}, "publish_to: Input should be a valid string"),
    ({"HEADWATER_PUBLISH_TO": '[["a"]]'}, "publish_to: Input should be a valid string"),
    ({"HEADWATER_TOPICS": '{"events":{"a":1}}'}, "topics.events: Input should be a valid string"),
    ({"HEADWATER_SPARK__a__b": "x"}, "spark.a: Input should be a valid string"),
    ({"HEADWATER_BRIDGE__TOPIC": "a b/.."}, "bridge.topic: String should match"),
    ({"HEADWATER_BRIDGE__GROUP": ""}, "bridge.group: String should have at least 1"),
    ({"HEADWATER_MYSQL__HOST": "user:pw@db.example.net"}, "mysql.host: has to be a name"),
]


@pytest.mark.parametrize(("given", "begin"), BROKEN, ids=[str(one[0]) for one in BROKEN])
def test_values_of_the_wrong_form_are_a_line(
    given: dict[str, str], begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code, lines = check()
    assert code == 1
    assert [line.startswith(begin) for line in lines] == [True], lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("publish_to: [mysql, null]\nmysql: {password: env:HOME}\n", "publish_to: Input should be"),
        ("broker: {5: x}\n", "line 1, column 10 is not YAML: a key that is no text"),
        ("true: x\n", "line 1, column 1 is not YAML: a key that is no text"),
        ("spark: {a: {b: c}}\n", "spark.a: Input should be a valid string"),
        (
            "stream: {restarts: 1}\nstream: {restarts: 2}\n",
            "line 2, column 1 .*stream stands twice",
        ),
    ],
)
def test_files_of_the_wrong_form_are_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    code, [line] = check("--env", str(path))
    assert code == 1
    assert re.search(said, line), line


PLANTED = "PLANTED99887766"
MISPLACED = {
    "HEADWATER_STORAGE": (
        f"abfss://lake@account/x?sig={PLANTED}",
        f"abfss://lake@account.dfs.core.windows.net/x?sig={PLANTED}",
        f"abfss://lake:{PLANTED}@account.dfs.core.windows.net/x",
    ),
    "HEADWATER_BROKER__SASL_PASSWORD": (
        f"env:Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey={PLANTED}=",
        f"Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey={PLANTED}=",
        f"keyvault:vault.example.net/{PLANTED}==",
    ),
    "HEADWATER_MYSQL__HOST": (f"user:{PLANTED}@db.example.net",),
    "HEADWATER_SYNAPSE__STAGING": (f"abfss://lake@account.dfs.core.windows.net/x?sig={PLANTED}",),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in MISPLACED.items() for value in values]
)
def test_a_secret_in_the_wrong_place_is_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    for command in (["config", "check"], ["config", "check", "--env", "azure"], ["config", "show"]):
        done = CliRunner().invoke(cli, command, env={"COLUMNS": "400"})
        assert done.exit_code != 0
        # As stderr has it, which is masked for its looks.
        assert PLANTED not in redact.redacted(f"{done.output}{done.exception}")
        assert PLANTED not in done.stdout


@pytest.mark.parametrize(
    "storage",
    [
        "ABFS://c@a.b/x",
        "Abfss://nonsense",
        "wasb://lake@account.blob.core.windows.net/x",
        "wasbs://lake@account.blob.core.windows.net/x",
        "http://x/y",
        "adl://account.azuredatalakestore.net/x",
        "://x",
        " abfss://lake@account.dfs.core.windows.net/x",
        "abfss://lake@account.dfs.core.windows.net/x\n",
        "abfss://lake@account.dfs.core.windows.net:443/x",
        "abfss://lake@account.dfs.core.windows.net/x#y",
        "abfss://lake@account.blob.core.windows.net/x",
        "abfss://lake@account..core.windows.net/x",
        "abfss://Lake@account.dfs.core.windows.net/x",
        "abfss://[lake@account.dfs.core.windows.net/x",
        "abfss://la--ke@account.dfs.core.windows.net/x",
    ],
)
def test_places_that_are_none(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_STORAGE", storage)
    code, lines = check("--env", "azure")
    assert code == 1
    assert [line for line in lines if line.startswith("storage: ")]


@pytest.mark.parametrize(
    "storage",
    [
        "abfss://lake@account.dfs.core.windows.net",
        "abfss://lake@account.dfs.core.windows.net/a/b-c_d=e",
        "abfss://my-lake@account.dfs.core.chinacloudapi.cn/x",
        "abfss://lake@account.z12.dfs.storage.azure.net/x",
        "abfss://0a1b2c3d-0000-4000-8000-000000000000@onelake.dfs.fabric.microsoft.com/x",
        "s3a://bucket/x",
        "file:///tmp/x",
    ],
)
def test_places_that_are_some(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_STORAGE", storage)
    _, lines = check("--env", "azure")
    assert not [line for line in lines if line.startswith("storage: ")]


@pytest.mark.usefixtures("in_azure")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {
                "HEADWATER_BROKER__BOOTSTRAP": "localhost:9092,kafka.example.net:9092",
                "HEADWATER_BROKER__SECURITY_PROTOCOL": "PLAINTEXT",
                "HEADWATER_BROKER__SASL_MECHANISM": "",
                "HEADWATER_BROKER__SASL_LOGIN_MODULE": "",
            },
            "broker.security_protocol: PLAINTEXT has kafka.example.net reached without TLS",
        ),
        (
            {"HEADWATER_SPARK": '{"spark.hadoop.fs.azure.account.key.x": "planted"}'},
            "spark: spark.hadoop.fs.azure.account.key.x has a value in the settings",
        ),
        (
            {"HEADWATER_ADLS__AUTH": "key", "HEADWATER_ADLS__KEY": "env:MYSQL_PASSWORD"},
            "adls.key: env:MYSQL_PASSWORD is no key of a storage account",
        ),
    ],
)
def test_what_is_neither_safe_nor_sound(
    given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSQL_PASSWORD", "no base64!")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code, [line] = check("--env", "azure")
    assert code == 1
    assert line.startswith(said)
    assert "planted" not in line


@pytest.mark.usefixtures("in_azure")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EVENTHUB_CONNECTION_STRING", "", "broker.sasl_password: secret env:.* it is empty"),
        ("MYSQL_PASSWORD", "\n", "mysql.password: secret env:MYSQL_PASSWORD: it is empty"),
        ("EVENTHUB_CONNECTION_STRING", "rubbish", "broker.sasl_password: .* no connection string"),
        ("HEADWATER_BROKER__SASL_USERNAME", "", "broker: sasl_username: wanted with PLAIN"),
        ("HEADWATER_BROKER__SASL_USERNAME", "root", r"broker.sasl_username: .* \$Connection"),
        ("HEADWATER_STORAGE", "", "storage: a folder or a URI is wanted"),
        ("HEADWATER_STORAGE", "dbfs:/mnt/lake", "storage: dbfs:/mnt/lake is neither a folder nor"),
        ("HEADWATER_STORAGE", "abfss:/lake@a.dfs.core.windows.net/x", "storage: abfss:/.* neither"),
        ("HEADWATER_STORAGE", "abfss://lake@.dfs.core.windows.net/x", "storage: .* no container"),
        ("HEADWATER_STORAGE", "abfs://lake@a.dfs.core.windows.net/x", "storage: .* without TLS"),
        ("HEADWATER_MYSQL__SSL_MODE", "preferred", "mysql: ssl_mode .preferred. verifies nobody"),
        (
            "HEADWATER_SPARK",
            '{"spark.hadoop.fs.azure.always.use.https": "false"}',
            "spark: .*always.use.https = false .* without TLS",
        ),
        ("HEADWATER_CHECKPOINT_ROOT", "dbfs:/x", "checkpoint_root: dbfs:/x is neither"),
        ("HEADWATER_MYSQL__HOST", "", "mysql.host: has to have a name"),
        ("HEADWATER_MYSQL__HOST", ".mysql.database.azure.com", "mysql.host: has to have a name"),
        ("HEADWATER_BROKER__BOOTSTRAP", ".servicebus.windows.net:9093", "broker.bootstrap: has to"),
        (
            "HEADWATER_BROKER__BOOTSTRAP",
            "example.net:99999",
            "broker.bootstrap: has to be host:port",
        ),
        ("HEADWATER_TOPICS__EVENTS", "", "topics.events: "),
        ("HEADWATER_STREAM__TRIGGER", "fast", "stream.trigger: "),
        (
            "HEADWATER_MYSQL__SSL_CA",
            "/etc/passwd",
            "mysql.ssl_ca: no certificate is in /etc/passwd",
        ),
        (
            "HEADWATER_BRIDGE__DEAD_LETTERS",
            "shop.events",
            "bridge.dead_letters: shop.events is the",
        ),
        (
            "HEADWATER_BROKER",
            '{"security_protocol": "PLAINTEXT", "sasl_mechanism": ""}',
            "broker: security_protocol: Event Hubs wants SASL_SSL",
        ),
    ],
)
def test_what_would_fail_on_the_day_is_said(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_BRIDGE__TO__BOOTSTRAP", "elsewhere.example.net:9092")
    monkeypatch.setenv(name, value)
    code, lines = check("--env", "azure")
    assert code == 1
    assert [line for line in lines if re.match(said, line)], lines


@pytest.mark.usefixtures("in_azure")
def test_names_in_capitals_are_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_TOPICS__EVENTS", "SHOP.events")
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.0")
    assert check("--env", "azure") == (0, ["environment azure: nothing is missing"])


def test_a_line_that_is_no_yaml_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text("broker:\n  sasl_password: planted-plain-secret: x\n")
    code, [line] = check("--env", str(path))
    assert code == 1
    assert line.startswith(f"{path}, line 2, column 38 is not YAML: ")
    assert "planted" not in line


def test_a_server_on_another_machine_is_verified() -> None:
    assert settings_files.MySQL(host="db.example.net").verified
    assert settings_files.MySQL(host="warehouse").verified
    assert settings_files.MySQL(ssl_ca="ca.pem").verified
    assert settings_files.MySQL(ssl_mode="verify_identity").verified
    for host in ("127.0.0.1", "localhost", "::1"):
        assert not settings_files.MySQL(host=host).verified
    assert not settings_files.MySQL(host="warehouse", ssl_mode="preferred").verified
    with pytest.raises(ValidationError, match="verifies nobody"):
        settings_files.MySQL(ssl_mode="preferred", ssl_ca="ca.pem")


def test_a_laptop_lacks_nothing() -> None:
    assert check() == (0, ["environment local: nothing is missing"])


def test_keys_that_do_not_fit_are_named_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.yml"
    path.write_text("stream: {state_partitions: 0, trigge: x}\nmysql: {password: plain}\n")
    monkeypatch.setenv("HEADWATER_BROKER__BOOTSTRP", "x")
    code, lines = check("--env", str(path))
    assert code == 1
    assert len(lines) == 4
    assert "HEADWATER_BROKER__BOOTSTRP names no setting" in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == [
        "stream.state_partitions", "stream.trigge", "mysql.password"
    ]  # fmt: skip
    assert "HEADWATER_MYSQL__PASSWORD" in lines[3]


def test_a_login_that_lacks_something_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    login = "security_protocol: SASL_SSL, sasl_mechanism"
    as_identity = f"bootstrap: h:9093, {login}: OAUTHBEARER"
    by_password = f"bootstrap: there:9093, {login}: PLAIN, sasl_username: me"
    path.write_text(f"broker: {{{as_identity}}}\nbridge: {{to: {{{by_password}}}}}\n")
    code, lines = check("--env", str(path))
    assert code == 1
    assert [line.split(":")[0] for line in lines] == [
        "identity.client_secret",
        "bridge.to.sasl_password",
    ]


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "find_spec", lambda _: None)
    code, lines = check()
    assert code == 1
    assert lines == [
        "package confluent-kafka is not installed: pip install confluent-kafka",
        "package duckdb is not installed: pip install duckdb",
    ]


def test_one_mistake_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVENTHUB_CONNECTION_STRING", "MYSQL_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HEADWATER_STREEM": "0",
        "HEADWATER_STREAM__STATE_PARTITIONS": "0",
        "HEADWATER_TOPICS": "{no mapping",
        "HEADWATER_RUNTIME": "",
        "HEADWATER_ADLS__AUTH": "service_principal",
        "HEADWATER_BROKER__BOOTSTRAP": "example.servicebus.windows.net",
    }.items():
        monkeypatch.setenv(name, value)
    code, lines = check("--env", "azure")
    assert code == 1
    for begin in (
        "environment variable HEADWATER_STREEM names no setting",
        "stream.state_partitions: Input should be greater than or equal to 1",
        "HEADWATER_TOPICS is no JSON: give a mapping",
        "runtime: has to be a local folder",
        "adls.auth: service_principal wants identity.tenant_id",
        "broker.bootstrap: has to be host:port",
        "storage: ACCOUNT in abfss://",
        "mysql.host: SERVER in",
        "mysql.password: secret env:MYSQL_PASSWORD",
        "broker.sasl_password: secret env:EVENTHUB_CONNECTION_STRING",
    ):
        assert len([line for line in lines if line.startswith(begin)]) == 1, (begin, lines)
    assert not any(": :" in line or "or HEADWATER_)" in line for line in lines)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            {
                "HEADWATER_BROKER__SASL_USERNAME": "",
                "HEADWATER_MYSQL__SSL_MODE": "preferred",
                "HEADWATER_MYSQL__SSL_CA": "/a.pem",
            },
            ("broker: sasl_username: wanted with PLAIN", "mysql: ssl_mode `preferred` verifies"),
        ),
        (
            {"HEADWATER_BROKER__SASL_MECHANISM": "OAUTHBEARER"},
            ("broker: sasl_login_module is not one for sasl_mechanism",),
        ),
    ],
)
def test_settings_that_do_not_go_together_hide_none_of_their_group(
    given: dict[str, str], wanted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EVENTHUB_CONNECTION_STRING", "MYSQL_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code, lines = check("--env", "azure")
    assert code == 1
    for begin in (
        *wanted,
        "storage: ACCOUNT in abfss://",
        "broker.bootstrap: NAMESPACE in",
        "broker.sasl_password: secret env:EVENTHUB_CONNECTION_STRING",
        "mysql.host: SERVER in",
        "mysql.password: secret env:MYSQL_PASSWORD",
    ):
        assert len([line for line in lines if line.startswith(begin)]) == 1, (begin, lines)


def test_what_a_warehouse_is_not_opened_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lake.yml"
    file.write_text("publish_to: [synapse, mysql, postgresql]\nmysql: {host: db.example.net}\n")
    monkeypatch.setenv("HEADWATER_POSTGRESQL__HOST", "pg.example.net")
    code, lines = check("--env", str(file))
    assert code == 1
    for begin in (
        "synapse.server: wanted to publish: set HEADWATER_SYNAPSE__SERVER",
        "synapse.staging: wanted to publish: set HEADWATER_SYNAPSE__STAGING",
        "mysql.password: db.example.net wants one: set HEADWATER_MYSQL__PASSWORD",
        "postgresql.password: pg.example.net wants one: set HEADWATER_POSTGRESQL__PASSWORD",
    ):
        assert len([line for line in lines if line.startswith(begin)]) == 1, (begin, lines)


def test_what_is_no_json_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_SPARK", "{bad")
    done = CliRunner().invoke(cli, ["config", "show"])
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith("HEADWATER_SPARK is no JSON: give a mapping")


@pytest.mark.parametrize("given", ["duckdb, mysql", '["duckdb", "mysql"]', "duckdb,mysql,"])
def test_a_list_is_json_or_names(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_PUBLISH_TO", given)
    assert settings_files.load().publish_to == ("duckdb", "mysql")


def test_no_secret_of_spark_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "spark.hadoop.fs.azure.account.oauth2.client.secret.one.dfs.core.windows.net": "abc~123456",
        "spark.hadoop.fs.s3a.secret.key": "planted/of=s3",
        "spark.ssl.keyPassword": "ab&cdefghi,jkl",
        "spark.hadoop.fs.azure.sas.box.one.blob.core.windows.net": "sv=1&sig=planted-signature",
        "spark.hadoop.javax.jdo.option.ConnectionURL": "jdbc:x://h/d?user=u;pw=planted-url",
        "spark.my.link": "https://one.example.net/box?sv=1&sig=planted-signature",
    }
    monkeypatch.setenv("HEADWATER_SPARK", json.dumps(secrets))
    path = tmp_path / "x.yml"
    path.write_text("{}")
    found = values(str(path))
    assert {found[f"spark.{key}"][0] for key in secrets} == {"*****"}
    loaded = settings_files.load(str(path))
    assert not any(secret in f"{loaded!r} {loaded}" for secret in secrets.values())
    line = redact.redacted(f"bad {'='.join(next(iter(secrets.items())))} there")
    assert "abc~123456" not in line


def test_names_of_variables_are_the_same_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("headwater_spark", "{bad")
    code, lines = check()
    assert code == 1
    assert [line.split(":")[0] for line in lines] == ["HEADWATER_SPARK is no JSON"]


def test_an_environment_is_called_as_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text("environment: 5\n")
    code, [line] = check("--env", str(path))
    assert code == 1
    assert line == f"{path}: environment is the name of the file, and no setting: remove it"
