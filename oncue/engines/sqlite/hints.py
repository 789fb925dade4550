"""Hints inside one process: who listens to what, told from any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from oncue.engine import TOPIC_ALL, topic_job

__all__ = ["HintSubscription", "Hub"]


class HintSubscription:
    """A listener on one event loop; see `oncue.engine.Subscription`."""

    def __init__(self, hub: Hub, topics: tuple[str, ...]) -> None:
        self._hub = hub
        self.topics = topics
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._told = False
        self._closed = False

    def tell(self) -> None:
        """Wake the listener; from any thread."""
        if self._told:
            return  # already on its way: many changes, one wake-up
        self._told = True
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:  # its loop is closed: nobody listens any more
            self.close()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for a hint; see `oncue.engine.Subscription.wait`."""
        if not self._event.is_set() and not self._closed:
            if timeout is not None and timeout <= 0:
                return False
            try:
                async with asyncio.timeout(timeout):
                    await self._event.wait()
            except TimeoutError:
                return False
        self._told = False  # first: what is told from here on sets the event again
        self._event.clear()
        return not self._closed

    def close(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._closed = True
            self._hub.drop(self)
            self._told = False
            self.tell()


class Hub:
    """The listeners of one store in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_topic: dict[str, set[HintSubscription]] = {}
        self._job_topics = 0

    @property
    def listening(self) -> bool:
        """Whether anybody listens to anything."""
        return bool(self._by_topic)

    def subscribe(self, topics: tuple[str, ...]) -> HintSubscription:
        """Add a listener, on the running event loop."""
        subscription = HintSubscription(self, topics)
        with self._lock:
            for topic in topics:
                self._by_topic.setdefault(topic, set()).add(subscription)
                self._job_topics += topic.startswith("job:")
        return subscription

    def drop(self, subscription: HintSubscription) -> None:
        """Remove a listener."""
        with self._lock:
            for topic in subscription.topics:
                listeners = self._by_topic.get(topic, set())
                if subscription in listeners:
                    listeners.discard(subscription)
                    self._job_topics -= topic.startswith("job:")
                if not listeners:
                    self._by_topic.pop(topic, None)

    def publish(self, topics: Iterable[str], jobs: Iterable[str]) -> None:
        """Wake the listeners of some topics and of some jobs, and those of everything."""
        if not self._by_topic:
            return
        with self._lock:
            told = set(self._by_topic.get(TOPIC_ALL, ()))
            for topic in topics:
                told |= self._by_topic.get(topic, set())
            if self._job_topics:
                for job in jobs:
                    told |= self._by_topic.get(topic_job(job), set())
        for subscription in told:
            subscription.tell()

    def publish_all(self) -> None:
        """Wake every listener: another process changed something."""
        with self._lock:
            told = set().union(*self._by_topic.values())
        for subscription in told:
            subscription.tell()
