"""`ckptlog delete` and `delete-task`: take checkpoints away, for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK, PARTIAL, status_of

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager


def add_commands(commands: Commands) -> None:
    """Add `delete` and `delete-task`."""
    parser = add_command(commands, "delete", run_delete, about="delete checkpoints")
    parser.add_argument("checkpoints", nargs="+", metavar="ID")
    parser = add_command(
        commands, "delete-task", run_delete_task, about="delete a task with all its checkpoints"
    )
    parser.add_argument("task", metavar="ID")


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
    return told_failures(context, len(deleted), failed, statuses, verb="deleted")


def _delete(manager: CheckpointManager, identifier: str) -> None:
    from ckptlog.cli.show import unknown_checkpoint

    if not manager.delete_checkpoint(identifier):
        raise unknown_checkpoint(identifier)


def told_failures(
    context: Context,
    done: int,
    failed: list[dict[str, Any]],
    statuses: set[int],
    *,
    verb: str,
) -> int:
    """Tell of what failed among several; return the exit status."""
    if not failed:
        return OK
    if len(failed) == 1 and not done:
        context.output.fault(failed[0])
        return statuses.pop()
    for fault in () if context.output.is_json else failed:
        context.output.fault(fault)
    context.output.fault(
        {
            "code": "cli.partial",
            "message": f"{len(failed)} of {done + len(failed)} were not {verb}.",
            "hint": "",
            "context": {"failed": failed},
        }
    )
    return statuses.pop() if len(statuses) == 1 and not done else PARTIAL


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
    return context.absent(
        f"There is no task {task!r}.",
        "`ckptlog list` shows the tasks that have checkpoints.",
        task_id=task,
    )
