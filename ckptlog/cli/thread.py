"""`ckptlog list --threads`: LangGraph's threads, and where each one is.

LangGraph itself is not needed; no state is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Context
from ckptlog.cli.exit_status import OK
from ckptlog.cli.output import Column

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

COLUMNS = (
    Column("thread"),
    Column("checkpoints", is_number=True),
    Column("latest"),
    Column("step", is_number=True),
    Column("source"),
    Column("updated"),
    Column("data", is_number=True),
)
_OTHERS = ("task", "state", "worker", "namespace", "parent", "since", "until", "newest")
_PAGE_TASKS = 500
_THREAD_WIDTH = 48


def run_threads(context: Context) -> int:
    """Print the threads.

    Raises:
        ArgumentError: A filter of checkpoints is given too.
    """
    from ckptlog.errors import ArgumentError

    arguments, output = context.arguments, context.output
    for name in _OTHERS:
        if getattr(arguments, name):
            raise ArgumentError(
                f"--threads lists threads; --{name} chooses checkpoints.",
                hint="Give one of them; a thread's checkpoints: ckptlog list --task THREAD.",
                argument=name,
            )
    with context.store(is_reading=True) as store:
        found = threads(store)
        some = islice(found, arguments.limit)
        if output.is_json:
            for fields in some:
                output.item(fields)
            return OK
        shown = [_cells(fields) for fields in some]
        there = len(shown) + sum(1 for _ in found) if arguments.limit else len(shown)
    output.table(COLUMNS, shown)
    if there > len(shown):
        output.note(f"showing {len(shown):,} of {there:,} (--limit {arguments.limit})")
    return OK


def threads(store: Store) -> Iterator[dict[str, Any]]:
    """Yield each thread's facts, for JSON, in the order of the tasks that they are."""
    from ckptlog.integrations.langgraph.reader import Reader
    from ckptlog.integrations.langgraph.record import Wiring
    from ckptlog.model.codec import OPAQUE

    reader, after = Reader(store, Wiring(OPAQUE, None)), None
    while page := store.view().tasks(after, _PAGE_TASKS):
        for task, count, _ in page:
            named = reader.newest_of_task(task)
            if named is None:
                continue
            row, metadata = named.row, named.metadata
            yield {
                "thread_id": named.thread,
                "task_id": task,
                "checkpoints": count,
                "latest": named.identifier,
                "checkpoint_ns": named.space,
                "checkpoint_id": row.id,
                "step": _plain(metadata.get("step"), int),
                "source": _plain(metadata.get("source"), str),
                "updated_at": row.updated,
                "data_bytes": row.data_size,
            }
        after = page[-1][0]


def _plain(value: Any, kind: type) -> Any:
    return value if type(value) is kind else None


def _cells(fields: dict[str, Any]) -> tuple[str, ...]:
    space = fields["checkpoint_ns"]
    return (
        text.shorten(fields["thread_id"], _THREAD_WIDTH),
        f"{fields['checkpoints']:,}",
        f"{fields['latest']} ({space})" if space else fields["latest"],
        "-" if fields["step"] is None else str(fields["step"]),
        fields["source"] or "-",
        text.instant(fields["updated_at"]),
        text.size(fields["data_bytes"]),
    )
