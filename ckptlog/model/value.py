"""Values and their wire: any value that the user may store, as JSON text, and back, exactly.

Two steps each way: `lower` makes a JSON-able copy in which tags (`{"$bytes": ...}`) stand for what
JSON lacks, `encode` writes it; `decode` reads and lifts. specs/values.md has every tag.

Invariants:
- Exact or refused. Types count: True, 1 and 1.0, -0.0 and 0.0, a tuple and a list, a naive and an
  aware time have different wires and come back as they were. A subclass of a known type is refused
  (it may hold more than the wire would), never narrowed. A refusal names the path.
- Nothing is aliased: what `lower` and `lift` return shares no container with what they were given.
- Each container is read once, by one copy that no other thread can cut in two. Containers that
  another thread changes meanwhile come out as they were at their own moment.
- Hostile wire ends in FormatError (or UnsupportedError: numpy or a time zone is missing here).

This is the hot path of every write and read: plain values are passed over inside the loops, and
the path to a fault is gathered only while its refusal unwinds.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

from ckptlog.errors import FormatError, UnstorableError
from ckptlog.kernel import native
from ckptlog.model.array import lower_numpy
from ckptlog.model.beside import NOTHING, Beside
from ckptlog.model.codec import NO_CODECS, TYPE, Codecs, TypeCodec, Typed
from ckptlog.model.lift import FAULTS, Lifting, said
from ckptlog.model.scalar import LOWERED, lower_number
from ckptlog.model.secret import Sanitiser, clean, redact
from ckptlog.model.tag import (
    DEPTH_MAX,
    Refusal,
    escaped,
    in_order,
    key_step,
    surrogate_steps,
)
from ckptlog.model.unknown import advice, type_name

CONTAINERS_MAX: Final = 2_000_000
"""Containers in one value; a value whose parts share others is copied for each place, and forty
lists that hold their predecessor twice would otherwise be a million million."""

DIGITS_MAX: Final = 4_299
"""Decimal digits of an int; the decoder reads 4,300 characters, and one may be the sign."""

_INT_MAX: Final = 10**DIGITS_MAX
_BULK: Final = 16
# A byte's number is found at memory speed, and so is the first letter of an expression.
_DOLLAR: Final = ord("$")
_BACKSLASH: Final = ord("\\")
_escaped_dollar = re.compile(rb"\\(?:u0024)").search
_ELEMENT: Final = "{...}"
_SURROGATE: Final = "holds a lone surrogate, which no UTF-8 text can"
_SURROGATE_HINT: Final = "Store it as bytes, or replace it: text.encode(errors='replace')."
_PLAIN: Final = frozenset({str, bool, type(None)})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A value that is ready to be stored.

    wire: Its bytes, secrets replaced.
    sanitised_count: Secrets replaced.
    """

    wire: bytes
    sanitised_count: int = 0


def prepare(
    value: Any,
    *,
    path: str = "data",
    sanitiser: Sanitiser | None = None,
    codecs: Codecs = NO_CODECS,
) -> Prepared:
    """Lower and encode a value, with its secrets replaced: all that comes before storing it.

    Args:
        path: What messages call the value; "" where the keys of a dict are names enough.
        sanitiser: Finds the secrets; None stores everything as it is.
        codecs: Store the objects of registered types.

    Raises:
        UnstorableError: Something in it cannot be stored exactly; the message has the path.

    Threads: safe; other threads may go on changing the value.
    """
    if native is not None:
        verdicts, replacement = None, ""
        if sanitiser is not None:
            verdicts, replacement = sanitiser.verdicts, sanitiser.replacement
        wire = native.wire(
            value,
            codecs.table,
            verdicts,
            replacement,
            _odd_wire,
            (sanitiser, codecs),
            _encode,
            DEPTH_MAX,
            CONTAINERS_MAX,
        )
        if wire is not None:
            return _cleaned(wire, sanitiser)
    _, wire, count = _walked(value, path, sanitiser, codecs)
    return Prepared(wire, count)


def _odd_wire(
    context: tuple[Sanitiser | None, Codecs], value: Any, depth: int, left: int
) -> tuple[bytes, int] | None:
    """Return the wire of a value inside the one that the kernel writes; None: go the long way.

    Args:
        left: Containers that the whole value may still hold; what is left of them is returned.
    """
    walk = _Lowering(*context, left)
    try:
        wire = _encode(walk.lowered(value, depth))
    except (Refusal, RuntimeError, ValueError):
        return None
    return None if walk.redacted else (wire, walk.left)


def _cleaned(wire: bytes, sanitiser: Sanitiser | None) -> Prepared:
    """Return a wire without what looks like a secret in its texts."""
    if sanitiser is None or not sanitiser.may_hold_secret(wire):
        return Prepared(wire)
    # The wire says all that the value does; reading the value again could find another one.
    lowered, count = clean(_decode(wire), sanitiser.clean_text)
    return Prepared(_encode(lowered) if count else wire, count)


def _walked(
    value: Any, path: str, sanitiser: Sanitiser | None, codecs: Codecs = NO_CODECS
) -> tuple[Any, bytes, int]:
    """Return (lowered copy, wire, secrets replaced) of any value.

    Raises:
        UnstorableError: As `prepare`.
    """
    try:
        return _sanitised(value, sanitiser, codecs)
    except Refusal as refusal:
        raise _unstorable(refusal, path) from refusal.__cause__
    except RecursionError:
        raise UnstorableError(
            f"{path} is nested too deep for what is left of the call stack.",
            hint="Call from a shallower function, or store a flatter value.",
            path=path,
        ) from None
    except (RuntimeError, ValueError) as error:
        # RuntimeError: a container changed inside its own copy; only keys with Python code can.
        raise UnstorableError(f"{path} cannot be stored: {error}.", path=path) from error


def _sanitised(value: Any, sanitiser: Sanitiser | None, codecs: Codecs) -> tuple[Any, bytes, int]:
    walk = _Lowering(sanitiser, codecs)
    lowered = walk.lowered(value, 1)
    try:
        wire = _encode(lowered)
    except UnicodeEncodeError:
        raise _lone_surrogate(lowered) from None
    count = walk.redacted
    if sanitiser is not None and sanitiser.may_hold_secret(wire):
        lowered, found = clean(lowered, sanitiser.clean_text)
        if found:
            count += found
            wire = _encode(lowered)
    return lowered, wire, count


def lower(
    value: Any,
    *,
    path: str = "data",
    sanitiser: Sanitiser | None = None,
    codecs: Codecs = NO_CODECS,
) -> Any:
    """Return a JSON-able copy of value in which tags stand for what JSON lacks.

    Raises:
        UnstorableError: Something in it cannot be stored exactly; the message has the path.
    """
    return _walked(value, path, sanitiser, codecs)[0]


def encode(lowered: Any) -> bytes:
    """Return the wire of a lowered value: JSON text in UTF-8, without blanks, keys in order.

    Raises:
        UnstorableError: It holds a lone surrogate.
    """
    try:
        return _encode(lowered)
    except UnicodeEncodeError:
        raise _unstorable(_lone_surrogate(lowered), "value") from None


class _Lowering:
    """One walk over a value.

    left: Containers that may still be met. redacted: Values replaced because of their keys.
    """

    __slots__ = ("_codecs", "_is_opaque", "_is_secret", "_replacement", "left", "redacted")

    def __init__(
        self, sanitiser: Sanitiser | None, codecs: Codecs, left: int | None = None
    ) -> None:
        self._codecs = codecs.by_kind
        self._is_opaque = codecs.is_opaque
        self._is_secret = None if sanitiser is None else sanitiser.key_is_secret
        self._replacement = "" if sanitiser is None else sanitiser.replacement
        self.left = CONTAINERS_MAX if left is None else left
        self.redacted = 0

    def lowered(self, value: Any, depth: int) -> Any:
        """Return the lowered copy of a value that stands in depth - 1 containers."""
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is dict:
            return self._mapping(value, depth)
        if kind is list:
            return self._sequence(value, value.copy(), depth)
        return self._other(value, kind, depth)

    def _enter(self, depth: int) -> None:
        self.left -= 1
        if depth > DEPTH_MAX:
            raise _too_deep()
        if self.left < 0:
            raise Refusal(
                f"holds more than {CONTAINERS_MAX:,} containers, counted once for each place",
                "Store less, or refer to shared parts by a key.",
            )

    def _mapping(self, source: dict[Any, Any], depth: int) -> dict[str, Any]:
        self._enter(depth)
        copy = source.copy()
        is_secret = self._is_secret
        key = None
        try:
            for key, item in copy.items():
                if type(key) is not str:
                    raise _bad_key(key)
                kind = type(item)
                if is_secret is not None and is_secret(key):
                    copy[key] = self._redacted(item, depth + 1)
                elif kind is not str and kind is not bool and item is not None:
                    # The key is there already: the dict keeps its size, the loop its footing.
                    copy[key] = self.lowered(item, depth + 1)
        except Refusal as refusal:
            if type(key) is str:
                refusal.steps.append((id(source), key_step(key)))
            raise
        return escaped(copy) if len(copy) == 1 else copy

    def _sequence(self, source: Any, copy: list[Any], depth: int) -> list[Any]:
        """Return the lowered elements; copy is the caller's own and may be changed."""
        self._enter(depth)
        if len(copy) > _BULK and _is_plain(copy):
            return copy
        index = 0
        try:
            for index, item in enumerate(copy):
                kind = type(item)
                if kind is not str and kind is not bool and item is not None:
                    copy[index] = self.lowered(item, depth + 1)
        except Refusal as refusal:
            refusal.steps.append((id(source), f"[{index}]"))
            raise
        return copy

    def _other(self, value: Any, kind: type, depth: int) -> Any:
        if kind is int:
            return _checked(value)
        if kind is float:
            return lower_number(value)
        if kind is tuple:
            return {"$tuple": self._sequence(value, list(value), depth)}
        if kind is set or kind is frozenset:
            return {f"${kind.__name__}": self._elements(value, depth)}
        if entry := LOWERED.get(kind):
            tag, lowered = entry
            return {tag: lowered(value)}
        return self._foreign(value, kind, depth)

    def _foreign(self, value: Any, kind: type, depth: int) -> dict[str, Any]:
        if codec := self._codecs.get(kind):
            return self._typed(value, codec, depth)
        if kind is Typed:
            return self._unlifted(value, depth)
        tagged = lower_numpy(value)
        if tagged is None:
            raise Refusal(f"is of type {type_name(kind)}, which is not storable", advice(kind))
        return tagged

    def _typed(self, value: Any, codec: TypeCodec, depth: int) -> dict[str, Any]:
        self._enter(depth)
        try:
            content = codec.content(value)
        except RecursionError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"[:200]
            raise Refusal(f"could not be lowered by its codec {codec.name!r} ({what})") from error
        try:
            if codec.lower is not None:
                return {TYPE: [codec.name, self.lowered(content, depth + 1)]}
            return {TYPE: [codec.name, self._attributes(codec, content, depth + 1)]}
        except Refusal as refusal:
            # The object is a place of its own: one that holds itself is told by it.
            refusal.steps.append((id(value), ""))
            raise

    def _attributes(self, codec: TypeCodec, values: list[Any], depth: int) -> list[Any]:
        """Return the lowered attributes; the list is the caller's own and may be changed."""
        self._enter(depth)
        index = 0
        try:
            for index, item in enumerate(values):
                values[index] = self.lowered(item, depth + 1)
        except Refusal as refusal:
            name = codec.attributes[index]
            if name != "__dict__":  # its keys are the names that users know
                refusal.steps.append((-1 - len(refusal.steps), key_step(name)))
            raise
        return values

    def _unlifted(self, value: Typed, depth: int) -> dict[str, Any]:
        if not self._is_opaque:
            raise Refusal(
                f"was read without the codec {value.name!r}, so it is not of its own type",
                "Read it with that codec, and store what it gives.",
            )
        self._enter(depth)
        return {TYPE: [value.name, self.lowered(value.content, depth + 1)]}

    def _elements(self, source: set[Any] | frozenset[Any], depth: int) -> list[Any]:
        try:
            return in_order(self._sequence(source, list(source.copy()), depth))
        except Refusal as refusal:
            if refusal.steps:  # an element has no index of its own
                refusal.steps[-1] = (id(source), _ELEMENT)
            raise
        except UnicodeEncodeError:
            raise Refusal(_SURROGATE, _SURROGATE_HINT, [_ELEMENT]) from None

    def _redacted(self, item: Any, depth: int) -> Any:
        lowered, count = redact(self.lowered(item, depth), self._replacement)
        self.redacted += count
        return lowered


def _is_plain(items: list[Any]) -> bool:
    """Say whether a long list needs no lowering; decided without a loop in Python.

    A list of one number type is judged by its sum or its ends. False may be wrong (a sum of finite
    floats can be infinite); then the loop decides.
    """
    kinds = set(map(type, items))
    if kinds <= _PLAIN:
        return True
    if kinds == {float}:
        return math.isfinite(sum(items))
    return kinds == {int} and min(items) > -_INT_MAX and max(items) < _INT_MAX


def _checked(value: int) -> int:
    if -_INT_MAX < value < _INT_MAX:
        return value
    raise Refusal(f"is an int of more than {DIGITS_MAX} digits", "Store it as bytes or text.")


def _too_deep() -> Refusal:
    return Refusal(f"is nested deeper than {DEPTH_MAX} containers", "Store a flatter value.")


def _bad_key(key: object) -> Refusal:
    return Refusal(
        f"has a key of type {type_name(type(key))}; keys must be of type str",
        "Write the key as text, or store a list of pairs.",
    )


def _unstorable(refusal: Refusal, root: str) -> UnstorableError:
    path, reason, hint = refusal.path(root), refusal.reason, refusal.hint
    if loop := refusal.loop(root):
        path, again = loop
        reason, hint = f"contains itself, at {again}", "Store an id in place of the value."
    return UnstorableError(f"{path} {reason}.", hint=hint, path=path)


def _lone_surrogate(lowered: Any) -> Refusal:
    return Refusal(_SURROGATE, _SURROGATE_HINT, surrogate_steps(lowered) or ())


def decode(
    wire: bytes, codecs: Codecs = NO_CODECS, *, opaque: bool = False, beside: Beside = NOTHING
) -> Any:
    """Return the value of a wire, lifted: new, and the caller's own.

    Args:
        codecs: Make the objects of registered types.
        opaque: Whether a name that is not registered is read as a `Typed`.
        beside: Bytes that something in the wire stands for.

    Raises:
        FormatError: These bytes are no wire of a value, or a codec could not lift its content.
        UnregisteredTypeError: They hold a type that has no codec here.
        UnsupportedError: numpy or a time zone's data is missing on this machine.

    Cost: where no `$` is in the wire, one pass of the JSON decoder.
    """
    try:
        value = _decode(wire)
        # An escaped `$` is never ours; it is looked for so that a wire has one meaning.
        if _DOLLAR in wire or (_BACKSLASH in wire and _escaped_dollar(wire)):
            value = Lifting(codecs, is_opaque=opaque, beside=beside).decoded(value)
    except (msgspec.MsgspecError, *FAULTS) as error:
        raise FormatError(f"These bytes are no stored value: {said(error)}.") from error
    return value


def lift(lowered: Any, codecs: Codecs = NO_CODECS, *, opaque: bool = False) -> Any:
    """Return the value that a lowered one stands for; it shares no container with it.

    Raises:
        FormatError: A tag is unknown or its content is not what the tag needs.
        UnregisteredTypeError: It holds a type that has no codec here.
        UnsupportedError: numpy or a time zone's data is missing on this machine.
    """
    try:
        return Lifting(codecs, is_opaque=opaque).lifted(lowered, 1)
    except FAULTS as error:
        raise FormatError(f"This is no lowered value: {said(error)}.") from error
