"""Restores a capture into a directory, and leaves the system as it is.

A component that can be somewhere else (`at(path)`, or `restore_paths(stored, to=)`) is restored to
DIRECTORY/<name>; of every other the value is written to DIRECTORY/<name>.json, tagged as
`ckptlog show --data` prints it. Of what was missing when it was captured nothing is made. Nothing
that exists is overwritten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ckptlog.errors import ArgumentError, operating_system_door
from ckptlog.model import value as values
from ckptlog.model.capture import CaptureInfo
from ckptlog.recovery import progress as stage
from ckptlog.recovery.absent import Absent
from ckptlog.recovery.course import Course
from ckptlog.recovery.preflight import Preflight
from ckptlog.recovery.progress import RecoveryProgress
from ckptlog.recovery.target import Target, Wanted
from ckptlog.storage.files import write_atomically


def restore_elsewhere(
    course: Course, preflight: Preflight, info: CaptureInfo, *, given: Wanted, folder: Path
) -> RecoveryProgress:
    """Restore a capture's components below a directory.

    Raises:
        ArgumentError: Something is there already.
        RecoveryRefusedError: A payload is not fit.
    """
    preflight.begin(info, given)
    course.targets = [one for one in course.targets if not isinstance(one.component, Absent)]
    places = {one.name: folder / _file_name(one) for one in course.targets}
    for name, place in places.items():
        if list(places.values()).count(place) > 1:
            raise ArgumentError(
                f"{place} would hold more than one component.",
                hint="Restore them one by one, each to a directory of its own.",
                component=name,
            )
        if place.exists() or place.is_symlink():
            raise ArgumentError(f"{place} exists.", hint="Name another directory.", path=str(place))
    preflight.validate(is_elsewhere=True)
    with operating_system_door(f"Cannot make {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    course.tracker.to(status=stage.RESTORING)
    for target in course.targets:
        course.check_cancelled()
        course.entered(target)
        _restore(target, places[target.name])
        course.left(target)
    course.tracker.to(status=stage.COMPLETED)
    return course.tracker.now


def _file_name(target: Target) -> str:
    return target.name if _moves(target.component) else f"{target.name}.json"


def _moves(component: Any) -> bool:
    return hasattr(component, "at") or hasattr(component, "restore_paths")


def _restore(target: Target, place: Path) -> None:
    component: Any = target.component
    if hasattr(component, "at"):
        component.at(place).restore(target.taken())
    elif hasattr(component, "restore_paths"):
        component.restore_paths(target.taken(), to=place)
    else:
        lowered = values.lower(target.stored.value())
        write_atomically(place, (json.dumps(lowered, indent=2, ensure_ascii=False) + "\n").encode())
