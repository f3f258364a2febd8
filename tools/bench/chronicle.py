"""A long log, written in seconds: legal events of many tasks over several days, with payloads.

Events go to the log below the manager, many to an append, so that a million of them cost half a
minute. A reader of the log cannot tell: links, places, payload roots and chunks are those that a
manager would write.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.payload import split
from ckptlog.formats.store import StoreInfo
from ckptlog.log.batch import Item
from ckptlog.log.log import Log
from ckptlog.model import event as kinds
from ckptlog.model import value as values
from ckptlog.model.event import SCHEMA, Event, Reference, Subject
from ckptlog.repository import layout
from ckptlog.storage.environment import Environment

TASKS = 1000
WORKERS = 50
_BEGIN = datetime(2026, 3, 1, 6, tzinfo=UTC)
_DAYS = 10
_OPEN_MAX = 2000
_GROUP_EVENTS = 1
_APPEND_GROUPS = 2000
_ERRORS = ("TimeoutError", "ValueError", "RateLimitError")
# Of a thousand changes of an open checkpoint, by what they become.
_TURNS = {kinds.UPDATED: 500, kinds.COMPLETED: 440, kinds.FAILED: 40, kinds.DELETED: 20}


class _Open(NamedTuple):
    """A living checkpoint, and where its last event stands."""

    event: Event
    origin: int
    position: int


class Chronicler:
    """Writes legal events, one after the other, from a seed."""

    def __init__(self, info: StoreInfo, events: int) -> None:
        self._random = random.Random(5)  # noqa: S311 - nothing here is a secret
        self._chunker, self._codec = Chunker(info.chunker), Codec(1)
        self._step = timedelta(days=_DAYS) / events
        self._position = 0
        self._open: list[_Open] = []
        self._failed: list[_Open] = []

    def items(self, events: int) -> Iterator[Item]:
        """Yield the next events with the chunk records that came with them."""
        while self._position < events:
            if self._failed and self._random.random() < 0.02:
                yield self._change(self._take(self._failed), kinds.RESTORED)
            elif len(self._open) < 10 or self._random.random() < 0.3:
                yield self._create()
            else:
                (kind,) = self._random.choices([*_TURNS], [*_TURNS.values()])
                yield self._change(self._take(self._open), kind)

    def _take(self, checkpoints: list[_Open]) -> _Open:
        # Mostly recent ones; some wait for long.
        index = len(checkpoints) - 1 - int(self._random.expovariate(0.02))
        return checkpoints.pop(max(0, index))

    def _create(self) -> Item:
        number = self._random.randrange(TASKS)
        step = self._random.randint(1, 40)
        name = f"cp_task-{number}_{step}_{1_772_000_000_000_000 + self._position}"
        records: list[bytes] = []
        payloads = {
            "data": self._payload({"step": step, "note": self._text(60)}, records),
            "meta": self._payload(self._texts(number, {}), records),
        }
        worker = f"worker-{self._random.randrange(WORKERS)}"
        subject = Subject(checkpoint=name, task=f"task-{number}", worker=worker)
        return self._event(kinds.CREATED, None, records, subject=subject, state="created",
                           step=step, total=40, **payloads)  # fmt: skip

    def _change(self, before: _Open, kind: str) -> Item:
        event = before.event
        records: list[bytes] = []
        changed: dict[str, Any] = {"data": event.data, "meta": event.meta}
        state = {kinds.UPDATED: "active", kinds.DELETED: event.state}.get(kind, kind[11:])
        if kind == kinds.UPDATED:
            changed["data"] = self._payload({"note": self._text(30)}, records)
        elif kind == kinds.FAILED:
            info = {"type": self._random.choice(_ERRORS), "message": self._text(5)}
            number = int(event.subject.task[5:])
            changed["meta"] = self._payload(self._texts(number, {"error_info": info}), records)
        elif kind == kinds.DELETED:
            changed = {}
        return self._event(kind, before, records, subject=event.subject, state=state,
                           step=event.step, total=event.total, **changed)  # fmt: skip

    def _texts(self, number: int, metadata: dict[str, Any]) -> dict[str, Any]:
        title = f"Task number {number}"
        return {"title": title, "description": self._text(4), "metadata": metadata}

    def _text(self, words: int) -> str:
        return " ".join(f"{self._random.getrandbits(20):x}" for _ in range(words))

    def _payload(self, value: dict[str, Any], records: list[bytes]) -> Reference:
        draft = split(values.prepare(value, path="").wire, self._chunker, self._codec)
        records += [record for _, record in draft.fresh]
        return draft.reference

    def _event(self, kind: str, before: _Open | None, records: list[bytes], **facts: Any) -> Item:
        position = self._position
        self._position += 1
        time = _BEGIN + self._step * position
        event = Event(
            actor="bench@bench",
            created="" if before is None else (before.event.created or before.event.time),
            id=f"{position:028x}",
            new=sum(len(record) + 16 for record in records),
            origin=-1 if before is None else before.origin,
            previous=-1 if before is None else before.position,
            schema=SCHEMA,
            time=time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            type=kind,
            **facts,
        )
        now = _Open(event, position if before is None else before.origin, position)
        if kind in {kinds.CREATED, kinds.UPDATED, kinds.RESTORED}:
            self._open.append(now)
            if len(self._open) > _OPEN_MAX:
                self._open.pop(self._random.randrange(len(self._open)))
        elif kind == kinds.FAILED:
            self._failed.append(now)
        return Item(event, records)


def write(root: Path, events: int) -> None:
    """Make a store whose log has this many events."""
    environment = Environment()
    layout.create(root, environment)
    info = layout.read_info(root)
    log = Log(root, info.id_bytes, environment)
    items = Chronicler(info, events).items(events)
    groups: list[list[Item]] = [[]]
    for item in items:
        if len(groups[-1]) == _GROUP_EVENTS:
            if len(groups) == _APPEND_GROUPS:
                _append(log, groups)
                groups = [[]]
            else:
                groups.append([])
        groups[-1].append(item)
    _append(log, groups)
    log.close()


def _append(log: Log, groups: list[list[Item]]) -> None:
    end = log.published.read()
    log.append([group for group in groups if group], end.position if end else 0)
