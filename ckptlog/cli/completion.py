"""`ckptlog completion`: the script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK

_FILES = {"out", "transcript", "file", "policy"}
_FOLDERS = {"store", "path", "dir", "folder"}


def add_commands(commands: Commands) -> None:
    """Add `completion`."""
    parser = add_command(
        commands,
        "completion",
        run_completion,
        about="print a completion script for a shell",
        epilog='bash: eval "$(ckptlog completion bash)"; '
        "zsh: put the output into a file _ckptlog in a folder of $fpath.",
    )
    parser.add_argument("shell", choices=("bash", "zsh"))


def run_completion(context: Context) -> int:
    """Print the script."""
    import shtab

    parser = context.parser
    for action in _actions(parser):
        if action.dest in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    shell = context.arguments.shell
    script = shtab.complete(parser, shell)
    if context.output.is_json:
        context.output.document({"shell": shell, "script": script})
    else:
        context.output.line(script)
    return OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 - shtab reads the same list
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - no public name
            for child in action.choices.values():
                yield from _actions(child)
