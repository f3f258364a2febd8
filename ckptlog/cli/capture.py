"""`ckptlog capture`: save a directory as it is now."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command, open_store
from ckptlog.cli.exit_status import OK
from ckptlog.cli.word import filled

if TYPE_CHECKING:
    from ckptlog.capture.directory.workspace import Workspace
    from ckptlog.model.capture import CaptureInfo


def add_commands(commands: Commands) -> None:
    """Add `capture`."""
    parser = add_command(
        commands,
        "capture",
        run_capture,
        about="save a directory, or a git working tree, as it is now",
        epilog="Files that .gitignore and .ckptlogignore leave out are not captured. Without "
        "--store and $CKPTLOG_STORE the nearest store from DIR upwards is used, and DIR/.ckptlog "
        "is made where there is none. `ckptlog rewind` brings a directory back.",
    )
    add_workspace_options(parser)
    parser.add_argument("-m", "--message", metavar="TEXT", default="", help="what was done")
    parser.add_argument(
        "--tag", action="append", default=[], metavar="TAG", help="a tag; may be repeated"
    )
    parser.add_argument(
        "--always", action="store_true", help="capture also where nothing changed since the last"
    )


def add_workspace_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which directory, and what of it."""
    parser.add_argument(
        "directory", nargs="?", type=filled, metavar="DIR", default=".", help="default: here"
    )
    parser.add_argument(
        "--system", type=filled, metavar="NAME", help="the captures' name in the store"
    )
    parser.add_argument("--git", action="store_true", help="with .git (left out by default)")
    parser.add_argument(
        "--no-ignore", action="store_true", help="also what .gitignore and .ckptlogignore leave out"
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out what a line of .gitignore would; may be repeated",
    )
    parser.add_argument(
        "--unreadable",
        choices=("error", "report"),
        default="error",
        help="what to do about files that cannot be read (default: error)",
    )
    parser.add_argument("--xattrs", action="store_true", help="with the user's extended attributes")


_MOUNTED = "a rewind does not reach over it: rewind --out, or capture it as a directory of its own"


def run_capture(context: Context) -> int:
    """Capture the directory, and say what was stored."""
    from ckptlog.capture.directory import name as naming

    arguments = context.arguments
    is_always = arguments.always or bool(arguments.message or arguments.tag)
    with workspace(context, is_created=True) as opened:
        info = opened.capture(
            description=arguments.message, tags=arguments.tag, skip_unchanged=not is_always
        )
        newest = info or opened.find()
        last = opened.component.last
        half_done = _half_done(opened)
    if half_done:
        context.output.note(half_done)
    skipped = dict(last.found.skipped) if last is not None else {}
    mounts = [naming.shown(path) for path in sorted(last.found.mounts)] if last is not None else []
    if context.output.is_json:
        fields = fields_of(newest)
        told = {"skipped": skipped, "mounts": mounts, "half_done": bool(half_done)}
        context.output.document({"captured": info is not None, **fields, **told})
        return OK
    for path, reason in sorted(skipped.items()):
        context.output.note(f"not captured: {path} ({reason})")
    for path in mounts:
        context.output.note(f"captured, but another file system or mount: {path} ({_MOUNTED})")
    if info is None:
        context.output.line(text.escape(f"Nothing changed since {newest.id}."))
        return OK
    size = f"{text.size(info.bytes_logical)}, {text.size(info.bytes_new)} new"
    context.output.line(text.escape(f"Captured {opened.path} as {info.id} ({size})."))
    return OK


def _half_done(opened: Workspace) -> str:
    """Say that what lies there may be half of a restore; "" where none ended in the middle."""
    from ckptlog.capture.directory.stage import is_left_over
    from ckptlog.recovery.journal import Journal

    found = Journal(opened.capturer.manager, opened.system).unfinished()
    if found is not None:
        return (
            "warning: a recovery of it ended in the middle, so this is a mixture: "
            f"ckptlog recover --system {opened.system} --resume, or --roll-back"
        )
    if is_left_over(opened.path):
        return "warning: a rewind of it was killed, or is at work, so this may be a mixture"
    return ""


@contextmanager
def workspace(
    context: Context, *, is_created: bool = False, is_reading: bool = False, **options: Any
) -> Iterator[Workspace]:
    """Open the store of the directory that the arguments name, for the time of a block.

    Args:
        is_reading: See `Context.store`.
    """
    from ckptlog.capture.directory.scan import Options
    from ckptlog.capture.directory.workspace import Workspace
    from ckptlog.manager.manager import CheckpointManager

    arguments = context.arguments
    directory = context.directory / arguments.directory
    path, is_new = store_path(context, directory, is_created=is_created)
    chosen = Options(
        has_git=arguments.git,
        has_rules=not arguments.no_ignore,
        patterns=tuple(arguments.exclude),
        unreadable=arguments.unreadable,
        has_attributes=arguments.xattrs,
    )
    with (
        open_store(path, context.output, is_reading=is_reading, is_created=is_new) as store,
        CheckpointManager(store=store) as manager,
    ):
        yield Workspace(manager, directory, system=arguments.system, options=chosen, **options)


def store_path(context: Context, directory: Path, *, is_created: bool) -> tuple[Path, bool]:
    """Return the store of a directory, and whether it may be made."""
    from ckptlog.errors import ArgumentError, StoreMissingError
    from ckptlog.repository.discovery import PLACES, find_store

    if is_created and not directory.is_dir():
        raise ArgumentError(
            f"{directory} is no directory.", hint="Name a directory.", path=str(directory)
        )
    try:
        found = find_store(context.arguments.store, context.environ, directory)
    except StoreMissingError:
        if not is_created:
            raise
        made = directory / PLACES[0]
        context.output.note(f"making a store in {made}")
        return made, True
    if found.note:
        context.output.note(found.note)
    return found.path, is_created and found.source != "directory"


def fields_of(info: CaptureInfo) -> dict[str, Any]:
    """Return what JSON says of a capture."""
    return info.to_dict()
