"""Headwater under load for a while, with processes killed at random: `make soak`.

    python -m tests.faults.soak --minutes 60 --kills 50

A broker, a producer, a supervised stream, and the batch jobs one after the other, each a process of
its own. At random moments one of them, the stream or whichever job runs, is killed with all of its
children; the stream is started again at once. At the end the streams are drained, reconciled, and
every record is held against the ledger. The last line printed is the report, as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil

from headwater import broker, status
from lakehouse import settings as settings_files
from lakehouse.settings import Settings
from tests.helpers import BIN, environment, unlike_the_ledger

SAMPLE_SECONDS = 10.0
POLL_SECONDS = 0.2
JOBS = (
    ["reconcile"],
    ["gold"],
    ["maintain"],
    ["publish"],
    ["quarantine", "replay"],
    ["replay", "--from-offset", "0"],
)


@dataclass
class Report:
    """kills: by what was killed. balance: as `headwater audit --json` has it. exceptions: records
    whose outcome is not their ledger's (20 at most). memory: MiB of the stream's processes, highest
    of each tenth of the time; state: MiB of the checkpoint's state, at the end of each tenth.
    error: why it ended early."""

    minutes: float = 0.0
    seed: int = 0
    records: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    jobs_done: dict[str, int] = field(default_factory=dict)
    jobs_failed: list[str] = field(default_factory=list)
    balance: list[dict[str, Any]] = field(default_factory=list)
    law_holds: bool = False
    exceptions: list[Any] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    state: list[float] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    machine: str = ""
    error: str = ""


class Processes:
    """Commands as processes, each in a group of its own, with what they say in a file a name."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings, self.logs = settings, logs
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.logs / f"{command[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(BIN / "headwater"), *command],
                env=os.environ | environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def kill_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                kill(process)

    def finish(self, *command: str) -> None:
        """Runs a command to its end. Raises ClickException with the end of what it said."""
        if self.start(*command).wait() != 0:
            said = (self.logs / f"{command[0]}.log").read_text(errors="replace")[-1_000:]
            raise click.ClickException(f"headwater {' '.join(command)}: {said}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """All of it at once, the JVM too."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def megabytes(process: subprocess.Popen[bytes]) -> int:
    try:
        parent = psutil.Process(process.pid)
        tree = [parent, *parent.children(recursive=True)]
        # A program that a JVM is about to start has the JVM's memory, and its command, until then.
        memory = {tuple(one.cmdline()): one.memory_info().rss for one in tree}
        return sum(memory.values()) >> 20
    except psutil.NoSuchProcess:
        return 0


def state_size(settings: Settings) -> float:
    folder = Path(settings.checkpoints) / "silver/state"
    size = 0
    for file in folder.rglob("*"):
        # A running query makes, renames and deletes files meanwhile.
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return round(size / 2**20, 1)


def tenths(samples: list[Any]) -> list[list[Any]]:
    size = max(1, -(-len(samples) // 10))
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def soak(
    processes: Processes, settings: Settings, found: Report, minutes: float, kills: int, rate: int
) -> None:
    """The load and the kills, then the balance."""
    logs = processes.logs
    chance = random.Random(found.seed)
    seconds = minutes * 60
    found.records = int(rate * seconds)
    moments = sorted(chance.uniform(0, seconds) for _ in range(kills))
    killed: Counter[str] = Counter()
    done: Counter[str] = Counter()
    memory: list[int] = []
    state: list[float] = []

    def ended(name: str, job: subprocess.Popen[bytes]) -> None:
        if job.returncode == 0:
            done[name] += 1
            return
        said = (logs / f"{name}.log").read_text(errors="replace").splitlines()
        found.jobs_failed.append(f"{name}: {said[-1] if said else job.returncode}")

    stream = processes.start("stream")
    events = ["--events", str(found.records), "--rate", str(rate), "--seed", str(found.seed)]
    producer = processes.start("produce", *events)
    begun = sampled = time.monotonic()
    order, job, name = 0, None, ""
    while producer.poll() is None or moments:
        at = time.monotonic() - begun
        if stream.poll() is not None:
            raise click.ClickException(f"the stream ended by itself: see {logs}/stream.log")
        if job is not None and job.poll() is not None:
            ended(name, job)
            job = None
        if job is None and at > 60:
            command = JOBS[order % len(JOBS)]
            order, name, job = order + 1, command[0], processes.start(*command)
        if moments and at >= moments[0]:
            moments.pop(0)
            if job is not None and chance.random() < 0.3:
                kill(job)
                killed[name] += 1
                # The next ones go on from what it has done: it is run again first.
                order, job = order - 1, None
            else:
                kill(stream)
                killed["stream"] += 1
                stream = processes.start("stream")
            click.echo(f"{at:6.0f} s: killed {dict(killed)}", err=True)
        if time.monotonic() - sampled >= SAMPLE_SECONDS:
            sampled = time.monotonic()
            memory.append(megabytes(stream))
            state.append(state_size(settings))
        time.sleep(POLL_SECONDS)
    if producer.returncode != 0:
        raise click.ClickException(f"the producer failed: see {logs}/produce.log")
    if job is not None:
        job.wait()
        ended(name, job)
    stream.terminate()
    stream.wait()
    found.minutes = round((time.monotonic() - begun) / 60, 1)
    found.kills, found.jobs_done = dict(killed), dict(done)
    found.memory = [max(part) for part in tenths(memory)]
    found.state = [part[-1] for part in tenths(state)]

    processes.finish("stream", "--available-now")
    processes.finish("reconcile")
    audit = subprocess.run(
        [str(BIN / "headwater"), "audit", "--json"],
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    found.law_holds = audit.returncode == 0
    found.balance = json.loads(audit.stdout or "[]")
    found.exceptions = unlike_the_ledger(settings)
    found.files = {table["table"]: table["files"] for table in status.state(settings)["tables"]}


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.5), default=60.0, show_default=True)
@click.option("--kills", type=click.IntRange(min=0), default=50, show_default=True)
@click.option("--rate", type=click.IntRange(min=1), default=600, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the shop and the kills.")
@click.option("--data", type=click.Path(path_type=Path), help="Kept; else a folder that goes.")
def main(minutes: float, kills: int, rate: int, seed: int, data: Path | None) -> None:
    folder = data or Path(tempfile.mkdtemp(prefix="headwater-soak-"))
    local = settings_files.load("local", storage=str(folder), runtime=str(folder))
    found = Report(seed=seed, machine=f"{os.cpu_count()} cores, {platform.machine()}")
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    started = broker.start(local)
    settings = local.model_copy(
        update={"broker": local.broker.model_copy(update={"bootstrap": started.bootstrap})}
    )
    processes = Processes(settings, logs)
    try:
        soak(processes, settings, found, minutes, kills, rate)
    except click.ClickException as error:
        found.error = error.message
    finally:
        processes.kill_all()
        broker.stop(local)
    sent = sum(balance["bronze"] for balance in found.balance)
    sound = found.law_holds and not found.exceptions and sent == found.records
    sound = sound and not found.jobs_failed and not found.error
    if data is None and sound:
        shutil.rmtree(folder)
    else:
        click.echo(f"everything is in {folder}", err=True)
    click.echo(json.dumps(asdict(found), default=str))
    sys.stdout.flush()
    # Arrow's threads over the Delta library's files were seen to abort an interpreter at its end.
    os._exit(0 if sound else 1)


if __name__ == "__main__":
    main()
