"""`ckptlog cleanup`, `pin` and `unpin`: what goes by age or by rules, and what never does."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK, PARTIAL, status_of
from ckptlog.cli.moment import natural, positive
from ckptlog.cli.removal import told_failures

if TYPE_CHECKING:
    from ckptlog.manager.retention import CleanupPlan
    from ckptlog.policy.retention import Policy

_AGE_DAYS: Final = 30
_POLICY_BYTES_MAX: Final = 1024 * 1024
# Options that say a rule, and the key of a policy that each is.
_RULE: Final = {
    "keep_last": "keep_last",
    "keep_every": "keep_every",
    "keep_days": "keep_days",
    "keep_state": "keep_states",
    "keep_best": "keep_best",
}


def add_commands(commands: Commands) -> None:
    """Add `cleanup`, `pin` and `unpin`."""
    about = "delete old checkpoints, by age or by what to keep"
    parser = add_command(commands, "cleanup", run_cleanup, about=about)
    parser.add_argument(
        "--max-age-days",
        type=natural,
        metavar="N",
        help="delete what has ended and was not updated for N days (the default, with 30)",
    )
    _add_rules(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    for name, about in (
        ("pin", "keep clean-ups from deleting checkpoints"),
        ("unpin", "let clean-ups delete checkpoints again"),
    ):
        parser = add_command(commands, name, run_pin, about=about)
        parser.add_argument("checkpoints", nargs="+", metavar="ID")
        parser.set_defaults(is_pinned=name == "pin")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "rules", "with one of them, whatever no rule keeps goes, in every state"
    )
    add = group.add_argument
    add("--keep-last", type=natural, metavar="N", help="keep the newest N of each task")
    add("--keep-every", type=positive, metavar="K", help="keep steps that K divides")
    add("--keep-days", type=_days, metavar="N", help="keep what was updated within N days")
    add("--keep-state", action="append", metavar="STATE", help="keep what is in this state")
    add(
        "--keep-best",
        action="append",
        type=_best,
        metavar="METRIC:min|max[:N]",
        help="keep the N best by a number in the metadata",
    )
    add("--task", action="append", metavar="PATTERN", help="only tasks like this ('train-*')")
    add("--except-task", action="append", metavar="PATTERN", help="but none like this")
    add("--policy", metavar="FILE", help="a policy in a file, TOML or JSON")
    add(
        "--with-recovery-points",
        action="store_true",
        help="also delete what a task could be resumed from",
    )
    add("--with-pinned", action="store_true", help="also delete what is pinned")


def _days(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 365_000:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of days from 0 to 365000")
    return int(number) if number == int(number) else number


def _best(word: str) -> dict[str, Any]:
    from ckptlog.errors import ArgumentError
    from ckptlog.policy.retention_form import best_of

    try:
        return best_of(word)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(error.message) from None


# --- cleanup --------------------------------------------------------------------------------------


def run_cleanup(context: Context) -> int:
    """Delete by age or by rules, or with --dry-run only say what would go."""
    arguments = context.arguments
    policy = _policy(context)
    if policy is None and arguments.max_age_days is None:
        arguments.max_age_days = _AGE_DAYS
    if arguments.dry_run:
        return _tell(context, policy)
    return _clean_by_age(context) if policy is None else _clean_by_rules(context, policy)


def _policy(context: Context) -> Policy | None:
    """Return the policy that the options or a file say; None where the age alone decides."""
    from ckptlog.policy.retention_form import policy_of

    given = vars(context.arguments)
    rule = {key: given[name] for name, key in _RULE.items() if given[name] is not None}
    scope = {"tasks": given["task"], "except_tasks": given["except_task"]}
    scope = {key: value for key, value in scope.items() if value is not None}
    guards: dict[str, Any] = {
        key: False
        for key, name in (
            ("keep_recovery_points", "with_recovery_points"),
            ("keep_pinned", "with_pinned"),
        )
        if given[name]
    }
    if given["policy"] is not None:
        _refuse_with(context, "--policy", rule or scope or guards)
        _refuse_with(context, "--policy", given["max_age_days"] is not None)
        return _policy_in(given["policy"])
    if rule:
        _refuse_with(context, "--keep-...", given["max_age_days"] is not None)
        return policy_of({**rule, **scope, **guards})
    if scope or guards:
        context.parser.error("cleanup: --task, --except-task and --with-... need a --keep-... rule")
    return None


def _refuse_with(context: Context, option: str, others: object) -> None:
    if others:
        context.parser.error(f"cleanup: {option} says what stays; leave the other options away")


def _policy_in(path: str) -> Policy:
    """Return the policy in a file."""
    from ckptlog.errors import ArgumentError
    from ckptlog.policy.retention_form import policy_of

    try:
        return policy_of(_read(path))
    except ArgumentError as error:
        raise ArgumentError(
            f"{path}: {error.message}", hint=error.hint, **{**error.context, "path": path}
        ) from error


def _read(path: str) -> object:
    import json
    import tomllib

    from ckptlog.errors import ArgumentError
    from ckptlog.model.setting_group import without_repeats

    _refuse_fifo(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - "-" and /dev/stdin are no different
            raw = file.read(_POLICY_BYTES_MAX + 1)
        if len(raw) > _POLICY_BYTES_MAX:
            raise ArgumentError("It is too long for a policy.", argument="policy")
        words = raw.decode()
        is_json = path.endswith(".json") or words.lstrip().startswith("{")
        if is_json:
            return json.loads(words, object_pairs_hook=without_repeats)
        return tomllib.loads(words)
    except OSError as error:
        raise ArgumentError(f"It cannot be read: {error.strerror}.", argument="policy") from error
    except ArgumentError:  # a ValueError too
        raise
    except (ValueError, RecursionError) as error:
        raise ArgumentError(
            f"It is no TOML and no JSON: {error}.",
            hint="For example: keep_last = 5",
            argument="policy",
        ) from error


def _refuse_fifo(path: str) -> None:
    """Refuse a named pipe, which may have no writer ever; those of the shell have theirs."""
    from pathlib import Path

    from ckptlog.errors import ArgumentError

    is_fifo = False
    with suppress(OSError, ValueError):
        is_fifo = not path.startswith("/dev/") and Path(path).is_fifo()
    if is_fifo:
        raise ArgumentError(
            "It is a named pipe, not a file.",
            hint="Read a pipe from /dev/stdin.",
            argument="policy",
        )


def _clean_by_age(context: Context) -> int:
    age_days = context.arguments.max_age_days
    with context.manager() as manager:
        number = manager.cleanup_old_checkpoints(age_days)
    if context.output.is_json:
        answer = {"max_age_days": age_days, "is_dry_run": False, "deleted": number}
        context.output.document(answer)
    else:
        gone = text.count(number, "checkpoint")
        context.output.line(f"Deleted {gone} older than {text.count(age_days, 'day')}.")
    return OK


def _clean_by_rules(context: Context, policy: Policy) -> int:
    from ckptlog.cli.progress import Progress
    from ckptlog.manager.retention import sweep
    from ckptlog.policy.retention_form import form_of

    progress = Progress(context.output, "cleaning")
    with context.manager() as manager:
        try:
            done = sweep(manager, policy, progress=progress)
        finally:
            progress.close()
    kept = {reason: count for reason, count in sorted(done.kept.items()) if count > 0}
    if context.output.is_json:
        context.output.document(
            {
                "policy": form_of(policy),
                "is_dry_run": False,
                "deleted": done.deleted,
                "spared": done.spared,
                "kept": kept,
            }
        )
    else:
        stayed = text.count(sum(kept.values()), "checkpoint")
        context.output.line(f"Deleted {text.count(done.deleted, 'checkpoint')}; kept {stayed}.")
    if done.spared:
        context.output.note(
            f"{text.count(done.spared, 'checkpoint')} of tasks that change all the time are left; "
            "call again"
        )
    return PARTIAL if done.spared else OK


def _tell(context: Context, policy: Policy | None) -> int:
    from ckptlog.cli.progress import Progress

    output, age_days = context.output, context.arguments.max_age_days
    progress = Progress(output, "planning")
    with context.manager(is_reading=True) as manager:
        try:
            if policy is None:
                plan = manager.plan_cleanup(age_days, progress=progress)
            else:
                plan = manager.plan_cleanup(retention=policy, progress=progress)
        finally:
            progress.close()
    if output.is_json:
        asked = {"max_age_days": age_days} if policy is None else {}
        output.document({**asked, "is_dry_run": True, **plan.to_dict()})
        return OK
    for identifier in plan.checkpoints:
        output.line(text.escape(identifier))
    output.note(f"{text.count(len(plan.checkpoints), 'checkpoint')} would be deleted (--dry-run)")
    _tell_more(context, plan)
    return OK


def _tell_more(context: Context, plan: CleanupPlan) -> None:
    note = context.output.note
    if plan.kept:
        reasons = ", ".join(f"{count:,} ({text.escape(why)})" for why, count in plan.kept.items())
        note(f"kept: {reasons}")
    if plan.checkpoints:
        about = "about " if plan.is_estimate else ""
        note(f"only they hold {about}{text.size(plan.bytes)} in {plan.chunks:,} chunks")
        note(plan.note)


# --- pins -----------------------------------------------------------------------------------------


def run_pin(context: Context) -> int:
    """Pin or unpin each checkpoint; one that cannot be does not stop the others."""
    from ckptlog.errors import CheckpointError

    is_pinned = context.arguments.is_pinned
    done: list[str] = []
    failed: list[dict[str, Any]] = []
    statuses: set[int] = set()
    with context.manager() as manager:
        act = manager.pin_checkpoint if is_pinned else manager.unpin_checkpoint
        for identifier in dict.fromkeys(context.arguments.checkpoints):
            try:
                act(identifier)
                done.append(identifier)
            except CheckpointError as error:
                statuses.add(status_of(error))
                failed.append({"checkpoint_id": identifier, **error.to_dict()})
    word = "pinned" if is_pinned else "unpinned"
    if context.output.is_json:
        context.output.document({word: done, "failed": failed})
    else:
        for identifier in done:
            context.output.line(text.escape(f"{word.capitalize()} {identifier}."))
    return told_failures(context, len(done), failed, statuses, verb=word)
