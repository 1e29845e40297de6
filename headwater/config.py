"""`headwater config`: what is set, where from, and what is missing."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from lakehouse.command import environment_options, show
from lakehouse.redact import redacted

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lakehouse.settings import Broker, Settings

# What conf/environments/azure.yml has in the place of names that only its user knows.
PLACEHOLDER = re.compile(r"(?:^|(?<=[/@]))(?:ACCOUNT|CONTAINER|NAMESPACE|SERVER)(?=[.@/])")


@dataclass(frozen=True)
class Value:
    """A setting: its key, its value as text without secrets, and where that is from."""

    key: str
    value: str
    origin: str


@click.group("config")
def config_group() -> None:
    """The settings of an environment."""


@config_group.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print as a JSON list.")
@environment_options
def config_show(as_json: bool, environment: str, data: str | None, contracts: str | None) -> None:
    """Show every setting as it counts, and where it is from: an option, an environment variable,
    the environment's file, or the default.

    A secret is shown as its reference; what looks like one elsewhere is masked.
    """
    found = effective(environment, data, contracts)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
    else:
        show("", ("setting", "value", "from"), [(v.key, v.value, v.origin) for v in found])


@config_group.command("check")
@environment_options
def config_check(environment: str, data: str | None, contracts: str | None) -> None:
    """Say everything that is missing or wrong, a line each: the setting, and what to do.

    Exit code 1 where there is something. Secrets are looked up; neither broker nor storage is asked
    (`headwater doctor` does).
    """
    found = missing(environment, data, contracts)
    for line in found:
        # What was put in the wrong place may be a secret.
        click.echo(redacted(line))
    if found:
        raise click.exceptions.Exit(1)
    click.echo(f"environment {environment}: nothing is missing")
    for line in notes(environment, data, contracts):
        click.echo(line)


def effective(environment: str, data: str | None, contracts: str | None) -> list[Value]:
    """Every setting, in the order of their definition. Raises SettingsError."""
    from lakehouse import settings as settings_files

    path, written = settings_files.read(environment)
    settings = settings_files.load(environment, storage=data, contracts=contracts)
    origins = {"environment": "--env"}
    if data is not None:
        origins["storage"] = "--data"
    if contracts is not None:
        origins["contracts"] = "--contracts"
    return [
        Value(
            ".".join(parts),
            redacted(str(value or "")) if secret else _shown(".".join(parts), value),
            origins.get(".".join(parts)) or _variable(parts) or _file(parts, written, path.name),
        )
        for parts, value, secret in leaves(settings)
    ]


def missing(environment: str, data: str | None, contracts: str | None) -> list[str]:
    """A line for everything that keeps the environment from being used.

    What does not fit is left out of what is looked at next, so that one mistake hides no other;
    where settings do not go together, each of them is looked at as it was given.
    """
    from lakehouse import settings as settings_files
    from lakehouse.errors import HeadwaterError

    try:
        path, written = settings_files.read(environment)
    except HeadwaterError as error:
        return [str(error)]
    found = settings_files.unknown_variables()
    kept = dict(os.environ)
    try:
        for line in found:
            del os.environ[line.split()[2]]
        unfit, groups = _unfit(path.name, written)
        found += unfit
        try:
            settings = settings_files.load(environment, written, storage=data, contracts=contracts)
        except HeadwaterError as error:
            found.append(f"{error}: set {settings_files.variable('runtime')}")
            written["runtime"] = os.curdir
            os.environ.pop(settings_files.variable("runtime"), None)
            settings = settings_files.load(environment, written, storage=data, contracts=contracts)
        for place, given in groups.items():
            settings = _with(settings, place, given)
        found += [*unfilled(settings), *_unreadable(settings), *_odd_logins(settings)]
        found += [*_without_tls(settings), *_unreachable(settings)]
        return [*found, *_in_a_circle(settings), *_not_installed(settings)]
    finally:
        os.environ.clear()
        os.environ.update(kept)


def notes(environment: str, data: str | None, contracts: str | None) -> Iterator[str]:
    """What is right in one place and not in another, which cannot be told from here."""
    from lakehouse import adls
    from lakehouse import settings as settings_files

    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return
    settings = settings_files.load(environment, storage=data, contracts=contracts)
    for broker in _brokers(settings):
        if broker.sasl_login_module.startswith("kafkashaded."):
            key = f"{broker.key}.sasl_login_module"
            yield (
                f"note: {key} is a class of Databricks' own copy of Kafka: elsewhere, set "
                f"{settings_files.variable(key)} to nothing"
            )
    if adls.accounts(settings) and not settings.adls.auth:
        yield (
            "note: adls.auth is left to the cluster, as on Databricks: elsewhere, set "
            f"{settings_files.variable('adls.auth')} to managed_identity, service_principal or key"
        )


Group = tuple[str, ...]


def _unfit(file: str, written: dict[str, Any]) -> tuple[list[str], dict[Group, dict[str, Any]]]:
    """A line for every value that is none for its key; both are taken out of the file's values and
    of the environment. And groups of settings that do not go together, with what was given."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError as UnreadableError

    from lakehouse import settings as settings_files

    found: list[str] = []
    groups: dict[Group, dict[str, Any]] = {}
    taken_out: set[Group] = set()
    while True:
        try:
            settings_files.Settings(**written)
        except ValidationError as error:
            inputs = [item["input"] for item in error.errors(include_url=False)]
            for (place, said), given in zip(settings_files.faults(error), inputs, strict=True):
                # A place in a list is none that could be set.
                names = takewhile(lambda part: isinstance(part, str), place)
                # What several keys say together begins with the first of them.
                named = tuple(map(str, names)) or tuple(said.split(":")[0].split("."))
                key = ".".join(named)
                line = f"{key}: {said}" if place else said
                line = f"{line} (in {file}, or {settings_files.variable(key)})"
                found += [] if line in found else [line]
                group = named if place else named[:1]
                given = given if place else given.get(named[0])
                if isinstance(given, dict):
                    groups[group] = given
                if group in taken_out:
                    group = group[:1]
                if group in taken_out:
                    return found, groups
                taken_out.add(group)
                _take_out(group, written)
        except UnreadableError as error:
            key, line = settings_files.unreadable(error)
            found.append(line)
            _take_out((key,), written)
        else:
            return found, groups


ModelT = TypeVar("ModelT", bound="BaseModel")


def _with(model: ModelT, place: Group, given: dict[str, Any]) -> ModelT:
    """The model with a group of settings as it was given, whether it goes together or not."""
    from pydantic import BaseModel

    inner = getattr(model, place[0], None)
    if not isinstance(inner, BaseModel):
        return model
    new = _with(inner, place[1:], given) if place[1:] else _as_given(type(inner), given)
    return model.model_copy(update={place[0]: new})


def _as_given(model: type[ModelT], given: dict[str, Any]) -> ModelT:
    from pydantic import BaseModel

    values = dict(given)
    for name, field in model.model_fields.items():
        kind = field.annotation
        if not isinstance(kind, type) or not issubclass(kind, BaseModel):
            continue
        if isinstance(values.get(name), dict):
            values[name] = _as_given(kind, values[name])
    return model.model_construct(**values)


def _take_out(parts: tuple[str, ...], written: dict[str, Any]) -> None:
    """Takes a setting, or a group of them, out of the file's values and of the environment."""
    from lakehouse.settings import NESTED, variable

    inner: Any = written
    for part in parts[:-1]:
        inner = inner.setdefault(part, {}) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(parts[-1], None)
        if parts[-1] == "bootstrap":
            # A login without one would be a mistake of its own.
            inner["bootstrap"] = "nowhere:1"
    name = _variable(parts)
    below = variable(".".join(parts)) + NESTED
    for variable_name in list(os.environ):
        if variable_name == name or variable_name.upper().startswith(below):
            del os.environ[variable_name]


def leaves(
    model: BaseModel, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    """Every setting in a model: the parts of its key, its value, and whether it is a secret's
    reference."""
    from pydantic import BaseModel

    from lakehouse.settings import SecretRef

    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*above, name))
        elif isinstance(value, dict) and value:
            yield from (((*above, name, key), inner, False) for key, inner in value.items())
        else:
            yield (*above, name), value, SecretRef in get_args(field.annotation)


def _shown(key: str, value: Any) -> str:
    from lakehouse.redact import MASK, SECRET_NAMES

    if key.startswith("spark.") and value and re.search(SECRET_NAMES, f"{key}\n{value}"):
        return MASK
    if isinstance(value, tuple | list):
        value = ", ".join(map(str, value))
    text = "" if value is None or value == {} else str(value)
    # With its name before it: that says of a Spark property that it is a secret.
    return redacted(f"{key}={text}").removeprefix(f"{key}=")


def _variable(parts: tuple[str, ...]) -> str | None:
    """The environment variable that a setting is from: its own, or one of JSON above it."""
    from lakehouse.settings import variable

    names = {name.upper(): name for name in os.environ}
    for depth in range(len(parts), 0, -1):
        name = names.get(variable(".".join(parts[:depth])))
        if name is None:
            continue
        try:
            inner = json.loads(os.environ[name]) if depth < len(parts) else {}
        except ValueError:
            continue
        if depth == len(parts) or _holds(inner, parts[depth:]):
            return name
    return None


def _file(parts: tuple[str, ...], written: dict[str, Any], name: str) -> str:
    return name if _holds(written, parts) else "default"


def _holds(values: Any, parts: tuple[str, ...]) -> bool:
    for part in parts:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def unfilled(settings: Settings) -> Iterator[str]:
    """A line for every value that stands for a name of whoever deploys it."""
    from lakehouse.settings import variable

    for parts, value, _ in leaves(settings):
        key = ".".join(parts)
        if isinstance(value, str) and (found := PLACEHOLDER.search(value)):
            yield f"{key}: {found[0]} in {value} stands for a name of yours: set {variable(key)}"


def _unreadable(settings: Settings) -> Iterator[str]:
    """Secrets, files and folders that are named and are not there."""
    from lakehouse import login
    from lakehouse.errors import SettingsError
    from lakehouse.settings import resolve_secret, variable

    for parts, value, secret in leaves(settings):
        key = ".".join(parts)
        try:
            if secret and value:
                resolve_secret(value)
        except SettingsError as error:
            yield f"{key}: {error} ({variable(key)} names another place)"
        if parts[-1] == "ssl_ca" and value and (said := _no_certificates(value)):
            yield f"{key}: {said} {value}: set {variable(key)} to a file of certificates (PEM)"
    if not settings.contracts_dir.is_dir():
        yield f"contracts: no folder {settings.contracts_dir}: set {variable('contracts')}"
    if settings.broker.sasl_mechanism == "OAUTHBEARER" and not settings.identity.client_secret:
        try:
            login.spark_options(settings.broker, settings.identity)
        except SettingsError as error:
            yield str(error)
    if settings.adls.key and (said := _no_key(settings.adls.key)):
        yield f"adls.key: {said}: put the key of the storage account there, as the portal shows it"
    for broker in _brokers(settings):
        if broker.sasl_mechanism == "PLAIN" and not broker.sasl_password:
            key = f"{broker.key}.sasl_password"
            yield f"{key}: wanted with PLAIN: set {variable(key)} to where the secret is"


def _no_key(reference: str) -> str | None:
    from lakehouse.errors import SettingsError
    from lakehouse.settings import resolve_secret

    try:
        base64.b64decode(resolve_secret(reference), validate=True)
    except SettingsError:
        return None  # told already
    except ValueError:
        return f"{reference} is no key of a storage account (base64)"
    return None


def _in_a_circle(settings: Settings) -> Iterator[str]:
    from producer.bridge import circle

    if settings.bridge.to.bootstrap and (said := circle(settings, settings.topics.events)):
        yield said


def _no_certificates(file: str) -> str | None:
    try:
        text = Path(file).read_text(errors="replace")
    except OSError as error:
        return f"{error.strerror or 'cannot be read'}:"
    return None if "-----BEGIN CERTIFICATE-----" in text else "no certificate is in"


def _odd_logins(settings: Settings) -> Iterator[str]:
    """What Event Hubs would only refuse at the login."""
    from lakehouse.errors import SettingsError
    from lakehouse.settings import EVENT_HUBS, resolve_secret, variable

    for broker in _brokers(settings):
        if broker.sasl_mechanism != "PLAIN" or not EVENT_HUBS.search(broker.bootstrap):
            continue
        user, secret = f"{broker.key}.sasl_username", f"{broker.key}.sasl_password"
        if broker.protocol == "kafka" and broker.sasl_username != "$ConnectionString":
            yield f"{user}: for Event Hubs it is $ConnectionString: set {variable(user)}"
        try:
            text = resolve_secret(broker.sasl_password) if broker.sasl_password else ""
        except SettingsError:
            continue  # told already
        if text and not _is_connection(text):
            yield (
                f"{secret}: {broker.sasl_password} is no connection string of Event Hubs "
                "(Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…): put one there, whole: "
                "a shell ends it at the first ; that stands in no quotes"
            )


def _is_connection(text: str) -> bool:
    """Whether it is a whole connection string of Event Hubs, in whatever order."""
    pairs = (part.partition("=") for part in text.strip().split(";") if part.strip())
    found = {name.strip().lower() for name, _, value in pairs if value.strip()}
    by_key = {"sharedaccesskeyname", "sharedaccesskey"} <= found
    return "endpoint" in found and (by_key or "sharedaccesssignature" in found)


def _without_tls(settings: Settings) -> Iterator[str]:
    """What another machine would be sent for anyone to read, or whoever says to be that machine."""
    from lakehouse.redact import SECRET_NAMES
    from lakehouse.settings import is_loopback, variable

    databases = {"mysql": settings.mysql, "postgresql": settings.postgresql}
    for kind in settings.publish_to:
        there = databases.get(kind)
        if there is None or there.verified or is_loopback(there.host):
            continue
        key = f"{kind}.ssl_mode"
        yield (
            f"{key}: {there.ssl_mode} verifies nobody, and {there.host} is another machine: leave "
            f"{variable(key)} out"
        )
    for broker in _brokers(settings):
        hosts = [part.strip().rpartition(":")[0] for part in broker.bootstrap.split(",")]
        others = [host for host in hosts if not is_loopback(host)]
        if broker.security_protocol == "PLAINTEXT" and others:
            key = f"{broker.key}.security_protocol"
            yield (
                f"{key}: PLAINTEXT has {', '.join(others)} reached without TLS, and that is "
                f"another machine: set {variable(key)} to SSL or SASL_SSL"
            )
    for name, value in settings.spark.items():
        if name.endswith("fs.azure.always.use.https") and value.strip().lower() == "false":
            yield f"spark: {name} = {value} has storage reached without TLS: leave it out"
        if re.search(SECRET_NAMES, name) and value:
            yield (
                f"spark: {name} has a value in the settings, where it can be read: storage and "
                "broker have settings with references (adls.key, broker.sasl_password); what else "
                "is secret belongs into the cluster's own configuration"
            )


def _unreachable(settings: Settings) -> Iterator[str]:
    """What a warehouse to publish to is not opened without."""
    from lakehouse.settings import is_loopback, variable

    databases = {"mysql": settings.mysql, "postgresql": settings.postgresql}
    for kind in settings.publish_to:
        there = databases.get(kind)
        if there is not None and not there.password and not is_loopback(there.host):
            key = f"{kind}.password"
            yield f"{key}: {there.host} wants one: set {variable(key)} to where the secret is"
        if kind == "synapse":
            for name in ("server", "staging"):
                if not getattr(settings.synapse, name):
                    yield f"synapse.{name}: wanted to publish: set {variable(f'synapse.{name}')}"


def _not_installed(settings: Settings) -> Iterator[str]:
    from lakehouse.layouts import KINDS

    wanted = {"confluent_kafka": "confluent-kafka"}
    if any(b.sasl_mechanism == "OAUTHBEARER" for b in _brokers(settings)):
        wanted["azure.identity"] = "azure-identity"
    if any(b.protocol == "amqp" for b in _brokers(settings)):
        wanted["azure.eventhub"] = "azure-eventhub"
    for kind, module, package in (
        ("mysql", "pymysql", "pymysql"),
        ("postgresql", "psycopg", "psycopg[binary]"),
        ("synapse", "mssql_python", "mssql-python"),
        ("duckdb", "duckdb", "duckdb"),
    ):
        if kind in settings.publish_to:
            wanted[module] = package
    for kind in settings.publish_to:
        if kind not in KINDS:
            yield f"publish_to: {kind!r} is no kind of warehouse; there are: {', '.join(KINDS)}"
    for module, package in wanted.items():
        if not _installed(module):
            yield f"package {package} is not installed: pip install {package}"


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def _brokers(settings: Settings) -> list[Broker]:
    return [b for b in (settings.broker, settings.bridge.to) if b.bootstrap]
