"""A bar on stderr for work that takes a while; silent where nobody watches."""

from __future__ import annotations

import time

from ckptlog.cli.output import Output
from ckptlog.cli.text import size

_INTERVAL_S = 0.1
_WIDTH = 24
_GUESS_S = 1.0


class Progress:
    """One bar.

    Args:
        label: What is going on, in one word.
        is_bytes: Whether it is bytes that are counted.
    """

    def __init__(self, output: Output, label: str, *, is_bytes: bool = False) -> None:
        self._stream = output.stderr
        self._label = label
        self._is_bytes = is_bytes
        self._is_shown = not output.is_json and self._stream.isatty()
        self._begin_s = time.monotonic()
        self._next_s = 0.0
        self._is_drawn = False

    def __call__(self, done: int, total: int) -> None:
        """Draw the bar, at most ten times a second."""
        now_s = time.monotonic()
        if not self._is_shown or now_s < self._next_s:
            return
        self._next_s = now_s + _INTERVAL_S
        self._is_drawn = True
        drawn = bar(self._label, done, total, is_bytes=self._is_bytes)
        self._draw(f"{drawn}{left(now_s - self._begin_s, done, total)}")

    def close(self) -> None:
        """Wipe the bar."""
        if self._is_drawn:
            self._draw("")

    def _draw(self, line: str) -> None:
        try:
            self._stream.write(f"\r{line}\x1b[K")
            self._stream.flush()
        except OSError:  # the terminal is gone: the work is not for its sake
            self._is_shown = self._is_drawn = False


def bar(label: str, done: int, total: int, *, is_bytes: bool = False) -> str:
    """Return a bar as text: import [######..................]  25%  250/1,000."""
    share = min(done / total, 1.0) if total else 1.0
    filled = round(share * _WIDTH)
    drawn = "#" * filled + "." * (_WIDTH - filled)
    numbers = f"{size(done)}/{size(total)}" if is_bytes else f"{done:,}/{total:,}"
    return f"{label} [{drawn}] {share:4.0%}  {numbers}"


def left(elapsed_s: float, done: int, total: int) -> str:
    """Return how long the rest will take, at the pace so far; nothing while that is a guess."""
    if elapsed_s < _GUESS_S or not 0 < done < total:
        return ""
    rest_s = round(elapsed_s * (total - done) / done)
    minutes, seconds = divmod(rest_s, 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"  {hours}:{minutes:02d}:{seconds:02d} left"
        if hours
        else f"  {minutes}:{seconds:02d} left"
    )
