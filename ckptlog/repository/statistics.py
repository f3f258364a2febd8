"""Figures of a store: how much there is, and how much room it takes.

Sizes are apparent ones (what `ls` says), in bytes. Sums come from the view, sizes from the folder;
nothing here reads the log, but for a sample of its chunks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.blobs.pack import PackIndex
from ckptlog.errors import (
    CheckpointError,
    CheckpointStorageError,
    StoreMissingError,
    from_os_error,
)
from ckptlog.formats import chunk
from ckptlog.model.entry import Placement
from ckptlog.model.state import CheckpointState
from ckptlog.repository.layout import FOLDERS, RESERVE, STORE_JSON, VIEWS
from ckptlog.storage.files import TEMPORARY_SUFFIX
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewBusyError, ViewDamagedError, ViewError

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_SAMPLE_SPOTS: Final = 8
_SAMPLE_COMMITS: Final = 32
_SAMPLE_CHUNKS: Final = 50
_TASKS_PAGE: Final = 10_000
_ATTEMPTS: Final = 3
_WAIT_S: Final = 0.05
_FOLDED: Final = ("current.sqlite", "chunks", "tree")
_OWN_FILES: Final = frozenset({STORE_JSON, RESERVE, "lock"})

Answer = TypeVar("Answer")


class Sizes(msgspec.Struct, frozen=True):
    """Bytes and files in a store's directory, by what they are for.

    log: Segments, the published end, what recoveries cut off. packs: Chunks outside of the log.
    views: Disposable. folded: Of the views, the state view, the chunk index and the leaf hashes.
    reserve: Kept so that a delete fits on a full disk. other: The rest of ours.
    segments, pack_files, torn_files, temporary_files: Numbers of files.
    """

    log: int
    packs: int
    views: int
    folded: int
    reserve: int
    other: int
    segments: int
    pack_files: int
    torn_files: int
    temporary_files: int

    @property
    def total(self) -> int:
        """Everything."""
        return self.log + self.packs + self.views + self.reserve + self.other

    @property
    def stored(self) -> int:
        """Everything but views and reserve: what a copy of the store needs."""
        return self.log + self.packs + self.other


def measure(root: Path) -> Sizes:
    """Return the sizes in a store's directory; what others keep there does not count.

    Raises:
        CheckpointStorageError: The directory cannot be listed.

    Cost: one stat for each file; a store has one for each 64 MiB, and a few.
    """
    sizes = {"log": 0, "packs": 0, VIEWS: 0, RESERVE: 0, "other": 0}
    names: list[tuple[str, str]] = []
    folded = 0
    for parts, size in _files(root):
        folded += size if parts[0] == VIEWS and parts[1].startswith(_FOLDED) else 0
        place = parts[0] if parts[0] in sizes else "other"
        sizes[place] += size
        names.append((place, parts[-1]))
    return Sizes(
        log=sizes["log"],
        packs=sizes["packs"],
        views=sizes[VIEWS],
        folded=folded,
        reserve=sizes[RESERVE],
        other=sizes["other"],
        segments=sum(place == "log" and name.endswith((".seg", ".set")) for place, name in names),
        pack_files=sum(place == "packs" and name.endswith(".pack") for place, name in names),
        torn_files=sum(place == "log" and name.startswith("torn-") for place, name in names),
        temporary_files=sum(name.endswith(TEMPORARY_SUFFIX) for _, name in names),
    )


def _files(root: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield (path below root, bytes) of every file of ours; what goes meanwhile does not count."""
    stack: list[tuple[str, ...]] = [()]
    while stack:
        folder = stack.pop()
        for entry in _scan(root, folder):
            is_ours = bool(folder) or entry.name in FOLDERS
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    stack += [(*folder, entry.name)] if is_ours else []
                elif folder or entry.name in _OWN_FILES or entry.name.endswith(TEMPORARY_SUFFIX):
                    yield (*folder, entry.name), entry.stat(follow_symlinks=False).st_size


def _scan(root: Path, folder: tuple[str, ...]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root.joinpath(*folder)) as entries:
            return list(entries)
    except FileNotFoundError:
        if folder:
            return []
        raise StoreMissingError(f"The directory {root} is gone.", path=str(root)) from None
    except OSError as error:
        raise from_os_error(error, "Cannot list") from error


def statistics(store: Store) -> dict[str, Any]:
    """Return the figures of a store, safe for JSON.

    path, id, created, format: Of the store (created: UTC, ISO 8601).
    events, checkpoints, tasks: Numbers; checkpoints and tasks are the living ones.
    states: Number of living checkpoints in each state.
    logical_bytes: Sum over the events that saved payloads of their sizes: what a whole copy of the
        state at each save would take.
    new_bytes: What the events added for payloads, as stored.
    sanitised: Secrets replaced.
    log_bytes, packs_bytes, views_bytes, reserve_bytes, other_bytes, total_bytes: On the disk.
    stored_bytes: total_bytes without views and reserve.
    stored_ratio: logical_bytes to stored_bytes.
    dedup_ratio: logical_bytes to new_bytes: deduplication and compression together.
    compression_ratio: Raw to stored bytes of a sample of chunks. Ratios are null where unknown.
    segments, packs, torn_files, temporary_files: Numbers of files.
    chunks: Entries of the chunk index (a chunk that was stored twice may count twice).
    view: How the view is held (file, memory, read-only). view_position: How far it is.
    cached_bytes: Verified payload bytes in memory.
    """
    sizes = measure(store.path)
    sums = ask(store, _sums)
    return {
        "path": str(store.path),
        "id": store.id,
        "created": store.info.created,
        "format": store.info.format,
        **sums,
        "stored_bytes": sizes.stored,
        "log_bytes": sizes.log,
        "packs_bytes": sizes.packs,
        "other_bytes": sizes.other,
        "views_bytes": sizes.views,
        "reserve_bytes": sizes.reserve,
        "total_bytes": sizes.total,
        "stored_ratio": _ratio(sums["logical_bytes"], sizes.stored),
        "dedup_ratio": _ratio(sums["logical_bytes"], sums["new_bytes"]),
        "compression_ratio": _compression(store),
        "segments": sizes.segments,
        "packs": sizes.pack_files,
        "chunks": store.index.entries,
        "torn_files": sizes.torn_files,
        "temporary_files": sizes.temporary_files,
        "cached_bytes": store.blobs.cached_bytes,
    }


def ask(store: Store, question: Callable[[CurrentView], Answer]) -> Answer:
    """Return what the view answers; a damaged view is built anew, a busy one asked again.

    Raises:
        CheckpointStorageError: It does not answer.
    """
    fault = ""
    for _ in range(_ATTEMPTS):
        try:
            return question(store.view())
        except ViewDamagedError as error:
            fault = str(error)
            store.rebuild_views()
        except ViewBusyError as error:
            fault = str(error)
            store.environment.sleep(_WAIT_S)
        except ViewError as error:
            fault = str(error)
            break
    raise CheckpointStorageError(
        f"The view of {store.path} does not answer: {fault}",
        hint="Run ckptlog replay.",
        path=str(store.path),
    )


def _sums(view: CurrentView) -> dict[str, Any]:
    totals = view.totals()
    found = view.counts_by_state()
    return {
        "events": totals.events,
        "checkpoints": totals.checkpoints,
        "tasks": count_tasks(view),
        "states": {state.value: found.get(state.value, 0) for state in CheckpointState},
        "logical_bytes": totals.logical_bytes,
        "new_bytes": totals.new_bytes,
        "sanitised": totals.sanitised,
        "view": view.kind,
        "view_position": view.mark.position,
    }


def count_tasks(view: CurrentView) -> int:
    """Return how many tasks have living checkpoints."""
    count, after = 0, None
    while page := view.tasks(after, _TASKS_PAGE):
        count, after = count + len(page), page[-1][0]
    return count


def _compression(store: Store) -> float | None:
    """Return raw to stored bytes of chunks from all over the log, and from some packs."""
    raw = stored = 0
    try:
        for place in (*_log_sample(store), *_pack_sample(store)):
            record = chunk.decode(store.blobs.read_record(place))
            raw, stored = raw + record.raw_length, stored + len(record.stored)
    except CheckpointError:
        return None  # damaged: verify tells
    return _ratio(raw, stored)


def _log_sample(store: Store) -> Iterator[Placement]:
    position = store.position
    for spot in range(_SAMPLE_SPOTS):
        start = position * spot // _SAMPLE_SPOTS
        if start < position:
            commits = islice(store.log.reader.commits(*_spot(store, start)), _SAMPLE_COMMITS)
            chunks = (place for commit in commits for place in commit.placements)
            yield from islice(chunks, _SAMPLE_CHUNKS)


def _spot(store: Store, position: int) -> tuple[str, int, int]:
    return ask(store, lambda view: view.waypoint(position)) or ("", 0, 0)


def _pack_sample(store: Store) -> Iterator[Placement]:
    names = sorted((store.path / PACKS).glob("*.pack"))
    for path in names[:: max(1, len(names) // _SAMPLE_SPOTS)]:
        container = f"{PACKS}/{path.name}"
        lines = PackIndex(path, store.info.id_bytes).first(_SAMPLE_CHUNKS)
        for digest, offset, length in lines:
            yield Placement(digest, container, offset, length)


def _ratio(whole: float | None, part: float | None) -> float | None:
    return round(whole / part, 3) if whole and part else None
