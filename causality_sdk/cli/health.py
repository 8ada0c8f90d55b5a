"""`causality health`: one request to the server, besides any queue.

Neighbours: `drain` for the wire, `opening` for the transport; `queue doctor` asks the same
questions. Invariant: no queue is opened.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import click

from causality_sdk.cli.drain import observed, wire_of
from causality_sdk.cli.exits import REFUSED, RETRIES_EXHAUSTED, CommandError, delivery_code
from causality_sdk.cli.option_words import SERVER
from causality_sdk.cli.options import CommandWithClient, client_options, settings
from causality_sdk.cli.output import Output, output, output_options
from causality_sdk.cli.settings import FLAGS
from causality_sdk.cli.track import warn_of_visible_key
from causality_sdk.cli.words import in_shell
from causality_sdk.config import Config
from causality_sdk.delivery import why_not_well
from causality_sdk.errors import ResponseError, TransportError
from causality_sdk.opening import http_transport
from causality_sdk.wire.base import Request, Response


@click.command(
    cls=CommandWithClient,
    uses=SERVER,
    epilog="""\b
Examples:
  causality health
  causality health --endpoint https://events.example.com --json
""",
)
@output_options
@client_options
def command() -> None:
    """Ask the server whether it is well.

    Exits with 0 if it says so, with 2 if it answers that it will not, with 3 if there is no answer
    or it may be well later.
    """
    out = output()
    options = settings()
    warn_of_visible_key(options, out)
    # Which app asks does not matter.
    config = options.config(logger=out.logger(), app_id=options["app_id"] or "health")
    found = ask(config, out, Request(path=wire_of(config).health_path, method="GET", body=b""))
    out.result(found.document(config), f"{config.endpoint}: {found.text}")
    if found.error is not None:
        raise click.exceptions.Exit(delivery_code(found.error))
    if not found.ok:
        later = found.trouble is not None and found.trouble.retryable
        raise click.exceptions.Exit(RETRIES_EXHAUSTED if later else REFUSED)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request found out."""

    seconds: float
    response: Response | None = None
    error: TransportError | None = None

    @property
    def status(self) -> int | None:
        """Of HTTP; None without an answer."""
        return None if self.response is None else self.response.status

    @property
    def trouble(self) -> ResponseError | None:
        """What speaks against the answer, if anything does."""
        return None if self.response is None else why_not_well(self.response)

    @property
    def ok(self) -> bool:
        """Whether the server says that it is well; a page for people does not."""
        return self.response is not None and self.trouble is None

    @property
    def text(self) -> str:
        """In words."""
        if self.error is not None:
            return in_shell(str(self.error), FLAGS)
        after = f"{self.status} after {self.seconds * 1000:.0f} ms"
        return f"well: {after}" if self.ok else f"not well: {after}; {self.trouble}"

    def document(self, config: Config) -> dict[str, Any]:
        """For `--json`."""
        return {
            "ok": self.ok,
            "endpoint": config.endpoint,
            "status": self.status,
            "seconds": round(self.seconds, 4),
            "error": None if (wrong := self.error or self.trouble) is None else str(wrong),
            "reason": None if self.error is None else self.error.reason,
        }


def ask(config: Config, out: Output, request: Request) -> Answer:
    """One attempt. Does not raise for the network."""
    if not request.path:
        raise CommandError(f"the destination {config.wire} has no address to ask for its health")
    transport = observed(config, out) or http_transport(config, wire_of(config))
    started = time.monotonic()
    try:
        response = transport.send(request, config.timeout)
    except TransportError as error:
        return Answer(time.monotonic() - started, error=error)
    finally:
        transport.close()
    return Answer(time.monotonic() - started, response)
