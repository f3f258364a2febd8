"""`ckptlog import`: bring in archives, the old layout, transcripts, or LangGraph's threads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ckptlog.cli import migration, text
from ckptlog.cli.command import Commands, Context, add_command, add_global_options
from ckptlog.cli.exit_status import OK, PARTIAL
from ckptlog.cli.progress import Progress
from ckptlog.cli.word import filled

if TYPE_CHECKING:
    from ckptlog.integrations.legacy import ImportReport
    from ckptlog.manager.importer import ArchiveImport


def add_commands(commands: Commands) -> None:
    """Add `import` with its sources, and `import --langgraph-sqlite`."""
    parser = commands.add_parser(
        "import",
        help="import checkpoints from elsewhere",
        epilog="Sources are never changed. Running it again goes on where it was stopped.",
        allow_abbrev=False,
    )
    add_global_options(parser)
    migration.add_options(parser)
    sources = parser.add_subparsers(title="other sources", metavar="SOURCE", dest="source")
    archive = add_command(
        sources,
        "archive",
        run_archive,
        about="import the tasks of an archive (`ckptlog export archive`), after verifying it",
        epilog="Running it again changes nothing. On a conflict nothing is imported.",
    )
    archive.add_argument("file", type=filled, metavar="FILE")
    archive.add_argument(
        "--verify-only", action="store_true", help="check the archive; no store is needed"
    )
    legacy = add_command(
        sources,
        "legacy",
        run_legacy,
        about="import a folder with one checkpoint_<id>.json a checkpoint",
        epilog="Files are never changed or deleted. Running it again changes nothing.",
    )
    legacy.add_argument("folder", type=filled, metavar="DIR")
    legacy.add_argument("--namespace", default="", metavar="NAME", help="store them under NAME")
    transcript = add_command(
        sources,
        "transcript",
        run_transcript,
        about="import an agent's transcript (.traj)",
        epilog="Running it again goes on where it was stopped.",
    )
    transcript.add_argument("file", type=filled, metavar="FILE")
    transcript.add_argument("--task", default="", metavar="ID", help="(default: the file's name)")


def run_archive(context: Context) -> int:
    """Verify an archive and import it."""
    from ckptlog.manager.importer import import_archive, verify_archive

    migration.refuse_options(context)
    arguments, output = context.arguments, context.output
    progress = Progress(output, "import")
    try:
        if arguments.verify_only:
            report = verify_archive(arguments.file, progress=progress)
        else:
            with context.store() as store:
                report = import_archive(store, arguments.file, progress=progress)
    finally:
        progress.close()
    if output.is_json:
        answer = report.to_dict()
        if arguments.verify_only:
            for name in ("imported", "unchanged", "left_out", "deleted"):
                del answer[name]
        output.document(answer)
        return OK
    content = f"{text.count(len(report.tasks), 'task')}, {text.count(report.events, 'event')}"
    output.line(text.escape(f"{report.path}: {content} of the store {report.origin}, verified."))
    output.line(f"root {report.root} of {text.count(report.size, 'event')}")
    if not arguments.verify_only:
        new = text.count(report.imported, "event")
        output.line(f"Imported {new}; {report.unchanged:,} were there already.")
        _tell_left_out(context, report)
    return OK


def _tell_left_out(context: Context, report: ArchiveImport) -> None:
    if report.deleted:
        number = text.count(report.deleted, "checkpoint")
        context.output.note(f"{number} deleted in one of the two stores: not brought.")
    if report.left_out:
        number = text.count(report.left_out, "earlier state")
        context.output.note(f"{number} left out: the archive does not have their data.")


def run_legacy(context: Context) -> int:
    """Import a folder of the old layout; bad files are listed and make the status 1."""
    from ckptlog.integrations.legacy import import_folder

    migration.refuse_options(context)
    arguments, output = context.arguments, context.output
    with context.manager() as manager:
        progress = Progress(output, "import")
        try:
            report = import_folder(
                manager, Path(arguments.folder), namespace=arguments.namespace, progress=progress
            )
        finally:
            progress.close()
    if output.is_json:
        output.document({"folder": arguments.folder, **report.to_dict()})
    else:
        new = text.count(report.imported, "checkpoint")
        output.line(f"Imported {new}; {report.unchanged:,} were there already.")
    if not report.faults:
        return OK
    _tell_faults(context, report)
    return PARTIAL


def _tell_faults(context: Context, report: ImportReport) -> None:
    for fault in report.faults:
        context.output.note(f"not imported: {fault.path}: {fault.message} [{fault.code}]")
    number = text.count(len(report.faults), "file")
    context.output.fault(
        {
            "code": "cli.partial",
            "message": f"{number} could not be imported.",
            "hint": "Repair or move them, and run the import again: it only adds what is missing.",
            "context": {"failed": [fault.to_dict() for fault in report.faults]},
        }
    )


def run_transcript(context: Context) -> int:
    """Import a transcript as a finished task."""
    from ckptlog.integrations.transcript import import_transcript

    migration.refuse_options(context)
    path, output = Path(context.arguments.file), context.output
    task = context.arguments.task or path.stem
    with context.manager() as manager:
        identifiers = import_transcript(manager, path, task_id=task)
    if output.is_json:
        output.document({"task_id": task, "checkpoints": identifiers})
    else:
        steps = text.count(len(identifiers), "step")
        output.line(text.escape(f"Imported {steps} as task {task}; each is a checkpoint."))
    return OK
