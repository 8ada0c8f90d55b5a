"""Takes events from a source to where they go, a chunk at a time, and counts how far it came.

Neighbours: `event_source` gives chunks; `track`, `send` and `queue import` say where they go.
Invariant: `line` is a promise: every good event up to it has been taken, none after it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from causality_sdk.cli.event_source import Entry, Source
from causality_sdk.cli.exits import INVALID, UNREADABLE, CommandError
from causality_sdk.cli.output import Output, count
from causality_sdk.cli.progress import Progress
from causality_sdk.errors import EventError, QueueFull
from causality_sdk.event import Encoder, Event

Put = Callable[[list[Event]], object]
"""Takes all of these events or raises: `EventError` for one of them, `QueueFull`, anything else."""
Check = Callable[[Event], None]
"""Raises `EventError` for an event that this command does not take."""


class Feed:
    """One run through one source."""

    def __init__(
        self,
        put: Put,
        encoder: Encoder,
        out: Output,
        *,
        skip: bool,
        verb: str = "queued",
        make_room: Callable[[QueueFull], None] | None = None,
        check: Check | None = None,
    ) -> None:
        """`make_room` is called at the cap, for a queue that refuses; it raises if it cannot."""
        self._put = put
        self._encoder = encoder
        self._out = out
        self._skip = skip
        self._verb = verb
        self._make_room = make_room
        self._check = check
        self.taken = 0
        self.skipped = 0
        self.line = 0
        self._unit = "line"
        self._name = ""

    def run(self, source: Source) -> None:
        """Until the end of the source. Raises `ClickException` and what `put` raises."""
        self._name = source.name
        shown = self._out.shows_progress and source.is_stream
        with Progress(self._verb, source.length, shown=shown) as progress:
            for chunk in source.chunks():
                self._unit = source.unit
                self._take_chunk(chunk)
                progress.at(source.bytes_read, self.taken)
                if source.is_stream and self._out.as_json:
                    self._out.json_line({"kind": "progress", **self.facts()})

    def facts(self) -> dict[str, Any]:
        """For the summary."""
        return {self._verb: self.taken, "skipped": self.skipped, "line": self.line}

    def so_far(self) -> str:
        """For messages: how far it came."""
        if not self.line:
            return f"nothing was {self._verb}"
        return f"{count(self.taken)} up to {self._unit} {self.line} {self._verb}"

    # ------------------------------------------------------------------ inside

    def _take_chunk(self, chunk: Sequence[Entry]) -> None:
        good: list[Entry] = []
        for entry in chunk:
            error = entry.error or self._complaint(entry)
            if error is None:
                good.append(entry)
                continue
            if not self._skip:
                self._take(good)
                raise self._bad(entry, error)
            self._skipped(entry, error)
        self._take(good)
        self.line = chunk[-1].number

    def _complaint(self, entry: Entry) -> EventError | None:
        if self._check is not None and entry.event is not None:
            try:
                self._check(entry.event)
            except EventError as error:
                return error
        return None

    def _take(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        try:
            self._put([entry.event for entry in entries if entry.event is not None])
        except EventError:
            # Rare, so that finding out which one it is may cost encoding them a second time.
            self._sort_out(entries)
            return
        except QueueFull as full:
            if self._make_room is None:
                raise
            # Halves, down to one event: the queue is filled to its last place.
            if len(entries) > 1:
                self._take(entries[: len(entries) // 2])
                self._take(entries[len(entries) // 2 :])
            else:
                self._make_room(full)
                self._take(entries)
            return
        self.taken += len(entries)
        self.line = entries[-1].number

    def _sort_out(self, entries: Sequence[Entry]) -> None:
        good: list[Entry] = []
        for entry in entries:
            if entry.event is None:
                continue
            try:
                self._encoder.encode_event(entry.event)
            except EventError as error:
                if not self._skip:
                    self._take(good)
                    raise self._bad(entry, error) from error
                self._skipped(entry, error)
            else:
                good.append(entry)
        if len(good) == len(entries):
            raise RuntimeError("an event was refused that can be encoded")
        self._take(good)

    def _skipped(self, entry: Entry, error: ValueError) -> None:
        self.skipped += 1
        self._out.problem(self._where(entry, error), _kind(error))
        if self._out.as_json:
            self._out.json_line({"kind": "skipped", self._unit: entry.number, "error": str(error)})

    def _bad(self, entry: Entry, error: ValueError) -> CommandError:
        # What can be read and is no event is a mistake of whoever wrote it.
        code = INVALID if isinstance(error, EventError) else UNREADABLE
        return CommandError(self._where(entry, error), code, kind=_kind(error))

    def _where(self, entry: Entry, error: ValueError) -> str:
        return f"{self._name}, {self._unit} {entry.number}: {error}" if self._name else str(error)


def _kind(error: ValueError) -> str:
    return "EventError" if isinstance(error, EventError) else "InputError"
