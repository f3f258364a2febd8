"""What a repair would do: each damaged container with its salvage, and what cannot be mended.

Reads only. Segments are looked at in their order, since the header of one names the end of the one
before it; packs after them, by what whole events have registered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from ckptlog.errors import CheckpointError, FormatError
from ckptlog.formats import segment, settled
from ckptlog.formats.end import End
from ckptlog.formats.head import Head
from ckptlog.formats.segment import SegmentHeader
from ckptlog.formats.store import StoreInfo
from ckptlog.log.segments import FOLDER, Segments, container_of
from ckptlog.model.event import PackEntry
from ckptlog.model.leaf import LEAF_EMPTY
from ckptlog.repository.admission import Admission
from ckptlog.repository.contents import pack_of
from ckptlog.repository.continuation import Continuation
from ckptlog.repository.gap import Admits, Copy, Judge, stands_itself
from ckptlog.repository.lineage import Lineage, Link
from ckptlog.repository.quarantine import pieces
from ckptlog.repository.reclaim import Reclaim
from ckptlog.repository.salvage import (
    Bounds,
    LeafAt,
    Leaves,
    PackSalvage,
    Salvage,
    SegmentSalvage,
    made_of_tombstones,
    mended_bytes,
)
from ckptlog.repository.second_copy import SecondCopy
from ckptlog.repository.settled_salvage import (
    SettledRows,
    SettledSalvage,
    Source,
    WrittenRows,
    is_lost,
)
from ckptlog.repository.warrant import Evidence, Warrant, nothing_told
from ckptlog.storage.environment import Environment
from ckptlog.views.leaf import LeafCache

_WHOLE: Final = 1 << 62
_Rows = type[SettledRows | WrittenRows]


class Refusal(msgspec.Struct, frozen=True):
    """A container that is left as it is, and why."""

    container: str
    message: str


class Planner:
    """Makes the salvage of each container of one store.

    Args:
        heads: Verified signed ones that the log answers for.
        gives_up: Let the log end below them.
        takes_back: Ask the copy, too, for what earlier repairs have told lost.

    Attributes:
        salvages: Those that change something. refused: What cannot be mended. strays: Files that
            only keep the store from being opened. live: The newest segment. alone: Containers that
            are mended without the copy, which does not fit.
        end: Where the mended log ends, where no published end tells it, or one below a signed
            head, or one that damage beyond it leaves behind; else None.
    """

    def __init__(
        self,
        root: Path,
        info: StoreInfo,
        environment: Environment,
        *,
        time: str,
        copy: SecondCopy | None,
        heads: list[Head],
        gives_up: bool = False,
        takes_back: bool = True,
    ) -> None:
        self._root = root
        self._heads = heads
        self._gives_up = gives_up
        self._takes_back = takes_back
        self._store_id = info.id_bytes
        self._environment = environment
        self._disk = environment.disk
        self._time = time
        self._copy = copy
        self._cache = LeafCache(root / "views" / "tree" / "leaves", environment.boot())
        sound = self._cache.position_sound

        def leaf_at(position: int) -> bytes | None:
            return next(iter(self._cache.read(position, min(position + 1, sound))), None)

        self._leaf_at: LeafAt = leaf_at
        self._schema = info.event_schema
        self._leaves = Leaves(self._leaf_at, False, self._schema)
        self._admission: Admission | None = None
        self._denied: str | None = None
        self._removed: set[str] = set()
        self.salvages: list[Salvage] = []
        self.refused: list[Refusal] = []
        self.strays: list[str] = []
        self.alone: list[str] = []
        self.live = ""
        self.end: End | None = None
        self._is_end_lost = False

    def segments(
        self, end: End | None, suspects: set[str], removed: set[str], *, is_end_behind: bool = False
    ) -> None:
        """Plan the log.

        Args:
            suspects: Containers that a verification has found a problem in.
            removed: Containers of which collections have said that they are removed.
            is_end_behind: Whether the published end lies before this one, and damage between them:
                when that is mended no commit may end there any more.
        """
        self._removed = removed
        segments = Segments(self._root / FOLDER, self._store_id, self._disk)
        self._is_end_lost = is_end_lost = end is None or end.position < self._signed_up_to
        try:
            if is_end_lost and (continued := self.continued(segments)) is not None:
                end = continued
                # Nothing here tells where the newest one ended.
                suspects = suspects | {container_of(*name) for name in segments.names()[-1:]}
            lineage = Lineage(
                segments,
                self._disk,
                self._store_id,
                end,
                copied=self._copied,
                end_of=self._end_of,
            )
        except CheckpointError as error:
            self.refused.append(Refusal(FOLDER, error.message))
            return
        self.strays = lineage.strays
        self.live = container_of(*lineage.links[-1].name)
        warrant = self._warrant(lineage, end)
        self._admission = self._compared(lineage, end, warrant)
        is_right = self._is_right(lineage, end)
        self._leaves = Leaves(self._leaf_at, is_right, self._schema, warrant)
        before = _Before()
        for link in lineage.links:
            before = self._after(link, before, suspects)
        if (is_end_lost or is_end_behind) and not self.refused:
            self._finish(before)

    def continued(self, segments: Segments) -> End | None:
        """Return the end that a copy tells of this log."""
        if self._copy is None:
            return None
        given = segments, self._copy, self._store_id, self._disk
        told = Continuation(*given, heads=self._heads, cache=self._cache)
        end, self._denied = told.end(), told.note
        return end

    def _finish(self, before: _Before) -> None:
        """Take what was found for the log's end; refuse that where signed heads know better."""
        size = before.position
        if before.header is not None and self._is_settled(_name_of(before.header)):
            # The one behind it is gone, and nothing can be appended to a settled one.
            begun = self._tombstones(self._made_header((size, 0), before), size)
            self.salvages.append(begun)
            before = _Before(begun.header, begun.limit, before.leaf, size)
        assert before.header is not None  # noqa: S101 - there is a segment
        name = _name_of(before.header)
        self.end = End(self._store_id, size, *name, before.limit, before.leaf, bytes(16))
        if self._signed_up_to > size and not self._gives_up:
            message = (
                f"{size} events are left; a signed head is over {self._signed_up_to}. Nothing is "
                "appended where it covers what was there. A copy of this store may have it "
                "(ckptlog repair --from); a backup can be restored (ckptlog restore-store); "
                "`ckptlog audit fork` gives it up."
            )
            self.refused.append(Refusal(f"{FOLDER}/end", message))

    @property
    def _signed_up_to(self) -> int:
        return max((head.size for head in self._heads), default=0)

    def _warrant(self, lineage: Lineage, end: End | None) -> Warrant:
        cache = self._cache
        # One that is over more than the log ever had is over another log, or was never here.
        heads = [one for one in self._heads if end is None or one.size <= end.position]

        def gather() -> Evidence:
            reach = warrant.reach
            told = nothing_told(reach, cache.read(0, min(reach, cache.position_sound)))
            if end is not None and end.position:
                told.known.put(end.position - 1, end.leaf)
            for link in lineage.links:
                self._tell(told, link)
            return told

        warrant = Warrant(heads, gather)
        return warrant

    def _compared(self, lineage: Lineage, end: End | None, warrant: Warrant) -> Admission:
        headers = [link.header for link in lineage.links if link.header is not None]
        named = {header.first - 1: header.leaf for header in headers if header.first}
        if end is not None and end.position:
            named[end.position - 1] = end.leaf

        def theirs(container: str) -> bytes | None:
            return next((copy.data for copy in self._copies(container)), None)

        leaves = Leaves(self._leaf_at, True, self._schema, warrant)
        return Admission(
            self._store_id,
            lineage.links,
            named,
            proven=warrant.proven,
            cached=self._leaf_at,
            believed=partial(leaves.of_lost, is_right=True),
            ours=self.read,
            theirs=theirs,
        )

    @property
    def notes(self) -> list[str]:
        """What nobody can know; what of the copy was not used, and why."""
        parted = self._admission.note if self._admission is not None else None
        told = [f"{one}: nothing of the copy fits there." for one in self.alone]
        told += [one for one in (self._denied, parted) if one is not None]
        if self._is_end_lost and self.end is not None and not self.refused:
            told.append(
                f"The published end of the log was lost: {self.end.position} events were found, "
                "and nobody can know whether more followed."
            )
        return told

    def _tell(self, told: Evidence, link: Link) -> None:
        """Enter the leaf hashes of a segment's events: its own, and those of copies."""
        if link.header is not None and link.header.first:
            told.known.put(link.header.first - 1, link.header.leaf)
        name, stop = link.name, link.bounds.position_next or _WHOLE
        written, other = container_of(*name), f"{FOLDER}/{settled.settled_name(*name)}"
        forms: list[tuple[_Rows, str]] = [(WrittenRows, written), (SettledRows, other)]
        own = [(kind, data) for kind, one in forms if (data := self.read(one)) is not None]
        for kind, data in own[:1]:
            for position, one in kind(self._store_id, name, data).known.items():
                if name[0] <= position < stop:
                    kept = told.stand_ins if is_lost(one.row) else told.known
                    kept.put(position, one.piece.leaf)
        sources = [kind(self._store_id, name, data) for kind, data in own[1:]]
        for kind, container in forms:
            for copy in self._copies(container):
                with suppress(CheckpointError):
                    sources.append(kind(self._store_id, name, copy(0, _WHOLE)))
        for source in sources:
            for position, one in source.known.items():
                if name[0] <= position < stop and not is_lost(one.row):
                    told.copied.put(position, one.piece.leaf)

    def _is_right(self, lineage: Lineage, end: End | None) -> bool:
        headers = [link.header for link in lineage.links if link.header is not None]
        known = [(header.first, header.leaf) for header in headers if header.first]
        if end is not None and end.position:
            known.append((end.position, end.leaf))
        return bool(known) and all(self._leaf_at(at - 1) == leaf for at, leaf in known)

    def _after(self, link: Link, before: _Before, suspects: set[str]) -> _Before:
        """Plan one segment; return where the log stands behind it."""
        bounds = self._believed(link)
        made = self._made(link, before)
        container = container_of(*link.name)
        told = _Before(
            made, bounds.limit or 0, bounds.leaf or LEAF_EMPTY, bounds.position_next or 0
        )
        is_told = bounds.limit is not None and bounds.leaf is not None
        is_sound = link.header is not None and not link.is_damaged
        if is_sound and is_told and container not in suspects:
            return told
        try:
            if made is None:
                raise FormatError(f"Nothing tells where the log stood before {container}.")
            found = self._found(link, made, bounds)
        except CheckpointError as error:
            self.refused.append(Refusal(container, error.message))
            return told
        if found.is_needed:
            self.salvages.append(found)
        return _Before(found.header, found.limit, found.last_leaf, found.position_next)

    def _believed(self, link: Link) -> Bounds:
        """Return what is known of a segment's end; of a copy's word only what can be believed."""
        bounds = link.bounds
        if bounds.is_copied and not (
            self._admission is not None and self._admission.has_end(link.name, bounds)
        ):
            return Bounds(None, bounds.position_next, None)
        return bounds

    def _found(self, link: Link, made: SegmentHeader, bounds: Bounds) -> Salvage:
        """Return a segment's salvage, without the copy where nothing can be done with it."""
        try:
            return self._salvaged(link, made, bounds)
        except CheckpointError:
            if self._copy is None:
                raise
        copy, self._copy = self._copy, None
        try:
            if bounds.is_copied:
                bounds = Bounds(None, bounds.position_next, None)
            found = self._salvaged(link, made, bounds)
        finally:
            self._copy = copy
        self.alone.append(found.container)
        return found

    def _salvaged(self, link: Link, made: SegmentHeader, bounds: Bounds) -> Salvage:
        if self._is_settled(link.name):
            return self._settled(made, bounds)
        if not link.is_there and bounds.limit is None:
            return self._tombstones(made, bounds.position_next or made.first)
        return self._segment(made, bounds, container_of(*link.name))

    def _tombstones(self, header: SegmentHeader, stop: int) -> Salvage:
        return made_of_tombstones(header, stop, leaves=self._leaves, time=self._time)

    def packs(self, registered: Mapping[str, PackEntry], suspects: set[str]) -> None:
        """Plan the packs that whole events have registered."""
        for name, entry in registered.items():
            container = f"packs/{name}"
            if container not in suspects:
                continue
            try:
                copy = next(iter(self._copies(container)), None)
                salvage = PackSalvage(self._store_id, name, entry.bytes, copy=copy)
                found = salvage.run(self.read(container))
            except CheckpointError as error:
                self.refused.append(Refusal(container, error.message))
                continue
            if found.is_needed:
                self.salvages.append(found)

    def is_sound_pack(self, entry: PackEntry) -> bool:
        """Say whether a pack is whole, every chunk of it."""
        name = pack_of(entry)
        salvage = PackSalvage(self._store_id, name, entry.bytes, copy=None)
        try:
            return not salvage.run(self.read(f"packs/{name}")).is_needed
        except CheckpointError:
            return False

    def read(self, container: str) -> bytes | None:
        """Return a file's bytes, None where there is none; what cannot be read is zeros."""
        path = self._root / container
        if not path.exists():
            return None
        return b"".join(pieces(self._disk, path))

    def _segment(self, made: SegmentHeader, bounds: Bounds, container: str) -> Salvage:
        data = self.read(container)
        limit = len(data or b"") if bounds.limit is None else bounds.limit
        copies = self._sources(made, limit, self._admits((made.first, made.generation)))
        salvage = SegmentSalvage(
            self._store_id, made, bounds, leaves=self._leaves, time=self._time, copies=copies
        )
        found = salvage.run(data)
        if self._copy is not None and self._takes_back:
            # The leaf hash of a tombstone decides there: it binds more than what stands around it.
            copies = self._sources(made, found.limit, stands_itself(container))
            self._take_back(found, data or b"", copies)
        return found

    def _admits(self, name: tuple[int, int]) -> Admits:
        return (
            stands_itself(container_of(*name))
            if self._admission is None
            else self._admission.of(name)
        )

    def _take_back(self, found: Salvage, data: bytes, copies: list[Copy]) -> None:
        """Enter what copies have of the events that earlier repairs have told lost."""
        header, bounds = found.header, Bounds(found.limit, found.position_next, found.last_leaf)
        assert header is not None  # noqa: S101 - of a segment

        def again(data: bytes, stricter: Callable[[Judge], Judge], leaves: Leaves) -> Salvage:
            return SegmentSalvage(
                self._store_id,
                header,
                bounds,
                leaves=leaves,
                time=self._time,
                copies=copies,
                stricter=stricter,
            ).run(data)

        reclaim = Reclaim(found.seed, found.container, self._leaves, again)
        back = reclaim.run(mended_bytes(data, found), found.limit)
        found.patches += back.patches
        found.copied += back.copied
        found.events_lost = [one for one in found.events_lost if one not in back.positions]

    def _copies(self, container: str, admits: Admits | None = None) -> list[Copy]:
        copy = self._copy.of(container, admits) if self._copy else None
        return [] if copy is None else [copy]

    def _sources(self, made: SegmentHeader, limit: int, admits: Admits) -> list[Copy]:
        """Return what may have frames of a written segment: our own settled form, then the copy.

        Args:
            limit: Of the segment; beyond it nothing is asked for.
        """
        name = (made.first, made.generation)
        written, other = container_of(*name), f"{FOLDER}/{settled.settled_name(*name)}"
        own = self.read(other)
        forms = [] if own is None else [Copy(lambda: own or b"", stands_itself(written))]
        return [
            *(self._imaged(name, form, limit) for form in forms),
            *self._copies(written, admits),
            *(self._imaged(name, form, limit) for form in self._copies(other, admits)),
        ]

    def _imaged(self, name: tuple[int, int], form: Copy, limit: int) -> Copy:
        """Return a settled form as a copy of the segment that it stands for."""
        rows = SettledRows(self._store_id, name, form.data)
        return Copy(lambda: rows.image(limit), form.admits)

    # --- settled segments ---------------------------------------------------------------------

    def _is_settled(self, name: tuple[int, int]) -> bool:
        """Say whether a segment is there, or should be, as a settled one.

        A copy that went on may have settled what is the newest one here: that stays a written one.
        """
        written, other = container_of(*name), f"{FOLDER}/{settled.settled_name(*name)}"
        if (self._root / written).exists():
            return False
        if written in self._removed or (self._root / other).exists():
            return True
        is_newest = written == self.live
        return not is_newest and not self._copies(written) and bool(self._copies(other))

    def _settled(self, made: SegmentHeader, bounds: Bounds) -> Salvage:
        name = (made.first, made.generation)
        container = f"{FOLDER}/{settled.settled_name(*name)}"
        salvage = SettledSalvage(
            self._store_id,
            made,
            bounds,
            leaves=self._leaves,
            time=self._time,
            admits=self._admits(name),
            takes_back=self._takes_back,
        )
        for copy in self._copies(container):
            salvage.sources.append(self._source(SettledRows, name, copy))
        for copy in self._copies(container_of(*name)):
            salvage.sources.append(self._source(WrittenRows, name, copy))
        return salvage.run(self.read(container))

    def _source(self, kind: _Rows, name: tuple[int, int], copy: Copy) -> Source:
        return lambda: kind(self._store_id, name, copy(0, _WHOLE))

    def _made(self, link: Link, before: _Before) -> SegmentHeader | None:
        """Return the header that a segment should have; None where nothing tells."""
        if link.header is not None:
            return link.header
        made = self._made_header(link.name, before)
        return made if made.previous_length or not made.first else None

    def _end_of(self, name: tuple[int, int], stop: int) -> Bounds | None:
        """Return where our own segment ends, if the event before a position is whole there."""
        forms: list[tuple[_Rows, str]] = [
            (WrittenRows, container_of(*name)),
            (SettledRows, f"{FOLDER}/{settled.settled_name(*name)}"),
        ]
        for kind, container in forms:
            data = self.read(container)
            if data is not None:
                last = kind(self._store_id, name, data).known.get(stop - 1)
                if last is None or not last.piece.ends_commit:
                    return None
                return Bounds(last.piece.offset_end, stop, last.piece.leaf)
        return None

    def _copied(self, name: tuple[int, int]) -> SegmentHeader | None:
        """Return a segment's header from the second copy."""
        for copy in self._copies(container_of(*name)):
            with suppress(CheckpointError):
                return segment.decode(self._store_id, *name, copy(0, segment.HEADER_FRAME_BYTES))
        for copy in self._copies(f"{FOLDER}/{settled.settled_name(*name)}"):
            with suppress(CheckpointError):
                head = copy(0, segment.HEADER_FRAME_BYTES)
                return settled.decode_header(self._store_id, *name, head)
        return None

    def _made_header(self, name: tuple[int, int], before: _Before) -> SegmentHeader:
        last = before.header
        previous = (last.first, last.generation, before.limit) if last else (0, 0, 0)
        return SegmentHeader(self._store_id, *name, *previous, before.leaf, 0)


class _Before(msgspec.Struct, frozen=True):
    """Where the log stands behind a segment: its header, valid length, last leaf, next position."""

    header: SegmentHeader | None = None
    limit: int = 0
    leaf: bytes = LEAF_EMPTY
    position: int = 0


def _name_of(header: SegmentHeader) -> tuple[int, int]:
    return header.first, header.generation


def suspects_of(files: set[str], registered: Mapping[str, PackEntry]) -> set[str]:
    """Return containers among files that problems were entered for."""
    packs = {f"packs/{pack_of(entry)}" for entry in registered.values()}
    return {name for name in files if name in packs or name.startswith("log/")}
