"""What makes events: one module a subject, all of them merged by time.

A module has `events(world)`, which yields one event after the other, or, where they are many,
`spans(world)`, which yields tables of them (EVENTS). A new entity is a contract and a module here
(or in a folder given with `produce --generators`).
"""

from __future__ import annotations

import heapq
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from lakehouse.errors import SettingsError

# (time in ms since 1970, number, entity, record key, subject, data as JSON text), in order of time;
# nobody looks at the number.
Event = tuple[int, int, str, str, str, str]
# The same by the column, in order of time.
EVENTS = pa.schema(
    [("at", pa.int64()), *((name, pa.string()) for name in ("entity", "key", "subject", "data"))]
)
# The modules of this folder that are the shop.
SHOP = ("shop",)
ROWS_A_TABLE, CHARACTERS_A_TABLE = 1_000, 8_000_000
Spans = Callable[["World"], Iterator[pa.Table]]


@dataclass(frozen=True)
class World:
    """What a generator may depend on.

    start: ms since 1970. rate: events a second of a live world, None for a history that grows.
    tempo: how much faster than real things take their course.
    """

    seed: int
    start: int
    rate: float | None = None
    tempo: float = 1.0


def spans(world: World, folder: Path | None = None) -> Iterator[pa.Table]:
    """The events of all generators, those of `folder` too, in order of time and without end.

    Tables of EVENTS, of one span of time after the other. Raises SettingsError where a module of
    the folder has neither `events` nor `spans`, or makes an event that is not whole.
    """
    made = [generator(world) for generator in _generators(folder)]
    if len(made) == 1:
        return made[0]
    return _tables(heapq.merge(*map(_rows, made), key=itemgetter(0)))


def _rows(tables: Iterator[pa.Table]) -> Iterator[Event]:
    for table in tables:
        at, *texts = (column.to_pylist() for column in table.columns)
        yield from zip(at, range(len(at)), *texts, strict=True)


def _tables(events: Iterator[Event]) -> Iterator[pa.Table]:
    rows: list[Event] = []
    size = 0
    for event in events:
        rows.append(event)
        size += len(event[-1] or "")
        if len(rows) == ROWS_A_TABLE or size >= CHARACTERS_A_TABLE:
            yield _table(rows)
            rows, size = [], 0
    if rows:
        yield _table(rows)


def _table(rows: list[Event]) -> pa.Table:
    at, _, *texts = zip(*rows, strict=True)
    table = pa.table([at, *texts], schema=EVENTS)
    for name in EVENTS.names:
        if table.column(name).null_count:
            raise SettingsError(f"a generator made an event without {name}: {rows[0]} or near it")
    return table


def identity(folder: Path | None = None) -> str:
    """What tells these generators from others; empty for the shop alone.

    More of them make other events: these are another world, whose ids have to be others.
    """
    names = [module.name for module in _modules() if module.name not in SHOP]
    files = [Path(__file__).with_name(f"{name}.py") for name in names]
    files += sorted(folder.glob("*.py")) if folder is not None else []
    if not files:
        return ""
    digest = sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _modules() -> list[pkgutil.ModuleInfo]:
    return sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name)


def _generators(folder: Path | None) -> list[Spans]:
    modules = [import_module(f"{__name__}.{module.name}") for module in _modules()]
    if folder is not None:
        files = sorted(folder.glob("*.py"))
        if not files:
            raise SettingsError(f"{folder} holds no generator (*.py)")
        modules += [_from_file(file) for file in files]
    return [_entry(module) for module in modules]


def _from_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"headwater_generator_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _entry(module: ModuleType) -> Spans:
    if hasattr(module, "spans"):
        spans: Spans = module.spans
        return spans
    if not hasattr(module, "events"):
        raise SettingsError(f"{module.__file__} has no function events(world), or spans(world)")
    return lambda world: _tables(iter(module.events(world)))
