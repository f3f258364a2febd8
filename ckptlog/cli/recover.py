"""`ckptlog recover`: bring what a capture describes back to what it was, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import CONFLICT, OK, PARTIAL
from ckptlog.cli.moment import point
from ckptlog.cli.progress import Progress
from ckptlog.cli.question import ask
from ckptlog.cli.unfinished import abandon, system_named, tell_none, unfinished_system
from ckptlog.cli.word import filled, given_again
from ckptlog.recovery.ending import interruptible

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.manager.unfinished import Unfinished
    from ckptlog.model.capture import CaptureInfo
    from ckptlog.model.component import Plan
    from ckptlog.recovery.progress import RecoveryProgress
    from ckptlog.recovery.recovery import Recovery

_CHANGES_SHOWN = 20
_MARKS = {"add": "+", "remove": "-", "change": "~"}
_STYLES = {"add": "ok", "remove": "error", "change": "warning"}


def add_commands(commands: Commands) -> None:
    """Add `recover`."""
    parser = add_command(
        commands,
        "recover",
        run_recover,
        about="bring a system's directories, databases and files back to a capture",
        epilog="What is there is captured first (a safety capture), and put back if anything "
        "fails. State that only its program has is named, and restored by "
        "service.recover_from_checkpoint(); --to writes it as JSON.",
    )
    parser.add_argument(
        "capture",
        nargs="?",
        type=filled,
        metavar="CAPTURE",
        help="its id (default: the system's newest)",
    )
    parser.add_argument(
        "--at", type=point, metavar="TIME|POSITION", help="the newest capture not after that"
    )
    parser.add_argument(
        "--system", type=filled, metavar="NAME", help="the system (default: the only one)"
    )
    parser.add_argument(
        "--component",
        action="append",
        type=filled,
        metavar="NAME",
        help="only this component; may be repeated",
    )
    parser.add_argument(
        "--to", type=filled, metavar="DIR", help="restore there, and leave the system as it is"
    )
    parser.add_argument(
        "-y",
        "--yes",
        action="store_true",
        help="do not ask; needed where there is no terminal, unless --json is given",
    )
    parser.add_argument(
        "--no-safety",
        action="store_true",
        help="do not save what is there first: for what can no longer be captured",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--dry-run", action="store_true", help="say what would change, and change nothing"
    )
    how.add_argument(
        "--resume", action="store_true", help="finish a recovery that ended in the middle"
    )
    how.add_argument("--roll-back", action="store_true", help="undo one that ended in the middle")
    how.add_argument(
        "--abandon",
        action="store_true",
        help="give up one that ended in the middle: everything stays as it is now",
    )


@dataclass(frozen=True)
class _Chosen:
    """What is restored: of which capture, by whom; names; what only the program can restore."""

    info: CaptureInfo
    recovery: Recovery
    names: tuple[str, ...]
    left: tuple[str, ...]


def run_recover(context: Context) -> int:
    """Recover, or say what a recovery would do."""
    from ckptlog.repository.output_file import refuse_house

    arguments = context.arguments
    _check(context)
    if arguments.to is not None:
        refuse_house(context.directory / arguments.to, "to")
    with context.manager(is_reading=arguments.dry_run or arguments.to is not None) as manager:
        if arguments.abandon:
            return abandon(context, manager)
        if arguments.resume or arguments.roll_back:
            return _end_unfinished(context, manager)
        chosen = _choose(context, manager)
        if arguments.dry_run:
            return _tell_plans(context, chosen, _recover(context, chosen))
        if arguments.to is None:
            ask(context, f"Restore {_places(chosen)} as in {chosen.info.id}?")
        return _tell(context, chosen, _recover(context, chosen))


def _check(context: Context) -> None:
    """Refuse options that do not go together."""
    from ckptlog.errors import ArgumentError

    arguments = context.arguments
    if arguments.capture and arguments.at is not None:
        raise ArgumentError("CAPTURE and --at name two captures.", hint="Give one of them.")
    if arguments.dry_run and arguments.to:
        raise ArgumentError(
            "--dry-run says what would change in place; --to changes nothing there.",
            hint="Give one of them.",
        )
    of_unfinished = arguments.resume or arguments.roll_back or arguments.abandon
    more = ["capture", "component", "to", *(["no_safety"] if arguments.abandon else [])]
    is_more = arguments.at is not None or any(getattr(arguments, name) for name in more)
    if of_unfinished and is_more:
        raise ArgumentError(
            "What an unfinished recovery restores is known already.",
            hint="Give it without CAPTURE, --at, --component, --to.",
        )


# --- choosing -----------------------------------------------------------------------------------


def _choose(context: Context, manager: CheckpointManager) -> _Chosen:
    from ckptlog.recovery.described import described, everything

    arguments = context.arguments
    info = _info(context, manager)
    store = Path(manager.store.path).absolute()
    wanted = tuple(dict.fromkeys(arguments.component or info.components))
    if unknown := [name for name in wanted if name not in info.components]:
        raise _unknown_component(info, unknown[0])
    if arguments.to is not None:
        made = _recovery(manager, info.system, everything(info, store))
        return _Chosen(info, made, wanted, ())
    known = described(info, store)
    left = tuple(name for name in wanted if name not in known)
    names = tuple(name for name in wanted if name in known)
    if not names or (arguments.component and left):
        raise _only_its_program(info, left)
    return _Chosen(info, _recovery(manager, info.system, list(known.values())), names, left)


def _info(context: Context, manager: CheckpointManager) -> CaptureInfo:
    """Return the capture that the arguments name."""
    from ckptlog.capture.catalogue import capture_of
    from ckptlog.errors import CheckpointNotFoundError

    arguments = context.arguments
    if arguments.capture:
        info = capture_of(manager.store, arguments.capture)
        if info is None or arguments.system not in {None, info.system}:
            where = f"System {arguments.system!r}" if arguments.system else "The store"
            raise CheckpointNotFoundError(
                f"{where} has no capture {arguments.capture!r}.",
                hint="`ckptlog list` shows what is there; a capture's task is its system.",
                checkpoint_id=arguments.capture,
            )
        return info
    return _recovery(manager, system_named(context, manager), []).find(at=arguments.at)


def _recovery(manager: CheckpointManager, system: str, components: Sequence[Any]) -> Recovery:
    from ckptlog.capture.capturer import Capturer
    from ckptlog.recovery.recovery import Recovery

    return Recovery(Capturer(manager, system, components or None))


def _unknown_component(info: CaptureInfo, name: str) -> Exception:
    from ckptlog.errors import NoSuchPartError

    return NoSuchPartError(
        f"Capture {info.id} has no component {name!r}.",
        hint=f"It has {', '.join(info.components)}.",
        checkpoint_id=info.id,
        component=name,
    )


def _only_its_program(info: CaptureInfo, left: Sequence[str]) -> Exception:
    from ckptlog.errors import RecoveryRefusedError

    return RecoveryRefusedError(
        f"Only the program of system {info.system!r} can restore {', '.join(left)}.",
        hint="There: service.recover_from_checkpoint(). Here: --to DIR writes values as JSON.",
        left=list(left),
        system=info.system,
    )


def _places(chosen: _Chosen) -> str:
    return ", ".join(f"{name} ({_place(chosen.info, name)})" for name in chosen.names)


def _place(info: CaptureInfo, name: str) -> str:
    one = info.components[name]
    path = one.location.get("path", "")
    return f"{one.kind} {path}" if path else one.kind


# --- doing --------------------------------------------------------------------------------------


def _recover(context: Context, chosen: _Chosen) -> RecoveryProgress:
    arguments = context.arguments
    with interruptible(), _Bar(context) as bar:
        return chosen.recovery.recover(
            chosen.info.id,
            components=chosen.names,
            dry_run=arguments.dry_run,
            to=None if arguments.to is None else context.directory / arguments.to,
            safety=not arguments.no_safety,
            on_progress=bar,
        )


class _Bar:
    """Draws the pictures of a recovery as a bar."""

    def __init__(self, context: Context) -> None:
        self._progress = Progress(context.output, "recover", is_bytes=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()

    def __call__(self, now: RecoveryProgress) -> None:
        if now.bytes_total:
            self._progress(now.bytes, now.bytes_total)


def _end_unfinished(context: Context, manager: CheckpointManager) -> int:
    """Finish, or undo, a recovery that ended in the middle."""
    from ckptlog.recovery.described import described

    system, is_resumed = unfinished_system(context, manager), context.arguments.resume
    found = _recovery(manager, system, []).unfinished()
    if found is None:
        return tell_none(context, system)
    info = _known(manager, found, is_resumed=is_resumed)
    known = described(info, Path(manager.store.path).absolute())
    names = (found.names or tuple(info.components)) if is_resumed else tuple(found.touched)
    if left := [name for name in names if name not in known]:
        raise _only_its_program(info, left)
    chosen = _Chosen(info, _recovery(manager, system, list(known.values())), names, ())
    verb = "Finish" if is_resumed else "Undo"
    ask(context, f"{verb} the recovery of {_places(chosen) or 'nothing yet'}?")
    with interruptible(), _Bar(context) as bar:
        act = chosen.recovery.resume if is_resumed else chosen.recovery.roll_back
        done = act(on_progress=bar, safety=not context.arguments.no_safety)
    return tell_none(context, system) if done is None else _tell(context, chosen, done)


def _known(manager: CheckpointManager, found: Unfinished, *, is_resumed: bool) -> CaptureInfo:
    """Return the capture that describes what an unfinished recovery is of."""
    from ckptlog.capture.catalogue import capture_of
    from ckptlog.errors import CheckpointNotFoundError

    for name in (found.capture,) if is_resumed else (found.capture, found.safety):
        if name and (info := capture_of(manager.store, name)) is not None:
            return info
    raise CheckpointNotFoundError(
        f"The capture {found.capture} of the unfinished recovery was deleted.",
        hint="--roll-back goes back to the safety capture, where there is one; --abandon ends the "
        "recovery, and leaves everything as it is.",
        checkpoint_id=found.capture,
    )


# --- telling ------------------------------------------------------------------------------------


def _fields(chosen: _Chosen, done: RecoveryProgress) -> dict[str, Any]:
    where = {name: dict(one.location) for name, one in chosen.info.components.items()}
    return {
        **done.to_dict(),
        "number": chosen.info.number,
        "captured_at": chosen.info.to_dict()["created_at"],
        "locations": {name: where[name] for name in chosen.names},
        "left": list(chosen.left),
    }


def _tell(context: Context, chosen: _Chosen, done: RecoveryProgress) -> int:
    output = context.output
    if output.is_json:
        output.document({**_fields(chosen, done), "to": context.arguments.to})
    else:
        _tell_words(context, chosen, done)
    if not chosen.left:
        return OK
    output.fault(
        {
            "code": "cli.partial",
            "message": f"Not restored: {', '.join(chosen.left)}.",
            "hint": "Only the program itself can: service.recover_from_checkpoint"
            f"({chosen.info.id!r}). --component NAME restores the others alone.",
            "context": {"left": list(chosen.left), "capture_id": chosen.info.id},
        }
    )
    return PARTIAL


def _tell_words(context: Context, chosen: _Chosen, done: RecoveryProgress) -> None:
    import shlex

    output = context.output
    for error in (*done.warnings, *done.errors):
        output.note(error)
    if done.rolled_back:
        output.line(text.escape(f"Rolled back: {_places(chosen) or 'nothing was touched'}."))
        return
    to = context.arguments.to
    for name in done.restored:
        place = f"{chosen.info.components[name].kind} in {to}" if to else _place(chosen.info, name)
        output.line(f"{output.paint('restored', 'ok')} {text.escape(f'{name} ({place})')}")
    output.line(text.escape(f"As in {chosen.info.id}: {text.size(done.bytes_total)} restored."))
    if done.unverified:
        output.note(f"could not be compared: {', '.join(done.unverified)}")
    if done.safety_id:
        undo = shlex.join([done.safety_id, *given_again(context.arguments, ("store",))])
        output.line(text.escape(f"To undo this: ckptlog recover {undo}"))
    if anew := [name for name in done.restored if name in done.missing and not to]:
        places = ", ".join(f"{name} ({_place(chosen.info, name)})" for name in anew)
        output.line(text.escape(f"Then this is missing again, as before: {places}"))


def _tell_plans(context: Context, chosen: _Chosen, done: RecoveryProgress) -> int:
    output = context.output
    if output.is_json:
        output.document(_fields(chosen, done))
    else:
        _tell_plans_in_words(context, chosen, done)
    if not done.errors:
        return OK
    output.fault(
        {
            "code": "recovery.refused",
            "message": " ".join(done.errors),
            "hint": "Nothing was touched; a recovery would refuse this.",
            "context": {"capture_id": chosen.info.id, "faults": list(done.errors)},
        }
    )
    return CONFLICT


def _tell_plans_in_words(context: Context, chosen: _Chosen, done: RecoveryProgress) -> None:
    output, info = context.output, chosen.info
    taken = text.instant(info.created_at)
    output.line(text.escape(f"{info.id}: capture {info.number} of {info.system}, {taken}"))
    for name in chosen.names:
        head = f"{name} ({_place(info, name)}), {text.size(info.components[name].size)}"
        plan = done.plans.get(name)
        said = plan.summary if plan is not None else "what changes cannot be told"
        output.line(text.escape(f"{head}: {said}"))
        if plan is not None:
            _tell_changes(context, plan)
    for warning in done.warnings:
        output.note(warning)
    for name in chosen.left:
        kind = info.components[name].kind
        output.line(text.escape(f"{name} ({kind}): only its program can restore it"))
    pace = "" if done.estimated_s is None else f", about {max(done.estimated_s, 0.1):.1f} s"
    output.line(f"{text.size(done.bytes_total)} to read{pace}. Nothing was changed.")


def _tell_changes(context: Context, plan: Plan) -> None:
    output = context.output
    for one in plan.changes[:_CHANGES_SHOWN]:
        mark = output.paint(_MARKS.get(one.kind, " "), _STYLES.get(one.kind, ""))
        output.line(f"  {mark} {text.escape(one.path)}")
    if (more := len(plan.changes) - _CHANGES_SHOWN) > 0:
        output.line(f"    and {more:,} more (--json lists all)")
