"""The embedded broker: start, stop, and what a dirty shutdown leaves."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from headwater import broker
from lakehouse import kafka
from lakehouse import settings as settings_files
from producer.command import Sending, send_shop


def test_life_of_a_broker(tmp_path: Path) -> None:
    settings = settings_files.load("local", storage=str(tmp_path))
    assert not broker.status(settings).running
    first = broker.start(settings)
    try:
        assert broker.start(settings) == first, "a second start finds it running"
        send_shop(settings, Sending(events=500))
        before = kafka.end_offsets(settings, ["shop.events"])
        assert sum(before.values()) == 500

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
        state = tmp_path / "broker" / "broker.json"
        state.write_text(state.read_text().replace(f'"pid": {again.pid}', f'"pid": {os.getpid()}'))
        assert not broker.status(settings).running
        assert not broker.stop(settings), "and is not stopped"
    finally:
        broker.stop(settings)
    assert not broker.status(settings).running
