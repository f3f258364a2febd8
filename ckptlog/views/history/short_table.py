"""Events of schema 2 as columns, read by Arrow: what `entry_table` does for schema 1.

Names and meaning are those of `formats.short_event`; what is left out there is worked out here for
all rows at once. Only ids take a visit of the interpreter for each row.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptlog.errors import FormatError
from ckptlog.formats import short_event
from ckptlog.formats.short_event import REFERENCE
from ckptlog.model.event import CREATED, INTEGER_MAX, Event

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, "pa.Array"]

_TEXTS: Final = (
    *("actor", "cause", "cp", "data", "facts", "fingerprint", "id", "made", "meta"),
    *("space", "state", "task", "type", "up", "up~", "worker"),
)
_COUNTS: Final = ("new", "sanitised", "step", "total")
_LINKS: Final = ("origin", "previous")
_IDS: Final = {"checkpoint": "cp", "namespace": "space", "task": "task", "worker": "worker"}
# Arrow does not write the zeros of years before.
_YEAR_1000_US: Final = -30_610_224_000_000_000
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


def plain(event: Event, facts: str | None) -> bytes:
    """Return an event as JSON without packs, its facts as text."""
    fields: dict[str, Any] = msgspec.to_builtins(short_event.pack(event))
    fields.pop("packs", None)
    if facts is not None:
        fields["facts"] = facts
    return msgspec.json.encode(fields)


@cache
def schema() -> pa.Schema:
    """Return what Arrow must find."""
    import pyarrow as pa

    numbers = dict.fromkeys(("age", "at", *_COUNTS, *_LINKS), pa.int64())
    return pa.schema(list({**dict.fromkeys(_TEXTS, pa.string()), **numbers}.items()))


def columns(table: pa.Table) -> Columns | None:
    """Return the columns of `entry_table.read`; None where something is not sound."""
    import pyarrow as pa

    try:
        return _columns({name: table[name].combine_chunks() for name in table.column_names})
    except (FormatError, pa.ArrowException):
        return None


def _columns(told: Columns) -> Columns | None:
    import pyarrow.compute as pc

    created_us = pc.subtract(told["at"], told["age"])
    sizes = {name: _size(told[name]) for name in ("data", "meta")}
    if not _is_sound(told, created_us, sizes):
        return None
    kind = _kind(told["type"])
    found = {
        "actor": told["actor"],
        "id": _ids(told),
        "time": _time(told["at"]),
        "type": kind,
        "facts": told["facts"],
        "cause": _filled(told["cause"]),
        "created": _time(created_us),
        "state": _filled(pc.coalesce(told["state"], _implied(kind))),
        "parent": _parents(told),
        "origin": without(told["origin"], -1),
        "previous": without(pc.coalesce(told["previous"], told["origin"]), -1),
        **sizes,
    }
    for name, short in _IDS.items():
        found[name] = _filled(told[short])
    for name in ("new", "sanitised"):
        found[name] = pc.fill_null(told[name], 0)
    for name in ("step", "total"):
        found[name] = without(told[name], 0)
    return found


def _is_sound(told: Columns, created_us: pa.Array, sizes: Columns) -> bool:
    """Say whether everything that Arrow does not check is as in an event."""
    if told["actor"].null_count or told["at"].null_count:
        return False
    times = (told["at"], created_us)
    naturals = (*sizes.values(), *(told[name] for name in _COUNTS))
    return (
        all(_lies_in(values, _YEAR_1000_US, INTEGER_MAX) for values in times)
        and all(_lies_in(values, 0, INTEGER_MAX) for values in naturals)
        and all(_lies_in(told[name], -1, INTEGER_MAX) for name in _LINKS)
        # A reference that is malformed has no size.
        and all(sizes[name].null_count == told[name].null_count for name in sizes)
    )


def _lies_in(numbers: pa.Array, least: int, most: int) -> bool:
    import pyarrow.compute as pc

    found = pc.min_max(numbers)
    low, high = found["min"].as_py(), found["max"].as_py()
    return low is None or (low >= least and high <= most)


def _size(references: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = pc.extract_regex(references, pattern=f"^{REFERENCE}$")
    is_told_twice = pc.equal(pc.struct_field(parts, "kind"), short_event.LEAF_KIND)
    sizes = pc.cast(pc.struct_field(parts, "size"), pa.int64())
    return pc.if_else(is_told_twice, None, sizes)


def _kind(told: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    kind = pc.fill_null(told, CREATED)
    whole = pc.binary_join_element_wise(short_event.TYPE_FAMILY, kind, "")
    return pc.if_else(pc.starts_with(kind, "."), whole, kind)


def _implied(kind: pa.Array) -> pa.Array:
    """Return the states that types say by themselves."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pairs = short_event.STATE_OF_TYPE
    at = pc.index_in(kind, value_set=pa.array(list(pairs), pa.string()))
    return pa.array(list(pairs.values()), pa.string()).take(at)


def _time(us: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.strftime(pc.cast(us, pa.timestamp("us", tz="UTC")), format=_TIME_FORMAT)


def _ids(told: Columns) -> pa.Array:
    import pyarrow as pa

    id_of, unset = short_event.id_of, msgspec.UNSET
    rows = zip(
        told["id"].to_pylist(), told["made"].to_pylist(), told["at"].to_pylist(), strict=True
    )
    return pa.array(
        [id_of(unset if given is None else given, made or "", at) for given, made, at in rows],
        pa.string(),
    )


def _parents(told: Columns) -> pa.Array:
    import pyarrow as pa

    whole = told["up"]
    if told["up~"].null_count == len(whole):
        return _filled(whole)
    rows = zip(whole.to_pylist(), told["up~"].to_pylist(), told["cp"].to_pylist(), strict=True)
    return pa.array(
        [short_event.parent(up or "", other or "", cp or "") or None for up, other, cp in rows],
        pa.string(),
    )


def _filled(values: pa.Array) -> pa.Array:
    return without(values, "")


def without(values: pa.Array, nothing: str | int) -> pa.Array:
    """Return values with null for what stands for nothing."""
    import pyarrow.compute as pc

    if values.null_count == len(values):
        return values
    return pc.if_else(pc.equal(values, nothing), None, values)
