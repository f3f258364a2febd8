"""`ckptlog consumers`: who reads this store's events, how far they are, and moving them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import NOT_FOUND, OK
from ckptlog.cli.moment import place
from ckptlog.cli.output import Column

if TYPE_CHECKING:
    from ckptlog.watch.consumer import ConsumerStatus

_COLUMNS = (
    Column("consumer"),
    Column("position", is_number=True),
    Column("lag", is_number=True),
    Column("acknowledged"),
    Column("read by"),
    Column("fault"),
)


def add_commands(commands: Commands) -> None:
    """Add `consumers`, which lists them, with `reset` and `remove`."""
    parser = add_command(
        commands, "consumers", run_list, about="list, move or forget consumers of events"
    )
    _add_cursors(parser)
    acts = parser.add_subparsers(title="acts", metavar="ACT", dest="act")
    listing = add_command(acts, "list", run_list, about="list the named consumers (the default)")
    reset = add_command(acts, "reset", run_reset, about="move a consumer that is not at work")
    reset.add_argument("consumer", metavar="NAME")
    reset.add_argument(
        "--start",
        type=place,
        default="beginning",
        metavar="PLACE",
        help="beginning (the default), end, a position, or a time",
    )
    remove = add_command(acts, "remove", run_remove, about="forget a consumer")
    remove.add_argument("consumer", metavar="NAME")
    for each in (listing, reset, remove):
        _add_cursors(each)


def _add_cursors(parser: argparse.ArgumentParser) -> None:
    # Suppressed: a default of an act would overwrite what stood before it.
    parser.add_argument(
        "--cursors", metavar="DIR", default=argparse.SUPPRESS, help="where the cursors lie"
    )


def _folder(context: Context) -> Path | None:
    cursors = getattr(context.arguments, "cursors", None)
    return Path(cursors) if cursors else None


def run_list(context: Context) -> int:
    """Print each consumer with its position, its lag, and who reads as it."""
    output = context.output
    with context.store(is_reading=True) as store:
        found = store.watcher.consumers(_folder(context))
    if output.is_json:
        for one in found:
            output.item(_fields(one))
    elif found:
        output.table(_COLUMNS, [_row(one) for one in found])
    else:
        output.note("no named consumer")
    return OK


def run_reset(context: Context) -> int:
    """Move a consumer, whatever its cursor was."""
    name, output = context.arguments.consumer, context.output
    with context.store() as store:
        position = store.watcher.reset(name, context.arguments.start, _folder(context))
    if output.is_json:
        output.document({"consumer": name, "position": position})
    else:
        output.line(f"{text.escape(name)} begins at position {position:,}.")
    return OK


def run_remove(context: Context) -> int:
    """Forget a consumer."""
    name, output = context.arguments.consumer, context.output
    with context.store() as store:
        is_removed = store.watcher.remove(name, _folder(context))
    if output.is_json:
        output.document({"consumer": name, "removed": is_removed})
    else:
        said = "is forgotten" if is_removed else "is not known"
        output.line(f"{text.escape(name)} {said}.")
    return OK if is_removed else NOT_FOUND


def _fields(one: ConsumerStatus) -> dict[str, Any]:
    from msgspec.structs import asdict

    return asdict(one)


def _row(one: ConsumerStatus) -> tuple[object, ...]:
    from datetime import UTC, datetime

    when = "-"
    if one.updated_us:
        when = text.instant(datetime.fromtimestamp(one.updated_us / 1e6, UTC))
    position = "-" if one.position is None else one.position
    lag = "-" if one.lag is None else one.lag
    return one.name, position, lag, when, one.holder or "-", one.fault or "-"
