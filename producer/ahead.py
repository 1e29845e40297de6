"""A shop's records from a process of its own, so that making and sending use a core each.

`python -m producer.ahead ARGUMENTS` writes blocks to its stdout, each after its length, and a zero
at the end; it is one block ahead of the reader, whom a full pipe makes it wait for. Blocks are
spelled by marshal, for half of what pickle takes: both sides are the same Python.
"""

from __future__ import annotations

import gc
import json
import marshal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from select import select
from typing import IO, NamedTuple

from lakehouse.errors import HeadwaterError
from producer.defects import Record, inject
from producer.generators import World, events, identity

# A block of so few fits into memory that is used again, where a larger one's is asked of the
# system, and given back, each time.
RECORDS_A_BLOCK = 200
BYTES_A_BLOCK = 8 * 2**20
# Room for a block or two, so that neither side waits for the other at every few records.
PIPE_BYTES = 1_048_576
LENGTH_BYTES = 8
STOP_SECONDS = 0.2


class Block(NamedTuple):
    """Records by column, in the order of sending; see producer.defects.Record."""

    at: tuple[int, ...]
    key: tuple[bytes | None, ...]
    value: tuple[bytes | None, ...]
    source: tuple[str | None, ...]
    id: tuple[str | None, ...]
    entity: tuple[str | None, ...]
    defect: tuple[str | None, ...]
    outcome: tuple[str | None, ...]
    rules: tuple[tuple[str, ...] | None, ...]


class Shop(NamedTuple):
    """Which records of which shop: what a process of its own has to be told.

    opens: ms since 1970. density: events/s of a live shop, whose orders live `tempo` times as fast;
    None for a history. generators: a folder of further ones. skip, take: how many records are
    passed over, and how many are made after them.
    """

    seed: int
    opens: int
    defects: float
    density: float | None = None
    tempo: float = 1.0
    generators: str | None = None
    skip: int = 0
    take: int | None = None

    def records(self) -> Iterator[Record]:
        """The records, made here and now."""
        world = World(self.seed, self.opens, self.density, self.tempo)
        folder = Path(self.generators) if self.generators else None
        made = inject(
            events(world, folder),
            self.defects,
            self.seed,
            self.opens,
            world=f"{self.density}{identity(folder)}",
        )
        return islice(made, self.skip, None if self.take is None else self.skip + self.take)


def blocks(records: Iterable[Record]) -> Iterator[Block]:
    """Records in blocks of RECORDS_A_BLOCK, or of fewer where they are large."""
    batch: list[Record] = []
    held = 0
    for record in records:
        batch.append(record)
        held += len(record.value or b"")
        if len(batch) == RECORDS_A_BLOCK or held >= BYTES_A_BLOCK:
            # Held by the block alone: marshal would note for each that it might come again.
            block, batch, held = Block(*zip(*batch, strict=True)), [], 0
            yield block
    if batch:
        yield Block(*zip(*batch, strict=True))


@contextmanager
def made_ahead(shop: Shop, stop: Callable[[], bool] = lambda: False) -> Iterator[Iterator[Block]]:
    """The blocks of a shop, made by a process of their own, which begins at once.

    stop: asked until there is a first block, which records that are passed over may keep away for
    minutes; there is none then. The blocks raise HeadwaterError where that process dies.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "producer.ahead", json.dumps(shop)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=PIPE_BYTES,
        pipesize=PIPE_BYTES,
        # Ctrl-C is for the one that sends, which then closes the pipe.
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield _read(process.stdout, process.stderr, stop)
    finally:
        process.stdout.close()
        process.terminate()
        process.wait()
        process.stderr.close()


def _read(blocks: IO[bytes], errors: IO[bytes], stop: Callable[[], bool]) -> Iterator[Block]:
    while not select([blocks], [], [], STOP_SECONDS)[0]:
        if stop():
            return
    while True:
        length = blocks.read(LENGTH_BYTES)
        size = int.from_bytes(length, "little")
        if len(length) == LENGTH_BYTES and not size:
            return
        block = blocks.read(size)
        if len(length) < LENGTH_BYTES or len(block) < size:
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise HeadwaterError(
                f"the generator of events ended: {said[-1] if said else 'no reason given'}"
            )
        yield Block(*marshal.loads(block))


def main() -> None:
    """Writes the blocks of the shop that the first argument describes, and the end."""
    # Nothing made here refers back to itself; looking for cycles took half of the time.
    gc.disable()
    out = sys.stdout.buffer
    try:
        for block in blocks(Shop(*json.loads(sys.argv[1])).records()):
            spelled = marshal.dumps(tuple(block))
            out.write(len(spelled).to_bytes(LENGTH_BYTES, "little"))
            out.write(spelled)
            out.flush()
        out.write(bytes(LENGTH_BYTES))
        out.flush()
    except BrokenPipeError:
        # The reader has enough.
        sys.stderr.close()
    except HeadwaterError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
