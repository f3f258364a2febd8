"""Compares a component with a payload: before a restore (a plan), after it (verification)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ckptlog.capture.writing import reference_of
from ckptlog.model.component import Change, Plan, faults_restored, is_snapshot
from ckptlog.recovery.target import Target
from ckptlog.repository.store import Store

_NOTHING: Final = "nothing to change"


def plan_of(target: Target, store: Store) -> Plan | None:
    """Return what a restore would change; None where that cannot be known without restoring.

    Raises:
        Exception: Whatever the component raises.
    """
    plan = getattr(target.component, "plan", None)
    if plan is not None:
        made = plan(target.payload() if target.is_migrated else target.stored)
        if not isinstance(made, Plan):
            raise TypeError(f"plan() gave {type(made).__name__}; a Plan is needed")
        return made
    size = target.info.size
    with current(target) as now:
        if is_snapshot(now) or target.traits.reads_parts:
            return None
        # The root commits to every byte, so an equal one is read nowhere.
        if not target.is_migrated and reference_of(now, store) == target.info.reference:
            return Plan((), size, _NOTHING)
        payload = target.payload()
        if is_snapshot(payload):
            return None
        return Plan(*_difference(now, payload, size, store))


def faults_after(target: Target, store: Store) -> list[str] | None:
    """Return what is wrong with a restored component; None where nobody can say.

    Its own verify_restored() is asked first; a component with a plan() must have nothing left to
    change; of others the value is captured and compared.
    """
    found = faults_restored(target.component)
    if found or callable(getattr(target.component, "verify_restored", None)):
        return found
    plan = plan_of(target, store)
    if plan is None:
        return None
    paths = [one.path or "its value" for one in plan.changes]
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return [f"differs from the capture in {', '.join(paths[:3])}{more}"] if paths else []


@contextmanager
def current(target: Target) -> Iterator[Any]:
    """Give what a component's capture() gives, held still meanwhile, and let go of it."""
    component: Any = target.component
    prepare, abort = getattr(component, "prepare", None), getattr(component, "abort", None)
    if prepare is not None:
        prepare()
    try:
        now = component.capture()
        try:
            yield now
        finally:
            if is_snapshot(now):
                now.close()
    finally:
        if prepare is not None and abort is not None:
            abort()


def _difference(
    now: Any, payload: Any, size: int, store: Store
) -> tuple[tuple[Change, ...], int, str]:
    if reference_of(now, store) == reference_of(payload, store):
        return (), size, _NOTHING
    if type(now) is not dict or type(payload) is not dict:
        return (Change("change", "", size),), size, "its value changes"
    before = {key: reference_of(item, store) for key, item in now.items()}
    after = {key: reference_of(item, store) for key, item in payload.items()}
    changes = [Change("remove", key) for key in before if key not in after]
    changes += [
        Change("change" if key in before else "add", key, found.size)
        for key, found in after.items()
        if before.get(key) != found
    ]
    changes.sort(key=lambda one: one.path)
    if not changes:  # the same items, in another order
        return (Change("change", "", size),), size, "the order of its keys changes"
    counts = [
        f"{count} {what}"
        for kind, what in (("add", "to add"), ("change", "to change"), ("remove", "to remove"))
        if (count := sum(one.kind == kind for one in changes))
    ]
    return tuple(changes), size, ", ".join(counts)
