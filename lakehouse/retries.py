"""Waiting for other writers: the one way in which a commit is tried again."""

from __future__ import annotations

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)


def attempts(times: int, error: type[Exception]) -> Retrying:
    """Calls a function up to so many times while it raises `error`; the last one is let through.

    The pauses are random, up to 5 s: a stream commits every few seconds, and is not met in step.
    """
    return Retrying(
        retry=retry_if_exception_type(error),
        stop=stop_after_attempt(times),
        wait=wait_random_exponential(multiplier=0.5, max=5),
        reraise=True,
    )
