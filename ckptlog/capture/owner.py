"""Who owns a system, or a place: a living process that must not be worked against (specs/lease.md).

A lease names a system. A place (a directory, a database, a file) belongs to whoever has a live
lease of a system whose newest capture has a component there: `ckptlog run` and a capture service
work in the same directory under other names than `ckptlog rewind`. What lies in a place belongs
to it, and it to what it lies in.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterable

from ckptlog.capture.catalogue import Catalogue
from ckptlog.capture.directory import name as naming
from ckptlog.errors import CheckpointError, LeaseRequiredError
from ckptlog.manager.leasing import LeaseState
from ckptlog.manager.manager import CheckpointManager

_HINT = (
    "Stop that process first, or wait for its end; an operator can end its lease: "
    "ckptlog leases release {name} --force."
)


def refuse_owned(
    manager: CheckpointManager,
    system: str,
    places: Iterable[str],
    *,
    own: Collection[str] = (),
    is_dry: bool = False,
) -> None:
    """Leave alone what a living process owns; of a dead one the lease on the system is ended.

    Args:
        places: Paths that would be written to.
        own: Systems that the caller works for: their leases keep him out of nothing.
        is_dry: End nothing, only look.

    Raises:
        LeaseRequiredError: A living process owns the system, or one that lies in a place.

    Cost: for each live lease the newest capture of its system, where it has one.
    """
    if not is_dry:
        manager.end_dead_lease(system)
    wanted = [_real(one) for one in places]
    for lease in manager.list_leases():
        if not lease.is_live or lease.is_dead or lease.task in own:
            continue
        if lease.task == system:
            raise _refusal(lease, f"The system {system!r} is owned by {lease.holder!r}")
        for place in _places(manager, lease.task):
            if any(_is_in(one, place) or _is_in(place, one) for one in wanted):
                raise _refusal(lease, f"{lease.holder!r} works in {naming.shown(place)}")


def _places(manager: CheckpointManager, system: str) -> list[str]:
    """Return where the components of a system lie, by its newest capture."""
    try:
        info = Catalogue(manager.store, system).latest()
    except CheckpointError:  # damaged: then the lease on the name alone counts
        return []
    if info is None:
        return []
    found = [one.location.get("path", "") for one in info.components.values()]
    return [_real(path) for path in found if path.startswith("/") and "\0" not in path]


def _real(path: str) -> str:
    return os.path.realpath(path).rstrip("/")


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _refusal(lease: LeaseState, why: str) -> LeaseRequiredError:
    return LeaseRequiredError(
        f"{why} (until {lease.expires_at:%F %T} UTC, if it is not renewed); nothing was touched.",
        hint=_HINT.format(name=shlex.quote(lease.task)),
        task_id=lease.task,
        holder=lease.holder,
    )
