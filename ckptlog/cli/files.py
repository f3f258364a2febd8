"""`ckptlog files`: each checkpoint as a JSON file, for tools that read files."""

from __future__ import annotations

from threading import Event as Signal
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.output import Output

if TYPE_CHECKING:
    from ckptlog.repository.file_view import FileView, Refreshed


def add_commands(commands: Commands) -> None:
    """Add `files`."""
    parser = add_command(
        commands,
        "files",
        run_files,
        about="keep each checkpoint as a JSON file in active/, completed/ and failed/",
        epilog="The files lie in STORE/views/files and hold every payload in full. What is "
        "written into them is lost; specs/view-files.md.",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="stay, and keep them current")
    how.add_argument(
        "--check", action="store_true", help="also read every file, and write again what differs"
    )
    how.add_argument("--rebuild", action="store_true", help="write every file anew")


def run_files(context: Context) -> int:
    """Let the files show what the store has; with --follow, until interrupted."""
    from ckptlog.repository.file_view import FileView

    arguments, output = context.arguments, context.output
    with context.store() as store:
        view = FileView(store)
        if arguments.follow:
            _follow(output, view)
        elif arguments.rebuild:
            _tell(output, view, view.rebuild())
        else:
            _tell(output, view, view.refresh(is_thorough=arguments.check))
    return OK


def _follow(output: Output, view: FileView) -> None:
    def tell(done: Refreshed) -> None:
        if output.is_json:
            output.item(_fields(view, done))
        else:
            output.line(_line(done))
        output.flush()

    output.note(f"the files lie in {view.folder}; Ctrl-C ends this")
    tell(view.refresh())
    view.run(Signal(), tell=tell)


def _tell(output: Output, view: FileView, done: Refreshed) -> None:
    if output.is_json:
        output.document(_fields(view, done))
        return
    output.line(text.escape(f"The files lie in {view.folder}."))
    output.line(_line(done))


def _line(done: Refreshed) -> str:
    parts = [f"{done.written:,} written", f"{done.removed:,} removed"]
    if done.repaired:
        parts.append(f"{done.repaired:,} repaired")
    again = " (built anew)" if done.is_rebuilt else ""
    return f"After {text.count(done.position, 'event')}: {', '.join(parts)}{again}."


def _fields(view: FileView, done: Refreshed) -> dict[str, Any]:
    return {
        "folder": str(view.folder),
        "position": done.position,
        "events": done.events,
        "written": done.written,
        "removed": done.removed,
        "repaired": done.repaired,
        "is_rebuilt": done.is_rebuilt,
    }
