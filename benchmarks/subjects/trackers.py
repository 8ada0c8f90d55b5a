"""Other trackers, all of them in memory: `python -m … <name>`.

Each is given what helps it: a queue that holds every event, and batches of 500 where it takes them.
`put` is the call alone, with the sending thread at rest; `deliver` is everything up to the last
acknowledgement.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any, Protocol

from benchmarks.event import PURCHASE, TYPE, departures
from benchmarks.process import serve

BATCH = 500


class Tracker(Protocol):
    """One client of a library."""

    def track(self, event_type: str, properties: dict[str, Any], device: str) -> Any:
        """One event."""

    def flush(self) -> Any:
        """Returns when all were sent."""


class Segment:
    """segment-analytics-python; RudderStack's has the same form."""

    library = "segment.analytics.client"

    def __init__(self, endpoint: str, room: int, *, sends: bool) -> None:
        module = __import__(self.library, fromlist=["Client"])
        self._client = module.Client(
            "key",
            host=endpoint,
            max_queue_size=room,
            upload_size=BATCH,
            upload_interval=0.01,
            send=sends,
            gzip=False,
        )
        self._client.send = True  # without a thread, if it was not so before

    def track(self, event_type: str, properties: dict[str, Any], device: str) -> Any:
        """One event."""
        return self._client.track(device, event_type, properties)

    def flush(self) -> None:
        """Returns when all were sent."""
        self._client.flush()


class RudderStack(Segment):
    """rudder-sdk-python."""

    library = "rudderstack.analytics.client"


class PostHog:
    """posthog."""

    def __init__(self, endpoint: str, room: int, *, sends: bool) -> None:
        from posthog import Posthog

        self._client = Posthog(
            "key",
            host=endpoint,
            max_queue_size=room,
            flush_at=BATCH if sends else room,
            flush_interval=0.5 if sends else 3600,
            gzip=False,
        )

    def track(self, event_type: str, properties: dict[str, Any], device: str) -> Any:
        """One event."""
        return self._client.capture(event_type, distinct_id=device, properties=properties)

    def flush(self) -> None:
        """Returns when all were sent."""
        self._client.flush()


class Amplitude:
    """amplitude-analytics."""

    def __init__(self, endpoint: str, room: int, *, sends: bool) -> None:
        from amplitude import (
            Amplitude as Library,
        )
        from amplitude import BaseEvent, Config

        self._event = BaseEvent
        self._client = Library(
            "key",
            Config(
                server_url=f"{endpoint}/batch",
                flush_queue_size=BATCH if sends else room,
                flush_interval_millis=500 if sends else 3_600_000,
            ),
        )

    def track(self, event_type: str, properties: dict[str, Any], device: str) -> Any:
        """One event."""
        return self._client.track(
            self._event(event_type, device_id=device, event_properties=properties)
        )

    def flush(self) -> None:
        """Returns when all were sent."""
        for future in self._client.flush():
            if future is not None:
                future.result()


class Snowplow:
    """snowplow-tracker with its asynchronous emitter."""

    batch = BATCH

    def __init__(self, endpoint: str, room: int, *, sends: bool) -> None:
        from snowplow_tracker import (
            AsyncEmitter,
            SelfDescribing,
            SelfDescribingJson,
            Tracker,
        )

        self._event, self._json = SelfDescribing, SelfDescribingJson
        emitter = AsyncEmitter(
            endpoint, batch_size=self.batch if sends else room, buffer_capacity=room
        )
        self._tracker = Tracker("bench", emitters=emitter, encode_base64=False)

    def track(self, event_type: str, properties: dict[str, Any], device: str) -> Any:  # noqa: ARG002
        """One event."""
        return self._tracker.track(
            self._event(self._json(f"iglu:bench/{event_type}/jsonschema/1-0-0", properties))
        )

    def flush(self) -> None:
        """Returns when all were sent."""
        self._tracker.flush()


class SnowplowAsItComes(Snowplow):
    """The same with its own size of a batch."""

    batch = 10


class Mixpanel:
    """Mixpanel with its buffered consumer, which sends 50 at a time inside `track`."""

    def __init__(self, endpoint: str, room: int, *, sends: bool) -> None:  # noqa: ARG002
        from mixpanel import (
            BufferedConsumer,
        )
        from mixpanel import (
            Mixpanel as Library,
        )

        self._consumer = BufferedConsumer(max_size=50, events_url=f"{endpoint}/track")
        self._client = Library("token", consumer=self._consumer)

    def track(self, event_type: str, properties: dict[str, Any], device: str) -> Any:
        """One event."""
        return self._client.track(device, event_type, properties)

    def flush(self) -> None:
        """Returns when all were sent."""
        self._consumer.flush()


TRACKERS: dict[str, Any] = {
    "segment": Segment,
    "rudderstack": RudderStack,
    "posthog": PostHog,
    "amplitude": Amplitude,
    "snowplow": Snowplow,
    "snowplow, 10 a batch": SnowplowAsItComes,
    "mixpanel": Mixpanel,
}


def run(name: str) -> None:
    """Answers until the parent ends it."""
    logging.disable(logging.CRITICAL)  # they tell the terminal about every request
    events: list[dict[str, Any]] = []

    def put(count: int, endpoint: str) -> float:
        # A new client each time: nobody empties its queue.
        tracker = TRACKERS[name](endpoint, count + 1, sends=False)
        track = tracker.track
        started = time.perf_counter()
        for _ in range(count):
            track(TYPE, PURCHASE, "u-42")
        return time.perf_counter() - started

    def deliver(count: int, endpoint: str) -> float:
        if len(events) != count:
            events[:] = departures(count)
        tracker = TRACKERS[name](endpoint, count + 1, sends=True)
        started = time.perf_counter()
        for event in events:
            tracker.track(event["event_type"], event["properties"], event["device_id"])
        tracker.flush()
        return time.perf_counter() - started

    serve({"put": put, "deliver": deliver})


if __name__ == "__main__":
    run(sys.argv[1])
    sys.stdout.flush()
    # Some of them wait at exit for a thread that has nothing to do.
    os._exit(0)
