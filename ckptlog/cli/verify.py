"""`ckptlog verify`: read everything and compare it with its hashes."""

from __future__ import annotations

from typing import Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import CORRUPTION, OK
from ckptlog.cli.output import Column
from ckptlog.cli.progress import Progress

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


def run_verify(context: Context) -> int:
    """Verify the store and list what is wrong."""
    output, level = context.output, context.arguments.level
    with context.store(is_reading=True) as store:
        progress = Progress(output, "verify", is_bytes=True)
        try:
            report = store.verify(level=level, progress=progress)
        finally:
            progress.close()
        answer: dict[str, Any] = {"store": str(store.path), "level": level, **report.to_dict()}
    if output.is_json:
        output.document(answer)
    else:
        _print(context, answer)
    if report.ok:
        return OK
    _tell_failure(context, answer)
    return CORRUPTION


def _print(context: Context, answer: dict[str, Any]) -> None:
    output = context.output
    if answer["ok"]:
        read = (
            f"{text.count(answer['events'], 'event')}, {text.count(answer['chunks'], 'chunk')}, "
            f"{text.size(answer['bytes'])} read"
        )
        output.line(output.paint("ok", "ok") + f": {read} ({answer['level']})")
        return
    rows = [(p["code"], p["where"], p["message"]) for p in answer["problems"]]
    output.table(_COLUMNS, rows)


def _tell_failure(context: Context, answer: dict[str, Any]) -> None:
    number = len(answer["problems"])
    context.output.fault(
        {
            "code": "corruption.detected",
            "message": f"The store {answer['store']} has {text.count(number, 'problem')}.",
            "hint": "Keep a copy of the directory before anything else; `ckptlog list` and "
            "`ckptlog show` still read what is whole.",
            "context": {"problems": number},
        }
    )
