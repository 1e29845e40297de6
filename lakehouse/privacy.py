"""What of a record may be shown: columns that a contract marks as personal (pii) are masked."""

from __future__ import annotations

import json
from typing import Any

from lakehouse.contracts import Contracts

MASK = "***"


def masked(value: bytes | None, contracts: Contracts, entity: str | None, reveal: bool) -> str:
    """A payload as text of printable characters.

    Of a known entity the personal columns are masked, and its subject where a column is; of any
    other record, and of one that is no JSON object, all that it says is.
    """
    if value is None:
        return "none (a tombstone)"
    if reveal:
        return printable(value.decode(errors="backslashreplace"))
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return f"{len(value):,} bytes that are no JSON object (--reveal shows them)"
    if entity is None or entity not in contracts:
        shown: Any = _all(document)
    else:
        contract = contracts[entity]
        hidden = {column.json_key for column in contract.columns if column.pii}
        if contract.topic is not None:
            shown = _some(document, hidden)
        else:
            shown = dict(document)
            if hidden and "subject" in shown:
                shown["subject"] = MASK
            if "data" in shown:
                data = shown["data"]
                shown["data"] = _some(data, hidden) if isinstance(data, dict) else _all(data)
    return printable(json.dumps(shown, indent=2, ensure_ascii=False))


def _some(fields: dict[str, Any], hidden: set[str]) -> dict[str, Any]:
    return {key: MASK if key in hidden else value for key, value in fields.items()}


def _all(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _all(inner) for key, inner in value.items()}
    return MASK


def printable(text: str) -> str:
    """Without what would move the cursor of a terminal, or recolour it."""
    return "".join(
        c
        if c.isprintable() or c == "\n"
        else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
