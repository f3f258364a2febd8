"""What `ckptlog recover --abandon` does, and which system is meant.

It is the way out of a recovery that can neither be finished nor undone: its captures were deleted
or are damaged, or only a program that is gone could restore a component.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Context
from ckptlog.cli.exit_status import OK
from ckptlog.cli.question import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.manager.unfinished import Unfinished
    from ckptlog.recovery.progress import RecoveryProgress
    from ckptlog.recovery.recovery import Recovery


def system_named(context: Context, manager: CheckpointManager) -> str:
    """Return the system that is named, or the only one."""
    from ckptlog.capture.catalogue import Catalogue, systems
    from ckptlog.errors import ArgumentError, CheckpointNotFoundError

    named: str | None = context.arguments.system
    if named is not None and Catalogue(manager.store, named).latest() is not None:
        return named
    found = systems(manager.store)
    if not found:
        raise CheckpointNotFoundError(
            "The store has no captures.",
            hint="`ckptlog capture DIR` takes one of a directory; a service takes its own.",
        )
    more = "" if len(found) <= 10 else f" and {len(found) - 10:,} more"
    listed = f"{', '.join(found[:10])}{more}."
    if named is not None:
        raise CheckpointNotFoundError(
            f"The store has no captures of a system {named!r}.",
            hint=f"It has some of {listed}",
            systems=found[:100],
        )
    if len(found) > 1:
        raise ArgumentError(
            f"The store has captures of {len(found):,} systems: {listed}",
            hint="Choose one: --system NAME.",
            systems=found[:100],
        )
    return found[0]


def unfinished_system(context: Context, manager: CheckpointManager) -> str:
    """Return the system that is meant; one with an unfinished recovery needs no captures."""
    from ckptlog.manager.unfinished import Trace

    named: str | None = context.arguments.system
    if named and Trace(manager.store, named).unfinished() is not None:
        return named
    return system_named(context, manager)


def abandon(context: Context, manager: CheckpointManager) -> int:
    """End an unfinished recovery, and say what state everything is in."""
    system = unfinished_system(context, manager)
    recovery = _recovery(manager, system)
    found = recovery.unfinished()
    if found is None:
        return tell_none(context, system)
    ask(context, f"Give up the recovery {found.id} of {system}? Everything stays as it is now.")
    done = recovery.abandon()
    if done is None:  # another process was faster
        return tell_none(context, system)
    if context.output.is_json:
        context.output.document({**done.to_dict(), "untouched": _untouched(found)})
    else:
        _tell(context, found, done)
    return OK


def _recovery(manager: CheckpointManager, system: str) -> Recovery:
    """Return a recovery with what a capture tells of its components: it knows their places."""
    from pathlib import Path

    from ckptlog.capture.capturer import Capturer
    from ckptlog.capture.catalogue import capture_of
    from ckptlog.errors import CheckpointError
    from ckptlog.manager.unfinished import Trace
    from ckptlog.recovery.described import described
    from ckptlog.recovery.recovery import Recovery

    found = Trace(manager.store, system).unfinished()
    parts: list[Any] = []
    for name in () if found is None else (found.safety, found.capture):
        try:
            info = capture_of(manager.store, name) if name else None
        except CheckpointError:  # damaged: it is given up all the same
            continue
        if info is not None:
            parts = list(described(info, Path(manager.store.path).absolute()).values())
            break
    return Recovery(Capturer(manager, system, parts or None))


def _untouched(found: Unfinished) -> list[str] | None:
    """Return what is as it was before; None where nobody can list it: all but what is told."""
    if found.names is None:
        return None
    return [name for name in found.names if name not in found.touched]


def _tell(context: Context, found: Unfinished, done: RecoveryProgress) -> None:
    def line(words: str) -> None:
        context.output.line(text.escape(words))

    line(f"Given up: the recovery {found.id} of {done.system} to {found.capture}.")
    if done.restored:
        line(f"restored, as in the capture: {_listed(done.restored)}")
    if done.mixed:
        line(f"may be half restored: {_listed(done.mixed)}")
    untouched = _untouched(found)
    if untouched is None:
        line("as before: everything else" if found.touched else "as before: everything")
    elif untouched:
        line(f"as before: {_listed(untouched)}")
    for error in done.errors:
        context.output.note(error)
    if done.safety_id:
        line(f"What was there before it: ckptlog recover {done.safety_id}")
    else:
        context.output.note("there is no safety capture of what was there before it")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def tell_none(context: Context, system: str) -> int:
    """Say that no recovery is unfinished."""
    if context.output.is_json:
        context.output.document({"status": "none", "system": system})
    else:
        context.output.line(text.escape(f"No recovery of {system} is unfinished."))
    return OK
