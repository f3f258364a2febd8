"""Whereabouts: whether a component lies where its capture was taken.

Captures know components by name. One of the same name in another place is other files: restoring
there replaces what the capture has never seen.
"""

from __future__ import annotations

import os

from ckptlog.model.capture import CaptureInfo
from ckptlog.model.component import Component, traits_of


def other_place(component: Component, info: CaptureInfo) -> str | None:
    """Return where a capture has a component from; None where that is its place, or is not known.

    Two paths that lead to one place are the same.
    """
    traits = traits_of(component)
    known = info.components.get(traits.name)
    then = "" if known is None else known.location.get("path", "")
    now = traits.location.get("path", "")
    if not then or not now or then == now or _real(then) == _real(now):
        return None
    return then


def _real(path: str) -> str:
    return path if "\0" in path else os.path.realpath(path)
