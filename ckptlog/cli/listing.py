"""`ckptlog list`: the checkpoints that are there, oldest first.

Rows come from the view, with titles and metadata; the data of checkpoints is never read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.damage import Damages
from ckptlog.cli.moment import moment, positive
from ckptlog.cli.output import Column

if TYPE_CHECKING:
    from ckptlog.repository.store import Store
    from ckptlog.views.query import Filter
    from ckptlog.views.row import Row

STATES = ("created", "active", "completed", "failed", "restored")
COLUMNS = (
    Column("checkpoint"),
    Column("task"),
    Column("step", is_number=True),
    Column("state"),
    Column("updated"),
    Column("worker"),
    Column("data", is_number=True),
    Column("description", is_prose=True),
)
_PAGE_ROWS = 500
_DESCRIPTION_WIDTH = 48


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
    parser.add_argument(
        "--threads", action="store_true", help="LangGraph's threads instead, by name"
    )


def run_list(context: Context) -> int:
    """Print the checkpoints that match; say how many there are when not all are shown."""
    arguments, output = context.arguments, context.output
    if arguments.threads:
        from ckptlog.cli.thread import run_threads

        return run_threads(context)
    with context.store(is_reading=True) as store:
        wanted = _filter(arguments)
        damages = Damages()
        summaries = (
            summary(store, row, damages)
            for row in rows(store, wanted, arguments.limit, is_newest_first=arguments.newest)
        )
        if output.is_json:
            count = 0
            for count, fields in enumerate(summaries, 1):  # noqa: B007 - counted while they come
                output.item(fields)
            return damages.told(context, count - damages.count)
        shown = [_cells(fields) for fields in summaries]
        there = store.view().count(wanted) if arguments.limit else len(shown)
    output.table(COLUMNS, shown)
    if there > len(shown):
        output.note(f"showing {len(shown):,} of {there:,} (--limit {arguments.limit})")
    return damages.told(context, len(shown) - damages.count)


def rows(
    store: Store, wanted: Filter, limit: int | None, *, is_newest_first: bool = False
) -> Iterator[Row]:
    """Yield the rows that match, page by page; no lock is held between two of them."""
    left, after = limit, None
    while left is None or left > 0:
        size = _PAGE_ROWS if left is None else min(left, _PAGE_ROWS)
        page = store.select(wanted, after=after, limit=size, newest_first=is_newest_first)
        yield from page
        if len(page) < size:
            return
        after = page[-1].origin
        left = None if left is None else left - size


def summary(store: Store, row: Row, damages: Damages) -> dict[str, Any]:
    """Return everything about a checkpoint but its data, for JSON."""
    meta = _meta(store, row, damages)
    return {
        "checkpoint_id": row.id,
        "task_id": row.task,
        "task_title": meta.get("title", ""),
        "state": row.state,
        "step_number": row.step,
        "total_steps": row.total or None,
        "step_description": meta.get("description", ""),
        "metadata": meta.get("metadata", {}),
        "created_at": row.created,
        "updated_at": row.updated,
        "worker_id": row.worker or None,
        "parent_checkpoint_id": row.parent or None,
        "namespace": row.namespace,
        "position": row.position,
        "data_bytes": row.data_size,
    }


def _meta(store: Store, row: Row, damages: Damages) -> dict[str, Any]:
    """Return title, description and metadata as they are stored (tagged); told if damaged."""
    import json

    from ckptlog.errors import CheckpointError
    from ckptlog.model.event import Reference

    wire = row.meta
    if wire is None and row.meta_root:
        try:
            wire = store.wire(Reference(row.meta_kind, row.meta_root, row.meta_size))
        except CheckpointError as error:
            damages(row.id, error)
            return {"title": f"({error.code})"}
    found: dict[str, Any] = json.loads(wire) if wire else {}
    return found


def _filter(arguments: argparse.Namespace) -> Filter:
    from ckptlog.views.query import Filter

    return Filter(
        task=arguments.task,
        state=arguments.state,
        worker=arguments.worker,
        namespace=arguments.namespace,
        parent=arguments.parent,
        created_since=iso(arguments.since),
        created_until=iso(arguments.until),
    )


def iso(instant: datetime | None) -> str | None:
    """Return a time as events hold it, so that times compare as text."""
    if instant is None:
        return None
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cells(fields: dict[str, Any]) -> tuple[str, ...]:
    task = fields["task_id"]
    if fields["namespace"]:
        task = f"{task} ({fields['namespace']})"
    return (
        fields["checkpoint_id"],
        task,
        text.progress(fields["step_number"], fields["total_steps"]),
        fields["state"],
        text.instant(fields["updated_at"]),
        fields["worker_id"] or "-",
        text.size(fields["data_bytes"]),
        text.shorten(fields["step_description"] or fields["task_title"], _DESCRIPTION_WIDTH),
    )
