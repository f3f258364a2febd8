"""A workspace: one directory with its captures in one store, for `capture` and `rewind`.

The system's name is the directory's: `workspace` where the store lies in the directory itself (so
that both can be moved together), else the directory's name and eight digits of the hash of its
path, so that one store may hold many workspaces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from blake3 import blake3

from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.change import Step
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.scan import Options
from ckptlog.capture.owner import refuse_owned
from ckptlog.errors import ArgumentError, CheckpointError, CheckpointNotFoundError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.reading import OnDamage
from ckptlog.manager.unfinished import Trace, refusal
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.checkpoint import time_text
from ckptlog.model.component import Plan

COMPONENT: Final = "directory"
SAFETY: Final = "safety"
LOCAL: Final = "workspace"
_odd = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Rewound:
    """What a rewind did.

    safety: The capture of what was there before; None where that was the newest capture already,
        or where it was restored elsewhere.
    undo: The capture that holds what was there before: the safety capture, or the newest one
        before the rewind; None where it was restored elsewhere, or nothing was there.
    """

    info: CaptureInfo
    safety: CaptureInfo | None
    steps: tuple[Step, ...]
    undo: CaptureInfo | None = None


class Workspace:
    """Captures of one directory.

    Args:
        path: The directory.
        system: The name of its captures in the store; made from the path by default.

    Threads: one call at a time.        Durability: as `Capturer` and `DirectoryComponent` say.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        path: str | os.PathLike[str],
        *,
        system: str | None = None,
        options: Options | None = None,
        keeps_unknown: bool = False,
    ) -> None:
        if not os.fspath(path):
            raise ArgumentError("A workspace's path is empty.", hint="Name a directory.")
        self.path = os.path.abspath(os.fspath(path))
        store = os.path.abspath(manager.store.path)
        self.system = system or system_of(self.path, store)
        options = options or Options()
        self.component = DirectoryComponent(
            COMPONENT,
            self.path,
            options=replace(options, excluded=(*options.excluded, store)),
            keeps_unknown=keeps_unknown,
        )
        self.capturer = Capturer(manager, self.system, [self.component])

    def capture(
        self, *, description: str = "", tags: Iterable[str] = (), skip_unchanged: bool = True
    ) -> CaptureInfo | None:
        """Capture the directory; None where nothing changed since the newest capture."""
        self._check_there()
        return self.capturer.capture(
            description=description, tags=tags, skip_unchanged=skip_unchanged
        )

    def captures(
        self, limit: int | None = None, *, on_damage: OnDamage | None = None
    ) -> list[CaptureInfo]:
        """Return the directory's captures, newest first; on_damage: as of `Capturer.captures`."""
        return self.capturer.captures(limit, on_damage=on_damage)

    def find(self, to: str | int | datetime | None = None) -> CaptureInfo:
        """Return a capture.

        Args:
            to: None, the newest. A number n: the nth before the newest. A time: the newest not
                after it. A text: an id, or `#` and a capture's number. Safety captures are found
                by their ids and numbers only.

        Raises:
            CheckpointNotFoundError: There is none.
            CheckpointCorruptionError: It may be one that is damaged.
        """
        if isinstance(to, str):
            return self._numbered(to) if to.startswith("#") else self.capturer.find(to)

        def on_damage(name: str, error: CheckpointError) -> None:
            if not (isinstance(to, datetime) and self._is_after(name, to)):
                raise error

        left, oldest = to if isinstance(to, int) else 0, None
        for info in self.capturer.each(on_damage=on_damage):
            if info.reason == SAFETY:
                continue
            oldest = info
            if isinstance(to, datetime) and info.created_at > to:
                continue
            if left == 0:
                return info
            left -= 1
        raise self._absent(oldest)

    def _numbered(self, text: str) -> CaptureInfo:
        """Return the capture of a number, `#7`."""
        number = int(text[1:]) if text[1:].isascii() and text[1:].isdigit() else -1
        damaged: list[CheckpointError] = []
        for info in self.capturer.each(on_damage=lambda _name, error: damaged.append(error)):
            if info.number == number:
                return info
        raise damaged[0] if damaged else self._absent()

    def _absent(self, oldest: CaptureInfo | None = None) -> CheckpointNotFoundError:
        first = "" if oldest is None else f"; the first is of {time_text(oldest.created_at)}"
        return CheckpointNotFoundError(
            f"{naming.shown(self.path)} has no such capture in this store{first}.",
            hint="`ckptlog rewind DIR --list` shows its captures; `ckptlog capture DIR` makes one.",
            system=self.system,
        )

    def _is_after(self, name: str, moment: datetime) -> bool:
        """Say whether a capture that cannot be read was taken after a time."""
        row = self.capturer.manager.store.view().row(name)
        return row is not None and datetime.fromisoformat(row.created) > moment

    def stored(self, info: CaptureInfo) -> Any:
        """Return a capture's payload of the directory."""
        found = self.capturer.stored(info)
        if COMPONENT not in found:
            raise CheckpointNotFoundError(
                f"Capture {info.id} has no component {COMPONENT!r}.",
                hint="It was not taken by `ckptlog capture`; see `ckptlog recover`.",
            )
        return found[COMPONENT]

    def relative(self, path: str | os.PathLike[str]) -> str:
        """Return a path below the directory: what is relative to it, or absolute inside it.

        Raises:
            ArgumentError: It leads out of the directory, or is the directory.
        """
        text = os.fspath(path)
        if not os.path.isabs(text):
            return naming.given(text)
        whole = os.path.normpath(text)
        real = os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))
        for one, root in ((whole, self.path), (real, os.path.realpath(self.path))):
            if one.startswith(root.rstrip("/") + "/"):
                return naming.given(one[len(root.rstrip("/")) + 1 :])
        raise ArgumentError(
            f"{naming.shown(text)} is not in {naming.shown(self.path)}.",
            hint="Name a path below the directory.",
            path=naming.shown(text),
        )

    def plan(self, info: CaptureInfo, paths: Sequence[str] = ()) -> Plan:
        """Return what a rewind would change."""
        return self.component.plan(self.stored(info), paths)

    def diff(self, info: CaptureInfo, paths: Sequence[str] = ()) -> Iterator[str]:
        """Yield the lines of a unified diff of what a rewind would change."""
        return self.component.diff(self.stored(info), paths)

    def rewind(
        self,
        info: CaptureInfo,
        paths: Sequence[str] = (),
        *,
        to: str | os.PathLike[str] | None = None,
        own: Collection[str] = (),
    ) -> Rewound:
        """Make the directory what it was, or restore it elsewhere.

        What is there is captured first, so nothing is lost.

        Args:
            own: Systems that the caller works for (the `ckptlog run` that started it): that they
                are owned keeps him out of nothing.

        Raises:
            LeaseRequiredError: A living process owns the system, or works in the directory.
            RecoveryUnfinishedError: A recovery of it ended in the middle.
            RecoveryBusyError: Another rewind, or a recovery, of it is at work.
            CheckpointError: As `restore_paths` of the component. Failing in the middle, what was
                changed is put back; when it is killed, run it again.
        """
        stored = self.stored(info)
        self.component.check_paths(stored, paths)
        if to is not None:
            return Rewound(info, None, tuple(self.component.restore_paths(stored, paths, to=to)))
        with self.component.alone(), self.component.indexing_aside():
            self.check_free(paths, own=own)
            safety, undo = self._save(info, stored)
            saved = None if undo is None else self.component.last
            try:
                steps = self.component.restore_paths(stored, paths, saved=saved)
            except CheckpointError as error:
                if undo is not None and error.context.get("left"):
                    again = f"ckptlog rewind --to {undo.id} {naming.shown(self.path)}"
                    error.hint = f"{error.hint} All of what was there: {again}".strip()
                raise
            return Rewound(info, safety, tuple(steps), undo)

    def check_free(self, paths: Sequence[str] = (), *, own: Collection[str] = ()) -> None:
        """Refuse to rewind what others work in, and what a recovery did not end.

        Raises:
            LeaseRequiredError, RecoveryUnfinishedError: As `rewind`.
        """
        manager = self.capturer.manager
        if (found := Trace(manager.store, self.system).unfinished()) is not None:
            raise refusal(self.system, found, "has to be ended first")
        places = [os.path.join(self.path, one) for one in paths] or [self.path]
        refuse_owned(manager, self.system, places, own=own)

    def _save(
        self, info: CaptureInfo, stored: Any
    ) -> tuple[CaptureInfo | None, CaptureInfo | None]:
        """Capture what is there; return the new capture, if any, and the one that holds it."""
        if not os.path.isdir(self.path):
            return None, None
        with self.component.tracking(stored):
            safety = self.capturer.capture(
                description=f"before the rewind to {info.id}",
                reason=SAFETY,
                skip_unchanged=True,
            )
        return safety, safety or next(self.capturer.each(on_damage=lambda _name, _error: None))

    def _check_there(self) -> None:
        if not os.path.isdir(self.path):
            raise ArgumentError(
                f"{naming.shown(self.path)} is no directory.", hint="Name a directory."
            )


def system_of(path: str, store: str) -> str:
    """Return the name of a directory's captures in a store."""
    real, real_store = os.path.realpath(path), os.path.realpath(store)
    if os.path.dirname(real_store) == real:
        return LOCAL
    own = _odd.sub("_", naming.shown(os.path.basename(real)))[:60] or "root"
    return f"{own}-{blake3(os.fsencode(real)).hexdigest()[:8]}"
