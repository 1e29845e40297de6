"""What Silver's state holds, as Spark's own reader of it has it.

    python -m tests.faults.state

Its last line is JSON: keys, how many there are; expired, how many of them are older than the
watermark of the newest batch, which were to be gone. The data folder is that of the environment.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse import settings as settings_files
from lakehouse.session import spark as make_session
from lakehouse.settings import Settings


def keys(spark: SparkSession, settings: Settings) -> dict[str, int]:
    checkpoint = Path(settings.checkpoints) / "silver"
    commits = [int(file.name) for file in (checkpoint / "commits").glob("[0-9]*")]
    if not commits:
        # A new one that has had nothing to read.
        return {"keys": 0, "expired": 0}
    newest = max(commits)
    about = (checkpoint / "offsets" / str(newest)).read_text().splitlines()[1]
    watermark = json.loads(about)["batchWatermarkMs"] * 1000
    # The reader wants what only a stream, or who asks for them, has started.
    assert spark.streams.active == []
    state = spark.read.format("statestore").load(str(checkpoint))
    expired = F.count_if(F.col("value.expiresAtMicros") < watermark)
    [found] = state.agg(F.count("*").alias("keys"), expired.alias("expired")).collect()
    return {"keys": found["keys"], "expired": found["expired"]}


if __name__ == "__main__":
    house = settings_files.load("local")
    click.echo(json.dumps(keys(make_session(house, "state"), house)))
