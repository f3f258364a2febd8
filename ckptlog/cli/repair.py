"""`ckptlog repair`: say what of the damage can be mended; mend it with --apply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import CORRUPTION, OK, PARTIAL
from ckptlog.cli.output import Column, Output
from ckptlog.cli.progress import Progress

if TYPE_CHECKING:
    from ckptlog.repository.mending import Mending

_FILES = (Column("file"), Column("action"), Column("brought back"), Column("events lost"),
          Column("chunks lost"), Column("original", is_prose=True))  # fmt: skip
_AFFECTED = (Column("checkpoint"), Column("task"), Column("go on from"))


def add_commands(commands: Commands) -> None:
    """Add `repair`."""
    parser = add_command(
        commands, "repair", run_repair, about="save what can be saved of a damaged store"
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--apply", action="store_true", help="do it; without this nothing is changed"
    )
    choice.add_argument(
        "--dry-run", action="store_true", help="only say what would be done (this is the default)"
    )
    parser.add_argument(
        "--from",
        dest="copy",
        metavar="STORE",
        help="a second copy of this store, to take damaged bytes from",
    )


def run_repair(context: Context) -> int:
    """Repair, or say what would be done.

    The status is 0 where the store is sound afterwards or was before; that of damaged data where a
    dry run finds something to do; 1 where something could not be mended, or was lost.
    """
    from ckptlog.repository.repair import repair

    output, path = context.output, context.store_path()
    given = context.arguments
    progress = Progress(output, "verify", is_bytes=True)
    try:
        found = repair(
            path,
            is_applied=given.apply,
            copy=Path(given.copy) if given.copy else None,
            progress=progress,
        )
    finally:
        progress.close()
    if output.is_json:
        output.document(found.to_dict())
    else:
        _print(output, found)
    return _status(output, found, is_applied=given.apply)


def _print(output: Output, found: Mending) -> None:
    if found.is_empty:
        output.line("Nothing is damaged.")
        return
    rows = [
        (
            one.container,
            one.action,
            str(one.bits + one.copied),
            str(one.events_lost),
            str(one.chunks_lost),
            one.quarantine or one.message,
        )
        for one in found.files
    ]
    if rows:
        output.table(_FILES, rows)
    for first, last in found.lost_positions:
        stretch = str(first) if first == last else f"{first} to {last}"
        output.line(f"lost: event {stretch}")
    if found.named:
        output.line(f"lost events name: {', '.join(map(text.escape, found.named))}")
    if found.affected:
        output.line("The present state of these checkpoints cannot be read:")
        output.table(
            _AFFECTED, [(one.checkpoint, one.task, one.recovery_point) for one in found.affected]
        )
    if found.past:
        output.line(f"Past states are lost of: {', '.join(map(text.escape, found.past))}")
    output.line(f"views: {found.views}")


def _status(output: Output, found: Mending, *, is_applied: bool) -> int:
    if found.is_empty:
        return OK
    if not is_applied:
        output.fault(
            {
                "code": "corruption.detected",
                "message": f"{text.count(len(found.files), 'file')} of {found.store} can be "
                "worked on; nothing was changed.",
                "hint": "Keep a copy of the directory, then run `ckptlog repair --apply`.",
                "context": {"files": len(found.files)},
            }
        )
        return CORRUPTION
    if found.ok and not found.lost_chunks and not found.lost_positions:
        return OK
    output.fault(
        {
            "code": "repair.losses",
            "message": f"The store {found.store} has lost {text.count(found.events_lost, 'event')} "
            f"and {text.count(len(found.lost_chunks), 'chunk')}.",
            "hint": "A backup may have them: ckptlog repair --apply --from COPY, before the "
            "originals in quarantine are removed.",
            "context": dict(found.facts()),
        }
    )
    return PARTIAL
