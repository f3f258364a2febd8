"""Owns a log written by hand, and the plain-dict model of what a view of it must say."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from ckptlog.model.entry import Commit, Entry
from ckptlog.model.event import (
    CLEANED,
    COMPLETED,
    CREATED,
    DELETED,
    FAILED,
    LEASE_CLAIMED,
    LEASE_RELEASED,
    RESTORED,
    TASK_DELETED,
    UPDATED,
    Event,
    Reference,
    Subject,
)
from ckptlog.model.lease import Grant
from ckptlog.views.current import CurrentView
from ckptlog.views.query import Filter
from ckptlog.views.row import Row

STORE = bytes(range(16))
OTHER_STORE = bytes(16)
BOOT = b"first boot id 16"
NEXT_BOOT = b"other boot id 16"
STATES = {UPDATED: "active", COMPLETED: "completed", FAILED: "failed", RESTORED: "restored"}
CONTAINER = "log/{:020d}.0.seg"
SEGMENT_EVENTS = 100


def instant(tick: int) -> str:
    """Return the time of a tick; 40 of them make an hour."""
    hours, rest = divmod(tick, 40)
    return f"2025-01-{1 + hours // 24:02d}T{hours % 24:02d}:{rest:02d}:00.{tick % 1000000:06d}Z"


def reference(wire: bytes) -> Reference:
    return Reference("leaf", hashlib.sha256(wire).hexdigest(), len(wire))


class Author:
    """Writes legal events, and remembers in the plainest way what they come to.

    Attributes:
        commits: The log.
        model: id -> the row that the view must have, deleted ones flagged.
        asked: Entries whose `meta` the view asked for.
    """

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.model: dict[str, Row] = {}
        self.commands: dict[str, int] = {}
        self.task_ends: dict[str, int] = {}
        self.leases: dict[str, Grant] = {}
        self.logical = 0
        self.new = 0
        self.asked: list[Entry] = []
        self.tick = 0
        self._metas: dict[str, bytes] = {}
        self._pending: list[Entry] = []
        self._offset = 100
        self._position = 0

    # --- writing ----------------------------------------------------------------------------

    @property
    def position(self) -> int:
        return self.commits[-1].position_next if self.commits else 0

    def commit(self) -> Commit:
        """End the commit that the last events belong to."""
        last = self._pending[-1]
        commit = Commit(
            tuple(self._pending),
            (),
            hashlib.sha256(b"%d" % last.position).digest(),
            last.container,
            last.offset + last.length,
        )
        self._pending = []
        self.commits.append(commit)
        return commit

    def create(
        self,
        task: str = "task",
        *,
        id: str | None = None,
        worker: str = "",
        parent: str = "",
        namespace: str = "",
        title: str | None = "a title",
        commit: bool = True,
    ) -> str:
        position = self._position
        name = f"cp_{task}_{position + 1}_{1700000000000000 + position}" if id is None else id
        subject = Subject(
            checkpoint=name, task=task, worker=worker, parent=parent, namespace=namespace
        )
        self._add(CREATED, subject, title=title, state="created", step=position + 1, total=7)
        if commit:
            self.commit()
        return name

    def change(
        self,
        id: str,
        type: str = UPDATED,
        *,
        title: str | None = None,
        worker: str | None = None,
        commit: bool = True,
    ) -> None:
        """Write a later event of a living checkpoint; None leaves a fact as it is."""
        row = self.model[id]
        subject = Subject(
            checkpoint=id,
            task=row.task,
            worker=row.worker if worker is None else worker,
            parent=row.parent,
            namespace=row.namespace,
        )
        if title is None and row.meta is not None:
            title = row.meta.decode()
        self._add(
            type,
            subject,
            title=title,
            state=STATES.get(type, row.state),
            step=row.step + 1,
            total=row.total,
            row=row,
        )
        if commit:
            self.commit()

    def delete(self, id: str, *, commit: bool = True) -> None:
        self.change(id, DELETED, commit=commit)

    def delete_task(self, task: str, *, commit: bool = True) -> None:
        self._add(TASK_DELETED, Subject(task=task))
        if commit:
            self.commit()

    def lease(self, task: str, kind: str = LEASE_CLAIMED, *, commit: bool = True) -> None:
        """Write that a task was leased, or that its lease was renewed or released."""
        token, tick = self._position, self.tick
        facts = {"expires": tick + 60, "holder": f"h{token % 3}", "token": token, "ttl": 60}
        self._add(kind, Subject(task=task), facts=facts)
        self.leases.pop(task, None)
        if kind != LEASE_RELEASED:
            self.leases[task] = Grant(task, token, str(facts["holder"]), tick + 60, 60)
        if commit:
            self.commit()

    def note(self, *, commit: bool = True) -> None:
        """Write an event that is not about a checkpoint."""
        self._add(CLEANED, Subject())
        if commit:
            self.commit()

    def _add(
        self,
        type: str,
        subject: Subject,
        *,
        title: str | None = None,
        row: Row | None = None,
        **facts: Any,
    ) -> None:
        position = self._position
        self._position += 1
        self.tick += 1
        has_payload = "state" in facts and type != DELETED
        data = reference(b"data %d" % position) if has_payload else None
        meta = None
        if title is not None and has_payload:
            meta = reference(title.encode())
            self._metas[meta.root] = title.encode()
        event = Event(
            actor="author",
            created="" if row is None else row.created,
            data=data,
            id=f"{position:032x}",
            meta=meta,
            new=position % 5,
            origin=-1 if row is None else row.origin,
            previous=-1 if row is None else row.position,
            sanitised=1,
            schema=1,
            subject=subject,
            time=instant(self.tick),
            type=type,
            **facts,
        )
        span = 10 * (position % 3)
        segment = position // SEGMENT_EVENTS * SEGMENT_EVENTS
        container = self._pending[0].container if self._pending else CONTAINER.format(segment)
        entry = Entry(event, position, container, self._offset + span, 50, span)
        self._offset += span + 50
        self._pending.append(entry)
        self._follow(entry, title if has_payload else None)

    # --- the model --------------------------------------------------------------------------

    def meta_of(self, entry: Entry) -> bytes | None:
        self.asked.append(entry)
        assert entry.event.meta is not None
        return self._metas[entry.event.meta.root]

    def _follow(self, entry: Entry, title: str | None) -> None:
        event = entry.event
        self.commands[event.id] = entry.position
        if event.new or event.type == CREATED:  # a change of state alone saves nothing
            for each in (event.data, event.meta):
                self.logical += each.size if each else 0
        self.new += event.new
        if event.type == TASK_DELETED:
            self.task_ends[event.subject.task] = entry.position
            self.leases.pop(event.subject.task, None)
            for name, row in self.model.items():
                if row.task == event.subject.task and not row.deleted:
                    self.model[name] = buried(row, entry)
        elif event.type == DELETED:
            name = event.subject.checkpoint
            self.model[name] = buried(self.model[name], entry)
        elif event.subject.checkpoint:
            self.model[event.subject.checkpoint] = self._row(entry, title)

    def _row(self, entry: Entry, title: str | None) -> Row:
        event, subject = entry.event, entry.event.subject
        assert event.data is not None
        return Row(
            id=subject.checkpoint,
            task=subject.task,
            namespace=subject.namespace,
            worker=subject.worker,
            parent=subject.parent,
            state=event.state,
            step=event.step,
            total=event.total,
            origin=entry.origin,
            created=entry.created,
            updated=event.time,
            position=entry.position,
            container=entry.container,
            offset=entry.offset,
            length=entry.length,
            span=entry.span,
            data_kind=event.data.kind,
            data_root=event.data.root,
            data_size=event.data.size,
            meta_kind=event.meta.kind if event.meta else "",
            meta_root=event.meta.root if event.meta else "",
            meta_size=event.meta.size if event.meta else 0,
            meta=None if title is None else title.encode(),
        )

    def living(self, wanted: Filter | None = None) -> list[Row]:
        """Return what a filter must find, oldest first."""
        rows = [row for row in self.model.values() if not row.deleted]
        found = [row for row in rows if wanted is None or matches(wanted, row)]
        return sorted(found, key=lambda row: row.origin)


def buried(row: Row, entry: Entry) -> Row:
    facts = msgspec.structs.asdict(row) | {
        "updated": entry.event.time,
        "position": entry.position,
        "container": entry.container,
        "offset": entry.offset,
        "length": entry.length,
        "span": entry.span,
        "data_kind": "",
        "data_root": "",
        "data_size": 0,
        "meta_kind": "",
        "meta_root": "",
        "meta_size": 0,
        "meta": None,
        "deleted": True,
        "previous": row.position,
    }
    return Row(**facts)


def matches(wanted: Filter, row: Row) -> bool:
    names = ("task", "worker", "state", "parent", "namespace")
    return (
        all(getattr(wanted, name) in (None, getattr(row, name)) for name in names)
        and (not wanted.states or row.state in wanted.states)
        and (wanted.created_since is None or row.created >= wanted.created_since)
        and (wanted.created_until is None or row.created < wanted.created_until)
        and (wanted.updated_before is None or row.updated < wanted.updated_before)
    )


def assert_agrees(view: CurrentView, author: Author, *, position: int | None = None) -> None:
    """Compare everything that a view says with the model; the view must be at the log's end."""
    end = author.commits[-1] if author.commits else None
    mark = view.mark
    assert mark.position == author.position
    if end is not None:
        assert (mark.leaf, mark.container, mark.offset) == (
            end.leaf,
            end.container,
            end.offset_end,
        )
    for name, row in author.model.items():
        assert view.row(name) == row
    assert view.select(Filter(), limit=10_000) == author.living()
    for task in {row.task for row in author.model.values()}:
        of_task = author.living(Filter(task=task))
        assert view.latest_of_task(task) == (of_task[-1] if of_task else None)
        assert view.task_deleted_at(task) == author.task_ends.get(task)
    assert {id: view.command(id) for id in author.commands} == author.commands
    assert view.leases() == author.leases
    assert_sums_agree(view, author)
    assert view.check() == []


def assert_sums_agree(view: CurrentView, author: Author) -> None:
    living = author.living()
    totals = view.totals()
    assert totals.checkpoints == len(living) == view.count(Filter())
    assert (totals.logical_bytes, totals.new_bytes) == (author.logical, author.new)
    assert totals.events == totals.sanitised == author.position
    states = [row.state for row in living]
    assert view.counts_by_state() == {state: states.count(state) for state in set(states)}
    tasks: dict[str, list[int]] = {}
    for row in living:
        tasks.setdefault(row.task, []).append(row.origin)
    assert view.tasks(limit=10_000) == [
        (task, len(origins), max(origins)) for task, origins in sorted(tasks.items())
    ]


def long_log(author: Author, events: int) -> None:
    """Write a log with a bit of everything."""
    living: list[str] = []
    number = 0
    while author.position < events:
        number += 1
        living.append(author.create(f"t{number % 11}", worker=f"w{number % 3}"))
        author.change(living[-1], UPDATED)
        author.change(living[number * 7 % len(living)], UPDATED, title=f"title {number % 5}")
        if number % 9 == 0:
            author.delete(living.pop(number % len(living)))
        if number % 6 == 0:
            author.lease(f"t{number % 11}", LEASE_RELEASED if number % 12 else LEASE_CLAIMED)
        if number % (50 if number < 5000 else 5000) == 0:
            author.delete_task("t3")
            living = [name for name in living if not author.model[name].deleted]
