"""What differs between two values, path by path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from ckptlog.model.tag import key_step


class Difference(msgspec.Struct, frozen=True):
    """One difference; before is None where added, after where removed (see kind)."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before: Any
    after: Any


def differences(before: Any, after: Any, path: str = "") -> list[Difference]:
    """Return the differences in the order of `before`, then what was added.

    Types count: 1, 1.0 and True differ, a list and a tuple do. Lists are compared by index.
    """
    return list(_compare(before, after, path))


def _compare(before: Any, after: Any, path: str) -> Iterator[Difference]:
    if type(before) is not type(after):
        yield Difference(path, "changed", before, after)
    elif type(before) is dict:
        yield from _compare_dicts(before, after, path)
    elif type(before) in (list, tuple):
        yield from _compare_lists(before, after, path)
    elif not _is_same(before, after):
        yield Difference(path, "changed", before, after)


def _compare_dicts(
    before: dict[str, Any], after: dict[str, Any], path: str
) -> Iterator[Difference]:
    for key, value in before.items():
        if key in after:
            yield from _compare(value, after[key], _at_key(path, key))
        else:
            yield Difference(_at_key(path, key), "removed", value, None)
    for key, value in after.items():
        if key not in before:
            yield Difference(_at_key(path, key), "added", None, value)


def _compare_lists(before: list[Any], after: list[Any], path: str) -> Iterator[Difference]:
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        yield from _compare(old, new, f"{path}[{index}]")
    for index in range(len(after), len(before)):
        yield Difference(f"{path}[{index}]", "removed", before[index], None)
    for index in range(len(before), len(after)):
        yield Difference(f"{path}[{index}]", "added", None, after[index])


def _at_key(path: str, key: str) -> str:
    return path + key_step(key) if path else key


def _is_same(before: Any, after: Any) -> bool:
    if type(before) is float:
        # NaN is itself here, and 0.0 is not -0.0.
        return repr(before) == repr(after)
    if hasattr(before, "tobytes") and hasattr(before, "dtype"):
        return (before.dtype, before.shape, before.tobytes()) == (
            after.dtype,
            after.shape,
            after.tobytes(),
        )
    return bool(before == after)
