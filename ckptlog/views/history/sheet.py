"""Makes rows of events: a stretch of the log becomes one Arrow record batch.

A million rows of thirty columns must not become thirty million visits of the interpreter. The
events' own fields come as whole columns (`entry_table`), what depends on the event before as well
(`chain`), and the rest Arrow works out of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ckptlog.formats import event as event_format
from ckptlog.log.bulk import Stretch
from ckptlog.model.event import CREATED, DELETED, FAILED, Reference
from ckptlog.views.history import column
from ckptlog.views.history.chain import link
from ckptlog.views.history.entry_table import Columns
from ckptlog.views.history.fault import error_class
from ckptlog.views.history.instant import read_times
from ckptlog.views.history.past import Past

if TYPE_CHECKING:
    import pyarrow as pa

# Returns a payload's bytes; None where they cannot be had.
WireOf = Callable[[Reference], bytes | None]


class Sheet:
    """Makes rows of stretches, in order.

    Args:
        past: Facts of earlier events; the rows' own are added to it.
        wire_of: Asked for the `meta` of failed checkpoints only.

    Threads: one at a time.
    """

    def __init__(self, past: Past, wire_of: WireOf) -> None:
        self._past = past
        self._wire_of = wire_of

    def rows(self, stretch: Stretch, fields: Columns) -> pa.RecordBatch:
        """Return the rows of a stretch that follows what was made before.

        Args:
            fields: Its events' own, as `entry_table.read` returns them.
        """
        import pyarrow as pa

        columns: Columns = {
            "position": pa.array(range(stretch.first, stretch.position_next), pa.int64()),
            "commit": pa.array(stretch.commits, pa.int64()),
            "error_class": self._errors(stretch, fields),
            "event_id": fields["id"],
            "total_steps": fields["total"],
            "stored_bytes": fields["new"],
            "data_bytes": fields["data"],
            "meta_bytes": fields["meta"],
        }
        same = ("type", "namespace", "task", "checkpoint", "parent", "worker", "actor", "cause")
        for name in (*same, "facts", "previous", "step", "sanitised"):
            columns[name] = fields[name]
        columns |= self._times(fields, columns["position"])
        columns |= _sizes(stretch, fields)
        schema = column.schema()
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _times(self, fields: Columns, position: pa.Array) -> Columns:
        import pyarrow as pa
        import pyarrow.compute as pc

        types = fields["type"]
        is_creation = pc.equal(types, CREATED)
        times = read_times(fields["time"])
        created = pc.if_else(is_creation, times, read_times(fields["created"]))
        states = pc.if_else(pc.equal(types, DELETED), None, fields["state"])
        numbers = times.cast(pa.int64())
        linked = link(self._past, position, fields["previous"], states, numbers)
        self._past.trim()
        return {
            "time": times,
            "created": created,
            "age_us": pc.subtract(numbers, created.cast(pa.int64())),
            "origin": pc.if_else(is_creation, position, fields["origin"]),
            **linked,
        }

    def _errors(self, stretch: Stretch, fields: Columns) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        errors: list[str | None] = [None] * len(stretch.entries)
        for row in pc.indices_nonzero(pc.equal(fields["type"], FAILED)).to_pylist():
            meta = event_format.decode(stretch.entries[row]).meta
            wire = None if meta is None else self._wire_of(meta)
            errors[row] = None if wire is None else error_class(wire)
        return pa.array(errors, pa.string())


def _sizes(stretch: Stretch, fields: Columns) -> Columns:
    import pyarrow as pa
    import pyarrow.compute as pc

    stored = fields["new"]
    has_stored = pc.greater(stored, 0)
    chunks = pa.array(stretch.chunks, pa.int64())
    # What was stored without a chunk in the log went into a pack.
    is_packed = pc.and_(has_stored, pc.equal(chunks, 0))
    raw = pc.if_else(is_packed, None, pa.array(stretch.raw_bytes, pa.int64()))
    # As model.event.saved_bytes.
    is_saved = pc.or_(has_stored, pc.equal(fields["type"], CREATED))
    whole = pc.add(pc.fill_null(fields["data"], 0), pc.fill_null(fields["meta"], 0))
    logical = pc.if_else(is_saved, whole, 0)
    return {
        "logical_bytes": logical,
        "raw_bytes": raw,
        "dedup_ratio": _ratio(logical, raw),
        "compression_ratio": _ratio(raw, stored),
    }


def _ratio(whole: pa.Array, part: pa.Array) -> pa.Array:
    """Return whole to part; null where either is 0 or not known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    has_both = pc.and_(pc.greater(whole, 0), pc.greater(part, 0))
    real = pa.float64()
    return pc.divide(whole.cast(real), pc.if_else(has_both, part, None).cast(real))
