"""The files of a command: captured while it runs, brought back before it runs again.

A capture beside a running command is of one moment where that can be had (`cut`); where files are
written all the time it is taken again with each file whole for itself (`file`).

What is named must be there when the command starts, or be in the capture that it goes on from: a
misspelt path would save nothing. With `may_appear` (a database that the command makes) it is left
out until it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.ignore import patterns_for
from ckptlog.capture.directory.scan import Options
from ckptlog.capture.directory.workspace import COMPONENT, SAFETY
from ckptlog.capture.file import FileComponent
from ckptlog.capture.sqlite import ENDINGS, SqliteComponent
from ckptlog.errors import ArgumentError, CaptureFailedError, ChangedError, CheckpointError
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.capture import CaptureInfo
from ckptlog.recovery.recovery import Recovery
from ckptlog.recovery.whereabouts import other_place
from ckptlog.service.keeping import Keeper

_NAME_CHARACTERS_MAX: Final = 50
# So far the newest capture that is no safety capture is looked for; what comes back is checked too.
_LOOKED_AT: Final = 8
_odd = re.compile(r"[^A-Za-z0-9_.-]+")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Named:
    """What of the file system belongs to a task; paths are relative to the command's directory.

    keep: Newest captures that stay; 0: all.
    may_appear: Whether what is named may be missing at the start.
    """

    directories: Sequence[str] = ()
    files: Sequence[str] = ()
    databases: Sequence[str] = ()
    options: Options = field(default_factory=Options)
    keep: int = 0
    may_appear: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is named: then it is the working directory."""
        return not (self.directories or self.files or self.databases)


def system_of(task: str) -> str:
    """Return the name of a task's captures in the store."""
    return f"{task}/files"


class Files:
    """The files of one task.

    Args:
        cwd: The command's working directory.
        leases: Of the task and of its captures.

    Threads: one call at a time.
    """

    def __init__(
        self, manager: CheckpointManager, task: str, named: Named, *, cwd: str, leases: list[Lease]
    ) -> None:
        self._manager = manager
        self._system = system_of(task)
        self._named = named
        self._leases = leases
        self._components = list(_components(manager, named, cwd))
        self._capturer: Capturer | None = None
        self._absent = {one.name: one.location["path"] for one in self._components}

    @property
    def absent(self) -> list[str]:
        """What is named and was never there."""
        self._look()
        return sorted(self._absent.values())

    @property
    def gone(self) -> list[str]:
        """What was there, and is no longer."""
        there = {one.name for one in self._components if _exists(one)}
        lost = (one for one in self._components if one.name not in self._absent.keys() | there)
        return sorted(one.location["path"] for one in lost)

    @property
    def mounts(self) -> list[str]:
        """Directories in what was captured last that are other file systems."""
        return [
            naming.shown(str(Path(one.path) / path))
            for one in self._directories()
            if one.last is not None
            for path in sorted(one.last.found.mounts)
        ]

    def check(self, *, is_resumed: bool) -> None:
        """Check that everything that is named is there, or comes back.

        Args:
            is_resumed: Whether what the newest capture has comes back.

        Raises:
            ArgumentError: Something is not there, and nobody said that it may appear.
        """
        self._look()
        known = self.newest() if is_resumed and self._absent else None
        names = self._absent.keys() - (known.components.keys() if known is not None else set())
        if not names or self._named.may_appear:
            return
        paths = sorted(self._absent[name] for name in names)
        for one in self._directories():
            if one.name in names and Path(one.path).exists():
                raise ArgumentError(
                    f"{one.location['path']} is no directory.",
                    hint="--file captures a file, --sqlite a database.",
                    path=one.location["path"],
                )
        raise ArgumentError(
            f"{', '.join(paths)} {'is' if len(paths) == 1 else 'are'} not there.",
            hint="Correct the path; --may-appear where the command makes it.",
            path=paths[0],
        )

    def refuse_moved(self) -> None:
        """Refuse to bring back here what was captured elsewhere.

        Components are known by name, and names by the words of the order: the same ones in another
        directory mean other files.

        Raises:
            ArgumentError: The newest capture is of other paths, or what is finished first is.
        """
        capturer = self._all()
        captures = capturer.each(on_damage=lambda _name, _error: None)
        infos = [one for one in islice(captures, _LOOKED_AT) if one.reason != SAFETY][:1]
        unfinished = Recovery(capturer, lease=self._leases).unfinished()
        if unfinished is not None:
            with suppress(CheckpointError):  # the recovery itself says what is wrong with it
                infos.append(capturer.find(unfinished.capture))
        for info in infos:
            self.refuse_elsewhere(info)

    def refuse_elsewhere(self, info: CaptureInfo) -> None:
        """Refuse a capture that is of other paths.

        Raises:
            ArgumentError: Of which, both are named.
        """
        for one in self._components:
            then = other_place(one, info)
            if then is not None:
                now = one.location["path"]
                raise ArgumentError(
                    f"Capture {info.id} has {then}; here it would be put in place of {now}.",
                    hint="Go on where it was captured; if it was moved here, say so: --moved (what "
                    "is here is captured first). Another --name begins anew.",
                    captured=then,
                    path=now,
                )

    def _look(self) -> None:
        for one in self._components:
            if one.name in self._absent and _exists(one):
                del self._absent[one.name]

    # --- capturing ----------------------------------------------------------------------------

    def capture(self, reason: str, *, description: str) -> CaptureInfo | None:
        """Capture what is there; None where nothing changed since the newest capture.

        Raises:
            CheckpointError: It could not be captured; nothing was changed.
        """
        self._look()
        capturer = self._present()
        if not capturer.components:
            if gone := self.gone:
                raise CaptureFailedError(
                    f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone.",
                    hint="What was there is in an earlier capture: `ckptlog recover`.",
                    reason="gone",
                )
            return None
        info = None
        for consistency in ("cut", "file"):
            for one in self._directories():
                one.consistency = consistency
            try:
                info = capturer.capture(
                    description=description,
                    reason=reason,
                    skip_unchanged=True,
                    lease=self._leases,
                )
                break
            except ChangedError:
                if consistency == "file":
                    raise
        if info is not None and self._named.keep:
            keeper = Keeper(capturer, count_max=self._named.keep, age_days_max=0, interval_s=0)
            keeper.keep(self._leases[-1], datetime.now(UTC))
        return info

    def newest(self) -> CaptureInfo | None:
        """Return the newest capture; None where there is none."""
        return next(self._all().each(on_damage=lambda _name, _error: None), None)

    def _present(self) -> Capturer:
        """Return a capturer of what is there; the same one as long as that is the same."""
        present = [one for one in self._components if _is_there(one)]
        known = self._capturer
        if known is None or {id(one) for one in known.components.values()} != set(map(id, present)):
            self._capturer = Capturer(self._manager, self._system, present or None, attempts=2)
        return self._capturer or self._all()

    def _all(self) -> Capturer:
        return Capturer(self._manager, self._system)

    def _directories(self) -> list[DirectoryComponent]:
        return [one for one in self._components if isinstance(one, DirectoryComponent)]

    # --- bringing back ------------------------------------------------------------------------

    def last_good(self, tell: Tell) -> CaptureInfo | None:
        """Return the newest capture whose every byte is what it was; None where there is none.

        Safety captures are not meant. One that is damaged is told, and passed over.
        """
        capturer = self._all()

        def damaged(name: str, error: CheckpointError) -> None:
            tell(f"capture {name} is damaged and passed over: {error}")

        for info in capturer.each(on_damage=damaged):
            if info.reason == SAFETY:
                continue
            try:
                faults = capturer.check(info)
            except CheckpointError as error:
                faults = [str(error)]
            if not faults:
                return info
            tell(f"capture {info.id} is damaged and passed over: {faults[0]}")
        return None

    def bring_back(self, info: CaptureInfo, tell: Tell) -> str | None:
        """Make all files what they were in a capture; return the safety capture's id, if any.

        What is there is captured first. An earlier one that was killed is finished first.

        Raises:
            CheckpointError: See `Recovery.recover`; what was touched was put back.
        """
        capturer = self._present()
        stored = self._all().stored(info)
        for one in self._components:
            if one.name in stored and one.name not in capturer.components:
                one.restore(_payload(one, stored[one.name]))
                tell(f"{one.location['path']} was not there and is as in {info.id}")
        if not capturer.components.keys() & stored.keys():
            return None
        recovery = Recovery(capturer, lease=self._leases)
        with ExitStack() as stack:
            for one in self._directories():
                if one.name in stored:
                    stack.enter_context(one.tracking(stored[one.name]))
            if recovery.resume() is not None:
                tell("an earlier rewind had been killed; it was finished first")
            planned = recovery.recover(info.id, partial=True, dry_run=True)
            plans = planned.plans.values()
            if not planned.errors and plans and not any(plan.changes for plan in plans):
                tell(f"the files are as in capture {info.id} already")
                return None
            done = recovery.recover(info.id, partial=True)
        for name, plan in planned.plans.items():
            tell(f"{capturer.components[name].location['path']}: {plan.summary}")  # type: ignore[attr-defined]
        return done.safety_id or None


AnyComponent = DirectoryComponent | FileComponent | SqliteComponent


def _components(manager: CheckpointManager, named: Named, cwd: str) -> Iterator[AnyComponent]:
    store = str(Path(manager.store.path).absolute())
    own = [_place(cwd, one) for one in named.files]
    own += [_place(cwd, one) + ending for one in named.databases for ending in ENDINGS]
    directories = named.directories if not named.is_empty else (".",)
    names = _Names()
    for given in directories:
        root = _place(cwd, given)
        options = replace(
            named.options,
            patterns=(*named.options.patterns, *patterns_for(root, own)),
            excluded=(*named.options.excluded, store),
        )
        name = COMPONENT if len(directories) == 1 else names.of("dir", given)
        yield DirectoryComponent(name, root, options=options)
    for given in named.files:
        yield FileComponent(names.of("file", given), _place(cwd, given), format="bytes")
    for given in named.databases:
        yield SqliteComponent(names.of("sqlite", given), _place(cwd, given))


def _place(cwd: str, given: str) -> str:
    """Return an absolute path; links in it stay what they are."""
    return os.path.normpath(Path(cwd) / given)


class _Names:
    """Gives components names: the same ones each time."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, kind: str, given: str) -> str:
        path = os.path.normpath(given)
        name = f"{kind}-{_odd.sub('_', path).strip('_')}"
        if len(name) > _NAME_CHARACTERS_MAX or name in self._taken:
            name = f"{name[:_NAME_CHARACTERS_MAX]}-{blake3(os.fsencode(path)).hexdigest()[:8]}"
        self._taken.add(name)
        return name


def _is_there(one: AnyComponent) -> bool:
    if isinstance(one, DirectoryComponent):
        return Path(one.path).is_dir()
    return isinstance(one, FileComponent) or Path(one.location["path"]).exists()


def _exists(one: AnyComponent) -> bool:
    return _is_there(one) and (
        isinstance(one, DirectoryComponent) or Path(one.location["path"]).exists()
    )


def _payload(one: AnyComponent, stored: Any) -> Any:
    return stored if getattr(one, "reads_parts", False) else stored.value()
