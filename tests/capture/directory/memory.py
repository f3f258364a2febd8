"""Payloads in memory: the real writer and reader of trees over a dict of chunks."""

from __future__ import annotations

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.tree_reader import Stored
from ckptlog.blobs.tree_writer import TreeWriter
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.entry import Entry
from ckptlog.capture.directory.manifest import Manifest, load
from ckptlog.capture.directory.snapshot import DirectorySnapshot
from ckptlog.formats.chunk import digest_of
from ckptlog.formats.store import Chunker as Parameters

CHUNKER = Parameters()


class Payload(Stored):
    def manifest(self) -> Manifest:
        return load(self)

    def entries(self) -> dict[str, Entry]:
        return self.manifest().entries


class Memory:
    """A place for chunks; each is checked when it is read."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, bytes] = {}

    @property
    def size(self) -> int:
        return sum(map(len, self.chunks.values()))

    def read(self, digest: bytes, domain: int) -> bytes:
        raw = self.chunks[digest]
        assert digest_of(domain, raw) == digest
        return raw

    def writer(self) -> TreeWriter:
        def sink(digest: bytes, _: int, raw: bytes | memoryview) -> None:
            self.chunks[digest] = bytes(raw)

        return TreeWriter(sink, Chunker(CHUNKER), is_stored=self.chunks.__contains__)

    def capture(self, component: DirectoryComponent, before: Payload | None = None) -> Payload:
        return self.write(component.capture(), before)

    def write(self, snapshot: DirectorySnapshot, before: Payload | None = None) -> Payload:
        try:
            return Payload(snapshot.write(self.writer(), before).reference, self.read)
        finally:
            snapshot.close()

    def payload(self, wire: bytes) -> Payload:
        """Return a payload of any text."""
        writer = self.writer()
        return Payload(writer.root(writer.text(wire)).reference, self.read)
