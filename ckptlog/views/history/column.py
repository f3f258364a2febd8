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
SCHEMA: Final = 1
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


COLUMNS: Final = (
    Column("position", INTEGER, "", "place of the event in the log, from 0", True, False),
    Column("commit", INTEGER, "", "position of the first event of its commit", True, False),
    Column("time", TIME, "UTC", "when it was committed, by the writer's clock", False, False),
    Column("type", TEXT, "", "what happened: `checkpoint.created`, `task.deleted`, ...", True),
    Column("namespace", TEXT, "", "of the checkpoint"),
    Column("task", TEXT, "", "that the event is about"),
    Column("checkpoint", TEXT, "", "that the event is about"),
    Column("parent", TEXT, "", "parent checkpoint"),
    Column("worker", TEXT, "", "that the checkpoint is assigned to"),
    Column("actor", TEXT, "", "who did it", True),
    Column("event_id", TEXT, "", "id of the command; unique", True, False),
    Column("cause", TEXT, "", "event_id of what made this happen (a clean-up)"),
    Column("facts", TEXT, "JSON", "numbers of an event that is not about one checkpoint"),
    Column("origin", INTEGER, "", "position of the checkpoint's creation", False, False),
    Column("previous", INTEGER, "", "position of the checkpoint's event before", False, False),
    Column("created", TIME, "UTC", "time of the checkpoint's creation", False, False),
    Column("state_before", TEXT, "", "state before the event; null for a creation"),
    Column("state_after", TEXT, "", "state after the event; null after a deletion"),
    Column("state_since", TIME, "UTC", "since when it is in `state_after`", False, False),
    Column("state_us", INTEGER, "us", "time in `state_before`, where this event ended it", False, False),
    Column("lag_us", INTEGER, "us", "time since the checkpoint's event before", False, False),
    Column("age_us", INTEGER, "us", "time since the checkpoint's creation", False, False),
    Column("step", INTEGER, "steps", "step number, from 1"),
    Column("total_steps", INTEGER, "steps", "total, where it is known"),
    Column("data_bytes", INTEGER, "bytes", "size of the whole `data` after the event", False, False),
    Column("meta_bytes", INTEGER, "bytes", "size of title, description and metadata", False, False),
    Column("logical_bytes", INTEGER, "bytes", "what a whole copy would take, where one was saved", True, False),
    Column("raw_bytes", INTEGER, "bytes", "of it new in the store, before compression", False, False),
    Column("stored_bytes", INTEGER, "bytes", "what the event added to the store", True, False),
    Column("dedup_ratio", REAL, "ratio", "`logical_bytes` to `raw_bytes`", False, False),
    Column("compression_ratio", REAL, "ratio", "`raw_bytes` to `stored_bytes`", False, False),
    Column("sanitised", INTEGER, "secrets", "replaced in its payloads", True),
    Column("error_class", TEXT, "", "class of the error that a checkpoint failed with"),
)  # fmt: skip


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
