"""Which files are left out: the rules of `.gitignore`, as git applies them.

Theory. Each directory may bring a file of patterns; a path is asked of the deepest directory's
file first, then of those above; within a file the last pattern that matches decides, and `!` turns
the decision round. A directory that is left out is not entered, so nothing below it comes back.

- A pattern with `/` at its beginning or middle is compared with the path below the directory of its
  file; another with the name alone, at any depth. With `/` at its end it is of directories only.
- `*` and `?` and `[...]` never match `/`. `**` between slashes (or at an end) matches any number of
  directories; anywhere else it is `*`. Names are compared byte by byte: `?` is one byte.
- A pattern that is not finished (an open bracket, a backslash at its end, a class that does not
  exist) matches nothing.

`.ckptlogignore` is a second such file, asked before the `.gitignore` beside it. `.git/info/exclude`
of the root is asked last. The user's global file (core.excludesFile) is not read: what a capture
holds must not depend on whose machine it was made on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

GIT_FILE: Final = ".gitignore"
OWN_FILE: Final = ".ckptlogignore"
RULE_FILES: Final = (GIT_FILE, OWN_FILE)
# A file of rules is read whole; git has no bound, but no one writes by hand what is longer.
RULE_BYTES_MAX: Final = 8 << 20

_CLASSES: Final = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb"\t-\r ",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}
_special = re.compile(r"([\\*?\[\]!# ])")
_class_name = re.compile(rb"\[:([^\]]*):\]").match
_class_like = re.compile(rb"\[:[^\]]*\]").match


class Pattern(NamedTuple):
    """One line. expression: regular expression over bytes; is_path: of the path, not the name."""

    expression: bytes
    is_path: bool
    is_directory_only: bool
    is_negated: bool


class Rules:
    """The patterns of one directory, from all its files; the last that matches decides.

    Threads: safe; immutable.        Cost: two searches a path where nothing matches.
    """

    def __init__(self, directory: bytes, patterns: Sequence[Pattern]) -> None:
        self._skip = len(directory) + 1 if directory else 0
        self._patterns = [(_compiled(one.expression), one) for one in reversed(patterns)]
        self._name = _any_of(one.expression for one in patterns if not one.is_path)
        self._path = _any_of(one.expression for one in patterns if one.is_path)

    def verdict(self, path: bytes, name: bytes, *, is_directory: bool) -> bool | None:
        """Return whether a path is left out; None where no pattern matches."""
        below = path[self._skip :]
        if not (
            (self._name is not None and self._name.fullmatch(name))
            or (self._path is not None and self._path.fullmatch(below))
        ):
            return None
        for expression, pattern in self._patterns:
            if pattern.is_directory_only and not is_directory:
                continue
            if expression.fullmatch(below if pattern.is_path else name):
                return not pattern.is_negated
        return None


Chain = tuple[Rules, ...]


def patterns_for(root: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield the patterns of a root that match these absolute paths, as far as they lie below it."""
    top = root.rstrip("/") + "/"
    for path in paths:
        if path.startswith(top):
            yield "/" + _special.sub(r"\\\1", path[len(top) :])


def is_ignored(chain: Chain, path: bytes, name: bytes, *, is_directory: bool) -> bool:
    """Say whether a path is left out by a chain of rules, the root's first.

    Whether a directory above it is left out is not asked: the walk never enters such a one.
    """
    for rules in reversed(chain):
        found = rules.verdict(path, name, is_directory=is_directory)
        if found is not None:
            return found
    return False


def parse(text: bytes) -> list[Pattern]:
    """Return the patterns of a file of rules; lines that can match nothing are left out."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    found = (_pattern(line.removesuffix(b"\r")) for line in text.split(b"\n"))
    return [pattern for pattern in found if pattern is not None]


def _pattern(line: bytes) -> Pattern | None:
    if line.startswith(b"#"):
        return None
    line = _without_blanks(line)
    is_negated = line.startswith(b"!")
    if is_negated:
        line = line[1:]
    is_directory_only = line.endswith(b"/")
    if is_directory_only:
        line = line[:-1]
    if not line:
        return None
    is_path = b"/" in line
    expression = _expression(line.removeprefix(b"/"))
    if expression is None:
        return None
    return Pattern(expression, is_path, is_directory_only, is_negated)


def _without_blanks(line: bytes) -> bytes:
    """Cut the blanks off a line's end, but not one behind a backslash."""
    kept = at = 0
    while at < len(line):
        if line[at : at + 1] == b"\\":
            at += 2
            kept = at
        else:
            at += 1
            if line[at - 1 : at] != b" ":
                kept = at
    return line[:kept]


def _expression(pattern: bytes) -> bytes | None:
    """Return the regular expression of a pattern; None where it can match nothing."""
    out = bytearray()
    at = 0
    while at < len(pattern):
        letter = pattern[at : at + 1]
        if letter == b"*":
            text, at = _stars(pattern, at)
            out += text
        elif letter == b"[":
            bracket = _bracket(pattern, at)
            if bracket is None:
                return None
            text, at = bracket
            out += text
        elif letter == b"?":
            out += b"[^/]"
            at += 1
        else:
            if letter == b"\\":
                at += 1
                letter = pattern[at : at + 1]
                if not letter:
                    return None
            out += re.escape(letter)
            at += 1
    return bytes(out)


def _stars(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return the expression of a run of `*`, and where the pattern goes on."""
    end = at
    while pattern[end : end + 1] == b"*":
        end += 1
    is_front = at == 0 or pattern[at - 1 : at] == b"/"
    behind = pattern[end:]
    if end - at < 2 or not is_front or not (not behind or behind.startswith((b"/", b"\\/"))):
        return b"[^/]*", end
    if behind.startswith(b"/"):
        return b"(?:.*/)?", end + 1
    return b".*", end


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the expression of a bracket that opens at `at`, and where the pattern goes on."""
    at += 1
    is_negated = pattern[at : at + 1] in {b"!", b"^"} and bool(pattern[at : at + 1])
    at += is_negated
    inside = bytearray()
    is_first = True
    while True:
        letter = pattern[at : at + 1]
        if not letter:
            return None
        if letter == b"]" and not is_first:
            break
        is_first = False
        member = _member(pattern, at)
        if member is None:
            return None
        text, at = member
        inside += text
    if not inside:  # only ranges that are empty
        return (b"[^/]" if is_negated else b"(?!)"), at + 1
    return (b"[^/" if is_negated else b"(?!/)[") + bytes(inside) + b"]", at + 1


def _member(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    """Return one member of a bracket (a letter, a range, a class), and what comes next."""
    if pattern[at : at + 2] == b"[:" and _class_like(pattern, at):
        named = _class_name(pattern, at)
        if named is None:
            return rb"\[", at + 1
        inside = _CLASSES.get(named[1])
        return None if inside is None else (inside, named.end())
    first = _letter(pattern, at)
    if first is None:
        return None
    low, at = first
    if pattern[at : at + 1] == b"-" and pattern[at + 1 : at + 2] not in {b"", b"]"}:
        last = _letter(pattern, at + 1)
        if last is None:
            return None
        high, at = last
        inside = _hex(low) + b"-" + _hex(high) if low <= high else b""
        # git compares the low end by itself before it looks at the range
        return inside or _hex(low), at
    return _hex(low), at


def _letter(pattern: bytes, at: int) -> tuple[int, int] | None:
    if pattern[at : at + 1] == b"\\":
        at += 1
    return (pattern[at], at + 1) if at < len(pattern) else None


def _hex(letter: int) -> bytes:
    return b"\\x%02x" % letter


def _compiled(expression: bytes) -> re.Pattern[bytes]:
    return re.compile(expression, re.DOTALL)


def _any_of(expressions: Iterable[bytes]) -> re.Pattern[bytes] | None:
    found = list(expressions)
    return _compiled(b"|".join(b"(?:%s)" % one for one in found)) if found else None
