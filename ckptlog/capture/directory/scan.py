"""The walk: what lies below a root, by name and stat, at one moment; no file is opened but rules.

What is left out, always: stores (a directory that holds a `store.json` and a `log`, and every path
named in `excluded`), and the staging directory of a restore. By the options: `.git` (at any depth,
file or directory), and what the rules leave out (`ignore`). A path in `tracked` is never left out
by rules, nor is a directory on the way to it: git does the same with the files of its index.

Special files (pipes, sockets, devices) are named in `skipped`, not opened. A directory that cannot
be listed is an error, or is named there too, as the options say.

With a base, the walk that the newest capture remembers, directories that are confirmed to be as
they were (`confirmation`) are taken over, and only the others are listed here. That their verdicts
by the rules are the same, too, is known by this: the conditions of both walks are equal, and each
file of rules above is one of the names that were confirmed, or compared here.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.confirmation import unconfirmed
from ckptlog.capture.directory.descent import DEPTH_MAX
from ckptlog.capture.directory.folder import Folder, look
from ckptlog.capture.directory.ignore import (
    RULE_BYTES_MAX,
    RULE_FILES,
    Chain,
    Rules,
    is_ignored,
    parse,
)
from ckptlog.capture.directory.stat_index import StatIndex, is_racy
from ckptlog.capture.directory.table import Left, Row
from ckptlog.errors import ArgumentError, DeniedError, from_os_error
from ckptlog.storage.environment import Environment
from ckptlog.storage.file_system import mounts_below

STAGING: Final = ".ckptlog-rewind"
GIT: Final = ".git"
EXCLUDE: Final = ".git/info/exclude"
_LISTED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
_OTHER: Final = "special file"
SPECIAL: Final = frozenset((*_KINDS.values(), _OTHER))
"""The reasons why what holds nothing is skipped."""
_DIRECTORY: Final = stat.S_IFDIR
_FORMAT: Final = 0o170000

# The rules of a directory that is left out, and entered for what is tracked in it.
_ALL: Final = (Rules(b"", parse(b"*")),)

# Paths that no rule leaves out; called only where a rule would.
Tracked = Callable[[], Iterable[str]]


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

    directories: For each directory that was listed, by path, its names in order.
    left: For each of them, what the rules left out.
    never: Those that are not described by that alone.
    skipped: Path (as text) to the reason why it is not captured.
    mounts: What a rewind cannot reach: directories on another device than the root, and what else
        is mounted; not what lies in another one of them.
    root_mode: The root's own mode.
    root: The root's device and inode.
    base: What the rest is taken over from; None where everything was listed.
    conditions: What decides, beside the names, about what is left out.
    is_forced: Whether a path was taken against the rules.
    """

    directories: dict[str, list[Row]] = field(default_factory=dict)
    left: dict[str, list[Left]] = field(default_factory=dict)
    never: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    mounts: set[str] = field(default_factory=set)
    root_mode: int = 0
    root: tuple[int, int] = (0, 0)
    base: StatIndex | None = None
    conditions: str = ""
    is_forced: bool = False
    touched: set[str] = field(default_factory=set)

    def rows(self, directory: str) -> list[Row]:
        """Return the names of a directory that was found."""
        rows = self.directories.get(directory)
        if rows is None:
            return [] if self.base is None else self.base.rows(directory)
        return rows

    def has(self, directory: str) -> bool:
        """Say whether a directory, whose name was found, was listed, or taken over."""
        if directory in self.directories or self.base is None:
            return directory in self.directories
        return directory not in self.never and self.base.record(directory) is not None

    def is_touched(self, directory: str) -> bool:
        """Say whether a directory, or one below it, is not taken over."""
        return self.base is None or directory in self.touched

    def touch(self, directory: str) -> None:
        """Note that a directory is not taken over."""
        self.touched.add(directory)
        while directory:
            directory = naming.parent_of(directory)
            self.touched.add(directory)

    def left_of(self, directory: str) -> list[Left]:
        """Return what the rules left out of a directory."""
        left = self.left.get(directory)
        if left is None:
            return [] if self.base is None else self.base.left(directory)
        return left

    @property
    def left_out(self) -> int:
        """How many names the rules left out."""
        return sum(len(self.left_of(folder)) for folder in self.folders())

    def folders(self) -> Iterator[str]:
        """Yield every directory that was found, each before those that lie in it."""
        yield ""
        for path, row in self.paths():
            if row[1] & _FORMAT == _DIRECTORY:
                yield path

    def paths(self) -> Iterable[tuple[str, Row]]:
        """Yield every path with its row, a directory before what lies in it."""
        return self._below("")

    def _below(self, directory: str) -> Iterable[tuple[str, Row]]:
        if not self.has(directory):
            return
        for row in self.rows(directory):
            path = f"{directory}/{row[0]}" if directory else row[0]
            yield path, row
            if row[1] & _FORMAT == _DIRECTORY:
                yield from self._below(path)


def scan(
    root: str | os.PathLike[str],
    options: Options,
    tracked: Tracked | None = None,
    base: StatIndex | None = None,
) -> Scan:
    """Walk a directory.

    Args:
        tracked: Paths that no rule leaves out, with the directories on the way to them.
        base: What an earlier walk with the same options found.

    Raises:
        CheckpointStorageError: The root, or with unreadable="error" anything below, cannot be
            listed; the message names it.

    Threads: safe.        Cost: one listing a directory, one stat a name; where there is a base,
        nothing else for what is as it was.
    """
    walk = _Walk(os.fspath(root), options, tracked)
    return walk.run(base)


class _Walk:
    def __init__(self, root: str, options: Options, tracked: Tracked | None) -> None:
        self._root = root
        self._options = options
        self._given = tracked
        self._tracked: frozenset[str] | None = None
        self._found = Scan()
        self._excluded = _identities(options.excluded)
        self._inner: dict[str, Chain] = {}
        self._reserved = frozenset((STAGING,) if options.has_git else (STAGING, GIT))
        self._again: set[str] = set()

    def run(self, base: StatIndex | None) -> Scan:
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise from_os_error(error, "Cannot open the directory") from error
        found = self._found
        try:
            status = os.fstat(fd)
            found.root_mode = stat.S_IMODE(status.st_mode)
            found.root = (status.st_dev, status.st_ino)
            found.conditions = self._conditions(fd)
            if base is not None and self._is_fit(base):
                found.base = base
                for one in unconfirmed(fd, base.blob, base.records, self._reserved):
                    self._list_again(one.path)
                if self._given is not None:
                    self._list_tracked(base)
            if self._again or found.base is None:
                self._visit(fd, "", self._first_rules(fd), 0, is_known=True)
            self._note_binds()
        except UnicodeEncodeError as error:
            raise ArgumentError(
                f"A name below {self._root} cannot be read under this locale: {error}.",
                hint="Run with a UTF-8 locale (or PYTHONUTF8=1).",
            ) from error
        finally:
            os.close(fd)
        return found

    # what is taken over

    def _conditions(self, fd: int) -> str:
        """Return what decides about what is left out, beside what lies in the directories."""
        exclude: object = None
        if self._options.has_rules:
            with suppress(OSError):
                status = os.stat(EXCLUDE, dir_fd=fd, follow_symlinks=False)
                times = status.st_mtime_ns, status.st_ctime_ns
                exclude = (status.st_mode, status.st_size, *times, status.st_ino)
                if is_racy(*times, time.time_ns()):
                    exclude = ("changing", time.time_ns())
        return ascii((exclude, sorted(self._excluded)))

    def _is_fit(self, base: StatIndex) -> bool:
        return not base.is_forced and base.conditions == self._found.conditions

    def _list_again(self, folder: str) -> None:
        self._again.add(folder)
        self._found.touch(folder)

    def _list_tracked(self, base: StatIndex) -> None:
        """List directories again out of which something was left that is tracked now."""
        for folder in base.folders_with_left:
            if any(self._is_tracked(naming.join(folder, name)) for name, _ in base.left(folder)):
                self._list_again(folder)

    def _visit(self, fd: int, path: str, chain: Chain, depth: int, *, is_known: bool) -> None:
        """List a directory and those in it, but what is taken over.

        Args:
            is_known: Whether the base's verdicts hold here: no file of rules above has changed.
        """
        if depth > DEPTH_MAX:
            self._refuse(path, f"lies deeper than {DEPTH_MAX} directories", None)
            return
        base = self._found.base if is_known else None
        if base is None:
            self._found.touched.add(path)
        try:
            if base is not None and path not in self._again:  # the way to one that is listed
                rows = base.rows(path)
                chain = self._chain(fd, path, chain, {row[0] for row in rows})
            else:
                rows, chain = self._list(fd, path, chain)
        except OSError as error:
            self._refuse(path or ".", "cannot be listed", error)
            return
        is_known = base is not None and self._has_same_rules(path, rows, base)
        for row in rows:
            if row[1] & _FORMAT == _DIRECTORY:
                child = naming.join(path, row[0])
                is_there = is_known and base is not None and base.record(child) is not None
                if is_there and child not in self._found.touched:
                    continue
                inner = self._inner.pop(child, chain)
                self._descend(fd, row[0], child, inner, depth, is_known=is_there)

    def _has_same_rules(self, path: str, rows: list[Row], base: StatIndex) -> bool:
        if path not in self._again:
            return True
        before, now = base.rows(path), rows
        for name in RULE_FILES:
            if [row for row in before if row[0] == name] != [row for row in now if row[0] == name]:
                return False
        left = {name for name, _ in (*base.left(path), *self._found.left.get(path, ()))}
        return left.isdisjoint(RULE_FILES)

    # listing

    def _list(self, fd: int, path: str, chain: Chain) -> tuple[list[Row], Chain]:
        """List a directory; return its rows, and the rules that hold in it."""
        self._found.left[path] = []
        folder = look(fd, self._reserved)
        listed = {row[0] for row in folder.rows}
        listed.update(one[0] for one in folder.special)
        listed.update(one[0] for one in folder.unseen)
        chain = self._chain(fd, path, chain, listed)
        rows = self._rows(folder, path, chain)
        self._note_mounts(fd, path, folder, rows)
        rows.sort()
        self._found.directories[path] = rows
        if any(name in RULE_FILES for name, _ in self._found.left[path]):
            self._found.never.add(path)
        return rows, chain

    def _first_rules(self, fd: int) -> Chain:
        """Return the rules that are asked after those of all directories."""
        lines = [os.fsencode(line) for line in self._options.patterns]
        patterns = parse(b"\n".join(lines))
        if self._options.has_rules:
            patterns += parse(_small_file(EXCLUDE, fd))
        return (Rules(b"", patterns),) if patterns else ()

    def _rows(self, folder: Folder, path: str, chain: Chain) -> list[Row]:
        rows, special = folder.rows, folder.special
        if chain:
            rows = [row for row in rows if not self._is_left_out(row[0], row[1], path, chain)]
            special = [one for one in special if not self._is_left_out(*one, path, chain)]
        for name, is_directory, error in folder.unseen:
            mode = _DIRECTORY if is_directory else 0
            if not (chain and self._is_left_out(name, mode, path, chain)):
                raise error
        for name, mode in special:
            what = _KINDS.get(mode & _FORMAT, _OTHER)
            self._found.skipped[naming.encode(naming.join(path, name))] = what
            self._found.never.add(path)
        excluded = {name for name, *identity in folder.folders if tuple(identity) in self._excluded}
        if excluded and any(row[0] in excluded for row in rows):
            self._found.never.add(path)
            rows = [row for row in rows if row[0] not in excluded]
        return rows

    def _note_mounts(self, fd: int, path: str, folder: Folder, rows: list[Row]) -> None:
        root = self._found.root[0]
        foreign = {name for name, device, _ in folder.folders if device != root}
        found = {naming.join(path, row[0]) for row in rows if row[0] in foreign}
        if found and os.fstat(fd).st_dev == root:  # else this lies in one itself
            self._found.mounts |= found
            self._found.never.add(path)  # what is mounted changes without it

    def _note_binds(self) -> None:
        """Note what is mounted without being of another device."""
        mounts = self._found.mounts
        for path in mounts_below(self._root, Environment()):
            is_inner = any(path.startswith(f"{outer}/") for outer in mounts)
            name = path.rpartition("/")[2]
            if not is_inner and any(
                row[0] == name for row in self._found.rows(naming.parent_of(path))
            ):
                mounts.add(path)

    def _is_left_out(self, name: str, mode: int, path: str, chain: Chain) -> bool:
        whole = naming.join(path, name)
        is_directory = mode & _FORMAT == _DIRECTORY
        raw = os.fsencode(whole)
        if not is_ignored(chain, raw, os.fsencode(name), is_directory=is_directory):
            return False
        if self._is_tracked(whole):
            self._found.is_forced = True
            if is_directory:
                self._inner[whole] = _ALL
            return False
        self._found.left[path].append((name, is_directory))
        return True

    def _is_tracked(self, path: str) -> bool:
        if self._given is None:
            return False
        if self._tracked is None:  # only where a rule matches
            self._tracked = _with_parents(self._given())
        return path in self._tracked

    def _chain(self, fd: int, path: str, chain: Chain, listed: set[str]) -> Chain:
        """Return the rules that hold in a directory."""
        if not self._options.has_rules or chain is _ALL or listed.isdisjoint(RULE_FILES):
            return chain
        patterns = []
        for name in RULE_FILES:  # the later one is asked first
            if name in listed:
                patterns += parse(_small_file(name, fd))
        return (*chain, Rules(os.fsencode(path), patterns)) if patterns else chain

    def _descend(
        self, fd: int, name: str, path: str, chain: Chain, depth: int, *, is_known: bool
    ) -> None:
        try:
            child = os.open(name, _LISTED, dir_fd=fd)
        except FileNotFoundError:
            self._found.never.add(path)
            return  # removed since it was listed
        except OSError as error:
            self._refuse(path, "cannot be opened", error)
            return
        try:
            if _is_store(child):
                self._leave_out(path)
                return
            self._visit(child, path, chain, depth + 1, is_known=is_known)
        finally:
            os.close(child)

    def _leave_out(self, path: str) -> None:
        parent = naming.parent_of(path)
        rows = self._found.rows(parent)
        own = path.rpartition("/")[2]
        self._found.directories[parent] = [row for row in rows if row[0] != own]
        self._found.never |= {parent, path}

    def _refuse(self, path: str, what: str, error: OSError | None) -> None:
        self._found.never.add(path)
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
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        return b""
    with open(opened, "rb", buffering=0) as file:
        return file.read(RULE_BYTES_MAX) or b""
