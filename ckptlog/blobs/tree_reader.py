"""Reads a stored value by parts: what it holds, one item or one stretch of bytes after the other.

    stored = manager.stored(checkpoint_id)
    for path, entry in stored.get("files").items(): ...
    for piece in stored.get("database").raw(): file.write(piece)

Invariants:
* What is yielded was verified: each chunk against its digest, each branch's sizes against what was
  said of it, so that no more comes than the value's size.
* Memory: chunks (of 4 MiB at most) on the way down to what is being read; no more.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from ckptlog.blobs.part import Step, items_of, opened, untagged, value_in
from ckptlog.blobs.payload import (
    Read,
    leaf_of,
    parts_below,
    parts_of,
    text_bytes,
    text_of,
    unfolded,
    value_of,
)
from ckptlog.blobs.pieces import Pieces, Root, pieces_of
from ckptlog.errors import ArgumentError, BlobCorruptionError, NoSuchPartError
from ckptlog.formats.branch import BYTES, LEAF, Link, Part
from ckptlog.formats.json_text import end_of_string
from ckptlog.model.codec import NO_CODECS, Codecs
from ckptlog.model.event import Reference

# Branches inside one another; no writer comes near it.
_DEPTH_MAX: Final = 512
_RAW_HEADS: Final = (b'{"$bytes":"', b'{"$bytearray":"')
_TAIL: Final = b'"}'
_TEXT_BYTES_MAX: Final = 64 * 1024 * 1024


class Stored:
    """A stored value, or a part of one; nothing of it is read before it is asked for.

    Args:
        value: A payload, or the parts of a value inside one.
        read: Returns verified raw bytes of a chunk.

    Threads: safe.
    """

    def __init__(
        self,
        value: Reference | Sequence[Part],
        read: Read,
        *,
        codecs: Codecs = NO_CODECS,
        path: tuple[Step, ...] = (),
    ) -> None:
        self._value = value
        self._read = read
        self._codecs = codecs
        self.path = path

    def __repr__(self) -> str:
        return f"<Stored {'/'.join(map(str, self.path)) or 'value'}, {self.size} bytes>"

    # --- what it is -------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of its text; of raw bytes, more than they have themselves (`raw_size`)."""
        value = self._value
        return value.size if isinstance(value, Reference) else sum(map(text_bytes, value))

    @property
    def reference(self) -> Reference | None:
        """The payload that it is; None where it has no root of its own (a text inside another)."""
        value = self._value
        if isinstance(value, Reference):
            return value
        if len(value) == 1 and type(value[0]) is not bytes and value[0].kind != BYTES:  # type: ignore[union-attr]
            link: Link = value[0]  # type: ignore[assignment]
            kind = "leaf" if link.kind == LEAF else "tree"
            return Reference(kind, link.digest.hex(), link.size)
        return None

    @property
    def root(self) -> str:
        """The digest of its root, hexadecimal; "" where it has none of its own."""
        reference = self.reference
        return reference.root if reference else ""

    @property
    def is_bytes(self) -> bool:
        """Whether it is raw bytes: `bytes` or `bytearray`."""
        return self._front().startswith(_RAW_HEADS)

    @property
    def is_mapping(self) -> bool:
        """Whether it is a dict."""
        front = self._front()
        return front.startswith(b"{") and (
            not front.startswith(b'{"$') or front.startswith(b'{"$object":') or self._is_wide()
        )

    @property
    def is_listing(self) -> bool:
        """Whether it is a list or a tuple."""
        front = self._front()
        return front.startswith((b"[", b'{"$tuple":'))

    @property
    def raw_size(self) -> int:
        """How many raw bytes it is."""
        return sum(part.size if isinstance(part, Link) else len(part) for part in self._raw_parts())

    # --- what it holds ----------------------------------------------------------------------

    def value(self) -> Any:
        """Return the whole value.

        Raises:
            TooLargeError: It has more than 1 GiB.
        """
        return value_of(self._given(), self._read, self._codecs)

    def get(self, *path: Step) -> Stored:
        """Return a part of it.

        Raises:
            NoSuchPartError: There is nothing at the path.
        """
        found = list(self._given())
        for number, step in enumerate(path):
            found = value_in(found, step, path[: number + 1], self._read)
        return self._inner(found, *path)

    def items(self) -> Iterator[tuple[str, Stored]]:
        """Yield keys and values of a dict, in their order, reading as it goes."""
        if not self.is_mapping:
            raise self._refusal("a dict")
        for parts in self._parts_of_items():
            text: bytes = parts[0]  # type: ignore[assignment]
            end = end_of_string(text, 0)
            key: str = msgspec.json.decode(text[:end])
            rest = text[end + 1 :]
            yield key, self._inner([rest, *parts[1:]] if rest else parts[1:], key)

    def elements(self) -> Iterator[Stored]:
        """Yield the elements of a list or tuple, in order, reading as it goes."""
        if not self.is_listing:
            raise self._refusal("a list")
        for index, parts in enumerate(self._parts_of_items()):
            yield self._inner(parts, index)

    def raw(self) -> Iterator[bytes]:
        """Yield raw bytes, verified, as they are stored: the whole of a `bytes` value, or a text's.

        A text is UTF-8; one of more than 64 MiB is not read so.
        """
        if self._front().startswith(b'"'):
            if self.size > _TEXT_BYTES_MAX:
                raise self._refusal(f"a text of at most {_TEXT_BYTES_MAX} bytes")
            yield self.value().encode()
            return
        for part in self._raw_parts():
            if type(part) is bytes:
                yield part
            else:
                yield from self._unfolded_raw(part)  # type: ignore[arg-type]

    def blocks(self) -> Iterator[Link | bytes]:
        """Yield what a `bytes` value is made of, in order: links to leaves, short rests as bytes.

        Reads branches only. `TreeWriter.blocks` takes the links, `block` reads one.
        """
        for part in self._raw_parts():
            if type(part) is bytes:
                yield part
            else:
                yield from self._unfolded_raw(part, is_leaf_read=False)  # type: ignore[arg-type]

    def block(self, link: Link) -> bytes:
        """Return a leaf's bytes, verified."""
        return leaf_of(link.digest, link.size, self._read)

    @property
    def read(self) -> Read:
        """Returns verified raw bytes of a chunk; for who walks the parts itself."""
        return self._read

    def parts(self) -> Sequence[Part]:
        """Return the top parts of its text: text, and links to more of it, or to raw bytes."""
        return self._given()

    def kept(self) -> Pieces:
        """Return it for a writer that takes it over unread (`ContainerWriter.add`)."""
        reference = self.reference
        if reference is None:
            return pieces_of(self._value)  # type: ignore[arg-type]
        return Pieces((Root(reference).link,))

    # --- reading ----------------------------------------------------------------------------

    def _inner(self, parts: Sequence[Part], *path: Step) -> Stored:
        return Stored(parts, self._read, codecs=self._codecs, path=(*self.path, *path))

    def _given(self) -> Sequence[Part]:
        value = self._value
        return parts_of(value, self._read) if isinstance(value, Reference) else value

    def _opened(self) -> list[Part]:
        return opened(list(self._given()), self._read)

    def _front(self) -> bytes:
        parts = self._opened()
        return parts[0] if parts else b""  # type: ignore[return-value]

    def _is_wide(self) -> bool:
        """Say whether an object whose first key begins with $ has more than one: no tag."""
        items = self._parts_of_items()
        return next(items, None) is not None and next(items, None) is not None

    def _parts_of_items(self) -> Iterator[list[Part]]:
        """Yield the parts of each item of a container, in order; its own stack, no recursion."""
        stack = [items_of(untagged(self._opened()), self._read)]
        while stack:
            for one in stack[-1]:
                if one.link is None:
                    yield one.parts
                    continue
                if len(stack) > _DEPTH_MAX:
                    raise _too_deep()
                below = unfolded(one.link, self._read)
                stack.append(items_of(below, self._read, is_inside=True))
                break
            else:
                stack.pop()

    def _raw_parts(self) -> list[Part]:
        """Return the parts of raw bytes, those that stand as text decoded."""
        parts = self._opened()
        front: bytes = parts[0] if parts else b""  # type: ignore[assignment]
        head = next((one for one in _RAW_HEADS if front.startswith(one)), None)
        if head is None:
            raise self._refusal("raw bytes")
        if len(parts) == 3 and front == head and parts[2] == _TAIL:
            link = parts[1]
            if type(link) is not bytes and link.kind == BYTES:  # type: ignore[union-attr]
                return [link]
        text = text_of(parts, self._read)
        try:
            raw = binascii.a2b_base64(text[len(head) : -len(_TAIL)], strict_mode=True)
        except ValueError as error:
            raise BlobCorruptionError("A value that should be raw bytes is no base64.") from error
        return [raw] if raw else []

    def _unfolded_raw(self, link: Link, *, is_leaf_read: bool = True) -> Iterator[Any]:
        stack = [iter(parts_below(link.digest, link.size, self._read, is_raw=True))]
        while stack:
            for part in stack[-1]:
                if type(part) is bytes:
                    yield part
                elif part.kind == LEAF:  # type: ignore[union-attr]
                    yield self.block(part) if is_leaf_read else part  # type: ignore[arg-type]
                else:
                    if len(stack) > _DEPTH_MAX:
                        raise _too_deep()
                    below = parts_below(part.digest, part.size, self._read, is_raw=True)  # type: ignore[union-attr]
                    stack.append(iter(below))
                    break
            else:
                stack.pop()

    def _refusal(self, wanted: str) -> NoSuchPartError | ArgumentError:
        name = "/".join(map(str, self.path)) or "The value"
        return NoSuchPartError(
            f"{name} is not {wanted}.", hint="See is_bytes, is_mapping, is_listing; value()."
        )


def _too_deep() -> BlobCorruptionError:
    return BlobCorruptionError(
        f"A payload has more than {_DEPTH_MAX} branches inside one another.",
        hint="Run ckptlog verify; other checkpoints can still be read.",
    )
