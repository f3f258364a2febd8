"""`ckptlog import --langgraph-sqlite`: LangGraph's threads from another checkpointer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Context
from ckptlog.cli.exit_status import OK, PARTIAL
from ckptlog.cli.progress import Progress

if TYPE_CHECKING:
    from ckptlog.integrations.langgraph.outcome import MigrationReport

_SHOWN_MAX = 20
_OWN = ("langgraph_sqlite", "langgraph_postgres", "thread", "dry_run")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to `import` itself."""
    group = parser.add_argument_group("LangGraph's threads")
    group.add_argument("--langgraph-sqlite", metavar="FILE", help="from SqliteSaver's database")
    group.add_argument("--langgraph-postgres", metavar="DSN", help="from PostgresSaver's database")
    group.add_argument(
        "--thread", metavar="ID", action="append", help="only this thread (repeatable)"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="read and check everything, store nothing"
    )
    parser.set_defaults(run=run_migration, source=None)


def refuse_options(context: Context) -> None:
    """Refuse the options of this command beside another source.

    Raises:
        ArgumentError: One is given.
    """
    from ckptlog.errors import ArgumentError

    arguments = context.arguments
    for name in _OWN:
        if getattr(arguments, name):
            option = f"--{name.replace('_', '-')}"
            raise ArgumentError(
                f"{option} does not go with `import {arguments.source}`.",
                hint="Import from one source at a time.",
                argument=name,
            )


def run_migration(context: Context) -> int:
    """Copy threads; what could not be copied is listed and makes the status 1."""
    import logging

    arguments = context.arguments
    sqlite, dsn = arguments.langgraph_sqlite, arguments.langgraph_postgres
    _check(sqlite, dsn)
    _need_langgraph()
    from ckptlog.integrations.langgraph.migration import import_postgres, import_sqlite

    # It warns of each type that it does not build; the report tells all of them, with the place.
    logging.getLogger("langgraph.checkpoint.serde").setLevel(logging.ERROR)
    progress = Progress(context.output, "import")
    options: dict[str, Any] = {
        "threads": arguments.thread,
        "is_dry_run": arguments.dry_run,
        "progress": progress,
    }
    with context.manager(is_reading=arguments.dry_run) as manager:
        try:
            if sqlite is not None:
                report = import_sqlite(manager, sqlite, **options)
            else:
                report = import_postgres(manager, dsn, **options)
        finally:
            progress.close()
    _show(context, report)
    if not report.failed:
        return OK
    _tell_faults(context, report)
    return PARTIAL


def _check(sqlite: str | None, dsn: str | None) -> None:
    from ckptlog.errors import ArgumentError

    if (sqlite is None) is not (dsn is None):
        return
    said = "Two sources are named" if sqlite is not None else "No source is named"
    raise ArgumentError(
        f"{said}; import takes one.",
        hint="import legacy DIR, import transcript FILE, import --langgraph-sqlite FILE, or "
        "import --langgraph-postgres DSN.",
        argument="source",
    )


def _need_langgraph() -> None:
    from ckptlog.errors import ArgumentError

    try:
        import langchain_core
        import langgraph.checkpoint.serde.jsonplus
    except ImportError as error:
        raise ArgumentError(
            f"Reading LangGraph's values needs its packages; {error.name} is missing.",
            hint='Install them: pip install "ckptlog[langgraph]"',
            argument="source",
        ) from error
    del langchain_core, langgraph


def _show(context: Context, report: MigrationReport) -> None:
    output = context.output
    if output.is_json:
        output.document(report.to_dict())
        return
    threads = text.count(report.threads, "thread")
    checkpoints = text.count(report.copied, "checkpoint")
    writes = text.count(report.writes, "write")
    if report.is_dry_run:
        size = text.size(report.copied_bytes)
        output.line(f"Would copy {checkpoints} ({size}) and {writes} of {threads} (--dry-run).")
    else:
        output.line(f"Copied {checkpoints} and {writes} of {threads} in {report.took_s:.1f} s.")
    for line in _details(report):
        output.line(line)


def _details(report: MigrationReport) -> list[str]:
    lines = []
    if report.unchanged or report.completed:
        new = f"; {report.completed:,} got new writes" if report.completed else ""
        lines.append(f"{report.unchanged:,} were there already{new}.")
    if report.deleted:
        lines.append(
            f"{report.deleted:,} were deleted here and stay so (--thread brings a thread)."
        )
    if report.is_dry_run:
        return lines
    lines.append(f"{text.count(report.verified, 'checkpoint')} read back and equal.")
    if report.copied:
        saved = report.saved_bytes
        told = f"{text.size(saved)} saved" if saved >= 0 else f"{text.size(-saved)} more"
        took = f"{text.size(report.copied_bytes)} there, {text.size(report.stored_bytes)} here"
        lines.append(f"They take {took}: {told}.")
    sizes = f"{text.size(report.source_size_bytes)}, the store {text.size(report.store_size_bytes)}"
    lines.append(f"The whole database takes {sizes}.")
    return lines


def _tell_faults(context: Context, report: MigrationReport) -> None:
    output = context.output
    for fault in report.faults[:_SHOWN_MAX]:
        space = f" ({fault.space})" if fault.space else ""
        place = f"thread {fault.thread}{space}, checkpoint {fault.checkpoint}"
        where = f", {fault.path}" if fault.path else ""
        output.note(f"not copied: {place}{where}: {fault.message} [{fault.code}]")
    if report.failed > _SHOWN_MAX:
        output.note(f"... and {report.failed - _SHOWN_MAX:,} more (--json has the first 1,000)")
    kinds = ", ".join(f"{number:,} {code}" for code, number in sorted(report.by_code.items()))
    number = text.count(report.failed, "checkpoint")
    output.fault(
        {
            "code": "cli.partial",
            "message": f"{number} could not be copied whole, or differ here ({kinds}).",
            "hint": "Classes of your own are named in a program: "
            "import_sqlite(store, path, types=[...]); everything else was copied.",
            "context": {"failed": report.failed, "by_code": report.by_code},
        }
    )
