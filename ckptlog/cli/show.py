"""`ckptlog show`: one checkpoint, now or as of a position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.cli import presenter
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.moment import natural

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.model.checkpoint import CheckpointData


def add_commands(commands: Commands) -> None:
    """Add `show`."""
    parser = add_command(commands, "show", run_show, about="show a checkpoint")
    parser.add_argument("checkpoint", metavar="ID")
    parser.add_argument("--data", action="store_true", help="print its data, as JSON")
    parser.add_argument(
        "--part",
        metavar="POINTER",
        help="print a part of its data, as JSON: /messages/-1 (JSON Pointer, also from the end)",
    )
    parser.add_argument(
        "--at", type=natural, metavar="POSITION", help="as it was after the event at POSITION"
    )


def run_show(context: Context) -> int:
    """Print a checkpoint, or its data alone with --data."""
    arguments, output = context.arguments, context.output
    with context.manager(is_reading=True) as manager:
        if arguments.part is not None:
            output.document(_part(manager, arguments.checkpoint, arguments.part, arguments.at))
            return OK
        checkpoint = find(manager, arguments.checkpoint, arguments.at)
    fields = checkpoint.to_dict()
    if arguments.data and not output.is_json:
        output.document(fields["data"])
    elif output.is_json:
        output.document(fields if arguments.data else presenter.summary(checkpoint))
    else:
        _print_page(context, checkpoint, fields)
    return OK


def _part(manager: CheckpointManager, identifier: str, pointer: str, position: int | None) -> Any:
    """Return what a JSON Pointer (RFC 6901) leads to in a checkpoint's data, as JSON."""
    from ckptlog.errors import ArgumentError
    from ckptlog.model.codec import OPAQUE
    from ckptlog.model.value import lower

    if position is not None:
        raise ArgumentError("--part is of the present state; leave out --at.", argument="part")
    if pointer and not pointer.startswith("/"):
        raise ArgumentError(
            f"{pointer!r} is no JSON Pointer: it must begin with /.",
            hint="For example /messages/-1.",
            argument="part",
        )
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    return lower(manager.get_part(identifier, *steps), codecs=OPAQUE)


def find(manager: CheckpointManager, identifier: str, position: int | None) -> CheckpointData:
    """Return a checkpoint as it is, or as it was after the event at position.

    Raises:
        CheckpointNotFoundError: It is not there, or was not there then.
        ArgumentError: The log has no such position.
    """
    if position is None:
        found = manager.get_checkpoint(identifier)
    else:
        check_position(manager.store.position, position)
        found = manager.get_checkpoint_at(identifier, position)
    if found is None:
        raise unknown_checkpoint(identifier, position)
    return found


def check_position(position_next: int, position: int) -> None:
    """Refuse a position that the log does not have yet."""
    if position < position_next:
        return
    from ckptlog.errors import ArgumentError

    last = f"the last is {position_next - 1}" if position_next else "it is empty"
    raise ArgumentError(
        f"The log has no position {position}; {last}.",
        hint="`ckptlog log` shows the positions.",
        position=position,
        position_next=position_next,
    )


def unknown_checkpoint(identifier: str, position: int | None = None) -> LookupError:
    """Return the error for a checkpoint that is not there."""
    from ckptlog.errors import CheckpointNotFoundError

    when = "" if position is None else f" as of position {position}"
    return CheckpointNotFoundError(
        f"There is no checkpoint {identifier!r}{when}.",
        hint="`ckptlog list` shows those that are there; `ckptlog log` also the deleted ones.",
        checkpoint_id=identifier,
    )


def _print_page(context: Context, checkpoint: CheckpointData, fields: dict[str, Any]) -> None:
    output = context.output
    output.details(presenter.details(checkpoint))
    for title, values in (("metadata", fields["metadata"]), ("data", checkpoint.data)):
        output.line()
        output.line(output.paint(title, "strong"))
        lines = presenter.outline(values)
        width = max((len(name) for name, _ in lines), default=0)
        for name, kind in lines:
            output.line(f"  {name.ljust(width)}  {kind}")
        if not lines:
            output.line("  (empty)")
