"""Spark on one core and on two, catching up with the same loaded topic.

    headwater bench cores [--events 600000] [--rounds 2]

`headwater stream` as a process of its own, kept to so many cores of this machine, and as many tasks
at once; the broker is where it likes, beside it. Each begins at the first record with tables of its
own, a JVM that is not warm, and so the rate is that of the second half of what Silver gets.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import click

from benchmarks import measure
from benchmarks.history import PARTS, rates

if TYPE_CHECKING:
    from lakehouse.settings import Settings


@click.command()
@click.option("--events", default=600_000, show_default=True, help="Records in the topic.")
@click.option("--rounds", default=2, show_default=True, help="Interleaved rounds of each.")
@measure.json_option
def main(events: int, rounds: int, as_json: bool) -> None:
    """Bronze and Silver on one core and on two."""
    from headwater import broker
    from lakehouse import contracts, kafka, settings
    from producer.command import Sending, send_shop

    if (os.cpu_count() or 1) < 2:
        raise click.ClickException("this machine has one core")
    with tempfile.TemporaryDirectory() as folder:
        base = settings.load("local", storage=folder)
        where = base.broker.model_copy(update={"bootstrap": broker.start(base).bootstrap})
        local = base.model_copy(update={"broker": where})
        places = (local.model_copy(update={"storage": f"{folder}/{n}"}) for n in count())
        try:
            loaded = contracts.load(base.contracts_dir)
            kafka.ensure_topics(local, loaded.topics(local.topics.events))
            send_shop(local, Sending(events=events))
            cases = {
                "one core": lambda: on_cores(next(places), 1),
                "two cores": lambda: on_cores(next(places), 2),
            }
            # Every JVM begins cold: there is no round to leave out.
            found = measure.take_turns(cases, rounds, warm=0)
        finally:
            broker.stop(base)
    target = {"two cores": 1.6}
    title = "Catching up, Bronze and Silver"
    notes = {"records": events}
    result = measure.Result(title, "records/s", "one core", found, notes, target)
    measure.show(result, as_json)


def on_cores(place: Settings, cores: int) -> float:
    """Records a second that Silver got in its second half."""
    from tests.helpers import BIN, environment

    plain = {k: v for k, v in environment(place).items() if k != "SPARK_SUBMIT_OPTS"}
    done = subprocess.run(
        [str(BIN / "headwater"), "stream", "bronze", "silver", "--available-now"],
        env=plain | {"SPARK_MASTER": f"local[{cores}]"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(os.sched_setaffinity, 0, range(cores)),
    )
    if done.returncode != 0:
        raise click.ClickException(f"the stream failed on {cores}: {done.stderr[-2000:]}")
    half = rates(place, "silver")[PARTS // 2 :]
    return len(half) / sum(1 / rate for rate in half)


if __name__ == "__main__":
    main()
