"""`ckptlog rewind`: make a directory what it was in a capture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptlog.cli import text
from ckptlog.cli.capture import add_workspace_options, fields_of, workspace
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.damage import Damages
from ckptlog.cli.exit_status import OK
from ckptlog.cli.moment import FORMS, moment
from ckptlog.cli.output import Column
from ckptlog.cli.question import ask, is_asked
from ckptlog.cli.word import filled, given_again
from ckptlog.recovery.ending import interruptible

if TYPE_CHECKING:
    from ckptlog.capture.directory.workspace import Rewound, Workspace
    from ckptlog.model.capture import CaptureInfo
    from ckptlog.model.component import Plan

# What a rewind lists of what it did; a preview lists all.
_TOLD_MAX: Final = 40
_MARKS = {"add": "+", "remove": "-", "change": "~"}
_STYLES = {"add": "ok", "remove": "error", "change": "warning"}
_COLUMNS = (
    Column("number", is_number=True),
    Column("id"),
    Column("created"),
    Column("size", is_number=True),
    Column("new", is_number=True),
    Column("reason"),
    Column("tags"),
    Column("description", is_prose=True),
)


def add_commands(commands: Commands) -> None:
    """Add `rewind`."""
    parser = add_command(
        commands,
        "rewind",
        run_rewind,
        about="make a directory what it was when it was captured",
        epilog="What is there is captured first (a safety capture; its id is printed), so a rewind "
        "can be undone by another one. A rewind that was killed is run again.",
    )
    add_workspace_options(parser)
    parser.add_argument(
        "--to",
        metavar="ID|TIME|N",
        type=_target,
        help="a capture's id, #NUMBER, a time or an age (15m), or N captures before the newest "
        "(default: the newest)",
    )
    parser.add_argument(
        "--path",
        action="append",
        default=[],
        type=filled,
        metavar="P",
        help="only this file or directory, relative to DIR or absolute; may be repeated",
    )
    parser.add_argument(
        "--out", type=filled, metavar="DIR2", help="restore there, and leave DIR as it is"
    )
    parser.add_argument(
        "--keep-unknown", action="store_true", help="leave files that the capture does not have"
    )
    parser.add_argument("--list", action="store_true", help="list the captures, newest first")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would change, and change nothing"
    )
    parser.add_argument(
        "--diff",
        action="store_true",
        help="show what would change as a unified diff, and change nothing; with --dry-run both",
    )
    parser.add_argument(
        "-y",
        "--yes",
        action="store_true",
        help="do not ask; needed where there is no terminal, unless --json is given",
    )


def _target(given: str) -> str | int | datetime:
    """Return what `--to` names; what is neither a number nor a time is an id."""
    import argparse

    words = given.split()
    if len(words) == 2 and words[1] == "back":
        given = words[0]
    if given.isascii() and given.isdigit():
        return int(given[:18])
    try:
        return moment(given)
    except argparse.ArgumentTypeError:
        return given


def run_rewind(context: Context) -> int:
    """Rewind, or say what a rewind would do."""
    from ckptlog.repository.output_file import refuse_house
    from ckptlog.service.command.claim import own_systems

    arguments = context.arguments
    _check(context)
    if arguments.out is not None:
        refuse_house(context.directory / arguments.out, "out")
    is_reading = arguments.list or arguments.dry_run or arguments.diff or arguments.out is not None
    with workspace(context, is_reading=is_reading, keeps_unknown=arguments.keep_unknown) as opened:
        if arguments.list:
            return _list(context, opened)
        arguments.path = [opened.relative(path) for path in arguments.path]
        info = _found(opened, arguments.to)
        if arguments.dry_run or arguments.diff:
            return _preview(context, opened, info)
        out = None if arguments.out is None else Path(context.directory / arguments.out)
        own = own_systems(opened.capturer.manager, context.environ)
        if out is None:
            opened.check_free(arguments.path, own=own)
            _ask(context, opened, info)
        with interruptible():
            done = opened.rewind(info, arguments.path, to=out, own=own)
        return _tell(context, opened, done, out)


def _found(opened: Workspace, wanted: str | int | datetime | None) -> CaptureInfo:
    """Return the capture that `--to` names; what names none may have been meant as a time."""
    from ckptlog.errors import CheckpointNotFoundError

    try:
        return opened.find(wanted)
    except CheckpointNotFoundError as error:
        if isinstance(wanted, str) and not wanted.startswith("#"):
            error.hint = f"{error.hint} Times: {FORMS}."
        raise


def _check(context: Context) -> None:
    """Refuse options that do not go together."""
    from ckptlog.errors import ArgumentError

    arguments = context.arguments
    is_previewed = arguments.dry_run or arguments.diff
    if arguments.list and is_previewed:
        raise ArgumentError(
            "--list lists captures; --dry-run and --diff preview one.", hint="Give one of them."
        )
    if arguments.out is not None and is_previewed:
        raise ArgumentError(
            "--dry-run and --diff say what would change in DIR; --out changes nothing there.",
            hint="Give one of them.",
        )


def _ask(context: Context, opened: Workspace, info: CaptureInfo) -> None:
    """Ask whoever sits at a terminal, where something would change."""
    if not is_asked(context):
        return
    plan = opened.plan(info, context.arguments.path)
    if plan.changes:
        ask(context, f"Make {opened.path} what it was in {info.id} ({plan.summary})?")


def _preview(context: Context, opened: Workspace, info: CaptureInfo) -> int:
    """Say what a rewind would change: as a diff, as a list of paths, or as both."""
    arguments, output = context.arguments, context.output
    document: dict[str, Any] = {"capture": fields_of(info)}
    if arguments.diff:
        lines = opened.diff(info, arguments.path)
        if output.is_json:
            document["diff"] = list(lines)
        else:
            _tell_diff(context, lines)
    if arguments.dry_run:
        plan = opened.plan(info, arguments.path)
        if output.is_json:
            document |= _plan_fields(plan)
        else:
            _tell_plan(context, plan)
    if output.is_json:
        output.document(document)
    return OK


def _list(context: Context, opened: Workspace) -> int:
    """List the captures; one that is damaged is named, and does not hide the others."""
    damages = Damages()
    captures = opened.captures(on_damage=damages)
    if context.output.is_json:
        for info in captures:
            context.output.item(fields_of(info))
    else:
        _table(context, captures)
    return damages.told(context, len(captures))


def _table(context: Context, captures: Sequence[CaptureInfo]) -> None:
    rows = [
        (
            info.number,
            info.id,
            text.instant(info.created_at),
            text.size(info.bytes_logical),
            text.size(info.bytes_new),
            info.reason,
            ", ".join(info.tags),
            info.description,
        )
        for info in captures
    ]
    context.output.table(_COLUMNS, rows)


def _plan_fields(plan: Plan) -> dict[str, Any]:
    changes = [{"kind": one.kind, "path": one.path, "bytes": one.bytes} for one in plan.changes]
    return {"changes": changes, "bytes_read": plan.bytes_read, "summary": plan.summary}


def _tell_plan(context: Context, plan: Plan) -> None:
    _lines(context, ((one.kind, one.path) for one in plan.changes))
    context.output.line(text.escape(f"{plan.summary}; {text.size(plan.bytes_read)} to write."))


def _tell_diff(context: Context, lines: Iterable[str]) -> None:
    for line in lines:
        style = {"+": "ok", "-": "error", "@": "strong"}.get(line[:1], "")
        context.output.line(context.output.paint(text.escape(line), style))


def _tell(context: Context, opened: Workspace, done: Rewound, out: Path | None) -> int:
    where = opened.path if out is None else str(out)
    if context.output.is_json:
        context.output.document(_fields(done, where))
        return OK
    _lines(context, ((step.kind, _shown(step.path)) for step in done.steps[:_TOLD_MAX]))
    if len(done.steps) > _TOLD_MAX:
        context.output.line(f"... and {len(done.steps) - _TOLD_MAX:,} more; --json lists all")
    from ckptlog.capture.directory.present import summary

    what = summary(done.steps, is_done=True)
    context.output.line(text.escape(f"{where} is as in {done.info.id}: {what}."))
    if done.undo is not None and done.steps:
        context.output.line(
            text.escape(
                f"To undo this: ckptlog rewind --to {done.undo.id} {_words(context, where)}"
            )
        )
    return OK


def _words(context: Context, where: str) -> str:
    """Return the options and the directory that name the same captures again, for a shell."""
    import shlex

    flags = "git", "no_ignore", "xattrs"
    return shlex.join([*given_again(context.arguments, ("store", "system"), flags), where])


def _fields(done: Rewound, where: str) -> dict[str, Any]:
    return {
        "directory": where,
        "capture": fields_of(done.info),
        "safety": None if done.safety is None else fields_of(done.safety),
        "undo": None if done.undo is None else done.undo.id,
        "changes": [
            {"kind": step.kind, "path": _shown(step.path), "bytes": step.size}
            for step in done.steps
        ],
    }


def _lines(context: Context, changes: Iterable[tuple[str, str]]) -> None:
    for kind, path in changes:
        mark = context.output.paint(_MARKS[kind], _STYLES[kind])
        context.output.line(f"{mark} {text.escape(path)}")


def _shown(path: str) -> str:
    from ckptlog.capture.directory.name import shown

    return shown(path)
