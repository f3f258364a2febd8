"""Reads of the saver: one checkpoint, lists by LangGraph's ids and metadata, a channel's history.

A list is read in pages; nothing is held or locked between two of them, so whoever iterates may
call the saver, and what is deleted meanwhile is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ckptlog.errors import ArgumentError, FormatError
from ckptlog.integrations.langgraph.address import Address, Config, address_of, before_of
from ckptlog.integrations.langgraph.name import (
    checkpoint_of,
    is_cut,
    is_name_of,
    label_of,
    original_of,
    salt_of,
    task_of,
)
from ckptlog.integrations.langgraph.record import STEP, Wiring, Write
from ckptlog.model.entry import Entry
from ckptlog.model.event import Reference
from ckptlog.model.quotation import quoted
from ckptlog.model.rank import SALT_CHARACTERS, rank_of
from ckptlog.repository.store import Store
from ckptlog.views.entry import entry_of
from ckptlog.views.query import Ranked
from ckptlog.views.row import Row

_PAGE_ROWS: Final = 100
Records = dict[bytes, bytes]


class Named(NamedTuple):
    """What a row of the view stands for."""

    row: Row
    thread: str
    space: str
    metadata: dict[str, Any]

    @property
    def identifier(self) -> str:
        """The checkpoint's id, as LangGraph has it."""
        return rank_of(self.row.id)


class Found(NamedTuple):
    """A checkpoint as it was read. parent: LangGraph's id of it; None where there is none."""

    thread: str
    space: str
    identifier: str
    parent: str | None
    checkpoint: dict[str, Any]
    writes: list[Write]
    metadata: dict[str, Any]


class Question(NamedTuple):
    """What a list asks for; None means any."""

    thread: str | None = None
    space: str | None = None
    identifier: str | None = None
    before: str | None = None
    metadata: Mapping[Any, Any] = {}


class Reader:
    """Reads for one saver.

    Threads: safe.
    """

    def __init__(self, store: Store, wiring: Wiring) -> None:
        self._store = store
        self._wiring = wiring

    # --- one --------------------------------------------------------------------------------

    def get(self, address: Address) -> Found | None:
        """Return a checkpoint: the one that is named, or the greatest by id of its namespace.

        Raises:
            CheckpointCorruptionError: Its bytes are damaged.
        """
        if address.checkpoint is None:
            return self._latest(address)
        found = self._read(address, address.checkpoint)
        meta = None if found is None else found[0].event.meta
        if found is None or meta is None:
            return None
        entry, records = found
        wire = self._store.blobs.wire(meta, records)
        _, _, metadata = self._wiring.metadata(wire, entry.event.step)
        return self._found(entry, records, address.thread, address.space, metadata)

    def _read(self, address: Address, identifier: str) -> tuple[Entry, Records] | None:
        life = self._store.incarnation(task_of(address.thread))
        name = checkpoint_of(address.thread, address.space, life, identifier)
        found = self._store.read(name)
        if found is None:
            return None
        subject = found[0].event.subject
        # A salt is short enough to be another thread's too, by a chance of 2**-72.
        is_ours = (subject.task, subject.namespace) == (
            task_of(address.thread),
            label_of(address.space),
        )
        return found if is_ours else None

    def _latest(self, address: Address) -> Found | None:
        question = Question(address.thread, address.space)
        return next(self.found(question, limit=1), None)

    def _found(
        self, entry: Entry, records: Records, thread: str, space: str, metadata: dict[str, Any]
    ) -> Found | None:
        event = entry.event
        if event.data is None:
            return None
        data = self._store.blobs.wire(event.data, records)
        subject = event.subject
        parent = rank_of(subject.parent) or None
        identifier = rank_of(subject.checkpoint)
        checkpoint, writes = self._wiring.data(data, identifier)
        return Found(thread, space, identifier, parent, checkpoint, writes, metadata)

    # --- many -------------------------------------------------------------------------------

    def found(self, question: Question, limit: int | None = None) -> Iterator[Found]:
        """Yield the checkpoints that match, the greatest id first."""
        left = limit
        first = _PAGE_ROWS if limit is None else max(1, min(limit, _PAGE_ROWS))
        for named in self.named(question, first=first):
            if left is not None and left <= 0:
                return
            found = self._store.read_row(named.row)
            if found is None:
                continue
            whole = self._found(*found, named.thread, named.space, named.metadata)
            if whole is not None:
                left = None if left is None else left - 1
                yield whole

    def named(self, question: Question, *, first: int = _PAGE_ROWS) -> Iterator[Named]:
        """Yield the rows that match, the greatest id first; no data is read.

        Args:
            first: Rows of the first page: how many may well be enough.
        """
        wanted = _wanted(question)
        after, size = None, first
        while rows := self._store.ranked(wanted, after=after, limit=size):
            for row in rows:
                named = self._name(row)
                if named is not None and _matches(named, question):
                    yield named
            last = rows[-1]
            if len(rows) < size:
                return
            after, size = (rank_of(last.id), last.origin), _PAGE_ROWS

    def newest_of_task(self, task: str) -> Named | None:
        """Return the greatest checkpoint of a task that is a thread; None where it is none."""
        rows = self._store.ranked(Ranked(task=task), limit=1)
        return self._name(rows[0]) if rows else None

    def _name(self, row: Row) -> Named | None:
        """Return what a row stands for; None where it is no checkpoint of LangGraph's."""
        names = _names_of(row)
        if names is not None and not self._is_ours(row, *names):
            return None
        wire = row.meta
        if wire is None:
            wire = self._store.wire(Reference(row.meta_kind, row.meta_root, row.meta_size))
        title, text, metadata = self._wiring.metadata(wire, row.step)
        thread, space = names or (
            title if is_cut(row.task) else original_of(row.task),
            text if is_cut(row.namespace) else original_of(row.namespace),
        )
        if names is None and not self._is_ours(row, thread, space):
            return None
        return Named(row, thread, space, metadata)

    def _is_ours(self, row: Row, thread: str, space: str) -> bool:
        if not (is_name_of(row.task, thread) and is_name_of(row.namespace, space)):
            return False
        life = self._store.incarnation_known(row.task)
        return row.id[-SALT_CHARACTERS:] == salt_of(thread, space, life)

    # --- the history of channels ------------------------------------------------------------

    def ancestors(
        self, address: Address, channels: Sequence[str]
    ) -> Iterator[tuple[Entry, dict[str, Any], list[Write]]]:
        """Yield the ancestors of a checkpoint, the nearest first, with channels' values and writes.

        Raises:
            CheckpointCorruptionError: The bytes of one are damaged.
        """
        start = address.checkpoint or self._newest_id(address)
        found = None if start is None else self._read(address, start)
        seen: set[str] = set()
        while found is not None:
            parent = rank_of(found[0].event.subject.parent)
            if not parent or parent in seen:  # a put again under its own descendant: a ring
                return
            seen.add(parent)
            found = self._read(address, parent)
            if found is None or found[0].event.data is None:
                return
            entry, records = found
            wire = self._store.blobs.wire(found[0].event.data, records)
            yield (entry, *self._wiring.channels(wire, channels))

    def values(self, row: Row, channels: Sequence[str]) -> dict[str, Any]:
        """Return the values that a row's checkpoint has of channels."""
        wire = self._store.wire(Reference(row.data_kind, row.data_root, row.data_size))
        return self._wiring.channels(wire, channels)[0]

    def _newest_id(self, address: Address) -> str | None:
        named = next(self.named(Question(address.thread, address.space), first=1), None)
        return None if named is None else named.identifier


def question_of(
    config: Config | None, metadata: Mapping[str, Any] | None, before: Config | None
) -> Question:
    """Return what the arguments of a list ask for.

    Raises:
        ArgumentError: One of them is wrong.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ArgumentError(
            f"filter is {quoted(metadata)}; a dictionary (dict) is needed.", argument="filter"
        )
    last = before_of(before)
    if config is None:
        return Question(before=last, metadata=metadata or {})
    address = address_of(config)
    return Question(address.thread, address.namespace, address.checkpoint, last, metadata or {})


def check_limit(limit: object) -> int | None:
    """Return a limit as it is.

    Raises:
        ArgumentError: It is no whole number.
    """
    if limit is None or type(limit) is int:
        return limit
    raise ArgumentError(
        f"limit is {quoted(limit)}; a whole number or None is needed.", argument="limit"
    )


def _names_of(row: Row) -> tuple[str, str] | None:
    """Return thread and namespace of a row; None where its meta must tell."""
    if is_cut(row.task) or is_cut(row.namespace):
        return None
    try:
        return original_of(row.task), original_of(row.namespace)
    except FormatError:  # another program's task
        return "", ""


def _wanted(question: Question) -> Ranked:
    pairs = question.metadata.items()
    # A step is not in the index: it stands in the event.
    entries = [
        entry_of(name, value) for name, value in pairs if isinstance(name, str) and name != STEP
    ]
    return Ranked(
        task=None if question.thread is None else task_of(question.thread),
        namespace=None if question.space is None else label_of(question.space),
        rank=question.identifier,
        before=question.before,
        entries=tuple(entry for entry in entries if entry is not None),
    )


def _matches(named: Named, question: Question) -> bool:
    """Compare what an index has found with what was asked for."""
    identifier = named.identifier
    if question.identifier is not None and identifier != question.identifier:
        return False
    if question.before is not None and identifier >= question.before:
        return False
    metadata = named.metadata
    return all(metadata.get(name) == value for name, value in question.metadata.items())
