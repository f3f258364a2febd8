"""`ckptlog run`: run any command as a checkpointed task."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptlog.cli import exit_status, text
from ckptlog.cli.capture import store_path
from ckptlog.cli.command import Commands, Context, add_command, open_store
from ckptlog.cli.moment import duration, natural
from ckptlog.cli.output import Output
from ckptlog.cli.word import filled

if TYPE_CHECKING:
    from ckptlog.service.command.order import Order
    from ckptlog.service.command.result import Result
    from ckptlog.service.command.run import CommandRun
    from ckptlog.service.command.teller import Teller

INTERVAL_S = 30.0
_NOT_STARTED = "the command was not started"


def add_commands(commands: Commands) -> None:
    """Add `run`."""
    parser = add_command(
        commands,
        "run",
        run_run,
        about="run a command as a checkpointed task: its files captured, its end recorded",
        epilog="The exit status is the command's: 128 and the signal's number where one ended it, "
        "126 where it cannot be executed, 127 where it is not there; 125 where ckptlog itself "
        "failed. Files that .gitignore and .ckptlogignore leave out are not captured. Without "
        "--store and $CKPTLOG_STORE the nearest store from here upwards is used, and .ckptlog is "
        "made where there is none.",
    )
    parser.add_argument(
        "command_words", nargs="*", metavar="COMMAND", help="after --: the command to run"
    )
    parser.add_argument(
        "--name", type=filled, metavar="TASK", help="of the task (default: of the command)"
    )
    parser.add_argument(
        "--interval",
        type=duration,
        default=INTERVAL_S,
        metavar="SECONDS",
        help="between two captures (default: 30); nothing is written where nothing changed",
    )
    for name, about in (
        ("dir", "capture this directory (default: the working directory)"),
        ("file", "capture this file"),
        ("sqlite", "capture this SQLite database, while it is written to"),
    ):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            type=filled,
            metavar="DIR" if name == "dir" else "PATH",
            help=f"{about}; may be repeated",
        )
    parser.add_argument(
        "--may-appear",
        action="store_true",
        help="what is named may be missing at the start: the command makes it",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last attempt: its files are brought back from the last good capture",
    )
    parser.add_argument(
        "--no-rewind", action="store_true", help="with --resume: leave the files as they are"
    )
    parser.add_argument(
        "--moved",
        action="store_true",
        help="with --resume: the files were captured at other paths, and are these now",
    )
    parser.add_argument(
        "--keep", type=natural, default=0, metavar="N", help="keep the newest N captures only"
    )


def run_run(context: Context) -> int:
    """Run the command; every failure of ours has one status, which is none of a command's."""
    from ckptlog.errors import CheckpointError, from_os_error

    try:
        return _run(context)
    except CheckpointError as error:
        context.output.fault(error.to_dict())
    except OSError as error:
        context.output.fault(from_os_error(error, "The system refused").to_dict())
    return exit_status.OWN_FAILURE


def _run(context: Context) -> int:
    import msgspec

    from ckptlog.errors import CheckpointError
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.service.command.order import check
    from ckptlog.service.command.run import CommandRun
    from ckptlog.service.command.teller import Teller

    output = context.output
    order = _order(context.arguments, context)
    check(order)  # before a store is made for it
    path, is_new = store_path(context, context.directory, is_created=True)

    running: CommandRun | None = None
    with Teller(lambda message: _say(output, message)) as tell:
        try:
            with (
                open_store(path, output, is_created=is_new) as store,
                CheckpointManager(store=store) as manager,
            ):
                running = CommandRun(manager, order, tell=tell)
                output.flush()
                result = running.run()
        except KeyboardInterrupt as error:
            return _interrupted(error, running, tell, output)
        except (CheckpointError, OSError) as error:
            if running is None or not running.is_begun:
                tell(_NOT_STARTED)
            if running is None or running.result is None:
                raise
            fault = f"the store was not let go as it should be: {error}"
            tell(f"warning: {fault}")
            faults = [*running.result.faults, fault]
            result = msgspec.structs.replace(running.result, faults=faults)
        for message in _end_of(result):
            tell(message)
    if output.is_json:
        output.document(msgspec.to_builtins(result))
    return exit_status.OWN_FAILURE if _is_ours(result) else result.status


def _interrupted(
    error: KeyboardInterrupt, running: CommandRun | None, tell: Teller, output: Output
) -> int:
    """Tell of an interrupt, and wait no longer for who reads that; return the status."""
    from ckptlog.recovery.ending import SignalledError

    tell.hurry()
    if running is None or not running.is_begun:
        tell(_NOT_STARTED)
    if output.is_json:
        raise error
    tell("Interrupted. [cli.interrupted]")
    return error.status if isinstance(error, SignalledError) else exit_status.INTERRUPTED


def _say(output: Output, message: str) -> None:
    """Tell it past the stream's buffer.

    A thread that waits in there for a reader has its lock, and the process's exit needs that.
    """
    from ckptlog.service.command.relay import write_all

    if output.is_json:
        return
    line = text.escape(f"ckptlog: {message}")
    try:
        fd = output.stderr.fileno()
    except OSError:  # no file: one in memory
        output.note(line)
    else:
        write_all(fd, f"{line}\n".encode(output.stderr.encoding, "backslashreplace"))


def _order(arguments: argparse.Namespace, context: Context) -> Order:
    from ckptlog.service.command.files import Named
    from ckptlog.service.command.order import Order

    return Order(
        words=arguments.command_words,
        cwd=str(context.directory),
        environ=os.environ,
        name=arguments.name,
        interval_s=arguments.interval,
        named=Named(
            arguments.dir,
            arguments.file,
            arguments.sqlite,
            keep=arguments.keep,
            may_appear=arguments.may_appear,
        ),
        is_resumed=arguments.resume,
        has_rewind=not arguments.no_rewind,
        is_moved=arguments.moved,
        outputs=(2, 2) if context.output.is_json else (1, 2),
    )


def _end_of(result: Result) -> Iterator[str]:
    """Yield what is to be told of the end."""
    if result.is_skipped:
        return
    captured = f"{result.captures} captures" if result.captures != 1 else "1 capture"
    if result.absent:
        captured = f"{captured}, {len(result.absent)} never there"
    where = f", the newest {result.capture}" if result.capture else ""
    yield (
        f"task {result.task}, attempt {result.attempt}: {result.state} "
        f"({result.checkpoint}); {captured}{where}"
    )
    if _is_ours(result):
        yield (
            f"the command ended with 0; the status is {exit_status.OWN_FAILURE}, because its last "
            "capture, its end, or what it printed could not be stored"
        )


def _is_ours(result: Result) -> bool:
    """Say whether all that failed is ours."""
    return bool(result.faults) and result.status == exit_status.OK
