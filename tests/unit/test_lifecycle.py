"""The storage account's rules for its tiers: what Headwater reads is never put where it cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lakehouse import settings as settings_files
from lakehouse.layouts import Layouts
from tests.helpers import ROOT

RULES: list[dict[str, Any]] = json.loads((ROOT / "resources/lifecycle.json").read_text())["rules"]
# By Microsoft's page on lifecycle management policies, of block blobs.
KNOWN = {"tierToCool", "tierToCold", "tierToArchive", "delete"}


def test_each_rule_is_whole_and_named_once() -> None:
    assert len({rule["name"] for rule in RULES}) == len(RULES) == 3
    for rule in RULES:
        assert (rule["enabled"], rule["type"]) == (True, "Lifecycle")
        assert rule["definition"]["filters"]["blobTypes"] == ["blockBlob"]
        actions = rule["definition"]["actions"]["baseBlob"]
        assert actions.keys() <= KNOWN
        for after in actions.values():
            assert list(after) == ["daysAfterModificationGreaterThan"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["name"]))
def test_nothing_that_is_read_is_archived_or_deleted(
    rule: dict[str, Any], layouts: Layouts, tmp_path: Path
) -> None:
    actions = rule["definition"]["actions"]["baseBlob"].keys()
    # As in docs/deploy.md: abfss://CONTAINER@ACCOUNT…/FOLDER is CONTAINER/FOLDER to such a rule.
    root = "lakehouse/headwater/prod"
    settings = settings_files.load("local", storage=str(tmp_path))
    tables = root + settings.tables.removeprefix(str(tmp_path))
    read = [f"{root}/checkpoints/", *(f"{tables}/{one.layer}/" for one in layouts.values())]
    for prefix in rule["definition"]["filters"]["prefixMatch"]:
        touched = [place for place in read if place.startswith(prefix) or prefix.startswith(place)]
        assert not touched or actions <= {"tierToCool", "tierToCold"}
        # And what is to cool down is where the tables are.
        assert touched or "tierToArchive" in actions


def test_the_account_of_the_docs_has_the_tiers_that_the_rules_want() -> None:
    """By Microsoft's page on access tiers, zone-redundant accounts have no archive."""
    [sku] = re.findall(
        r"--sku Standard_(\w+) --kind StorageV2", (ROOT / "docs/deploy.md").read_text()
    )
    actions = {name for rule in RULES for name in rule["definition"]["actions"]["baseBlob"]}
    assert "tierToArchive" in actions
    assert sku in {"LRS", "GRS", "RAGRS"}


def test_bronze_cools_down_before_it_goes(layouts: Layouts) -> None:
    [bronze] = [rule for rule in RULES if rule["name"].startswith("bronze")]
    cool = bronze["definition"]["actions"]["baseBlob"]["tierToCool"]
    retention = layouts["bronze.events"].retention
    assert retention is not None
    assert cool["daysAfterModificationGreaterThan"] * 86_400 < retention
