"""Headwater under fire for a while: `make soak`.

    python -m tests.faults.soak --minutes 60 --kills 50

Five twelfths of the time it is under load: a broker, a producer, a supervised stream, and the batch
jobs one after the other, each a process of its own. At random moments one of them, the stream,
whichever job runs or the broker, is killed with all of its children, and started again at once; now
and then the newest entry of a checkpoint's commits is gone by then, or all of a checkpoint, or the
broker does not answer for half a minute. Among the jobs are repairs of quarantined records, so that
replays have rows to change. Then the streams are drained, reconciled, every record is held against
the ledger (what was repaired, against its new bytes), Gold against Gold made anew, and the
warehouse against Gold.

The rest is for the scenarios that want a broker, a disk or a database of their own (a disk
that is full, partitions that are added, records that expire, files that are cut, a warehouse that
goes away …): tests.faults.scenarios runs as many of them as there is time for.

The last line printed is the report, as JSON.
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
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import duckdb
import psutil
import pyarrow as pa
from deltalake import DeltaTable

from headwater import broker, status
from lakehouse import settings as settings_files
from lakehouse.checkpoints import QUERIES
from lakehouse.settings import Settings
from tests.helpers import BIN, ROOT, Place, environment, table, unlike_the_ledger
from tests.samples import event

LOAD_SHARE = 5 / 12
SAMPLE_SECONDS = 10.0
POLL_SECONDS = 0.2
# How long a broker does not answer that is stopped, and not killed.
SILENT_SECONDS = 30.0
# What is hit at a moment, by how often; what is left is the stream's. Of these hits some take
# something of a checkpoint along: its newest commit, or, while no job looks at it, all of it.
JOB, BROKER, SILENCE, COMMIT, CHECKPOINT = 0.25, 0.08, 0.04, 0.1, 0.06
LAYERS = "bronze", "silver"
# From an hour on each scenario is run to its end, and has to have passed, however slow the machine.
MINUTES_FOR_EACH = 60
# Whether memory grows is told from a load that is this long. By how much the median of the second
# half of the time may be above that of the first, and how many files a partition may have after
# maintenance. (Not the highest: a stream that is killed begins anew, and that is the one's that by
# chance lived longest.)
MINUTES_TO_TELL = 20
MEMORY_GROWTH = 1.25
MOST_FILES = 50
# In the folder of a table under load, of old versions too: VACUUM keeps those of a week.
MOST_FILES_A_MINUTE = 40
JOBS = (
    ["reconcile"],
    # Of a record that is looked for when its turn comes: what is replayed then changes rows.
    ["quarantine", "repair"],
    ["quarantine", "replay"],
    ["gold"],
    ["maintain"],
    ["publish"],
    ["replay", "--from-offset", "0"],
)


@dataclass
class Report:
    """minutes: of load. kills: by what was killed; `broker silent`, `commit entry`, `checkpoint`
    and `stream without broker` (one that ended at its start, there being none) are no kills of
    their own. balance: as `headwater audit --json` has it. exceptions: records whose outcome is
    not their ledger's (20 at most); repaired: those that other bytes were put in the place of, and
    that are accepted by them now. gold_mended, publish_mended: rows that Gold made anew has
    otherwise, and that a publish after the last one sends. By tenths of the time: memory, MiB of
    the stream's processes, highest (memory_medians: of the two halves of the time); state, MiB of
    the files of the checkpoint's state, of which Spark keeps those of 20 to 36 batches, and
    bronze_files and silver_files, data files in the tables' folders, at the end. keys, expired: of
    the state at the end, see tests.faults.state. files: of the tables' newest versions, before and
    after `headwater maintain` without a stream; fullest: after it, of the partition that has the
    most. scenarios: see tests.faults.scenarios. error: why it ended early.
    """

    minutes: float = 0.0
    seed: int = 0
    records: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    jobs_done: dict[str, int] = field(default_factory=dict)
    jobs_failed: list[str] = field(default_factory=list)
    balance: list[dict[str, Any]] = field(default_factory=list)
    law_holds: bool = False
    exceptions: list[Any] = field(default_factory=list)
    repaired: int = 0
    gold_mended: int | None = None
    publish_mended: int | None = None
    memory: list[int] = field(default_factory=list)
    memory_medians: list[int] = field(default_factory=list)
    state: list[float] = field(default_factory=list)
    keys: int | None = None
    expired: int | None = None
    bronze_files: list[int] = field(default_factory=list)
    silver_files: list[int] = field(default_factory=list)
    files: dict[str, list[int]] = field(default_factory=dict)
    fullest: dict[str, int] = field(default_factory=dict)
    grown: list[str] | None = None
    scenarios: dict[str, str] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    error: str = ""


class Processes:
    """Commands as processes, each in a group of its own, with what they say in a file a name."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings, self.logs = settings, logs
        self.environment = os.environ | environment(settings)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log_of(name_of(*command)).open("ab") as log:
            process = subprocess.Popen(
                [str(BIN / "headwater"), *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name.replace(' ', '-')}.log"

    def last_line(self, name: str) -> str:
        said = self.log_of(name).read_text(errors="replace").splitlines()
        return said[-1] if said else ""

    def kill_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                kill(process)

    def finish(self, *command: str) -> str:
        """Runs a command to its end; its stdout. Raises ClickException with the end of what it
        said."""
        done = subprocess.run(
            [str(BIN / "headwater"), *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout)[-1_000:]
            raise click.ClickException(f"headwater {' '.join(command)}: {said}")
        return done.stdout


def name_of(*command: str) -> str:
    """A command without its options: `stream`, `quarantine replay`."""
    return " ".join(command[:2] if command[0] == "quarantine" else command[:1])


# What is counted with the kills, and is none.
NO_KILLS = {"broker silent", "commit entry", "checkpoint", "stream without broker"}


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


def data_files(settings: Settings, table: str) -> int:
    return sum(1 for _ in Path(settings.tables, table).rglob("part-*.parquet"))


def has_begun(checkpoint: Path) -> bool:
    """Whether a query has committed a batch: without one there is nothing to do for a job."""
    return any((checkpoint / "commits").glob("[0-9]*"))


def lose_commit(settings: Settings, query: str) -> bool:
    """Takes the newest entry out of a checkpoint's log of commits; whether there was one."""
    folder = Path(settings.checkpoints) / query / "commits"
    entries = [file for file in folder.glob("*") if file.name.isdigit()]
    if not entries:
        return False
    newest = max(entries, key=lambda file: int(file.name))
    newest.unlink()
    newest.with_name(f".{newest.name}.crc").unlink(missing_ok=True)
    return True


class Repairs:
    """Records that are repaired: which, and by what. folder: for the bytes.

    events: where, by the id of the new bytes. written: those whose command came to its end.
    """

    def __init__(self, settings: Settings, folder: Path, chance: random.Random) -> None:
        self._settings, self._folder, self._chance = settings, folder, chance
        self.events: dict[str, Place] = {}
        self.written: set[str] = set()

    def next(self) -> list[str] | None:
        """The options of a repair of one more record; None where none is quarantined for it."""
        places = self._places("violations = ['malformed_json']", "violations")
        found = sorted(places - set(self.events.values()))
        if not found:
            return None
        place, ident = self._chance.choice(found), f"repaired-{len(self.events)}"
        file = self._folder / f"{ident}.json"
        file.write_bytes(event("category", {"category_id": "K001", "name": "B"}, id=ident))
        self.events[ident] = place
        return ["/".join(map(str, place)), "--from", str(file), "--by", "soak"]

    def accepted(self) -> set[Place]:
        """Those that are in Silver by their new bytes."""
        ids = ", ".join(f"'{ident}'" for ident in self.events) or "NULL"
        return self._places(f"id IN ({ids}) AND outcome = 'accepted'", "id", "outcome")

    def unlike(self) -> list[str]:
        """What is not as it should be once all were judged: a repair that was written and is not
        accepted, and a history that does not say so once, or that ends in the middle."""
        accepted = self.accepted()
        lost = [i for i in sorted(self.written) if self.events[i] not in accepted]
        found = [f"{ident} ({self.events[ident]}) is not accepted" for ident in lost]
        if not Path(self._settings.tables, "ops/repairs").exists():
            return found
        history = table(self._settings, "ops/repairs")
        assert history.num_rows
        steps = duckdb.execute(
            """
            SELECT topic, partition, "offset",
              count(*) FILTER (action = 'replayed' AND outcome = 'accepted'),
              arg_max(action, ("at", action <> 'replaying')) FILTER (action <> 'repaired')
            FROM history GROUP BY ALL
            """
        ).fetchall()
        for *where, times, last in steps:
            if Place(*where) in accepted and times != 1:
                found.append(f"{where} was let in, and its history says so {times} times")
            if last == "replaying":
                found.append(f"{where}: its history ends in the middle of a replay")
        return found

    def _places(self, condition: str, *columns: str) -> set[Place]:
        # DuckDB finds it by its name.
        silver = table(self._settings, "silver/events", ["topic", "partition", "offset", *columns])
        assert silver.num_rows
        query = f'SELECT topic, partition, "offset" FROM silver WHERE {condition}'
        return {Place(*row) for row in duckdb.execute(query).fetchall()}


def halves(samples: list[int]) -> list[list[int]]:
    """Without those of a moment in which none ran; 0 where there is nothing else."""
    there = [sample for sample in samples if sample]
    middle = len(there) // 2
    return [there[:middle] or [0], there[middle:] or [0]]


def tenths(samples: list[Any]) -> list[list[Any]]:
    size = max(1, -(-len(samples) // 10))
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def broker_pid(local: Settings) -> int:
    pid = broker.status(local).pid
    assert pid is not None, "no broker runs"
    return pid


def soak(
    processes: Processes,
    local: Settings,
    found: Report,
    minutes: float,
    kills: int,
    rate: int,
) -> None:
    """The load and the kills, then the balance. local: as the broker was started with."""
    settings = processes.settings
    logs = processes.logs
    chance = random.Random(found.seed)
    seconds = minutes * 60
    found.records = max(1, int(rate * seconds))
    moments = sorted(chance.uniform(0, seconds) for _ in range(kills))
    killed: Counter[str] = Counter()
    done: Counter[str] = Counter()
    memory: list[int] = []
    sizes: list[tuple[float, int, int]] = []
    silent_until = hit = 0.0

    def ended(name: str, job: subprocess.Popen[bytes]) -> None:
        if job.returncode == 0:
            done[name] += 1
            if name == "quarantine repair":
                repairs.written.add(list(repairs.events)[-1])
            return
        said = processes.last_line(name) or f"exit code {job.returncode}"
        found.jobs_failed.append(f"{name}: {said}")

    repairs = Repairs(settings, logs, chance)
    stream = processes.start("stream")
    events = ["--events", str(found.records), "--rate", str(rate), "--seed", str(found.seed)]
    producer = processes.start("produce", *events)
    checkpoint_folders = [Path(settings.checkpoints) / query for query in QUERIES]
    begun = sampled = time.monotonic()
    order, job, name = 0, None, ""
    while producer.poll() is None or moments:
        at = time.monotonic() - begun
        if stream.poll() is not None:
            said = processes.last_line("stream")
            if time.monotonic() - hit > 2 * SILENT_SECONDS or "does not answer" not in said:
                raise click.ClickException(f"the stream ended by itself: {said}")
            # Without a broker none can start: whoever keeps it running tries again.
            killed["stream without broker"] += 1
            stream = processes.start("stream")
        if job is not None and job.poll() is not None:
            ended(name, job)
            job = None
        if silent_until and time.monotonic() >= silent_until:
            os.kill(broker_pid(local), signal.SIGCONT)
            silent_until = 0.0
        if job is None and at > min(60, seconds / 5) and all(map(has_begun, checkpoint_folders)):
            command = JOBS[order % len(JOBS)]
            order, name = order + 1, name_of(*command)
            more = repairs.next() if command[-1] == "repair" else []
            if more is not None:
                job = processes.start(*command, *more)
        if moments and at >= moments[0]:
            moments.pop(0)
            draw = chance.random()
            # Each of the jobs once, as far as there are kills.
            if job is not None and (draw < JOB or name not in killed):
                kill(job)
                killed[name] += 1
                # The next ones go on from what it has done: it is run again first.
                order, job = order - 1, None
            elif not silent_until and draw > 1 - BROKER:
                os.kill(broker_pid(local), signal.SIGKILL)
                killed["broker"] += 1
                hit = time.monotonic()
                while broker.status(local).running:
                    time.sleep(POLL_SECONDS)
                broker.start(local)
            elif not silent_until and draw > 1 - BROKER - SILENCE:
                os.kill(broker_pid(local), signal.SIGSTOP)
                killed["broker silent"] += 1
                hit = time.monotonic()
                silent_until = hit + SILENT_SECONDS
                # Nothing was killed: that comes later.
                moments = sorted([*moments, chance.uniform(at, max(at, seconds))])
            else:
                kill(stream)
                killed["stream"] += 1
                lost, query = chance.random(), chance.choice(QUERIES)
                if lost < COMMIT:
                    killed["commit entry"] += lose_commit(settings, query)
                elif lost < COMMIT + CHECKPOINT and job is None:
                    shutil.rmtree(Path(settings.checkpoints) / query, ignore_errors=True)
                    killed["checkpoint"] += 1
                stream = processes.start("stream")
            click.echo(f"{at:6.0f} s: killed {dict(killed)}", err=True)
        if time.monotonic() - sampled >= SAMPLE_SECONDS:
            sampled = time.monotonic()
            memory.append(megabytes(stream))
            bronze, silver = (data_files(settings, f"{layer}/events") for layer in LAYERS)
            sizes.append((state_size(settings), bronze, silver))
        time.sleep(POLL_SECONDS)
    if silent_until:
        os.kill(broker_pid(local), signal.SIGCONT)
    if producer.returncode != 0:
        raise click.ClickException(f"the producer failed: see {logs}/produce.log")
    if job is not None:
        job.wait()
        ended(name, job)
    stream.terminate()
    # One that was started a moment ago is not listening yet.
    if stream.wait() not in (0, -signal.SIGTERM):
        found.jobs_failed.append(f"stream, at its end: {processes.last_line('stream')}")
    found.minutes = round((time.monotonic() - begun) / 60, 1)
    found.kills, found.jobs_done = dict(killed), dict(done)
    found.memory = [max(part) for part in tenths(memory)]
    found.memory_medians = [round(median(half)) for half in halves(memory)]
    last = [part[-1] for part in tenths(sizes)]
    found.state = [size for size, _, _ in last]
    found.bronze_files = [files for _, files, _ in last]
    found.silver_files = [files for _, _, files in last]

    processes.finish("stream", "--available-now")
    state = subprocess.run(
        [sys.executable, "-m", "tests.faults.state"],
        env=processes.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if state.returncode != 0:
        raise click.ClickException(f"the state cannot be read: {state.stderr[-2000:]}")
    held = json.loads(state.stdout.splitlines()[-1])
    found.keys, found.expired = held["keys"], held["expired"]
    processes.finish("reconcile")
    if repairs.events:
        # Who repairs them died now and then, as did who has them judged.
        processes.finish("quarantine", "replay")
    repaired = repairs.accepted()
    found.repaired = len(repaired)
    found.exceptions = repairs.unlike()
    audit = subprocess.run(
        [str(BIN / "headwater"), "audit", "--json"],
        env=processes.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    found.law_holds = audit.returncode == 0
    found.balance = json.loads(audit.stdout or "[]")
    found.exceptions += unlike_the_ledger(settings, repaired)
    click.echo("held against the ledger; now Gold and the warehouse", err=True)
    processes.finish("gold")
    processes.finish("publish")
    anew = json.loads(processes.finish("gold", "--rebuild", "--json"))
    written = (table.values() for table in anew["tables"].values())
    found.gold_mended = sum(map(sum, written))
    again = json.loads(processes.finish("publish", "--json"))
    sent = (table["staged"] for tables in again["warehouses"].values() for table in tables)
    found.publish_mended = sum(sent)
    before = file_counts(settings)
    processes.finish("maintain")
    after = file_counts(settings)
    found.files = {name: [before[name], after.get(name, 0)] for name in before}
    found.fullest = fullest(settings, after)
    if minutes >= MINUTES_TO_TELL:
        found.grown = grown(found, minutes)


def grown(found: Report, minutes: float) -> list[str]:
    """What did not stay flat, in words. minutes: for how long there was load."""
    lines = []
    first, second = found.memory_medians
    if second > MEMORY_GROWTH * first:
        lines.append(f"memory: {second} MiB in the second half of the time, {first} before")
    for name, files in found.fullest.items():
        if files > MOST_FILES:
            lines.append(f"{name}: {files} files in a partition after maintenance")
    for name, counts in (("bronze", found.bronze_files), ("silver", found.silver_files)):
        if max(counts, default=0) > MOST_FILES_A_MINUTE * minutes:
            lines.append(f"{name}: {max(counts)} files in {minutes:.0f} minutes of load")
    return lines


def file_counts(settings: Settings) -> dict[str, int]:
    return {table["table"]: table["files"] for table in status.state(settings)["tables"]}


def fullest(settings: Settings, tables: Collection[str]) -> dict[str, int]:
    """By table, the files of the partition that has the most; of a table without any, all."""
    found = {}
    for name in tables:
        table = DeltaTable(f"{settings.tables}/{name.replace('.', '/')}")
        files = pa.table(table.get_add_actions(flatten=True))
        columns = [f"partition.{column}" for column in table.metadata().partition_columns]
        counts = files.group_by(columns).aggregate([([], "count_all")])["count_all"].to_pylist()
        found[name] = max(counts, default=0)
    return found


def scenarios(minutes: float, each: bool, log: Path) -> dict[str, dict[str, str]]:
    """What became of each scenario, and of each test; see tests.faults.scenarios."""
    options = [str(minutes), *(["--each"] if each else [])]
    with log.open("wb") as said:
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.scenarios", *options],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            check=False,
        )
        said.write(done.stdout)
    last = done.stdout.decode(errors="replace").strip().splitlines()[-1:]
    found: dict[str, dict[str, str]] = (
        json.loads(last[0]) if last and last[0].startswith("{") else {}
    )
    # A test that failed stands in the result; what else went wrong does not.
    if not found or (done.returncode != 0 and "failed" not in found["tests"].values()):
        raise click.ClickException(f"the scenarios did not run to their end: see {log}")
    return found


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True
)
@click.option("--kills", type=click.IntRange(min=0), default=50, show_default=True)
@click.option("--rate", type=click.IntRange(min=1), default=1_350, show_default=True)
@click.option("--load-only", is_flag=True, help="No scenarios: all of the time under load.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the shop and the kills.")
@click.option("--data", type=click.Path(path_type=Path), help="Kept; else a folder that goes.")
def main(
    minutes: float, kills: int, rate: int, load_only: bool, seed: int, data: Path | None
) -> None:
    folder = data or Path(tempfile.mkdtemp(prefix="headwater-soak-"))
    local = settings_files.load("local", storage=str(folder), runtime=str(folder))
    found = Report(seed=seed, machine=f"{os.cpu_count()} cores, {platform.machine()}")
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    processes = None
    # Whatever happens, the last line is the report: also where whoever started it wants it to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bootstrap = broker.start(local).bootstrap
        there = local.broker.model_copy(update={"bootstrap": bootstrap})
        processes = Processes(local.model_copy(update={"broker": there}), logs)
        soak(processes, local, found, minutes if load_only else minutes * LOAD_SHARE, kills, rate)
    except click.ClickException as error:
        found.error = error.message
    except (Exception, KeyboardInterrupt) as error:
        found.error = f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        if processes is not None:
            processes.kill_all()
        with suppress(AssertionError, ProcessLookupError):
            os.kill(broker_pid(local), signal.SIGCONT)
        broker.stop(local)
    except (Exception, KeyboardInterrupt) as error:
        found.error = found.error or f"{type(error).__name__}: {error}".splitlines()[0]
    if not load_only and not found.error:
        try:
            left = minutes * (1 - LOAD_SHARE)
            told = scenarios(left, minutes >= MINUTES_FOR_EACH, logs / "scenarios.log")
            found.scenarios, found.tests = told["scenarios"], told["tests"]
        except (click.ClickException, KeyboardInterrupt) as error:
            found.error = getattr(error, "message", "interrupted")
    sent = sum(balance["bronze"] for balance in found.balance)
    sound = found.law_holds and not found.exceptions and sent == found.records
    sound = sound and not found.jobs_failed and not found.error
    sound = sound and found.gold_mended == found.publish_mended == 0 and not found.grown
    sound = sound and found.expired == 0
    results = set(found.tests.values())
    sound = sound and not results & {"failed", "skipped"} and (load_only or "passed" in results)
    some = load_only or minutes < MINUTES_FOR_EACH
    sound = sound and (some or set(found.scenarios.values()) == {"passed"})
    struck = sum(count for name, count in found.kills.items() if name not in NO_KILLS)
    sound = sound and struck == kills
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
