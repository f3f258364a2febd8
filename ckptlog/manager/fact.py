"""From a row of the view to the facts that retention asks about (policy.retention).

Metadata is read as text: no codec runs and no object of a user's class is made, so a clean-up
needs nothing that the writer needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from ckptlog.errors import CheckpointError
from ckptlog.model import value as values
from ckptlog.model.codec import OPAQUE
from ckptlog.model.event import Reference
from ckptlog.model.rank import rank_of
from ckptlog.policy.retention import Fact
from ckptlog.repository.store import Store
from ckptlog.views.row import Row

PIN: Final = "pinned"
"""The metadata key that pins a checkpoint, where it is true."""
COUNTERS: Final = "counters_since_delta_snapshot"
"""LangGraph's key, whose keys are the channels that are made of ancestors (specs/langgraph.md)."""

_ESCAPE: Final = "$object"
_FAULTS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
_Raws = dict[str, msgspec.Raw]


class _Meta(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


_decode_meta = msgspec.json.Decoder(_Meta).decode
_decode_raws = msgspec.json.Decoder(_Raws).decode


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What the metadata of a checkpoint says. channels: Those made of its ancestors, too."""

    fact: Fact
    channels: frozenset[str] = frozenset()


def reading_of(store: Store, row: Row, metrics: Collection[str] = ()) -> Reading:
    """Return the facts of a row; metadata that cannot be read is a fact, not an error."""
    raws: Mapping[str, msgspec.Raw] | None = {}
    wire = row.meta
    if wire is None and row.meta_root:
        raws = _read(store, row)
    elif wire and (metrics or b'"pinned"' in wire or b'"counters_since_' in wire):
        raws = raws_of(wire)
    fact = Fact(
        id=row.id,
        order=(rank_of(row.id), row.origin),
        state=row.state,
        step=row.step,
        total=row.total,
        updated=row.updated,
        namespace=row.namespace,
        metrics=_metrics(raws or {}, metrics),
        is_pinned=_is_true((raws or {}).get(PIN)),
        is_whole=bool(row.meta_root),
        is_read=raws is not None,
    )
    return Reading(fact, _channels((raws or {}).get(COUNTERS)))


def is_pinned(store: Store, row: Row) -> bool:
    """Say whether a checkpoint is pinned, or its metadata cannot tell."""
    fact = reading_of(store, row).fact
    return fact.is_pinned or not fact.is_read


def _read(store: Store, row: Row) -> _Raws | None:
    """Return the metadata of a row that holds none: it was too large for the view."""
    reference = Reference(row.meta_kind, row.meta_root, row.meta_size)
    try:
        return raws_of(store.wire(reference))
    except CheckpointError:
        return None


def raws_of(wire: bytes) -> _Raws | None:
    """Return the top level of metadata as raw JSON by name; None where it is no dictionary."""
    try:
        found = _decode_raws(_decode_meta(wire).metadata)
        return _decode_raws(found[_ESCAPE]) if list(found) == [_ESCAPE] else found
    except _FAULTS:
        return None


def pinned_wire(wire: bytes, *, is_pinned: bool) -> bytes | None:
    """Return a meta wire that says whether the checkpoint is pinned; the rest stays byte by byte.

    None where it is no meta that this could be said in.
    """
    try:
        fields = _decode_raws(wire)
        raws = _decode_raws(fields["metadata"])
        if _is_tag(raws):
            raws = _decode_raws(raws[_ESCAPE])  # no other tag is a dictionary with names
    except (KeyError, *_FAULTS):
        return None
    if is_pinned:
        raws[PIN] = msgspec.Raw(b"true")
    else:
        raws.pop(PIN, None)
    metadata: Any = {_ESCAPE: raws} if _is_tag(raws) else raws
    fields["metadata"] = msgspec.Raw(msgspec.json.encode(metadata))
    return msgspec.json.encode(fields)


def _is_tag(raws: _Raws) -> bool:
    return len(raws) == 1 and next(iter(raws)).startswith("$")


def _is_true(raw: msgspec.Raw | None) -> bool:
    return raw is not None and bytes(raw) == b"true"


def _channels(raw: msgspec.Raw | None) -> frozenset[str]:
    if raw is None:
        return frozenset()
    try:
        found = _decode_raws(raw)
        return frozenset(_decode_raws(found[_ESCAPE]) if list(found) == [_ESCAPE] else found)
    except _FAULTS:
        return frozenset()


def _metrics(raws: Mapping[str, msgspec.Raw], wanted: Collection[str]) -> dict[str, float]:
    found = {}
    for name in wanted:
        number = None if name not in raws else _number(bytes(raws[name]))
        if number is not None:
            found[name] = number
    return found


def _number(raw: bytes) -> float | None:
    """Return a number as rules compare it; None for what is none (True and False are none)."""
    try:
        value = values.decode(raw, OPAQUE)
        is_plain = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        # A numpy scalar is a number too; an array of one element, or of truth values, is none.
        is_scalar = getattr(value, "ndim", 1) == 0 and value.dtype.kind in "iuf"
        return float(value) if is_plain or is_scalar else None
    except (CheckpointError, ValueError, TypeError, OverflowError, ArithmeticError):
        return None
