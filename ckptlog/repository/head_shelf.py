"""`STORE/heads/`: what a store publishes of its history (specs/transparency.md).

    heads/keys            verifier keys, one a line; the last one signs now
    heads/latest          the newest signed head, with the cosignatures that came for it
    heads/kept/*.note     heads that stay: signed on request, cosigned, the last of an origin;
                          one file for each head and key

It is no view: a rebuild does not touch it. Nothing in it is believed because it is there: a head
counts by its signature, and a key because somebody was given it some other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ckptlog.errors import FormatError, operating_system_door
from ckptlog.formats import head as head_format
from ckptlog.formats import note
from ckptlog.formats.head import Head
from ckptlog.formats.note import Note, VerifierKey
from ckptlog.repository.keyring import read_keys, read_note
from ckptlog.storage import files

FOLDER: Final = "heads"
_KEYS = "keys"
_LATEST = "latest"
_KEPT = "kept"


class SignedHead(NamedTuple):
    """A head and the note that it came in."""

    head: Head
    note: Note


def signed_head(signed: Note) -> SignedHead:
    """Return the head that a note holds.

    Raises:
        FormatError: It holds something else.
    """
    return SignedHead(head_format.decode(signed.text), signed)


class HeadShelf:
    """The heads of one store.

    Durability: what was put is on the medium.        Threads: the ring's lock serialises writers.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = root / FOLDER

    def verifier_keys(self) -> tuple[VerifierKey, ...]:
        """Return the verifier keys, the present one last.

        Raises:
            FormatError: The file is damaged.
        """
        return read_keys(self.folder / _KEYS)

    def add_key(self, key: VerifierKey) -> None:
        """Publish a key, as the present one."""
        keys = [*(one for one in self.verifier_keys() if one != key), key]
        self._make(self.folder)
        text = "".join(f"{one}\n" for one in keys)
        files.write_atomically(self.folder / _KEYS, text.encode())

    def latest(self) -> SignedHead | None:
        """Return the newest head, None where there is none.

        Raises:
            FormatError: It is damaged.
        """
        found = read_note(self.folder / _LATEST)
        return None if found is None else signed_head(found)

    def paths(self) -> list[Path]:
        """Return the files of all heads, the newest first."""
        with operating_system_door("Cannot list the heads"):
            kept = sorted((self.folder / _KEPT).glob("*.note"), reverse=True)
        latest = self.folder / _LATEST
        return [latest, *kept] if latest.exists() else kept

    def all(self) -> Iterator[SignedHead]:
        """Yield every head that can be read."""
        for path in self.paths():
            try:
                found = read_note(path)
                if found is not None:
                    yield signed_head(found)
            except FormatError:  # `verify` tells of it
                continue

    def find(self, size: int) -> SignedHead | None:
        """Return a head of a size, of the present origin where there are several."""
        keys = self.verifier_keys()
        origin = keys[-1].name if keys else ""
        found = [one for one in self.all() if one.head.size == size]
        return max(found, key=lambda one: one.head.origin == origin, default=None)

    def put(self, signed: SignedHead, *, is_kept: bool) -> None:
        """Make a head the newest, and keep it where it is to stay."""
        self._make(self.folder)
        if is_kept:
            self.keep(signed)
        files.write_atomically(self.folder / _LATEST, note.encode(signed.note))

    def keep(self, signed: SignedHead) -> None:
        """Let a head stay; its signatures replace those that are there, if it is the same key's.

        What another key signed stays beside it: a signature of the same head by a key that nobody
        knows is evidence, and whoever has that key only must not take the first one away.
        """
        self._make(self.folder / _KEPT)
        path = self._kept_path(signed.head)
        own = _own_ids(signed)
        if not _holds_another(path, own):
            files.write_atomically(path, note.encode(signed.note))
            return
        beside = path.with_name(f"{path.stem}-{own[0].hex() if own else 'none'}.note")
        files.write_atomically(beside, note.encode(signed.note))

    def _kept_path(self, head: Head) -> Path:
        import hashlib

        digest = hashlib.sha256(head_format.encode(head).encode()).hexdigest()
        return self.folder / _KEPT / f"{head.size:020d}-{digest[:16]}.note"

    def _make(self, folder: Path) -> None:
        with operating_system_door("Cannot make the folder of heads"):
            files.make_below(self._root, folder)


def _holds_another(path: Path, own: list[bytes]) -> bool:
    """Say whether a file holds a head that a key signed which is none of these."""
    try:
        found = read_note(path)
        return found is not None and not set(_own_ids(signed_head(found))) & set(own)
    except FormatError:  # nothing that could be read any more
        return False


def _own_ids(signed: SignedHead) -> list[bytes]:
    """Return the ids of the keys that signed a head as its origin; others cosigned it."""
    return [one.key_id for one in signed.note.signatures if one.name == signed.head.origin]
