"""Replacing text inside a lowered value: what sanitising needs to know of tags.

`policy/sanitise.py` knows what a secret looks like; this module knows where text may stand. Two
rewrites: `clean` changes the texts in which a secret was found, `redact` replaces all that stands
under a key that names a secret. Both leave numbers, bools, None, dates and arrays as they are, keep
the shape of the value, and give back a lowered value.

An object of a registered type keeps its type where a text in it is cleaned. Under a secret key it
becomes the replacement as a whole, when there is anything to replace in it: an enum, say, could not
be lifted from another text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from ckptlog.model.codec import TYPE
from ckptlog.model.tag import OBJECT, SEQUENCES, SETS, escaped, in_order, tag_of, wire_of

# Tags whose content can itself be the secret, in another writing.
_OPAQUE: Final = frozenset({"$bytes", "$bytearray", "$uuid"})
_TEXT_SCALARS: Final = frozenset({"U", "S"})


class Sanitiser(Protocol):
    """What `model/value.py` asks while it lowers; implemented by policy/sanitise.py."""

    @property
    def replacement(self) -> str:
        """Text that takes a secret's place."""

    @property
    def verdicts(self) -> dict[str, bool]:
        """What `key_is_secret` has answered, as far as it is remembered."""

    def key_is_secret(self, key: str) -> bool:
        """Say whether values under this key are secrets; asked once for every key: cheap."""

    def may_hold_secret(self, wire: bytes) -> bool:
        """Say whether `clean_text` could find something; may err on the side of True: cheap."""

    def clean_text(self, text: str) -> tuple[str, int]:
        """Return text with its secrets replaced, and their number."""


class _Rewrite:
    """One walk over a lowered value that hands every text of the user's to `change`."""

    def __init__(
        self, change: Callable[[str], str], *, keys_too: bool, opaque: Callable[[], str] | None
    ) -> None:
        self._change = change
        self._keys_too = keys_too
        self._opaque = opaque

    def value(self, lowered: Any) -> Any:
        """Return the rewritten value; shares no container with the old one."""
        kind = type(lowered)
        if kind is str:
            return self._change(lowered)
        if kind is list:
            return [self.value(item) for item in lowered]
        if kind is not dict:
            return lowered
        tag = tag_of(lowered)
        return self._mapping(lowered) if tag is None else self._tagged(tag, lowered)

    def _mapping(self, mapping: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, item in mapping.items():
            name = self._change(key) if self._keys_too else key
            while name in out or (name != key and name in mapping):
                name += "'"  # two keys with secrets stay two keys
            out[name] = self.value(item)
        return escaped(out)

    def _tagged(self, tag: str, lowered: dict[str, Any]) -> Any:
        content = lowered[tag]
        if tag == TYPE:
            return self._typed(lowered)
        if tag == OBJECT:
            return self._mapping(content)
        if tag in SEQUENCES:
            elements = [self.value(item) for item in content]
            return {tag: _rewritten_set(content, elements) if tag in SETS else elements}
        if self._opaque is not None:
            return self._opaque() if _is_opaque(tag, content) else lowered
        if tag == "$scalar" and content["dtype"] == "U":
            return {tag: {**content, "data": self._change(content["data"])}}
        return lowered

    def _typed(self, lowered: dict[str, Any]) -> Any:
        name, content = lowered[TYPE]
        if self._opaque is None:
            return {TYPE: [name, self.value(content)]}
        return self._opaque() if _has_secret(content) else lowered


def _has_secret(lowered: Any) -> bool:
    """Say whether redacting would replace something in a lowered value."""
    return redact(lowered, "")[1] > 0


def _is_opaque(tag: str, content: Any) -> bool:
    if tag == "$scalar":
        return content["dtype"] in _TEXT_SCALARS and content["data"] != ""
    return tag in _OPAQUE and content != ""


def _rewritten_set(old: list[Any], new: list[Any]) -> list[Any]:
    """Return the elements of a rewritten set in order; elements that became equal are one."""
    # Elements that stay are kept as they are: two NaNs are two, though their wires are equal.
    kept = [after for before, after in zip(old, new, strict=True) if after == before]
    wires = {wire_of(item) for item in kept}
    changed = {wire: item for item in new if (wire := wire_of(item)) not in wires}
    return in_order([*kept, *changed.values()])


def clean(lowered: Any, clean_text: Callable[[str], tuple[str, int]]) -> tuple[Any, int]:
    """Return the lowered value with its texts and keys cleaned, and the number of secrets."""
    count = 0

    def change(text: str) -> str:
        nonlocal count
        text, found = clean_text(text)
        count += found
        return text

    return _Rewrite(change, keys_too=True, opaque=None).value(lowered), count


def redact(lowered: Any, replacement: str) -> tuple[Any, int]:
    """Return the lowered value with every text and every opaque value replaced, and their number.

    Empty texts stay, and so does what was replaced before: merging stored data back counts nothing.
    """
    count = 0

    def replaced() -> str:
        nonlocal count
        count += 1
        return replacement

    def change(text: str) -> str:
        return text if not text or text == replacement else replaced()

    return _Rewrite(change, keys_too=False, opaque=replaced).value(lowered), count
