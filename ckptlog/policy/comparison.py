"""How values of different kinds compare in expressions: by meaning, and without ever raising.

Page: specs/bisect.md. Kinds that have nothing in common are not equal, and neither comes first.
Arrays are met through their shape, as numpy is never imported here; an array of no dimension is
the number in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID


class _Missing:
    """What a path does not find."""

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()
_SEQUENCES: Final = (list, tuple)
_SETS: Final = (set, frozenset)


def equals(left: Any, right: Any) -> bool:
    """Say whether two values mean the same."""
    left, right = _plain(left), _plain(right)
    if _is_none(left) or _is_none(right):
        return _is_none(left) and _is_none(right)
    pair = _alike(left, right)
    if pair is not None:
        return _answer(lambda: pair[0] == pair[1])
    if isinstance(left, _SEQUENCES) and isinstance(right, _SEQUENCES):
        return len(left) == len(right) and all(map(equals, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equals(left[key], right[key]) for key in left)
    if isinstance(left, _SETS) and isinstance(right, _SETS):
        return len(left) == len(right) and all(contains(right, one) for one in left)
    return False


def precedes(left: Any, right: Any) -> bool:
    """Say whether the left one comes before the right one in an order that both are in."""
    pair = _alike(_plain(left), _plain(right))
    if pair is None or isinstance(pair[0], bool | UUID):
        return False
    return _answer(lambda: pair[0] < pair[1])


def contains(whole: Any, part: Any) -> bool:
    """Say whether an element, a key or a piece of text is in a value."""
    if isinstance(whole, str | Mapping):
        return isinstance(part, str) and part in whole
    return part is not MISSING and any(equals(one, part) for one in elements(whole))


def elements(value: Any) -> Iterable[Any]:
    """Return what is in a value: elements of a list, tuple, set or array, values of a dict."""
    if isinstance(value, Mapping):
        return value.values()
    is_iterable = isinstance(value, (*_SEQUENCES, *_SETS)) or _shape(value)
    return value if is_iterable else ()


def at_step(value: Any, step: str | int) -> Any:
    """Return what stands under a key or at an index; MISSING where nothing does."""
    if isinstance(step, str):
        return value.get(step, MISSING) if isinstance(value, Mapping) else MISSING
    size = len(value) if isinstance(value, _SEQUENCES) else _first(_shape(value))
    return value[step] if -size <= step < size else MISSING


def length(value: Any) -> Any:
    """Return how many characters, bytes, elements or keys a value has; MISSING for others."""
    if isinstance(value, Mapping | str | bytes | bytearray | list | tuple | set | frozenset):
        return len(value)
    shape = _shape(value)
    return shape[0] if shape else MISSING


def is_true(value: Any) -> bool:
    """Say whether an operand alone counts as true: not missing, null, false, 0, or empty."""
    value = _plain(value)
    if isinstance(value, int | float | Decimal):
        return _answer(lambda: value != 0)
    return not _is_none(value) and length(value) not in (0, False)


def _is_none(value: Any) -> bool:
    return value is None or value is MISSING


def _plain(value: Any) -> Any:
    """Return the number in an array of no dimension, and any other value as it is."""
    is_scalar = hasattr(value, "dtype") and getattr(value, "shape", None) == ()
    return value.item() if is_scalar else value


def _shape(value: Any) -> tuple[int, ...]:
    shape = getattr(value, "shape", ())
    return shape if isinstance(shape, tuple) else ()


def _first(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 0


def _alike(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Return two values as ones that Python compares; None where they have nothing in common."""
    for read in _OWN_KINDS:
        one, other = read(left), read(right)
        if one is not None or other is not None:
            if one is not None and other is not None:
                return _leveled(one, other)
            break
    for read in _TEXT_KINDS:
        one, other = read(left), read(right)
        if one is not None and other is not None:
            return one, other
    return None


def _leveled(one: Any, other: Any) -> tuple[Any, Any]:
    """Return a Decimal and a float as two Decimals: 1.1 means what is written, not its bits."""
    if isinstance(one, Decimal) and isinstance(other, float):
        return one, Decimal(repr(other))
    if isinstance(one, float) and isinstance(other, Decimal):
        return Decimal(repr(one)), other
    return one, other


def _as_bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_number(value: Any) -> int | float | Decimal | None:
    return value if isinstance(value, int | float | Decimal) else None


def _as_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _as_bytes(value: Any) -> bytes | None:
    return bytes(value) if isinstance(value, bytes | bytearray) else None


def _as_moment(value: Any) -> datetime | None:
    """Return a time, a date (its first moment) or the text of one as an aware time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _as_uuid(value: Any) -> UUID | None:
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            return None
    return value if isinstance(value, UUID) else None


def _as_time(value: Any) -> time | None:
    return value if isinstance(value, time) else None


# A value of the first kinds is compared with its own kind alone, but a text also stands for one of
# the second.
_OWN_KINDS: Final[tuple[Callable[[Any], Any], ...]] = (_as_bool, _as_number, _as_text, _as_bytes)
_TEXT_KINDS: Final[tuple[Callable[[Any], Any], ...]] = (_as_moment, _as_uuid, _as_time)


def _answer(question: Callable[[], Any]) -> bool:
    """Return Python's answer; False where it has none (a signalling NaN, times at the ends)."""
    try:
        return bool(question())
    except (ArithmeticError, TypeError, ValueError):
        return False
