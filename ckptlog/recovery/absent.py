"""The absent component: it stands for one that is not there (specs/recovery.md, section 5).

In a safety capture it says that there was nothing to save; in a recovery its restore makes that
true again. What absence means a component says itself, by `is_absent()` and `make_absent()`; one
that has a place (`location`, "path") is absent where nothing lies there, and what lies there is
renamed (recovery.aside). Every other component has no notion of absence, and is refused by name.
"""

from __future__ import annotations

import os
from typing import Any, Final

from ckptlog.errors import ComponentError, SourceError
from ckptlog.model.component import ABSENT, COPIED, Change, Plan, traits_of
from ckptlog.recovery import aside

_FORM: Final = "absent-1"


class Absent:
    """Stands for a component that is missing, or is to be.

    Args:
        component: The one that is meant.

    Attributes:
        stands_for: That one.
        suffix: Of the name that what lies at its place gets; "" for the next free one.
        aside: The path where that lies now; "" where nothing had to give way.

    Threads: one.
    """

    kind = ABSENT
    schema_version = 1
    reads_parts = True
    stability = COPIED

    def __init__(self, component: Any) -> None:
        traits = traits_of(component)
        self.stands_for = component
        self.name, self.depends_on = traits.name, traits.depends_on
        self.location = {**traits.location, "kind": traits.kind}
        self.suffix = ""
        self.aside = ""

    def capture(self) -> dict[str, str]:
        """Return that there is nothing.

        Raises:
            SourceError: There is something: it has appeared just now.
        """
        if not is_absent(self.stands_for):
            raise SourceError(
                f"Component {self.name!r} was missing a moment ago, and is there now.",
                hint="Recover again when nobody makes it.",
                component=self.name,
            )
        return {"form": _FORM}

    def validate(self, _payload: object) -> list[str]:
        """Return what forbids making it missing."""
        if has_own_word(self.stands_for) or place_of(self.stands_for):
            return []
        fault = (
            "it was missing when this was captured, and has neither a place nor make_absent(): "
            "take it away yourself, and recover the others."
        )
        return [fault]

    def restore(self, _payload: object) -> None:
        """Make it missing. Called again it does nothing.

        Durability: the rename is on the medium; of make_absent() the component answers for it.
        """
        if is_absent(self.stands_for):
            return
        if has_own_word(self.stands_for):
            self.stands_for.make_absent()
        else:
            self.aside = aside.put(place_of(self.stands_for), self.suffix) or self.aside

    def verify_restored(self) -> list[str]:
        """Return that it is there, where it is."""
        return [] if is_absent(self.stands_for) else ["is there, and was missing."]

    def plan(self, _stored: object) -> Plan:
        """Return that it would be taken away; nothing where it is missing."""
        what = place_of(self.stands_for) or self.name
        if is_absent(self.stands_for):
            return Plan((), 0, f"{what} is missing, as it was")
        return Plan((Change("remove", what),), 0, f"{what} was missing, and would be again")


def has_own_word(component: object) -> bool:
    """Say whether a component says itself what absence means."""
    return callable(getattr(component, "is_absent", None)) and callable(
        getattr(component, "make_absent", None)
    )


def is_absent(component: Any) -> bool:
    """Say whether a component is missing; False where it has no notion of that.

    Raises:
        ComponentError: Its own is_absent() says neither yes nor no (a coroutine, say).
    """
    if has_own_word(component):
        answer = component.is_absent()
        if type(answer) is not bool:
            raise ComponentError(
                f"Component {component.name!r} has an is_absent() that gave "
                f"{type(answer).__name__}; True or False is needed.",
                component=component.name,
                attribute="is_absent",
            )
        return answer
    place = place_of(component)
    if not place:
        return False
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False  # perhaps it is there: nobody may look
    return False


def place_of(component: object) -> str:
    """Return the path where a component is; "" where it has none."""
    location = getattr(component, "location", None) or {}
    if "path" not in location:
        return ""
    own = getattr(component, "path", None)  # has bytes that a location cannot tell
    return own if isinstance(own, str) else str(location["path"])
