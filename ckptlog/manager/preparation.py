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
from ckptlog.formats.frame import HEADER_BYTES
from ckptlog.log.batch import CHUNK_BYTES_IN_LOG_MAX
from ckptlog.model import value as values
from ckptlog.model.entry import Entry, Placement
from ckptlog.model.event import Event, PackEntry, Reference
from ckptlog.policy.command import Payloads, Witness
from ckptlog.policy.sanitise import Sanitiser
from ckptlog.repository.store import Store

_NONE: frozenset[bytes] = frozenset()


class Texts(msgspec.Struct, frozen=True, gc=False):
    """What the `meta` payload holds."""

    title: str
    description: str
    metadata: dict[str, Any]


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
        self._sanitiser = sanitiser
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

    def meta(self, texts: Texts) -> values.Prepared:
        """Return the same of title, description and metadata."""
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
        return values.prepare(whole, path="", sanitiser=self._sanitiser)

    def wire(self, value: dict[str, Any], path: str) -> bytes:
        """Return the bytes of a checked, sanitised value that is compared, not stored."""
        return values.prepare(value, path=path, sanitiser=self._sanitiser).wire

    def _dictionary(self, value: object, name: str) -> values.Prepared:
        if type(value) is not dict:
            raise _not_a_dictionary(name, value)
        return values.prepare(value, path=name, sanitiser=self._sanitiser)

    def content(
        self,
        data: values.Prepared | None,
        meta: values.Prepared | None,
        witness: Entry | None,
        *,
        kept_bytes: int = 0,
    ) -> Content:
        """Cut payloads into chunks and take those as stored that the witness holds.

        Args:
            data, meta: None keeps what the checkpoint has.
            witness: The newest event of the checkpoint whose payloads may hold chunks already.
            kept_bytes: Size of the payload that is kept, for the limit on the whole.
        """
        self._check_size(data, meta, kept_bytes)
        old_data, old_meta = _old_roots(witness)
        data_draft = None if data is None else self._split(data.wire, old_data)
        meta_draft = None if meta is None else self._split(meta.wire, old_meta)
        drafts = [draft for draft in (data_draft, meta_draft) if draft is not None]
        fresh = [chunk for draft in drafts for chunk in draft.fresh]
        records = [record for _, record in fresh]
        new = sum(map(len, records)) + HEADER_BYTES * len(records)
        payloads = Payloads(
            data_draft.reference if data_draft else None,
            meta_draft.reference if meta_draft else None,
            new,
            (data.sanitised_count if data else 0) + (meta.sanitised_count if meta else 0),
            _witnesses(witness, (data_draft, old_data), (meta_draft, old_meta)),
        )
        wires = [prepared.wire for prepared in (data, meta) if prepared is not None]
        cacheable = tuple(zip(wires, drafts, strict=True))
        if new <= CHUNK_BYTES_IN_LOG_MAX:
            return Content(payloads, records, cacheable=cacheable)
        # A large commit puts its chunks into packs, durably, before an event names them.
        packs, placements = self._store.write_packs(fresh)
        return Content(payloads, [], packs, placements, cacheable)

    def _split(self, wire: bytes, old: Reference | None) -> Draft:
        return self._store.blobs.split(wire, known=_NONE if old is None else self._known(old))

    def remember(self, content: Content) -> None:
        """Put what was committed into the cache, so that the next change need not read it."""
        for wire, draft in content.cacheable:
            self._store.blobs.put_cached(draft.reference, wire, draft.digests)

    def _known(self, reference: Reference) -> frozenset[bytes]:
        try:
            return self._store.blobs.digests(reference)
        except CheckpointError:
            # A damaged neighbour must not stop new work: its chunks are written fresh.
            return _NONE

    def _check_size(
        self, data: values.Prepared | None, meta: values.Prepared | None, kept_bytes: int
    ) -> None:
        size = kept_bytes + (len(data.wire) if data else 0) + (len(meta.wire) if meta else 0)
        if size > self._size_bytes_max:
            raise ArgumentError(
                f"data and metadata have {size / 1e6:.1f} MB together; the limit is "
                f"{self._size_bytes_max / 1e6:.1f} MB.",
                hint="Store less, or raise max_checkpoint_size_mb.",
                size_bytes=size,
                limit_bytes=self._size_bytes_max,
            )


def _witnesses(
    witness: Entry | None, *pairs: tuple[Draft | None, Reference | None]
) -> tuple[Witness, ...]:
    """Return what a commit relies on: the old roots that hold chunks of the new ones."""
    if witness is None:
        return ()
    return tuple(
        Witness(witness.event.subject.checkpoint, old.root)
        for draft, old in pairs
        if draft is not None and old is not None and len(draft.fresh) < len(draft.digests)
    )


def _old_roots(witness: Entry | None) -> tuple[Reference | None, Reference | None]:
    if witness is None:
        return None, None
    return witness.event.data, witness.event.meta


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


def kept(event: Event, *, data: bool, meta: bool) -> int:
    """Return the bytes of the payloads that a change does not replace."""
    size = 0
    if not data and event.data is not None:
        size += event.data.size
    if not meta and event.meta is not None:
        size += event.meta.size
    return size
