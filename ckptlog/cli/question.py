"""A question before something is overwritten, to whoever sits at a terminal."""

from __future__ import annotations

import sys

from ckptlog.cli import text
from ckptlog.cli.command import Context


def ask(context: Context, question: str) -> None:
    """Ask; where nobody sits there, and with --yes or --json, nobody is asked.

    Raises:
        RecoveryCancelledError: The answer is not yes.
    """
    if not is_asked(context):
        return
    from ckptlog.errors import RecoveryCancelledError

    context.output.stderr.write(f"{text.escape(question)} [y/N] ")
    context.output.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RecoveryCancelledError(
            "Nothing was touched.", hint="--dry-run shows what would change."
        )


def is_asked(context: Context) -> bool:
    """Say whether `ask` would ask."""
    if context.arguments.yes or context.output.is_json:
        return False
    return bool(sys.stdin and sys.stdin.isatty() and context.output.stderr.isatty())
