"""`ckptlog diff`: what differs between two checkpoints, or between two times of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.show import find

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.model.checkpoint import CheckpointData
    from ckptlog.model.difference import Difference

_MARKS = {"added": "+", "removed": "-", "changed": "~"}
_STYLES = {"added": "ok", "removed": "error", "changed": "warning"}
_VALUE_WIDTH = 100


def add_commands(commands: Commands) -> None:
    """Add `diff`."""
    parser = add_command(
        commands,
        "diff",
        run_diff,
        about="compare two checkpoints",
        epilog="ID@POSITION names a checkpoint as it was after the event at POSITION.",
    )
    parser.add_argument("before", metavar="ID[@POSITION]")
    parser.add_argument("after", metavar="ID[@POSITION]")


def run_diff(context: Context) -> int:
    """Print the differences, path by path; equal checkpoints print none."""
    from ckptlog.model.difference import differences

    arguments = context.arguments
    with context.manager(is_reading=True) as manager:
        before, after = (_named(manager, name) for name in (arguments.before, arguments.after))
    from ckptlog.manager.reading import comparable

    found = differences(comparable(before), comparable(after))
    if context.output.is_json:
        for difference in found:
            context.output.item(_fields(difference))
    else:
        _print(context, found)
    return OK


def _named(manager: CheckpointManager, name: str) -> CheckpointData:
    """Return the checkpoint that ID or ID@POSITION names; an id may hold @ itself."""
    identifier, at, position = name.rpartition("@")
    if at and position.isascii() and position.isdigit() and not _is_id(manager, name):
        return find(manager, identifier, int(position[:18]))
    return find(manager, name, None)


def _is_id(manager: CheckpointManager, name: str) -> bool:
    return manager.store.newest_ever(name) is not None


def _fields(difference: Difference) -> dict[str, Any]:
    from ckptlog.model.codec import OPAQUE
    from ckptlog.model.value import lower

    return {
        "path": difference.path,
        "kind": difference.kind,
        "before": lower(difference.before, codecs=OPAQUE),
        "after": lower(difference.after, codecs=OPAQUE),
    }


def _print(context: Context, found: Sequence[Difference]) -> None:
    output = context.output
    for difference in found:
        mark = output.paint(_MARKS[difference.kind], _STYLES[difference.kind])
        output.line(f"{mark} {text.escape(difference.path)}: {_values(difference)}")
    if not found:
        output.line("No difference.")


def _values(difference: Difference) -> str:
    if difference.kind == "added":
        return _short(difference.after)
    if difference.kind == "removed":
        return _short(difference.before)
    return f"{_short(difference.before)} -> {_short(difference.after)}"


def _short(value: Any) -> str:
    if isinstance(value, str):
        import json

        return text.shorten(json.dumps(value, ensure_ascii=False), _VALUE_WIDTH)
    return text.shorten(repr(value), _VALUE_WIDTH)
