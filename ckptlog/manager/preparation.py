"""From a caller's values to commands: sanitise, serialise, cut, and find what is stored already.

All of it happens before the lock, in the caller's thread. What it relies on (the checkpoint as it
was, a payload that holds shared chunks) goes into the command, and is checked again under the
lock; if it no longer holds, the caller prepares anew.

Reuse needs a witness: chunks are taken as stored only where the task's newest checkpoint, or the
checkpoint that changes, still holds them. There is no look-up in a global index of chunks, so
dead chunks stay dead and collection never races with a writer.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ckptlog.blobs.payload import Draft
from ckptlog.errors import ArgumentError, CheckpointError
from ckptlog.formats import chunk
from ckptlog.formats.frame import HEADER_BYTES
from ckptlog.log.batch import CHUNK_BYTES_IN_LOG_MAX
from ckptlog.model import value as values
from ckptlog.model.entry import Entry, Placement
from ckptlog.model.event import PackEntry, Reference
from ckptlog.policy.command import Payloads, Witness
from ckptlog.policy.sanitise import Sanitiser
from ckptlog.repository.store import Store

_NONE: frozenset[bytes] = frozenset()


class Texts(msgspec.Struct, frozen=True, gc=False):
    """What the `meta` payload holds."""

    title: str
    description: str
    metadata: dict[str, Any]


class Holder(msgspec.Struct, frozen=True, gc=False):
    """A checkpoint whose payloads hold chunks that a new payload may share: the witness to be.

    is_pending: Whether its payloads will be committed with the new one, in one batch.
    """

    checkpoint: str
    data: Reference | None
    meta: Reference | None
    is_pending: bool = False


class Content(msgspec.Struct, frozen=True, gc=False):
    """A prepared pair of payloads, on its way into a command and, once committed, the cache."""

    payloads: Payloads
    records: Sequence[bytes] = ()
    packs: tuple[PackEntry, ...] = ()
    placements: tuple[Placement, ...] = ()
    cacheable: tuple[tuple[bytes, Draft], ...] = ()


class Preparation:
    """Prepares payloads for one manager.

    Threads: safe.
    """

    def __init__(self, store: Store, sanitiser: Sanitiser, *, size_bytes_max: int) -> None:
        self._store = store
        self.sanitiser = sanitiser
        self._size_bytes_max = size_bytes_max
        self._serial = itertools.count()
        self._pid = -1
        self._nonce = ""

    def command_id(self) -> str:
        """Return a new command id; ids rise with time, so that their index stays compact."""
        environment = self._store.environment
        if self._pid != os.getpid():  # also after a fork: the parent goes on with the old one
            self._nonce = environment.random_bytes(3).hex()
            self._pid = os.getpid()
        now_us = environment.now_us()
        return f"{now_us:014x}{self._nonce}{next(self._serial) & 0xFFFF:04x}"

    def data(self, data: object) -> values.Prepared:
        """Return a checked, sanitised, serialised copy of a data dictionary."""
        return self._dictionary(data, "data")

    def meta(self, texts: Texts, *, is_clean: bool = False) -> values.Prepared:
        """Return the same of title, description and metadata.

        Args:
            is_clean: There is no secret in them that would have to be replaced.
        """
        for name, text in (("task_title", texts.title), ("step_description", texts.description)):
            if type(text) is not str:
                raise ArgumentError(
                    f"{name} is of type {type(text).__name__}; text (str) is needed.",
                    argument=name,
                )
        if type(texts.metadata) is not dict:
            raise _not_a_dictionary("metadata", texts.metadata)
        whole = {
            "title": texts.title,
            "description": texts.description,
            "metadata": texts.metadata,
        }
        return self._prepared(whole, "", is_clean=is_clean)

    def wire(self, value: dict[str, Any], path: str) -> bytes:
        """Return the bytes of a checked, sanitised value that is compared, not stored."""
        return self._prepared(value, path).wire

    def _dictionary(self, value: object, name: str) -> values.Prepared:
        if type(value) is not dict:
            raise _not_a_dictionary(name, value)
        return self._prepared(value, name)

    def _prepared(self, value: object, path: str, *, is_clean: bool = False) -> values.Prepared:
        sanitiser = None if is_clean else self.sanitiser
        return values.prepare(value, path=path, sanitiser=sanitiser, codecs=self._store.codecs)

    def content(
        self,
        data: values.Prepared | None,
        meta: values.Prepared | None,
        holder: Holder | None,
        *,
        kept_bytes: int = 0,
    ) -> Content:
        """Cut payloads into chunks and take those as stored that the holder has.

        Args:
            data, meta: None keeps what the checkpoint has.
            holder: The checkpoint whose payloads may hold chunks already.
            kept_bytes: Size of the payload that is kept, for the limit on the whole.
        """
        self._check_size(data, meta, kept_bytes)
        container = self._store.log.container
        content = self._cut(data, meta, holder, container)
        if content.payloads.new <= CHUNK_BYTES_IN_LOG_MAX:
            return content
        # A large commit puts its chunks into packs, durably, before an event names them; there
        # they are whole.
        if any(map(chunk.base_in, content.records)):
            content = self._cut(data, meta, holder, "")
        records = content.records
        fresh = [(record[: chunk.DIGEST_BYTES], record) for record in records]
        packs, placements = self._store.write_packs(fresh)
        self._store.blobs.packed(digest for digest, _ in fresh)
        return Content(content.payloads, [], packs, placements, content.cacheable)

    def _cut(
        self,
        data: values.Prepared | None,
        meta: values.Prepared | None,
        holder: Holder | None,
        container: str,
    ) -> Content:
        """Cut payloads into chunks for a container; "" where each must be whole."""
        fresh: list[tuple[bytes, bytes]] = []
        cacheable: list[tuple[bytes, Draft]] = []
        witnesses: list[Witness] = []
        split, known = self._store.blobs.split, _NONE
        is_pending = holder is not None and holder.is_pending
        for prepared, old, place in (
            (data, holder.data if holder else None, container),
            # Whole: a listing reads it, with nothing else.
            (meta, holder.meta if holder else None, ""),
        ):
            if prepared is None:
                continue
            known = _NONE if old is None else self._known(old)
            draft = split(prepared.wire, known, old, place, is_pending=is_pending)
            cacheable.append((prepared.wire, draft))
            fresh += draft.fresh
            if holder is not None and old is not None and len(draft.fresh) < len(draft.digests):
                witnesses.append(Witness(holder.checkpoint, old.root))
        records = [record for _, record in fresh]
        new = sum(map(len, records)) + HEADER_BYTES * len(records)
        payloads = Payloads(
            cacheable[0][1].reference if data is not None else None,
            cacheable[-1][1].reference if meta is not None else None,
            new,
            (data.sanitised_count if data is not None else 0)
            + (meta.sanitised_count if meta is not None else 0),
            tuple(witnesses),
        )
        return Content(payloads, records, cacheable=tuple(cacheable))

    def learn(self, content: Content) -> None:
        """Remember the chunks of what will be committed, so that the next payload can share them.

        Names of chunks are digests: should the commit fail, nobody can come to rely on what was
        not written.
        """
        for _, draft in content.cacheable:
            self._store.blobs.put_digests(draft.reference, draft.digests)
            self._store.blobs.remember(draft)

    def remember(self, content: Content) -> None:
        """Put what was committed into the cache, so that the next change need not read it."""
        for wire, draft in content.cacheable:
            self._store.blobs.put_cached(draft.reference, wire, draft.digests)
            self._store.blobs.remember(draft)

    def _known(self, reference: Reference) -> frozenset[bytes]:
        try:
            return self._store.blobs.digests(reference)
        except CheckpointError:
            # A damaged neighbour must not stop new work: its chunks are written fresh.
            return _NONE

    def _check_size(
        self, data: values.Prepared | None, meta: values.Prepared | None, kept_bytes: int
    ) -> None:
        # What alone is larger was planted (a capture, with limits of its own): it was accepted.
        kept_bytes = kept_bytes if kept_bytes <= self._size_bytes_max else 0
        size = kept_bytes + (len(data.wire) if data else 0) + (len(meta.wire) if meta else 0)
        if size > self._size_bytes_max:
            raise ArgumentError(
                f"data and metadata have {size / 1e6:.1f} MB together; the limit is "
                f"{self._size_bytes_max / 1e6:.1f} MB.",
                hint="Store less, or raise max_checkpoint_size_mb.",
                size_bytes=size,
                limit_bytes=self._size_bytes_max,
            )


def holder_of(entry: Entry | None) -> Holder | None:
    """Return an event's checkpoint as a holder of chunks."""
    if entry is None:
        return None
    event = entry.event
    return Holder(event.subject.checkpoint, event.data, event.meta)


def _not_a_dictionary(name: str, value: object) -> ArgumentError:
    return ArgumentError(
        f"{name} is of type {type(value).__name__}; a dictionary (dict) is needed.",
        hint=f"Wrap it: {name}={{'value': ...}}.",
        argument=name,
    )


def texts_of(meta: Mapping[str, Any] | None) -> Texts:
    """Return the parts of a decoded meta payload; empty ones where there is none."""
    meta = meta or {}
    return Texts(meta.get("title", ""), meta.get("description", ""), meta.get("metadata", {}))


def kept(holder: Holder, *, data: bool, meta: bool) -> int:
    """Return the bytes of the payloads that a change does not replace."""
    size = 0
    if not data and holder.data is not None:
        size += holder.data.size
    if not meta and holder.meta is not None:
        size += holder.meta.size
    return size
