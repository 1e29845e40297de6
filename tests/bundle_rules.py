"""What Headwater's bundle has to say, whatever Databricks would let pass: see tests/bundle.py.

Each rule finds what would be seen too late: tables of production written by a smoke test, a
warehouse filled with what was not checked, a stream on machines that go away.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from headwater.job import SETTING
from lakehouse.redact import SECRET_NAMES
from lakehouse.settings import SECRET

Find = Callable[[str, str], None]
Raw = dict[str, Any]

# Which commands wait for which, where a job has both: nothing is published that was not checked.
AFTER = {
    "stream": ("produce",),
    "reconcile": ("stream",),
    "gold": ("replay", "reconcile"),
    "quality": ("gold",),
    "publish": ("quality",),
    "catalog": ("gold",),
}
# What each job is there for, by what its tasks run.
RUNS = {
    "streaming": {"stream bronze", "stream silver metrics"},
    "reconcile": {"reconcile"},
    "gold_hourly": {"gold", "quality", "publish"},
    "gold_daily": {"gold", "quality", "publish", "catalog apply", "audit"},
    "maintenance": {"maintain"},
    "backfill": {"replay", "gold", "quality", "publish", "audit"},
    "smoke": {"produce", "stream", "reconcile", "gold", "audit"},
}
# Options that a job's command has, and that no command has: those only look.
OPTIONS = {("gold_daily", "gold"): "--rebuild", ("smoke", "stream"): "--available-now"}
ONLY_LOOK = {"--plan", "--dry-run"}
# What is started by whoever deploys; all else by the clock, or always.
BY_HAND = {"smoke", "backfill"}
OF_A_CLUSTER = {"spark_version", "node_type_id", "data_security_mode", "spark_env_vars"}
RUNTIME = "18."
# Jobs reach for the JVM, which clusters that are shared keep from them.
SECURITY = {"SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED"}
LONGEST_BACKLOG_SECONDS = 3_600
LAYERS = {"bronze", "silver", "gold", "ops"}
VOLUMES = {"checkpoints", "reports"}
# What the next run writes again.
MADE_ANEW = {"reports"}
# Without them names in Unity Catalog are another deployment's, or none.
ENVIRONMENT = {
    "HEADWATER_STORAGE",
    "HEADWATER_CHECKPOINT_ROOT",
    "HEADWATER_UNITY__CATALOG",
    "HEADWATER_UNITY__SCHEMA_PREFIX",
    "HEADWATER_UNITY__READERS",
    "HEADWATER_UNITY__STEWARDS",
    "HEADWATER_BROKER__BOOTSTRAP",
}
# What sets the smoke job's records apart from all others.
APART = ("HEADWATER_TOPICS__EVENTS", "HEADWATER_STORAGE", "HEADWATER_CHECKPOINT_ROOT")
OF_ITS_RUN = "{{job.run_id}}"
EVENTS = "shop.events"


def check(raw: Raw, find: Find) -> None:
    """All rules. raw: the bundle for a target, values in the place of references."""
    if not (raw.get("bundle") or {}).get("name"):
        find("bundle", "no name")
    _whose(raw, find)
    resources = raw["resources"]
    _storage(raw, resources, find)
    _dashboards(raw, resources, find)
    jobs = resources.get("jobs", {})
    for name, wanted in RUNS.items():
        if name not in jobs:
            find(f"jobs.{name}", "no such job")
            continue
        found = {" ".join(words(task)) for task in jobs[name].get("tasks", [])}
        for command in sorted(wanted - found):
            find(f"jobs.{name}", f"no task that runs {command}")
    for name, job in jobs.items():
        _job(raw, name, job, find)
        _order(name, job.get("tasks", []), find)
        for task in job.get("tasks", []):
            _task(name, job, task, find)
        for cluster in job.get("job_clusters", []):
            _cluster(name, "continuous" in job, cluster, find)
    if "smoke" in jobs:
        _smoke(jobs["smoke"], find)


def words(task: Raw) -> list[str]:
    """What a task runs, up to its first option."""
    return list(takewhile(lambda word: not word.startswith("-"), _all_words(task)))


def _all_words(task: Raw) -> list[str]:
    parameters = (task.get("python_wheel_task") or {}).get("parameters", [])
    return [str(word) for word in parameters if not SETTING.fullmatch(str(word))]


def _settings(task: Raw) -> dict[str, str]:
    parameters = (task.get("python_wheel_task") or {}).get("parameters", [])
    found = (SETTING.fullmatch(str(word)) for word in parameters)
    return {one[1]: one[2] for one in found if one}


def _whose(raw: Raw, find: Find) -> None:
    granted = raw.get("permissions") or []
    if not any(one.get("level") == "CAN_MANAGE" and one.get("group_name") for one in granted):
        find("permissions", "no group that CAN_MANAGE what is deployed")
    experimental = raw.get("experimental") or {}
    if experimental.get("skip_name_prefix_for_schema") is not True:
        find("experimental", "skip_name_prefix_for_schema: schemas would be named twice over")
    for name, target in (raw.get("targets") or {}).items():
        root = str((target.get("workspace") or {}).get("root_path", ""))
        if target.get("mode") == "production" and not root.startswith("/Workspace/Users/"):
            find(f"targets.{name}", "root_path is in nobody's home: others could change what runs")


def _storage(raw: Raw, resources: Raw, find: Find) -> None:
    schemas, volumes = resources.get("schemas", {}), resources.get("volumes", {})
    for kind, wanted, found in (("schemas", LAYERS, schemas), ("volumes", VOLUMES, volumes)):
        for name in sorted(wanted - set(found)):
            find(f"{kind}.{name}", "no such resource")
        for name, one in found.items():
            if one.get("catalog_name") != _variable(raw, "catalog"):
                find(f"{kind}.{name}", f"catalog {one.get('catalog_name')} is not the variable's")
            if not one.get("catalog_name"):
                find(f"{kind}.{name}", "no catalog")
            kept = (one.get("lifecycle") or {}).get("prevent_destroy") is True
            if not kept and name not in MADE_ANEW:
                find(f"{kind}.{name}", "no prevent_destroy: `bundle destroy` would take it along")
    for name, one in volumes.items():
        if one.get("volume_type") != "MANAGED":
            find(f"volumes.{name}", f"volume_type {one.get('volume_type')}: wants MANAGED")


def _dashboards(raw: Raw, resources: Raw, find: Find) -> None:
    ops = (resources.get("schemas", {}).get("ops") or {}).get("name")
    for name, one in resources.get("dashboards", {}).items():
        wanted = {"dataset_catalog": _variable(raw, "catalog"), "dataset_schema": ops}
        for key, value in wanted.items():
            if one.get(key) != value:
                find(f"dashboards.{name}", f"{key}: {one.get(key)}, where runs are in {value}")
        if not one.get("warehouse_id"):
            find(f"dashboards.{name}", "no warehouse_id")


def _variable(raw: Raw, name: str) -> Any:
    """A variable's value for the target, as the storage's own schemas were given it."""
    for target in (raw.get("targets") or {}).values():
        if name in (target.get("variables") or {}):
            return target["variables"][name]
    return ((raw.get("variables") or {}).get(name) or {}).get("default")


def _job(raw: Raw, name: str, job: Raw, find: Find) -> None:
    where = f"jobs.{name}"
    starts = job.get("schedule") or job.get("continuous")
    if not starts and name not in BY_HAND:
        find(where, "neither continuous nor on a schedule: nothing starts it")
    if starts and starts.get("pause_status") != _variable(raw, "pause_status"):
        find(where, f"pause_status {starts.get('pause_status')} is not the variable's")
    if not job.get("tasks"):
        find(where, "no tasks")
    for rule in (job.get("health") or {}).get("rules", []):
        if rule.get("metric") == "STREAMING_BACKLOG_SECONDS":
            most = LONGEST_BACKLOG_SECONDS
            if not 0 < rule.get("value", 0) <= most:
                find(where, f"health: a backlog of {rule.get('value')} s; {most} at most")


def _task(name: str, job: Raw, task: Raw, find: Find) -> None:
    where = f"jobs.{name}.{task.get('task_key')}"
    said, of_it = _all_words(task), words(task)
    if task.get("run_if", "ALL_SUCCESS") != "ALL_SUCCESS":
        find(where, f"run_if {task['run_if']}: it goes on from what has failed")
    if task.get("disabled"):
        find(where, "disabled")
    for option in sorted(ONLY_LOOK & set(said)):
        find(where, f"{option}: it only looks")
    wanted = OPTIONS.get((name, of_it[0] if of_it else ""))
    if wanted and wanted not in said:
        find(where, f"{of_it[0]} without {wanted}")
    if "continuous" in job:
        if "--available-now" in said:
            find(where, "--available-now: it would end, and start, all the time")
        return
    if not task.get("timeout_seconds", 0) > 0:
        find(where, "timeout_seconds: it may run for ever")
    if not 0 <= task.get("max_retries", 0) <= 10:
        find(where, f"max_retries: {task.get('max_retries')}")


def _cluster(name: str, streams: bool, cluster: Raw, find: Find) -> None:
    where, key = f"jobs.{name}", cluster.get("job_cluster_key")
    spec = cluster.get("new_cluster", {})
    for lacking in sorted(OF_A_CLUSTER - {key for key, value in spec.items() if value}):
        find(where, f"cluster {key}: no {lacking}")
    if not str(spec.get("spark_version", RUNTIME)).startswith(RUNTIME):
        find(where, f"cluster {key}: {spec['spark_version']} is none of Spark 4.1 ({RUNTIME}x)")
    if spec.get("data_security_mode", "SINGLE_USER") not in SECURITY:
        find(where, f"cluster {key}: data_security_mode {spec['data_security_mode']}")
    for lacking in sorted(ENVIRONMENT - set(spec.get("spark_env_vars") or {})):
        find(where, f"cluster {key}: no {lacking} in spark_env_vars")
    given = {**(spec.get("spark_env_vars") or {}), **(spec.get("spark_conf") or {})}
    for name, value in given.items():
        if re.search(SECRET_NAMES, name) and not _is_reference(str(value)):
            find(where, f"cluster {key}: {name} is in plain text: {{{{secrets/SCOPE/KEY}}}} is not")
    availability = (spec.get("azure_attributes") or {}).get("availability")
    if streams:
        if availability != "ON_DEMAND_AZURE":
            find(where, f"cluster {key}: {availability}: a stream's machines have to stay")
        if not spec.get("num_workers", 1) > 0:
            find(where, f"cluster {key}: no workers")
    else:
        scale = spec.get("autoscale") or {}
        if not 1 <= scale.get("min_workers", 1) <= scale.get("max_workers", 1):
            find(where, f"cluster {key}: autoscale {scale}")


def _is_reference(value: str) -> bool:
    """Whether a secret is somewhere else: in a scope of Databricks', or as settings name it."""
    return bool(
        re.fullmatch(r"\{\{secrets/[^/{}]+/[^/{}]+\}\}", value) or re.fullmatch(SECRET, value)
    )


def _order(name: str, tasks: list[Raw], find: Find) -> None:
    """Whatever goes on from what another task of the job does, waits for it."""
    waits = {
        task.get("task_key"): {one["task_key"] for one in task.get("depends_on", [])}
        for task in tasks
    }
    command = {task.get("task_key"): "".join(words(task)[:1]) for task in tasks}

    def waited_for(key: Any, seen: frozenset[Any] = frozenset()) -> set[Any]:
        nearest = waits.get(key, set()) - seen
        return nearest.union(*(waited_for(one, seen | nearest) for one in nearest))

    for key, runs in command.items():
        for other in AFTER.get(runs, ()):
            for before in (one for one, named in command.items() if named == other):
                if before not in waited_for(key):
                    find(f"jobs.{name}.{key}", f"{runs} does not wait for {other}")


def _smoke(job: Raw, find: Find) -> None:
    """It ends in an audit, and all of it is about the same few records, in places of its own."""
    tasks = {task.get("task_key"): task for task in job.get("tasks", [])}
    waited_for = {one["task_key"] for task in tasks.values() for one in task.get("depends_on", [])}
    ends = [key for key in tasks if key not in waited_for]
    if len(ends) != 1 or "audit" not in words(tasks[ends[0]]):
        said = ", ".join(map(str, ends))
        find("jobs.smoke", f"it ends in {said}, and not in an audit alone")
    clusters = {
        one.get("job_cluster_key"): (one.get("new_cluster") or {}).get("spark_env_vars") or {}
        for one in job.get("job_clusters", [])
    }
    own = {key: _settings(task) for key, task in tasks.items()}
    for key, task in tasks.items():
        where, shared = f"jobs.smoke.{key}", clusters.get(task.get("job_cluster_key"), {})
        sends = words(task)[:1] == ["produce"]
        for option in ("--data", "--contracts"):
            if option in _all_words(task):
                find(where, f"{option}: it goes by the settings in front of the command")
        for name in APART[:1] if sends else APART:
            value = own[key].get(name)
            if value is None or value in (shared.get(name), EVENTS):
                find(where, f"{name} is not its own")
            elif name != APART[0] and OF_ITS_RUN not in value:
                find(where, f"{name}: {value} is not this run's alone ({OF_ITS_RUN})")
        # Where they send to and read from is one place.
        for name in (*APART, "HEADWATER_BROKER__BOOTSTRAP"):
            values = {o: own[o].get(name, _of(clusters, tasks[o], name)) for o in tasks}
            others = {value for o, value in values.items() if o != key and value is not None}
            if values[key] is not None and others and values[key] not in others:
                find(where, f"{name} is another one than its other tasks have")


def _of(clusters: dict[Any, dict[str, str]], task: Raw, name: str) -> str | None:
    return clusters.get(task.get("job_cluster_key"), {}).get(name)
