"""Typed settings: a file an environment under conf/environments, below HEADWATER_* variables.

A nested key is reached by two underscores: HEADWATER_BROKER__BOOTSTRAP=host:9092.
A secret is only ever a reference (see SECRET), resolved where it is used.
"""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableError

from lakehouse import redact
from lakehouse.errors import SettingsError

PREFIX, NESTED = "HEADWATER_", "__"
# An environment variable, a file, a secret of a Key Vault, a key of a Databricks secret scope.
SECRET = (
    r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|keyvault:[A-Za-z0-9.:-]+/[A-Za-z0-9-]+(/[0-9a-f]{32})?"
    r"|databricks:[^/]+/[^/]+)$"
)
BOOTSTRAP = re.compile(r"(?:[^\s:/\[\].][^\s:/\[\]]*|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
LAST_PORT = 65_535
# What begins as a URI does: one letter alone is a drive.
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# In capitals what stands for a name in conf/environments/azure.yml: `headwater config check` tells.
ADLS = re.compile(
    r"abfss://(?:CONTAINER|[$]root|[a-z0-9](?:-?[a-z0-9]){2,62})"
    r"@(?:ACCOUNT|[a-z0-9]{3,24})([.]z[0-9]{2})?[.]dfs(?:[.][a-z0-9-]+)+(?:/[^?#\s]*)?"
)
# Where tables can be, by Hadoop's file systems; and what is sent for anyone to read.
SCHEMES = ("abfss", "dbfs", "file", "gs", "hdfs", "s3", "s3a", "viewfs")
WITHOUT_TLS = {"abfs", "adl", "http", "wasb"}
AUTHORITY = r"[A-Za-z0-9.-]+(:[0-9]{1,5})?"
TOPIC = "[A-Za-z0-9._-]{1,249}"
EVENT_HUBS = re.compile(r"\.servicebus\.[a-z.]+:", re.IGNORECASE)
SecretRef = Annotated[str, StringConstraints(pattern=SECRET)]


def _listed(value: Any) -> Any:
    """A list in a variable: JSON, or names between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("is no JSON list, nor names between commas") from None
    return [name for part in value.split(",") if (name := part.strip())]


# NoDecode: else the library itself reads it, as JSON alone.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Topics(_Strict):
    """events: topic of enveloped events. partitions: of a topic that is made.

    retention_hours: for how long the broker keeps records, where it does not tell by itself.
    """

    events: str = Field(default="shop.events", pattern=rf"^{TOPIC}$")
    partitions: int = Field(default=4, ge=1)
    retention_hours: float | None = Field(default=None, gt=0)


class Broker(_Strict):
    """Where the events are.

    bootstrap: `host:port[,host:port]`; empty means the embedded broker of the runtime folder.
    create_topics: whether a missing topic is made (Event Hubs wants them made by its own tools).
    compression: of what the producer sends.
    protocol: `amqp` sends by the protocol of Event Hubs' own (compression is Kafka's alone); what
    is read is read by Kafka's.
    security_protocol, sasl_mechanism, sasl_username: as Kafka's own properties of these names;
    a login without TLS is not offered.
    sasl_password: a reference to a secret, for PLAIN. OAUTHBEARER logs in as `identity`.
    sasl_login_module, sasl_login_callback: Java's classes, Kafka's own of the mechanism if empty.
    Databricks has a copy of Kafka with the prefix `kafkashaded.`.
    oauth_scope: what a token is asked for; `https://HOST/.default` of the bootstrap if empty.
    ssl_ca: a file of the certificates (PEM) that are trusted, in place of the system's.
    """

    key: ClassVar[str] = "broker"  # where these settings are, for errors

    bootstrap: str = ""
    create_topics: bool = True
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = "lz4"
    protocol: Literal["kafka", "amqp"] = "kafka"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["", "PLAIN", "OAUTHBEARER"] = ""
    sasl_username: str = ""
    sasl_password: SecretRef | None = None
    sasl_login_module: str = ""
    sasl_login_callback: str = ""
    oauth_scope: str = ""
    ssl_ca: str = ""

    @field_validator("bootstrap")
    @classmethod
    def _has_ports(cls, value: str) -> str:
        for part in value.split(",") if value else ():
            found = BOOTSTRAP.fullmatch(part.strip())
            if found is None or not 0 < int(found[1]) <= LAST_PORT:
                raise ValueError("has to be host:port, or some of these between commas")
        return value

    @model_validator(mode="after")
    def _login_is_whole(self) -> Broker:
        """What of a login would only be found wanting at the broker, and said there in riddles."""
        if bool(self.sasl_mechanism) != (self.security_protocol == "SASL_SSL"):
            raise ValueError("sasl_mechanism and security_protocol SASL_SSL go together")
        if self.sasl_login_module and (
            ("oauthbearer" in self.sasl_login_module.lower())
            != (self.sasl_mechanism == "OAUTHBEARER")
        ):
            raise ValueError("sasl_login_module is not one for sasl_mechanism")
        if self.sasl_mechanism and not self.bootstrap:
            raise ValueError("bootstrap: wanted with sasl_mechanism")
        if self.sasl_mechanism == "PLAIN" and self.protocol == "kafka" and not self.sasl_username:
            raise ValueError(
                "sasl_username: wanted with PLAIN; for Event Hubs it is $ConnectionString, in a "
                "shell between single quotes"
            )
        if EVENT_HUBS.search(self.bootstrap) and self.security_protocol != "SASL_SSL":
            raise ValueError("security_protocol: Event Hubs wants SASL_SSL, and a sasl_mechanism")
        return self


def _host(value: Any) -> Any:
    """A host, also where it is written as it stands in a URL."""
    return value.removeprefix("https://").rstrip("/") if isinstance(value, str) else value


class Identity(_Strict):
    """Who this is to Microsoft Entra ID.

    tenant_id, client_id, client_secret (a reference to a secret): a service principal. Without a
    secret it is whom azure-identity finds: a managed identity (client_id: which one of several), a
    workload identity, a login of the `az` tool.
    authority: the host that gives tokens. ssl_ca: as the broker's.
    """

    tenant_id: str = Field(default="", pattern=r"^[A-Za-z0-9.-]*$")
    client_id: str = Field(default="", pattern=r"^[A-Za-z0-9.-]*$")
    client_secret: SecretRef | None = None
    authority: Annotated[str, BeforeValidator(_host)] = Field(
        default="login.microsoftonline.com", pattern=rf"^{AUTHORITY}$"
    )
    ssl_ca: str = ""

    @model_validator(mode="after")
    def _principal_is_whole(self) -> Identity:
        if self.client_secret and not (self.tenant_id and self.client_id):
            raise ValueError("client_secret: wanted with tenant_id and client_id")
        return self


INTERVALS = r"^(\d+ (millisecond|second|minute|hour)s?( |$))+$"


class Stream(_Strict):
    """Sizes of the streaming queries.

    max_offsets_per_trigger: records a micro-batch at most, which bounds memory while catching up.
    state_partitions: fixed when a checkpoint is made; two a core of a small machine.
    trigger: `0 seconds` starts a micro-batch as soon as the last one is done.
    max_record_bytes: larger records are quarantined unparsed.
    metrics_trigger: how often metrics by the minute are brought up to date.
    metrics_hours: how long after its own time an event is still counted in them; what is later is
    told by the hour, once Gold has counted it.
    restarts: how often a query that ends by itself is started again without a batch between.
    restart_seconds: the pause before the first of them; it doubles, up to a minute.
    """

    max_offsets_per_trigger: int = Field(default=100_000, ge=1)
    state_partitions: int = Field(default=2, ge=1)
    trigger: str = Field(default="0 seconds", pattern=INTERVALS)
    metrics_trigger: str = Field(default="1 minute", pattern=INTERVALS)
    metrics_hours: int = Field(default=24, ge=1)
    max_record_bytes: int = Field(default=1_048_576, ge=1)
    restarts: int = Field(default=10, ge=0)
    restart_seconds: float = Field(default=1.0, ge=0)


class BridgeTo(Broker):
    """As `broker`, with what Event Hubs wants: hubs are made by its own tools."""

    key: ClassVar[str] = "bridge.to"

    create_topics: bool = False
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = "none"


class Bridge(_Strict):
    """`headwater bridge`: from a topic of `broker` to one of another.

    to: the broker that it sends to: an Event Hubs namespace, or any other.
    topic: topic (event hub) there; the source's name where empty.
    group: consumer group, whose committed offsets say how far it came.
    max_event_bytes: key, value and headers of a record; a larger one is put aside.
    dead_letters: topic of `broker` for those; TOPIC.dead-letters where empty.
    in_flight, in_flight_bytes: what is read and not yet acknowledged, at about most.
    """

    to: BridgeTo = BridgeTo()
    topic: str = Field(default="", pattern=rf"^({TOPIC})?$")
    group: str = Field(default="headwater-bridge", min_length=1)
    max_event_bytes: int = Field(default=1_000_000, ge=1_000)
    dead_letters: str = Field(default="", pattern=rf"^({TOPIC})?$")
    in_flight: int = Field(default=20_000, ge=1)
    in_flight_bytes: int = Field(default=64_000_000, ge=1)


class _Database(_Strict):
    """password: a reference to a secret.
    ssl_mode: one that wants TLS, and a certificate that is trusted and for this host; or one that
    verifies nobody. If empty, the first for a server on another machine or with ssl_ca, else the
    second.
    ssl_ca: a file of the certificates (PEM) that are trusted, in place of the system's.
    """

    VERIFIES: ClassVar[str]

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    database: str = "headwater"
    user: str = "headwater"
    password: SecretRef | None = None
    ssl_mode: str = ""
    ssl_ca: str = ""

    @property
    def verified(self) -> bool:
        """Whether TLS is wanted, with a certificate that is trusted and for the host."""
        if self.ssl_mode:
            return self.ssl_mode == self.VERIFIES
        return bool(self.ssl_ca) or not is_loopback(self.host)

    @model_validator(mode="after")
    def _verifies_what_it_trusts(self) -> Self:
        if self.ssl_ca and self.ssl_mode not in {"", self.VERIFIES}:
            raise ValueError(f"ssl_mode `{self.ssl_mode}` verifies nobody: leave ssl_ca or it out")
        return self

    @field_validator("host", "database", "user")
    @classmethod
    def _is_there(cls, value: str) -> str:
        if not value or value.startswith("."):
            raise ValueError("has to have a name, and none that begins with a dot")
        return value

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, value: str) -> str:
        if re.search(r"[@/\s]", value):
            raise ValueError(
                "has to be a name or an address alone: user and password have settings"
            )
        return value


class MySQL(_Database):
    """A MySQL or MariaDB database to publish to; ssl_mode: as MySQL's own of that name."""

    VERIFIES: ClassVar[str] = "verify_identity"

    port: int = Field(default=3306, ge=1, le=65535)
    ssl_mode: Literal["", "verify_identity", "preferred"] = ""


class PostgreSQL(_Database):
    """A PostgreSQL database to publish to; ssl_mode: as PostgreSQL's own sslmode."""

    VERIFIES: ClassVar[str] = "verify-full"

    port: int = Field(default=5432, ge=1, le=65535)
    ssl_mode: Literal["", "verify-full", "prefer"] = ""


class Synapse(_Strict):
    """A dedicated SQL pool of Azure Synapse to publish to, with a token of `identity`.

    server: its host. staging: a folder of ADLS (abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/…)
    where rows are put for it, which the pool's managed identity may read.
    first_month, months: the partitions that fact tables are made with, from a month (2025-01) on.
    """

    server: str = ""
    database: str = "headwater"
    staging: str = ""
    first_month: str = Field(default="2025-01", pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    months: int = Field(default=36, ge=1, le=120)

    @field_validator("staging")
    @classmethod
    def _is_in_adls(cls, value: str) -> str:
        if value and not ADLS.fullmatch(value):
            raise ValueError("wants abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER")
        return value


class Adls(_Strict):
    """How the storage accounts of `abfss://` URIs are reached, where the cluster does not know.

    auth: empty leaves it to the cluster (Databricks' external locations, a core-site.xml);
    `managed_identity` and `service_principal` log in as `identity`, `key` with the account's key.
    key: a reference to that key.
    """

    auth: Literal["", "managed_identity", "service_principal", "key"] = ""
    key: SecretRef | None = None

    @model_validator(mode="after")
    def _key_is_whole(self) -> Adls:
        if (self.auth == "key") != (self.key is not None):
            raise ValueError("auth `key` and key go together")
        return self


class Unity(_Strict):
    """Names in Unity Catalog, and who may see what there.

    catalog: where the tables are named; empty where there is no Unity Catalog, as on a laptop.
    schema_prefix: what stands before bronze, silver, gold and ops.
    readers, stewards: groups; personal data is shown to stewards alone.
    """

    catalog: str = ""
    schema_prefix: str = ""
    readers: str = "headwater-readers"
    stewards: str = "headwater-stewards"


class Settings(BaseSettings):
    """All there is to set.

    storage: where tables and checkpoints are: a folder or a URI that Spark can write to.
    checkpoint_root: where checkpoints are instead; `storage`/checkpoints where left empty.
    runtime: a local folder for locks, the embedded broker, ledgers; `storage` where left empty.
    contracts: a folder of contracts; those of the distribution where left empty.
    publish_to: kinds of warehouses that Gold is published to: duckdb, mysql, postgresql,
    synapse.
    duckdb: the file of the embedded warehouse; warehouse.duckdb of the runtime folder if empty.
    reporting_currency: ISO 4217 of what amounts of Gold are given in beside their own currency.
    fiscal_year_start: the month in which the fiscal year of gold.dim_date begins.
    clustering: how `headwater maintain` sorts tables by their contracts' zorderBy: `liquid` is for
    tables without partitions alone, those with partitions stay with ZORDER.
    spark: further Spark properties, by name.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=NESTED, extra="forbid", frozen=True
    )

    environment: str
    storage: str = "data"
    checkpoint_root: str = ""
    runtime: str = ""
    contracts: str = ""
    topics: Topics = Topics()
    broker: Broker = Broker()
    identity: Identity = Identity()
    adls: Adls = Adls()
    bridge: Bridge = Bridge()
    stream: Stream = Stream()
    publish_to: Names = ("duckdb",)
    duckdb: str = ""
    mysql: MySQL = MySQL()
    postgresql: PostgreSQL = PostgreSQL()
    synapse: Synapse = Synapse()
    unity: Unity = Unity()
    reporting_currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    fiscal_year_start: int = Field(default=1, ge=1, le=12)
    clustering: Literal["zorder", "liquid"] = "zorder"
    # Whatever somebody puts there is not for a log.
    spark: dict[str, str] = Field(default={}, repr=False)

    @field_validator("storage", "checkpoint_root")
    @classmethod
    def _is_a_place(cls, value: str, known: ValidationInfo) -> str:
        if (value or known.field_name == "storage") and (said := _no_place(value)):
            raise ValueError(said)
        return value

    @model_validator(mode="after")
    def _principal_of_storage(self) -> Settings:
        if self.adls.auth == "service_principal" and not self.identity.client_secret:
            raise ValueError(
                "adls.auth: service_principal wants identity.tenant_id, client_id and client_secret"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables win over what is passed, which is the file."""
        return env_settings, init_settings

    @property
    def tables(self) -> str:
        return f"{self.storage.rstrip('/')}/tables"

    @property
    def checkpoints(self) -> str:
        return self.checkpoint_root.rstrip("/") or f"{self.storage.rstrip('/')}/checkpoints"

    @property
    def runtime_dir(self) -> Path:
        return Path(self.runtime or self.storage)

    @property
    def duckdb_file(self) -> Path:
        return Path(self.duckdb or self.runtime_dir / "warehouse.duckdb")

    @property
    def contracts_dir(self) -> Path:
        return Path(self.contracts) if self.contracts else default_contracts()


def default_contracts() -> Path:
    """The contracts that come with the distribution."""
    return Path(str(resources.files("conf") / "contracts"))


def load(
    environment: str = "local", written: dict[str, Any] | None = None, **overrides: Any
) -> Settings:
    """Settings of `environment`, a name under conf/environments or a path to such a file.

    written: what the file holds, where it was read before. overrides (None is left out) win over
    the environment variables, which win over the file. Raises SettingsError, which names every key
    that is wrong.
    """
    path, values = read(environment)
    values = values if written is None else written
    if unknown := unknown_variables():
        raise SettingsError(unknown[0])
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(f"settings of {path.name}: {'; '.join(wrong(error))}") from None
    except UnreadableError as error:
        raise SettingsError(unreadable(error)[1]) from None
    given = {key: value for key, value in overrides.items() if value is not None}
    if "storage" in given and (said := _no_place(given["storage"])):
        raise SettingsError(f"storage (--data): {said}")
    settings = settings.model_copy(update=given)
    # Absolute, so that Spark, the broker and the locks mean the same folder.
    folders = {key: getattr(settings, key) for key in ("storage", "checkpoint_root")}
    absolute = {
        key: str(Path(folder).resolve())
        for key, folder in folders.items()
        if folder and "://" not in folder
    }
    settings = settings.model_copy(update=absolute)
    if "://" in (settings.runtime or settings.storage):
        raise SettingsError("runtime: has to be a local folder where storage is a URI")
    return settings


def is_loopback(host: str) -> bool:
    """Whether that is this machine, by the name or address that it has here alone."""
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _no_place(place: str) -> str | None:
    """Why that is neither a folder nor a URI."""
    if not place.strip():
        return "a folder or a URI is wanted, and it is empty"
    if "://" not in place:
        if SCHEME.match(place):
            return f"{place} is neither a folder nor a URI (SCHEME://…)"
        return None
    scheme = place.partition("://")[0]
    if scheme.lower() in WITHOUT_TLS:
        return f"{place} goes without TLS: abfss:// does not"
    if scheme not in SCHEMES:
        return f"{place}: tables are under none but {', '.join(f'{one}://' for one in SCHEMES)}"
    if scheme == "abfss" and not ADLS.fullmatch(place):
        return (
            f"{place} is no container and account of ADLS, or has what a folder may not have: "
            "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER"
        )
    return None


def read(environment: str) -> tuple[Path, dict[str, Any]]:
    """An environment's file, and what it sets. Raises SettingsError."""
    path = Path(environment)
    if path.suffix not in {".yml", ".yaml"}:
        path = Path(str(resources.files("conf") / "environments" / f"{environment}.yml"))
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yml"))
        raise SettingsError(
            f"no environment {environment!r} ({path}); there are: {', '.join(known) or 'none'}"
        )
    try:
        values = yaml.load(path.read_text(), _Loader) or {}
    except yaml.MarkedYAMLError as error:
        # Not its snippet of the line, where a secret may stand that should not.
        mark, problem = error.problem_mark, error.problem
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SettingsError(f"{path}{where} is not YAML: {problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} has to be a mapping of settings")
    if "environment" in values:
        raise SettingsError(
            f"{path}: environment is the name of the file, and no setting: remove it"
        )
    return path, {"environment": path.stem, **values}


class _Loader(yaml.SafeLoader):
    """Takes no key twice, and none that is no text: neither would be seen to have been left out."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(
                    problem="a key that is no text: write it in quotes",
                    problem_mark=key.start_mark,
                )
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def wrong(error: ValidationError) -> list[str]:
    """Every key that does not fit, with what is wrong and without its value."""
    return [
        ": ".join(filter(None, (".".join(map(str, place)), said))) for place, said in faults(error)
    ]


def faults(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """The same as the parts of each key, none for what several keys say together, and a text."""
    return [
        (item["loc"], item["msg"].removeprefix("Value error, "))
        for item in error.errors(include_input=False, include_url=False)
    ]


def unreadable(error: UnreadableError) -> tuple[str, str]:
    """The key whose variable is no JSON, where a mapping is wanted, and what to say of it."""
    found = re.search(r'field "([^"]+)"', str(error))
    if found is None:
        raise error
    name = variable(found[1])
    return found[1], (
        f'{name} is no JSON: give a mapping ({{"key": …}}), or set its keys one by one '
        f"({name}{NESTED}KEY)"
    )


def variable(key: str) -> str:
    """The environment variable of a setting, `HEADWATER_STREAM__TRIGGER` of `stream.trigger`."""
    return f"{PREFIX}{key.replace('.', NESTED).upper()}"


def unknown_variables() -> list[str]:
    """What is to be said of each HEADWATER_ variable that names no setting."""
    return [
        f"environment variable {name} names no setting; the settings are: "
        f"{', '.join(Settings.model_fields)}"
        for name in os.environ
        if name.startswith(PREFIX)
        and not _names_a_setting(name.removeprefix(PREFIX).lower().split(NESTED), Settings)
    ]


def _names_a_setting(parts: list[str], model: type[BaseModel]) -> bool:
    field = model.model_fields.get(parts[0])
    if field is None or len(parts) == 1:
        return field is not None
    inner = field.annotation
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return _names_a_setting(parts[1:], inner)
    return True


def resolve_secret(reference: str) -> str:
    """The value behind a reference, which is masked wherever it would be printed.

    Raises SettingsError, without the value.
    """
    value = _behind(reference).strip("\r\n")
    if not value:
        raise SettingsError(f"secret {reference}: it is empty: put its value there")
    redact.remember(value)
    return value


def _behind(reference: str) -> str:
    kind, _, where = reference.partition(":")
    if kind == "env":
        if where not in os.environ:
            raise SettingsError(f"secret {reference}: no environment variable {where}: set it")
        return os.environ[where]
    if kind == "file":
        try:
            return Path(where).read_text().strip()
        except OSError as error:
            raise SettingsError(f"secret {reference}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"secret {reference}: the file is no text (UTF-8)") from None
    from lakehouse import vault

    return vault.value(reference)
