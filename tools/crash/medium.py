"""What a power cut leaves: a model of the medium below the page cache.

The files are real: they are the page cache, which every living process sees. Beside
them this model keeps, for each file, the bytes that were synced and the changes asked since, and
the same for the names in folders. `images` then lays out what may stand on the medium when power
is lost: nothing of the unsynced, all of it, a prefix of it, pages in any order, names without
bytes and bytes without names.

Only what POSIX promises is promised: fdatasync of a file makes its bytes and size durable, not its
name; fsync of a folder makes names durable, not bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = 4096
SECTOR_BYTES = 512
Image = dict[str, bytes]
"""What stands in a folder: bytes by name; a name that ends in a slash is a folder."""

# Of what was asked and not synced, so many of the last changes are each taken for the last one.
_TIMES_MAX = 6
# Files that are not synced: up to so many, each set of them is the one that reached the medium.
_SETS_OF_FILES_MAX = 3


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

    def __init__(self, durable: bytes = b"", *, is_folder: bool = False) -> None:
        self.durable = durable
        self.is_folder = is_folder
        self.pending: list[Write | Cut] = []

    def content(self, time: int | None = None, *, torn: int = 0) -> bytes:
        """Return the durable bytes with the changes up to `time` (all of them by default).

        Args:
            torn: If not 0, a part of the first change after `time` is there too: its half, up to
                a multiple of so many bytes in the file.
        """
        data = self.durable
        for change in self.pending:
            if time is None or change.time <= time:
                data = changed(data, change)
            elif torn:
                return changed(data, _torn(change, torn))
        return data

    def without(self, time: int) -> bytes:
        """Return all changes but the one of this time."""
        data = self.durable
        for change in self.pending:
            if change.time != time:
                data = changed(data, change)
        return data

    def sized(self) -> bytes:
        """Return the durable bytes at the length asked for: the file grew, its bytes are lost."""
        size = len(self.content())
        return self.durable[:size].ljust(size, b"\0")

    def sync(self) -> None:
        """Put all that was asked on the medium."""
        self.durable, self.pending = self.content(), []

    def forget(self) -> None:
        """Drop the unsynced bytes as a failed sync may; lengths go through the journal."""
        self.pending = [change for change in self.pending if isinstance(change, Cut)]

    def scattered(self, chance: random.Random) -> bytes:
        """Return a content of which each page or sector, and the length, is of its own time."""
        unit = chance.choice((SECTOR_BYTES, PAGE_BYTES))
        times = [0, *(change.time for change in self.pending)]
        data = self.content(chance.choice(times))
        size = len(data)
        if len(times) == 1:
            return data
        versions = [self.content(time) for time in times]
        pages = bytearray(max(map(len, versions)))
        for start in range(0, len(pages), unit):
            page = versions[chance.randrange(len(times))][start : start + unit]
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
        found = [path for path in self.root.rglob("*") if path.is_file() or path.is_dir()]
        self.names = {
            self.name(path): Node(is_folder=True) if path.is_dir() else Node(path.read_bytes())
            for path in found
        }
        self.durable_names = dict(self.names)
        self.links = []

    def name(self, path: Path) -> str:
        """Return a path as the model names it."""
        return str(path.relative_to(self.root))

    def tick(self) -> int:
        """Return the next time."""
        self.time += 1
        return self.time

    # --- what the disk tells -----------------------------------------------------------------

    def create(self, path: Path, *, is_folder: bool = False) -> Node:
        """Enter a file or folder that was made."""
        node = Node(is_folder=is_folder)
        self._link(path, None, self.name(path), node)
        return node

    def rename(self, old: Path, new: Path) -> None:
        """Enter another name."""
        self._link(new, self.name(old), self.name(new), self.names[self.name(old)])

    def remove(self, path: Path) -> None:
        """Enter that a name is gone."""
        self._link(path, self.name(path), None, self.names[self.name(path)])

    def _link(self, path: Path, old: str | None, new: str | None, node: Node) -> None:
        link = Link(self.tick(), self.name(path.parent), old, new, node)
        self.links.append(link)
        _apply(self.names, link)

    def sync_folder(self, path: Path) -> None:
        """Put the names in a folder on the medium."""
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
        for names, word in ((self.durable_names, "durable names"), (self.names, "cached names")):
            yield f"nothing, {word}", image_of(names, lambda node: node.durable)
            yield f"everything, {word}", image_of(names, Node.content)
        yield from self._prefixes(self.times(), (0, 1))
        for seed in range(seeds):
            yield f"scattered {seed}", self.scattered(random.Random(seed))  # noqa: S311 - the same each time

    def states(self, seeds: int = 2) -> Iterator[tuple[str, Image]]:
        """Yield (kind, files) for each thing that a crash may leave now, within a bound.

        Kinds: `kill` (the page cache stays), `nothing`, `everything`, `prefix`, `torn` (by sectors,
        by pages, in the middle), `grown` (lengths without bytes), `dropped` (one change), `files`
        (some files' changes, not others'), `names` (some folders' entries), `scattered` (pages).
        """
        cached, durable = self.names, self.durable_names
        yield "kill", image_of(cached, Node.content)
        if not self.links and not any(node.pending for node in self._nodes()):
            return
        yield "nothing", image_of(durable, lambda node: node.durable)
        yield "everything", image_of(durable, Node.content)
        yield "nothing", image_of(cached, lambda node: node.durable)
        yield "grown", image_of(cached, Node.sized)
        times = self.times()[-_TIMES_MAX:]
        for label, image in self._prefixes(times, (0, 1, SECTOR_BYTES, PAGE_BYTES)):
            yield "torn" if "torn" in label else "prefix", image
        for time in times:
            yield "dropped", image_of(cached, partial(Node.without, time=time))
            yield "names", image_of(self._names_without(time), Node.content)
        for some in self._sets_of_files():
            yield "files", image_of(cached, partial(_some, some))
        for seed in range(seeds):
            yield "scattered", self.scattered(random.Random(f"{self.time}/{seed}"))  # noqa: S311 - the same each time

    def _prefixes(self, times: list[int], parts: tuple[int, ...]) -> Iterator[tuple[str, Image]]:
        for time in times:
            names = self._names_at(time)
            for torn in parts:
                yield (
                    f"prefix {time}{f' torn {torn}' if torn else ''}",
                    image_of(names, partial(Node.content, time=time, torn=torn)),
                )

    def _nodes(self) -> set[Node]:
        # Files that were removed, too: the removal may not be on the medium.
        removed = {link.node for link in self.links}
        return {*self.names.values(), *self.durable_names.values(), *removed}

    def _sets_of_files(self) -> Iterator[set[Node]]:
        dirty = [node for node in self.names.values() if node.pending]
        if len(dirty) <= _SETS_OF_FILES_MAX:
            for count in range(1, len(dirty)):
                yield from map(set, combinations(dirty, count))
            return
        for node in dirty:
            yield {node}
            yield {*dirty} - {node}

    def times(self) -> list[int]:
        """Return when each change that is not on the medium was asked for."""
        times = {change.time for node in self._nodes() for change in node.pending}
        return sorted(times | {link.time for link in self.links})

    def _names_at(self, time: int) -> dict[str, Node]:
        names = dict(self.durable_names)
        for link in self.links:
            if link.time <= time:
                _apply(names, link)
        return names

    def _names_without(self, time: int) -> dict[str, Node]:
        """Return the names where what was done in one folder since a time is lost."""
        lost = {link.folder for link in self.links if link.time == time}
        names = dict(self.durable_names)
        for link in self.links:
            if not (link.folder in lost and link.time >= time):
                _apply(names, link)
        return names

    def scattered(self, chance: random.Random) -> Image:
        """Return any names and any pages; of one folder, names in their order."""
        names = dict(self.durable_names)
        reached = {link.folder: chance.choice((0, link.time, self.time)) for link in self.links}
        for link in self.links:
            if link.time <= reached[link.folder]:
                _apply(names, link)
        return image_of(names, lambda node: node.scattered(chance))

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


def image_of(names: dict[str, Node], content: Callable[[Node], bytes]) -> Image:
    """Return files and folders by name; what lies in a folder that is not there is not there."""
    folders = {name for name, node in names.items() if node.is_folder}
    image = {}
    for name, node in names.items():
        parent = name.rpartition("/")[0]
        if not parent or parent in folders:
            image[f"{name}/" if node.is_folder else name] = content(node)
    return image


def lay_out(image: Image, root: Path) -> None:
    """Make a folder hold an image's files and nothing else."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.unlink()
    for name, data in image.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _some(there: set[Node], node: Node) -> bytes:
    return node.content() if node in there else node.durable


def _torn(change: Write | Cut, unit: int) -> Write | Cut:
    if isinstance(change, Cut):
        return change
    end = change.offset + len(change.data) // 2
    return change._replace(data=change.data[: max(0, end - end % unit - change.offset)])


def _apply(names: dict[str, Node], link: Link) -> None:
    if link.old is not None:
        names.pop(link.old, None)
    if link.new is None:
        return
    names[link.new] = link.node
    if link.old is not None and link.node.is_folder:
        for name in [name for name in names if name.startswith(f"{link.old}/")]:
            names[link.new + name[len(link.old) :]] = names.pop(name)
