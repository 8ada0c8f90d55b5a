"""The command `packtrack-logger`: events for PackTrack from a shell, from cron, from a pipe.

Neighbours: `flags` names the options of a run, `inputs` reads events, `run` does the rest and is
loaded when there is something to do. `cli.exits` has the exit codes. Invariant: the api key is in
no output.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from causality_sdk._version import __version__
from causality_sdk.cli.ending import end
from causality_sdk.cli.exits import INTERRUPTED, INVALID
from causality_sdk.packtrack.durations import seconds
from causality_sdk.packtrack_logger.flags import Flags
from causality_sdk.packtrack_logger.output import say
from causality_sdk.wire.packtrack import SEVERITIES, STATUSES

NAME = "packtrack-logger"


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.2
    """A time such as `15s` or `100ms`, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Called by click for what was given."""
        try:
            return seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class JsonObject(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.2
    """A JSON object."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """Called by click for what was given."""
        from causality_sdk.packtrack_logger.inputs import json_object

        try:
            return json_object(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Logger(click.Command):
    """Ends with the exit codes of `cli.exits`, whatever goes wrong."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Reads the options. Wrong ones exit with 1: click's 2 means something else here."""
        as_json = "--json" in args
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            error.exit_code = INVALID  # type: ignore[misc]
            if as_json:
                from causality_sdk.packtrack_logger.output import failure

                say(failure(INVALID, error.format_message()))
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Runs it. An interrupt is no error of the program's: it ends without a traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs it; a program of its own ends with our exit codes, whatever its streams are like."""

        def run() -> Any:
            return super(Logger, self).main(
                args, prog_name, complete_var, standalone_mode=False, **extra
            )

        # What goes wrong was told on stdout before, if it is to be told as JSON.
        return end(run, ()) if standalone_mode else run()


def _files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]  # the shell knows which there are


_DURATION = Duration()
_OBJECT = JsonObject()


@click.command(
    NAME,
    cls=Logger,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  packtrack-logger --source-system backup --workflow-id nightly --actor-type cron \\
      --actor-id db1 --severity info --status ok --message "backup finished"
  packtrack-logger --file events.json
  packtrack-logger --stdin --ndjson --async < events.ndjson

\b
Exit codes:
  0    all submitted
  1    wrong arguments, an event that is not valid, not well (--health)
  2    a refusal that a retry won't mend
  3    retries exhausted
  4    input that cannot be read or parsed
  5    output that cannot be written; the events are where they should be
  130  interrupted


Options win over the environment, the environment over the defaults.
""",
)
@click.option("--api-key", metavar="KEY", help="Required.  [env: PACKTRACK_API_KEY]")
@click.option(
    "--base-url",
    metavar="URL",
    help="Server.  [env: PACKTRACK_BASE_URL; default: https://pack.shimcounty.com]",
)
@click.option(
    "--timeout",
    type=_DURATION,
    help="Deadline of one attempt, such as 15s or 500ms.  [env: PACKTRACK_TIMEOUT; default: 15s]",
)
@click.option(
    "--retries",
    type=int,
    help="Retries of each request.  [env: PACKTRACK_RETRIES; default: 3]",
)
@click.option("--backoff-initial", type=_DURATION, help="Before the first retry.  [default: 100ms]")
@click.option("--backoff-max", type=_DURATION, help="Between retries at most.  [default: 2s]")
@click.option("--jitter", type=float, help="Random part of a delay, 0 to 1.  [default: 0.2]")
@click.option(
    "--user-agent",
    metavar="TEXT",
    help="[env: PACKTRACK_USER_AGENT; default: pack-track-sdk-python/VERSION"
    " packtrack-logger/VERSION]",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Sent along, so that the server drops a repeat. Several requests get KEY-1, KEY-2, …;"
    " with --async it is the key of the event, and several events get the suffixes.  [default: a"
    " new one]",
)
@click.option("--gzip", is_flag=True, default=None, help="Compress requests.")
@click.option("--timestamp", metavar="RFC3339", help="As 2026-01-31T12:00:00Z.  [default: now]")
@click.option("--source-system", metavar="TEXT", help="Program or service. Required.")
@click.option("--source-env", metavar="TEXT", help="Such as prod.")
@click.option("--workflow-id", metavar="TEXT", help="Required.")
@click.option("--workflow-name", metavar="TEXT", help="The workflow for people.")
@click.option("--run-id", metavar="TEXT", help="This run of the workflow.")
@click.option("--step-id", metavar="TEXT", help="This step of the run.")
@click.option("--actor-type", metavar="TEXT", help="Such as user, service or cron. Required.")
@click.option("--actor-id", metavar="TEXT", help="Required.")
@click.option("--actor-display", metavar="TEXT", help="The actor for people.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Required.")
@click.option("--status", type=click.Choice(STATUSES), help="Required.")
@click.option("--message", metavar="TEXT", help="What happened. Required.")
@click.option("--metadata", type=_OBJECT, metavar="JSON", help="A JSON object.")
@click.option("--extra", type=_OBJECT, metavar="JSON", help="Another one.")
@click.option(
    "--file",
    shell_complete=_files,
    metavar="PATH",
    help="Events from a file: one JSON object, or an array of them. The event's options above"
    " fill in what an event leaves out.",
)
@click.option("--stdin", is_flag=True, help="Events from standard input; needs --ndjson.")
@click.option("--ndjson", is_flag=True, help="The input is one JSON object a line.")
@click.option("--verbose", is_flag=True, help="Say on standard error what happens.")
@click.option("--dry-run", is_flag=True, help="Print the events, one a line; send nothing.")
@click.option(
    "--health",
    is_flag=True,
    help="Ask the server whether it is well, at PACKTRACK_HEALTH_PATH  [default: /api/health], and"
    " send nothing. With PACKTRACK_HEALTH_ENABLE=true every run without --async asks before it"
    " sends.",
)
@click.version_option(__version__, prog_name=NAME, help="Print the version.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option(
    "--async",
    "durable",
    is_flag=True,
    help="Through a queue on disk: an outage loses no event, the next run with --async sends what"
    " was left.",
)
@click.option("--batch-size", type=int, help="Events in one request at most.  [default: 100]")
@click.option(
    "--flush-interval",
    type=_DURATION,
    help="With --async: the longest an event waits.  [default: 1s]",
)
@click.option(
    "--queue-capacity",
    type=int,
    help="With --async: events the queue holds at most.  [default: 10000]",
)
@click.option("--no-flush", is_flag=True, help="With --async: queue them, do not send now.")
def main(**given: Any) -> None:
    """Send events to PackTrack.

    One event from the options, or many from a file or a pipe. Prints nothing when all went well,
    unless --verbose, --json or --dry-run ask for it.
    """
    from causality_sdk.packtrack_logger.run import run

    code = run(Flags(**given), sys.stdin.buffer)
    if code:
        raise click.exceptions.Exit(code)
