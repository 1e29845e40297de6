"""Whether the topics are still those that the streams began with."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from lakehouse import kafka
from lakehouse.errors import BrokerError, StreamError
from lakehouse.settings import Settings

EVERY_SECONDS = 30.0


class TopicWatch:
    """Asks the broker for the topics' ids now and then, beside whoever calls `check`.

    A topic that is deleted and made anew begins at offset 0 again. Once it is longer than what was
    read of the old one, a stream would read on from there, and nobody would miss what is before.
    """

    def __init__(self, settings: Settings, topics: list[str]) -> None:
        self._settings, self._topics = settings, topics
        self._ids: dict[str, str] = {}
        with suppress(BrokerError):  # which the streams meet themselves
            self._ids = kafka.topic_ids(settings, topics)
        self._asking: Future[dict[str, str]] | None = None
        self._due = time.monotonic() + EVERY_SECONDS
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="topics")

    def check(self) -> None:
        """Raises StreamError where a topic is another one now. Does not wait for the broker."""
        if self._asking is None:
            if time.monotonic() >= self._due:
                self._asking = self._thread.submit(kafka.topic_ids, self._settings, self._topics)
            return
        if not self._asking.done():
            return
        asked, self._asking = self._asking, None
        self._due = time.monotonic() + EVERY_SECONDS
        try:
            now = asked.result()
        except BrokerError:
            return
        # What was not there, or could not be asked for, when the streams began.
        self._ids = now | self._ids
        for topic, ident in self._ids.items():
            if now.get(topic, ident) != ident:
                raise StreamError(
                    f"topic {topic} was deleted and made anew while it was read (id {ident} then, "
                    f"{now[topic]} now): its offsets begin again; what the old one held and was "
                    "not read is gone, and of the new one nothing may be taken for it: give the "
                    "new topic another name (topics.events), or use another data folder (--data)"
                )

    def close(self) -> None:
        """Asks no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
