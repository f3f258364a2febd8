"""`ckptlog bisect`: since when is something true of a checkpoint."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from signal import SIGKILL
from typing import TYPE_CHECKING, Final

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import NOT_FOUND, OK
from ckptlog.cli.moment import natural, positive
from ckptlog.cli.output import Output

if TYPE_CHECKING:
    from subprocess import Popen

    from ckptlog.model.checkpoint import CheckpointData
    from ckptlog.repository.bisection import Bisection, Predicate

_UNKNOWN: Final = 125
_ANSWERS: Final[dict[int, bool | None]] = {0: True, 1: False, _UNKNOWN: None}
_ERROR_CHARACTERS_MAX: Final = 500


def add_commands(commands: Commands) -> None:
    """Add `bisect`."""
    parser = add_command(
        commands,
        "bisect",
        run_bisect,
        about="find the event since which something is true of a checkpoint",
        epilog="The command reads a checkpoint as JSON on its standard input; its status 0 means "
        "true, 1 false, 125 unknown; any other ends the search. Language: specs/bisect.md. "
        "Example: ckptlog bisect --task report --expression 'data.words > 100'",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--checkpoint", metavar="ID", help="along the events of this checkpoint")
    where.add_argument("--task", metavar="ID", help="along those of every checkpoint of this task")
    parser.add_argument(
        "--expression", metavar="TEXT", help="what is to be true: data.loss > 10, for example"
    )
    parser.add_argument(
        "command_words", nargs="*", metavar="COMMAND", help="after --: a command that tells"
    )
    parser.add_argument(
        "--linear", action="store_true", help="ask about every event; assume nothing"
    )
    parser.add_argument(
        "--from", dest="start", type=natural, default=0, metavar="POSITION", help="from here on"
    )
    parser.add_argument(
        "--to", dest="end", type=natural, metavar="POSITION", help="up to here, included"
    )
    parser.add_argument(
        "--timeout", type=positive, metavar="SECONDS", help="longest run of the command"
    )


def run_bisect(context: Context) -> int:
    """Search, and print the event that was found."""
    arguments, output = context.arguments, context.output
    predicate = _predicate(arguments, output)
    with context.store(is_reading=True) as store:
        found = store.bisect(
            predicate,
            checkpoint=arguments.checkpoint,
            task=arguments.task,
            start=arguments.start,
            end=None if arguments.end is None else arguments.end + 1,
            linear=arguments.linear,
            progress=_told_by(output),
        )
    if output.is_json:
        output.document(found.to_dict())
    else:
        _print(output, found)
    if found.entry is None:
        output.fault(_not_found(found))
        return NOT_FOUND
    return OK


def _predicate(arguments: argparse.Namespace, output: Output) -> str | Predicate:
    from ckptlog.errors import ArgumentError

    words: list[str] = arguments.command_words
    if (arguments.expression is None) == (not words):
        raise ArgumentError(
            "Either an expression or a command says what is to be true.",
            hint="Use --expression 'data.loss > 10', or -- COMMAND ARGUMENT ...",
            argument="expression",
        )
    if arguments.expression is not None:
        expression: str = arguments.expression
        return expression
    return command_predicate(words, output, timeout_s=arguments.timeout)


def command_predicate(
    words: Sequence[str], output: Output, *, timeout_s: float | None = None
) -> Predicate:
    """Return a predicate that runs a command; what it prints is dropped."""

    def ask(checkpoint: CheckpointData) -> bool | None:
        output.flush()
        status, stderr = _run(words, checkpoint, timeout_s)
        if status not in _ANSWERS:
            raise _useless(words, checkpoint, _ending(status, stderr))
        return _ANSWERS[status]

    return ask


def _run(
    words: Sequence[str], checkpoint: CheckpointData, timeout_s: float | None
) -> tuple[int, bytes]:
    """Run a command about a checkpoint; return its status and what it said on stderr."""
    import json
    import subprocess

    from ckptlog.storage.interruption import held_interruptions

    process: Popen[bytes] | None = None
    try:
        with held_interruptions():
            process = _start(words, checkpoint)
        _, stderr = process.communicate(json.dumps(checkpoint.to_dict()).encode(), timeout_s)
    except BaseException as error:  # Ctrl-C reaches us, not the group of the command
        if process is not None:
            _end(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise _useless(words, checkpoint, f"ran for longer than {timeout_s} s") from None
        raise
    return process.returncode, stderr


def _start(words: Sequence[str], checkpoint: CheckpointData) -> Popen[bytes]:
    import subprocess

    from ckptlog.errors import ArgumentError

    try:
        return subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
            list(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **_surrounding(checkpoint)},
            process_group=0,  # so that what it has started ends with it
        )
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"{words[0]!r} cannot be run: {error}.",
            hint="Name a program, with a path or on PATH.",
            argument="command",
        ) from error


def _end(process: Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, SIGKILL)
    process.communicate()


def _surrounding(checkpoint: CheckpointData) -> dict[str, str]:
    return {
        "CKPTLOG_POSITION": str(checkpoint.position),
        "CKPTLOG_CHECKPOINT": checkpoint.checkpoint_id,
        "CKPTLOG_TASK": checkpoint.task_id,
    }


def _ending(status: int, stderr: bytes) -> str:
    ending = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    said = stderr.decode(errors="replace").strip()[-_ERROR_CHARACTERS_MAX:]
    return f"{ending} and said: {said}" if said else ending


def _useless(words: Sequence[str], checkpoint: CheckpointData, why: str) -> Exception:
    from ckptlog.errors import ArgumentError

    return ArgumentError(
        f"The command {words[0]!r} {why}; it was asked about event {checkpoint.position}.",
        hint="0 means true, 1 false, 125 that it cannot tell.",
        argument="command",
        position=checkpoint.position,
    )


def _told_by(output: Output) -> Callable[[int, bool | None], None]:
    def tell(position: int, answer: bool | None) -> None:  # noqa: FBT001 - as it is called
        output.note(f"after {position}: {_word(answer)}")

    return tell


def _word(answer: bool | None) -> str:  # noqa: FBT001 - an answer, no option
    return {True: "true", False: "false", None: "unknown"}[answer]


def _print(output: Output, found: Bisection) -> None:
    entry = found.entry
    if entry is not None:
        event = entry.event
        output.line(f"{output.paint('True since event', 'strong')} {entry.position}.")
        output.line()
        output.details(
            {
                "position": entry.position,
                "time": text.instant(event.time),
                "event": event.type.removeprefix("checkpoint."),
                "checkpoint": event.subject.checkpoint,
                "task": event.subject.task,
                "step": text.progress(event.step, event.total),
                "state": event.state,
                "actor": event.actor,
                "false before": found.previous,
            }
        )
        output.line()
    note = "" if entry is None else f" {found.note}"
    output.line(f"Asked {found.asked:,} of {text.count(found.events, 'event')}.{note}")
    if found.doubtful:
        output.line(f"Not to be judged, so it may be one of these: {_listed(found.doubtful)}.")
    if found.damaged:
        output.line(f"Damaged: {_listed(found.damaged)} (ckptlog verify).")
    if found.collected:
        output.line(f"Collected by a compaction: {_listed(found.collected)}.")
    for path in found.unseen:
        output.note(f"no checkpoint that was asked about has {path}")


def _listed(positions: Sequence[int]) -> str:
    shown = ", ".join(str(one) for one in positions[:10])
    return shown + (f" and {len(positions) - 10:,} more" if len(positions) > 10 else "")


def _not_found(found: Bisection) -> dict[str, object]:
    return {
        "code": "cli.bisect",
        "message": f"There is no such event. {found.note}",
        "hint": "" if found.is_linear else "--linear asks about every event.",
        "context": {"events": found.events, "asked": found.asked},
    }
