"""What makes events: one module a subject, each with `events(world)`, all of them merged by time.

A new entity is a contract and a module here (or in a folder given with `produce --generators`).
"""

from __future__ import annotations

import heapq
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType

from lakehouse.errors import SettingsError

# (time in ms since 1970, number, entity, record key, subject, data as JSON text); the number puts
# events of the same time in order.
Event = tuple[int, int, str, str, str, str]
# The modules of this folder that are the shop.
SHOP = ("shop",)
Generator = Callable[["World"], Iterator[Event]]


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


def events(world: World, folder: Path | None = None) -> Iterator[Event]:
    """The events of all generators, those of `folder` too, in order of time and without end.

    Raises SettingsError where a module of the folder has no `events`.
    """
    made = [generator(world) for generator in _generators(folder)]
    if len(made) == 1:
        return made[0]
    return heapq.merge(*made, key=lambda event: event[0])


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


def _generators(folder: Path | None) -> list[Generator]:
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


def _entry(module: ModuleType) -> Generator:
    found: Generator | None = getattr(module, "events", None)
    if found is None:
        raise SettingsError(f"{module.__file__} has no function events(world)")
    return found
