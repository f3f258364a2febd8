"""What every command is given: its arguments, its output, and the one way to a store."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptlog.cli.exit_status import NOT_FOUND
from ckptlog.cli.output import Output
from ckptlog.repository.discovery import MARK, PLACES, find_store

if TYPE_CHECKING:
    from ckptlog.errors import ReadOnlyError
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.repository.store import Store

Handler = Callable[["Context"], int]
Commands = Any  # argparse keeps the class of what add_subparsers returns to itself


@dataclass
class Context:
    """One call of the program.

    directory: The working directory; the search for a store begins there.
    parser: The parser of the whole program.
    """

    arguments: argparse.Namespace
    parser: argparse.ArgumentParser
    output: Output
    environ: Mapping[str, str]
    directory: Path

    def store_path(self) -> Path:
        """Return the store's path, telling the user which when the user did not name it."""
        found = find_store(self.arguments.store, self.environ, self.directory)
        if found.note:
            self.output.note(found.note)
        return found.path

    def absent(self, message: str, hint: str, **where: str) -> int:
        """Tell that what was named is not there; return the exit status."""
        self.output.fault(
            {
                "code": "checkpoint.not_found",
                "message": message,
                "hint": hint,
                "context": where,
            }
        )
        return NOT_FOUND

    @contextmanager
    def store(self, *, is_reading: bool = False) -> Iterator[Store]:
        """Open the store for the time of a block.

        Args:
            is_reading: Whether the command changes nothing: then a store that this user or this
                file system lets nobody write is opened for reading only.
        """
        with open_store(self.store_path(), self.output, is_reading=is_reading) as store:
            yield store

    @contextmanager
    def manager(self, *, is_reading: bool = False) -> Iterator[CheckpointManager]:
        """Open the store with a manager for the time of a block; see `store`."""
        from ckptlog.manager.manager import CheckpointManager

        with self.store(is_reading=is_reading) as store, CheckpointManager(store=store) as manager:
            yield manager


def open_store(
    path: Path, output: Output, *, is_reading: bool = False, is_created: bool = False
) -> Store:
    """Open a store; warnings become notes.

    Args:
        is_reading: See `Context.store`.
        is_created: Whether to make the store where there is none.
    """
    import warnings

    import ckptlog
    from ckptlog.errors import DeniedError, ReadOnlyError, UnsupportedError
    from ckptlog.model.codec import OPAQUE

    # The program has no classes of its users: their objects are shown by name and content.
    is_new = is_created and path.name == PLACES[0].name and not (path / MARK).exists()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            store = ckptlog.open(path, create=is_created, codecs=OPAQUE)
        except (ReadOnlyError, UnsupportedError, DeniedError) as error:
            if not is_reading:
                if isinstance(error, ReadOnlyError):
                    raise _needs_writing(path, error) from error
                raise
            store = ckptlog.open(path, read_only=True, codecs=OPAQUE)
    for warning in caught:
        output.note(str(warning.message))
    if is_new:
        _hide_from_git(path)
    return store


def _needs_writing(path: Path, error: ReadOnlyError) -> ReadOnlyError:
    """Return what a command is told that writes, of a store that nobody can write here."""
    import shlex

    from ckptlog.errors import ReadOnlyError
    from ckptlog.formats.backup import NAME

    store = shlex.quote(str(path))
    if (path / NAME).exists():
        hint = f"Make a store of this backup, and write to that: ckptlog restore-store {store} DIR."
    else:
        hint = (
            "Make it writable, or work on a copy: "
            f"ckptlog --store {store} backup BACKUP, then ckptlog restore-store BACKUP DIR."
        )
    return ReadOnlyError(
        f"This command writes to the store. {error.message}", hint=hint, **error.context
    )


def _hide_from_git(path: Path) -> None:
    """Let git leave out a store in the tree that it saves; `git add -A` would take it."""
    with suppress(OSError), (path / ".gitignore").open("x", encoding="utf-8") as file:
        file.write("*\n")


def add_command(
    commands: Commands,
    name: str,
    run: Handler,
    *,
    about: str,
    **options: Any,
) -> argparse.ArgumentParser:
    """Add a command that takes the global options as well; `run` carries it out."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about, allow_abbrev=False, **options
    )
    add_global_options(parser)
    parser.set_defaults(run=run)
    return parser


def add_global_options(parser: argparse.ArgumentParser) -> None:
    """Add what may stand before and after the command's name.

    Suppressed defaults keep a command's parser from overwriting what stood before its name.
    """
    group = parser.add_argument_group("global options")
    group.add_argument(
        "--store",
        metavar="PATH",
        default=argparse.SUPPRESS,
        help="the store (default: $CKPTLOG_STORE, or the nearest one from here upwards)",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print JSON on stdout, and errors as JSON on stderr",
    )
