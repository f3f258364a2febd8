"""What a restore would change, for people: a line for each path, and unified diffs of text files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from typing import Final

from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.change import ADD, REMOVE, Step
from ckptlog.capture.directory.content import ChangedFile, open_file
from ckptlog.capture.directory.descent import Descent
from ckptlog.capture.directory.entry import Entry

# Longer files are told by their sizes: a diff of them takes long and nobody reads it.
DIFF_BYTES_MAX: Final = 1 << 20
_BINARY_LOOK: Final = 8_000

# Returns a captured file's whole content.
Whole = Callable[[Entry], bytes]


def diff(root: str, step: Step, whole: Whole) -> Iterator[str]:
    """Yield the lines of a unified diff from what is there to what a restore would make of it.

    Bytes that are not UTF-8 are shown as surrogates' escapes; a file with NUL bytes is binary.
    """
    shown = naming.shown(step.path)
    yield from _headers(step, shown)
    if not step.is_content or _is_directory(step):
        return
    old_size = 0 if step.row is None else step.row[2]
    new_size = 0 if step.entry is None else step.entry.size
    if max(old_size, new_size) > DIFF_BYTES_MAX:
        yield f"Files differ: {old_size} bytes here, {new_size} in the capture"
        return
    before, after = _present(root, step), _captured(step, whole)
    if b"\0" in before[:_BINARY_LOOK] or b"\0" in after[:_BINARY_LOOK]:
        yield f"Binary files differ: {old_size} bytes here, {new_size} in the capture"
        return
    yield from difflib.unified_diff(
        _lines(before),
        _lines(after),
        "/dev/null" if step.kind == ADD else f"a/{shown}",
        "/dev/null" if step.kind == REMOVE else f"b/{shown}",
        lineterm="",
    )


def _headers(step: Step, shown: str) -> Iterator[str]:
    yield f"diff a/{shown} b/{shown}"
    old = None if step.row is None else step.row[1]
    new = None if step.entry is None else step.entry
    if old is None and new is not None:
        yield f"new {new.type}"
    elif new is None:
        yield "removed"
    elif old is not None and new is not None and new.type != "link":
        if old & 0o7777 != new.mode:
            yield f"old mode {old & 0o7777:04o}"
            yield f"new mode {new.mode:04o}"


def _is_directory(step: Step) -> bool:
    is_new_one = step.entry is not None and step.entry.type == "directory"
    return is_new_one or (step.entry is None and _was_directory(step))


def _was_directory(step: Step) -> bool:
    return step.row is not None and step.row[1] & 0o170000 == 0o040000


def _present(root: str, step: Step) -> bytes:
    if step.row is None or _was_directory(step):
        return b""
    folder, _, name = step.path.rpartition("/")
    try:
        with Descent(root) as descent:
            fd = descent.open(folder)
            if step.row[1] & 0o170000 == 0o120000:
                return os.fsencode(os.readlink(name, dir_fd=fd))
            opened = open_file(name, fd)
            if opened is None:
                return b""
            try:
                return b"".join(opened.read(None))
            finally:
                os.close(opened.fd)
    except (ChangedFile, OSError):
        return b""


def _captured(step: Step, whole: Whole) -> bytes:
    entry = step.entry
    if entry is None or entry.type == "directory":
        return b""
    return os.fsencode(entry.link_target()) if entry.type == "link" else whole(entry)


def _lines(raw: bytes) -> list[str]:
    text = raw.decode("utf-8", "backslashreplace")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    else:
        lines[-1] += " (no line feed at the end)"
    return lines
