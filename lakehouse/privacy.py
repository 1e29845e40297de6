"""What of a record may be shown.

Of what a contract knows, all but its personal columns (pii); of an envelope, what the CloudEvents
standard names. Anything else may be personal data in the wrong place: it is masked, its name too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakehouse.contracts import Contracts

MASK = "***"
# Of a word of a message, which may quote a name of a megabyte; a message itself may have to list a
# lot.
LONGEST = 4_000
LONG_WORD = re.compile(rf"(\S{{{LONGEST}}})(\S+)")
ENVELOPE = frozenset(
    {"specversion", "id", "source", "type", "time", "dataschema", "datacontenttype"}
)


def masked(
    value: bytes | None, contracts: Contracts, topic: str, entity: str | None, reveal: bool
) -> str:
    """A payload as text of printable characters; whole where `reveal`.

    topic: where it came from. entity: whose contract says what may be shown, where the topic has
    none; None where that is not known.
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
    of_topic = next((one for one in contracts.plain if one.topic == topic), None)
    contract = of_topic or (contracts.get(entity) if entity is not None else None)
    columns = () if contract is None else contract.columns
    public = {column.json_key for column in columns if not column.pii}
    if contract is not None and contract.topic is not None:
        shown = _shown(document, public)
    else:
        # A subject is whom an event is about.
        personal = contract is None or any(column.pii for column in columns)
        shown = _shown(document, ENVELOPE if personal else ENVELOPE | {"subject"}, {"data"})
        if "data" in document:
            data = document["data"]
            shown["data"] = _shown(data, public) if isinstance(data, dict) else MASK
    return printable(json.dumps(shown, indent=2, ensure_ascii=False))


def _shown(
    fields: dict[str, Any], public: Collection[str], inner: Collection[str] = ()
) -> dict[str, Any]:
    """Public fields that are plain values; how many others there are."""
    kept = {
        key: MASK if isinstance(value, dict | list) else value
        for key, value in fields.items()
        if key in public
    }
    rest = len(fields.keys() - kept.keys() - set(inner))
    return kept | ({MASK: f"{rest} more (--reveal shows them)"} if rest else {})


def line(text: str) -> str:
    """A message with what a record, or a file, may have put in it: printable, no word too long."""
    return printable(
        LONG_WORD.sub(lambda word: f"{word[1]} … ({len(word[2]):,} characters more)", text)
    )


def printable(text: str) -> str:
    """Without what would move the cursor of a terminal, or recolour it."""
    return "".join(
        c
        if c.isprintable() or c == "\n"
        else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
