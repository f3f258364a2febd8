"""The columns of the history: names, types, units, meanings. specs/history.md shows this table.

Text that a user wrote (titles, data, error messages) never becomes a column; ids, numbers and
times do. What an event does not have is null, never 0 or "".
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

# Counted up whenever a row of an old log would come out different: then files are made anew.
SCHEMA: Final = 2
PARTITION: Final = "date"

INTEGER: Final = "int64"
TEXT: Final = "string"
TIME: Final = "timestamp[us, UTC]"
REAL: Final = "double"


class Column(NamedTuple):
    """One column.

    kind: `int64`, `string`, `timestamp[us, UTC]` or `double`.
    unit: Of its values; empty for names and plain positions.
    is_always: Whether every row has a value.
    is_repetitive: Whether its values come again and again: then a dictionary of them is stored.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    is_always: bool = False
    is_repetitive: bool = True

    @property
    def encoding(self) -> str:
        """How a Parquet page holds values that do not repeat; most rise slowly."""
        return {TEXT: "DELTA_BYTE_ARRAY", REAL: "PLAIN"}.get(self.kind, "DELTA_BINARY_PACKED")


def _word(name: str, meaning: str, *, is_always: bool = False, unit: str = "") -> Column:
    return Column(name, TEXT, unit, meaning, is_always)


def _time(name: str, meaning: str) -> Column:
    return Column(name, TIME, "UTC", meaning, is_repetitive=False)


def _number(name: str, unit: str, meaning: str, *, is_always: bool = False) -> Column:
    return Column(name, INTEGER, unit, meaning, is_always, is_repetitive=False)


def _ratio(name: str, meaning: str) -> Column:
    return Column(name, REAL, "ratio", meaning, is_repetitive=False)


COLUMNS: Final = (
    _number("position", "", "place of the event in the log, from 0", is_always=True),
    _number("commit", "", "position of the first event of its commit", is_always=True),
    _time("time", "when it was committed, by the writer's clock"),
    _word("type", "what happened: `checkpoint.created`, `task.deleted`, ...", is_always=True),
    _word("namespace", "of the checkpoint"),
    _word("task", "that the event is about"),
    _word("checkpoint", "that the event is about"),
    _word("parent", "parent of the checkpoint"),
    _word("worker", "that the checkpoint is assigned to"),
    _word("actor", "who did it", is_always=True),
    Column("event_id", TEXT, "", "id of the command; unique", is_always=True, is_repetitive=False),
    _word("cause", "`event_id` of what made this happen (a clean-up)"),
    _word("facts", "numbers of an event that is not about one checkpoint", unit="JSON"),
    _number("origin", "", "position of the checkpoint's creation"),
    _number("previous", "", "position of the checkpoint's event before"),
    _time("created", "time of the checkpoint's creation"),
    _word("state_before", "state before the event; null for a creation"),
    _word("state_after", "state after the event; null after a deletion"),
    _time("state_since", "since when the checkpoint is in `state_after`"),
    _number("state_us", "us", "time that it was in `state_before`, where this event ended it"),
    _number("lag_us", "us", "time since the checkpoint's event before"),
    _number("age_us", "us", "time since the checkpoint's creation"),
    Column("step", INTEGER, "steps", "step number, from 1"),
    Column("total_steps", INTEGER, "steps", "their number, where it is known"),
    _number("data_bytes", "bytes", "size of the whole `data` after the event"),
    _number("meta_bytes", "bytes", "size of title, description and metadata after the event"),
    _number(
        "logical_bytes", "bytes", "what a whole copy would take; 0: none saved", is_always=True
    ),
    _number("raw_bytes", "bytes", "what of it was new to the store, before compression"),
    _number("stored_bytes", "bytes", "what the event added to the store for it", is_always=True),
    _ratio("dedup_ratio", "`logical_bytes` to `raw_bytes`"),
    _ratio("compression_ratio", "`raw_bytes` to `stored_bytes`"),
    Column("sanitised", INTEGER, "secrets", "replaced in its payloads", is_always=True),
    _word("error_class", "class of the error that a checkpoint failed with"),
)


@cache
def schema() -> pa.Schema:
    """Return the schema of the files; the partition's column stands in their folders' names."""
    import pyarrow as pa

    kinds = {
        INTEGER: pa.int64(),
        TEXT: pa.string(),
        TIME: pa.timestamp("us", "UTC"),
        REAL: pa.float64(),
    }
    return pa.schema(
        [pa.field(one.name, kinds[one.kind], nullable=not one.is_always) for one in COLUMNS]
    )


@cache
def dataset_schema() -> pa.Schema:
    """Return the schema of the whole, with the partition's column."""
    import pyarrow as pa

    return schema().append(pa.field(PARTITION, pa.date32()))
