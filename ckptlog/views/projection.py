"""Writes the outcome of a run of commits into the database, inside the caller's transaction.

Each statement's text is constant, so SQLite prepares it once, and each is executed for many rows
at once. An update rewrites only what changed: a column that stands in an index and stays as it
is must not be named in the statement, or SQLite would rewrite the index's page too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Final

from ckptlog.model.entry import Entry
from ckptlog.model.rank import rank_of
from ckptlog.views.entry import entries_of
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.fold import Fold
from ckptlog.views.key import id_key, time_of
from ckptlog.views.many import insert
from ckptlog.views.row import Row, decode_row, encode, row_of, tombstone_of
from ckptlog.views.schema import HOUR_CHARACTERS, create_task_index

_INSERT: Final = (
    "INSERT INTO checkpoint (origin, key, task, namespace, worker, parent, state, created, "
    "updated, hour, rank, body)"
)
_BURY: Final = "INSERT INTO tombstone (origin, key, body)"
_DELETE: Final = "DELETE FROM checkpoint WHERE origin = ?"
_COMMAND: Final = "INSERT OR IGNORE INTO command (id, position)"
_WAYPOINT: Final = 'INSERT INTO waypoint (position, container, "offset")'
_TASK_END: Final = (
    'INSERT INTO task_end (task, position, "count") VALUES (?, ?, ?) ON CONFLICT (task) DO UPDATE '
    'SET position = excluded.position, "count" = task_end."count" + excluded."count"'
)
_LEASE: Final = "REPLACE INTO lease (task, body) VALUES (?, ?)"
_DROP_LEASE: Final = "DELETE FROM lease WHERE task = ?"
_ENTRY: Final = "INSERT OR IGNORE INTO entry (name, value, origin)"
_DROP_ENTRY: Final = "DELETE FROM entry WHERE name = ? AND value = ? AND origin = ?"
_WAS_LOST: Final = "SELECT 1 FROM command WHERE id > ? AND id < ? AND id LIKE '% ' LIMIT 1"
_OF_TASK: Final = "SELECT body FROM checkpoint WHERE task = ?"

# (is the state new, is the hour) -> the statement that writes them.
_UPDATE: Final = {
    (False, False): "UPDATE checkpoint SET updated = ?, body = ? WHERE origin = ?",
    (True, False): "UPDATE checkpoint SET updated = ?, body = ?, state = ? WHERE origin = ?",
    (False, True): "UPDATE checkpoint SET updated = ?, body = ?, hour = ? WHERE origin = ?",
    (True, True): (
        "UPDATE checkpoint SET updated = ?, body = ?, state = ?, hour = ? WHERE origin = ?"
    ),
}
_UPDATE_SUBJECT: Final = (
    "UPDATE checkpoint SET updated = ?, body = ?, state = ?, hour = ?, "
    "task = ?, namespace = ?, worker = ?, parent = ?, rank = ? WHERE origin = ?"
)
# A look-up of many rows is padded to one of these numbers of parameters.
_LOOKUP_SIZES: Final = (1, 16, 256)

_origin = itemgetter(-1)

# A larger `meta` payload is left out of the view, which is read whole again and again; whoever
# needs it follows the root.
META_BYTES_MAX: Final = 65_536

MetaOf = Callable[[Entry], bytes | None]


def _meta(entry: Entry, meta_of: MetaOf) -> bytes | None:
    about = entry.event.meta
    if about is None or about.size > META_BYTES_MAX:
        return None
    return meta_of(entry)


class Projection:
    """What a fold means for the rows that the database has.

    Read, gather, write: the rows that are touched, what to make of them, all at once.

    Attributes:
        id_time_max: Greatest number that the id of a new or deleted checkpoint, if it begins
            `cp_`, ends in.
    """

    def __init__(self, connection: sqlite3.Connection, fold: Fold) -> None:
        """Read the rows that the fold touches.

        Raises:
            ViewDamagedError: A checkpoint that the log changes is not in the view.
        """
        self._connection = connection
        self._fold = fold
        self._inserts: list[tuple[object, ...]] = []
        self._updates: dict[str, list[tuple[object, ...]]] = {}
        self._deletes: list[tuple[int]] = []
        self._tombstones: list[tuple[object, ...]] = []
        self._entries: list[tuple[object, ...]] = []
        self._entries_gone: list[tuple[object, ...]] = []
        self.id_time_max = 0
        # Checkpoints whose creation was lost (specs/repair.md): the next event tells of them.
        self._orphans: set[int] = set()
        self._known = self._read_known()

    @property
    def born(self) -> int:
        """Checkpoints that are new and living."""
        return len(self._inserts)

    @property
    def dead(self) -> int:
        """Checkpoints that were living before."""
        return len(self._deletes)

    def _read_known(self) -> dict[int, Row]:
        fold = self._fold
        touched = [*fold.last, *(origin for origin in fold.ended if origin not in fold.last)]
        wanted = sorted(origin for origin in touched if origin not in fold.born)
        known = {row.origin: row for row in map(decode_row, self._select("checkpoint", wanted))}
        for origin in wanted:
            row, entry = known.get(origin), fold.last.get(origin) or fold.ended[origin]
            if row is not None and row.id != entry.event.subject.checkpoint:
                raise ViewDamagedError(f"The view has another checkpoint at {origin}.")
        self._refuse_unknown([origin for origin in wanted if origin not in known])
        if fold.tasks:
            create_task_index(self._connection)
        for task, entry in fold.tasks.items():
            for (body,) in self._connection.execute(_OF_TASK, (task,)).fetchall():
                row = decode_row(body)
                known[row.origin] = row
                fold.ended.setdefault(row.origin, entry)
        return known

    def _refuse_unknown(self, origins: Sequence[int]) -> None:
        buried = {decode_row(body).origin for body in self._select("tombstone", origins)}
        unknown = set(origins) - buried
        self._orphans = {origin for origin in unknown if self._was_lost(origin)}
        if strange := unknown - self._orphans:
            raise ViewDamagedError(
                f"The log changes the checkpoint created at {min(strange)}; the view has none "
                "there."
            )
        self._fold.born |= self._orphans & self._fold.last.keys()

    def _was_lost(self, origin: int) -> bool:
        """Say whether a tombstone stands at a position; its command id tells."""
        if origin in self._fold.lost:
            return True
        bounds = (f"lost-{origin}", f"lost-{origin}/")
        return self._connection.execute(_WAS_LOST, bounds).fetchone() is not None

    def _select(self, table: str, origins: Sequence[int]) -> Iterator[object]:
        start = 0
        while start < len(origins):
            rest = len(origins) - start
            size = next((size for size in _LOOKUP_SIZES if size >= rest), _LOOKUP_SIZES[-1])
            part = origins[start : start + size]
            start += size
            marks = ", ".join("?" * size)
            sql = f"SELECT body FROM {table} WHERE origin IN ({marks})"  # noqa: S608 - our words
            padded = [*part, *[part[-1]] * (size - len(part))]
            yield from (body for (body,) in self._connection.execute(sql, padded).fetchall())

    def gather(self, meta_of: MetaOf) -> None:
        """Work out what to write; `meta_of` is asked where a meta root is new."""
        fold = self._fold
        for origin, entry in fold.last.items():
            if origin in fold.ended:
                continue
            if origin in fold.born:
                self._insert(origin, entry, meta_of)
            elif (old := self._known.get(origin)) is not None:
                self._update(origin, old, entry, meta_of)
        for origin, entry in fold.ended.items():
            self._bury(origin, entry)

    def _insert(self, origin: int, entry: Entry, meta_of: MetaOf) -> None:
        row = row_of(entry, _meta(entry, meta_of))
        if row.origin != origin:
            raise ViewDamagedError(f"The creation at {origin} names another one.")
        self._inserts.append(
            (
                origin,
                self._key(row.id),
                row.task,
                row.namespace,
                row.worker,
                row.parent,
                row.state,
                row.created,
                row.updated,
                row.updated[:HOUR_CHARACTERS],
                _rank(row),
                encode(row),
            )
        )
        self._entries += [(*entry, origin) for entry in entries_of(row)]

    def _update(self, origin: int, old: Row, entry: Entry, meta_of: MetaOf) -> None:
        about = entry.event.meta
        is_same = about is not None and about.root == old.meta_root
        row = row_of(entry, old.meta if is_same else _meta(entry, meta_of))
        hour = row.updated[:HOUR_CHARACTERS]
        values: list[object] = [row.updated, encode(row)]
        subject = _subject(row)
        if row.meta_root != old.meta_root:
            before, after = entries_of(old), entries_of(row)
            self._entries += [(*entry, origin) for entry in after - before]
            self._entries_gone += [(*entry, origin) for entry in before - after]
        if subject != _subject(old):
            statement = _UPDATE_SUBJECT
            values += [row.state, hour, *subject]
        else:
            is_state_new = row.state != old.state
            is_hour_new = hour != old.updated[:HOUR_CHARACTERS]
            statement = _UPDATE[is_state_new, is_hour_new]
            values += [row.state] * is_state_new + [hour] * is_hour_new
        self._updates.setdefault(statement, []).append((*values, origin))

    def _bury(self, origin: int, entry: Entry) -> None:
        last = self._fold.last.get(origin)
        row = self._known.get(origin) if last is None else row_of(last, None)
        if last is None and origin in self._orphans:
            row = row_of(entry, None)
        elif origin not in self._fold.born:
            if origin not in self._known:  # a tombstone already: the first end counts
                return
            self._deletes.append((origin,))
            self._entries_gone += [(*entry, origin) for entry in entries_of(self._known[origin])]
        if row is not None:
            body = encode(tombstone_of(row, entry))
            self._tombstones.append((origin, self._key(row.id), body))

    def _key(self, identifier: str) -> int:
        key = id_key(identifier)
        time = time_of(identifier, key)
        self.id_time_max = max(self.id_time_max, time)
        return key

    def write(self, *, has_indexes: bool = True) -> None:
        """Write what was gathered.

        Args:
            has_indexes: Whether the table of checkpoints has its indexes at present.
        """
        many = self._connection.executemany
        fold = self._fold
        if self._deletes:
            many(_DELETE, self._deletes)
        if self._entries_gone:
            many(_DROP_ENTRY, self._entries_gone)
        insert(self._connection, _BURY, self._tombstones)
        for statement, values in self._updates.items():
            values.sort(key=_origin)  # pages in their order on the medium
            many(statement, values)
        # A row of many columns is dear by itself, and gains from company only without indexes.
        insert(self._connection, _INSERT, self._inserts, is_single=has_indexes)
        insert(self._connection, _ENTRY, self._entries)
        insert(self._connection, _COMMAND, fold.commands)
        insert(self._connection, _WAYPOINT, fold.waypoints)
        many(_TASK_END, [(*end, fold.task_deletions[end[0]]) for end in fold.task_ends.items()])
        if fold.leases:
            leases = fold.leases.items()
            many(_LEASE, [(task, encode(one)) for task, one in leases if one is not None])
            many(_DROP_LEASE, [(task,) for task, one in leases if one is None])


def _rank(row: Row) -> str:
    """Return the rank of a row's id; none without `meta`: such a checkpoint is not whole yet."""
    return rank_of(row.id) if row.meta_root else ""


def _subject(row: Row) -> tuple[str, str, str, str, str]:
    return row.task, row.namespace, row.worker, row.parent, _rank(row)
