"""Waiting for other writers: the one way in which a commit is tried again."""

from __future__ import annotations

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)


def attempts(times: int, *errors: type[Exception]) -> Retrying:
    """Calls a function up to so many times while it raises one of these; the last is let through.

    The pauses are random, up to 5 s: a stream commits every few seconds, and is not met in step.
    """
    return Retrying(
        retry=retry_if_exception_type(errors),
        stop=stop_after_attempt(times),
        wait=wait_random_exponential(multiplier=0.5, max=5),
        reraise=True,
    )
