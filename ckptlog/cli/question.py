"""A question before something is overwritten, to whoever sits at a terminal.

Where nobody sits there nothing is overwritten: a script says --yes (or --json, which is a
program's), so that no answer that was piped in, and no closed stdin, is taken for one.
"""

from __future__ import annotations

import sys

from ckptlog.cli import text
from ckptlog.cli.command import Context


def ask(context: Context, question: str) -> None:
    """Ask; with --yes or --json nobody is asked.

    Raises:
        ArgumentError: Nobody can be asked.
        RecoveryCancelledError: The answer is not yes.
    """
    if not is_asked(context):
        return
    from ckptlog.errors import ArgumentError, RecoveryCancelledError

    if not (sys.stdin and sys.stdin.isatty() and context.output.stderr.isatty()):
        raise ArgumentError(
            f"Nobody can be asked, as there is no terminal: {question}",
            hint="--yes goes on without asking; --dry-run shows what would change.",
            argument="yes",
        )
    context.output.stderr.write(f"{text.escape(question)} [y/N] ")
    context.output.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RecoveryCancelledError(
            "Nothing was touched.", hint="--dry-run shows what would change."
        )


def is_asked(context: Context) -> bool:
    """Say whether `ask` would ask, or refuse."""
    return not (context.arguments.yes or context.output.is_json)
