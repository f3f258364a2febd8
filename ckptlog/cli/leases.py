"""`ckptlog leases`: who alone may write about which task, and ending that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.output import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptlog.cli.output import Output
    from ckptlog.manager.leasing import LeaseState

_UNSEEN_SHOWN = 5

_COLUMNS = (
    Column("task"),
    Column("holder"),
    Column("token", is_number=True),
    Column("expires"),
    Column("state"),
)


def add_commands(commands: Commands) -> None:
    """Add `leases`."""
    parser = add_command(commands, "leases", run_list, about="who holds a lease on which task")
    acts = parser.add_subparsers(title="acts", metavar="ACT", dest="act")
    add_command(acts, "list", run_list, about="list the leases (the default)")
    release = add_command(acts, "release", run_release, about="end the lease of a task")
    release.add_argument("task", metavar="TASK")
    release.add_argument(
        "--force",
        action="store_true",
        help="also one that is live; what its holder writes is refused from then on",
    )
    add_command(acts, "enable", run_enable, about="let a store of an older version have leases")


def run_list(context: Context) -> int:
    """Print every lease that was not released, by task."""
    output = context.output
    with context.manager(is_reading=True) as manager:
        found = manager.list_leases()
    if output.is_json:
        for one in found:
            output.item(one.to_dict())
    elif found:
        output.table(_COLUMNS, [_row(one) for one in found])
        _tell_unseen(output, found)
    else:
        output.note("nobody holds a lease")
    return OK


def _tell_unseen(output: Output, found: Sequence[LeaseState]) -> None:
    """Say of which holders nobody can tell here whether they live: after a reboot, for one."""
    unseen = [one for one in found if one.is_live and not one.is_visible]
    if unseen:
        names = ", ".join(text.escape(one.task) for one in unseen[:_UNSEEN_SHOWN])
        more = f" and {len(unseen) - _UNSEEN_SHOWN} more" * (len(unseen) > _UNSEEN_SHOWN)
        output.note(
            f"Of {names}{more} nobody can tell here whether the holder lives: it is of another run "
            "of this machine, another machine or container, or several share it. The lease ends at "
            "its time; if you know that the holder is gone: ckptlog leases release TASK --force"
        )


def _row(lease: LeaseState) -> tuple[object, ...]:
    state = "expired" if not lease.is_live else "dead" if lease.is_dead else "live"
    return lease.task, lease.holder, lease.token, text.instant(lease.expires_at), state


def run_release(context: Context) -> int:
    """End a task's lease; one that is not there is not found."""
    task, force = context.arguments.task, context.arguments.force
    with context.manager() as manager:
        is_released = manager.release_lease(task, force=force)
    if context.output.is_json:
        context.output.document({"task_id": task, "released": is_released})
    elif is_released:
        context.output.line(text.escape(f"The lease on {task} is over."))
    if is_released:
        return OK
    return context.absent(
        f"Nobody holds a lease on task {task!r}.",
        "`ckptlog leases` shows those that are held.",
        task_id=task,
    )


def run_enable(context: Context) -> int:
    """Let a store from before there were leases have some."""
    with context.manager() as manager:
        is_new = manager.enable_leases()
    if context.output.is_json:
        context.output.document({"enabled": is_new})
    else:
        said = "Programs that do not know leases refuse the store from now on."
        context.output.line(said if is_new else "The store may have leases already.")
    return OK
