"""The shape of a ready component's payload: who reads it back refuses what is not of his kind.

Every ready component writes a dict whose `form` names it and its version (`queue-1`), so that a
payload of another component, of a stranger, or of a newer version is told by name before anything
is changed. specs/capture-components.md, section 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ckptlog.errors import ForeignPayloadError
from ckptlog.model.quotation import quoted


class Shape(NamedTuple):
    """What a payload must hold.

    Attributes:
        form: Name and version.
        keys: Each further key with the types that its value may be of, exactly;
            none named: of any.
    """

    form: str
    keys: Mapping[str, tuple[type, ...]]

    def faults(self, payload: Any) -> list[str]:
        """Return what is wrong with a payload's form, keys and types; empty if nothing is."""
        if type(payload) is not dict:
            return [f"is {_kind(payload)}; a dict of the form {self.form} is expected"]
        form = payload.get("form")
        if form != self.form:
            return [f"is of the form {quoted(form)}; {self.form} is expected"]
        faults = [f"has no {quoted(key)}" for key in self.keys if key not in payload]
        known = {"form", *self.keys}
        faults += [f"has an unknown key {quoted(key)}" for key in payload if key not in known]
        return faults + [
            f"has {_kind(payload[key])} as {quoted(key)}"
            for key, kinds in self.keys.items()
            if kinds and key in payload and type(payload[key]) not in kinds
        ]


def refuse_faults(name: str, faults: list[str]) -> None:
    """Raise ForeignPayloadError if there is a fault; nothing has been changed yet."""
    if faults:
        raise ForeignPayloadError(
            f"What is to be restored into the component {quoted(name)} {'; '.join(faults[:5])}.",
            hint="Restore a capture of this component, made by this version or an older one.",
            component=name,
            faults=faults[:20],
        )


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"
