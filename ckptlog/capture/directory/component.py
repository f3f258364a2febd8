"""The directory component: captures a directory, and makes it again what a capture holds."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ckptlog.capture.argument import path_of, texts_of
from ckptlog.capture.directory import lock, preview
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.ahead import seen
from ckptlog.capture.directory.change import Selection, Step, sparing, steps
from ckptlog.capture.directory.entry import Entry
from ckptlog.capture.directory.ignore import patterns_for
from ckptlog.capture.directory.index_file import IndexFile
from ckptlog.capture.directory.manifest import Manifest, load
from ckptlog.capture.directory.present import Present, summary, without_kept
from ckptlog.capture.directory.restoration import Restoration, is_refused
from ckptlog.capture.directory.scan import Options, Scan, Tracked, scan
from ckptlog.capture.directory.snapshot import DirectorySnapshot
from ckptlog.capture.directory.stage import empty, is_left_over
from ckptlog.capture.directory.standing import Difference, Standing
from ckptlog.capture.directory.stat_index import StatIndex
from ckptlog.errors import ArgumentError, ChangedError, CheckpointError, FormatError, from_os_error
from ckptlog.model.component import REREAD, Change, Plan

KIND: Final = "directory"
_LOCATION_CHARACTERS_MAX: Final = 4_000
_MOUNT_HINT: Final = (
    "It is on another file system than the directory, or is where one is mounted, and a restore "
    "reaches over none: restore other paths (rewind --path) or elsewhere (rewind --out, recover "
    "--to), or unmount it first."
)
_HINTS: Final = {
    errno.EXDEV: _MOUNT_HINT,
    errno.EBUSY: _MOUNT_HINT,
    errno.EROFS: "It must be writable; rewind --out and recover --to restore elsewhere.",
}

# What a capture says, what has to be done, and the walk of what is there.
_Compared = tuple[Manifest, list[Step], Scan]


class DirectoryComponent:
    """A directory, or a git working tree.

    Args:
        name: The component's.
        path: The directory.
        options: What of it is captured.
        index: Folder for the stat index; by default a capturer gives one in its store. Without any
            every file is read each time.
        consistency: "cut": all files are of the moment of the walk, else the capture is taken
            again. "file": each file is whole; two may be of two moments.
        keeps_unknown: Whether a restore leaves files that the capture does not have.

    Threads: one call at a time.        Durability: a restore is on the medium when it returns.
    """

    kind = KIND
    schema_version = 1
    reads_parts = True
    stability = REREAD

    def __init__(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        options: Options | None = None,
        index: str | os.PathLike[str] | None = None,
        consistency: str = "cut",
        keeps_unknown: bool = False,
        depends_on: Sequence[str] = (),
    ) -> None:
        if consistency not in {"cut", "file"}:
            raise ArgumentError(f"consistency is {consistency!r}.", hint='It is "cut" or "file".')
        path_of(name, path)
        self.name = name
        self.path = os.path.abspath(os.fspath(path))
        self.options = options or Options()
        self.consistency = consistency
        self.keeps_unknown = keeps_unknown
        self.depends_on = texts_of(name, "depends_on", depends_on)
        self.location = {"path": naming.shown(self.path), **_described(self.options, self.path)}
        self._index_file = (
            None if index is None else IndexFile(Path(index) / f"{name}.stat", self.options)
        )
        self._tracked: Tracked | None = None
        self._ahead: StatIndex | None = None
        self._is_alone = False
        self._over: tuple[Any | None, bool, list[str]] | None = None
        self.last: DirectorySnapshot | None = None
        self._loaded: tuple[str, Manifest] | None = None

    # capture

    def keep_in(self, folder: Path, *, is_anew: bool = False) -> None:
        """Take a folder for the stat index, where there is none yet."""
        if self._index_file is None or is_anew:
            self._index_file = IndexFile(folder / f"{self.name}.stat", self.options)

    def leave_out(self, paths: Iterable[str]) -> None:
        """Neither capture nor restore what another component of the system is for.

        Args:
            paths: Absolute, behind symbolic links; of any place.
        """
        found = patterns_for(os.path.realpath(self.path), paths)
        new = tuple(one for one in found if one not in self.options.patterns)
        if new:
            self.options = replace(self.options, patterns=(*self.options.patterns, *new))
            self.location |= _described(self.options, self.path)
            if self._index_file is not None:
                self.keep_in(self._index_file.path.parent, is_anew=True)

    def look_ahead(self) -> None:
        """Read the index, or walk where there is none, so that `capture` has less to do."""
        self._ahead = None
        if self._index() is None:
            with suppress(CheckpointError):  # what cannot be walked, the capture tells
                self._ahead = seen(self.path, self.options)

    def capture(self) -> DirectorySnapshot:
        """Walk the directory; files are read when the snapshot is written."""
        ahead, self._ahead = self._ahead, None
        self.last = DirectorySnapshot(
            self.path,
            self.options,
            index_file=self._index_file,
            ahead=ahead,
            tracked=self._tracked,
            is_cut=self.consistency == "cut",
        )
        return self.last

    @contextmanager
    def tracking(self, stored: Any) -> Iterator[None]:
        """Capture, in the block, whatever a restore of `stored` would overwrite.

        Rules may leave out now what the capture has: the safety capture must hold it.
        """
        self._tracked = lambda: self._paths_of(stored)
        try:
            yield
        finally:
            self._tracked = None

    @contextmanager
    def indexing_aside(self) -> Iterator[None]:
        """Write the stat index of a capture, in the block, beside whatever else is done there."""
        with nullcontext() if self._index_file is None else self._index_file.aside():
            yield

    # restore

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one who restores the directory, in the block and in what it calls.

        Raises:
            RecoveryBusyError: Another process, or thread, does.
        """
        if self._is_alone:
            yield
            return
        with lock.alone(self.path) as is_locked:
            self._is_alone = is_locked
            try:
                empty(self.path)
                yield
            finally:
                self._is_alone = False

    def check_paths(self, stored: Any, paths: Sequence[str]) -> None:
        """Check that each path is in a capture, or is there.

        Raises:
            ArgumentError: One leads out of the directory.
            NoSuchPartError: One is neither.
        """
        if not paths:
            return
        manifest = self._manifest(stored)
        if any(path not in manifest.entries for path in Selection(paths).named):
            self._steps(manifest, paths)

    def validate(self, payload: Any) -> list[str]:
        """Return what forbids restoring a payload; [] where nothing does."""
        try:
            self._manifest(payload)
        except (FormatError, ArgumentError) as error:
            return [error.message]
        return []

    def plan(self, stored: Any, paths: Sequence[str] = ()) -> Plan:
        """Return what a restore would change."""
        manifest = self._manifest(stored)
        if not os.path.lexists(self.path):
            return self._plan_anew(manifest)
        made, _ = self._steps(manifest, paths)
        changes = tuple(
            Change(step.kind, naming.shown(step.path), step.size)
            for step in sorted(made, key=lambda step: naming.parts_of(step.path))
        )
        return Plan(changes, sum(step.size for step in made), summary(made))

    def _plan_anew(self, manifest: Manifest) -> Plan:
        """Return what a restore would make where nothing is."""
        ordered = sorted(manifest.entries, key=naming.parts_of)
        changes = tuple(
            Change("add", naming.shown(path), manifest.entries[path].size) for path in ordered
        )
        size = sum(one.bytes for one in changes)
        where = naming.shown(self.path)
        return Plan(changes, size, f"{where} is missing and would be made anew")

    def diff(self, stored: Any, paths: Sequence[str] = ()) -> Iterator[str]:
        """Yield the lines of a unified diff from what is there to what a restore would make."""
        manifest = self._manifest(stored)
        made, _ = self._steps(manifest, paths)
        for step in sorted(made, key=lambda step: naming.parts_of(step.path)):
            yield from preview.diff(self.path, step, manifest.whole)

    def restore(self, payload: Any) -> None:
        """Make the directory hold exactly what was captured; see `restore_paths` and `over`."""
        if self._over is None:
            self.restore_paths(payload)
            return
        held, leaves, left = self._over

        def compared() -> _Compared:
            found = self._compared_over(payload, held, left)
            if left and not leaves:
                raise ChangedError(
                    f"{left[0]} was made or changed after what is there was saved.",
                    hint="Nothing was changed. Run it again when the directory is at rest.",
                    path=left[0],
                )
            return found

        self._restored(compared, None, is_whole=True)

    def restore_paths(
        self,
        stored: Any,
        paths: Sequence[str] = (),
        *,
        to: str | os.PathLike[str] | None = None,
        on_step: Callable[[Step], None] | None = None,
        saved: DirectorySnapshot | None = None,
    ) -> list[Step]:
        """Restore all of a capture, or the paths that are named and what lies below them.

        Args:
            paths: Below the root; all without any.
            to: Another directory, which must be missing or empty.
            saved: What was captured of this one a moment ago: it is not walked again. What was
                changed since is not overwritten.

        Returns:
            What was done.

        Raises:
            FormatError: The payload is none of a directory, or is hostile. Nothing was changed.
            RestoreConflictError: Something is in the way. Nothing was changed.
            RecoveryBusyError: Another process restores it. Nothing was changed.
            ChangedError: A file was changed meanwhile. Call again.
            CheckpointStorageError: The system refused. Call again when it no longer does.

        What had been changed is put back when it fails; the hint tells, and names what is not.
        """
        standing = None if saved is None or to is not None else saved.standing
        target = self if to is None else self._elsewhere(to)

        def compared() -> _Compared:
            if standing is not None:
                return self._steps_from(stored, standing, paths)
            empty(target.path)
            manifest = self._manifest(stored)
            return manifest, *target._steps(manifest, paths)  # noqa: SLF001 - of this class

        return target._restored(compared, on_step, is_whole=not paths)  # noqa: SLF001 - same

    @contextmanager
    def over(self, held: Any | None, *, leaves: bool = False) -> Iterator[list[str]]:
        """Let `restore`, in the block, overwrite and remove nothing but what a capture holds.

        The rest was made or changed since, and is in no capture.

        Args:
            held: The capture's payload; None where there was nothing.
            leaves: Whether the rest is left as it is; else `restore` raises ChangedError, and
                changes nothing.

        Returns:
            Paths that were left; filled by `restore`.
        """
        left: list[str] = []
        self._over = (held, leaves, left)
        try:
            yield left
        finally:
            self._over = None

    def _compared_over(self, stored: Any, held: Any | None, left: list[str]) -> _Compared:
        empty(self.path)
        manifest = self._manifest(stored)
        entries = {} if held is None else self._read(held).entries
        made, found = self._steps(manifest, (), held=entries, left=left)
        return manifest, made, found

    def _restored(
        self,
        compared: Callable[[], _Compared],
        on_step: Callable[[Step], None] | None,
        *,
        is_whole: bool,
    ) -> list[Step]:
        """Do what a comparison says, alone; return what was done.

        Raises: As `restore_paths`.
        """
        run = None
        try:
            os.makedirs(self.path, exist_ok=True)
            with self.alone():
                manifest, made, found = compared()
                run = Restoration(self.path, found, manifest.content, on_step=on_step)
                run.run(made, manifest.mode if is_whole else None)
        except CheckpointError as error:
            _explain(error, run)
            raise
        except OSError as error:
            failure = from_os_error(error, f"Restoring {naming.shown(self.path)} failed")
            failure.hint = _HINTS.get(error.errno or 0, failure.hint)
            _explain(failure, run)
            raise failure from error
        return made

    def whole_at(self, path: str | os.PathLike[str]) -> DirectoryComponent:
        """Return a component of all that lies in a directory elsewhere, whatever rules say."""
        options = Options(has_git=True, has_rules=False, has_attributes=self.options.has_attributes)
        return DirectoryComponent(self.name, path, options=options)

    def verify_restored(self) -> list[str]:
        """Return what a restore left unfinished; [] where nothing is."""
        if is_left_over(self.path):
            return ["A restore of it did not end; restore again."]
        return []

    def _elsewhere(self, to: str | os.PathLike[str]) -> DirectoryComponent:
        target = os.path.abspath(os.fspath(to))
        with_names = os.path.lexists(target) and (
            not os.path.isdir(target) or bool(os.listdir(target))
        )
        if with_names and not (os.path.isdir(target) and is_left_over(target)):
            raise ArgumentError(
                f"{naming.shown(target)} is not an empty directory.",
                hint="Name one that is missing or empty.",
                path=naming.shown(target),
            )
        return DirectoryComponent(self.name, target, options=self.options)

    def _manifest(self, stored: Any) -> Manifest:
        root = stored.root
        if self._loaded is not None and root and self._loaded[0] == root:
            return self._loaded[1]
        manifest = self._read(stored)
        self._loaded = (root, manifest)
        return manifest

    def _read(self, stored: Any) -> Manifest:
        manifest = load(stored)
        self._prepare(manifest)
        return manifest

    def _prepare(self, manifest: Manifest) -> None:
        """Check a manifest's paths; what no safety capture would hold is not to be removed."""
        if self.options.has_attributes:
            manifest.tell_attributes()
        for path in manifest.entries:
            if is_refused(path, has_git=self.options.has_git):
                raise FormatError(
                    f"The capture has {naming.shown(path)}, which no restore writes.",
                    hint="A capture with .git is restored by a component with has_git.",
                    path=naming.shown(path),
                )

    def _paths_of(self, stored: Any) -> Iterable[str]:
        """Return the paths of a capture; as far as the index has them, they are not read."""
        index = self._index()
        if index is None:
            return self._manifest(stored).entries
        found = Difference(stored, Standing.of_index(index))
        return (*found.manifest.entries, *found.shared_paths())

    def _index(self) -> StatIndex | None:
        return None if self._index_file is None else self._index_file.load()

    def _steps(
        self,
        manifest: Manifest,
        paths: Sequence[str],
        *,
        held: Mapping[str, Entry] | None = None,
        left: list[str] | None = None,
    ) -> tuple[list[Step], Scan]:
        """Return the steps from what is there now, and the walk.

        Args:
            held: What may be let go; all without it.
            left: Takes in the paths that are not.
        """
        index = self._index()
        found = scan(self.path, self.options, lambda: manifest.entries, index)
        there = dict(found.paths())
        selection = Selection(paths)
        selection.check(lambda path: path in manifest.entries or path in there)
        with Present(self.path, self.options, found, index) as present:
            made = steps(manifest.entries, there, present.known, selection)
            made = self._wanted(made, manifest, manifest.rule_files)
            if held is not None and left is not None:
                made, spared = sparing(made, held, present.known)
                left[:] = map(naming.shown, spared)
        return made, found

    def _steps_from(self, stored: Any, standing: Standing, paths: Sequence[str]) -> _Compared:
        """Return the steps from what was captured a moment ago."""
        difference = Difference(stored, standing)
        manifest = difference.manifest
        self._prepare(manifest)
        selection = Selection(paths)
        selection.check(difference.has)
        made = steps(manifest.entries, difference.there, difference.known, selection)
        return manifest, self._wanted(made, manifest, difference.rule_files), standing.found

    def _wanted(
        self,
        made: list[Step],
        manifest: Manifest,
        rule_files: Callable[[], Mapping[str, bytes]],
    ) -> list[Step]:
        if self.keeps_unknown:
            return [step for step in made if step.entry is not None]
        return without_kept(made, rule_files, manifest.unread, self.options)


def _explain(failure: CheckpointError, run: Restoration | None) -> None:
    """Add to a failure what became of what had been done: nothing before there is a run."""
    if run is None:
        failure.context["left"] = []
    else:
        run.explain(failure)


def _described(options: Options, path: str) -> dict[str, str]:
    """Return what a location says of options that are not the usual ones.

    Whoever restores from the location alone must not remove what was never captured.
    """
    usual = Options()
    names = ("has_git", "has_rules", "has_attributes", "unreadable", "patterns")
    given = {name: getattr(options, name) for name in names}
    text = json.dumps({key: one for key, one in given.items() if one != getattr(usual, key)})
    if text == "{}":
        return {}
    is_short = len(text) + len(naming.shown(path)) <= _LOCATION_CHARACTERS_MAX
    return {"options": text if is_short else "unrecorded"}
