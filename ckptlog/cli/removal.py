"""`ckptlog cleanup`, `delete` and `delete-task`: take checkpoints away, for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import NOT_FOUND, OK, PARTIAL, status_of
from ckptlog.cli.listing import iso, rows
from ckptlog.cli.moment import natural

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager


def add_commands(commands: Commands) -> None:
    """Add `cleanup`, `delete` and `delete-task`."""
    parser = add_command(
        commands, "cleanup", run_cleanup, about="delete old completed and failed checkpoints"
    )
    parser.add_argument(
        "--max-age-days",
        type=natural,
        default=30,
        metavar="N",
        help="delete what was not updated for N days (default: 30)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser = add_command(commands, "delete", run_delete, about="delete checkpoints")
    parser.add_argument("checkpoints", nargs="+", metavar="ID")
    parser = add_command(
        commands, "delete-task", run_delete_task, about="delete a task with all its checkpoints"
    )
    parser.add_argument("task", metavar="ID")


def run_cleanup(context: Context) -> int:
    """Delete what is old, or with --dry-run only say what would go."""
    age_days = context.arguments.max_age_days
    if context.arguments.dry_run:
        return _print_old(context, age_days)
    with context.manager() as manager:
        number = manager.cleanup_old_checkpoints(age_days)
    if context.output.is_json:
        answer = {"max_age_days": age_days, "is_dry_run": False, "deleted": number}
        context.output.document(answer)
    else:
        gone = text.count(number, "checkpoint")
        context.output.line(f"Deleted {gone} older than {text.count(age_days, 'day')}.")
    return OK


def _print_old(context: Context, age_days: int) -> int:
    from datetime import UTC, datetime, timedelta

    from ckptlog.views.query import Filter

    output = context.output
    try:
        before = datetime.now(UTC) - timedelta(days=age_days)
    except OverflowError:
        before = datetime(1, 1, 1, tzinfo=UTC)
    wanted = Filter(states=("completed", "failed"), updated_before=iso(before))
    with context.store(is_reading=True) as store:
        old = [row.id for row in rows(store, wanted, None)]
    if output.is_json:
        output.document({"max_age_days": age_days, "is_dry_run": True, "checkpoints": old})
        return OK
    for identifier in old:
        output.line(text.escape(identifier))
    output.note(f"{text.count(len(old), 'checkpoint')} would be deleted (--dry-run)")
    return OK


def run_delete(context: Context) -> int:
    """Delete each checkpoint; one that cannot be deleted does not stop the others."""
    from ckptlog.errors import CheckpointError

    deleted: list[str] = []
    failed: list[dict[str, Any]] = []
    statuses: set[int] = set()
    with context.manager() as manager:
        for identifier in dict.fromkeys(context.arguments.checkpoints):
            try:
                _delete(manager, identifier)
                deleted.append(identifier)
            except CheckpointError as error:
                statuses.add(status_of(error))
                failed.append({"checkpoint_id": identifier, **error.to_dict()})
    if context.output.is_json:
        context.output.document({"deleted": deleted, "failed": failed})
    else:
        for identifier in deleted:
            context.output.line(text.escape(f"Deleted {identifier}."))
    return _report(context, len(deleted), failed, statuses)


def _delete(manager: CheckpointManager, identifier: str) -> None:
    from ckptlog.cli.show import unknown_checkpoint

    if not manager.delete_checkpoint(identifier):
        raise unknown_checkpoint(identifier)


def _report(
    context: Context, deleted: int, failed: list[dict[str, Any]], statuses: set[int]
) -> int:
    if not failed:
        return OK
    if len(failed) == 1 and not deleted:
        context.output.fault(failed[0])
        return statuses.pop()
    for fault in () if context.output.is_json else failed:
        context.output.fault(fault)
    context.output.fault(
        {
            "code": "cli.partial",
            "message": f"{len(failed)} of {deleted + len(failed)} were not deleted.",
            "hint": "",
            "context": {"failed": failed},
        }
    )
    return statuses.pop() if len(statuses) == 1 and not deleted else PARTIAL


def run_delete_task(context: Context) -> int:
    """Delete every checkpoint of a task; a task without any is not found."""
    task = context.arguments.task
    with context.manager() as manager:
        number = manager.delete_task(task)
    if context.output.is_json:
        context.output.document({"task_id": task, "deleted": number})
    elif number:
        there = text.count(number, "checkpoint")
        context.output.line(text.escape(f"Deleted task {task} with {there}."))
    if number:
        return OK
    context.output.fault(
        {
            "code": "checkpoint.not_found",
            "message": f"There is no task {task!r}.",
            "hint": "`ckptlog list` shows the tasks that have checkpoints.",
            "context": {"task_id": task},
        }
    )
    return NOT_FOUND
