"""`ckptlog init`: make a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ckptlog.cli.command import Commands, Context, add_command, open_store
from ckptlog.cli.exit_status import OK
from ckptlog.cli.text import escape
from ckptlog.repository.discovery import MARK, PLACES, one_path

if TYPE_CHECKING:
    from ckptlog.repository.store import Store


def add_commands(commands: Commands) -> None:
    """Add `init`."""
    parser = add_command(commands, "init", run_init, about="make a store")
    parser.add_argument("path", nargs="?", metavar="PATH", help="where (default: .ckptlog)")


def run_init(context: Context) -> int:
    """Make a store; one that is there already stays as it is."""
    path = _target(context)
    was_there = (path / MARK).is_file()
    with open_store(path, context.output, is_reading=was_there, is_created=True) as store:
        answer = {
            "store": str(path.absolute()),
            "id": store.id,
            "created": not was_there,
            "events": store.position,
            "key": None if was_there else _key(context, store),
        }
    if context.output.is_json:
        context.output.document(answer)
        return OK
    verb = "There is already a store in" if was_there else "Made a store in"
    context.output.line(escape(f"{verb} {answer['store']} (id {answer['id']})."))
    if answer["key"]:
        context.output.line(escape(f"Its history will be signed by {answer['key']}"))
    return OK


def _key(context: Context, store: Store) -> str | None:
    """Make the key that signs the store's heads; a store without one is a store all the same."""
    from ckptlog.errors import CheckpointError

    try:
        return str(store.notary.make_key())
    except CheckpointError as error:
        context.output.note(f"no signing key was made: {error}")
        return None


def _target(context: Context) -> Path:
    named = one_path(context.arguments.path, "PATH", context.arguments.store)
    return context.directory / PLACES[0] if named is None else named
