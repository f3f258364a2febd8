"""Owns real logs written event by event, and the plain model of what their history must say.

The model follows checkpoints by their ids, in dicts, one event after the other; the code under
test follows positions that events name, in columns. They share nothing but the events.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.payload import split
from ckptlog.formats import chunk
from ckptlog.log.batch import Item
from ckptlog.log.bulk import BulkReader
from ckptlog.log.log import Log
from ckptlog.model import value as values
from ckptlog.model.event import (
    CLEANED,
    COMPLETED,
    CREATED,
    DELETED,
    FAILED,
    RESTORED,
    TASK_DELETED,
    UPDATED,
    Event,
    Reference,
    Subject,
)
from ckptlog.repository import layout
from ckptlog.storage.environment import Environment
from ckptlog.views.history.view import HistoryView, Source

BEGIN = datetime(2026, 1, 30, 22, tzinfo=UTC)
STATES = {UPDATED: "active", COMPLETED: "completed", FAILED: "failed", RESTORED: "restored"}
ERRORS = (None, "ValueError", "requests.exceptions.ReadTimeout", "some words of a user")
US = timedelta(microseconds=1)


class Scribe:
    """Writes a store's log; `rows` is the model of its history.

    Attributes:
        facts: What is known of each living checkpoint: state, since when, last time and position.
    """

    def __init__(self, root: Path, *, segment_bytes: int = 20_000) -> None:
        self.root = root
        environment = Environment()
        layout.create(root, environment)
        self.info = layout.read_info(root)
        self.log = Log(root, self.info.id_bytes, environment, segment_bytes=segment_bytes)
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self.time = BEGIN
        self.metas: dict[str, bytes] = {}
        self._group: list[Item] = []
        self._first = 0
        self._tools = Chunker(self.info.chunker), Codec(1)

    def close(self) -> None:
        self.log.close()

    @property
    def position(self) -> int:
        return len(self.rows)

    def source(self) -> Source:
        log, info = self.log, self.info
        bulk = BulkReader(log.segments, info.id_bytes)
        return Source(self.root, info.id, log.reader, bulk, log.published, self.wire_of)

    def view(self, folder: Path | None = None, **options: Any) -> HistoryView:
        return HistoryView(folder or self.root / "views" / "history", self.source(), **options)

    def wire_of(self, reference: Reference) -> bytes | None:
        assert b"error_info" in self.metas[reference.root]  # nobody else is asked for
        return self.metas[reference.root]

    # --- writing ----------------------------------------------------------------------------

    def commit(self) -> None:
        if self._group:
            self.log.append([self._group], self._first)
            self._group, self._first = [], self.position

    def tick(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def create(self, task: str = "t", *, size: int = 40, worker: str = "", parent: str = "") -> str:
        name = f"cp-{self.position}"
        subject = Subject(checkpoint=name, task=task, worker=worker, parent=parent)
        self._add(CREATED, subject, state="created", step=1, total=3, data=size, meta={})
        return name

    def change(
        self, name: str, kind: str = UPDATED, *, size: int | None = None, error: Any = None
    ) -> None:
        known = self.facts[name]
        meta = {"error_info": {"type": error}} if kind == FAILED else None
        self._add(
            kind,
            known["subject"],
            state=STATES[kind],
            step=2,
            total=3,
            data=size,
            meta=meta,
            name=name,
        )

    def delete(self, name: str) -> None:
        known = self.facts[name]
        self._add(DELETED, known["subject"], state=known["state"], step=2, name=name)

    def delete_task(self, task: str) -> None:
        self._add(TASK_DELETED, Subject(task=task), facts={"checkpoints": 1})

    def note(self) -> None:
        self._add(CLEANED, Subject(), facts={"deleted": 0, "why": "none"}, cause="")

    def _add(self, kind: str, subject: Subject, *, data: int | None = None, meta: Any = None,
             name: str = "", **fields: Any) -> None:  # fmt: skip
        position = self.position
        known = self.facts.get(name, {})
        records: list[bytes] = []
        roots = {"data": known.get("data"), "meta": known.get("meta")}
        if kind == DELETED:
            roots = {}
        if data is not None:
            roots["data"] = self._payload({"n": position, "text": "x" * data}, records)
        if meta is not None:
            whole = {"title": "user's title", "description": "", "metadata": meta}
            roots["meta"] = self._payload(whole, records)
        event = Event(
            actor="scribe",
            created=known.get("created", ""),
            id=f"id-{position}",
            new=sum(map(len, records)),
            origin=known.get("origin", -1),
            previous=known.get("position", -1),
            sanitised=position % 2,
            schema=1,
            subject=subject,
            time=self.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            type=kind,
            **roots,
            **fields,
        )
        self._group.append(Item(event, records))
        self._model(position, event, known, records)

    def _payload(self, value: Any, records: list[bytes]) -> Reference:
        wire = values.prepare(value, path="").wire
        draft = split(wire, *self._tools)
        records += [record for _, record in draft.fresh]
        self.metas[draft.reference.root] = wire
        return draft.reference

    # --- the model --------------------------------------------------------------------------

    def _model(
        self, position: int, event: Event, known: dict[str, Any], records: list[bytes]
    ) -> None:
        subject, now = event.subject, self.time
        is_gone = event.type == DELETED
        after = None if is_gone else event.state or None
        before = known.get("state")
        is_over = before is not None and before != after
        raw = sum(chunk.decode(record).raw_length for record in records)
        sizes = [one.size for one in (event.data, event.meta) if one is not None]
        logical = sum(sizes) if records or event.type == CREATED else 0
        since = known["since"] if before is not None and not is_over else now if after else None
        row = {
            "position": position,
            "commit": self._first,
            "time": now,
            "type": event.type,
            "namespace": None,
            "task": subject.task or None,
            "checkpoint": subject.checkpoint or None,
            "parent": subject.parent or None,
            "worker": subject.worker or None,
            "actor": "scribe",
            "event_id": event.id,
            "cause": None,
            "facts": _facts(event),
            "origin": known.get("origin", position if event.type == CREATED else None),
            "previous": known.get("position"),
            "created": known.get("begun", now if event.type == CREATED else None),
            "state_before": before,
            "state_after": after,
            "state_since": since,
            "state_us": (now - known["since"]) // US if is_over else None,
            "lag_us": (now - known["time"]) // US if known else None,
            "age_us": None,
            "step": event.step or None,
            "total_steps": event.total or None,
            "data_bytes": event.data.size if event.data else None,
            "meta_bytes": event.meta.size if event.meta else None,
            "logical_bytes": logical,
            "raw_bytes": raw,
            "stored_bytes": event.new,
            "dedup_ratio": logical / raw if logical and raw else None,
            "compression_ratio": raw / event.new if raw and event.new else None,
            "sanitised": event.sanitised,
            "error_class": self._error(event),
            "date": now.date(),
        }
        if row["created"] is not None:
            row["age_us"] = (now - row["created"]) // US
        self.rows.append(row)
        self._remember(position, event, row)

    def _remember(self, position: int, event: Event, row: dict[str, Any]) -> None:
        name = event.subject.checkpoint
        if event.type == TASK_DELETED:
            of_task = [
                key for key, one in self.facts.items() if one["subject"].task == event.subject.task
            ]
            for key in of_task:
                del self.facts[key]
        elif event.type == DELETED:
            del self.facts[name]
        elif name:
            old = self.facts.get(name, {})
            self.facts[name] = {
                "subject": event.subject,
                "state": event.state,
                "since": row["state_since"],
                "time": self.time,
                "position": position,
                "origin": row["origin"],
                "created": old.get("created", event.time),
                "begun": row["created"],
                "data": event.data,
                "meta": event.meta,
            }

    def _error(self, event: Event) -> str | None:
        if event.type != FAILED or event.meta is None:
            return None
        told = values.decode(self.metas[event.meta.root])["metadata"]["error_info"]["type"]
        return {"ValueError": "ValueError", "requests.exceptions.ReadTimeout": "ReadTimeout"}.get(
            told
        )


def _facts(event: Event) -> str | None:
    pairs = (
        f'"{k}":{v}' if type(v) is int else f'"{k}":"{v}"' for k, v in sorted(event.facts.items())
    )
    return f"{{{','.join(pairs)}}}" if event.facts else None


# --- random logs ----------------------------------------------------------------------------

ACTS = st.tuples(
    st.sampled_from(
        ["create"] * 5
        + ["update"] * 5
        + ["complete", "complete", "fail", "restore", "delete", "end", "note"]
    ),
    st.integers(0, 10**6),
    # Mostly forwards, within a day; sometimes over midnight, sometimes back.
    st.sampled_from([0, 0.000001, 1, 1, 30, 3600, 50_000, -0.5, -40_000]),
    st.booleans(),
)


def play(scribe: Scribe, acts: list[tuple[str, int, float, bool]]) -> None:
    """Do acts as far as they are legal."""
    for act, number, seconds, is_end in acts:
        scribe.tick(seconds)
        names = list(scribe.facts)
        legal = [name for name in names if _is_legal(act, scribe.facts[name]["state"])]
        if act == "create" or not legal:
            scribe.create(
                f"t{number % 3}", worker=f"w{number % 2}" if number % 5 else "", size=number % 90
            )
        elif act == "note":
            scribe.note()
        elif act == "end":
            scribe.delete_task(f"t{number % 3}")
        else:
            name = legal[number % len(legal)]
            kinds = {"update": UPDATED, "complete": COMPLETED, "fail": FAILED, "restore": RESTORED}
            if act == "delete":
                scribe.delete(name)
            else:
                size = None if number % 3 else (9_000 if number % 11 == 0 else 60)
                scribe.change(name, kinds[act], size=size, error=ERRORS[number % len(ERRORS)])
        if is_end:
            scribe.commit()
    scribe.commit()


def _is_legal(act: str, state: str) -> bool:
    if act in {"delete", "end", "note"}:
        return True
    return act == "restore" or state not in {"completed", "failed"}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a history by its name, the manifest too."""
    found = {
        str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()
    }
    found["manifest"] = folder.with_name(f"{folder.name}.json").read_bytes()
    assert not folder.with_name(f"{folder.name}.tmp").exists()
    return found
