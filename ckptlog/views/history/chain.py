"""What a row owes to the checkpoint's event before it: states, their durations, the lag.

Each event names the one before. Its state, since when, and its time come from `Past`, looked up
for a whole window at once; the rows' own go there for the rows after them. Only where a state
goes on (an update of an active checkpoint) does "since when" depend on a row of the same window;
those rows are visited one by one, in order.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptlog.views.history.instant import known, to_times
from ckptlog.views.history.past import NO_STATE, UNKNOWN_US, Fact, Past

if TYPE_CHECKING:
    import pyarrow as pa

_NOTHING = Fact(None, UNKNOWN_US, UNKNOWN_US)


def link(
    past: Past, position: pa.Array, previous: pa.Array, states: pa.Array, times: pa.Array
) -> dict[str, pa.Array]:
    """Return the columns that come of the events before, and add the rows' facts to the past.

    Args:
        position: Of the rows; they follow each other and what was added before.
        previous: Of the checkpoint's event before; null for none.
        states: After the event; null where there is none (any more).
        times: Microseconds from 1970; null where not known.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    codes = _codes(past, states)
    first = _add(past, codes, times)
    before = _Before(past, position, previous)
    has_state = pc.not_equal(before.codes, NO_STATE)
    is_same = pc.and_(has_state, pc.equal(before.codes, codes))
    for row in pc.indices_nonzero(is_same).to_pylist():
        past.since_us[first + row] = before.since_us(row)
    since = pa.array(past.since_us[first:], pa.int64())
    has_ended = pc.and_(has_state, pc.invert(is_same))
    return {
        "state_before": pc.take(pa.array(past.names, pa.string()), before.codes),
        "state_after": states,
        "state_since": to_times(pc.if_else(pc.equal(codes, NO_STATE), UNKNOWN_US, since)),
        "state_us": pc.if_else(has_ended, pc.subtract(times, known(before.since())), None),
        "lag_us": pc.subtract(times, known(before.times)),
    }


class _Before:
    """The facts of the events before a window's, from memory or from files.

    Attributes:
        codes: Of states; null where there is no event before.
        times: Of the events before.
    """

    def __init__(self, past: Past, position: pa.Array, previous: pa.Array) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._past = past
        is_near = pc.and_(pc.greater_equal(previous, past.base), pc.less(previous, position))
        self._near = pc.if_else(is_near, pc.subtract(previous, past.base), None)
        self._index = self._near.to_pylist()
        self._is_far = pc.fill_null(pc.less(previous, past.base), False)
        rows = pc.indices_nonzero(self._is_far)
        named = pc.take(previous, rows).to_pylist()
        found = past.far(named)
        self._far = [found.get(one, _NOTHING) for one in named]
        self._far_since_us = dict(
            zip(rows.to_pylist(), [f.since_us for f in self._far], strict=True)
        )
        self.codes = self._gather(
            past.states, pa.uint32(), [past.code(fact.state) for fact in self._far]
        )
        self.times = self._gather(past.times_us, pa.int64(), [fact.time_us for fact in self._far])

    def since_us(self, row: int) -> int:
        """Return since when the state before a row held."""
        index = self._index[row]
        return self._far_since_us[row] if index is None else int(self._past.since_us[index])

    def since(self) -> pa.Array:
        """Return the same of all rows, once those of the window are known."""
        import pyarrow as pa

        return self._gather(self._past.since_us, pa.int64(), list(self._far_since_us.values()))

    def _gather(self, column: array[int], kind: pa.DataType, far: Sequence[int]) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        # A look at the column's own memory; it must be gone before the column grows again.
        whole = pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)])
        found = pc.take(whole, self._near)
        if far:
            found = pc.replace_with_mask(found, self._is_far, pa.array(far, kind))
        return found


def _codes(past: Past, states: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = states.dictionary_encode()
    codes = pa.array([past.code(state) for state in encoded.dictionary.to_pylist()], pa.uint32())
    return pc.fill_null(pc.take(codes, encoded.indices), NO_STATE)


def _add(past: Past, codes: pa.Array, times: pa.Array) -> int:
    import pyarrow.compute as pc

    numbers = pc.fill_null(times, UNKNOWN_US)
    return past.add(_bytes(codes, 4), _bytes(numbers, 8))


def _bytes(values: pa.Array, width: int) -> pa.Buffer:
    start = values.offset * width
    return values.buffers()[1].slice(start, len(values) * width)
