"""`ckptlog replay`: build the views anew, or tell the state as of a position.

An event holds all public facts of its checkpoint, so the state after position n is: of each
checkpoint, its last event up to n; without those that were deleted. Nothing else is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.moment import natural
from ckptlog.cli.output import Column
from ckptlog.cli.show import check_position

if TYPE_CHECKING:
    from ckptlog.model.entry import Entry
    from ckptlog.repository.store import Store

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
        about="rebuild the views, or print the state as of a position",
    )
    parser.add_argument(
        "--until",
        type=natural,
        metavar="POSITION",
        help="change nothing; print the state after the event at POSITION",
    )


def run_replay(context: Context) -> int:
    """Rebuild the views; with --until, fold the events up to a position and print the result."""
    until: int | None = context.arguments.until
    if until is not None:
        with context.store(is_reading=True) as store:
            return _print_state(context, store, until)
    with context.store() as store:
        store.rebuild_views()
        path, number = str(store.path), store.position
    if context.output.is_json:
        context.output.document({"store": path, "events": number})
    else:
        events = text.count(number, "event")
        context.output.line(text.escape(f"Rebuilt the views of {path} from {events}."))
    return OK


def state_after(entries: Iterable[Entry]) -> list[Entry]:
    """Return the last entry of each checkpoint that is there after entries, oldest first."""
    from ckptlog.model.event import DELETED, TASK_DELETED

    last: dict[str, Entry] = {}
    for entry in entries:
        subject = entry.event.subject
        if entry.event.type == TASK_DELETED:
            gone = [key for key, old in last.items() if old.event.subject.task == subject.task]
            for key in gone:
                del last[key]
        elif entry.event.type == DELETED:
            last.pop(subject.checkpoint, None)
        elif entry.event.state:
            last[subject.checkpoint] = entry
    return sorted(last.values(), key=lambda entry: entry.origin)


def _print_state(context: Context, store: Store, position: int) -> int:
    check_position(store.position, position)
    entries = state_after(store.events(0, position + 1))
    counts = Counter(entry.event.state for entry in entries)
    output = context.output
    if output.is_json:
        checkpoints = [_fields(entry) for entry in entries]
        output.document({"position": position, "states": counts, "checkpoints": checkpoints})
        return OK
    there = text.count(len(entries), "checkpoint")
    states = ", ".join(f"{number:,} {state}" for state, number in counts.items())
    output.line(f"After position {position}: {there}" + (f" ({states})" if states else "") + ".")
    if entries:
        output.line()
        output.table(_COLUMNS, [_row(entry) for entry in entries])
    return OK


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
