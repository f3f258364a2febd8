"""The program: parses the arguments, runs one command, turns what happened into a status.

Nothing heavy is imported before a command runs; `ckptlog --help` must feel instant. Every way
out goes through `main`: results, our errors, an interrupted run, a reader that went away, and
what nobody foresaw (one line, and the traceback with CKPTLOG_DEBUG=1). Page: specs/cli.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ckptlog import __version__
from ckptlog.cli import (
    audit,
    backup,
    bisect,
    capture,
    cleanup,
    compact,
    completion,
    consumers,
    demo,
    diff,
    doctor,
    event_log,
    exit_status,
    exporting,
    files,
    importing,
    init,
    leases,
    listing,
    recover,
    removal,
    repair,
    replay,
    restore,
    rewind,
    run,
    show,
    stats,
    tasks,
    verify,
    watch,
)
from ckptlog.cli.command import Context, add_global_options
from ckptlog.cli.output import Output, open_output
from ckptlog.recovery.ending import SignalledError

if TYPE_CHECKING:
    from ckptlog.errors import CheckpointStorageError

DEBUG = "CKPTLOG_DEBUG"
_DESCRIPTION = "Durable, verified checkpoints for agents and other long jobs."
_EPILOG = (
    "exit status: 0 done, 1 a part failed, 2 wrong arguments, 3 not found, 4 conflict, "
    "5 damaged data, 6 storage. Start with `ckptlog demo` or `ckptlog init`."
)


class UsageError(Exception):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        """Raise, naming the command whose help explains more."""
        raise UsageError(message, self.prog)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole program."""
    parser = Parser(prog="ckptlog", description=_DESCRIPTION, epilog=_EPILOG, allow_abbrev=False)
    add_global_options(parser)
    parser.add_argument(
        "--version", action="version", version=f"ckptlog {__version__}", help="print the version"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for module in (init, demo, listing, show, event_log, diff, restore, replay):
        module.add_commands(commands)
    for module in (audit, bisect, files, watch, consumers):
        module.add_commands(commands)
    for module in (verify, repair, cleanup, compact, stats, doctor, backup, importing, exporting):
        module.add_commands(commands)
    for module in (removal, leases, tasks, completion, capture, rewind, recover, run):
        module.add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own = words[: words.index("--")] if "--" in words else words  # the rest is another command's
    output = open_output(os.environ, is_json="--json" in own)
    try:
        status = _run(words, output)
        output.flush()
    except BrokenPipeError:
        _abandon_stdout()
        status = exit_status.CLOSED_PIPE
    except KeyboardInterrupt as error:
        status = error.status if isinstance(error, SignalledError) else exit_status.INTERRUPTED
        status = _report(output, "cli.interrupted", "Interrupted.", status)
    except UsageError as error:
        hint = f"See `{error.args[1]} --help`."
        status = exit_status.OWN_FAILURE if _is_run(own) else exit_status.USAGE
        if _is_run(own) and own == words:
            hint = f"Put -- before the command: ckptlog run -- COMMAND ARGUMENT ... {hint}"
        status = _report(output, "cli.usage", error.args[0], status, hint=hint)
    except Exception as error:  # noqa: BLE001 - the outermost loop: every error gets its status
        status = _failed(output, error)
    return status


def _is_run(words: Sequence[str]) -> bool:
    """Say whether the command is `run`, whose statuses are another command's but one."""
    names = [word for at, word in enumerate(words) if at == 0 or words[at - 1] != "--store"]
    return next((word for word in names if not word.startswith("-")), "") == "run"


def _run(words: Sequence[str], output: Output) -> int:
    parser = build_parser()
    try:
        arguments, unknown = parser.parse_known_args(words)
    except SystemExit as leaving:  # --help, --version
        return int(leaving.code or 0)
    if unknown:
        command = f" {arguments.command}" if arguments.command else ""
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}", f"ckptlog{command}")
    if arguments.command is None:
        parser.print_help(output.stderr)
        return exit_status.USAGE
    arguments.store = getattr(arguments, "store", None)
    context = Context(arguments, parser, output, os.environ, _working_directory())
    status: int = arguments.run(context)
    return status


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed under us; only the search for a store misses it
        return Path("/")


def _failed(output: Output, error: Exception) -> int:
    from ckptlog.errors import CheckpointError, from_os_error

    if _is_debugged(os.environ):
        import traceback

        traceback.print_exception(error, file=output.stderr)
    if isinstance(error, OSError):
        is_of_stdout = error is output.refusal
        _drop_what_cannot_be_written(output)
        error = from_os_error(error, "The system refused")
        if is_of_stdout:
            error = _of_stdout(error)
    if isinstance(error, CheckpointError):
        _tell(output, error.to_dict())
        return exit_status.status_of(error)
    return _report(
        output,
        "cli.unexpected",
        f"Unexpected {type(error).__name__}: {error}",
        exit_status.PARTIAL,
        hint=f"Set {DEBUG}=1 for the traceback; `ckptlog doctor` checks the store.",
    )


def _of_stdout(error: CheckpointStorageError) -> CheckpointStorageError:
    """Return what is told where the answer could not be written; the store is well."""
    why = error.message.removeprefix("The system refused")
    return type(error)(
        f"Standard output cannot be written{why}",
        hint="Only the answer is lost: what the command has done in the store stays done. Give "
        "standard output more room, or send it elsewhere.",
        **{**error.context, "path": "<stdout>"},
    )


def _is_debugged(environ: Mapping[str, str]) -> bool:
    return environ.get(DEBUG, "") not in {"", "0"}


def _report(output: Output, code: str, message: str, status: int, *, hint: str = "") -> int:
    _tell(output, {"code": code, "message": message, "hint": hint, "context": {}})
    return status


def _tell(output: Output, fault: Mapping[str, Any]) -> None:
    try:
        output.flush()
        output.fault(fault)
        output.stderr.flush()
    except OSError:
        _abandon_stdout()


def _drop_what_cannot_be_written(output: Output) -> None:
    """Let go of a stdout that refuses bytes, so that the error itself can be told."""
    try:
        output.stdout.flush()
    except OSError:
        _abandon_stdout()


def _abandon_stdout() -> None:
    """Point stdout at nothing: Python flushes it once more on the way out."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass
