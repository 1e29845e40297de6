"""What a scheduler's task runs: `headwater`, with settings in front of its words.

    headwater-job HEADWATER_STORAGE=URI HEADWATER_CHECKPOINT_ROOT=FOLDER gold --env azure

On serverless compute there are no environment variables to set, and on a cluster all tasks share
them: so what is one task's alone stands in front, as with env(1).
"""

from __future__ import annotations

import os
import re
import sys

from headwater.cli import cli
from lakehouse.command import run

SETTING = re.compile(r"(HEADWATER_\w+)=(.*)", re.DOTALL)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command of `arguments`, sys.argv's where left out.

    Returns where it went well: Databricks takes an exit for a failure, whatever its code. Raises
    SystemExit with the command's code where it did not.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    while words and (found := SETTING.fullmatch(words[0])):
        os.environ[found[1]] = found[2]
        del words[0]
    try:
        run(cli, words)
    except SystemExit as ended:
        if ended.code:
            raise
