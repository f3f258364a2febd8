"""`ckptlog log` and `ckptlog history`: what happened, in order."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.listing import iso
from ckptlog.cli.moment import moment, natural, positive
from ckptlog.cli.output import Column, Output

if TYPE_CHECKING:
    from ckptlog.model.entry import Entry

_HISTORY_COLUMNS = (
    Column("position", is_number=True),
    Column("time"),
    Column("event"),
    Column("state"),
    Column("step", is_number=True),
    Column("actor"),
    Column("description", is_prose=True),
)


def add_commands(commands: Commands) -> None:
    """Add `log` and `history`."""
    parser = add_command(commands, "log", run_log, about="print the events")
    parser.add_argument("--task", metavar="ID", help="about this task")
    parser.add_argument("--checkpoint", metavar="ID", help="about this checkpoint")
    parser.add_argument("--type", metavar="TYPE", help="of this type: completed, task.deleted, ...")
    parser.add_argument("--actor", metavar="NAME", help="by this actor")
    parser.add_argument(
        "--from", dest="start", type=natural, default=0, metavar="POSITION", help="from here on"
    )
    parser.add_argument(
        "--to", dest="end", type=natural, metavar="POSITION", help="up to here, included"
    )
    parser.add_argument("--since", type=moment, metavar="TIME", help="at or after")
    parser.add_argument("--until", type=moment, metavar="TIME", help="before")
    parser.add_argument("--last", type=positive, metavar="N", help="only the last N that match")
    parser = add_command(commands, "history", run_history, about="print a checkpoint's history")
    parser.add_argument("checkpoint", metavar="ID")


def run_log(context: Context) -> int:
    """Print the events that match, one a line."""
    arguments, output = context.arguments, context.output
    with context.store(is_reading=True) as store:
        accepts = _filter(arguments)
        start, end = _range(arguments, store.position)
        matching: Iterable[Entry] = (e for e in store.events(start, end) if accepts(e))
        if arguments.last:
            matching = deque(matching, maxlen=arguments.last)
        is_empty = True
        for entry in matching:
            is_empty = False
            if output.is_json:
                output.item(describe(entry))
            else:
                output.line(event_line(output, entry))
    if is_empty and arguments.type is not None:
        _refuse_unknown(arguments.type)
    return OK


def _refuse_unknown(kind: str) -> None:
    """Refuse a type that no event has and that this version does not know: a slip of the pen."""
    from ckptlog.model.event import TYPES
    from ckptlog.model.event_type import unknown_type

    if TYPES.isdisjoint({kind, f"checkpoint.{kind}"}):
        raise unknown_type("type", kind)


def run_history(context: Context) -> int:
    """Print every event of one checkpoint."""
    identifier, output = context.arguments.checkpoint, context.output
    with context.manager(is_reading=True) as manager:
        entries = manager.history(identifier)
        if not entries:
            from ckptlog.cli.show import unknown_checkpoint

            raise unknown_checkpoint(identifier)
        if output.is_json:
            for entry in entries:
                output.item(_history_fields(entry))
        else:
            output.table(_HISTORY_COLUMNS, [_history_row(entry) for entry in entries])
    return OK


def _state_then(entry: Any) -> tuple[Any, str]:
    """Return the checkpoint after an event, None where it ended or where a compaction let it go.

    Returns:
        It, and what to say where it is gone.
    """
    from ckptlog.errors import PayloadCollectedError

    try:
        return entry.checkpoint, ""
    except PayloadCollectedError as error:
        return None, f"(collected by event {error.context['collected_by']})"


def _range(arguments: argparse.Namespace, position_next: int) -> tuple[int, int | None]:
    """Return the positions to read; where all match, only as many as --last asks for."""
    start: int = arguments.start
    end = None if arguments.end is None else arguments.end + 1
    filters = ("task", "checkpoint", "type", "actor", "since", "until")
    if arguments.last and all(getattr(arguments, name) is None for name in filters):
        stop = position_next if end is None else min(end, position_next)
        start = max(start, stop - arguments.last)
    return start, end


def _filter(arguments: argparse.Namespace) -> Callable[[Entry], bool]:
    since, until = iso(arguments.since), iso(arguments.until)
    kind: str | None = arguments.type
    kinds = {kind, f"checkpoint.{kind}"}

    def accepts(entry: Entry) -> bool:
        event = entry.event
        return (
            arguments.task in {None, event.subject.task}
            and arguments.checkpoint in {None, event.subject.checkpoint}
            and arguments.actor in {None, event.actor}
            and (kind is None or event.type in kinds)
            and (since is None or event.time >= since)
            and (until is None or event.time < until)
        )

    return accepts


def describe(entry: Entry) -> dict[str, Any]:
    """Return an entry for JSON: its position, its place, and the event as it is stored."""
    from msgspec import to_builtins

    fields: dict[str, Any] = to_builtins(entry.event)
    place = {"container": entry.container, "offset": entry.offset, "length": entry.length}
    return {"position": entry.position, **fields, "place": place}


def event_line(output: Output, entry: Entry) -> str:
    """Return an entry for people, on one line."""
    event = entry.event
    kind = event.type.removeprefix("checkpoint.")
    head = f"{entry.position:>8}  {event.time[:10]} {event.time[11:23]}Z"
    painted = output.paint(f"{kind:<9}", kind)
    return f"{output.paint(head, 'dim')}  {painted}  {'  '.join(_parts(entry))}"


def _parts(entry: Entry) -> Iterator[str]:
    from ckptlog.model.event import UPDATED

    event = entry.event
    subject = event.subject
    if subject.checkpoint:
        yield text.escape(subject.checkpoint)
    elif subject.task:
        yield f"task {text.escape(subject.task)}"
    if event.step:
        yield f"step {text.progress(event.step, event.total)}"
    if event.type == UPDATED:
        yield f"now {event.state}"
    if event.data is not None:
        yield f"{text.size(event.data.size)} (+{text.size(event.new)})"
    for name, value in event.facts.items():
        yield text.escape(f"{name}={value}")
    if event.sanitised:
        yield f"{event.sanitised} secrets replaced"
    yield text.escape(f"by {event.actor}")


def _history_fields(entry: Any) -> dict[str, Any]:
    from ckptlog.cli.presenter import summary

    checkpoint, gone = _state_then(entry)
    fields = {
        "position": entry.position,
        "time": entry.time,
        "type": entry.type,
        "actor": entry.actor,
        "checkpoint": None if checkpoint is None else summary(checkpoint),
    }
    return {**fields, "collected": True} if gone else fields


def _history_row(entry: Any) -> tuple[object, ...]:
    kind = entry.type.removeprefix("checkpoint.")
    checkpoint, gone = _state_then(entry)
    if gone:
        state, step = entry.state, text.progress(entry.step_number, None)
        return entry.position, text.instant(entry.time), kind, state, step, entry.actor, gone
    if checkpoint is None:
        return entry.position, text.instant(entry.time), kind, "-", "-", entry.actor, ""
    return (
        entry.position,
        text.instant(entry.time),
        kind,
        checkpoint.state.value,
        text.progress(checkpoint.step_number, checkpoint.total_steps),
        entry.actor,
        text.shorten(checkpoint.step_description, 48),
    )
