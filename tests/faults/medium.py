"""What a power cut leaves: a model of the medium below the page cache.

The files of a test are real: they are the page cache, which every living process sees. Beside
them this model keeps, for each file, the bytes that were synced and the changes asked since, and
the same for the names in folders. `images` then lays out what may stand on the medium when power
is lost: nothing of the unsynced, all of it, a prefix of it, pages in any order, names without
bytes and bytes without names.

Only what POSIX promises is promised: fdatasync of a file makes its bytes and size durable, not its
name; fsync of a folder makes names durable, not bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = 4096
Image = dict[str, bytes]


class Write(NamedTuple):
    """Bytes that were written and not synced since."""

    time: int
    offset: int
    data: bytes


class Cut(NamedTuple):
    """A length that was set and not synced since."""

    time: int
    length: int


class Node:
    """One file's content: what is on the medium, and what was asked since, in order."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.pending: list[Write | Cut] = []

    def content(self, time: int | None = None, *, torn: bool = False) -> bytes:
        """Return the durable bytes with the changes up to `time` (all of them by default).

        Args:
            torn: Whether half of the first change after `time` is there too.
        """
        data = self.durable
        for change in self.pending:
            if time is None or change.time <= time:
                data = changed(data, change)
            elif torn:
                return changed(data, _half(change))
        return data

    def sync(self) -> None:
        self.durable, self.pending = self.content(), []

    def forget(self) -> None:
        """Drop the unsynced bytes as a failed sync may; lengths go through the journal."""
        self.pending = [change for change in self.pending if isinstance(change, Cut)]

    def scattered(self, chance: random.Random) -> bytes:
        """Return a content of which each page, and the length, is as of a time of its own."""
        times = [0, *(change.time for change in self.pending)]
        data = self.content(chance.choice(times))
        size = len(data)
        pages = bytearray(max(len(self.content(time)) for time in times))
        for start in range(0, len(pages), PAGE_BYTES):
            page = self.content(chance.choice(times))[start : start + PAGE_BYTES]
            pages[start : start + len(page)] = page
        return bytes(pages[:size])


class Link(NamedTuple):
    """A name that was made, renamed or removed (old, new, or both), its folder not synced since."""

    time: int
    folder: str
    old: str | None
    new: str | None
    node: Node


class Medium:
    """The medium below one store's folder.

    Threads: one at a time.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.time = 0
        self.names: dict[str, Node] = {}
        self.durable_names: dict[str, Node] = {}
        self.links: list[Link] = []
        self.settle()

    def settle(self) -> None:
        """Take what the folder holds now as durable."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        self.names = {self.name(path): Node(path.read_bytes()) for path in files}
        self.durable_names = dict(self.names)
        self.links = []

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def tick(self) -> int:
        self.time += 1
        return self.time

    # --- what the disk tells -----------------------------------------------------------------

    def create(self, path: Path) -> Node:
        node = Node()
        self._link(path, None, self.name(path), node)
        return node

    def rename(self, old: Path, new: Path) -> None:
        self._link(new, self.name(old), self.name(new), self.names[self.name(old)])

    def remove(self, path: Path) -> None:
        self._link(path, self.name(path), None, self.names[self.name(path)])

    def _link(self, path: Path, old: str | None, new: str | None, node: Node) -> None:
        link = Link(self.tick(), self.name(path.parent), old, new, node)
        self.links.append(link)
        _apply(self.names, link)

    def sync_folder(self, path: Path) -> None:
        folder = self.name(path)
        for link in self.links:
            if link.folder == folder:
                _apply(self.durable_names, link)
        self.links = [link for link in self.links if link.folder != folder]

    # --- what a power cut leaves -------------------------------------------------------------

    def images(self, seeds: int = 5) -> Iterator[tuple[str, Image]]:
        """Yield (label, files) for each thing that may be on the medium now, without repeats."""
        seen = set()
        for label, image in self._all_images(seeds):
            key = tuple(sorted(image.items()))
            if key not in seen:
                seen.add(key)
                yield label, image

    def _all_images(self, seeds: int) -> Iterator[tuple[str, Image]]:
        bases = list(self._images(seeds))
        yield from bases
        for label, image in bases[:: max(1, len(bases) // 4)]:
            for index, end in enumerate(self._ends()):
                yield f"{label}, end {index}", {**image, "log/end": end}

    def _images(self, seeds: int) -> Iterator[tuple[str, Image]]:
        durable, cached = self.durable_names, self.names
        for names, word in ((durable, "durable names"), (cached, "cached names")):
            yield f"nothing, {word}", {name: node.durable for name, node in names.items()}
            yield f"everything, {word}", {name: node.content() for name, node in names.items()}
        for time in self._times():
            names = self._names_at(time)
            for torn in (False, True):
                yield (
                    f"prefix {time}{' torn' * torn}",
                    {name: node.content(time, torn=torn) for name, node in names.items()},
                )
        for seed in range(seeds):
            yield f"scattered {seed}", self._scattered(random.Random(seed))

    def _times(self) -> list[int]:
        # Files that were removed, too: the removal may not be on the medium.
        removed = {link.node for link in self.links}
        nodes = {*self.names.values(), *self.durable_names.values(), *removed}
        times = {change.time for node in nodes for change in node.pending}
        return sorted(times | {link.time for link in self.links})

    def _names_at(self, time: int) -> dict[str, Node]:
        names = dict(self.durable_names)
        for link in self.links:
            if link.time <= time:
                _apply(names, link)
        return names

    def _scattered(self, chance: random.Random) -> Image:
        names = dict(self.durable_names)
        for link in self.links:
            if chance.random() < 0.5:
                _apply(names, link)
        return {name: node.scattered(chance) for name, node in names.items()}

    def _ends(self) -> list[bytes]:
        """Return what the published end may hold: each version since the last sync, and torn."""
        node = self.names.get("log/end")
        if node is None:
            return []
        versions = [node.durable, *(node.content(change.time) for change in node.pending)]
        torn = [
            old[:cut] + new[cut:]
            for old, new in zip(versions, versions[1:], strict=False)
            for cut in (30,)
        ]
        return [*versions, *torn]


def changed(data: bytes, change: Write | Cut) -> bytes:
    """Return data after a change; what lies between is zeros, as in any file."""
    if isinstance(change, Cut):
        return data[: change.length].ljust(change.length, b"\0")
    before = data[: change.offset].ljust(change.offset, b"\0")
    return before + change.data + data[change.offset + len(change.data) :]


def lay_out(image: Image, root: Path) -> None:
    """Make a folder hold an image's files and nothing else."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.unlink()
    for name, data in image.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _half(change: Write | Cut) -> Write | Cut:
    if isinstance(change, Cut):
        return change
    return change._replace(data=change.data[: len(change.data) // 2])


def _apply(names: dict[str, Node], link: Link) -> None:
    if link.old is not None:
        names.pop(link.old, None)
    if link.new is not None:
        names[link.new] = link.node
