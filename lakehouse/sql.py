"""Pieces of SQL text: names, literals and cases, quoted in one place."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A name as an identifier."""
    return "`{}`".format(name.replace("`", "``"))


def literal(value: str) -> str:
    """Text as a string literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def when(*cases: tuple[str, str], otherwise: str = "NULL") -> str:
    """CASE over (condition, result) pairs; `otherwise` where there is none."""
    if not cases:
        return otherwise
    said = " ".join(f"WHEN {condition} THEN {result}" for condition, result in cases)
    return f"CASE {said} ELSE {otherwise} END"
