"""`ckptlog export`: hand the store's past to other tools, or whole tasks to other stores."""

from __future__ import annotations

from pathlib import Path

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.progress import Progress
from ckptlog.cli.word import filled
from ckptlog.errors import ArgumentError


def add_commands(commands: Commands) -> None:
    """Add `export history` and `export archive`."""
    parser = commands.add_parser("export", help="export the log, or tasks as a portable archive")
    kinds = parser.add_subparsers(title="what", metavar="WHAT", dest="what", required=True)
    history = add_command(
        kinds,
        "history",
        run_history,
        about="write the log as Parquet files, a row for each event, a folder for each day",
        epilog="Running it again adds what is new. DIR.json, beside DIR, says how far it is.",
    )
    history.add_argument(
        "folder", type=filled, metavar="DIR", help="a new folder, or an earlier export"
    )
    archive = add_command(
        kinds,
        "archive",
        run_archive,
        about="write tasks into one file: events, data, and the proof of where they come from",
        epilog="`ckptlog import archive FILE` brings them into another store.",
    )
    archive.add_argument("tasks", metavar="TASK", nargs="+")
    archive.add_argument(
        "--to", type=filled, metavar="FILE", required=True, help="the file to write"
    )
    archive.add_argument("--force", action="store_true", help="replace FILE if it is there")


def run_archive(context: Context) -> int:
    """Write an archive of some tasks."""
    arguments, output = context.arguments, context.output
    with context.store(is_reading=True) as store:
        progress = Progress(output, "export")
        try:
            report = store.export_archive(
                arguments.tasks, arguments.to, is_replaced=arguments.force, progress=progress
            )
        finally:
            progress.close()
    if output.is_json:
        output.document(report.to_dict())
        return OK
    content = (
        text.count(len(report.tasks), "task"),
        text.count(report.events, "event"),
        text.count(report.chunks, "chunk"),
        text.size(report.bytes),
    )
    output.line(text.escape(f"{report.path}: {', '.join(content)}."))
    output.line(f"root {report.root} of {text.count(report.size, 'event')}")
    if report.lacks:
        lacks = text.count(report.lacks, "earlier state")
        output.note(f"{lacks} could not be exported: the store no longer has their data.")
    return OK


def run_history(context: Context) -> int:
    """Bring the Parquet files in a folder up to date."""
    from ckptlog.repository.output_file import refuse_house

    folder, output = _resolved(context.arguments.folder), context.output
    with context.store(is_reading=True) as store:
        if folder != store.path.resolve() / "views" / "history":
            refuse_house(folder, "folder")
        rows = store.history(folder).count_rows()
        path = str(store.path)
    sizes = [file.stat().st_size for file in sorted(folder.glob("date=*/*.parquet"))]
    if output.is_json:
        answer = {"store": path, "folder": str(folder), "rows": rows}
        output.document({**answer, "files": len(sizes), "bytes": sum(sizes)})
    else:
        content = f"{text.count(rows, 'row')} in {text.count(len(sizes), 'file')}"
        output.line(text.escape(f"{folder}: {content}, {text.size(sum(sizes))}."))
    return OK


def _resolved(typed: str) -> Path:
    """Return where the files go: what is told afterwards is counted there, not where it was typed.

    Raises:
        ArgumentError: It leads nowhere.
    """
    try:
        return Path(typed).expanduser().resolve()
    except (RuntimeError, OSError) as error:  # no such user, links in a circle
        raise ArgumentError(f"{typed!r} leads nowhere: {error}", argument="folder") from error
