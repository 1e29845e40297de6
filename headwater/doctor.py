"""What can be wrong before anything is started, and what to do about it. Looks; changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headwater import status
from lakehouse import arrow, checkpoints, contracts, gaps, kafka, lag, layouts, tables
from lakehouse.errors import HeadwaterError
from lakehouse.gaps import Gap
from lakehouse.kafka import Offsets
from lakehouse.settings import Settings
from streaming import edition

OK, WARNING, ERROR = "ok", "warning", "error"
JDKS = ("17", "21")
# Less than this, and a burst of a day may not fit.
LOW_DISK_BYTES = 5 * 2**30
# As the contracts' own clockTolerance: what is further ahead is quarantined.
CLOCK_SECONDS = 300
# What a reader has to know that takes a table's files as they are, as `status` and this do.
READER_FEATURES = {"timestampNtz"}
# A table of reader version 2 has no list of features: that version is this one.
READER_VERSION_2 = ("columnMapping",)
# What the pinned Delta can write to (its TableFeature.allSupportedFeaturesMap; a test holds this
# against it). A newer writer's feature that is not here ends every write of ours.
_OF_DELTA = """
    adaptiveMetadata-preview allowColumnDefaults appendOnly catalogManaged changeDataFeed
    checkConstraints checkpointProtection clustering columnMapping coordinatedCommits-preview
    deletionVectors domainMetadata generatedColumns geospatial geospatial-dev icebergCompatV1
    icebergCompatV2 icebergCompatV3 identityColumns inCommitTimestamp invariants
    materializePartitionColumns rowTracking timestampNtz typeWidening typeWidening-preview
    v2Checkpoint vacuumProtocolCheck variantShredding variantShredding-preview variantType
    variantType-preview
"""
WRITER_FEATURES = frozenset(_OF_DELTA.split())


# Jobs whose command wants more than their name.
AGAIN = {
    "quarantine": "quarantine replay",
    "replay": "replay --from-offset … (or --from-time)",
    "erase": "erase --subject …",
}


@dataclass(frozen=True)
class Finding:
    """check: what was looked at; state: ok, warning or error; remedy: what to do, empty for ok."""

    check: str
    state: str
    said: str
    remedy: str = ""


Findings = Iterator[Finding]


def examine(settings: Settings, say: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Everything that can be looked at without a JVM, in the order in which things start."""
    found = []
    for name, check in CHECKS.items():
        say(name)
        try:
            found += list(check(settings))
        except HeadwaterError as error:
            found.append(Finding(name, ERROR, str(error), "as it says"))
        except Exception as error:
            # A file that cannot be read is a finding, and no reason to look no further.
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            found.append(Finding(name, ERROR, said, "restore what it names, or rebuild the table"))
    return found


def environment(_settings: Settings) -> Findings:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("environment", OK, f"Python {version}")
    # The one that Spark and the broker take.
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        yield Finding("environment", ERROR, f"no java {where}", "install a JDK 17 or 21")
        return
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    told = re.search(r'version "(\d+)', done.stderr)
    jdk = told[1] if told else "?"
    if jdk in JDKS:
        yield Finding("environment", OK, f"JDK {jdk} ({java})")
    else:
        yield Finding(
            "environment", ERROR, f"java is version {jdk} ({java})", "put a JDK 17 or 21 first"
        )
    import pyspark

    jars = Path(pyspark.__file__).parent / "jars"
    for wanted in ("delta-spark", "spark-sql-kafka"):
        if any(jars.glob(f"{wanted}*.jar")):
            yield Finding("environment", OK, f"{wanted} is among Spark's jars")
        else:
            yield Finding("environment", ERROR, f"no {wanted} jar in {jars}", "run `make setup`")


def contract_files(settings: Settings) -> Findings:
    found, findings = contracts.check(settings.contracts_dir)
    _, more = layouts.check(settings.contracts_dir, found)
    for finding in [*findings, *more]:
        yield Finding("contracts", ERROR, str(finding), "correct that line")
    if not findings and not more:
        yield Finding("contracts", OK, f"{len(found)} contracts in {settings.contracts_dir}")


def storage(settings: Settings) -> Findings:
    used = (settings.storage, str(settings.runtime_dir), settings.checkpoints)
    disks: set[int] = set()
    temporary = settings.spark.get("spark.local.dir") or tempfile.gettempdir()
    for folder in dict.fromkeys((*used, temporary)):
        if "://" in folder:
            yield Finding("storage", OK, f"{folder}: not a folder of this machine, not looked at")
            continue
        nearest = next(p for p in (Path(folder), *Path(folder).parents) if p.exists())
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            yield Finding(
                "storage",
                ERROR,
                f"{nearest} cannot be written to: {error.strerror}",
                "correct its permissions, or give another folder with --data",
            )
            continue
        if (device := nearest.stat().st_dev) in disks:
            continue
        disks.add(device)
        free = shutil.disk_usage(nearest).free
        said = f"{folder}: {free / 2**30:.1f} GiB free"
        if free < LOW_DISK_BYTES:
            yield Finding("storage", WARNING, said, "free space, or run `headwater maintain`")
        else:
            yield Finding("storage", OK, said)


def broker(settings: Settings) -> Findings:
    topics = contracts.load(settings.contracts_dir).topics(settings.topics.events)
    ends = kafka.end_offsets(settings, topics)
    where, read = kafka.bootstrap(settings), _read(settings)
    for topic in topics:
        partitions = [end for (name, _), end in ends.items() if name == topic]
        if partitions:
            held = f"{len(partitions)} partitions up to {sum(partitions):,} records"
            yield Finding("broker", OK, f"{where}: topic {topic}, {held}")
        elif topic in read:
            yield Finding(
                "broker",
                ERROR,
                f"{where}: topic {topic}, which was read before, is not there any more",
                "if that is another broker, correct the address; else use another name for the new "
                "topic (topics.events), or another data folder",
            )
        elif settings.broker.create_topics:
            yield Finding("broker", OK, f"{where}: topic {topic} will be made by the first start")
        else:
            yield Finding("broker", ERROR, f"{where}: no topic {topic}", "make it there")
    newest = sorted(kafka.newest_timestamps(settings, topics).items())
    now = time.time()
    last = max((at for _, at in newest), default=None)
    if last is None:
        yield Finding("clock", OK, "no record yet to hold this machine's clock against")
    elif last / 1000 - now <= CLOCK_SECONDS:
        # A clock that is behind shows below: records that were just sent are in its future. One
        # that is ahead makes them look old, as a shop that is closed does: hence the age.
        age = f"{now - last / 1000:,.0f} s old by this machine's clock"
        yield Finding("clock", OK, f"the newest record is {age}")
    for (topic, partition), at in newest:
        ahead = at / 1000 - now
        if ahead > CLOCK_SECONDS:
            yield Finding(
                "clock",
                ERROR,
                f"topic {topic} partition {partition} has a record of {ahead:,.0f} s in the future",
                "set the clock of this machine, or of who sends",
            )


def _read(settings: Settings) -> set[str]:
    """The topics that a query has read of."""
    found: set[str] = set()
    for query in checkpoints.QUERIES:
        with suppress(HeadwaterError):  # told by the checkpoint's own check
            files = checkpoints.ArrowFiles(settings, query)
            found |= {topic for topic, _ in checkpoints.position(files)}
    return found


def streams(settings: Settings) -> Findings:
    topics = contracts.load(settings.contracts_dir).topics(settings.topics.events)
    try:
        begins, ends = kafka.begin_offsets(settings, topics), kafka.end_offsets(settings, topics)
    except HeadwaterError:
        begins, ends = {}, {}  # told by the broker's own check
    yield from _made_anew(settings, topics)
    for query in checkpoints.QUERIES:
        files = checkpoints.ArrowFiles(settings, query)
        try:
            position = checkpoints.position(files)
            _demand_newest(settings, query, files)
            if edition.begun(files) is not None:
                edition.newest(files)
        except HeadwaterError as error:
            yield Finding("checkpoints", ERROR, str(error), "as it says")
            continue
        if not position:
            yield Finding("checkpoints", OK, f"{query} has not begun")
            continue
        for topic in sorted({topic for topic, _ in position} - set(topics)):
            said = f"topic {topic} is in checkpoint {files.root}, but in no contract of"
            remedy = "give the folder that has it (--contracts)"
            yield Finding("checkpoints", ERROR, f"{said} {settings.contracts_dir}", remedy)
        expired, short = gaps.ahead(dict.fromkeys(begins, 0) | position, begins, ends)
        # What Bronze does not have either, Silver goes on after without being told to.
        known = [gap for one in {query, "bronze"} for gap in _accepted(settings, one)]
        written = checkpoints.written_ahead(files, _batch_of(settings, query, files)[1])
        known += [Gap(*key, 0, end) for key, end in written.items()]
        expired = gaps.without(expired, known)
        for gap in expired:
            yield Finding(
                "checkpoints",
                ERROR,
                f"{query}: {gap} expired before they were read",
                "`headwater stream --accept-gap`, unless another copy of the topic has them",
            )
        for line in short:
            yield Finding(
                "checkpoints",
                ERROR,
                f"{query}: {line}",
                "use another name for the new topic (topics.events), or another data folder",
            )
        if not expired and not short:
            yield from _urgent(settings, query, position, ends)
        yield from _held(settings, query, files)
        if not expired and not short:
            yield Finding("checkpoints", OK, f"{query} has committed {sum(position.values()):,}")


def _made_anew(settings: Settings, topics: list[str]) -> Findings:
    """Topics that are others than Bronze was written from."""
    delta = arrow.open_table(settings, tables.bronze())
    if delta is None:
        return
    try:
        ids = kafka.topic_ids(settings, topics)
    except HeadwaterError:
        return  # told by the broker's own check
    for line in tables.made_anew(tables.topics_of(delta.metadata().configuration), ids):
        said, _, remedy = line.partition("; ")
        yield Finding("checkpoints", ERROR, f"bronze.events: {said}", remedy)


def _demand_newest(settings: Settings, query: str, files: checkpoints.Files) -> None:
    """Raises CheckpointError where the query's table is ahead of its checkpoint."""
    table, held = _batch_of(settings, query, files)
    checkpoints.demand_newest(files, table, held)


def _batch_of(settings: Settings, query: str, files: checkpoints.Files) -> tuple[str, int | None]:
    """The full name of a query's table, and the number of the last batch of its that this has."""
    table = _table_of(settings, query)
    ident, delta = checkpoints.query_id(files), arrow.open_table(settings, table)
    if ident is None or delta is None:
        return table.full_name, None
    return table.full_name, delta.transaction_version(
        checkpoints.application(table.full_name, ident)
    )


def _table_of(settings: Settings, query: str) -> tables.Table:
    loaded = contracts.load(settings.contracts_dir)
    return {"bronze": tables.bronze(), "silver": tables.silver(loaded)}[query]


def _urgent(settings: Settings, query: str, position: Offsets, ends: Offsets) -> Findings:
    """What the broker lets go of before long, and was not read."""
    for one in lag.unread(settings, position, ends):
        if one.share >= lag.EARLY:
            yield Finding(
                "lag",
                ERROR if one.share >= lag.LATE else WARNING,
                f"{query}: {one}",
                "start `headwater stream`, let it read more at once "
                "(stream.max_offsets_per_trigger), or have the topic keep its records for longer",
            )
        elif one.kept is None and one.age > lag.LONG_SECONDS:
            yield Finding(
                "lag",
                WARNING,
                f"{query}: {one}",
                "set topics.retention_hours (HEADWATER_TOPICS__RETENTION_HOURS), so that it can "
                "be said when that is about to be lost",
            )


def _held(settings: Settings, query: str, files: checkpoints.Files) -> Findings:
    """A checkpoint against its table: what was committed is there, and nothing that was not read.

    Of Bronze coordinates tell what is missing. Silver has no row of a duplicate: there its batches
    tell an old copy, and only the audit whether a row is gone. A table that was made anew has none
    of its query's batches.
    """
    # Before the table: a stream may be writing.
    batch, committed = checkpoints.newest_commit(files), checkpoints.committed(files)
    name, held = _batch_of(settings, query, files)
    if query == "bronze":
        anew = "have the broker fill it: `headwater replay --bronze --from-offset 0`"
    else:
        anew = "judge all of Bronze anew: `headwater replay --from-offset 0`"
    remedy = f"put {name}'s files back, or {anew}"
    if batch is not None and arrow.open_table(settings, _table_of(settings, query)) is None:
        records = f"{sum(committed.values()):,} records"
        said = f"{query} has committed {records}, and there is no table {name}"
        yield Finding("checkpoints", ERROR, said, remedy)
        return
    highest: dict[tuple[str, int], int] = {}
    columns = ["topic", "partition", "offset"]
    for rows in arrow.rows(settings, _table_of(settings, query), columns):
        grouped = rows.group_by(["topic", "partition"], use_threads=False)
        for row in grouped.aggregate([("offset", "max")]).to_pylist():
            key = row["topic"], row["partition"]
            highest[key] = max(highest.get(key, -1), row["offset_max"])
    if query == "bronze":
        for gap in _missing(settings, committed, highest):
            said = (
                f"topic {gap.topic} partition {gap.partition} up to offset {gap.end - 1}, and "
                f"{name} ends at {highest.get((gap.topic, gap.partition), 'none')}"
            )
            yield Finding("checkpoints", ERROR, f"{query} has committed {said}", remedy)
    elif batch is not None and held is not None and held < batch:
        said = f"{query} has committed batch {batch}, and {name} has its batches up to {held}"
        yield Finding("checkpoints", ERROR, said, remedy)
    # After the table, for the same reason.
    planned = checkpoints.planned(files)
    for (topic, partition), last in sorted(highest.items()):
        if last >= planned.get((topic, partition), last + 1):
            yield Finding(
                "checkpoints",
                ERROR,
                f"{name} has offset {last} of topic {topic} partition {partition}, and its "
                f"checkpoint has planned up to {planned[topic, partition] - 1}: it is another "
                "table's, or an old copy",
                checkpoints.remedy(files.root),
            )


def _missing(
    settings: Settings, committed: Offsets, highest: dict[tuple[str, int], int]
) -> list[Gap]:
    """What Bronze has committed and lacks at its end, by partition. Offsets of which the broker
    says that they hold no record are not missing."""
    # After the table: maintenance writes down what it removes before it does.
    known = _accepted(settings, "bronze")
    found = []
    for (topic, partition), end in sorted(committed.items()):
        begin = gaps.passed(highest.get((topic, partition), -1) + 1, topic, partition, known)
        if end > begin:
            found.append(Gap(topic, partition, begin, end))
    try:
        return gaps.without(found, gaps.vacant(settings, found)) if found else []
    except HeadwaterError:
        return found  # that the broker does not answer is told by its own check


def _accepted(settings: Settings, query: str) -> list[Gap]:
    columns = ["query", "topic", "partition", "begin", "end"]
    parts = arrow.rows(settings, tables.gaps(), columns)
    rows = [row for part in parts for row in part.to_pylist() if row.pop("query") == query]
    return [Gap(**row) for row in rows]


def table_logs(settings: Settings) -> Findings:
    loaded = contracts.load(settings.contracts_dir)
    plain = 0
    for table in tables.all_tables(loaded, layouts.load(settings.contracts_dir, loaded)):
        delta = arrow.open_table(settings, table)
        if delta is None:
            continue
        protocol = delta.protocol()
        asked = protocol.reader_features or READER_VERSION_2[: protocol.min_reader_version - 1]
        of_readers = sorted(set(asked) - READER_FEATURES)
        of_writers = sorted(set(protocol.writer_features or ()) - WRITER_FEATURES)
        if of_writers:
            yield Finding(
                "tables",
                ERROR,
                f"{table.full_name} asks of its writers {', '.join(of_writers)}, which this "
                "version's Delta does not know",
                "a newer Headwater or runtime, or `ALTER TABLE … DROP FEATURE` by its writer",
            )
        elif of_readers:
            yield Finding(
                "tables",
                WARNING,
                f"{table.full_name} asks of its readers {', '.join(of_readers)}",
                "`ALTER TABLE … DROP FEATURE` where readers other than Spark have to follow",
            )
        else:
            plain += 1
    yield Finding("tables", OK, f"{plain} tables can be read without Spark")


def jobs(settings: Settings) -> Findings:
    for job in status.jobs(settings):
        if job["result"] == "succeeded":
            yield Finding("jobs", OK, f"{job['job']} succeeded at {job['ended_at'][:19]}")
        else:
            yield Finding(
                "jobs",
                ERROR,
                f"{job['job']} failed at {job['ended_at'][:19]}: {job['details']}",
                f"put that right and run `headwater {AGAIN.get(job['job'], job['job'])}` again",
            )


CHECKS: dict[str, Callable[[Settings], Findings]] = {
    "environment": environment,
    "contracts": contract_files,
    "storage": storage,
    "broker": broker,
    "checkpoints": streams,
    "tables": table_logs,
    "jobs": jobs,
}
