"""`ckptlog verify`: read everything and compare it with its hashes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command, open_store
from ckptlog.cli.exit_status import CORRUPTION, OK
from ckptlog.cli.output import Column, Output
from ckptlog.cli.progress import Progress
from ckptlog.cli.transparency import read_key

if TYPE_CHECKING:
    from ckptlog.repository.head_check import KeptHeads
    from ckptlog.repository.report import Report

_HINT_OPEN = (
    "Keep a copy of the directory before anything else, and leave this one where it is, with its "
    "`views`: while they are there, `ckptlog list` and `ckptlog show` still read what is whole."
)
_HINT_SHUT = (
    "Keep a copy of the directory before anything else. The store cannot be opened until the "
    "damaged files are restored from a backup."
)
_COLUMNS = (Column("code"), Column("where"), Column("message", is_prose=True))


def add_commands(commands: Commands) -> None:
    """Add `verify`."""
    parser = add_command(commands, "verify", run_verify, about="check the whole store")
    parser.add_argument(
        "--level",
        choices=("structure", "full"),
        default="full",
        help="structure: the log and its frames; full: every payload's bytes too (default)",
    )
    parser.add_argument(
        "--head", action="append", default=[], metavar="FILE", help="a signed head that you kept"
    )
    parser.add_argument(
        "--vkey", action="append", default=[], metavar="KEY", help="the verifier key of its log"
    )


def run_verify(context: Context) -> int:
    """Verify the store and list what is wrong."""
    output, path = context.output, context.store_path()
    progress = Progress(output, "verify", is_bytes=True)
    try:
        report, is_open = _verify(context, path, progress)
    finally:
        progress.close()
    if output.is_json:
        output.document({"store": str(path), **report.to_dict()})
    else:
        _print(output, report)
    if report.ok:
        return OK
    hint = _HINT_OPEN if is_open else _HINT_SHUT
    _tell_failure(output, path, len(report.problems), hint)
    return CORRUPTION


def _verify(context: Context, path: Path, progress: Progress) -> tuple[Report, bool]:
    """Verify the opened store; one that is too damaged to be opened, without opening it.

    Returns:
        The report, and whether the store could be opened.
    """
    from ckptlog.errors import CheckpointCorruptionError

    level, kept = context.arguments.level, _kept(context)
    try:
        store = open_store(path, context.output, is_reading=True)
    except CheckpointCorruptionError:
        from ckptlog.repository.verify import verify_directory

        return verify_directory(path, level, progress, kept=kept), False
    with store:
        return store.verify(level, progress, kept=kept), True


def _kept(context: Context) -> KeptHeads:
    from ckptlog.repository.head_check import KeptHeads

    heads, keys = context.arguments.head, context.arguments.vkey
    return KeptHeads(tuple(map(Path, heads)), tuple(map(read_key, keys)))


def _print(output: Output, report: Report) -> None:
    if report.ok:
        read = ", ".join(
            (
                text.count(report.events, "event"),
                text.count(report.checkpoints, "checkpoint"),
                text.count(report.chunks, "chunk"),
                f"{text.size(report.bytes_read)} read",
            )
        )
        output.line(f"{output.paint('ok', 'ok')}: {read} ({report.level})")
    else:
        output.table(_COLUMNS, [(p.code, p.where, p.message) for p in report.problems])
    for note in report.notes:
        output.line(f"note: {text.escape(note)}")


def _tell_failure(output: Output, path: Path, number: int, hint: str) -> None:
    output.fault(
        {
            "code": "corruption.detected",
            "message": f"The store {path} has {text.count(number, 'problem')}.",
            "hint": hint,
            "context": {"problems": number},
        }
    )
