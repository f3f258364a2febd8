"""What is there now: each file's content, from the stat index, or read where it knows nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Self

from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.change import Step
from ckptlog.capture.directory.ignore import RULE_FILES, Chain, Rules, is_ignored, parse
from ckptlog.capture.directory.reading import Reading
from ckptlog.capture.directory.scan import Options, Scan
from ckptlog.capture.directory.stat_index import Kept, StatIndex
from ckptlog.capture.directory.table import Row


class Present:
    """Answers what a walked path holds.

    Threads: not safe.        Cost: a file that the index knows is not read.
    """

    def __init__(self, root: str, options: Options, found: Scan, index: StatIndex | None) -> None:
        self._reading = Reading(root, options, None, is_cut=False)
        self._found = found
        self._index = index
        self._folder = ""
        self._known: dict[str, Kept | None] | None = None

    def known(self, path: str, row: Row) -> Kept | None:
        """Return what a file or link holds; None where it is gone."""
        folder = naming.parent_of(path)
        if self._known is None or folder != self._folder:
            self._folder, self._known = folder, self._indexed(folder)
        kept = self._known.get(row[0])
        if kept is not None:
            return kept
        read = self._reading.read(folder, row)
        return None if read is None else read[1]

    def _indexed(self, folder: str) -> dict[str, Kept | None]:
        if self._index is None:
            return {}
        rows = self._found.rows(folder)
        return {
            row[0]: kept for row, kept in zip(rows, self._index.kept(folder, rows), strict=True)
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.close()


def without_kept(
    steps: list[Step],
    rule_files: Callable[[], Mapping[str, bytes]],
    unread: Container[str],
    options: Options,
) -> list[Step]:
    """Return the steps without removals of what the capture has left out itself.

    What its own rules left out, which may have been changed since, and what could not be read.

    Args:
        unread: Paths that could not be read; nothing below them was captured.
    """
    removed = [step for step in steps if step.entry is None]
    rules = _rules_of(rule_files()) if removed and options.has_rules else {}
    left = {
        step.path
        for step in removed
        if _was_left_out(step, rules) or _is_at_or_below(step.path, unread)
    }
    left.update([folder for path in left for folder in naming.above(path)])
    return [step for step in steps if step.entry is not None or step.path not in left]


def _is_at_or_below(path: str, paths: Container[str]) -> bool:
    return path in paths or any(folder in paths for folder in naming.above(path))


def _rules_of(rule_files: Mapping[str, bytes]) -> dict[str, Rules]:
    """Return the rules that a capture holds, by directory."""
    patterns: dict[str, dict[str, bytes]] = {}
    for path, text in rule_files.items():
        folder, _, name = path.rpartition("/")
        patterns.setdefault(folder, {})[name] = text
    made = {}
    for folder, files in patterns.items():
        found = [one for name in RULE_FILES for one in parse(files.get(name, b""))]
        made[folder] = Rules(os.fsencode(folder), found)
    return made


def _was_left_out(step: Step, rules: dict[str, Rules]) -> bool:
    """Say whether a path, or a directory that it lies in, was left out."""
    names = step.path.split("/")
    chain: Chain = (rules[""],) if "" in rules else ()
    for number, name in enumerate(names, 1):
        path = "/".join(names[:number])
        is_last = number == len(names)
        is_directory = not is_last or (step.row is not None and stat.S_ISDIR(step.row[1]))
        if is_ignored(chain, os.fsencode(path), os.fsencode(name), is_directory=is_directory):
            return True
        if path in rules:
            chain = (*chain, rules[path])
    return False


def summary(steps: Iterable[Step], *, is_done: bool = False) -> str:
    """Return in a few words what steps do, or have done."""
    counts = {"add": 0, "change": 0, "remove": 0}
    for step in steps:
        counts[step.kind] += 1
    if is_done:
        told = [f"{count} {_DONE[kind]}" for kind, count in counts.items() if count]
        return ", ".join(told) or "nothing changed"
    told = [f"{count} to {kind}" for kind, count in counts.items() if count]
    return ", ".join(told) or "nothing to change"


_DONE = {"add": "added", "change": "changed", "remove": "removed"}
