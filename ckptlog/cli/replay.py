"""`ckptlog replay`: build the views anew, tell the state as of some point, write views of then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.moment import point
from ckptlog.cli.output import Column, Output

if TYPE_CHECKING:
    from ckptlog.model.entry import Entry
    from ckptlog.repository.replay import Replay

_COLUMNS = (
    Column("checkpoint"),
    Column("task"),
    Column("step", is_number=True),
    Column("state"),
    Column("updated"),
    Column("position", is_number=True),
    Column("data", is_number=True),
)


def add_commands(commands: Commands) -> None:
    """Add `replay`."""
    parser = add_command(
        commands,
        "replay",
        run_replay,
        about="rebuild the views, or tell the state as of a position or a time",
        epilog="A TIME counts by the log's order: all events up to the last one that is not later.",
    )
    parser.add_argument(
        "--until",
        type=point,
        metavar="POSITION|TIME",
        help="change nothing; print the state after the event at POSITION, or at TIME",
    )
    parser.add_argument(
        "--into",
        metavar="DIR",
        help="write the views as of then (default: now) to DIR, a new or an empty directory",
    )


def run_replay(context: Context) -> int:
    """Rebuild the views; with --until or --into, tell or write the state of that point."""
    arguments = context.arguments
    if arguments.until is None and arguments.into is None:
        return _rebuild(context)
    with context.store(is_reading=True) as store:
        found = store.replay(arguments.until, into=arguments.into)
    if context.output.is_json:
        context.output.document(_document(found))
    else:
        _print(context.output, found, is_by_time=not isinstance(arguments.until, int))
    return OK


def _rebuild(context: Context) -> int:
    from ckptlog.repository.file_view import FileView

    with context.store() as store:
        store.rebuild_views()
        path, number = str(store.path), store.position
        files = FileView(store)
        has_files = files.is_there
        if has_files:
            files.rebuild()
    if context.output.is_json:
        context.output.document({"store": path, "events": number, "files": has_files})
        return OK
    events = text.count(number, "event")
    also = " Its files were written anew, too." if has_files else ""
    context.output.line(text.escape(f"Rebuilt the views of {path} from {events}.{also}"))
    return OK


def _document(found: Replay) -> dict[str, Any]:
    return {
        "position": found.position,
        "time": found.time,
        "leaf": found.leaf.hex(),
        "states": found.states,
        "checkpoints": [_fields(entry) for entry in found.entries],
        "later": found.later,
        "commit": list(found.commit) if found.commit else None,
        "into": found.into,
    }


def _print(output: Output, found: Replay, *, is_by_time: bool) -> None:
    there = text.count(len(found.entries), "checkpoint")
    states = ", ".join(f"{number:,} {state}" for state, number in found.states.items())
    when = (
        "Before the first event" if found.position is None else f"After position {found.position}"
    )
    if is_by_time and found.time:
        when += f" ({text.instant(found.time)})"
    output.line(f"{when}: {there}" + (f" ({states})" if states else "") + ".")
    if found.into is not None:
        output.line(text.escape(f"The views as of then are in {found.into}."))
    elif found.entries:
        output.line()
        output.table(_COLUMNS, [_row(entry) for entry in found.entries])
    if found.later:
        events = text.count(found.later, "event")
        output.note(f"the clock went back: {events} of these are stamped later than that time")
    if found.commit is not None:
        output.note(
            f"events {found.commit[0]} to {found.commit[1]} are one commit: no reader has seen "
            "this point alone"
        )


def _fields(entry: Entry) -> dict[str, Any]:
    event = entry.event
    return {
        "checkpoint_id": event.subject.checkpoint,
        "task_id": event.subject.task,
        "namespace": event.subject.namespace,
        "worker_id": event.subject.worker or None,
        "parent_checkpoint_id": event.subject.parent or None,
        "state": event.state,
        "step_number": event.step,
        "total_steps": event.total or None,
        "created_at": entry.created,
        "updated_at": event.time,
        "position": entry.position,
        "data_bytes": event.data.size if event.data else 0,
    }


def _row(entry: Entry) -> tuple[object, ...]:
    event = entry.event
    return (
        event.subject.checkpoint,
        event.subject.task,
        text.progress(event.step, event.total),
        event.state,
        text.instant(event.time),
        entry.position,
        text.size(event.data.size) if event.data else "-",
    )
