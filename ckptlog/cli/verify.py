"""`ckptlog verify`: read everything and compare it with its hashes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command, open_store
from ckptlog.cli.exit_status import CORRUPTION, OK
from ckptlog.cli.moment import natural
from ckptlog.cli.output import Column, Output
from ckptlog.cli.progress import Progress
from ckptlog.cli.transparency import named_file, read_key

if TYPE_CHECKING:
    from ckptlog.repository.depth import Depth
    from ckptlog.repository.head_check import KeptHeads
    from ckptlog.repository.report import Problem, Report

_HINT_OPEN = (
    "Keep a copy of the directory before anything else, and leave this one where it is, with its "
    "`views`: while they are there, `ckptlog list` and `ckptlog show` still read what is whole. "
    "`ckptlog repair` says what can be saved; it changes nothing without --apply."
)
_HINT_SHUT = (
    "Keep a copy of the directory before anything else. The store cannot be opened until the "
    "damaged files are restored from a backup, or mended: `ckptlog repair` says what can be saved."
)
_HINT_HEADS = (
    "Nothing but signed heads is concerned, and no repair changes those. Each message says what it "
    "may be, and what then; compare the store with a backup or a published copy before that."
)
_COLUMNS = (Column("code"), Column("where"), Column("message", is_prose=True))


def add_commands(commands: Commands) -> None:
    """Add `verify`."""
    parser = add_command(commands, "verify", run_verify, about="check the whole store")
    parser.add_argument(
        "--level",
        choices=("structure", "existence", "sampled", "full"),
        default="full",
        help="structure: the log and its frames; existence: a place for every chunk; sampled: a "
        "share of the chunks decoded; full: every byte (default)",
    )
    parser.add_argument(
        "--share",
        type=float,
        metavar="SHARE",
        help="with --level sampled: the share of the leaves (chunks that hold data), above 0 and "
        "at most 1 (default 0.05)",
    )
    parser.add_argument(
        "--seed",
        type=natural,
        metavar="N",
        help="with --level sampled: chooses the chunks; the same seed takes the same ones",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="with --level full: go on where an interrupted run has stopped",
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
    except KeyboardInterrupt:
        progress.close()
        if context.arguments.level == "full":
            output.note("Go on where it stopped: ckptlog verify --level full --resume")
        raise
    finally:
        progress.close()
    if output.is_json:
        output.document({"store": str(path), **report.to_dict()})
    else:
        _print(output, report)
    if report.ok:
        return OK
    hint = _HINT_OPEN if is_open else _HINT_SHUT
    if all(one.is_of_heads for one in report.problems):
        hint = _HINT_HEADS
    _tell_failure(output, path, report.problems_total, hint)
    return CORRUPTION


def _verify(context: Context, path: Path, progress: Progress) -> tuple[Report, bool]:
    """Verify the opened store; one that is too damaged to be opened, without opening it.

    Returns:
        The report, and whether the store could be opened.
    """
    from ckptlog.errors import CheckpointCorruptionError

    depth, kept = _depth(context), _kept(context)
    try:
        store = open_store(path, context.output, is_reading=True)
    except CheckpointCorruptionError as error:
        from ckptlog.repository.report import with_fault
        from ckptlog.repository.verify import verify_directory

        return with_fault(verify_directory(path, depth, progress, kept=kept), error), False
    with store:
        return store.verify(depth, progress, kept=kept), True


def _kept(context: Context) -> KeptHeads:
    from ckptlog.repository.head_check import KeptHeads

    given = context.arguments
    heads = tuple(named_file(one, "head") for one in given.head)
    return KeptHeads(heads, tuple(map(read_key, given.vkey)))


def _depth(context: Context) -> Depth:
    from ckptlog.errors import ArgumentError
    from ckptlog.repository.depth import SHARE_DEFAULT, Depth

    given = context.arguments
    for name in ("share", "seed"):
        if getattr(given, name) is not None and given.level != "sampled":
            raise ArgumentError(
                f"--{name} is of a sample, and the level is {given.level}.",
                hint=f"Add --level sampled, or leave --{name} out.",
                argument=name,
            )
    share = SHARE_DEFAULT if given.share is None else given.share
    depth = Depth(given.level, share, given.seed or 0, given.resume)
    depth.check()
    return depth


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
        output.line(f"{output.paint('ok', 'ok')}: {read} ({report.level_read})")
    else:
        output.table(_COLUMNS, _rows(report.problems))
    if report.losses:
        output.line(f"{text.count(report.losses_total, 'lost payload')}, told of by a repair:")
        output.table(_COLUMNS, _rows(report.losses))
    if report.damaged_share_max is not None:
        output.line(
            f"sample: {text.count(report.chunks_hashed, 'chunk')} decoded, of them "
            f"{report.leaves_hashed:,} leaves by chance (share {report.share:g}, seed "
            f"{report.seed}); with confidence 0.95 at most {report.damaged_share_max:.3%} of all "
            "leaves (chunks that hold data) are damaged"
        )
    if report.resumed:
        output.line(
            f"note: {text.count(report.resumed, 'file')} not read whole again: views/verify.json "
            "in the store says that an earlier run has checked them. Without --resume all is read."
        )
    if report.events_lost:
        verb = "is" if report.events_lost == 1 else "are"
        number = text.count(report.events_lost, "event")
        output.line(f"note: {number} {verb} lost (repair.lost)")
    for note in report.notes:
        output.line(f"note: {text.escape(note)}")


def _rows(problems: tuple[Problem, ...]) -> list[tuple[str, str, str]]:
    return [(one.code, one.where, one.message) for one in problems]


def _tell_failure(output: Output, path: Path, number: int, hint: str) -> None:
    output.fault(
        {
            "code": "corruption.detected",
            "message": f"The store {path} has {text.count(number, 'problem')}.",
            "hint": hint,
            "context": {"problems": number},
        }
    )
