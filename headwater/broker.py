"""The embedded broker: a real single-node Kafka in KRaft mode, as a child process.

All of it is under RUNTIME/broker: broker.json (what runs, and the ports that are kept from start to
start), server.properties, broker.log, log/ (Kafka's own data).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lakehouse.errors import BrokerError
from lakehouse.locks import BROKER, held
from lakehouse.settings import Settings

START_SECONDS = 60
STOP_SECONDS = 45
FREED_SECONDS = 5
HEAP = "512m"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={log_dir}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
# Larger than any contract accepts: what is too large is quarantined, not refused at the door.
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
log.retention.hours=168
"""
LOG4J = """\
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %c{1}: %m%n
"""


@dataclass(frozen=True)
class State:
    """What broker.json holds. started: the process's own start time, which tells a reused pid."""

    pid: int
    started: float
    port: int
    controller_port: int


@dataclass(frozen=True)
class Status:
    running: bool
    bootstrap: str | None
    pid: int | None
    folder: str


def status(settings: Settings) -> Status:
    """Whether the broker of this runtime folder runs, and where."""
    folder = _folder(settings)
    state = _read(folder)
    if state is None or not _alive(state):
        return Status(False, None, None, str(folder))
    return Status(True, f"127.0.0.1:{state.port}", state.pid, str(folder))


def start(settings: Settings) -> Status:
    """Starts the broker, or finds it running. Raises BrokerError, with the end of its log."""
    folder = _folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(settings, BROKER, f"the broker in {folder}"):
            return _start(settings, folder)
    except OSError as error:
        raise BrokerError(f"cannot write to {folder}: {error.strerror}") from None


def _start(settings: Settings, folder: Path) -> Status:
    last = _read(folder)
    if last is not None and _alive(last):
        return status(settings)
    jars = Path(sys.prefix) / "broker"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise BrokerError(f"no java {where}: install a JDK 17 or 21")
    if not any(jars.glob("kafka_*.jar")):
        raise BrokerError(f"no Kafka jars in {jars}: run `make setup`")
    port = last.port if last and _freed(last.port) else _free_port()
    controller = (
        last.controller_port if last and _freed(last.controller_port) else _free_port(besides=port)
    )
    log_dir = folder / "log"
    config = folder / "server.properties"
    place = _in_properties(log_dir.as_posix())
    config.write_text(PROPERTIES.format(port=port, controller_port=controller, log_dir=place))
    log4j = folder / "log4j2.properties"
    log4j.write_text(LOG4J)
    # Without the optimising compiler, which would take a core from Spark when both have just begun.
    options = [f"-Xmx{HEAP}", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={log4j}"]
    # Half the time to start (scripts/class_archives.py); a JVM goes without where there is none.
    archive = os.environ.get("CLASS_ARCHIVE", f"-XX:SharedArchiveFile={jars / 'classes.jsa'}")
    options += [archive, "-Xlog:disable", "-Xlog:all=error:stderr"]
    command = [java, *options, "-cp", f"{jars}/*"]
    log_file = folder / "broker.log"
    if not (log_dir / "meta.properties").exists():
        _format(command, config, log_file)
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [*command, "kafka.Kafka", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A group of its own: Ctrl-C is for whoever started it, not for the broker.
            start_new_session=True,
        )
    started = psutil.Process(process.pid).create_time()
    state = State(process.pid, started, port, controller)
    try:
        (folder / "broker.json").write_text(json.dumps(asdict(state)))
    except OSError:
        # Nobody would know of it.
        process.kill()
        raise
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if process.poll() is not None:
            raise BrokerError(f"the broker ended while it started: {_last_line(log_file)}")
        if time.monotonic() > deadline:
            process.terminate()
            raise BrokerError(
                f"the broker did not answer on port {port} within {START_SECONDS} s: see {log_file}"
            )
        time.sleep(0.1)
    return status(settings)


def stop(settings: Settings) -> bool:
    """Stops the broker and waits until it is gone; False if none ran. Raises BrokerError."""
    folder = _folder(settings)
    state = _read(folder)
    if state is None or not _alive(state):
        return False
    process = psutil.Process(state.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        raise BrokerError(
            f"the broker (process {state.pid}) did not end within {STOP_SECONDS} s: "
            f"see {folder / 'broker.log'}"
        ) from None
    return True


def _in_properties(path: str) -> str:
    """A path as a properties file has it, which is Latin-1 with escapes. Raises BrokerError."""
    if "," in path:
        raise BrokerError(
            f"the broker cannot keep its data in {path}: Kafka takes a comma for the end of a "
            "folder's name: choose another data folder (--data)"
        )
    units = path.encode("utf-16-be")
    signs = (units[i] << 8 | units[i + 1] for i in range(0, len(units), 2))
    return "".join(
        "\\\\" if sign == ord("\\") else chr(sign) if 32 <= sign < 127 else f"\\u{sign:04x}"
        for sign in signs
    )


def _folder(settings: Settings) -> Path:
    return settings.runtime_dir.resolve() / "broker"


def _read(folder: Path) -> State | None:
    try:
        state = State(**json.loads((folder / "broker.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    kinds = {"pid": int, "started": int | float, "port": int, "controller_port": int}
    right = all(isinstance(getattr(state, name), kind) for name, kind in kinds.items())
    return state if right and state.pid > 0 else None


def _alive(state: State) -> bool:
    """Whether the process is the one that was started, not another with its number."""
    try:
        process = psutil.Process(state.pid)
        same = abs(process.create_time() - state.started) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OverflowError):
        return False


def _format(command: list[str], config: Path, log_file: Path) -> None:
    cluster = "headwater-local-broker"  # 22 characters, as a Kafka cluster id has
    done = subprocess.run(
        [*command, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    with log_file.open("a") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode != 0:
        raise BrokerError(f"the broker's storage could not be made: {_last_line(log_file)}")


def _answers(port: int) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2):
            pass
    except OSError:
        return False
    try:
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _freed(port: int) -> bool:
    """Whether the last broker's port is free, or becomes so: a killed one holds it for a moment.

    Whoever is connected to the broker would not find it at another one.
    """
    deadline = time.monotonic() + FREED_SECONDS
    while not _free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _free_port(besides: int = 0) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port != besides:
            return port


def _last_line(log_file: Path) -> str:
    """The last line that says what went wrong: a stack trace's own lines do not."""
    lines = [line.strip() for line in log_file.read_text(errors="replace").splitlines()]
    telling = [line for line in lines if line and not line.startswith("at ")]
    return f"{telling[-1][:300]} (see {log_file})" if telling else f"see {log_file}"
