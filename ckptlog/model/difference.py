"""What differs between two values, path by path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from ckptlog.model.codec import NO_CODECS, Codecs, TypeCodec, Typed
from ckptlog.model.tag import key_step
from ckptlog.model.value import encode, lower

_PLAIN: Final = frozenset({str, int, bool, type(None)})


class Difference(msgspec.Struct, frozen=True):
    """One difference; before is None where added, after where removed (see kind)."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before: Any
    after: Any


def differences(
    before: Any, after: Any, path: str = "", *, codecs: Codecs = NO_CODECS
) -> list[Difference]:
    """Return the differences in the order of `before`, then what was added.

    Types count: 1, 1.0 and True differ, a list and a tuple do. Lists are compared by index, objects
    of registered types by what is stored of them.
    """
    return list(_Comparison(codecs).compare(before, after, path))


class _Comparison:
    """One walk over two values."""

    def __init__(self, codecs: Codecs) -> None:
        self._codecs = codecs.opaque()

    def compare(self, before: Any, after: Any, path: str) -> Iterator[Difference]:
        kind = type(before)
        if kind is not type(after):
            yield Difference(path, "changed", before, after)
        elif kind is dict:
            yield from self._dicts(before, after, path)
        elif kind in {list, tuple}:
            yield from self._lists(before, after, path)
        elif kind is Typed and before.name == after.name:
            yield from self.compare(before.content, after.content, path)
        elif codec := self._codecs.by_kind.get(kind):
            yield from self._objects(codec, before, after, path)
        elif not self._is_same(before, after):
            yield Difference(path, "changed", before, after)

    def _dicts(
        self, before: dict[str, Any], after: dict[str, Any], path: str
    ) -> Iterator[Difference]:
        for key, value in before.items():
            if key in after:
                yield from self.compare(value, after[key], _at_key(path, key))
            else:
                yield Difference(_at_key(path, key), "removed", value, None)
        for key, value in after.items():
            if key not in before:
                yield Difference(_at_key(path, key), "added", None, value)

    def _lists(self, before: list[Any], after: list[Any], path: str) -> Iterator[Difference]:
        for index, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from self.compare(old, new, f"{path}[{index}]")
        for index in range(len(after), len(before)):
            yield Difference(f"{path}[{index}]", "removed", before[index], None)
        for index in range(len(before), len(after)):
            yield Difference(f"{path}[{index}]", "added", None, after[index])

    def _objects(
        self, codec: TypeCodec, before: Any, after: Any, path: str
    ) -> Iterator[Difference]:
        old, new = codec.content(before), codec.content(after)
        if not codec.attributes:
            yield from self.compare(old, new, path)
            return
        for name, one, other in zip(codec.attributes, old, new, strict=True):
            inside = path if name == "__dict__" else _at_key(path, name)
            yield from self.compare(one, other, inside)

    def _is_same(self, before: Any, after: Any) -> bool:
        if type(before) in _PLAIN:
            return bool(before == after)
        # NaN is itself here, 0.0 is not -0.0, and objects in a set need no equality of their own.
        return self._wire(before) == self._wire(after)

    def _wire(self, value: Any) -> bytes:
        return encode(lower(value, codecs=self._codecs))


def _at_key(path: str, key: str) -> str:
    return path + key_step(key) if path else key
