"""The interface of TreeWriter and Stored over a dict: what components write, without a store."""

from __future__ import annotations

from typing import Any, NamedTuple

from blake3 import blake3

from ckptlog.formats import chunk
from ckptlog.formats.branch import BYTES, Link
from ckptlog.formats.chunk import digest_of
from ckptlog.model import value as values


class Root(NamedTuple):
    reference: Any


class Memory:
    """Chunks by digest, and what was handed over anew."""

    def __init__(self):
        self.chunks, self.fresh, self.kept = {}, 0, 0

    def raw(self, data):
        return self.blocks(data)

    def blocks(self, blocks):
        pieces = []
        for block in blocks:
            if isinstance(block, Link):
                pieces.append(self.chunks[block.digest])
                self.kept += 1
                continue
            raw = bytes(block)
            digest = digest_of(chunk.LEAF, raw)
            self.fresh += digest not in self.chunks
            self.chunks[digest] = raw
            pieces.append(raw)
        whole = b"".join(pieces)
        digest = blake3(whole).digest()
        self.chunks[digest] = whole
        return Link(BYTES, digest, len(whole))

    def value(self, value):
        return [values.prepare(value).wire]

    def mapping(self):
        return Container()

    def root(self, pieces):
        text = b"".join(self.text(piece) for piece in pieces)
        return Root((blake3(text).hexdigest(), text))

    def text(self, piece):
        if isinstance(piece, Link):
            import base64

            return base64.b64encode(self.chunks[piece.digest])
        return piece


class Container:
    def __init__(self):
        self.pieces = [b"{"]

    def add(self, key, pieces):
        comma = b"," if len(self.pieces) > 1 else b""
        self.pieces += [comma + values.prepare(key).wire + b":", *pieces]

    def finish(self):
        return [*self.pieces, b"}"]


class Stored:
    def __init__(self, value, reference=None):
        self._value, self.reference = value, reference
        self.is_mapping = type(value) is dict
        self.is_bytes = type(value) is bytes

    def value(self):
        return self._value

    def get(self, key):
        return Stored(self._value[key])

    def items(self):
        return ((key, Stored(one)) for key, one in self._value.items())

    def raw(self):
        yield self._value


class Direct:
    """Captures and reads back one component that writes itself."""

    def __init__(self, component):
        self.component, self.writer, self.before = component, Memory(), None

    def capture(self):
        taken = self.component.capture()
        try:
            root = taken.write(self.writer, self.before)
        finally:
            taken.close()
        self.before = Stored(values.decode(root.reference[1]), root.reference)
        return self.before
