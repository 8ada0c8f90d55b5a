"""Every error of the package. No neighbour is imported; everything may import this.

    CausalityError
    ├── ConfigError         a wrong option; also a ValueError
    ├── EventError          an event that can never be sent; also a ValueError
    ├── ClientClosed        a call after an explicit close(); also a RuntimeError
    ├── QueueError          the queue file or its disk; also an OSError
    │   └── QueueFull       overflow="reject" and the cap is reached
    └── DeliveryError       one attempt to deliver failed; the events stay queued
        ├── TransportError  no answer: name lookup, connection, TLS, timeout. Retryable.
        ├── ResponseError   an answer that is not an acknowledgement. Retryable or not.
        └── IngestError     a synchronous verb gave up; its cause is one of the two above
            ├── IngestRefused     not retryable: sent again as it is, it fails again
            └── RetriesExhausted  retryable, but not within this call

A message names the field or the path, the value, and the fix. No message holds an api key.
"""

from __future__ import annotations

from typing import Literal

TransportReason = Literal[
    "dns", "refused", "unreachable", "tls", "timeout", "closed", "proxy", "protocol", "other"
]

BODY_EXCERPT_CHARS = 500


class CausalityError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(CausalityError, ValueError):
    """A wrong option of `Client` or `Config`. Names the field, the value and the fix."""


class EventError(CausalityError, ValueError):
    """An event that can never be sent as it is. Names the path to the value. Nothing was queued."""


class ClientClosed(CausalityError, RuntimeError):
    """A call on a client after its `close()`. Nothing was queued."""


class QueueError(CausalityError, OSError):
    """The queue file cannot be opened, read or written. Names the path and the fix.

    `written` of the events of the call were committed before it failed.
    """

    written: int = 0


class QueueFull(QueueError):
    """The queue is at its cap and `overflow="reject"`. Nothing was queued."""


class DeliveryError(CausalityError):
    """One attempt to deliver failed. The events stay in the queue.

    `retryable` says whether the same request may succeed later without anybody's help.
    """

    retryable: bool = True


class TransportError(DeliveryError):
    """No complete answer came back.

    `reason` is one of `dns`, `refused`, `unreachable`, `tls`, `timeout`, `closed` (the peer ended
    the connection), `proxy`, `protocol` (not HTTP) and `other`.
    `stale` is true when a reused connection was closed before any byte of the answer: the usual
    race with a server's keep-alive limit, worth one immediate second attempt.
    """

    def __init__(self, message: str, *, reason: TransportReason, stale: bool = False) -> None:
        super().__init__(message)
        self.reason: TransportReason = reason
        self.stale = stale

    def __reduce__(self) -> tuple[object, ...]:
        # The default would leave out the keywords; reports travel between processes.
        return _rebuild, (type(self), str(self), {"reason": self.reason, "stale": self.stale})


class ResponseError(DeliveryError):
    """The server answered, and the answer acknowledges nothing or not everything.

    `status` is the HTTP status, `body` an excerpt of at most `BODY_EXCERPT_CHARS` characters.
    """

    def __init__(self, message: str, *, status: int, body: str = "", retryable: bool) -> None:
        super().__init__(message)
        self.status = status
        self.body = body[:BODY_EXCERPT_CHARS]
        self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:
        options = {"status": self.status, "body": self.body, "retryable": self.retryable}
        return _rebuild, (type(self), str(self), options)


class IngestError(DeliveryError):
    """A synchronous verb gave up. `__cause__` is what its last attempt ended with.

    `status_code` is the HTTP status, None where no answer came; `body` is an excerpt of the answer
    of at most `BODY_EXCERPT_CHARS` characters. `attempts` were made for the request that failed.
    `submitted` events of the call were acknowledged in requests before it.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        body: str = "",
        attempts: int = 1,
        submitted: int = 0,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.body = body[:BODY_EXCERPT_CHARS]
        self.attempts = attempts
        self.submitted = submitted

    def __reduce__(self) -> tuple[object, ...]:
        names = ("status_code", "body", "attempts", "submitted")
        return _rebuild, (type(self), str(self), {name: getattr(self, name) for name in names})


class IngestRefused(IngestError):
    """The server refuses the request, and would refuse it again. `retryable` is False."""

    retryable = False


class RetriesExhausted(IngestError):
    """Every attempt failed in a way that may pass. `retryable` is True: try again later."""


def _rebuild(kind: type[DeliveryError], message: str, options: dict[str, object]) -> DeliveryError:
    return kind(message, **options)
