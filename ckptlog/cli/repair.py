"""`ckptlog repair`: say what of the damage can be mended; mend it with --apply."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import CORRUPTION, OK, PARTIAL
from ckptlog.cli.output import Column, Output
from ckptlog.cli.progress import Progress
from ckptlog.cli.word import filled

if TYPE_CHECKING:
    from ckptlog.repository.mending import Mending

_FILES = (Column("file"), Column("action"), Column("brought back"), Column("events lost"),
          Column("chunks lost"), Column("original", is_prose=True))  # fmt: skip
_REFUSED = (Column("file left as it is"), Column("why", is_prose=True))
_HINT_APPLY = (
    "Keep a copy of the directory, then run `ckptlog repair --apply`; with --from COPY where there "
    "is a second copy of this store, or later, once there is one."
)
_HINT_REFUSED = (
    "Restore what is refused from a backup (`ckptlog restore-store`), or name a second copy of "
    "this store: ckptlog repair --apply --from COPY."
)
_HINT_LEFT = "Each says what to do; `ckptlog verify` names them again."
_HINT_LOSSES = (
    "A backup from before may have them: restore it beside this store (`ckptlog restore-store`), "
    "and repair once more with --from. The originals stay in quarantine."
)
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
        type=filled,
        metavar="STORE",
        help="a second copy of this store, to take damaged bytes from",
    )


def run_repair(context: Context) -> int:
    """Repair, or say what would be done.

    The status is 0 where the store is sound afterwards or was before; that of damaged data where a
    dry run finds something to do, or where damage is left; 1 where something was lost.
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
    for note in found.notes:
        output.line(f"note: {text.escape(note)}")
    if found.is_empty and found.ok:
        output.line("Nothing is damaged.")
        return
    rows = [
        (
            one.container,
            one.action,
            str(one.bits + one.copied),
            str(one.events_lost),
            str(one.chunks_lost),
            one.quarantine,
        )
        for one in found.files
        if one.action != "refused"
    ]
    if rows:
        output.table(_FILES, rows)
    if found.refused:
        output.table(_REFUSED, [(one.container, one.message) for one in found.refused])
    for problem in found.left:
        output.line(f"left: {text.escape(problem)}")
    _print_stretches(output, found)
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


def _print_stretches(output: Output, found: Mending) -> None:
    for word, stretches in (("lost", found.lost_positions), ("back", found.positions_back)):
        for first, last in stretches:
            stretch = str(first) if first == last else f"{first} to {last}"
            output.line(f"{word}: event {stretch}")
    if found.chunks_back:
        output.line(f"back: {text.count(len(found.chunks_back), 'chunk')}")


def _status(output: Output, found: Mending, *, is_applied: bool) -> int:
    if found.is_empty and found.ok:
        return OK
    if not is_applied and _is_work(found):
        output.fault(_fault(found, "corruption.detected", _possible(found), _HINT_APPLY))
        return CORRUPTION
    if found.refused:
        will = "was" if is_applied else "would be"
        message = f"{_number(found.refused)} of {found.store} cannot be mended, and {will} left as "
        message += f"{'it is' if len(found.refused) == 1 else 'they are'}{_losses(found)}."
        output.fault(_fault(found, "repair.refused", message, _HINT_REFUSED))
        return CORRUPTION
    if not found.ok:
        number = text.count(found.problems_after_total, "problem")
        message = f"{number} of {found.store} no repair mends{_losses(found)}."
        output.fault(_fault(found, "repair.left", message, _HINT_LEFT))
        return CORRUPTION
    if not found.lost_chunks and not found.lost_positions:
        return OK
    message = f"The store {found.store} has lost {_lost(found)}."
    output.fault(_fault(found, "repair.losses", message, _HINT_LOSSES))
    return PARTIAL


def _is_work(found: Mending) -> bool:
    """Say whether `--apply` would change anything."""
    is_mendable = len(found.refused) < len(found.files)
    return is_mendable or found.has_news or found.views != "kept"


def _possible(found: Mending) -> str:
    number = len(found.files) - len(found.refused)
    what = f"{text.count(number, 'file')} of {found.store} can be mended"
    if not number:
        what = f"The views of {found.store} can be rebuilt"
    if found.refused:
        what += f", {len(found.refused)} cannot"
    return f"{what}; nothing was changed."


def _number(files: Sequence[object]) -> str:
    return text.count(len(files), "file")


def _losses(found: Mending) -> str:
    has_lost = found.lost_positions or found.lost_chunks
    return f"; lost: {_lost(found)}" if has_lost else ""


def _lost(found: Mending) -> str:
    events, chunks = found.events_lost, len(found.lost_chunks)
    return f"{text.count(events, 'event')} and {text.count(chunks, 'chunk')}"


def _fault(found: Mending, code: str, message: str, hint: str) -> dict[str, object]:
    facts = {**found.facts(), "refused": len(found.refused)}
    return {"code": code, "message": message, "hint": hint, "context": facts}
