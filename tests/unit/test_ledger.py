"""The ledger's files, foreign bytes, and what is sent when."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from confluent_kafka import KafkaError, KafkaException

from lakehouse.errors import BrokerError, HeadwaterError, LedgerError, SettingsError
from producer import foreign, kafka_sink
from producer.ahead import BYTES_A_BLOCK, Shop, blocks, made_ahead
from producer.defects import Record
from producer.generators import identity
from producer.ledger import Ledger, sent

WORLD = {"seed": 1}


def record(name: str) -> Record:
    return Record(0, None, b"x", "s", name, "order", "late", "accepted", ("a", "b"))


def test_lines_keep_their_coordinates_once_acknowledged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "run", "topic", WORLD, first=11)
    [block] = blocks([record("one"), record("two"), record("three")])
    chunk = ledger.open(block)
    chunk.sent = 2  # stopped before the third
    chunk.partitions[0], chunk.offsets[0] = 3, 7
    ledger.close()
    rows = pq.read_table(tmp_path).to_pylist()
    assert [(r["number"], r["id"], r["partition"], r["offset"]) for r in rows] == [
        (11, "one", 3, 7),
        (12, "two", None, None),
    ]
    assert rows[0]["rules"] == ["a", "b"]
    assert sent(tmp_path, WORLD) == 12
    assert sent(tmp_path, {"seed": 2}) == 0


def test_foreign_bytes_are_sent_as_they_are(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b'{"a":1}\n\n\xff\xfe\r\nlast')
    assert [r.value for r in foreign.records(lines)] == [b'{"a":1}', b"", b"\xff\xfe", b"last"]
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "b").write_bytes(b"two\nlines\n")
    (folder / "in" / "c").write_bytes(b"")
    assert [r.value for r in foreign.records(folder)] == [b"two\nlines\n", b""]


def test_nothing_to_send_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "in" / "empty"
    empty.parent.mkdir()
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SettingsError, match=str(path)):
            list(foreign.records(path))
    empty.touch()
    with pytest.raises(SettingsError, match=f"{empty} holds no line"):
        list(foreign.records(empty))


def test_nothing_of_a_folder_is_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    nowhere = tmp_path / "nowhere"
    nowhere.symlink_to(tmp_path / "gone")
    with pytest.raises(SettingsError, match=f"{nowhere} is no file, or a link that leads to none"):
        list(foreign.records(tmp_path))
    nowhere.unlink()
    (tmp_path / "linked").symlink_to(tmp_path.parent)
    with pytest.raises(SettingsError, match=f"{tmp_path}/linked is a link to a folder"):
        list(foreign.records(tmp_path))
    (tmp_path / "linked").unlink()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SettingsError, match=f"{pipe} is no file"):
        list(foreign.records(tmp_path))


def test_what_cannot_be_read_on_says_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def records() -> Iterator[Record]:
        yield from [record("a"), record("b")]
        raise SettingsError("b: Input/output error")

    monkeypatch.setattr(kafka_sink, "_producer", lambda *_, **__: Client())
    monkeypatch.setattr("producer.ahead.RECORDS_A_BLOCK", 1)
    here: Any = None
    ledger = Ledger(tmp_path, "run", "topic", WORLD)
    with pytest.raises(SettingsError, match=r"^b: Input/output error; 2 records were sent before"):
        kafka_sink.send(blocks(records()), here, "topic", ledger)
    assert pq.read_table(tmp_path).num_rows == 2


def test_a_file_that_may_not_be_read_is_named_before_any_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "b")
    with pytest.raises(SettingsError, match=f"{tmp_path}/b: may not be read"):
        next(foreign.records(tmp_path))


def test_a_lone_carriage_return_is_no_line_end(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"a\r\r\nb\rc\nd\r")
    assert [r.value for r in foreign.records(lines)] == [b"a\r", b"b\rc", b"d\r"]


def test_large_records_are_sent_before_many_are_held(tmp_path: Path) -> None:
    large = [record(str(n))._replace(value=bytes(BYTES_A_BLOCK // 4)) for n in range(10)]
    assert [block.num_rows for block in blocks(iter(large))] == [4, 4, 2]
    chunk = Ledger(tmp_path, "run", "topic", WORLD).open(next(blocks(iter(large))))
    assert chunk.block.nbytes < 1_000


def test_a_ledger_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "20260101T000000000000-00000.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(LedgerError, match=f"{broken} cannot be read: .*move it away"):
        sent(tmp_path, WORLD)
    # What a run that died left half of has another name.
    broken.rename(broken.with_suffix(".unfinished"))
    assert sent(tmp_path, WORLD) == 0


def test_a_ledger_on_a_full_disk_says_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kafka_sink, "_producer", lambda *_, **__: Client())
    monkeypatch.setattr("producer.ledger.pq.write_table", full)
    ledger = Ledger(tmp_path, "run", "topic", WORLD)
    here: Any = None
    with pytest.raises(
        LedgerError, match=r"No space left .*; 2 records were sent to topic topic, 0"
    ):
        kafka_sink.send(blocks(iter([record("a"), record("b")])), here, "topic", ledger)
    assert gc.isenabled()


class Client:
    """A producer that takes everything and says nothing."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def produce(self, _topic: str, value: Any, *_: Any) -> None:
        self.values.append(value)

    def poll(self, seconds: float) -> None:
        time.sleep(seconds)

    def flush(self, _: float) -> None:
        pass

    def __len__(self) -> int:
        return 0


def test_a_stop_sends_nothing_whose_time_has_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    monkeypatch.setattr(kafka_sink, "_producer", lambda *_, **__: client)
    now = int(time.time() * 1000)
    past = [record(str(n))._replace(at=now - 10, value=b"past") for n in range(3)]
    to_come = [record(str(n))._replace(at=now + 600_000, value=b"to come") for n in range(900)]
    here: Any = None
    ledger = Ledger(tmp_path, "run", "topic", WORLD)
    made = blocks(iter(past + to_come))
    report = kafka_sink.send(
        made, here, "topic", ledger, live=True, stop=lambda: len(client.values) == 3
    )
    assert client.values == [b"past"] * 3
    assert (report.sent, report.interrupted) == (3, True)
    assert pq.read_table(tmp_path).num_rows == 3


def test_a_rate_is_kept_before_a_record_and_not_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    monkeypatch.setattr(kafka_sink, "_producer", lambda *_, **__: client)
    here: Any = None

    def send(number: int, rate: float) -> float:
        made = blocks(record(str(n))._replace(value=b"x") for n in range(number))
        begun = time.monotonic()
        kafka_sink.send(
            made, here, "topic", Ledger(tmp_path, f"{number}", "topic", WORLD), rate=rate
        )
        return time.monotonic() - begun

    # The first one at once, were the next a quarter of an hour away.
    assert send(1, 0.001) < 10
    assert send(5, 10) >= 0.4
    assert len(client.values) == 6


def test_another_generator_is_another_world(tmp_path: Path) -> None:
    """Its events are others, so that none may have the id of one that was sent without it."""
    assert identity() == ""
    generator = tmp_path / "weather.py"
    generator.write_text(
        "def events(world):\n    for n in range(1, 9):\n"
        "        yield (world.start + n, n, 'weather', 'k', 's', '{}')\n"
    )
    first = identity(tmp_path)

    def ids(folder: Path | None) -> set[str | None]:
        shop = Shop(1, 1_760_000_000_000, 0.0, generators=str(folder) if folder else None)
        return {made.id for made in islice(shop.records(), 500)}

    assert len(ids(None) & ids(None)) > 400
    assert ids(None) & ids(tmp_path) == set()
    generator.write_text(generator.read_text().replace("9", "8"))
    assert identity(tmp_path) not in {"", first}


def generators() -> list[psutil.Process]:
    """This process's own that make events."""
    children = psutil.Process().children()
    alive = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in alive if "producer.making" in one.cmdline()]


def test_a_generator_that_dies_is_no_end(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def events(world):\n    yield (world.start, 1, 'a', 'k', 's')\n")
    shop = Shop(1, 1_760_000_000_000, 0.0)
    with (
        made_ahead(shop._replace(generators=str(tmp_path))) as blocks,
        pytest.raises(HeadwaterError, match="the generator of events ended: ValueError"),
    ):
        list(blocks)
    with made_ahead(shop) as blocks:
        next(blocks)
        [process] = generators()
        process.kill()
        with pytest.raises(HeadwaterError, match="of events ended: killed by SIGKILL"):
            list(blocks)
    assert generators() == []


def test_what_a_generator_prints_is_none_of_its_records(tmp_path: Path) -> None:
    """And however much it is, nobody waits for anybody; pandas is there for it."""
    (tmp_path / "chatty.py").write_text(
        "import sys\nimport pandas\n\n\ndef events(world):\n    for n in range(1, 3_000):\n"
        "        print('x' * 100)\n        print('y' * 100, file=sys.stderr)\n"
        "        yield (world.start + n, n, 'chat', 'k', 's', '{}')\n"
    )
    shop = Shop(1, 1_760_000_000_000, 0.0, generators=str(tmp_path), take=5_000)
    with made_ahead(shop) as blocks:
        entities = [name for block in blocks for name in block.column("entity").to_pylist()]
    assert (len(entities), entities.count("chat")) == (5_000, 2_999)


def test_an_event_without_its_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "hollow.py").write_text(
        "def events(world):\n    yield (world.start, 1, 'a', 'k', 's', None)\n"
    )
    shop = Shop(1, 1_760_000_000_000, 0.0, generators=str(tmp_path))
    with (
        made_ahead(shop) as blocks,
        pytest.raises(HeadwaterError, match="ended: a generator made an event without data"),
    ):
        list(blocks)


def test_large_records_are_not_held_for_the_ledgers_lines(tmp_path: Path) -> None:
    """They come as a part of them."""
    (tmp_path / "large.py").write_text(
        "def events(world):\n    for n in range(1, 200):\n"
        "        data = '{\"x\":\"' + 'x' * 30_000 + '\"}'\n"
        "        yield (world.start + n, n, 'large', 'k', 's', data)\n"
    )
    shop = Shop(1, 1_760_000_000_000, 0.0, generators=str(tmp_path), take=1_200)
    ledger = Ledger(tmp_path, "run", "topic", WORLD)
    with made_ahead(shop) as blocks:
        held = [(block, ledger.open(block).block) for block in blocks]
    large, lines = held[-1]
    assert large.column("entity").to_pylist().count("large") > 100
    assert large.column("id").buffers()[2].parent.size > 3_000_000
    kept = lines.column("id").buffers()[2]
    assert kept.parent is None or kept.parent.size < 100_000
    assert lines.column("id").to_pylist() == large.column("id").to_pylist()


def test_the_ledger_ends_where_the_client_took_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(Client):
        def produce(self, _topic: str, value: Any, *_: Any) -> None:
            # Three are taken, one is refused for good.
            if len(self.values) == 3:
                raise KafkaException(KafkaError(KafkaError._FATAL, "no more", fatal=True))
            self.values.append(value)

    monkeypatch.setattr(kafka_sink, "_producer", lambda *_, **__: Refusing())
    here: Any = None
    ledger = Ledger(tmp_path, "run", "topic", WORLD)
    many = blocks(record(str(number)) for number in range(50))
    with pytest.raises(BrokerError, match="refused the producer"):
        kafka_sink.send(many, here, "topic", ledger)
    assert pq.read_table(tmp_path).column("number").to_pylist() == [1, 2, 3, 4]


def test_a_reader_that_has_enough_leaves_no_generator() -> None:
    with made_ahead(Shop(1, 1_760_000_000_000, 0.3, take=2_500)) as blocks:
        assert sum(block.num_rows for block in blocks) == 2_500
    with made_ahead(Shop(1, 1_760_000_000_000, 0.3)) as blocks:
        next(blocks)
    assert generators() == []


def test_a_stop_is_heard_while_records_are_passed_over() -> None:
    """More of them than there is time for."""
    asked: list[float] = []

    def stop() -> bool:
        asked.append(time.monotonic())
        return len(asked) == 3

    with made_ahead(Shop(1, 1_760_000_000_000, 0.3, skip=10**9), stop) as blocks:
        assert list(blocks) == []
    assert len(asked) == 3
    assert generators() == []
