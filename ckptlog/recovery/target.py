"""The targets of a recovery: which components are restored, from what, in which order.

Nothing is touched here. Every fault is found, not only the first one: who plans a recovery must
see all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ckptlog.blobs.payload import Read
from ckptlog.blobs.tree_reader import Stored
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.checking import check_chunks
from ckptlog.errors import ArgumentError, ChangedError, CheckpointError
from ckptlog.model.capture import CaptureInfo, ComponentInfo, digest_of
from ckptlog.model.component import (
    ABSENT,
    Component,
    Traits,
    faults_of,
    in_order,
    migrated,
    traits_of,
)
from ckptlog.model.quotation import quoted
from ckptlog.recovery.absent import Absent
from ckptlog.recovery.call import HungError, called

# Bytes of values that are kept in memory between their check and their restore; what is more is
# read twice. All of them will be in memory anyway once they are restored.
KEPT_BYTES_MAX: Final = 1024 * 1024 * 1024


@dataclass
class Target:
    """One component, and what it is to be.

    stored: Its payload, a Stored.
    deadline_s: Of one call of the component.
    leaves: Whether a restore leaves what no capture holds as it is; else it is refused (`hold`).
    is_as_before: Whether the last restore failed, and every one that failed took back what it did.
    is_restored: Whether the last restore did not fail.
    """

    name: str
    component: Component
    traits: Traits
    info: ComponentInfo
    stored: Any
    deadline_s: float = 600.0
    leaves: bool = False
    is_as_before: bool = field(default=False, init=False)
    is_restored: bool = field(default=False, init=False)
    _held: tuple[Any] | None = field(default=None, repr=False)
    _kept: tuple[Any] | None = field(default=None, repr=False)

    def call(self, step: str, job: Callable[[], Any]) -> Any:
        """Return what a call of the component returns.

        Raises:
            HungError: It did not return in time.
            Exception: Whatever it raises.
        """
        return called(self.name, step, job, self.deadline_s)

    def payload(self) -> Any:
        """Return what restore() is given: read, verified, of the component's own schema."""
        if self._kept is None:
            found = self.stored if self.traits.reads_parts else self.stored.value()
            if not self.is_migrated:
                return found
            return self.call("migrate", lambda: migrated(self.component, found, self.info.schema))
        return self._kept[0]

    def taken(self) -> Any:
        """Return the payload and let go of it: whoever restores it may change it."""
        payload, self._kept = self.payload(), None
        return payload

    def hold(self, capture: CaptureInfo, stored: Mapping[str, Any]) -> None:
        """Let a restore overwrite nothing but what a capture holds of the component, if it can.

        Args:
            stored: The payloads of the capture.
        """
        known = capture.components.get(self.name)
        if known is not None and hasattr(self.component, "over"):
            self._held = (None if known.kind == ABSENT else stored[self.name],)

    def restore(self) -> list[str]:
        """Restore the component; return what is left as it is, because no capture holds it.

        Raises:
            Exception: Whatever the component raises.
        """
        component: Any = self.component
        self.is_as_before = self.is_restored = False
        if self._held is None:
            component.restore(self.taken())
            self.is_restored = True
            return []
        found: list[str]
        with component.over(*self._held, leaves=self.leaves) as found:
            try:
                component.restore(self.taken())
            except ChangedError:
                raise
            except BaseException as error:
                self.is_as_before = _is_taken_back(error)
                if not self.is_as_before:
                    self._held = None  # what is there now may be what it has left itself
                raise
        self.is_restored = True
        return found

    def let_go(self) -> None:
        """Keep nothing."""
        self._kept = None

    def check(self, read: Read, *, room: int) -> int:
        """Read and verify every chunk of the payload.

        Args:
            room: Bytes of values that may be kept, so that nothing is read again.

        Returns:
            How many are kept.

        Raises:
            Exception: It is damaged, or the component's migrate() raised something.
        """
        if self._kept is not None:
            return self.info.size
        if self.traits.reads_parts or self.info.size > room:
            check_chunks(self.info.reference, read)
            return 0
        self._kept = (self.payload(),)
        return self.info.size

    @property
    def is_migrated(self) -> bool:
        """Whether what is restored is not what was captured, but made of it."""
        return self.info.schema != self.traits.schema_version


def absent(capturer: Capturer, name: str) -> Target:
    """Return the target of making a component missing that no capture has."""
    component = Absent(capturer.components[name])
    info = ComponentInfo(ABSENT, 1, "", "", 0)
    return Target(name, component, traits_of(component), info, None)


@dataclass(frozen=True)
class Wanted:
    """What a caller asks for. names: None for all. is_partial: Only what both sides have."""

    names: tuple[str, ...] | None = None
    is_partial: bool = False


def wanted(components: Iterable[str] | None, *, partial: bool) -> Wanted:
    """Return what a caller asks for, checked for its form.

    Raises:
        ArgumentError: components is no list of names, or an empty one.
    """
    if components is None:
        return Wanted(None, partial)
    if isinstance(components, str | bytes) or not isinstance(components, Iterable):
        raise ArgumentError(
            f"components is {quoted(components)}; a list of names is needed.",
            hint="One component: components=['name'].",
            argument="components",
        )
    given = list(components)
    if not given or not all(type(name) is str for name in given):
        raise ArgumentError(
            f"components is {quoted(given)}; a list of names is needed, at least one.",
            argument="components",
        )
    names = tuple(dict.fromkeys(given))
    return Wanted(names, is_partial=True)


def chosen(capturer: Capturer, info: CaptureInfo, given: Wanted) -> tuple[list[str], list[str]]:
    """Return (names to restore, in the order of the restore; faults)."""
    have, captured = capturer.components, info.components
    if given.names is not None:
        faults = [_unknown(name, captured, info) for name in given.names if name not in captured]
        faults += [
            f"Component {name!r} is not part of this system."
            for name in given.names
            if name in captured and name not in have
        ]
        names = [name for name in given.names if name in captured and name in have]
    else:
        names = [name for name in captured if name in have]
        faults = []
        if not given.is_partial:
            faults += [
                f"Component {n!r} was captured and is not here." for n in captured if n not in have
            ]
            faults += [
                f"Component {n!r} is here and was not captured." for n in have if n not in captured
            ]
        if not names:
            faults.append(f"Capture {info.id} and this system have no component in common.")
    return _ordered(capturer, names), faults


def targets_of(
    capturer: Capturer,
    info: CaptureInfo,
    names: Iterable[str],
    watch: Callable[[int], object],
    deadline_of: Callable[[Traits], float],
) -> tuple[list[Target], list[str]]:
    """Return (targets that can be read, faults).

    Args:
        watch: Called with the bytes of each chunk that a restore reads; may raise to stop it.
        deadline_of: Returns how long a call of a component may take.
    """
    names = list(names)
    faults = []
    if digest_of(info.components) != info.digest:
        faults.append(f"The digest of {info.id} is not that of its components' roots.")
    try:
        stored = capturer.stored(info)
    except CheckpointError as error:
        return [], [*faults, error.message]
    store = capturer.manager.store

    def read(digest: bytes, domain: int) -> bytes:
        raw = store.blobs.raw(digest, domain)
        watch(len(raw))
        return raw

    found = []
    for name in names:
        if name not in stored:
            faults.append(f"Component {name!r} is not in the payload of {info.id}.")
            continue
        if name not in capturer.components:
            faults.append(f"Component {name!r} is not part of this system.")
            continue
        known = info.components[name]
        component: Any = capturer.components[name]
        if known.kind == ABSENT:
            component = Absent(component)
        if stored[name].reference != known.reference:
            faults.append(f"Component {name!r} has another root than {info.id} says.")
            continue
        watched = Stored(known.reference, read, codecs=store.codecs)
        traits = traits_of(component)
        found.append(Target(name, component, traits, known, watched, deadline_of(traits)))
    return found, faults


def faults_of_target(target: Target, read: Read, room: int) -> tuple[list[str], int]:
    """Return what forbids restoring a payload: damage, another kind or schema, its own faults.

    Args:
        room: As in `Target.check`; the second answer is how much of it was taken.

    Raises:
        HungError: The component did not come back in time.

    Cost: reads all of it.
    """
    info, traits = target.info, target.traits
    if info.kind != traits.kind:
        fault = f"was captured as {info.kind!r}; it is {traits.kind!r} now."
        return [f"Component {target.name!r} {fault}"], 0
    try:
        kept = target.check(read, room=room)
        payload = target.payload()
        found = target.call("validate", lambda: faults_of(target.component, payload))
    except HungError:
        raise
    except Exception as error:  # noqa: BLE001 - a component's code may raise anything
        return [f"Component {target.name!r}: {told(error)}"], 0
    return [f"Component {target.name!r}: {fault}" for fault in found], kept


def dependencies_lacking(target: Target, names: Iterable[str]) -> list[str]:
    """Return components that a target depends on, then or now, and that are not restored too."""
    restored = set(names)
    needed = dict.fromkeys((*target.info.depends_on, *target.traits.depends_on))
    return [name for name in needed if name not in restored]


def _is_taken_back(error: BaseException) -> bool:
    """Say whether a restore that failed with an error has left nothing of what it did."""
    return isinstance(error, CheckpointError) and error.context.get("left") == []


def told(error: BaseException) -> str:
    """Return an error in words."""
    if isinstance(error, CheckpointError):
        return error.message
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _ordered(capturer: Capturer, names: list[str]) -> list[str]:
    if not names:
        return []
    order = [one.name for one in in_order(capturer.traits)]
    return sorted(names, key=order.index)


def _unknown(name: str, captured: Mapping[str, ComponentInfo], info: CaptureInfo) -> str:
    return f"Capture {info.id} has no component {name!r}; it has {', '.join(captured)}."
