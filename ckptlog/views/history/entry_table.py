"""The stored bytes of events as columns, without an object for each event.

Arrow reads JSON lines into columns by itself, many at a time, and leaves the interpreter free
meanwhile. It is not as strict as `formats.event`, so whatever it might take for an event that is
none is looked for first; where there is any doubt the events of the window are decoded one by
one, which is the rule, and what Arrow does only the short cut: both give the same columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptlog.formats import event as event_format
from ckptlog.formats.event import LONG_SCHEMA
from ckptlog.formats.short_event import SHORT_SCHEMA
from ckptlog.model.event import INTEGER_MAX, Event, Reference
from ckptlog.views.history import short_table

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, "pa.Array"]
_Read = Callable[[Iterable[Any]], list[Any]]

_PLAIN: Final = ("actor", "id", "time", "type")
# Fields that may be absent, and what stands for nothing in them.
_TEXTS: Final = ("cause", "created", "state")
_IDS: Final = ("checkpoint", "namespace", "parent", "task", "worker")
_COUNTS: Final = ("new", "sanitised")
_STEPS: Final = ("step", "total")
_LINKS: Final = ("origin", "previous")
_REQUIRED: Final = ("actor", "id", "schema", "subject", "time", "type")
_PAYLOADS: Final = ("data", "meta")
_facts_encoder = msgspec.json.Encoder(order="deterministic")


def read(entries: Sequence[bytes]) -> Columns:
    """Return the fields of events as columns, named as in `Event` and `Subject`.

    Texts and links that are empty are null; `facts` is JSON text; `data` and `meta` are sizes.

    Raises:
        FormatError, UnsupportedError: One of them is no event.

    Threads: safe.        Cost: some 5 us an event, most of it beside the interpreter.
    """
    found = _at_once(entries)
    return _one_by_one(entries) if found is None else found


# --- one by one -----------------------------------------------------------------------------


def _one_by_one(entries: Sequence[bytes]) -> Columns:
    import pyarrow as pa

    events = [event_format.decode(entry) for entry in entries]
    subjects = [event.subject for event in events]
    text, number = pa.string(), pa.int64()
    groups: tuple[tuple[Sequence[str], Sequence[object], pa.DataType, _Read], ...] = (
        (_PLAIN, events, text, list),
        (_TEXTS, events, text, _filled),
        (_IDS, subjects, text, _filled),
        (_COUNTS, events, number, list),
        (_STEPS, events, number, _filled),
        (_LINKS, events, number, _positions),
        (_PAYLOADS, events, number, _sizes),
    )
    found: Columns = {"facts": pa.array([_facts(event) for event in events], text)}
    for names, rows, kind, read_values in groups:
        for name in names:
            found[name] = pa.array(read_values(map(attrgetter(name), rows)), kind)
    return found


def _filled(values: Iterable[Any]) -> list[Any]:
    return [value or None for value in values]


def _positions(links: Iterable[int]) -> list[int | None]:
    return [link if link >= 0 else None for link in links]


def _sizes(payloads: Iterable[Reference | None]) -> list[int | None]:
    return [payload.size if payload else None for payload in payloads]


def _facts(event: Event) -> str | None:
    return _facts_encoder.encode(event.facts).decode() if event.facts else None


# --- at once --------------------------------------------------------------------------------


def _at_once(entries: Sequence[bytes]) -> Columns | None:
    """Let Arrow read the events; None where it is not sure that they are what they seem."""
    import pyarrow as pa

    lines = b"\n".join(entries)
    is_short = b'"schema":' not in lines  # if so, all are: what is not fails to be parsed
    if b'"facts":' in lines or b'"packs":' in lines:  # rare: not for Arrow, or to be checked
        entries = [_plain(entry) for entry in entries]
        lines = b"\n".join(entries)
    if b"null" in lines or lines.count(b"\n") != len(entries) - 1:
        return None
    try:
        table = _parse(lines, short_table.schema() if is_short else _schema())
        if table.num_rows != len(entries):
            return None
        table.validate(full=True)
        if is_short:
            return short_table.columns(table)
        return _columns(table) if _is_sound(table) else None
    except pa.ArrowException:
        return None


def _plain(entry: bytes) -> bytes:
    """Return an event without packs, its facts as text; checked by decoding it."""
    if b'"facts":' not in entry and b'"packs":' not in entry:
        return entry
    event = event_format.decode(entry)
    if event.schema == SHORT_SCHEMA:
        return short_table.plain(event, _facts(event))
    fields: dict[str, Any] = msgspec.to_builtins(event)
    fields.pop("packs", None)
    if event.facts:
        fields["facts"] = _facts(event)
    return msgspec.json.encode(fields)


@cache
def _schema() -> pa.Schema:
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    payload = pa.struct([("kind", text), ("root", text), ("size", number)])
    kinds = {
        **dict.fromkeys((*_PLAIN, "facts", "fingerprint", *_TEXTS), text),
        **dict.fromkeys(("schema", *_COUNTS, *_STEPS, *_LINKS), number),
        **dict.fromkeys(_PAYLOADS, payload),
        "subject": pa.struct([(name, text) for name in _IDS]),
    }
    return pa.schema(list(kinds.items()))


def _parse(lines: bytes, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json

    return json.read_json(
        pa.BufferReader(lines),
        # One block, so that each column is one array.
        read_options=json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=json.ParseOptions(
            explicit_schema=schema,
            newlines_in_values=False,
            unexpected_field_behavior="error",
        ),
    )


def _is_sound(table: pa.Table) -> bool:
    """Say whether everything that Arrow does not check is as in an event."""
    import pyarrow.compute as pc

    if any(table[name].null_count for name in _REQUIRED):
        return False
    schemas = pc.min_max(table["schema"])
    if schemas["min"].as_py() != LONG_SCHEMA or schemas["max"].as_py() != LONG_SCHEMA:
        return False
    for name in _PAYLOADS:
        nulls = {pc.struct_field(table[name], part).null_count for part in ("kind", "root", "size")}
        if nulls != {table[name].null_count}:
            return False
    sizes = [pc.struct_field(table[name], "size") for name in _PAYLOADS]
    naturals = [*sizes, *(table[name] for name in (*_COUNTS, *_STEPS))]
    return all(_lies_in(values, 0) for values in naturals) and all(
        _lies_in(table[name], -1) for name in _LINKS
    )


def _lies_in(numbers: pa.ChunkedArray, least: int) -> bool:
    import pyarrow.compute as pc

    found = pc.min_max(numbers)
    low, high = found["min"].as_py(), found["max"].as_py()
    return low is None or (low >= least and high <= INTEGER_MAX)


def _columns(table: pa.Table) -> Columns:
    import pyarrow.compute as pc

    found = {name: _array(table[name]) for name in (*_PLAIN, "facts")}
    for name in _TEXTS:
        found[name] = short_table.without(_array(table[name]), "")
    subjects = _array(table["subject"])
    for name in _IDS:
        found[name] = short_table.without(subjects.field(name), "")
    for name in _COUNTS:
        found[name] = pc.fill_null(_array(table[name]), 0)
    for name in _STEPS:
        found[name] = short_table.without(_array(table[name]), 0)
    for name in _LINKS:
        found[name] = short_table.without(_array(table[name]), -1)
    for name in _PAYLOADS:
        found[name] = _array(pc.struct_field(table[name], "size"))
    return found


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
