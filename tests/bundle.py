"""What can be known of the Databricks bundle without a workspace: everything that is wrong with it.

Databricks' own models (databricks-bundles) say what a resource may hold; the wheel says which entry
points there are, and its commands which parameters they take.

    python -m tests.bundle FOLDER TARGET WHEEL --var storage=… --var event_hubs=…
"""

from __future__ import annotations

import ast
import atexit
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass, field
from email.parser import HeaderParser
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile
from zoneinfo import available_timezones

import click
import yaml
from databricks.bundles.dashboards import Dashboard
from databricks.bundles.jobs import Job
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

from headwater.job import SETTING
from tests import bundle_rules

MODELS: dict[str, Callable[[Any], object]] = {
    "jobs": Job.from_dict,
    "schemas": Schema.from_dict,
    "volumes": Volume.from_dict,
    "dashboards": Dashboard.from_dict,
}
# What the models do not cover, as far as this bundle uses it.
KEYS = {
    "": "bundle include variables artifacts experimental permissions targets",
    "bundle": "name databricks_cli_version",
    "experimental": "skip_name_prefix_for_schema",
    "artifacts.*": "type path build dynamic_version",
    "variables.*": "description default lookup type",
    "variables.*.lookup": "cluster_policy warehouse",
    "targets.*": "mode default presets variables workspace run_as",
    "targets.*.presets": "tags",
    "targets.*.run_as": "service_principal_name",
    "targets.*.workspace": "root_path",
}
# What such a field may say, where that is a choice.
CHOICES: dict[str, dict[str, set[object]]] = {
    "artifacts.*": {"type": {"whl"}, "dynamic_version": {True, False}},
    "experimental": {"skip_name_prefix_for_schema": {True, False}},
    "targets.*": {"mode": {"development", "production"}},
    "variables.*": {"type": {"complex"}},
}
# Of the tool that deploys, whose first number is 1.
CLI, CLI_VERSION = ">= 1.0.0", re.compile(r">= ?1[.][0-9]+[.][0-9]+")
# Of serverless environments, by Databricks' notes on their releases.
ENVIRONMENTS = {"1", "2", "3", "4", "5"}
NAME = re.compile(r"[a-z0-9_-]+")
# Who may have what: by Databricks' documentation of permissions of a bundle.
GRANTEES = {"group_name", "user_name", "service_principal_name"}
LEVELS = {"CAN_VIEW", "CAN_MANAGE", "CAN_RUN"}
# Fields of tasks, libraries and resources that are texts, which the models do not look at.
TEXTS = {"whl", "requirements", "file_path", "entry_point", "package_name", "description"}
PATHS = {"requirements", "file_path", "notebook_path", "python_file", "jar", "egg"}
REQUIREMENTS = re.compile(r"(?:-r|--requirement)[ =]*(.+)")
VOLUME = re.compile(r"/Volumes/([^/]*)/([^/]*)/([^/]*)")
ADDRESS = re.compile(r"[^@\s{}$()]+@[^@\s{}$()]+")
# What a runtime has, and a wheel must not bring in another version.
OF_THE_RUNTIME = {"pyspark", "delta-spark", "pandas", "pyarrow", "numpy"}
# Fields of Quartz's cron: the lowest and highest number of each that has any.
QUARTZ = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (1, 7))
WORDS_OF_QUARTZ = {
    *("L", "W", "LW", "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
}
# What the commands want among their libraries beside the wheel, by a part of its name.
LIBRARIES = {
    "": ("databricks.txt",),
    "quality": ("databricks-quality.txt",),
    "publish": ("databricks-quality.txt", "com.mysql:mysql-connector-j"),
    "produce": ("orjson==",),
}
# And what these files hold.
REQUIRED = {
    "databricks.txt": {"confluent-kafka", "faker", "pymysql"},
    "databricks-quality.txt": {"great-expectations"},
}
MAVEN = re.compile(r"[\w.-]+:[\w.-]+:[\w.-]+")
REFERENCE = re.compile(r"\$\{([^{}]+)\}")
RUN_TIME = re.compile(r"\{\{([^{}]+)\}\}")
# What Databricks itself fills in.
KNOWN = {
    "bundle.name": "headwater",
    "bundle.target": "target",
    "workspace.current_user.userName": "someone@example.com",
    "workspace.current_user.short_name": "someone",
}
KNOWN_AT_RUN_TIME = re.compile(r"job\.run_id")
SAMPLE = "2026-11-01"
# What of the wheel a task starts.
ENTRY_POINT = "headwater-job"


@dataclass
class Bundle:
    """A bundle for one target. given: variables as `--var` gives them. volumes: by catalog, schema
    and name. findings: see `check`."""

    root: Path
    target: str
    given: dict[str, str]
    wheel: Path
    raw: dict[str, Any] = field(default_factory=dict)
    volumes: set[tuple[str, str, str]] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)

    def find(self, where: str, what: str) -> None:
        self.findings.append(f"{where}: {what}")


def check(root: Path, target: str, given: dict[str, str], wheel: Path) -> list[str]:
    """Everything that is wrong with the bundle in `root`, a line each with place and name."""
    bundle = Bundle(root, target, given, wheel)
    try:
        _load(bundle)
        return _check(bundle)
    except (ValueError, OSError, BadZipFile) as error:
        return [*bundle.findings, str(error)]
    except (AttributeError, KeyError, TypeError) as error:
        # A form that no rule here has thought of is wrong all the same.
        said = f"{type(error).__name__}: {error}"
        return [*bundle.findings, f"databricks.yml: cannot be looked at to its end ({said})"]


def _check(bundle: Bundle) -> list[str]:
    target = bundle.target
    _keys(bundle)
    if target not in (bundle.raw.get("targets") or {}):
        bundle.find("targets", f"no target {target}")
        return bundle.findings
    raw = _Resolver(bundle).all()
    distribution, entry_points = _wheel(bundle)
    _artifacts(bundle, raw.get("artifacts") or {})
    places = [
        (str(one.get("catalog_name")), str(one.get("schema_name")), str(one.get("name")))
        for one in raw["resources"].get("volumes", {}).values()
    ]
    bundle.volumes = set(places)
    for key, place in zip(raw["resources"].get("volumes", {}), places, strict=True):
        if places.count(place) > 1:
            bundle.find(f"volumes.{key}", f"{'.'.join(place)} is another volume, too")
        if not all(NAME.fullmatch(part) for part in place):
            bundle.find(f"volumes.{key}", f"{'.'.join(place)} is no name")
    schemas = {str(one.get("name")) for one in raw["resources"].get("schemas", {}).values()}
    for key, volume in raw["resources"].get("volumes", {}).items():
        if str(volume.get("schema_name")) not in schemas:
            bundle.find(f"volumes.{key}", f"no schema {volume.get('schema_name')} in the bundle")
    _requirements(bundle)
    sound = True
    for kind, resources in raw["resources"].items():
        for key, resource in resources.items():
            where = f"{kind}.{key}"
            if kind not in MODELS:
                bundle.find(where, "a kind of resource that nothing here checks")
                continue
            if not _model(bundle, where, MODELS[kind], resource):
                sound = False
                continue
            _paths(bundle, where, resource)
            if kind == "dashboards":
                _dashboard(bundle, where, resource)
            if kind == "jobs":
                _rules(bundle, where, resource)
                for task in resource.get("tasks", []):
                    _task(bundle, where, resource, task, distribution, entry_points)
    if sound:
        bundle_rules.check(raw, bundle.find)
    return bundle.findings


def build_wheel(root: Path, made: Path) -> Path:
    """The wheel, as setup.py makes it, with all that is made on the way in the folder `made`."""
    commands = f"egg_info --egg-base {made} build --build-base {made} bdist_wheel --dist-dir {made}"
    command = [sys.executable, "setup.py", "-q", *commands.split()]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return next(made.glob("*.whl"))


def commands(root: Path) -> list[list[str]]:
    """The commands that the bundle's tasks run, each once, without options and settings."""
    jobs: dict[str, Any] = {}
    for path in (root / "resources").glob("*.yml"):
        jobs |= _yaml(path)["resources"].get("jobs", {})
    found = []
    for task in (task for job in jobs.values() for task in job["tasks"]):
        words = [w for w in task["python_wheel_task"]["parameters"] if not SETTING.fullmatch(w)]
        options = [i for i, word in enumerate(words) if word.startswith("-")]
        found.append(words[: min(options, default=len(words))])
    return [words for i, words in enumerate(found) if words not in found[:i]]


def resolved(root: Path, target: str, given: dict[str, str]) -> dict[str, Any]:
    """The bundle as it is for a target, with values in the place of references."""
    bundle = Bundle(root, target, given, root)
    _load(bundle)
    return _Resolver(bundle).all()


def _load(bundle: Bundle) -> None:
    raw = _mapping(bundle, bundle.root / "databricks.yml")
    resources: dict[str, dict[str, Any]] = {}
    if "resources" in raw:
        bundle.find("databricks.yml", "resources: they have files of their own in resources/")
        _gather(bundle, "databricks.yml", raw["resources"], resources)
    patterns = raw.get("include", [])
    if not isinstance(patterns, list):
        bundle.find("include", f"{patterns!r} is no list")
        patterns = [patterns]
    for pattern in patterns:
        paths = sorted(bundle.root.glob(str(pattern)))
        if not paths:
            bundle.find("include", f"no file {pattern}")
        for path in paths:
            part = _mapping(bundle, path)
            for extra in set(part) - {"resources"}:
                bundle.find(path.name, f"unknown field {extra}")
            if "resources" not in part:
                bundle.find(path.name, "no resources")
            _gather(bundle, path.name, part.get("resources", {}), resources)
    bundle.raw = {**raw, "resources": resources}


def _gather(bundle: Bundle, file: str, part: Any, resources: dict[str, dict[str, Any]]) -> None:
    """Takes a file's resources in, by kind and name."""
    if not isinstance(part, dict):
        bundle.find(file, "resources: is no mapping")
        return
    for kind, named in part.items():
        if not isinstance(named, dict):
            bundle.find(f"{file}: {kind}", "is no mapping of names to resources")
            continue
        for key, resource in named.items():
            if not isinstance(resource, dict):
                bundle.find(f"{kind}.{key}", "is no mapping")
                continue
            if key in resources.get(kind, {}):
                bundle.find(f"{kind}.{key}", "stands twice")
            resources.setdefault(kind, {})[key] = resource


def _mapping(bundle: Bundle, path: Path) -> dict[str, Any]:
    """A file's mapping, without what has no value: each of these is named."""
    found = _yaml(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path.name}: is no mapping")

    def valued(value: Any, where: str) -> Any:
        if isinstance(value, dict):
            for key in [key for key, inner in value.items() if inner is None]:
                bundle.find(path.name, f"{where}{key}: has no value")
            return {
                key: valued(inner, f"{where}{key}.")
                for key, inner in value.items()
                if inner is not None
            }
        return [valued(inner, where) for inner in value] if isinstance(value, list) else value

    whole: dict[str, Any] = valued(found, "")
    return whole


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A mapping with two equal keys is an error. libyaml's, where it is: a tenth of the time."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"{Path(node.start_mark.name).name}: {key} stands twice")
        return super().construct_mapping(node, deep)


def _yaml(path: Path) -> Any:
    try:
        with path.open() as file:
            return yaml.load(file, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: {' '.join(str(error).split())}") from None


def _keys(bundle: Bundle) -> None:
    own = {key: value for key, value in bundle.raw.items() if key != "resources"}
    for place, known in KEYS.items():
        for where, found in _at(bundle, own, place.split(".") if place else [], ""):
            for key in set(found) - set(known.split()):
                bundle.find(where or "databricks.yml", f"unknown field {key}")
            for key, choices in CHOICES.get(place, {}).items():
                if key in found and found[key] not in choices:
                    known = ", ".join(sorted(map(str, choices)))
                    bundle.find(where, f"{key}: {found[key]} is none of {known}")
    for name, variable in (own.get("variables") or {}).items():
        is_complex = isinstance(variable.get("default"), dict | list)
        if is_complex != (variable.get("type") == "complex") and "default" in variable:
            bundle.find(f"variables.{name}", "type: complex goes with mappings and lists")
    wanted = str((own.get("bundle") or {}).get("databricks_cli_version", CLI))
    if not CLI_VERSION.fullmatch(wanted):
        bundle.find("bundle", f"databricks_cli_version: {wanted} is no version that there is")
    targets = own.get("targets") or {}
    if sum(bool(target.get("default")) for target in targets.values()) > 1:
        bundle.find("targets", "more than one is the default")
    for name, target in targets.items():
        if "mode" not in target:
            bundle.find(f"targets.{name}", "no mode")
        run_as = (target.get("run_as") or {}).get("service_principal_name")
        if target.get("mode") == "production" and not run_as:
            bundle.find(f"targets.{name}", "no run_as: its jobs would be whoever's deploys it")
    for one in own.get("permissions", []):
        for key in set(one) - GRANTEES - {"level"}:
            bundle.find("permissions", f"unknown field {key}")
        if one.get("level") not in LEVELS or len(GRANTEES & set(one)) != 1:
            bundle.find("permissions", f"{one}: wants one of {LEVELS}, and whom it is given to")


def _at(
    bundle: Bundle, value: Any, parts: list[str], where: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict):
        bundle.find(where or "databricks.yml", f"{value!r} is no mapping")
        return
    if not parts:
        yield where, value
        return
    for key in value if parts[0] == "*" else [parts[0]]:
        if key in value:
            yield from _at(bundle, value[key], parts[1:], f"{where}.{key}".lstrip("."))


class _Resolver:
    """Puts values in the place of `${…}`, as the CLI does."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        target = bundle.raw["targets"][bundle.target]
        self._variables = bundle.raw.get("variables") or {}
        # Of every target: the next deploy may be to another one.
        for key, one in bundle.raw["targets"].items():
            for name in sorted(set(one.get("variables", {})) - set(self._variables)):
                bundle.find(f"targets.{key}.variables", f"undefined variable {name}")
            if key != bundle.target:
                for _, text in _strings(one):
                    for name in REFERENCE.findall(text):
                        kind, _, rest = name.partition(".")
                        if kind == "var" and rest not in self._variables:
                            bundle.find(f"targets.{key}", f"undefined variable {rest}")
        for name in sorted(set(bundle.given) - set(self._variables)):
            bundle.find("--var", f"undefined variable {name}")
        self._chosen = {**target.get("variables", {}), **bundle.given}

    def all(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in self._bundle.raw.items():
            where = "" if key == "resources" else key
            if key == "targets":
                value = {self._bundle.target: value[self._bundle.target]}
            found[key] = self.value(value, where, 0)
        return found

    def value(self, value: Any, where: str, depth: int) -> Any:
        if isinstance(value, dict):
            return {k: self.value(v, f"{where}.{k}".lstrip("."), depth) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(v, f"{where}[{i}]", depth) for i, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        if "${" in REFERENCE.sub("", value):
            self._bundle.find(where, f"{value} has a reference that is not closed")
        if whole := REFERENCE.fullmatch(value):
            return self._referred(whole[1], where, depth)
        return REFERENCE.sub(lambda found: str(self._referred(found[1], where, depth)), value)

    def _referred(self, name: str, where: str, depth: int) -> Any:
        kind, _, rest = name.partition(".")
        if depth > 10:
            self._bundle.find(where, f"{name} leads back to itself")
        elif kind == "var" and rest in self._variables:
            return self.value(self._variable(rest, where), where, depth + 1)
        elif kind == "var":
            self._bundle.find(where, f"undefined variable {rest}")
        elif kind == "resources":
            found: Any = self._bundle.raw["resources"]
            for part in rest.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            if found is not None:
                return self.value(found, where, depth + 1)
            kind, _, key = rest.removesuffix(".id").partition(".")
            has_id = rest.endswith(".id") and key in self._bundle.raw["resources"].get(kind, {})
            if not has_id:
                self._bundle.find(where, f"no such resource or field {name}")
        elif name in KNOWN:
            return KNOWN[name]
        else:
            self._bundle.find(where, f"undefined {name}")
        return re.sub(r"\W", "-", name)

    def _variable(self, name: str, where: str) -> Any:
        if name in self._chosen:
            return self._chosen[name]
        definition = self._variables[name] or {}
        if "default" in definition:
            return definition["default"]
        if "lookup" in definition:
            return f"id-of-{name}"
        target = self._bundle.target
        self._bundle.find(where, f"variable {name} has no value in {target}: it wants --var")
        return name


def _model(
    bundle: Bundle, where: str, model: Callable[[Any], object], resource: dict[str, Any]
) -> bool:
    """Whether Databricks' model takes it: what is not of its form is not looked into further."""
    try:
        model(resource)
    except (ValueError, TypeError) as error:
        bundle.find(where, " ".join(str(error).split()))
        return False
    return True


def _wheel(bundle: Bundle) -> tuple[str, set[str]]:
    """Name of the wheel's distribution, and its entry points. Finds those that lead nowhere, and
    requirements that a runtime brings itself."""
    where = bundle.wheel.name
    with ZipFile(bundle.wheel) as file:
        names = file.namelist()
        of_it = next((n for n in names if n.endswith(".dist-info/entry_points.txt")), None)
        if of_it is None:
            raise ValueError(f"{where}: is a wheel without entry points")
        parser = ConfigParser()
        parser.read_string(file.read(of_it).decode())
        points = {key: parser[one][key] for one in parser.sections() for key in parser[one]}
        for key, target in points.items():
            module, _, function = target.partition(":")
            paths = [f"{module.replace('.', '/')}{end}" for end in (".py", "/__init__.py")]
            path = next((path for path in paths if path in names), None)
            if path is None:
                bundle.find(where, f"entry point {key}: no module {module}")
            elif not any(
                getattr(one, "name", None) == function for one in ast.parse(file.read(path)).body
            ):
                bundle.find(where, f"entry point {key}: no {function} in {module}")
        metadata = file.read(of_it.replace("entry_points.txt", "METADATA")).decode()
    for required in HeaderParser().parsestr(metadata).get_all("Requires-Dist") or []:
        name = re.split(r"[^A-Za-z0-9._-]", required)[0].lower()
        if name in OF_THE_RUNTIME and "extra ==" not in required:
            bundle.find(where, f"requires {required}, which a runtime has in a version of its own")
    return where.split("-")[0], set(points)


def _artifacts(bundle: Bundle, artifacts: dict[str, Any]) -> None:
    if not any(one.get("dynamic_version") for one in artifacts.values()):
        bundle.find("artifacts", "no wheel whose version is each deploy's own (dynamic_version)")
    for name, one in artifacts.items():
        if not (bundle.root / str(one.get("path"))).is_dir():
            bundle.find(f"artifacts.{name}", f"path: no folder {one.get('path')}")
        if not re.search(r"\bpip wheel\b|\bbdist_wheel\b|-m build\b", str(one.get("build"))):
            bundle.find(f"artifacts.{name}", f"build: {one.get('build')} makes no wheel")
        # What the tasks' libraries name.
        if not re.search(r"(-w|--wheel-dir|-d|--dist-dir)[ =]dist\b", str(one.get("build"))):
            bundle.find(f"artifacts.{name}", f"build: {one.get('build')} makes no wheel in dist")


def _paths(bundle: Bundle, where: str, value: Any) -> None:
    """Paths are relative to the file that they stand in, which is one of resources/."""
    base = bundle.root / "resources"
    for key, other in _no_texts(value):
        bundle.find(where, f"{key}: {other!r} is no text")
    for key, text in _strings(value):
        for found in VOLUME.finditer(text):
            if found.groups() not in bundle.volumes or ".." in text.split("/"):
                bundle.find(where, f"{text} is in no volume of the bundle")
        if key == "destination":
            bundle.find(where, f"{text}: init scripts are nothing that is checked here")
        # Of a serverless environment, dependencies are lines of a requirements file.
        line = REQUIREMENTS.fullmatch(text) if key == "dependencies" else None
        path = line[1] if line else text
        is_wheel = key == "whl" or (key == "dependencies" and text.endswith(".whl"))
        is_file = key in PATHS or line is not None
        if is_file and not (base / path).is_file():
            bundle.find(where, f"{key}: no file {path}")
        if is_wheel and not _is_built(bundle, base / path):
            bundle.find(where, f"{key}: no wheel is built at {path}")


def _is_built(bundle: Bundle, place: Path) -> bool:
    built = (bundle.root / "dist").resolve() / bundle.wheel.name
    return place.parent.resolve() == built.parent and fnmatch(built.name, place.name)


def _no_texts(value: Any) -> Iterator[tuple[str, Any]]:
    """What stands in the place of a text, by its field."""
    if isinstance(value, list):
        for inner in value:
            yield from _no_texts(inner)
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"spark_env_vars", "spark_conf", "tags", "custom_tags"}:
                yield from (
                    (f"{key}.{name}", one)
                    for name, one in inner.items()
                    if isinstance(one, dict | list)
                )
            elif key in TEXTS and not isinstance(inner, str):
                yield key, inner
            else:
                yield from _no_texts(inner)


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)
    elif isinstance(value, str):
        yield key, value


def _rules(bundle: Bundle, where: str, job: dict[str, Any]) -> None:
    """What every job of ours has to say, whatever Databricks would let pass."""
    alerts = job.get("email_notifications") or {}
    for event, addresses in alerts.items():
        for one in addresses if isinstance(addresses, list) else []:
            if not ADDRESS.fullmatch(str(one)):
                bundle.find(where, f"email_notifications.{event}: {one!r} is no address")
    if schedule := job.get("schedule"):
        _cron(bundle, where, schedule.get("quartz_cron_expression", ""))
        if schedule.get("timezone_id") not in _time_zones():
            bundle.find(where, f"no time zone {schedule.get('timezone_id')}")
        if "continuous" in job:
            bundle.find(where, "continuous, and on a schedule")
        if "trigger" in job:
            bundle.find(where, "on a schedule, and by a trigger")
    if "git_source" in job:
        bundle.find(where, "git_source: what runs is the wheel that was deployed")
    for one in job.get("environments", []):
        version = (one.get("spec") or {}).get("environment_version")
        if str(version) not in ENVIRONMENTS:
            bundle.find(where, f"environment_version: {version} is none that there is")
    for rule in (job.get("health") or {}).get("rules", []):
        value = rule.get("value")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            bundle.find(where, f"health: {rule.get('metric')}: {value!r} is no number of seconds")
            rule["value"] = 1
    _graph(bundle, where, job.get("tasks", []))
    longest = max((task.get("timeout_seconds", 0) for task in job.get("tasks", [])), default=0)
    if 0 < job.get("timeout_seconds", 0) < longest:
        bundle.find(where, f"timeout_seconds is less than a task's own, {longest}")
    metrics = {rule.get("metric") for rule in (job.get("health") or {}).get("rules", [])}
    for rule in (job.get("health") or {}).get("rules", []):
        most = job.get("timeout_seconds") or float("inf")
        if rule.get("metric") == "RUN_DURATION_SECONDS" and rule.get("value", 0) >= most:
            bundle.find(where, f"health: nothing lasts {rule['value']} s; the timeout is {most} s")
    if not alerts.get("on_failure"):
        bundle.find(where, "no alert on failure (email_notifications.on_failure)")
    if "continuous" in job:
        watched = "STREAMING_BACKLOG_SECONDS", "on_streaming_backlog_exceeded"
        if job["continuous"].get("task_retry_mode") != "ON_FAILURE":
            bundle.find(where, "no retry on failure (continuous.task_retry_mode)")
    else:
        watched = "RUN_DURATION_SECONDS", "on_duration_warning_threshold_exceeded"
        if not job.get("timeout_seconds"):
            bundle.find(where, "no timeout_seconds")
        if not job.get("queue", {}).get("enabled"):
            bundle.find(where, "no queue")
    if watched[0] not in metrics or not alerts.get(watched[1]):
        bundle.find(where, f"no alert on {watched[0]} (health.rules and {watched[1]})")
    if job.get("max_concurrent_runs") != 1:
        bundle.find(where, "max_concurrent_runs has to be 1: one writer a job")
    if not {"application", "part"} <= set(job.get("tags", {})):
        bundle.find(where, "no tags application and part, which costs are counted by")
    for cluster in job.get("job_clusters", []):
        spec = cluster.get("new_cluster", {})
        if "continuous" in job and ("autoscale" in spec or "num_workers" not in spec):
            bundle.find(where, f"cluster {cluster['job_cluster_key']}: a stream's is of fixed size")
        if "continuous" not in job and not {"autoscale", "policy_id"} <= set(spec):
            bundle.find(where, f"cluster {cluster['job_cluster_key']}: no autoscale, no policy_id")
    used = {
        name.removeprefix("job.parameters.")
        for _, text in _strings(job.get("tasks", []))
        for name in RUN_TIME.findall(text)
    }
    for parameter in job.get("parameters", []):
        if parameter["name"] not in used:
            bundle.find(where, f"parameter {parameter['name']} is given to no task")


def _dashboard(bundle: Bundle, where: str, board: dict[str, Any]) -> None:
    if not isinstance(path := board.get("file_path"), str):
        bundle.find(where, "no file_path: it would be empty")
        return
    file = bundle.root / "resources" / path
    if not file.is_file():
        return  # told already
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        bundle.find(where, f"{file.name} is no JSON: {error}")
        return
    for part in ("datasets", "pages"):
        if not (isinstance(found, dict) and found.get(part)):
            bundle.find(where, f"{file.name} has no {part}")


def _cron(bundle: Bundle, where: str, expression: str) -> None:
    """Quartz's form: seconds first, and `?` for one of the two kinds of day."""
    fields = expression.split()
    right = len(fields) in {6, 7} and [fields[3], fields[5]].count("?") == 1
    for text, (low, high) in zip(fields, QUARTZ, strict=False):
        numbers = re.findall(r"(?<![/#\w])\d+", text)
        right = right and all(low <= int(number) <= high for number in numbers)
        right = right and all(0 < int(step) <= high for step in re.findall(r"/(\d+)", text))
        right = right and re.fullmatch(r"[?*\dA-Z,/#-]+", text) is not None
        right = right and set(re.findall("[A-Z]+", text)) <= WORDS_OF_QUARTZ
    if not right:
        bundle.find(where, f"{expression!r} is no schedule of Quartz's")


@cache
def _time_zones() -> set[str]:
    return available_timezones()


def _graph(bundle: Bundle, where: str, tasks: list[dict[str, Any]]) -> None:
    """Every task has a name of its own, and none waits for itself."""
    keys = [task.get("task_key") for task in tasks]
    for key in {key for key in keys if keys.count(key) > 1}:
        bundle.find(where, f"task {key} stands twice")
    after = {
        task.get("task_key"): {one["task_key"] for one in task.get("depends_on", [])}
        for task in tasks
    }
    while free := [key for key, waits in after.items() if not waits & after.keys()]:
        for key in free:
            del after[key]
    if after:
        bundle.find(where, f"tasks wait for each other: {', '.join(map(str, after))}")


def _task(
    bundle: Bundle,
    job_name: str,
    job: dict[str, Any],
    task: dict[str, Any],
    distribution: str,
    entry_points: set[str],
) -> None:
    where = f"{job_name}.{task.get('task_key')}"
    keys = {each.get("task_key") for each in job["tasks"]}
    for dependency in task.get("depends_on", []):
        if dependency["task_key"] not in keys:
            bundle.find(where, f"depends on no task {dependency['task_key']}")
    clusters = {each["job_cluster_key"] for each in job.get("job_clusters", [])}
    environments = {each["environment_key"] for each in job.get("environments", [])}
    for other in ("existing_cluster_id", "new_cluster"):
        if other in task:
            bundle.find(where, f"{other}, where a cluster of the job's own is wanted")
    if "environment_key" in task:
        if task["environment_key"] not in environments:
            bundle.find(where, f"no environment {task['environment_key']}")
        brought = [
            line
            for each in job.get("environments", [])
            if each["environment_key"] == task["environment_key"]
            for line in (each.get("spec") or {}).get("dependencies", [])
        ]
        if not any(line.endswith(".whl") for line in brought):
            bundle.find(where, f"no wheel in environment {task['environment_key']}")
    elif task.get("job_cluster_key") not in clusters:
        bundle.find(where, f"no cluster {task.get('job_cluster_key')}")
    if "continuous" not in job and not {"timeout_seconds", "max_retries"} <= set(task):
        bundle.find(where, "no timeout_seconds, or no max_retries")
    spec: dict[str, Any] = next(
        (
            one.get("new_cluster", {})
            for one in job.get("job_clusters", [])
            if one.get("job_cluster_key") == task.get("job_cluster_key")
        ),
        {},
    )
    wheel = task.get("python_wheel_task")
    if wheel is None:
        bundle.find(where, "is none of a wheel, which is all that is checked here")
        return
    if not task.get("environment_key") and not any(
        "whl" in one for one in task.get("libraries", [])
    ):
        bundle.find(where, "no wheel among its libraries")
    if wheel.get("package_name") != distribution:
        bundle.find(where, f"no distribution {wheel.get('package_name')}; it is {distribution}")
    if wheel.get("entry_point") not in entry_points:
        bundle.find(
            where,
            f"no entry point {wheel.get('entry_point')} in {bundle.wheel.name}; there are: "
            f"{', '.join(sorted(entry_points))}",
        )
    elif wheel["entry_point"] != ENTRY_POINT:
        # The command itself ends by an exit code, and Databricks takes any exit for a failure.
        bundle.find(where, f"entry point {wheel['entry_point']}: a task's is {ENTRY_POINT}")
    if "environment_key" in task:
        _libraries(bundle, where, brought, wheel.get("parameters", []))
    else:
        given = [text for _, text in _strings(task.get("libraries", []))]
        _libraries(bundle, where, given, wheel.get("parameters", []))
        _coordinates(bundle, where, task.get("libraries", []))
    variables = spec.get("spark_env_vars") or {}
    _parameters(bundle, where, job, wheel.get("parameters", []), variables)


def _libraries(bundle: Bundle, where: str, brought: list[str], parameters: list[object]) -> None:
    words = [str(word) for word in parameters if not SETTING.fullmatch(str(word))]
    for command in ("", *words[:1]):
        for wanted in LIBRARIES.get(command, ()):
            if not any(wanted in text for text in brought):
                bundle.find(where, f"{words[0] if words else '?'} wants {wanted} in its libraries")


def _coordinates(bundle: Bundle, where: str, libraries: list[dict[str, Any]]) -> None:
    for one in libraries:
        coordinates = (one.get("maven") or {}).get("coordinates", "a:b:c")
        if not MAVEN.fullmatch(coordinates):
            bundle.find(where, f"{coordinates} are no coordinates of Maven (group:name:version)")


def _requirements(bundle: Bundle) -> None:
    for name, wanted in REQUIRED.items():
        file = bundle.root / "requirements" / name
        lines = file.read_text().splitlines() if file.is_file() else []
        for package in sorted(wanted - {line.partition("==")[0] for line in lines if "==" in line}):
            bundle.find(f"requirements/{name}", f"no {package}, of one version")


def _parameters(
    bundle: Bundle,
    where: str,
    job: dict[str, Any],
    words: list[str],
    variables: dict[str, str],
) -> None:
    declared = {one["name"] for one in job.get("parameters", [])}

    def filled(found: re.Match[str]) -> str:
        name = found[1]
        if name.startswith("job.parameters."):
            if name.removeprefix("job.parameters.") not in declared:
                bundle.find(where, f"undefined parameter {name}")
        elif not KNOWN_AT_RUN_TIME.fullmatch(name):
            bundle.find(where, f"undefined {name}")
        return SAMPLE

    words = [RUN_TIME.sub(filled, str(word)) for word in words]
    told = {key: value for key, value in variables.items() if not isinstance(value, dict | list)}
    texts = {key: _as_text(value) for key, value in told.items()}
    said = _commands(bundle.wheel)({"words": words, "variables": texts})
    for error in said["errors"]:
        bundle.find(where, error)
    for path in said["paths"]:
        if not path.startswith(("/Volumes/", "abfss://")):
            bundle.find(where, f"{path} is the machine's own, which goes away with it")


def _as_text(value: object) -> str:
    """As the CLI writes a number or a truth value that stands in the place of a text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _commands(wheel: Path) -> Callable[[dict[str, Any]], dict[str, list[str]]]:
    """Asks the commands in a wheel, by tests/wheel_commands.py, in a process that stays."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    with ZipFile(wheel) as file:
        file.extractall(folder)
    process = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("wheel_commands.py")), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    atexit.register(process.kill)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    to, back, complaints = process.stdin, process.stdout, process.stderr

    def ask(question: dict[str, Any]) -> dict[str, list[str]]:
        try:
            to.write(json.dumps(question) + "\n")
            to.flush()
            answer: dict[str, list[str]] = json.loads(back.readline() or "null")
        except BrokenPipeError:
            answer = {}
        if not answer:
            said = complaints.read().strip().splitlines()
            process.wait()
            # Whoever asks next gets another one.
            _commands.cache_clear()
            return {"errors": [f"{wheel.name}: {said[-1] if said else 'no answer'}"], "paths": []}
        return answer

    return ask


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target")
@click.argument("wheel", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE")
def main(folder: Path, target: str, wheel: Path, variables: tuple[str, ...]) -> None:
    """Everything that is wrong with the bundle in FOLDER, a line each; exit code 1 where any is."""
    given = {name: value for name, _, value in (one.partition("=") for one in variables)}
    found = check(folder, target, given, wheel)
    for line in found:
        click.echo(line)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
