"""`headwater ingest`: files that another system drops into a folder, each row of them an event.

A file is read once it is whole, and written down in a manifest once the broker has all of it. The
ids of its rows follow from its bytes: whatever is sent again, after a death or because somebody
copied the file, is a duplicate, and is left out where every other one is.
"""

from __future__ import annotations

import csv
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import file_digest
from math import isfinite
from pathlib import Path
from stat import S_ISREG
from typing import IO, TYPE_CHECKING, Any

import click
import orjson

from lakehouse import privacy
from lakehouse.command import settings_options, stop_on_signals
from lakehouse.errors import HeadwaterError, SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.contracts import Contract
    from lakehouse.settings import Settings
    from producer.defects import Record

SOURCE = "/headwater/files"
# As those who write files name one that is not whole yet, or that is none of the data.
UNFINISHED = re.compile(r"^[._]|[.](part|partial|tmp|temp|crc|filepart)$", re.IGNORECASE)
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?")
SEPARATORS = re.compile(r"[ _-]")
# A day, and of it a time and an offset, as databases, spreadsheets and pandas write them.
MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[ T]([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:[.][0-9]+)?)? ?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
MIDNIGHT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]00:00(?::00(?:[.]0+)?)? ?(?:Z|[+-]00(?::?00)?)?"
)
# How many layouts of rows are remembered: objects of JSON may each have another one.
LAYOUTS_KEPT = 1_000
NUMERIC = re.compile(r"int|bigint|smallint|tinyint|float|double|decimal.*")
ROWS_A_BATCH = 10_000
# What stands around a row is shorter than that, but for its own key, which may stand there again.
ENVELOPE_BYTES = 2_000
# Fewer of them are never too many for what writes JSON.
LEVELS = 200
# Of a field of CSV: a row with a longer one could not be sent.
LONGEST_FIELD = 16 * 2**20
# The clock of another machine may be ahead, s; by more than that, a file's time is no time.
AHEAD = 3_600
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Known:
    """A line of the manifest: a file that the broker has whole. at: when that was, ISO-8601."""

    file: str
    sha256: str
    bytes: int
    rows: int
    at: str


@dataclass
class Taken:
    """files, rows: sent by this run; known: files that were sent before, by their bytes; waiting:
    files that are not whole yet; unlike: files of no known kind; lacking: columns of the contract
    that sent files do not have, where they have others; failed: why files were not."""

    files: int = 0
    rows: int = 0
    known: int = 0
    waiting: int = 0
    unlike: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False


class Manifest:
    """What was sent: a file of JSON lines, written to its end before the next file is begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, Known] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                known = Known(**json.loads(line))
            except (ValueError, TypeError):
                # The last one, of a run that died over it: its file is sent again.
                continue
            self.known[known.sha256] = known

    def add(self, known: Known) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as lines:
            # A line that was cut off ends here.
            lines.write(f"\n{json.dumps(asdict(known))}\n")
            lines.flush()
            os.fsync(lines.fileno())
        self.known[known.sha256] = known


def ready(folder: Path, settle: float, now: float) -> tuple[list[Path], int, list[str]]:
    """Files of a folder, and of those in it, that nobody is writing any more, by name; how many are
    not whole yet; and why folders could not be looked into. settle: for how long a file has to have
    been left alone, s."""
    found, waiting = [], 0
    closed: list[OSError] = []
    seen = {_identity(folder)}
    for place, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        # A link may lead back to a folder above it.
        inside = {name: _identity(Path(place, name)) for name in folders}
        folders[:] = [n for n in folders if not UNFINISHED.search(n) and inside[n] not in seen]
        seen |= set(inside.values())
        for name in names:
            file = Path(place, name)
            try:
                written = file.stat()
            except OSError:
                # Taken away meanwhile, or a link to nothing.
                continue
            if not S_ISREG(written.st_mode):
                continue
            if UNFINISHED.search(name) or -AHEAD < now - written.st_mtime < settle:
                waiting += 1
            else:
                found.append(file)
    return sorted(found), waiting, [f"{e.filename} cannot be read: {e.strerror}" for e in closed]


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rows(file: Path, contract: Contract) -> Iterator[dict[str, Any] | bytes]:
    """The rows of a file as what stands in their JSON, by the file's kind (its suffix).

    A row that is none is given as it is: its bytes. Raises SettingsError where the file cannot be
    read to its end.
    """
    read = KINDS[file.suffix.lower()]
    try:
        yield from read(file, contract)
    except (OSError, ValueError, csv.Error) as error:
        said = str(error).partition("\n")[0]
        raise SettingsError(f"{file} cannot be read: {said}") from None


class Names:
    """Names of a file's columns as a contract has them: `customerID` and `Customer Id` are its
    customer_id. Those that it does not have, and those that it would have twice, stay."""

    def __init__(self, contract: Contract) -> None:
        self._own = [key for column in contract.columns for key in column.json_keys]
        count = Counter(map(_letters, self._own))
        alone = (key for key in self._own if count[_letters(key)] == 1)
        self._by_letters = {_letters(key): key for key in alone}
        self._known: dict[tuple[str, ...], list[str]] = {}

    def of(self, names: Iterable[str]) -> list[str]:
        asked = tuple(names)
        if (known := self._known.get(asked)) is not None:
            return known
        found = [n if n in self._own else self._by_letters.get(_letters(n), n) for n in asked]
        count = Counter(found)
        made = [now if count[now] == 1 else was for was, now in zip(asked, found, strict=True)]
        if len(self._known) < LAYOUTS_KEPT:
            self._known[asked] = made
        return made

    def renamed(self, row: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self.of(row), row.values(), strict=True))


def _letters(name: str) -> str:
    return SEPARATORS.sub("", name).lower()


def _csv(file: Path, contract: Contract) -> Iterator[dict[str, Any] | bytes]:
    """Texts become what their columns are: numbers where they are spelled as JSON has them."""
    kinds = _kinds(contract)
    csv.field_size_limit(LONGEST_FIELD)
    read: list[str] = []

    def lines(text: IO[str]) -> Iterator[str]:
        for line in text:
            read.append(line)
            yield line

    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
        found = csv.reader(lines(text), strict=True)
        # Blank lines may be before the first one.
        names = Names(contract).of(next((values for values in found if values), []))
        at = f"line {found.line_num}"
        if len(set(names)) < len(names) or not all(names):
            # Which it is, by place: a file without such a line has a row there, of whomever.
            odd = next(i for i, n in enumerate(names, 1) if not n or n in names[: i - 1])
            raise ValueError(f"{at} has no name for column {odd}, or one that it had before")
        if names and not kinds.keys() & set(names):
            raise ValueError(
                f"{at} names no column of {contract.name}: has it the names, with commas between?"
            )
        read.clear()
        for values in _lenient(found):
            whole = "".join(read)
            line = whole.rstrip("\r\n").encode("utf-8", "surrogateescape")
            read.clear()
            if values == []:
                continue
            if values is None:
                yield line
                continue
            if len(values) != len(names) or not _is_text(line):
                if whole[-1] not in "\r\n":
                    raise ValueError(f"line {found.line_num}, its last one, is cut off")
                yield line
                continue
            yield {n: _typed(v, kinds.get(n, "string")) for n, v in zip(names, values, strict=True)}


def _lenient(found: Iterator[list[str]]) -> Iterator[list[str] | None]:
    """Rows of a file; None for one whose quotes are wrong. Raises csv.Error at its end, where a
    quote is not closed: it may be half a file."""
    while True:
        try:
            yield next(found)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise
            yield None


def _kinds(contract: Contract) -> dict[str, str]:
    """Spark's types of a contract's columns by their names in JSON."""
    return {key: column.spark_type for column in contract.columns for key in column.json_keys}


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _typed(text: str, kind: str) -> Any:
    if text == "":
        return None
    if NUMERIC.fullmatch(kind) and NUMBER.fullmatch(text):
        return orjson.Fragment(text)
    if kind in {"date", "timestamp"} and not text.strip():
        return None
    if kind == "timestamp":
        return _moment(text)
    if kind == "date":
        return _day(text)
    if kind == "boolean" and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    return text


def _moment(text: str) -> str:
    """A moment as JSON's are written, ISO-8601 with an offset: without one it is UTC, as a moment
    of Parquet without a zone is. What is none stays as it is."""
    found = MOMENT.fullmatch(text.strip())
    if found is None:
        return text
    day, minute, seconds, offset = found.groups()
    if offset and offset != "Z":
        digits = offset[1:].replace(":", "").ljust(4, "0")
        offset = f"{offset[0]}{digits[:2]}:{digits[2:]}"
    return f"{day}T{minute or '00:00'}{seconds or ':00'}{offset or 'Z'}"


def _day(text: str) -> str:
    """A day, also of a moment that is its midnight: what has days alone for moments writes so."""
    found = MIDNIGHT.fullmatch(text.strip())
    return text if found is None else found[1]


def _json(file: Path, contract: Contract) -> Iterator[dict[str, Any] | bytes]:
    """An object a line, or one list of objects."""
    names = Names(contract)
    moments = _times(contract)
    with file.open("rb") as lines:
        if lines.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
            lines.seek(0)
        begin = lines.tell()
        is_list = _first_sign(lines) == b"["
        lines.seek(begin)
        if is_list:
            for one in _parsed(lines.read()):
                is_row = isinstance(one, dict)
                yield _timed(names.renamed(one), moments) if is_row else orjson.dumps(one)
            return
        for line in lines:
            if not (text := line.strip()):
                continue
            try:
                one = _parsed(text)
            except DepthError:
                one = None
            except ValueError as error:
                if not line.endswith(b"\n"):
                    said = f"its last line is cut off, or no JSON ({error})"
                    raise ValueError(said) from None
                one = None
            yield _timed(names.renamed(one), moments) if isinstance(one, dict) else text


class DepthError(ValueError):
    """JSON that is nested too deep to be written again."""


def _parsed(text: bytes) -> Any:
    """JSON whose numbers stay as they are spelled: a float would not hold all of a decimal's
    digits. So do objects that have a key twice. Raises ValueError; DepthError where that is all."""
    # Stricter than the library that leaves numbers alone, so that it comes first.
    if (whole := orjson.loads(text)) and text.count(b"{") + text.count(b"[") > LEVELS:
        try:
            orjson.dumps({"data": whole})
        except TypeError as error:
            raise DepthError(str(error)) from None
    spelled = orjson.Fragment
    return json.loads(text, parse_int=spelled, parse_float=spelled, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> Any:
    if len(found := dict(pairs)) == len(pairs):
        return found
    # Of which value is meant nobody knows: both are sent, and refused by name.
    inner = (orjson.dumps(name) + b":" + orjson.dumps(value) for name, value in pairs)
    return orjson.Fragment(b"{" + b",".join(inner) + b"}")


Spell = Callable[[str], str]


def _times(contract: Contract) -> dict[str, Spell]:
    """How the texts of moments and days are to be spelled, by their names in JSON."""
    how: dict[str, Spell] = {"timestamp": _moment, "date": _day}
    return {name: how[kind] for name, kind in _kinds(contract).items() if kind in how}


def _timed(row: dict[str, Any], times: dict[str, Spell]) -> dict[str, Any]:
    """The same row, its moments and days as `times` spell them."""
    for name in times.keys() & row.keys():
        if isinstance(value := row[name], str):
            row[name] = times[name](value)
    return row


def _first_sign(text: IO[bytes]) -> bytes:
    while (sign := text.read(1)).isspace():
        pass
    return sign


def _parquet(file: Path, contract: Contract) -> Iterator[dict[str, Any] | bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Spark's own timestamps, whose range is not that of nanoseconds.
        whole = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
        names = whole.schema_arrow.names
        if len(set(names)) < len(names):
            raise ValueError("two columns have one name")
        for batch in whole.iter_batches(ROWS_A_BATCH):
            names, moments = Names(contract).of(batch.schema.names), _times(contract)
            for row in zip(*map(_values, batch.columns), strict=True):
                try:
                    plain = dict(zip(names, map(_plain, row), strict=True))
                except UnicodeDecodeError:
                    # Bytes that are no text: as they stand, they are refused by name.
                    yield repr(dict(zip(names, row, strict=True))).encode()
                else:
                    yield _timed(plain, moments)
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(str(error)) from None


def _values(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    try:
        return list(column.to_pylist())
    except OverflowError:
        # Of years that Python has no dates for: all of them as Arrow spells them.
        return list(column.cast(pa.string()).to_pylist())


def _plain(value: Any) -> Any:
    """A value as JSON has it: moments in ISO-8601, UTC where they have a zone, decimals whole, and
    what is no number in words. Raises UnicodeDecodeError for bytes that are no text."""
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, float) and not isfinite(value):
        return json.dumps(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else f"{value.isoformat()}Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        plain = [_plain(one) for one in value]
        names = [str(one[0]) for one in value if isinstance(one, tuple)]
        # A map, unless a key of its is there twice.
        is_map = 0 < len(set(names)) == len(plain)
        return {name: one[1] for name, one in zip(names, plain, strict=True)} if is_map else plain
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, timedelta) else value


KINDS: dict[str, Callable[[Path, Contract], Iterator[dict[str, Any] | bytes]]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _json,
    ".ndjson": _json,
    ".parquet": _parquet,
}


def events(file: Path, digest: str, contract: Contract, at: str | None) -> Iterator[Record]:
    """The rows of a file as records to send.

    digest: of its bytes. at: the column with the time of a row; the contract's where it is None.
    Where there is neither, or the row has none, it is the time of the file.
    """
    from producer.defects import Record

    source = f"{SOURCE}/{contract.name}"
    moment = _when(contract, at)
    written = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
    natural = [column.json_keys for column in contract.columns if column.primary_key]
    for number, row in enumerate(rows(file, contract), start=1):
        if isinstance(row, bytes):
            yield Record(0, None, row, None, None, contract.name, None, None, None)
            continue
        ident = f"{digest[:32]}-{number}"
        subject = "/".join(str(_value(row, names)) for names in natural)
        value: dict[str, Any] = {
            "specversion": "1.0",
            "id": ident,
            "source": source,
            "type": contract.event_type,
            "time": _told(_value(row, moment)) or written,
            "subject": subject,
            "datacontenttype": "application/json",
            "data": row,
        }
        text = _text(row if contract.topic else value)
        yield Record(0, subject.encode(), text, source, ident, contract.name, None, None, None)


def _when(contract: Contract, at: str | None) -> tuple[str, ...]:
    """Names of the column with the time of a row; none where there is none."""
    if at is not None:
        return tuple(Names(contract).of([at]))
    named = contract.time_column
    return () if named is None else contract.column(named).json_keys


def _looked_through(
    file: Path, contract: Contract, at: str | None, longest: int
) -> tuple[int, set[str]]:
    """Rows of a file, read to its end, and the names of their columns. Raises SettingsError where
    that cannot be, where one is too long to be sent, where none has the column `at`, and where one
    has no time, and the file has one that is yet to come. longest: record that is taken, bytes."""
    count, names = 0, set[str]()
    moment, ahead = _when(contract, at), file.stat().st_mtime - time.time()
    by_file = ahead > 0 and contract.topic is None
    for row in rows(file, contract):
        count += 1
        if isinstance(row, dict):
            names |= row.keys()
            if by_file and _told(_value(row, moment)) is None:
                raise SettingsError(
                    f"{file}: row {count} has no time of its own, and the file's is {ahead:,.0f} s "
                    "ahead of this clock: `touch` the file, or say which column has it (--time)"
                )
        if (length := len(_text(row))) > longest - ENVELOPE_BYTES:
            raise SettingsError(
                f"{file}: row {count} has {length:,} bytes as JSON, more than can be sent "
                f"({longest:,} with its envelope): nothing of the file is, until that row "
                "is shorter or taken out"
            )
    if at is not None and names and not names & set(_when(contract, at)):
        known = sorted(names & _kinds(contract).keys())
        # Others may be nobody's names of columns, but a person's own.
        known.append(f"{len(names) - len(known)} that {contract.name} does not have")
        raise SettingsError(f"{file} has no column {at} (--time): it has {', '.join(known)}")
    return count, names


def _lacking(file: Path, contract: Contract, names: set[str]) -> Iterator[str]:
    """A line where columns of a file are none of the contract's, and it has some that the file has
    not: these may be one."""
    without = [c.name for c in contract.columns if not names & set(c.json_keys)]
    if (others := len(names - _kinds(contract).keys())) and without:
        yield (
            f"{file}: none of its columns is {', '.join(without)}; {others} are none of "
            f"{contract.name}'s (the contract's `aliases` say what a column is called too)"
        )


def _text(row: dict[str, Any] | bytes) -> bytes:
    """A row, or its envelope, as it is sent."""
    if isinstance(row, bytes):
        return row
    try:
        return orjson.dumps(row)
    except TypeError:
        # What JSON has no words for: as it stands, it is refused by name.
        return repr(row).encode("utf-8", "backslashreplace")


def _value(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    found = next((row[name] for name in names if row.get(name) is not None), None)
    as_json = isinstance(found, orjson.Fragment | dict | list)
    return orjson.dumps(found).decode() if as_json else found


def _told(moment: Any) -> Any:
    """None for a blank."""
    if not isinstance(moment, str):
        return moment
    return _moment(moment) if moment.strip() else None


def take_in(
    settings: Settings,
    folder: Path,
    contract: Contract,
    at: str | None = None,
    settle: float = 10.0,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> Taken:
    """Sends every file of a folder that is whole and was not sent before; see `events`, `ready`.

    Raises BrokerError where the broker does not take a row.
    """
    from lakehouse import kafka
    from producer.kafka_sink import MAX_RECORD_BYTES

    taken = Taken()
    # What the topic itself refuses would end all of it.
    most = kafka.max_message_bytes(settings, contract.topic or settings.topics.events)
    longest = MAX_RECORD_BYTES if most is None else min(MAX_RECORD_BYTES, most)
    manifest = Manifest(settings.runtime_dir / "files" / f"{contract.name}.jsonl")
    files, taken.waiting, taken.failed = ready(folder, settle, time.time())
    for file in files:
        if stop():
            taken.interrupted = True
            break
        if file.suffix.lower() not in KINDS:
            taken.unlike.append(str(file))
            continue
        try:
            before = file.stat()
            with file.open("rb") as content:
                digest = file_digest(content, "sha256").hexdigest()
            if digest in manifest.known:
                taken.known += 1
                continue
            say(str(file))
            # To its end before a row is sent: one that is mended has other ids.
            wanted, names = _looked_through(file, contract, at, longest)
            sent = _send(settings, file, events(file, digest, contract, at), contract, stop)
        except SettingsError as error:
            taken.failed.append(str(error))
            continue
        except OSError as error:
            taken.failed.append(f"{file} cannot be read: {error.strerror or error}")
            continue
        taken.rows += sent
        if sent < wanted:
            taken.interrupted = True
            break
        if sent > wanted or _changed(before, file):
            taken.failed.append(f"{file} changed while it was read: it is sent when it rests")
            continue
        now = datetime.now(UTC).isoformat(timespec="seconds")
        manifest.add(Known(str(file), digest, before.st_size, sent, now))
        taken.files += 1
        taken.lacking += _lacking(file, contract, names)
    return taken


def _send(
    settings: Settings,
    file: Path,
    records: Iterator[Record],
    contract: Contract,
    stop: Callable[[], bool],
) -> int:
    """How many of the records the broker has."""
    from producer.ahead import blocks
    from producer.command import finish, run_name
    from producer.kafka_sink import send
    from producer.ledger import Ledger

    topic = contract.topic or settings.topics.events
    ledger = Ledger(settings.runtime_dir / "ledger", run_name(), topic, {"file": str(file)})
    done = send(blocks(records), settings, topic, ledger, stop=stop)
    if done.failed:
        finish(done)
    return done.acknowledged


def _changed(before: os.stat_result, file: Path) -> bool:
    try:
        now = file.stat()
    except FileNotFoundError:
        return False
    return (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns)


@click.command("ingest")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--entity", required=True, help="Whose contract the rows are read by.")
@click.option(
    "--time",
    "at",
    metavar="COLUMN",
    help="When a row was true.  [default: the contract's `time`, or else its file's]",
)
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Leave a file alone that was written to within so many seconds.",
)
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Look again every so many seconds, until Ctrl-C.",
)
@settings_options
def ingest(
    folder: Path,
    entity: str,
    at: str | None,
    settle: float,
    watch: float | None,
    settings: Settings,
) -> None:
    """Send the rows of files (CSV, JSON, Parquet) that are dropped into FOLDER.

    Each file once, when it is whole: names that begin with . or _ or end in .part, .partial, .tmp
    are not. What was sent stands in files/ENTITY.jsonl of the runtime folder. Sent again, whyever,
    a row is a duplicate.
    """
    from lakehouse import contracts
    from lakehouse.locks import held
    from lakehouse.progress import Ticker

    loaded = contracts.load(settings.contracts_dir)
    if entity not in loaded:
        raise click.BadParameter(
            f"{entity!r} is none of {', '.join(loaded)}", param_hint="--entity"
        )
    if loaded[entity].changes:
        raise click.BadParameter(
            f"{entity}: its records are changes of a database, which Debezium sends",
            param_hint="--entity",
        )
    if at is not None and loaded[entity].topic is not None:
        raise click.BadParameter(
            f"{entity}: its records have no envelope, and the time that its contract says (`time`)",
            param_hint="--time",
        )
    stopping = threading.Event()
    stop_on_signals(stopping)
    what = f"the manifest of files of {entity} (ingest)"
    with held(settings, f"ingest-{entity}", what), Ticker() as ticker:
        while True:
            taken = take_in(
                settings, folder, loaded[entity], at, settle, stopping.is_set, ticker.show
            )
            if watch is None or taken.files or taken.failed:
                click.echo(describe(taken))
            for line in taken.failed:
                click.echo(f"headwater: {privacy.line(line)}", err=True)
            if watch is None or stopping.wait(watch):
                break
    if taken.failed:
        raise HeadwaterError(f"{len(taken.failed)} files were not taken in: see above")


def describe(taken: Taken) -> str:
    word = "interrupted: " if taken.interrupted else ""
    lines = [
        f"{word}{taken.files:,} files sent, {taken.rows:,} rows; {taken.known:,} were sent before, "
        f"{taken.waiting:,} are not whole yet"
    ]
    lines += [f"  {privacy.line(one)}" for one in taken.lacking]
    lines += [
        f"  no CSV, JSON or Parquet by its name, left alone: {privacy.line(one)}"
        for one in taken.unlike
    ]
    return "\n".join(lines)
