"""Makes rows of events: a window of commits becomes one Arrow record batch.

A million rows of thirty columns must not become thirty million visits of a general mechanism. So
each column is one list, made in one comprehension and handed to Arrow whole; what can be worked
out from other columns Arrow works out; and only what depends on the event before (`chain`) is a
loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ckptlog.model.entry import Commit, Entry
from ckptlog.model.event import CREATED, DELETED, FAILED, Event
from ckptlog.views.history import column
from ckptlog.views.history.chain import link
from ckptlog.views.history.fault import error_class
from ckptlog.views.history.instant import read_times
from ckptlog.views.history.past import Past
from ckptlog.views.history.raw_size import RawSizes

if TYPE_CHECKING:
    import pyarrow as pa

# Returns the wire of an event's `meta` payload; None where it cannot be had.
MetaOf = Callable[[Entry], bytes | None]
Columns = dict[str, "pa.Array"]
_facts = msgspec.json.Encoder(order="deterministic")


class Sheet:
    """Makes rows of commits, in order.

    Args:
        past: Facts of earlier events; the rows' own are added to it.
        raw_sizes: Reads sizes of chunks.
        meta_of: Asked for failed checkpoints only.

    Threads: one at a time.
    """

    def __init__(self, past: Past, raw_sizes: RawSizes, meta_of: MetaOf) -> None:
        self._past = past
        self._raw_sizes = raw_sizes
        self._meta_of = meta_of

    def rows(self, commits: Sequence[Commit]) -> pa.RecordBatch:
        """Return the rows of commits; they follow each other and what was made before."""
        import pyarrow as pa

        entries = [entry for commit in commits for entry in commit.entries]
        events = [entry.event for entry in entries]
        types = [event.type for event in events]
        columns: Columns = {
            "position": _integers([entry.position for entry in entries]),
            "commit": _integers([one.entries[0].position for one in commits for _ in one.entries]),
            "type": _texts(types),
            "error_class": _texts(self._errors(entries, types)),
        }
        columns |= _words(events)
        columns |= _numbers(events, columns)
        columns |= self._times(events, columns)
        columns |= self._sizes(commits, events, columns["type"])
        schema = column.schema()
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _times(self, events: Sequence[Event], columns: Columns) -> Columns:
        import pyarrow as pa
        import pyarrow.compute as pc

        types = columns["type"]
        times = read_times([event.time for event in events])
        created = read_times([event.created or None for event in events])
        created = pc.if_else(pc.equal(types, CREATED), times, created)
        states = _texts([event.state or None for event in events])
        states = pc.if_else(pc.equal(types, DELETED), None, states)
        numbers = times.cast(pa.int64())
        linked = link(self._past, columns["position"], columns["previous"], states, numbers)
        self._past.trim()
        age = pc.subtract(numbers, created.cast(pa.int64()))
        return {"time": times, "created": created, "age_us": age, **linked}

    def _sizes(
        self, commits: Sequence[Commit], events: Sequence[Event], types: pa.Array
    ) -> Columns:
        import pyarrow.compute as pc

        data = _integers([e.data.size if e.data is not None else None for e in events])
        meta = _integers([e.meta.size if e.meta is not None else None for e in events])
        stored = _integers([event.new for event in events])
        raw = _integers(self._raw_sizes.of(commits))
        # As model.event.saved_bytes.
        is_saved = pc.or_(pc.greater(stored, 0), pc.equal(types, CREATED))
        whole = pc.add(pc.fill_null(data, 0), pc.fill_null(meta, 0))
        logical = pc.if_else(is_saved, whole, 0)
        return {
            "data_bytes": data,
            "meta_bytes": meta,
            "logical_bytes": logical,
            "raw_bytes": raw,
            "stored_bytes": stored,
            "dedup_ratio": _ratio(logical, raw),
            "compression_ratio": _ratio(raw, stored),
        }

    def _errors(self, entries: Sequence[Entry], types: list[str]) -> list[str | None]:
        errors: list[str | None] = [None] * len(types)
        if FAILED in types:
            for index, kind in enumerate(types):
                if kind == FAILED:
                    wire = self._meta_of(entries[index])
                    errors[index] = None if wire is None else error_class(wire)
        return errors


def _words(events: Sequence[Event]) -> Columns:
    subjects = [event.subject for event in events]
    facts = [_facts.encode(event.facts).decode() if event.facts else None for event in events]
    return {
        "namespace": _texts([subject.namespace or None for subject in subjects]),
        "task": _texts([subject.task or None for subject in subjects]),
        "checkpoint": _texts([subject.checkpoint or None for subject in subjects]),
        "parent": _texts([subject.parent or None for subject in subjects]),
        "worker": _texts([subject.worker or None for subject in subjects]),
        "actor": _texts([event.actor for event in events]),
        "event_id": _texts([event.id for event in events]),
        "cause": _texts([event.cause or None for event in events]),
        "facts": _texts(facts),
    }


def _numbers(events: Sequence[Event], columns: Columns) -> Columns:
    import pyarrow.compute as pc

    origin = _natural(_integers([event.origin for event in events]))
    is_creation = pc.equal(columns["type"], CREATED)
    return {
        "origin": pc.if_else(is_creation, columns["position"], origin),
        "previous": _natural(_integers([event.previous for event in events])),
        "step": _integers([event.step or None for event in events]),
        "total_steps": _integers([event.total or None for event in events]),
        "sanitised": _integers([event.sanitised for event in events]),
    }


def _texts(values: Sequence[str | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())


def _integers(values: Sequence[int | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.int64())


def _natural(values: pa.Array) -> pa.Array:
    """Return integers, with null for the negative ones."""
    import pyarrow.compute as pc

    return pc.if_else(pc.less(values, 0), None, values)


def _ratio(whole: pa.Array, part: pa.Array) -> pa.Array:
    """Return whole to part; null where either is 0 or not known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    has_both = pc.and_(pc.greater(whole, 0), pc.greater(part, 0))
    real = pa.float64()
    return pc.divide(whole.cast(real), pc.if_else(has_both, part, None).cast(real))
