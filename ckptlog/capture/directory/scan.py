"""The walk: what lies below a root, by name and stat, at one moment; no file is opened but rules.

What is left out, always: stores (a directory that holds a `store.json` and a `log`, and every path
named in `excluded`), and the staging directory of a restore. By the options: `.git` (at any depth,
file or directory), and what the rules leave out (`ignore`). A path in `tracked` is never left out
by rules, nor is a directory on the way to it: git does the same with the files of its index.

Special files (pipes, sockets, devices) are named in `skipped`, not opened. A directory that cannot
be listed is an error, or is named there too, as the options say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.descent import DEPTH_MAX
from ckptlog.capture.directory.ignore import (
    RULE_BYTES_MAX,
    RULE_FILES,
    Chain,
    Rules,
    is_ignored,
    parse,
)
from ckptlog.errors import ArgumentError, DeniedError, from_os_error

STAGING: Final = ".ckptlog-rewind"
GIT: Final = ".git"
_LISTED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
_FILE: Final = stat.S_IFREG
_LINK: Final = stat.S_IFLNK
_DIRECTORY: Final = stat.S_IFDIR
_FORMAT: Final = 0o170000

# The rules of a directory that is left out, and entered for what is tracked in it.
_ALL: Final = (Rules(b"", parse(b"*")),)

# (name, mode, size, mtime_ns, ctime_ns, inode); of a directory the name and mode alone.
Row = tuple[str, int, int, int, int, int]


@dataclass(frozen=True)
class Options:
    """What of a directory is captured.

    has_git: Whether `.git` is captured as well.
    has_rules: Whether `.gitignore` and `.ckptlogignore` are obeyed.
    patterns: Further patterns, asked last of all, in the form of a line of `.gitignore`.
    excluded: Absolute paths that are always left out (the store).
    unreadable: "error", or "report": what cannot be read is named and skipped.
    has_attributes: Whether `user.*` extended attributes are captured.
    """

    has_git: bool = False
    has_rules: bool = True
    patterns: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    unreadable: str = "error"
    has_attributes: bool = False

    def __post_init__(self) -> None:
        if self.unreadable not in {"error", "report"}:
            raise ArgumentError(
                f"unreadable is {self.unreadable!r}.", hint='It is "error" or "report".'
            )


@dataclass
class Scan:
    """What a walk found.

    directories: Path to the rows of what lies in it, by name; a directory before its content.
    skipped: Path to the reason why it is not captured.
    left_out: How many names the rules left out.
    root_mode: The root's own mode.
    """

    directories: dict[str, list[Row]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: int = 0
    root_mode: int = 0

    def paths(self) -> Iterable[tuple[str, Row]]:
        """Yield every path with its row, a directory before what lies in it."""
        return self._below("")

    def _below(self, directory: str) -> Iterable[tuple[str, Row]]:
        for row in self.directories.get(directory, ()):
            path = f"{directory}/{row[0]}" if directory else row[0]
            yield path, row
            if row[1] & _FORMAT == _DIRECTORY:
                yield from self._below(path)


def scan(
    root: str | os.PathLike[str], options: Options, tracked: frozenset[str] = frozenset()
) -> Scan:
    """Walk a directory.

    Args:
        tracked: Paths that no rule leaves out, with the directories on the way to them.

    Raises:
        CheckpointStorageError: The root, or with unreadable="error" anything below, cannot be
            listed; the message names it.

    Threads: safe.        Cost: one getdents and one stat a name; about twice a bare walk.
    """
    walk = _Walk(os.fspath(root), options, tracked)
    return walk.run()


class _Walk:
    def __init__(self, root: str, options: Options, tracked: frozenset[str]) -> None:
        self._root = root
        self._options = options
        self._given = tracked
        self._tracked: frozenset[str] | None = None
        self._found = Scan()
        self._excluded = _identities(options.excluded)
        self._inner: dict[str, Chain] = {}
        self._reserved = {STAGING} if options.has_git else {STAGING, GIT}

    def run(self) -> Scan:
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise from_os_error(error, "Cannot open the directory") from error
        try:
            self._found.root_mode = stat.S_IMODE(os.fstat(fd).st_mode)
            self._list(fd, "", self._first_rules(fd), 0)
        except UnicodeEncodeError as error:
            raise ArgumentError(
                f"A name below {self._root} cannot be read under this locale: {error}.",
                hint="Run with a UTF-8 locale (or PYTHONUTF8=1).",
            ) from error
        finally:
            os.close(fd)
        return self._found

    def _first_rules(self, fd: int) -> Chain:
        """Return the rules that are asked after those of all directories."""
        lines = [os.fsencode(line) for line in self._options.patterns]
        patterns = parse(b"\n".join(lines))
        if self._options.has_rules:
            patterns += parse(_small_file(".git/info/exclude", fd))
        return (Rules(b"", patterns),) if patterns else ()

    def _list(self, fd: int, path: str, chain: Chain, depth: int) -> None:
        if depth > DEPTH_MAX:
            self._refuse(path, f"lies deeper than {DEPTH_MAX} directories", None)
            return
        try:
            with os.scandir(fd) as entries:
                listed = list(entries)
                chain = self._chain(fd, path, chain, listed)
                rows = self._rows(listed, path, chain)
        except OSError as error:
            self._refuse(path or ".", "cannot be listed", error)
            return
        rows.sort()
        self._found.directories[path] = rows
        for row in rows:
            if row[1] & _FORMAT == _DIRECTORY:
                child = naming.join(path, row[0])
                self._descend(fd, row[0], child, self._inner.pop(child, chain), depth)

    def _rows(self, listed: list[os.DirEntry[str]], path: str, chain: Chain) -> list[Row]:
        rows: list[Row] = []
        reserved = self._reserved
        for entry in listed:
            name = entry.name
            if name in reserved or (chain and self._is_left_out(entry, path, chain)):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since it was listed
            mode = found.st_mode
            kind = mode & _FORMAT
            if kind == _FILE or kind == _LINK:
                rows.append(
                    (
                        name,
                        mode,
                        found.st_size,
                        found.st_mtime_ns,
                        found.st_ctime_ns,
                        found.st_ino,
                    )
                )
            elif kind == _DIRECTORY:
                if (found.st_dev, found.st_ino) not in self._excluded:
                    rows.append((name, mode, 0, 0, 0, 0))
            else:
                what = _KINDS.get(kind, "special file")
                self._found.skipped[naming.encode(naming.join(path, name))] = what
        return rows

    def _is_left_out(self, entry: os.DirEntry[str], path: str, chain: Chain) -> bool:
        whole = naming.join(path, entry.name)
        is_directory = entry.is_dir(follow_symlinks=False)
        raw, name = os.fsencode(whole), os.fsencode(entry.name)
        if not is_ignored(chain, raw, name, is_directory=is_directory):
            return False
        if self._is_tracked(whole):
            if is_directory:
                self._inner[whole] = _ALL
            return False
        self._found.left_out += 1
        return True

    def _is_tracked(self, path: str) -> bool:
        if not self._given:
            return False
        if self._tracked is None:  # only where a rule matches
            self._tracked = _with_parents(self._given)
        return path in self._tracked

    def _chain(
        self, fd: int, path: str, chain: Chain, listed: list[os.DirEntry[str]]
    ) -> Chain:
        """Return the rules that hold in a directory."""
        if not self._options.has_rules or chain is _ALL:
            return chain
        names = {entry.name for entry in listed if entry.name in RULE_FILES}
        if not names:
            return chain
        patterns = []
        for name in RULE_FILES:  # the later one is asked first
            if name in names:
                patterns += parse(_small_file(name, fd))
        return (*chain, Rules(os.fsencode(path), patterns)) if patterns else chain

    def _descend(self, fd: int, name: str, path: str, chain: Chain, depth: int) -> None:
        try:
            child = os.open(name, _LISTED, dir_fd=fd)
        except FileNotFoundError:
            return  # removed since it was listed
        except OSError as error:
            self._refuse(path, "cannot be opened", error)
            return
        try:
            if _is_store(child):
                self._leave_out(path)
                return
            self._list(child, path, chain, depth + 1)
        finally:
            os.close(child)

    def _leave_out(self, path: str) -> None:
        parent = naming.parent_of(path)
        rows = self._found.directories[parent]
        own = path.rpartition("/")[2]
        self._found.directories[parent] = [row for row in rows if row[0] != own]

    def _refuse(self, path: str, what: str, error: OSError | None) -> None:
        reason = f"{what}: {error.strerror}" if error is not None else what
        if self._options.unreadable == "report":
            self._found.skipped[naming.encode(path)] = reason
            return
        raise unreadable(os.path.join(self._root, path), reason)


def unreadable(path: str, reason: str) -> DeniedError:
    """Return the error of a path that cannot be captured."""
    return DeniedError(
        f"{naming.shown(path)} {reason}.",
        hint="Make it readable, leave it out with a line in .ckptlogignore, or let what cannot "
        "be read be reported (--unreadable report).",
        path=naming.shown(path),
    )


def _with_parents(paths: Iterable[str]) -> frozenset[str]:
    found = set(paths)
    for path in paths:
        while path := naming.parent_of(path):
            found.add(path)
    return frozenset(found)


def _identities(paths: Iterable[str]) -> set[tuple[int, int]]:
    """Return device and inode of the paths that are there: they may be reached by other names."""
    found = set()
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            found.add((status.st_dev, status.st_ino))
    return found


def _is_store(fd: int) -> bool:
    """Say whether a directory is a store of ours."""
    try:
        os.stat("store.json", dir_fd=fd, follow_symlinks=False)
        os.stat("log", dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _small_file(name: str, fd: int) -> bytes:
    """Return the content of a file of rules; none of what is no readable plain file."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(name, flags, dir_fd=fd)
    except OSError:
        return b""
    with open(opened, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return b""
        return file.read(RULE_BYTES_MAX) or b""
