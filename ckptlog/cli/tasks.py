"""`ckptlog tasks`: which tasks were in work at a crash, where each goes on, and claiming one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.moment import positive, seconds
from ckptlog.cli.output import Column

if TYPE_CHECKING:
    from ckptlog.manager.interruption import InterruptedTask
    from ckptlog.recovery.task_recovery import Outcome, ResumedTask, TaskRecovery

_COLUMNS = (
    Column("task"),
    Column("step", is_number=True),
    Column("state"),
    Column("recovery point"),
    Column("tried", is_number=True),
    Column("held by"),
    Column("why", is_prose=True),
)
_CANDIDATES = (
    Column("checkpoint"),
    Column("step", is_number=True),
    Column("state"),
    Column("why", is_prose=True),
)
_TTL_S = 3600.0


def add_commands(commands: Commands) -> None:
    """Add `tasks`."""
    about = "tasks that a crash interrupted: where each goes on, and who takes it"
    parser = add_command(commands, "tasks", run_list, about=about)
    parser.set_defaults(patterns=[], failed=False, quiet=0.0, limit=None)
    acts = parser.add_subparsers(title="acts", metavar="ACT", dest="act")
    listed = add_command(acts, "list", run_list, about="list interrupted tasks (the default)")
    listed.add_argument("patterns", nargs="*", metavar="PATTERN", help='such as "job-*"')
    listed.add_argument("--limit", type=positive, metavar="N", help="at most N")
    _add_choice(listed)
    shown = add_command(acts, "show", run_show, about="say how a task's recovery point was chosen")
    shown.add_argument("task", metavar="TASK")
    claim = add_command(
        acts,
        "claim",
        run_claim,
        about="resume a task under a lease, for a program that goes on with it",
        epilog="The lease (`lease` of --json) is for `adopt_lease`; it outlives this command, and "
        "ends after --ttl or by `ckptlog leases release TASK --force`.",
    )
    claim.add_argument("task", nargs="?", metavar="TASK")
    claim.add_argument(
        "--next", action="store_true", help="the first one by name that this worker may have"
    )
    claim.add_argument("--worker", metavar="ID", help="who goes on with it (default: user@host)")
    claim.add_argument(
        "--ttl", type=seconds, default=_TTL_S, metavar="S", help="of the lease (default: 3600 s)"
    )
    claim.add_argument(
        "--attempts-max",
        type=positive,
        default=4,
        metavar="N",
        help="of all workers from one place; then the task is given up (default: 4)",
    )
    claim.add_argument(
        "--worker-attempts-max",
        type=positive,
        default=2,
        metavar="N",
        help="of one worker; then another has to (default: 2)",
    )
    _add_choice(claim)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--failed", action="store_true", help="also tasks whose latest checkpoint failed"
    )
    parser.add_argument(
        "--quiet",
        type=seconds,
        default=0.0,
        metavar="S",
        help="not those that changed in the last S seconds: who works without a lease cannot be "
        "told from who died",
    )


def run_list(context: Context) -> int:
    """Print the tasks that a crash interrupted, by name."""
    arguments, output = context.arguments, context.output
    with context.manager(is_reading=True) as manager:
        found = manager.find_interrupted_tasks(
            tasks=arguments.patterns,
            quiet_s=arguments.quiet,
            include_failed=arguments.failed,
            limit=arguments.limit,
        )
    if output.is_json:
        for one in found:
            output.item(one.to_dict())
    elif found:
        output.table(_COLUMNS, [_row(one) for one in found])
    else:
        output.note("no task was interrupted")
    if arguments.limit is not None and len(found) == arguments.limit:
        output.note(f"there may be more (--limit {arguments.limit})")
    return OK


def _row(one: InterruptedTask) -> tuple[object, ...]:
    total = "?" if one.total_steps is None else one.total_steps
    return (
        one.task_id,
        f"{one.step_number}/{total}",
        one.state,
        one.recovery_point or "none",
        len(one.attempts),
        one.former_holder or "nobody",
        one.reason,
    )


def run_show(context: Context) -> int:
    """Say of one task which checkpoints were looked at, and why one was chosen."""
    task, output = context.arguments.task, context.output
    with context.manager(is_reading=True) as manager:
        found = manager.look_at_task(task, include_failed=True)
        grant = manager.live_grant(task)
    if found is None:
        hint = "`ckptlog tasks` lists those that are; `ckptlog list --task` shows its checkpoints."
        held = "" if grant is None else f"; {grant.holder!r} holds it"
        return context.absent(f"Task {task!r} is not interrupted{held}.", hint, task_id=task)
    if output.is_json:
        output.document(found.to_dict())
        return OK
    output.details(
        {
            "task": found.task_id,
            "title": found.title,
            "state": found.state if found.begun else f"{found.state}, not begun",
            "step": found.step_number,
            "of": found.total_steps,
            "updated": found.updated_at,
            "held by": found.former_holder,
            "tried": ", ".join(f"{one.worker} at {one.at}" for one in found.attempts),
            "recovery point": found.recovery_point,
            "why": found.reason,
        }
    )
    output.line()
    output.table(
        _CANDIDATES,
        [
            (one["checkpoint_id"], one["step_number"], one["state"], one["reason"])
            for one in found.candidates
        ],
    )
    return OK


def run_claim(context: Context) -> int:
    """Resume a task for a worker, and hand over its lease and its data."""
    from ckptlog.errors import ArgumentError
    from ckptlog.recovery.task_recovery import TaskRecovery

    arguments = context.arguments
    if (arguments.task is None) != arguments.next:
        raise ArgumentError(
            "Either TASK or --next says which task.", hint="Give one of them.", argument="task"
        )
    with context.manager() as manager:
        recovery = TaskRecovery(
            manager,
            arguments.worker or manager.actor,
            ttl_s=arguments.ttl,
            attempts_max=arguments.attempts_max,
            worker_attempts_max=arguments.worker_attempts_max,
            include_failed=arguments.failed,
            background=False,
            shared=True,  # who goes on is another process
        )
        if arguments.next:
            task = recovery.claim_next(quiet_s=arguments.quiet)
            if task is None:
                hint = "`ckptlog tasks` lists what was interrupted, and who has had its tries."
                return context.absent("There is no task that this worker may have.", hint)
        else:
            task = _claimed(recovery, arguments.task)
        return _tell(context, task)


def _claimed(recovery: TaskRecovery, name: str) -> ResumedTask:
    outcome = recovery.claim(name)
    if outcome.task is None:
        raise _refused(name, outcome)
    return outcome.task


def _refused(task: str, outcome: Outcome) -> Exception:
    """Return the error of a claim that came to nothing."""
    from ckptlog.errors import CheckpointNotFoundError, LeaseHeldError, TaskGivenUpError
    from ckptlog.recovery.task_recovery import HELD, NOT_INTERRUPTED

    where: dict[str, Any] = {"task_id": task, "action": outcome.action}
    if outcome.action == HELD:
        return LeaseHeldError(
            outcome.reason, hint="`ckptlog leases` shows who has it, until when.", **where
        )
    if outcome.action == NOT_INTERRUPTED:
        return CheckpointNotFoundError(
            f"Task {task!r} is not interrupted: {outcome.reason}.",
            hint="`ckptlog tasks` lists those that are (--failed: also those that failed).",
            **where,
        )
    return TaskGivenUpError(
        f"Task {task!r} is not resumed ({outcome.action}): {outcome.reason}.",
        hint="Another worker may have it (--worker), `ckptlog tasks show TASK` says more.",
        **where,
    )


def _tell(context: Context, task: ResumedTask) -> int:
    import msgspec

    output, checkpoint = context.output, task.checkpoint
    if output.is_json:
        told = checkpoint.to_dict()
        output.document(
            {
                "task_id": task.task_id,
                "action": task.action,
                "reason": task.reason,
                "attempt": task.attempt,
                "lease": msgspec.to_builtins(task.lease.grant),
                "checkpoint": told,
            }
        )
        return OK
    output.details(
        {
            "task": task.task_id,
            "checkpoint": checkpoint.checkpoint_id,
            "step": checkpoint.step_number,
            "attempt": task.attempt,
            "action": task.action,
            "why": task.reason,
            "worker": task.lease.holder,
            "lease": task.lease.token,
            "until": text.instant(task.lease.expires_at),
        }
    )
    return OK
