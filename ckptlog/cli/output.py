"""What a command says, and where: data on stdout, everything else on stderr.

With `--json`, stdout carries JSON alone: one document, or one object a line for lists and
streams; notes are dropped and an error is one JSON object on stderr. Without it, stdout carries
text: with rich tables and colours on a terminal, plain and aligned anywhere else (a pipe, a
file, NO_COLOR, TERM=dumb). Text is escaped (`cli.text`) and fits the stream's encoding.
Page: specs/cli.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ckptlog.cli import text

_COLOURS = {
    "created": "34",
    "updated": "36",
    "active": "36",
    "completed": "32",
    "failed": "31",
    "restored": "35",
    "deleted": "31",
    "ok": "32",
    "warning": "33",
    "error": "31",
    "killed": "31;1",
    "strong": "1",
    "dim": "2",
}
_RICH_NAMES = {"31": "red", "32": "green", "33": "yellow", "34": "blue", "35": "magenta"}
_RICH_NAMES |= {"36": "cyan", "31;1": "bold red", "1": "bold", "2": "dim"}


_PROSE_WIDTH_MIN = 16


@dataclass(frozen=True)
class Column:
    """A column of a table.

    title: In its first line.
    is_number: Whether it stands to the right.
    is_prose: Whether it may be broken over lines where the terminal is narrow; ids and numbers
        may not, so that they can be copied.
    """

    title: str
    is_number: bool = False
    is_prose: bool = False


class Output:
    """The streams of one command.

    Args:
        is_json: Whether stdout carries JSON.
        has_colour: Whether stdout is a terminal that wants colours and tables.

    Attributes:
        refusal: What stdout refused to take, None where it took everything.
    """

    def __init__(
        self, stdout: TextIO, stderr: TextIO, *, is_json: bool = False, has_colour: bool = False
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.is_json = is_json
        self.has_colour = has_colour and not is_json
        self.refusal: OSError | None = None

    @property
    def is_unicode(self) -> bool:
        """Whether stdout takes any character."""
        return (getattr(self.stdout, "encoding", None) or "").lower().startswith("utf")

    def document(self, value: Any) -> None:
        """Print the one JSON document of a command."""
        self._write(self._json(value, indent=2))

    def item(self, value: Any) -> None:
        """Print one line of JSON Lines."""
        self._write(self._json(value))

    def raw(self, content: str) -> None:
        """Print whole lines as they are: text that an encoder of ours has made."""
        with self._refusals():
            self.stdout.write(content)

    def line(self, content: str = "") -> None:
        """Print a line of text that is safe already (every stored part went through escape)."""
        self._write(content)

    def paint(self, content: str, style: str) -> str:
        """Return content in the colour of a style: a state, a level, `strong`, `dim`."""
        if not self.has_colour or style not in _COLOURS:
            return content
        return f"\x1b[{_COLOURS[style]}m{content}\x1b[0m"

    def details(self, pairs: Mapping[str, Any]) -> None:
        """Print names and values below each other, aligned."""
        width = max((len(name) for name in pairs), default=0)
        for name, value in pairs.items():
            shown = text.plain(value)
            self.line(f"{self.paint(name.ljust(width), 'dim')}  {self.paint(shown, shown)}")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
        """Print rows below their titles; cells are escaped here."""
        safe = [[text.escape(cell) for cell in row] for row in rows]
        if self.has_colour:
            self._rich_table(columns, safe)
        else:
            for line in table_lines(columns, safe):
                self._write(line)

    def note(self, message: str) -> None:
        """Tell the user something that is not data; on stderr, not with --json."""
        if not self.is_json:
            self._tell(text.escape(message))

    def fault(self, error: Mapping[str, Any]) -> None:
        """Report an error: `code`, `message`, `hint`, `retryable`, `context`."""
        if self.is_json:
            self._tell(self._json({"retryable": False, **error}, ascii_only=True))
            return
        self._tell(text.escape(f"ckptlog: {error['message']} [{error['code']}]"))
        if error.get("hint"):
            self._tell(text.escape(f"  {error['hint']}"))

    def flush(self) -> None:
        """Hand everything to the system; an error shows here, not at the exit."""
        with self._refusals():
            self.stdout.flush()
        with self._untold():
            self.stderr.flush()

    def _json(self, value: Any, indent: int | None = None, *, ascii_only: bool = False) -> str:
        import json

        plain_ascii = ascii_only or not self.is_unicode
        return text.escape_json(
            json.dumps(value, ensure_ascii=plain_ascii, indent=indent, default=_jsonable)
        )

    def _write(self, content: str) -> None:
        self.raw(content + "\n")

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Remember what stdout refused: it is no fault of the store's."""
        try:
            yield
        except OSError as error:
            self.refusal = error
            raise

    def _tell(self, content: str) -> None:
        with self._untold():
            self.stderr.write(content + "\n")

    @contextmanager
    def _untold(self) -> Iterator[None]:
        """Drop what stderr refuses, or nobody reads any more: that is no reason to do less."""
        try:
            yield
        except OSError:
            _drop_waiting(self.stderr)

    def _rich_table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(
                column.title,
                justify="right" if column.is_number else "left",
                no_wrap=not column.is_prose,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(Text(cell, _rich_style(cell)) for cell in row))
        console = Console(file=self.stdout, force_terminal=True, highlight=False)
        console.width = max(console.width, _width_needed(columns, rows))
        with self._refusals():
            console.print(table)


def _drop_waiting(stream: TextIO) -> None:
    """Empty a stream's buffer, which is written again each time, and on the way out."""
    fd = stream.fileno()
    former, nothing = os.dup(fd), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, fd)
    stream.flush()
    os.dup2(former, fd)
    os.close(former)
    os.close(nothing)


def _rich_style(cell: str) -> str:
    return _RICH_NAMES.get(_COLOURS.get(cell, ""), "")


def _width_needed(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Return the width below which a table would lose characters of ids and numbers."""
    widths = (
        _PROSE_WIDTH_MIN if column.is_prose else max(map(text.columns_wide, (column.title, *cells)))
        for column, *cells in zip(columns, *rows, strict=True)
    )
    return sum(widths) + 2 * len(columns)


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Yield the lines of a plain table: titles in capitals, columns aligned, two blanks apart."""
    titles = [column.title.upper() for column in columns]
    widths = [
        max(text.columns_wide(cell) for cell in cells) for cells in zip(titles, *rows, strict=True)
    ]
    for row in (titles, *rows):
        cells = (
            _aligned(cell, width, column)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _aligned(cell: str, width: int, column: Column) -> str:
    filler = " " * (width - text.columns_wide(cell))
    return filler + cell if column.is_number else cell + filler


def _jsonable(value: Any) -> Any:
    from datetime import datetime
    from enum import Enum

    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return str(value)


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Say whether a stream is a terminal whose user wants colours."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def open_output(environ: Mapping[str, str], *, is_json: bool) -> Output:
    """Return the process's output, made safe for any character and for closed streams."""
    stdout, stderr = _usable(sys.stdout), _usable(sys.stderr)
    return Output(stdout, stderr, is_json=is_json, has_colour=wants_colour(stdout, environ))


def _usable(stream: TextIO | None) -> TextIO:
    if stream is None:  # the process was started with the descriptor closed
        return Path(os.devnull).open("w", encoding="utf-8")  # lives as long as we do
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return stream
