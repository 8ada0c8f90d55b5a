"""What the help says about each option of the client: in words of a shell, and for which commands.

Neighbour: `options`, which falls back on the docstring of the field. Invariant: nothing here knows
a default; those are of `Config`.
"""

from __future__ import annotations

from typing import Final

PROGRAM_ONLY: Final = frozenset(
    {"start", "enabled", "strict", "fallback", "close_timeout", "debug"}
)
"""Options of a program that runs on. The environment and the file may have them; no flag does."""

FILES: Final = frozenset({"app_id", "queue_path"})
"""Which queue."""
SERVER: Final = frozenset(
    {"api_key", "endpoint", "timeout", "headers", "verify", "proxies", "wire"}
)
"""Which server, and how to reach it."""
DELIVERY: Final = frozenset({"max_retries", "compression", "max_batch_events", "max_batch_bytes"})
"""How to deliver."""
FILLING: Final = frozenset(
    {"max_event_bytes", "max_queue_events", "max_queue_bytes", "overflow", "durability"}
)
"""How to fill a queue."""

WORDS: Final = {
    "api_key": "Sent to the server as X-API-Key. Required to send. Other users of this machine see"
    " it in the list of processes: rather use --api-key-file or CAUSALITY_API_KEY.",
    "endpoint": "Base URL of the server, with https:// or http://. Required to send.",
    "app_id": "Names the application in every event, and the directory of its queue.",
    "batch_size": "Events of the first request, before it is known what the server takes.",
    "flush_interval": "Seconds that an event waits at most while a stream is read.",
    "max_batch_events": "Events in one request at most.",
    "max_batch_bytes": "Bytes of events in one request at most.",
    "max_event_bytes": "Bytes of one event at most.",
    "timeout": "Seconds for one attempt, from the connection to the end of the answer. (--timeout"
    " is for the whole command.)",
    "max_retries": "Attempts after the first one.",
    "backoff_initial": "Seconds: ceiling of the first pause between attempts.",
    "backoff_max": "Seconds: ceiling of every pause between attempts.",
    "jitter": "The random part of a pause, 0 to 1.",
    "queue_path": "The queue file.  [default: queue.db in a directory of --app-id, among the user's"
    " data]",
    "max_queue_events": "Events that the queue file holds at most.",
    "max_queue_bytes": "Bytes that the queue file holds at most.",
    "overflow": "At these caps: reject stops the command, drop_oldest evicts the oldest events."
    "  [default: reject, where a command fills a queue; drop_oldest in programs]",
    "durability": "What a commit survives: process, kill -9; power, a power cut too, but each takes"
    " a sync.",
    "compression": "Compress requests.",
    "user_agent": "The User-Agent header.",
    "headers": "A further header of every request; repeatable.",
    "verify": "Check the server's certificate: yes, no, or a file of CA certificates.",
    "proxies": "The proxy for http or https; repeatable.  [default: HTTP_PROXY, HTTPS_PROXY,"
    " NO_PROXY]",
    "wire": "The format that the server takes.",
    "take_over": "Also deliver queue files that were written for another server or api key, here.",
    "key_is_destination": "Whether the api key names the destination, as where it stands for a"
    " project: then what was tracked with another key is left to that.",
}
