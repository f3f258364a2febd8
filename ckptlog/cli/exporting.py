"""`ckptlog export`: hand the store's past to other tools."""

from __future__ import annotations

from pathlib import Path

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.errors import ArgumentError


def add_commands(commands: Commands) -> None:
    """Add `export history`."""
    parser = commands.add_parser("export", help="export the log for other tools")
    kinds = parser.add_subparsers(title="what", metavar="WHAT", dest="what", required=True)
    history = add_command(
        kinds,
        "history",
        run_history,
        about="write the log as Parquet files, a row for each event, a folder for each day",
        epilog="Running it again adds what is new. DIR.json, beside DIR, says how far it is.",
    )
    history.add_argument("folder", metavar="DIR", help="a new folder, or an earlier export")


def run_history(context: Context) -> int:
    """Bring the Parquet files in a folder up to date."""
    folder, output = _resolved(context.arguments.folder), context.output
    with context.store(is_reading=True) as store:
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
