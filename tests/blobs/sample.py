"""Made-up commits, values and stores for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from blake3 import blake3

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.index import ChunkIndex
from ckptlog.blobs.pack import write_packs
from ckptlog.blobs.payload import Draft
from ckptlog.blobs.run import SUFFIX
from ckptlog.blobs.store import BlobStore
from ckptlog.formats import store
from ckptlog.model.entry import Commit, Entry, Placement
from ckptlog.model.event import Event, Subject

STORE_ID = bytes(range(16))
CONTAINER = "log/00000000000000000000.0.seg"


def noise(size: int, seed: bytes = b"noise") -> bytes:
    """Return bytes that no library can change: BLAKE3 in its extendable form."""
    return blake3(seed).digest(length=size)


def digest(number: int) -> bytes:
    return blake3(number.to_bytes(8, "little")).digest()


def event(position: int) -> Event:
    return Event(
        actor="tester",
        id=f"event-{position}",
        schema=1,
        subject=Subject(),
        time="2026-01-01T00:00:00.000000Z",
        type="checkpoint.created",
    )


def commit(
    position: int,
    placements: Iterable[Placement] = (),
    *,
    events: int = 1,
    container: str = CONTAINER,
) -> Commit:
    entries = tuple(
        Entry(event(at), at, container, at * 1000, 100, 0)
        for at in range(position, position + events)
    )
    stop = position + events
    return Commit(entries, tuple(placements), digest(stop), container, stop * 1000)


def place(number: int, offset: int = 0, container: str = CONTAINER) -> Placement:
    return Placement(digest(number), container, offset or number * 100, 90)


def messages(count: int) -> list[dict[str, str | int]]:
    return [
        {"role": "user" if n % 2 else "assistant", "n": n, "content": noise(150, b"%d" % n).hex()}
        for n in range(count)
    ]


def text(count: int) -> bytes:
    return msgspec.json.encode(messages(count))


def small(folder, **options):
    return ChunkIndex(folder, STORE_ID, tail_entries_max=8, **options)


def fill(index, commits, chunks=3, start=0):
    """Add commits of fresh chunks; return what the index must say."""
    expected = {}
    for position in range(start, start + commits):
        places = [place(position * chunks + n) for n in range(chunks)]
        assert index.add(commit(position, places))
        expected.update({place.digest: place for place in places})
    return expected


def answers(index, expected):
    return {name: index.get(name) for name in expected}


def run_files(folder):
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))


def flip(path, at):
    """Damage a byte of a file that may be mapped, by another file of the same name."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.with_suffix(".damaged").write_bytes(data)
    path.with_suffix(".damaged").rename(path)


class Ids:
    """Pack ids that count."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(16, "big")


class House:
    """A store's folder with packs, an index and a blob store over both."""

    def __init__(self, root: Path, *, cache_bytes: int = 0) -> None:
        self.root = root
        (root / "packs").mkdir()
        self.ids = Ids()
        self.position = 0
        self.index = ChunkIndex(root / "views" / "chunks", STORE_ID)
        self.blobs = BlobStore(
            root,
            STORE_ID,
            self.index,
            Codec(),
            Chunker(store.Chunker()),
            cache_bytes=cache_bytes,
        )

    def keep(self, draft: Draft) -> tuple[Placement, ...]:
        """Write a draft's chunks into a pack and index it."""
        _, placements = write_packs(
            self.root / "packs", STORE_ID, self.position, draft.fresh, self.ids
        )
        assert self.index.add(commit(self.position), placements)
        self.position += 1
        return placements
