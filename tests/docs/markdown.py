"""Finds what a page shows to be run: fenced blocks, commands, and what they are said to print.

A `console` block holds commands after `$ ` and the lines that each prints; a `python` block is a
program, and a `text` block straight after it is what it prints. `...` stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# What differs from run to run, and what is written in its place before texts are compared.
_VARIABLE = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", "<time>"),
    (r"\b[0-9a-f]{32}\b", "<id>"),
    (r"\d{16}", "<number>"),
    (r"\b\d+(\.\d+)? [KMG]?B\b", "<size>"),
    (r"\S+@\S+", "<actor>"),
    (r"process \d+", "process <number>"),
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    line: Of its first line in the page, from 1.
    """

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Step:
    """Something to run, and what it is said to print; None where the page does not say."""

    language: str
    source: str
    printed: str | None
    line: int


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (line[3:].strip(), number + 1), []
        else:
            found.append(Block(opened[0], "\n".join(lines), opened[1]))
            opened = None
    return found


def steps(page: Path) -> list[Step]:
    """Return what a page shows to be run, in order."""
    found: list[Step] = []
    listed = blocks(page)
    for block, after in zip(listed, [*listed[1:], None], strict=True):
        if block.language == "console":
            found += _commands(block)
        elif block.language == "python":
            is_shown = after is not None and after.language == "text"
            printed = after.text if after is not None and is_shown else None
            found.append(Step("python", block.text, printed, block.line))
    return found


def _commands(block: Block) -> list[Step]:
    found: list[tuple[str, list[str], int]] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append((line[2:], [], number))
        else:
            found[-1][1].append(line)
    return [Step("console", source, "\n".join(lines), line) for source, lines, line in found]


def pattern(printed: str) -> re.Pattern[str]:
    """Return what a printed text has to match in full, after `plain`."""
    parts = [re.escape(part) for part in plain(printed).split("...")]
    return re.compile(".*".join(parts), re.DOTALL)


def plain(text: str) -> str:
    """Return a text without what differs from run to run, and with single blanks."""
    for variable, name in _VARIABLE:
        text = re.sub(variable, name, text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
