"""The embedded broker: start, stop, and what a dirty shutdown leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from headwater import broker
from lakehouse import kafka
from lakehouse import settings as settings_files
from lakehouse.errors import BrokerError
from producer.command import Sending, send_shop


def test_life_of_a_broker(tmp_path: Path) -> None:
    """In a folder of a user's own name, which Kafka reads in another encoding."""
    folder = tmp_path / "Dätä 😀 \\ of mine"
    settings = settings_files.load("local", storage=str(folder))
    assert not broker.status(settings).running
    first = broker.start(settings)
    try:
        assert broker.start(settings) == first, "a second start finds it running"
        send_shop(settings, Sending(events=500))
        before = kafka.end_offsets(settings, ["shop.events"])
        assert sum(before.values()) == 500
        assert list((folder / "broker" / "log").glob("shop.events-*"))

        # A dirty shutdown: killed, its pid file left behind.
        assert first.pid is not None
        process = psutil.Process(first.pid)
        os.kill(first.pid, signal.SIGKILL)
        process.wait(10)
        assert not broker.status(settings).running
        again = broker.start(settings)
        assert again.bootstrap == first.bootstrap, "the port is kept"
        assert kafka.end_offsets(settings, ["shop.events"]) == before, (
            "nothing acknowledged is lost"
        )

        # A pid that another process has by now is not taken for the broker.
        assert broker.stop(settings)
        state = folder / "broker" / "broker.json"
        state.write_text(state.read_text().replace(f'"pid": {again.pid}', f'"pid": {os.getpid()}'))
        assert not broker.status(settings).running
        assert not broker.stop(settings), "and is not stopped"
    finally:
        broker.stop(settings)
    assert not broker.status(settings).running


def test_a_folder_that_kafka_cannot_name(tmp_path: Path) -> None:
    settings = settings_files.load("local", storage=str(tmp_path / "a,b"))
    with pytest.raises(BrokerError, match="Kafka takes a comma"):
        broker.start(settings)


@pytest.mark.parametrize("state", ['{"pid": -1}', '{"pid": "12"}', '{"pid": 1e9}', "[]", ""])
def test_a_damaged_file_of_the_broker_is_none(tmp_path: Path, state: str) -> None:
    settings = settings_files.load("local", storage=str(tmp_path))
    whole = {"pid": 1, "started": 0.0, "port": 1, "controller_port": 2}
    text = json.dumps(whole | json.loads(state)) if state.startswith("{") else state
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "broker.json").write_text(text)
    assert not broker.status(settings).running
    assert not broker.stop(settings)
    if not state.startswith("{"):
        with pytest.raises(BrokerError, match="no broker is set and none was started in"):
            kafka.bootstrap(settings)
