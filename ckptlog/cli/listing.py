"""`ckptlog list`: the checkpoints that are there, oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ckptlog.cli import presenter
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.moment import moment, positive

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.model.checkpoint import CheckpointData

STATES = ("created", "active", "completed", "failed", "restored")


def add_commands(commands: Commands) -> None:
    """Add `list`."""
    parser = add_command(commands, "list", run_list, about="list checkpoints")
    parser.add_argument("--task", metavar="ID", help="of this task")
    parser.add_argument("--state", choices=STATES, help="in this state")
    parser.add_argument("--worker", metavar="ID", help="of this worker")
    parser.add_argument("--namespace", metavar="NAME", help="in this namespace")
    parser.add_argument("--parent", metavar="ID", help="children of this checkpoint")
    parser.add_argument("--since", type=moment, metavar="TIME", help="created at or after")
    parser.add_argument("--until", type=moment, metavar="TIME", help="created before")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N")
    parser.add_argument("--newest", action="store_true", help="newest first")


def run_list(context: Context) -> int:
    """Print the checkpoints that match."""
    with context.manager(is_reading=True) as manager:
        matching = _matching(context, manager)
        shown = islice(matching, context.arguments.limit)
        if context.output.is_json:
            for checkpoint in shown:
                context.output.item(presenter.summary(checkpoint))
            return OK
        rows = [presenter.row(checkpoint) for checkpoint in shown]
        beyond = sum(1 for _ in matching)
    context.output.table(presenter.COLUMNS, rows)
    if beyond:
        context.output.note(f"showing {len(rows):,} of {len(rows) + beyond:,} (--limit)")
    return OK


def _matching(context: Context, manager: CheckpointManager) -> Iterator[CheckpointData]:
    arguments = context.arguments
    filters: dict[str, Any] = {
        "task_id": arguments.task,
        "worker_id": arguments.worker,
        "namespace": arguments.namespace,
        "since": arguments.since,
        "until": arguments.until,
        "newest_first": arguments.newest,
    }
    if arguments.state:
        from ckptlog.model.state import CheckpointState

        filters["state"] = CheckpointState(arguments.state)
    for checkpoint in manager.iterate(**filters):
        if arguments.parent in {None, checkpoint.parent_checkpoint_id}:
            yield checkpoint
