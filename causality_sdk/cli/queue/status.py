"""`causality queue status`: the files of an app, who owns each, what waits and what was lost.

Neighbour: `queue_files`. Invariant: nothing is written, and no owner is disturbed.
"""

from __future__ import annotations

import click

from causality_sdk.cli.exits import UNREADABLE
from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient, settings
from causality_sdk.cli.output import age, output, output_options, printable, size
from causality_sdk.cli.queue._elsewhere import elsewhere, here
from causality_sdk.cli.queue.selection import chosen_files, file_options
from causality_sdk.cli.queue_files import FileReport, report
from causality_sdk.holders import since


@click.command(
    cls=CommandWithClient,
    uses=FILES,
    epilog="""\b
Examples:
  causality queue status
  causality queue status --queue-path /mnt/kiosk/queue.db --json
  watch causality queue status --app-id kiosk-7
""",
)
@output_options
@file_options
def command() -> None:
    """Show the queue files: owner, what waits, how old it is, what was lost and why.

    Exits with 4 if one of the files cannot be read; the others are shown. The last error is that
    of the last dead letter: what a running service sees, only its log and client.stats() know.
    Events that wait for another server than the one these options name, or with another api key
    where that names the project, are shown with the command that sends them.
    """
    out = output()
    reports = [report(path) for path in chosen_files()]
    whole = [each.snapshot for each in reports if each.snapshot is not None]
    to = here(settings())
    documents, texts, stranded = [], [], 0
    for each in reports:
        # What somebody owns, its owner delivers.
        waits = None if each.holder.held else elsewhere(each.path, each.snapshot, to)
        document, text = each.document(), _text(each)
        document["elsewhere"] = None
        if waits is not None and to is not None:
            stranded += waits.pending
            command = waits.command(to)
            document["elsewhere"] = {"for": waits.whom, "command": command}
            text += (
                f"\n  NOT SENT      by a client with these options: they wait for"
                f" {printable(waits.whom)}\n                {printable(command)}"
            )
        documents.append(document)
        texts.append(text)
    document = {
        "files": documents,
        "elsewhere": stranded,
        "pending": sum(each.pending for each in whole),
        "pending_bytes": sum(each.pending_bytes for each in whole),
        "dead_letters": sum(each.letters for each in whole),
    }
    lines = "\n\n".join(texts) if texts else None
    if lines is not None and len(reports) > 1:
        lines += (
            f"\n\n{len(reports)} files: {document['pending']:,} waiting"
            f" ({size(int(str(document['pending_bytes'])))}), {document['dead_letters']:,} dead"
            " letters"
        ) + (f"; {stranded:,} of them wait for another destination" if stranded else "")
    out.result(document, lines)
    if len(whole) < len(reports):
        raise click.exceptions.Exit(UNREADABLE)


def _text(each: FileReport) -> str:
    lines = [str(each.path), f"  owner         {_owner(each)}"]
    if each.snapshot is None:
        return "\n".join([*lines, f"  error         {printable(each.error or '')}"])
    snapshot, state = each.snapshot, each.snapshot.counters
    lost = ", ".join(f"{count:,} {reason}" for reason, count in state.evicted.items() if count)
    oldest = "" if each.oldest_seconds is None else f", oldest {age(each.oldest_seconds)}"
    lines += [
        f"  destination   {printable(snapshot.destination.endpoint)}"
        f" (wire {snapshot.destination.wire})",
        f"  waiting       {snapshot.pending:,} ({size(snapshot.pending_bytes)}){oldest}",
        f"  tracked       {snapshot.tracked:,}: {state.acknowledged:,} acknowledged,"
        f" {sum(state.evicted.values()):,} evicted, {state.buried:,} buried",
        f"  dead letters  {snapshot.letters:,}",
        f"  on disk       {size(each.disk_bytes)}",
    ]
    if lost:
        lines.insert(5, f"  evicted       {lost}")
    if snapshot.last_letter is not None:
        letter = snapshot.last_letter
        lines.append(f"  last error    {letter.status}: {printable(letter.reason)}")
    return "\n".join(lines)


def _owner(each: FileReport) -> str:
    if not each.holder.held:
        return "nobody"
    seconds = since(each.holder)
    when = "" if seconds is None else f", for {age(seconds)}"
    stopped = ", STOPPED" if each.holder.stopped else ""
    return f"{each.holder.text}{when}{stopped}"
