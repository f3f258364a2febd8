"""Captures one component and reads its payload back."""

from __future__ import annotations

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.tree_reader import Stored
from ckptlog.blobs.tree_writer import TreeWriter
from ckptlog.capture.capturer import Capturer
from ckptlog.formats.store import Chunker as Parameters
from ckptlog.model.component import faults_of, traits_of


class System:
    """A system of one component, in a store."""

    def __init__(self, manager, component, name="system"):
        self.component = component
        self.capturer = Capturer(manager, name, [component])

    def capture(self):
        return self.capturer.capture()

    def payload(self, info):
        stored = self.capturer.stored(info)[self.component.name]
        return stored if traits_of(self.component).reads_parts else stored.value()

    def restore(self, info):
        payload = self.payload(info)
        assert faults_of(self.component, payload) == []
        self.component.restore(payload)
        assert getattr(self.component, "verify_restored", list)() == []


class Direct:
    """One component that writes itself, and its chunks in a dict."""

    def __init__(self, component):
        self.component, self.chunks, self.before = component, {}, None
        self.handed = 0

    def capture(self):
        taken = self.component.capture()
        try:
            root = taken.write(TreeWriter(self.sink, Chunker(Parameters())), self.before)
        finally:
            taken.close()
        self.before = Stored(root.reference, self.read)
        return self.before

    def sink(self, digest, domain, raw):
        self.handed += digest not in self.chunks
        self.chunks.setdefault(digest, (domain, bytes(raw)))

    def read(self, digest, domain):
        found = self.chunks[digest]
        assert found[0] == domain
        return found[1]
