"""The syntax of tags: how a lowered value says what JSON alone cannot (specs/values.md).

A tag is an object with exactly one key, and that key begins with `$`. A user's own dict that looks
like one is escaped: `{"$object": {...}}`. So every lowered value has one meaning.

Here are also the refusal of a value on its way in, and the path by which a message names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

DEPTH_MAX: Final = 200
"""Containers inside one another; keeps the walks and the decoder clear of Python's stack limit."""

OBJECT: Final = "$object"
SEQUENCES: Final = frozenset({"$tuple", "$set", "$frozenset"})
SETS: Final = frozenset({"$set", "$frozenset"})

_STEPS_SHOWN: Final = 12
_KEY_CHARACTERS_SHOWN: Final = 60
_encode = msgspec.json.Encoder().encode


class Refusal(Exception):  # noqa: N818 - no error of the tree: it becomes one at the door
    """Why a value cannot be stored exactly.

    Attributes:
        reason: Ends the sentence that the path begins: "data.tools[3] ...".
        hint: What to do instead; may be empty.
        steps: (identity of a container, step inside it), from the value outwards; the walk adds
            one for each container that it leaves.
    """

    def __init__(self, reason: str, hint: str = "", path: Sequence[str] = ()) -> None:
        """Make a refusal; path: steps that are known already, from the outermost inwards."""
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        # Numbers below zero are the identity of nothing.
        self.steps: list[tuple[int, str]] = [
            (-1 - number, step) for number, step in enumerate(reversed(path))
        ]

    def path(self, root: str) -> str:
        """Return where the value stands: data.tools[3]["odd key"]."""
        return path_of(root, [step for _, step in reversed(self.steps)])

    def loop(self, root: str) -> tuple[str, str] | None:
        """Return the path of a container that holds itself, and of the place where it does."""
        outwards = list(reversed(self.steps))
        seen: dict[int, int] = {}
        for position, (identity, _) in enumerate(outwards):
            if identity in seen:
                steps = [step for _, step in outwards[:position]]
                return path_of(root, steps[: seen[identity]]), path_of(root, steps)
            seen[identity] = position
        return None


def path_of(root: str, steps: list[str]) -> str:
    """Return root and steps as one path; the middle of a long one is left out.

    A root of "" is a dict that the caller made of arguments: its keys begin the paths.
    """
    if len(steps) > _STEPS_SHOWN:
        half = _STEPS_SHOWN // 2
        steps = [*steps[:half], " ... ", *steps[-half:]]
    return root + "".join(steps) if root else "".join(steps).removeprefix(".")


def key_step(key: str) -> str:
    """Return the step to a dict's value: .key, or ["odd key"]."""
    if len(key) > _KEY_CHARACTERS_SHOWN:
        key = key[:_KEY_CHARACTERS_SHOWN] + "..."
    return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"


def tag_of(mapping: dict[str, Any]) -> str | None:
    """Return the tag that a lowered object is, or None when it is a plain one."""
    if len(mapping) == 1:
        (key,) = mapping
        if key.startswith("$"):
            return key
    return None


def escaped(mapping: dict[str, Any]) -> dict[str, Any]:
    """Return a user's dict, its values lowered, as a lowered value."""
    return mapping if tag_of(mapping) is None else {OBJECT: mapping}


def wire_of(lowered: Any) -> bytes:
    """Return the JSON text of a lowered value; a lone surrogate is a UnicodeEncodeError."""
    return _encode(lowered)


def in_order(elements: Iterable[Any]) -> list[Any]:
    """Return the lowered elements of a set in the order of their wires."""
    return sorted(elements, key=_encode)


def surrogate_steps(lowered: Any) -> list[str] | None:
    """Return the steps to the first text with a lone surrogate, or None where there is none."""
    if type(lowered) is dict:
        return _surrogate_in_mapping(lowered)
    if type(lowered) is list:
        for index, item in enumerate(lowered):
            if (steps := surrogate_steps(item)) is not None:
                return [f"[{index}]", *steps]
        return None
    return [] if type(lowered) is str and not is_utf8(lowered) else None


def _surrogate_in_mapping(lowered: dict[str, Any]) -> list[str] | None:
    tag = tag_of(lowered)
    if tag is not None and tag != OBJECT:
        steps = surrogate_steps(lowered[tag])
        return steps if tag in SEQUENCES or steps is None else []
    for key, item in (lowered if tag is None else lowered[OBJECT]).items():
        if not is_utf8(key):
            return [key_step(key)]
        if (steps := surrogate_steps(item)) is not None:
            return [key_step(key), *steps]
    return None


def is_utf8(text: str) -> bool:
    """Say whether a text can be written as UTF-8: half characters cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
