"""Personal data stays in tables: in nothing else that a run says or writes, unless asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakehouse.settings import Settings
from tests.helpers import headwater, put, settings_for
from tests.integration.test_planted import texts
from tests.samples import event
from tests.samples_gold import ADDRESS, CATEGORY, CUSTOMER, PRODUCT, line, order

PLANTED = ("plantedmail", "Plantedname", "4915199988877", "Plantedstreet")
# Where it belongs.
TABLES = ("tables/bronze", "tables/silver", "tables/gold", "warehouse.duckdb")
PERSON = {
    **CUSTOMER,
    "first_name": "Plantedname",
    "last_name": "Plantedname",
    "email": "plantedmail@example.com",
    "phone": "+4915199988877",
}
HOME = {**ADDRESS, "street": "Plantedstreet 1"}


def records() -> list[bytes]:
    """A person as accepted, as broken in each way that names the value, and as a conflict.

    A name in a column that no contract calls personal is shown: whoever repairs it has to see it.
    """
    told: list[tuple[str, dict[str, Any]]] = [
        *(("customer", PERSON), ("address", HOME), ("product", PRODUCT), ("category", CATEGORY)),
        *(("order", order(1, "15:00")), ("order_item", line(1))),
    ]
    good = [event(entity, data, id=str(n)) for n, (entity, data) in enumerate(told)]
    broken = [
        {**PERSON, "email": "plantedmail at example.com"},
        {**PERSON, "phone": "4915199988877 or so"},
        {**PERSON, "birth_date": "Plantedname"},
        {**PERSON, "last_name": {"of": "Plantedname"}},
        {**PERSON, "first_name": None, "Plantedname": 1},
    ]
    bad = [event("customer", data, id=f"b{n}") for n, data in enumerate(broken)]
    conflict = event("customer", {**PERSON, "email": "other.plantedmail@example.com"}, id="0")
    return [*good, *bad, conflict, good[0][:-9], b"Plantedname\xff"]


@pytest.mark.long
def test_a_person_is_named_nowhere_but_in_tables(bootstrap: str, tmp_path: Path) -> None:
    settings: Settings = settings_for(tmp_path, bootstrap)
    put(settings, *records())
    said: dict[str, str] = {}

    def run(*words: str, code: int = 0) -> str:
        done = headwater(settings, *words, code=code)
        said[" ".join(words)] = done.stdout + done.stderr
        return done.stdout

    run("stream", "--available-now")
    run("reconcile")
    kept = json.loads(run("quarantine", "list", "--json"))["records"]
    assert len(kept) == 8
    for row in kept:
        run("quarantine", "show", row["record"])
    run("gold")
    run("publish")
    run("quality")
    run("maintain")
    for words in (
        ["quarantine", "list"],
        ["status"],
        ["audit"],
        ["doctor"],
        ["quarantine", "replay"],
    ):
        run(*words)
    # The tables hold it, and so does what was asked for.
    shown = headwater(settings, "quarantine", "show", kept[0]["record"], "--reveal").stdout
    assert any(name in shown for name in PLANTED)
    of_tables = tuple(str(tmp_path / name) for name in TABLES)
    written = {w: text for w, text in texts(tmp_path) if not w.startswith(of_tables)}
    assert any("quality" in where for where in written)
    found = [
        (where, name)
        for where, text in (said | written).items()
        for name in PLANTED
        if name in text
    ]
    assert found == []
