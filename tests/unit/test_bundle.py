"""The Databricks bundle: right as it is, and each mistake in a copy of it is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from headwater import job
from lakehouse import catalog, tables
from lakehouse import settings as settings_files
from tests import bundle
from tests.helpers import ROOT

GIVEN = {
    "storage": "abfss://lakehouse@example.dfs.core.windows.net/headwater",
    "event_hubs": "example.servicebus.windows.net:9093",
    "mysql_host": "example.mysql.database.azure.com",
    "service_principal": "22222222-2222-2222-2222-222222222222",
    "alerts_to": "alerts@example.com",
}
FILES = ["databricks.yml", "resources", "requirements"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle.build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundle's files, to be broken."""
    for name in FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_the_bundle_is_right(target: str, wheel: Path) -> None:
    assert bundle.check(ROOT, target, GIVEN, wheel) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "where", "named"),
    [
        ("streaming.yml", "max_concurrent_runs", "max_runs", "jobs.streaming", "max_runs"),
        ("batch.yml", "task_key: maintain\n", "task_key: maintain\n          retries: 1\n",
         "jobs.maintenance", "retries"),
        ("storage.yml", "volume_type", "volume_kind", "volumes.checkpoints", "volume_kind"),
        ("databricks.yml", "mode: production", "modus: production", "targets.prod", "modus"),
        ("databricks.yml", "autoscale:", "autoscaling:", "jobs.reconcile", "autoscaling"),
        ("batch.yml", "entry_point: headwater-job", "entry_point: headwater-jobs",
         "jobs.reconcile.reconcile", "no entry point headwater-jobs"),
        ("batch.yml", "entry_point: headwater-job", "entry_point: headwater",
         "jobs.reconcile.reconcile", "entry point headwater: a task's is headwater-job"),
        ("batch.yml", "- whl: ../dist/*.whl", "- whl: []", "jobs.reconcile", "whl: [] is no text"),
        ("dashboard.yml", "file_path: ", "display_name2: ", "dashboards.operations", ""),
        ("dashboard.yml", "file_path: ", "file_path: []\n      #", "dashboards.operations",
         "no text"),
        ("databricks.yml", "HEADWATER_STORAGE: ${var.storage}", "HEADWATER_STORAGE: ${var.storage",
         "variables.environment", "a reference that is not closed"),
        ("databricks.yml", "HEADWATER_STORAGE: ${var.storage}", "HEADWATER_STORAGE: ${var.storage}"
         "\n      HEADWATER_CONTRACTS: /no/such", "jobs.reconcile", "CONTRACTS: /no/such"),
        ("databricks.yml", "HEADWATER_STORAGE: ${var.storage}", "HEADWATER_STORAGE: ${var.storage}"
         "\n      MYSQL_PASSWORD: hunter22", "jobs.reconcile", "MYSQL_PASSWORD is in plain text"),
        ("databricks.yml", "HEADWATER_STORAGE: ${var.storage}", "HEADWATER_STORAGE: ${var.storage}"
         "\n      HEADWATER_PUBLISH_TO: duckdb", "jobs.gold_hourly", "publish_to: duckdb is"),
        ("batch.yml", "${var.alerts_to}", "${var.alert_to}",
         "jobs.reconcile.email_notifications", "undefined variable alert_to"),
        ("databricks.yml", "${resources.schemas.ops.name}", "${resources.schemas.opps.name}",
         "variables.environment", "resources.schemas.opps.name"),
        ("databricks.yml", "      catalog: headwater_prod", "      katalog: headwater_prod",
         "targets.prod.variables", "undefined variable katalog"),
        ("streaming.yml", 'on_failure: ["${var.alerts_to}"]', "on_failure: []",
         "jobs.streaming", "no alert on failure"),
        ("streaming.yml", "STREAMING_BACKLOG_SECONDS", "RUN_DURATION_SECONDS",
         "jobs.streaming", "no alert on STREAMING_BACKLOG_SECONDS"),
        ("batch.yml", "on_duration_warning_threshold_exceeded", "on_success",
         "jobs.gold_daily", "no alert on RUN_DURATION_SECONDS"),
        ("batch.yml", "requirements: ../requirements/databricks.txt",
         "requirements: ../requirements/databrick.txt", "jobs.reconcile", "databrick.txt"),
        ("on_demand.yml", "whl: ../dist/*.whl", "whl: ../wheels/*.whl", "jobs.smoke", "../wheels"),
        ("on_demand.yml", "- ../dist/*.whl", "- ../wheel/*.whl", "jobs.smoke", "../wheel/*"),
        ("on_demand.yml", "-r ../requirements/databricks.txt", "-r ../requirements/none.txt",
         "jobs.smoke", "none.txt"),
        ("on_demand.yml", "environment_key: producer\n          max",
         "environment_key: sender\n          max", "jobs.smoke.send", "no environment sender"),
        ("dashboard.yml", "headwater.lvdash.json", "operations.lvdash.json",
         "dashboards.operations", "operations.lvdash.json"),
        ("batch.yml", "[gold, --rebuild,", "[gold, --rebild,",
         "jobs.gold_daily.gold", "--rebild"),
        ("batch.yml", "[maintain, --env, azure]", "[maintane, --env, azure]",
         "jobs.maintenance.maintain", "maintane"),
        ("batch.yml", "[catalog, apply, --env", "[catalog, aply, --env",
         "jobs.gold_daily.names", "aply"),
        ("batch.yml", "[maintain, --env, azure]", "[maintain, --env, azur]",
         "jobs.maintenance.maintain", "no environment 'azur'"),
        ("streaming.yml", "[stream, silver,", "[stream, sliver,",
         "jobs.streaming.silver", "sliver"),
        ("on_demand.yml", "HEADWATER_CHECKPOINT_ROOT=", "HEADWATER_CHECKPOINTS=",
         "jobs.smoke.audit", "HEADWATER_CHECKPOINTS"),
        ("on_demand.yml", "{{job.parameters.to}}", "{{job.parameters.until}}",
         "jobs.backfill.replay", "undefined parameter job.parameters.until"),
        ("on_demand.yml", "depends_on: [{task_key: send}]", "depends_on: [{task_key: sent}]",
         "jobs.smoke.stream", "sent"),
        ("batch.yml", "job_cluster_key: batch\n          max_retries: 1",
         "job_cluster_key: bach\n          max_retries: 1", "jobs.gold_daily.gold", "bach"),
        ("streaming.yml", "task_retry_mode: ON_FAILURE", "task_retry_mode: NEVER",
         "jobs.streaming", "no retry on failure"),
        ("streaming.yml", "${var.stream_cluster}", "${var.batch_cluster}",
         "jobs.streaming", "fixed size"),
        ("databricks.yml", "    group_name: ${var.operators}", "    group_nam: ${var.operators}",
         "permissions", "group_nam"),
        ("databricks.yml", "level: CAN_MANAGE", "level: CAN_MANAG", "permissions", "CAN_MANAG"),
        ("databricks.yml", "mode: production", "mode: prod", "targets.prod", "mode: prod"),
        ("databricks.yml", "type: whl", "type: wheel", "artifacts", "type: wheel"),
        ("batch.yml", "whl: ../dist/*.whl", "whl: ../dist/nothing-*.whl",
         "jobs.reconcile", "../dist/nothing-*.whl"),
        ("batch.yml", "${resources.volumes.reports.name}", "report",
         "jobs.gold_daily", "is in no volume of the bundle"),
        ("batch.yml", "${resources.volumes.reports.name}", "${resources.jobs.nosuch.id}",
         "jobs.gold_daily", "no such resource or field resources.jobs.nosuch.id"),
        ("batch.yml", "quartz_cron_expression: 0 0 2", "quartz_cron_expression: 0 61 2",
         "jobs.gold_daily", "no schedule of Quartz's"),
        ("batch.yml", "task_key: publish\n", "task_key: gold\n", "jobs.gold_daily", "stands twice"),
        ("batch.yml", 'on_failure: ["${var.alerts_to}"]', 'on_failure: [""]',
         "jobs.reconcile", "'' is no address"),
        ("databricks.yml", "dynamic_version: true", "dynamic_version: false",
         "artifacts", "dynamic_version"),
        ("databricks.yml", "dynamic_version: true", 'dynamic_version: "no"',
         "artifacts.wheel", "dynamic_version: no is none of"),
        ("databricks.yml", "    path: .\n", "    path: ./no\n", "artifacts.wheel", "no folder"),
        ("databricks.yml", "-w dist .", "-w wheels .", "artifacts.wheel", "no wheel in dist"),
        ("databricks.yml", "    build: ", "    built: ", "artifacts.wheel", "unknown field built"),
        ("databricks.yml", "  prod:\n", "  production:\n", "targets", "no target prod"),
        ("databricks.yml", "    mode: production\n", "", "targets.prod", "no mode"),
        ("databricks.yml", "    run_as:\n      service_principal_name: ${var.service_principal}\n",
         "", "targets.prod", "no run_as"),
        ("databricks.yml", "    mode: production\n", "    mode: production\n    default: true\n",
         "targets", "more than one is the default"),
        ("databricks.yml", "      num_workers: ${var.stream_workers}\n", "",
         "jobs.streaming", "fixed size"),
        ("databricks.yml", "      HEADWATER_STORAGE: ${var.storage}\n", "",
         "jobs.gold_daily.gold", "storage: ACCOUNT in"),
        ("databricks.yml", "      HEADWATER_MYSQL__HOST: ${var.mysql_host}\n", "",
         "jobs.gold_daily.publish", "mysql.host: SERVER in"),
        ("databricks.yml", "      HEADWATER_BROKER__BOOTSTRAP: ${var.event_hubs}\n", "",
         "jobs.streaming.silver", "broker.bootstrap: NAMESPACE in"),
        ("databricks.yml", "      HEADWATER_CHECKPOINT_ROOT: /Volumes/", "      # /Volumes/",
         "jobs.streaming.silver", "checkpoint_root: none"),
        ("on_demand.yml", "              - ../dist/*.whl\n", "",
         "jobs.smoke.send", "no wheel in environment producer"),
        ("streaming.yml", "requirements: ../requirements/databricks.txt",
         "pypi: {package: click}", "jobs.streaming.silver", "wants databricks.txt"),
        ("on_demand.yml", "- requirements: ../requirements/databricks-quality.txt", "",
         "jobs.backfill.quality", "wants databricks-quality.txt"),
        ("on_demand.yml", "com.mysql:mysql-connector-j:9.5.0", "mysql",
         "jobs.backfill.publish", "no coordinates of Maven"),
        ("batch.yml", "com.mysql:mysql-connector-j:9.5.0", "org.x:other:1",
         "jobs.gold_daily.publish", "wants com.mysql:mysql-connector-j"),
        ("on_demand.yml", "value: 1800", "value: 999999", "jobs.smoke", "nothing lasts 999999"),
        ("on_demand.yml", "job_cluster_key: batch\n          max",
         "job_cluster_key: batch\n          existing_cluster_id: a-b\n          max",
         "jobs.smoke.stream", "existing_cluster_id"),
        ("on_demand.yml", "audit, --env, azure]", "contracts, check]",
         "jobs.smoke", "and not in an audit alone"),
        ("on_demand.yml", "depends_on: [{task_key: gold}]", "depends_on: [{task_key: stream}]",
         "jobs.smoke", "and not in an audit alone"),
        ("on_demand.yml", '["HEADWATER_TOPICS__EVENTS=${var.smoke_hub}", ', "[",
         "jobs.smoke.stream", "HEADWATER_TOPICS__EVENTS is not its own"),
        ("on_demand.yml", '"HEADWATER_STORAGE=${var.storage}/smoke/{{job.run_id}}", ', "",
         "jobs.smoke.stream", "HEADWATER_STORAGE is not its own"),
        ("databricks.yml", "variables:\n  catalog:", "variable:\n  catalog:",
         "databricks.yml", "unknown field variable"),
        ("databricks.yml", "HEADWATER_UNITY__CATALOG:", "HEADWATER_UNITY__CATALOGUE:",
         "jobs.maintenance.maintain", "HEADWATER_UNITY__CATALOGUE"),
        ("databricks.yml", "HEADWATER_BROKER__BOOTSTRAP: ${var.event_hubs}",
         "HEADWATER_BROKER__BOOTSTRAP: nowhere", "jobs.streaming.bronze", "host:port"),
        ("databricks.yml", "HEADWATER_MYSQL__PASSWORD: databricks:",
         "HEADWATER_MYSQL__PASSWORD: databrick:", "jobs.gold_hourly.publish", "mysql.password"),
        ("databricks.yml", "HEADWATER_STORAGE: ${var.storage}", "HEADWATER_STORAGE: dbfs:/lake",
         "jobs.reconcile.reconcile", "dbfs:/lake"),
        ("databricks.yml", "${resources.schemas.ops.name}/${resources.volumes.checkpoints.name}",
         "opps/${resources.volumes.checkpoints.name}", "jobs.streaming", "no volume"),
        ("batch.yml", "[maintain, --env, azure]", "[maintain]",
         "jobs.maintenance.maintain", "environment local is a laptop's"),
        ("batch.yml", "[maintain, --env, azure]", "[maintain, --help]",
         "jobs.maintenance.maintain", "does nothing"),
        ("batch.yml", "[maintain, --env, azure]", "[maintain, --env, azure, --data, /no/such]",
         "jobs.maintenance.maintain", "/no/such is the machine's own"),
        ("batch.yml", "/Volumes/${var.catalog}/${resources.schemas.ops.name}/",
         "/Volumes/${var.catalog}/${resources.schemas.gold.name}/",
         "jobs.gold_daily", "is in no volume of the bundle"),
        ("batch.yml", "/Volumes/${var.catalog}/", "/Volumes/no_such/",
         "jobs.gold_daily", "is in no volume of the bundle"),
        ("batch.yml", "metric: RUN_DURATION_SECONDS", "metrik: RUN_DURATION_SECONDS",
         "jobs.reconcile", "metrik"),
        ("batch.yml", "depends_on: [{task_key: gold}]", "depends_on: [{task: gold}]",
         "jobs.gold_daily", "task"),
        ("batch.yml", "timezone_id: UTC", "timezone_id: UTCC", "jobs.reconcile", "UTCC"),
        ("batch.yml", "0 0/30 * * * ?", "0 0/90 * * * ?", "jobs.reconcile", "Quartz"),
        ("batch.yml", "0 0 2 * * ?", "0 0 2 ? * SAM", "jobs.gold_daily", "Quartz"),
        ("batch.yml", "timeout_seconds: 7200\n      tags", "timeout_seconds: 60\n      tags",
         "jobs.gold_daily", "less than a task's own"),
        ("batch.yml", 'on_failure: ["${var.alerts_to}"]', 'on_failure: ["{var.alerts_to}"]',
         "jobs.reconcile", "is no address"),
        ("batch.yml", "    gold_hourly:\n", "    reconcile:\n",
         "batch.yml", "reconcile stands twice"),
        ("batch.yml", "resources:\n  jobs:", "resource:\n  jobs:", "batch.yml", "resource"),
        ("storage.yml", "schema_name: ${resources.schemas.ops.name}", "schema_name: opps",
         "volumes.checkpoints", "no schema opps"),
        ("on_demand.yml", "-r ../requirements/databricks.txt", "-r../requirements/none.txt",
         "jobs.smoke", "none.txt"),
        ("on_demand.yml", "-r ../requirements/databricks.txt",
         "--requirement ../requirements/none.txt", "jobs.smoke", "none.txt"),
        ("on_demand.yml", "HEADWATER_STORAGE=${var.storage}/smoke", "HEADWATER_STORAGE=smoke",
         "jobs.smoke.stream", "is the machine's own"),
        ("on_demand.yml", "ROOT=/Volumes/${var.catalog}/${resources.schemas.ops",
         "ROOT=/Volumes/${var.catalog}/${resources.schemas.gold",
         "jobs.smoke", "is in no volume of the bundle"),
        ("streaming.yml", "            - whl: ../dist/*.whl\n",
         "            - whl: ../dist/*.whl\n            - egg: ../jars/none.egg\n",
         "jobs.streaming", "none.egg"),
        # What is left out, and would be missed only later.
        ("batch.yml", "      schedule:\n        quartz_cron_expression: 0 0/30 * * * ?\n"
         "        timezone_id: UTC\n        pause_status: ${var.pause_status}\n", "",
         "jobs.reconcile", "nothing starts it"),
        ("streaming.yml", "      continuous:\n        pause_status: ${var.pause_status}\n"
         "        task_retry_mode: ON_FAILURE\n", "", "jobs.streaming", "nothing starts it"),
        ("batch.yml", "depends_on: [{task_key: quality}]", "depends_on: [{task_key: gold}]",
         "jobs.gold_hourly.publish", "publish does not wait for quality"),
        ("batch.yml", "          depends_on: [{task_key: gold}]\n", "",
         "jobs.gold_daily.quality", "quality does not wait for gold"),
        ("on_demand.yml", "          depends_on: [{task_key: replay}]\n", "",
         "jobs.backfill.gold", "gold does not wait for replay"),
        ("on_demand.yml", "          depends_on: [{task_key: send}]\n", "",
         "jobs.smoke.stream", "stream does not wait for produce"),
        ("batch.yml", "[quality, --env, azure,", "[contracts, check, --env, azure,",
         "jobs.gold_hourly", "no task that runs quality"),
        ("streaming.yml", "[stream, silver,", "[stream, bronze,",
         "jobs.streaming", "no task that runs stream silver metrics"),
        ("batch.yml", "    maintenance:\n", "    upkeep:\n", "jobs.maintenance", "no such job"),
        ("batch.yml", "        - task_key: audit\n          job_cluster_key: batch\n"
         "          max_retries: 0\n          timeout_seconds: 3600\n          python_wheel_task:\n"
         "            package_name: headwater\n            entry_point: headwater-job\n"
         "            parameters: [audit, --env, azure]\n          libraries: *libraries\n", "",
         "jobs.gold_daily", "no task that runs audit"),
        ("databricks.yml", "      spark_version: ${var.spark_version}\n", "",
         "jobs.streaming", "no spark_version"),
        ("databricks.yml", "      node_type_id: ${var.batch_node_type}\n", "",
         "jobs.reconcile", "no node_type_id"),
        ("databricks.yml", "      data_security_mode: SINGLE_USER\n", "",
         "jobs.gold_daily", "no data_security_mode"),
        ("databricks.yml", "      spark_env_vars: ${var.environment}\n", "",
         "jobs.maintenance", "no spark_env_vars"),
        ("databricks.yml", "      service_principal_name: ${var.service_principal}\n", "",
         "targets.prod", "no run_as"),
        ("databricks.yml", "      HEADWATER_BROKER__SASL_PASSWORD: databricks:"
         "${var.secret_scope}/eventhub-connection-string\n", "",
         "jobs.streaming.silver", "no variable EVENTHUB_CONNECTION_STRING is given"),
        ("databricks.yml",
         "      HEADWATER_MYSQL__PASSWORD: databricks:${var.secret_scope}/mysql-password\n", "",
         "jobs.gold_hourly.publish", "no variable MYSQL_PASSWORD is given"),
        ("on_demand.yml", "              - HEADWATER_BROKER__SASL_PASSWORD=databricks:"
         "${var.secret_scope}/eventhub-connection-string\n", "",
         "jobs.smoke.send", "no variable EVENTHUB_CONNECTION_STRING is given"),
        ("on_demand.yml", "            dependencies:\n              - ../dist/*.whl\n"
         "              - -r ../requirements/databricks.txt\n              - orjson==3.13.0\n", "",
         "jobs.smoke.send", "no wheel in environment producer"),
        # What would write into production, or publish what was not checked.
        ("on_demand.yml", "HEADWATER_STORAGE=${var.storage}/smoke/{{job.run_id}}",
         "HEADWATER_STORAGE=${var.storage}", "jobs.smoke.gold", "HEADWATER_STORAGE is not its own"),
        ("on_demand.yml", "/smoke/{{job.run_id}}\", stream", "\", stream",
         "jobs.smoke.stream", "HEADWATER_CHECKPOINT_ROOT is not its own"),
        ("on_demand.yml", "HEADWATER_STORAGE=${var.storage}/smoke/{{job.run_id}}",
         "HEADWATER_STORAGE=${var.storage}/smoke", "jobs.smoke.audit", "not this run's alone"),
        ("databricks.yml", "default: shop.smoke", "default: shop.events",
         "jobs.smoke.send", "HEADWATER_TOPICS__EVENTS is not its own"),
        ("on_demand.yml", "              - HEADWATER_TOPICS__EVENTS=${var.smoke_hub}\n", "",
         "jobs.smoke.send", "HEADWATER_TOPICS__EVENTS is not its own"),
        ("on_demand.yml", "              - HEADWATER_TOPICS__EVENTS=${var.smoke_hub}\n",
         "              - HEADWATER_TOPICS__EVENTS=another\n",
         "jobs.smoke.send", "HEADWATER_TOPICS__EVENTS is another one than its other tasks have"),
        ("on_demand.yml", "HEADWATER_BROKER__BOOTSTRAP=${var.event_hubs}",
         "HEADWATER_BROKER__BOOTSTRAP=other.servicebus.windows.net:9093",
         "jobs.smoke.send", "HEADWATER_BROKER__BOOTSTRAP is another one"),
        ("on_demand.yml", "stream, --available-now, --env", "stream, --env",
         "jobs.smoke.stream", "stream without --available-now"),
        ("on_demand.yml", "audit, --env, azure]", "audit, --env, azure, --data, "
         "'abfss://lakehouse@other.dfs.core.windows.net/x']", "jobs.smoke.audit", "--data"),
        ("batch.yml", "        - task_key: publish\n",
         "        - task_key: publish\n          run_if: ALL_DONE\n",
         "jobs.gold_hourly.publish", "run_if ALL_DONE"),
        ("batch.yml", "        - task_key: maintain\n",
         "        - task_key: maintain\n          disabled: true\n",
         "jobs.maintenance.maintain", "disabled"),
        ("batch.yml", "[gold, --rebuild, --env", "[gold, --env",
         "jobs.gold_daily.gold", "gold without --rebuild"),
        ("batch.yml", "[maintain, --env, azure]", "[maintain, --dry-run, --env, azure]",
         "jobs.maintenance.maintain", "it only looks"),
        ("streaming.yml", "metrics, --env", "metrics, --available-now, --env",
         "jobs.streaming.silver", "it would end, and start, all the time"),
        ("streaming.yml", "value: 300", "value: 3000000", "jobs.streaming", "3600 at most"),
        ("streaming.yml", "pause_status: ${var.pause_status}", "pause_status: PAUSED",
         "jobs.streaming", "pause_status PAUSED is not the variable's"),
        ("batch.yml", "timeout_seconds: 900", "timeout_seconds: 0",
         "jobs.reconcile.reconcile", "it may run for ever"),
        ("batch.yml", "max_retries: 2", "max_retries: -1", "jobs.reconcile", "max_retries: -1"),
        ("databricks.yml", "default: 18.x-scala2.13", "default: 15.4.x-scala2.12",
         "jobs.streaming", "is none of Spark 4.1"),
        ("databricks.yml", "data_security_mode: SINGLE_USER", "data_security_mode: USER_ISOLATION",
         "jobs.streaming", "data_security_mode USER_ISOLATION"),
        ("databricks.yml", "availability: ON_DEMAND_AZURE", "availability: SPOT_AZURE",
         "jobs.streaming", "a stream's machines have to stay"),
        ("databricks.yml", "num_workers: ${var.stream_workers}", "num_workers: 0",
         "jobs.streaming", "no workers"),
        ("databricks.yml", "min_workers: 1", "min_workers: 99", "jobs.reconcile", "autoscale"),
        ("databricks.yml", "      HEADWATER_UNITY__CATALOG: ${var.catalog}\n", "",
         "jobs.gold_daily", "no HEADWATER_UNITY__CATALOG"),
        ("databricks.yml", "      HEADWATER_UNITY__SCHEMA_PREFIX: ${var.schema_prefix}\n", "",
         "jobs.gold_daily", "no HEADWATER_UNITY__SCHEMA_PREFIX"),
        ("databricks.yml", "  name: headwater\n", "", "bundle", "no name"),
        ("databricks.yml", "permissions:\n  - level: CAN_MANAGE\n"
         "    group_name: ${var.operators}\n", "", "permissions", "no group that CAN_MANAGE"),
        ("databricks.yml", "root_path: /Workspace/Users/", "root_path: /Workspace/Shared/",
         "targets.prod", "in nobody's home"),
        ("databricks.yml", "skip_name_prefix_for_schema: true",
         "skip_name_prefix_for_schema: false", "experimental", "skip_name_prefix_for_schema"),
        ("databricks.yml", "    presets:\n      tags:\n        environment: prod\n",
         "    presets: nonsense\n", "targets.prod.presets", "is no mapping"),
        ("databricks.yml", "type: complex", "type: complicated", "variables", "complicated"),
        ("storage.yml", "      comment: Dimensions, facts and metrics.\n"
         "      lifecycle: {prevent_destroy: true}\n",
         "      comment: Dimensions, facts and metrics.\n", "schemas.gold", "no prevent_destroy"),
        ("storage.yml", "    gold:\n", "    golden:\n", "schemas.gold", "no such resource"),
        ("storage.yml", "volume_type: MANAGED", "volume_type: EXTERNAL",
         "volumes.checkpoints", "wants MANAGED"),
        ("storage.yml", "catalog_name: ${var.catalog}\n      name: ${var.schema_prefix}gold",
         "catalog_name: other\n      name: ${var.schema_prefix}gold",
         "schemas.gold", "catalog other"),
        ("dashboard.yml", "dataset_schema: ${resources.schemas.ops.name}", "dataset_schema: gold",
         "dashboards.operations", "dataset_schema: gold"),
        ("dashboard.yml", "      warehouse_id: ${var.sql_warehouse}\n", "",
         "dashboards.operations", "no warehouse_id"),
        ("on_demand.yml", "              - -r ../requirements/databricks.txt\n", "",
         "jobs.smoke.send", "wants databricks.txt"),
        ("on_demand.yml", "orjson==3.13.0", "orjsn==3.13.0", "jobs.smoke.send", "wants orjson"),
        ("dashboard.yml", "headwater.lvdash.json", "streaming.yml",
         "dashboards.operations", "streaming.yml is no JSON"),
        ("databricks.yml", "    type: complex\n", "", "variables", "type: complex goes"),
        ("databricks.yml", ">= 1.22.0", ">= 99", "bundle", "is no version that there is"),
        ("databricks.yml", "python3 -m pip wheel -q --no-deps", "echo", "artifacts", "no wheel"),
        ("databricks.yml", "      catalog: headwater_prod", '      catalog: ""',
         "schemas.gold", "no catalog"),
        ("on_demand.yml", 'environment_version: "4"', 'environment_version: "99"',
         "jobs.smoke", "environment_version: 99"),
        ("streaming.yml", "value: 300", "value: 0", "jobs.streaming", "is no number of seconds"),
        ("streaming.yml", "value: 300", 'value: "300"', "jobs.streaming", "'300'"),
        ("streaming.yml", "value: 300", "value: ", "streaming.yml", "value: has no value"),
        ("batch.yml", "      schedule:\n", "      git_source: {git_url: https://example.com/x, "
         "git_provider: gitHub}\n      schedule:\n", "jobs.reconcile", "git_source"),
        ("batch.yml", "      schedule:\n", "      trigger: {periodic: {interval: 1, unit: DAYS}}\n"
         "      schedule:\n", "jobs.reconcile", "on a schedule, and by a trigger"),
        ("storage.yml", "name: reports", "name: checkpoints",
         "volumes.reports", "is another volume, too"),
        ("storage.yml", "name: reports", "name: re ports", "volumes.reports", "is no name"),
        ("streaming.yml", "      email_notifications:\n        on_failure: "
         '["${var.alerts_to}"]\n        on_streaming_backlog_exceeded: ["${var.alerts_to}"]\n', "",
         "jobs.streaming", "no alert on failure"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(
    file: str, old: str, new: str, where: str, named: str, copy: Path, wheel: Path
) -> None:
    path = copy / file if file == "databricks.yml" else copy / "resources" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    found = bundle.check(copy, "prod", GIVEN, wheel)
    assert [line for line in found if line.startswith(where) and named in line], found


def test_another_target_is_looked_at_too(copy: Path, wheel: Path) -> None:
    path = copy / "databricks.yml"
    text = path.read_text()
    assert text.count("  dev:\n") == 1
    wrong = '  dev:\n    variables: {katalog: x}\n    presets: {tags: {a: "${var.nope}"}}\n'
    whole = yaml.safe_load(text)
    whole["targets"]["dev"] |= yaml.safe_load(wrong)["dev"]
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    found = bundle.check(copy, "prod", GIVEN, wheel)
    assert "targets.dev.variables: undefined variable katalog" in found
    assert "targets.dev: undefined variable nope" in found


def test_a_number_in_the_environment_is_its_text(copy: Path, wheel: Path) -> None:
    path = copy / "databricks.yml"
    more = "HEADWATER_STORAGE: ${var.storage}\n      HEADWATER_STREAM__STATE_PARTITIONS: 64"
    path.write_text(path.read_text().replace("HEADWATER_STORAGE: ${var.storage}", more))
    assert bundle.check(copy, "prod", GIVEN, wheel) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("headwater-*.dist-info/entry_points.txt", "headwater.job:main", "headwater.nojob:main",
         "entry point headwater-job: no module headwater.nojob"),
        ("headwater-*.dist-info/entry_points.txt", "headwater.job:main", "headwater.job:start",
         "entry point headwater-job: no start in headwater.job"),
        ("headwater-*.dist-info/METADATA", "Requires-Dist: click", "Requires-Dist: pyspark==4\nX: ",
         "requires pyspark==4"),
        ("headwater/cli.py", '"maintain"', '"maintains"', "No such command 'maintain'"),
        ("batch/*.py", None, "", "No module named 'batch"),
        ("conf/environments/azure.yml", None, "", "no environment 'azure'"),
    ],
)  # fmt: skip
def test_a_wheel_that_lacks_what_the_tasks_want_is_named(
    file: str, old: str | None, new: str, named: str, wheel: Path, tmp_path: Path
) -> None:
    broken, touched = tmp_path / wheel.name, 0
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(broken, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if fnmatch(name, file):
                touched += 1
                if old is None:
                    continue
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode())
            target.writestr(name, content)
    assert touched
    found = bundle.check(ROOT, "prod", GIVEN, broken)
    assert [line for line in found if named in line], found


JOB_OF_ITS_OWN = """
resources:
  jobs:
    other:
      name: other
      tasks:
        - task_key: run
          existing_cluster_id: x
          python_wheel_task: {package_name: headwater, entry_point: nope, parameters: [gold]}
"""


def test_a_job_that_stands_among_the_rest_is_looked_at_like_any(copy: Path, wheel: Path) -> None:
    with (copy / "databricks.yml").open("a") as file:
        file.write(JOB_OF_ITS_OWN)
    found = bundle.check(copy, "prod", GIVEN, wheel)
    for named in (
        "databricks.yml: resources: they have files of their own",
        "jobs.other: no alert on failure",
        "jobs.other.run: no entry point nope",
        "jobs.other.run: existing_cluster_id",
    ):
        assert [line for line in found if line.startswith(named)], (named, found)


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("databricks.yml", None, "databricks.yml"),
        ("databricks.yml", "", "databricks.yml: is no mapping"),
        ("databricks.yml", "- a\n", "databricks.yml: is no mapping"),
        ("databricks.yml", "bundle: {name: x}\ninclude: resources/*.yml\n", "include: "),
        ("databricks.yml", "bundle: {name: x}\ntargets: {prod: }\n", "prod: has no value"),
        ("databricks.yml", "bundle: [x]\ntargets: {prod: {mode: production}}\n", "bundle: "),
        ("resources/batch.yml", "resources:\n", "resources: has no value"),
        ("resources/batch.yml", "resources: [x]\n", "resources: is no mapping"),
        ("resources/batch.yml", "resources: {jobs: [x]}\n", "jobs: is no mapping of names"),
        ("resources/batch.yml", "resources: {jobs: {x: [1]}}\n", "jobs.x: is no mapping"),
        ("resources/batch.yml", "resources: {jobs: {x: {queue: , tags: }}}\n", "has no value"),
        ("resources/batch.yml", "\x00", "batch.yml"),
    ],
)
def test_whatever_stands_there_is_a_line(
    file: str, text: str | None, named: str, copy: Path, wheel: Path
) -> None:
    if text is None:
        (copy / file).unlink()
    else:
        (copy / file).write_text(text)
    found = bundle.check(copy, "prod", GIVEN, wheel)
    assert [line for line in found if named in line], found


@pytest.mark.parametrize("content", [None, b"no wheel"])
def test_a_wheel_that_is_none_is_a_line(content: bytes | None, copy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "headwater-0-py3-none-any.whl"
    if content is not None:
        broken.write_bytes(content)
    assert bundle.check(copy, "prod", GIVEN, broken) != []


def test_a_package_that_a_requirements_file_has_lost_is_named(copy: Path, wheel: Path) -> None:
    file = copy / "requirements/databricks.txt"
    file.write_text(file.read_text().replace("confluent-kafka==", "confluent_kafka>="))
    found = bundle.check(copy, "prod", GIVEN, wheel)
    assert "requirements/databricks.txt: no confluent-kafka, of one version" in found


def test_a_variable_without_a_value_is_named(wheel: Path) -> None:
    given = {key: value for key, value in GIVEN.items() if key != "storage"}
    found = bundle.check(ROOT, "prod", given, wheel)
    assert [line for line in found if "variable storage has no value in prod" in line]


@pytest.mark.parametrize(("target", "status"), [("dev", "PAUSED"), ("prod", "UNPAUSED")])
def test_what_is_a_developers_is_paused(target: str, status: str) -> None:
    jobs = bundle.resolved(ROOT, target, GIVEN)["resources"]["jobs"]
    found = {name: job.get("schedule") or job.get("continuous") for name, job in jobs.items()}
    started = {name: one["pause_status"] for name, one in found.items() if one}
    assert set(jobs) - set(started) == {"smoke", "backfill"}
    assert set(started.values()) == {status}


def test_the_clusters_environment_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = bundle.resolved(ROOT, "prod", GIVEN)
    for name, value in raw["variables"]["environment"]["default"].items():
        monkeypatch.setenv(name, value)
    settings = settings_files.load("azure")
    assert settings.tables == f"{GIVEN['storage']}/tables"
    assert settings.checkpoints == "/Volumes/headwater_prod/ops/checkpoints"
    assert settings.broker.bootstrap == GIVEN["event_hubs"]
    assert settings.publish_to == ("mysql",)
    assert settings.broker.sasl_password == "databricks:headwater/eventhub-connection-string"
    assert catalog.shown(settings, "gold", "dim_users") == "headwater_prod.gold.dim_users"
    assert settings.mysql.password == "databricks:headwater/mysql-password"


def test_the_two_jobs_of_gold_never_run_at_once() -> None:
    jobs = yaml.safe_load((ROOT / "resources/batch.yml").read_text())["resources"]["jobs"]
    busy = {name: _minutes(jobs[name]) for name in ("gold_hourly", "gold_daily")}
    assert len(busy["gold_daily"]) == 120
    assert len(busy["gold_hourly"]) == 22 * 40
    assert not busy["gold_daily"] & busy["gold_hourly"]


def _minutes(of: dict[str, object]) -> set[int]:
    """Minutes of a day in which a job may run, by its schedule and its timeout."""
    schedule, timeout = of["schedule"], of["timeout_seconds"]
    assert isinstance(schedule, dict)
    assert isinstance(timeout, int)
    _, minute, hours, *_ = schedule["quartz_cron_expression"].split()
    starts = []
    for part in hours.split(","):
        first, _, last = part.partition("-")
        starts += [h * 60 + int(minute) for h in range(int(first), int(last or first) + 1)]
    return {start + passed for start in starts for passed in range(timeout // 60)}


def test_the_dashboard_asks_for_columns_that_are_there() -> None:
    board = json.loads((ROOT / "resources/headwater.lvdash.json").read_text())
    known = set(tables.RUNS_SCHEMA)
    given = {}
    for dataset in board["datasets"]:
        query = "".join(dataset["queryLines"])
        assert re.search(r"FROM runs\b", query)
        names = set(re.findall(r"\b[a-z_]+\b(?!\()", query)) - {"runs"}
        made = set(re.findall(r"AS ([a-z_]+)", query))
        assert names - made <= known
        given[dataset["name"]] = made | {"job", "result"}
    for page in board["pages"]:
        for placed in page["layout"]:
            for asked in placed["widget"]["queries"]:
                columns = re.findall(r"`(\w+)`", json.dumps(asked["query"]["fields"]))
                assert set(columns) <= given[asked["query"]["datasetName"]]


def test_what_the_jobs_install_is_what_is_tested() -> None:
    locked = (ROOT / "requirements/local.lock").read_text()
    files = sorted((ROOT / "requirements").glob("databricks*.txt"))
    wanted = "".join(file.read_text() for file in files if "runtime" not in file.name).splitlines()
    pins = [line for line in wanted if not line.startswith("#")]
    pins += re.findall(r"- (\S+==\S+)", _read("resources/on_demand.yml"))
    assert len(pins) == 5
    assert [pin for pin in pins if f"{pin} \\" not in locked] == []
    jar = re.search(r"mysql-connector-j</artifactId>\s*<version>([^<]+)", _read("pom.xml"))
    assert jar
    for file in ("batch.yml", "on_demand.yml"):
        assert f"mysql-connector-j:{jar[1]}" in _read(f"resources/{file}")


def _read(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has variables that a job sets end with the test."""
    for name in ("HEADWATER_STORAGE", "HEADWATER_DUCKDB"):
        monkeypatch.setenv(name, "before")


@pytest.mark.usefixtures("variables")
def test_a_job_takes_settings_in_front_and_returns_where_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job.main([f"HEADWATER_STORAGE={tmp_path}", "HEADWATER_DUCKDB=a=b", "contracts", "check"])
    assert os.environ["HEADWATER_STORAGE"] == str(tmp_path)
    assert os.environ["HEADWATER_DUCKDB"] == "a=b"
    assert "all as they should be" in capsys.readouterr().out


@pytest.mark.usefixtures("variables")
def test_a_job_that_fails_exits_with_the_commands_code(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        job.main(["contracts", "check", "--env", "moon"])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        job.main([f"HEADWATER_STORAGE={tmp_path}", "broker", "status"])
    assert ended.value.code == 1
