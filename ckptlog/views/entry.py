"""The index of metadata: which checkpoints have a scalar under a name.

An entry is (name, key): a top-level name of `meta.metadata`, and its value as a key that two
values share exactly when Python calls them equal (1, 1.0 and True are one). What is no plain
scalar but may equal one (a Decimal, an int enum) has the key "?"; a checkpoint whose metadata
cannot be indexed whole has the one entry ("", ""). Whoever looks up a value asks for these too, so
what is found is never too little, and compares what he finds with the value itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec
from blake3 import blake3

from ckptlog.views.row import Row

Entry = tuple[str, str]

ANY: Final = "?"
UNINDEXED: Final[Entry] = ("", "")
ENTRIES_MAX: Final = 64
CHARACTERS_MAX: Final = 200

_NONE: Final[frozenset[Entry]] = frozenset()
_WHOLE: Final = frozenset((UNINDEXED,))
# Longer metas are looked at each time, so that what is known of others stays small.
_KNOWN_BYTES_MAX: Final = 1024
_BARE: Final = b'"metadata":{}}'
# Tagged values that no scalar equals.
_CONTAINERS: Final = frozenset({"$object", "$tuple", "$set", "$frozenset", "$bytes", "$bytearray"})


class _Meta(msgspec.Struct, gc=False):
    metadata: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Meta).decode


def key_of(value: object) -> str | None:
    """Return the key of a scalar; None where the value is something else."""
    if isinstance(value, str):
        return _text("s", value)
    if isinstance(value, int):
        return _text("n", str(int(value)))
    if isinstance(value, float):
        return _text("n", str(int(value)) if value.is_integer() else repr(value))
    return None


def entries_of(row: Row) -> frozenset[Entry]:
    """Return the entries of a row's metadata."""
    wire = row.meta
    if wire is None:
        return _WHOLE if row.meta_root else _NONE
    if wire.endswith(_BARE):
        return _NONE
    return _entries_in(wire) if len(wire) <= _KNOWN_BYTES_MAX else _entries_in.__wrapped__(wire)


@lru_cache(maxsize=256)  # the steps of a run have mostly the same
def _entries_in(wire: bytes) -> frozenset[Entry]:
    try:
        metadata = _decode(wire).metadata
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _WHOLE
    found = frozenset(
        (_text("", name), key)
        for name, value in metadata.items()
        if (key := _key_of_lowered(value)) is not None
    )
    return found if len(found) <= ENTRIES_MAX else _WHOLE


def entry_of(name: str, value: object) -> Entry | None:
    """Return the entry to look for where metadata is to have a value; None if no index helps."""
    key = key_of(value)
    return None if key is None else (_text("", name), key)


def _key_of_lowered(value: object) -> str | None:
    if type(value) is not dict:
        return key_of(value)
    if len(value) != 1:
        return None
    (tag,) = value
    return ANY if tag.startswith("$") and tag not in _CONTAINERS else None


def _text(kind: str, text: str) -> str:
    if len(text) <= CHARACTERS_MAX:
        return kind + text
    # Kinds of keys begin in lower case, so no short one is taken for this.
    return f"{kind}H{blake3(text.encode(errors='surrogatepass')).hexdigest()}"
