"""A shop's records from a process of its own, so that making and sending use a core each.

`python -m producer.making SHOP` writes batches of records (producer.defects.RECORDS) to its
stdout, as an Arrow stream. It makes many at a time, and is so many ahead of the reader that he does
not wait meanwhile.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from select import select
from threading import Condition, Thread
from typing import IO, NamedTuple

import pyarrow as pa

from lakehouse.errors import HeadwaterError
from producer.defects import RECORDS, Record, inject
from producer.generators import World, identity, spans

# Few enough to stay in the processor's cache from the pipe to the client.
RECORDS_A_BLOCK = 1_000
BYTES_A_BLOCK = 8 * 2**20
# Room for a block or two, so that neither side waits for the other at every few records.
PIPE_BYTES = 1_048_576
STOP_SECONDS = 0.2
# So much is made, and not taken yet: what is made at once, about.
BYTES_AHEAD = 20 * 2**20
# How often to see whether there is still somebody who reads.
PARENT_SECONDS = 1.0
# As the format of Arrow's streams has it.
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
# How long the thread that makes may keep the one waiting that writes.
SWITCH_SECONDS = 0.0005


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

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """The records, made here and now, in batches of RECORDS."""
        world = World(self.seed, self.opens, self.density, self.tempo)
        folder = Path(self.generators) if self.generators else None
        made = inject(
            spans(world, folder),
            self.defects,
            self.seed,
            self.opens,
            world=f"{self.density}{identity(folder)}",
        )
        passed, left = self.skip, self.take
        for batch in made:
            size = _rows(batch)
            for begin in range(0, batch.num_rows, size):
                block = batch.slice(begin, size)
                if passed >= block.num_rows:
                    passed -= block.num_rows
                    continue
                block, passed = block.slice(passed, left), 0
                if block.num_rows:
                    yield block
                if left is not None and (left := left - block.num_rows) == 0:
                    return

    def records(self) -> Iterator[Record]:
        """The same, one by one."""
        for block in self.blocks():
            *columns, rules = (column.to_pylist() for column in block.columns)
            yield from map(Record, *columns, map(tuple, rules))


def blocks(records: Iterable[Record]) -> Iterator[pa.RecordBatch]:
    """Records in batches of RECORDS_A_BLOCK, or of fewer where they are large."""
    batch: list[Record] = []
    held = 0
    for record in records:
        batch.append(record)
        held += len(record.value or b"")
        if len(batch) == RECORDS_A_BLOCK or held >= BYTES_A_BLOCK:
            yield _block(batch)
            batch, held = [], 0
    if batch:
        yield _block(batch)


def _rows(batch: pa.RecordBatch) -> int:
    """How many rows of a batch are a block: fewer where they are large."""
    fit: int = BYTES_A_BLOCK * batch.num_rows // max(1, batch.nbytes)
    return max(1, min(RECORDS_A_BLOCK, fit))


def _block(records: list[Record]) -> pa.RecordBatch:
    columns = zip(zip(*records, strict=True), RECORDS.types, strict=True)
    return pa.record_batch([pa.array(told, kind) for told, kind in columns], schema=RECORDS)


@contextmanager
def made_ahead(
    shop: Shop, stop: Callable[[], bool] = lambda: False
) -> Iterator[Iterator[pa.RecordBatch]]:
    """The blocks of a shop, made by a process of their own, which begins at once.

    stop: asked until there is a first block, which records that are passed over may keep away for
    minutes; there is none then. The blocks raise HeadwaterError where that process dies.
    """
    # A file, which takes whatever a generator has to say: a pipe that nobody reads fills up.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "producer.making", json.dumps(shop)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=PIPE_BYTES,
            pipesize=PIPE_BYTES,
            # Nothing is multiplied there, and numpy's threads for it turn round while they wait.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            # Ctrl-C is for the one that sends, which then closes the pipe.
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            yield _read(process, process.stdout, errors, stop)
        finally:
            process.stdout.close()
            process.terminate()
            process.wait()


def _read(
    process: subprocess.Popen[bytes], made: IO[bytes], errors: IO[bytes], stop: Callable[[], bool]
) -> Iterator[pa.RecordBatch]:
    while not select([made], [], [], STOP_SECONDS)[0]:
        if stop():
            return
    said = ""
    try:
        with pa.ipc.open_stream(made) as stream:
            yield from stream
    except (pa.ArrowException, OSError) as error:
        said = str(error).partition("\n")[0]
    # It may be about to write more.
    made.close()
    # A stream that ends between two batches looks as one that is whole.
    code = process.wait()
    if code != 0 or said:
        errors.seek(0)
        told = errors.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            # Wherever in a block that was.
            said = f"killed by {signal.Signals(-code).name}"
        raise HeadwaterError(
            f"the generator of events ended: {told[-1] if told else said or 'no reason given'}"
        )


def write(spelled: str) -> None:
    """Writes the records of a shop, which is spelled as JSON, to stdout, and ends the process."""
    # Nothing made here refers back to itself; looking for cycles took half of the time.
    gc.disable()
    sys.setswitchinterval(SWITCH_SECONDS)
    parent = os.getppid()
    waiting = _Waiting()
    # What a generator prints is none of the records.
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    shop = Shop(*json.loads(spelled))
    Thread(target=_make, args=(shop, waiting), daemon=True).start()
    code = 0
    try:
        while os.getppid() == parent:
            block = waiting.take(PARENT_SECONDS)
            if isinstance(block, BaseException):
                raise block
            if block == END_OF_STREAM:
                out.write(block)
                break
            if block is not None:
                out.write(block)
        out.flush()
    except BrokenPipeError:
        # The reader has enough.
        pass
    except HeadwaterError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        code = 1
    # The other thread may be in the middle of something.
    sys.stderr.flush()
    os._exit(code)


class _Waiting:
    """What was made and is not written yet: so many bytes, or one block."""

    def __init__(self) -> None:
        self._blocks: deque[pa.Buffer | bytes | BaseException] = deque()
        self._bytes = 0
        self._changed = Condition()

    def put(self, block: pa.Buffer | bytes | BaseException) -> None:
        """Waits for room."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < BYTES_AHEAD)
            self._blocks.append(block)
            self._bytes += 0 if isinstance(block, BaseException) else len(block)
            self._changed.notify_all()

    def take(self, seconds: float) -> pa.Buffer | bytes | BaseException | None:
        """The next one; None where there is none for so long."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._blocks), seconds):
                return None
            block = self._blocks.popleft()
            self._bytes -= 0 if isinstance(block, BaseException) else len(block)
            self._changed.notify_all()
            return block


def _make(shop: Shop, waiting: _Waiting) -> None:
    try:
        blocks = shop.blocks()
        first = next(blocks, None)
        # Nothing is written before there is a record: it is waited for.
        waiting.put(RECORDS.serialize())
        for block in blocks if first is None else chain([first], blocks):
            # Whole, so that one call writes it: each would wait for its turn.
            waiting.put(block.serialize())
        waiting.put(END_OF_STREAM)
    except BaseException as error:
        waiting.put(error)
