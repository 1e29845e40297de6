"""Credentials out of everything that is printed or written down.

Two nets: the values of secrets that were resolved, in the forms in which they turn up in text; and
what looks like a credential, for those that never came by `settings.resolve_secret`.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO, cast
from urllib.parse import quote, quote_plus

MASK = "*****"
# Shorter ones would take letters out of ordinary words.
SHORTEST = 6
# Shorter ones of letters and digits alone are looked for as whole words: `123456` is in a number.
LONG = 16
# What is secret in a connection string: Event Hubs', a storage account's, a database's.
PARTS = re.compile(
    r"(?:SharedAccessKey|SharedAccessSignature|AccountKey|Password|Pwd)=([^;]+)", re.IGNORECASE
)
NAMES = (
    r"(?:shared[_-]?access[_-]?(?:key|signature)|account[._-]?key[\w.]*|access[_-]?key|api[_-]?key"
    r"|client[_-]?secret|secret"
    r"|password|passwd|pwd|passphrase|token|\bsig)"
)
# Names of properties whose whole value is a secret, and a signature in a value; as Spark's own
# spark.redaction.regex, which it holds against both.
SECRET_NAMES = (
    "(?i)secret|passw(or)?d|passphrase|token|credential|access[._]?key|account[._]key|api[._]?key"
    "|[.]sas[.]|jaas"
    "|connection[.]?(string|url)|[?&;]sig="
)
# Also as JSON within JSON has them, and in the braces of a connection string.
QUOTED = r"""(?:\\"(?:[^"\\]|\\[^"])*\\"|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\{[^{}"]*\})"""
BARE = r"""[^\s"';,&)}\]]+"""
# After a colon, or a blank, a value has to stand in quotes, or have a digit or a sign in it, and be
# no reference: `sasl_password: wanted with …` is a sentence.
TOLD = (
    r"(?!(?:env|file|keyvault|databricks):)(?=[^\s]*[0-9=+/])(?=[^\s]{6})"
    rf"(?={BARE}(?:[\s,;}}]|$)){BARE}"
)
ASSIGNED = re.compile(
    rf"""({NAMES}(?:\.[\w.-]+)?(?:\\?["'])?\s*)(=>?\s*(?:{QUOTED}|{BARE})|:\s*(?:{QUOTED}|{TOLD}))""",
    re.IGNORECASE,
)
OPTION = re.compile(rf"(?<![\w-])(--[\w-]*{NAMES}[\w-]*\s+)(?!-){TOLD}", re.IGNORECASE)
ELEMENT = re.compile(rf"(<[\w.:-]*{NAMES}>)[^<]+", re.IGNORECASE)
# A JSON web token, a personal one of Databricks, a private key.
TOKEN = re.compile(
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|\bdapi[0-9a-f]{32}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
)
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
# A path has one slash where a URL has two. Word by word, and each from its end: every slash of a
# long one may be a beginning.
WORD = re.compile(r"[^\s\"'<>]+")
LOGIN = re.compile(r":/{1,2}[^:/@]*:")

_known: set[str] = set()
_lock = threading.Lock()


def remember(secret: str) -> None:
    """Has a secret's value masked from now on, and what is secret in it."""
    found = {value.strip() for value in [secret, *PARTS.findall(secret)]}
    forms = {
        form
        for value in found
        if len(value) >= SHORTEST
        for form in (
            value,
            quote(value, safe=""),
            quote_plus(value),
            json.dumps(value)[1:-1],
            value.replace("\\", "\\\\").replace('"', '\\"'),
        )
    }
    with _lock:
        _known.update(forms)


def without_known(text: str) -> str:
    """The text with MASK in the place of secrets that were resolved."""
    with _lock:
        known = sorted(_known, key=len, reverse=True)
    for value in known:
        if value.isalnum() and len(value) < LONG:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", MASK, text)
        else:
            text = text.replace(value, MASK)
    return text


def redacted(text: str) -> str:
    """The same, and in the place of what looks like a credential."""
    text = ASSIGNED.sub(lambda found: f"{found[1]}{found[2][0]}{MASK}", without_known(text))
    text = BEARER.sub(lambda found: f"{found[1]} {MASK}", text)
    for shape in (OPTION, ELEMENT):
        text = shape.sub(lambda found: f"{found[1]}{MASK}", text)
    text = TOKEN.sub(MASK, text)
    return WORD.sub(lambda found: _without_login(found[0]), text)


def _without_login(word: str) -> str:
    """A URL without the password before its host, which is what comes after the last @."""
    at = word.rfind("@")
    while at >= 0 and word[at + 1 : at + 2] in {"", "@"}:
        at = word.rfind("@", 0, at)
    login = LOGIN.search(word, 0, max(at - 1, 0))
    return word if login is None else f"{word[: login.end()]}{MASK}{word[at:]}"


class Redacted:
    """A text stream that lets no credential through."""

    def __init__(self, stream: TextIO, clean: Callable[[str], str]) -> None:
        self._stream, self._clean = stream, clean

    def write(self, text: str) -> int:
        self._stream.write(self._clean(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Has all that this process prints from now on go through here, stack traces included.

    On stdout, which may be data, nothing is masked for its looks alone.
    """
    for name, clean in (("stdout", without_known), ("stderr", redacted)):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Redacted):
            if codecs.lookup(stream.encoding or "utf-8").name == "ascii":
                # Where it is, click writes to the bytes below.
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
            setattr(sys, name, cast("TextIO", Redacted(stream, clean)))
