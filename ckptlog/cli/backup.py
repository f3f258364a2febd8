"""`ckptlog backup`, `ckptlog restore-store`: a copy of the store elsewhere, and back."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK, PARTIAL
from ckptlog.cli.output import Column
from ckptlog.cli.progress import Progress
from ckptlog.cli.word import filled

if TYPE_CHECKING:
    from ckptlog.repository.backup import BackupReport
    from ckptlog.repository.restoration import RestoreReport


_COLUMNS = (Column("code"), Column("where"), Column("message", is_prose=True))


def add_commands(commands: Commands) -> None:
    """Add both."""
    backup = add_command(
        commands,
        "backup",
        run_backup,
        about="back the store up to a directory, copying only what is missing there",
        epilog="Writers may go on meanwhile. A run that is killed leaves the state before it.",
    )
    backup.add_argument(
        "dest", type=filled, metavar="DEST", help="a new or empty directory, or a backup of it"
    )
    backup.add_argument("--verify", action="store_true", help="read the whole backup again")
    restore = add_command(
        commands,
        "restore-store",
        run_restore_store,
        about="make a store of a backup, in a new directory, and verify it",
        epilog="The new store has the id of the old one: only one of the two may go on.",
    )
    restore.add_argument("backup", metavar="BACKUP", type=filled, help="what `ckptlog backup` made")
    restore.add_argument("directory", type=filled, metavar="DIR", help="a new or empty directory")
    restore.add_argument(
        "--level",
        choices=("structure", "full"),
        default="full",
        help="how thoroughly the new store is verified (default: full)",
    )
    restore.add_argument(
        "--damaged",
        action="store_true",
        help="of a damaged backup, restore what is left, as it is, and say what is not",
    )
    restore.add_argument(
        "--other-branch",
        action="store_true",
        help="restore the backup of a copy that was written on by itself, and contradicts what was "
        "signed here",
    )


def run_backup(context: Context) -> int:
    """Bring a backup to the store's present end."""
    arguments, output = context.arguments, context.output
    with context.store(is_reading=True) as store:
        progress = Progress(output, "backup", is_bytes=True)
        try:
            report = store.backup(arguments.dest, verify=arguments.verify, progress=progress)
        finally:
            progress.close()
    if output.is_json:
        output.document(report.to_dict())
    else:
        _tell_backup(context, report)
    return OK


def _tell_backup(context: Context, report: BackupReport) -> None:
    copied = f"{text.size(report.bytes_copied)} copied, {text.size(report.bytes_skipped)} there"
    state = f"{text.count(report.position, 'event')} ({copied})"
    checked = ", verified" if report.is_verified else ""
    context.output.line(text.escape(f"{report.path}: {state}{checked}."))
    for note in report.notes:
        context.output.note(text.escape(note))


def run_restore_store(context: Context) -> int:
    """Make a store of a backup."""
    from ckptlog.repository.restoration import restore_store

    arguments, output = context.arguments, context.output
    progress = Progress(output, "restore", is_bytes=True)
    try:
        report = restore_store(
            arguments.backup,
            arguments.directory,
            level=arguments.level,
            allow_damaged=arguments.damaged,
            allow_branch=arguments.other_branch,
            progress=progress,
        )
    finally:
        progress.close()
    if output.is_json:
        output.document(report.to_dict())
    else:
        _tell_restore(context, report)
    if report.ok:
        return OK
    _tell_damage(context, report)
    return PARTIAL


def _tell_damage(context: Context, report: RestoreReport) -> None:
    """Tell what of a damaged backup came along as it is."""
    store = shlex.quote(report.path)
    context.output.fault(
        {
            "code": "cli.partial",
            "message": f"{report.path} was restored from a damaged backup: "
            f"{text.count(len(report.damaged), 'file')} not as written, "
            f"{text.count(report.problems_total, 'problem')} in the store.",
            "hint": f"`ckptlog --store {store} repair` says what can be saved (--from COPY takes "
            "from another copy), and with --apply mends it; damaged events keep it closed before.",
            "context": {"damaged": len(report.damaged), "problems": report.problems_total},
        }
    )


def _tell_restore(context: Context, report: RestoreReport) -> None:
    numbers = (
        text.count(report.events, "event"),
        text.count(report.checkpoints, "checkpoint"),
        text.size(report.bytes),
    )
    state = "verified" if report.ok else "damaged"
    context.output.line(text.escape(f"{report.path}: {', '.join(numbers)}; {state}."))
    for line in report.damaged:
        context.output.line(text.escape(line))
    if report.problems:
        rows = [(one.code, one.where, one.message) for one in report.problems]
        context.output.table(_COLUMNS, rows)
    context.output.note(
        f"It is the store {report.store} as of position {report.position}. If the original still "
        "lives, only one of the two may go on under this id: from here they diverge, and consumers "
        "and backups of the one refuse the other. To bring single tasks over, use "
        "`ckptlog export archive` and `ckptlog import archive`."
    )
    for note in report.notes:
        context.output.note(text.escape(note))
