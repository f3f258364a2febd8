"""Wanted chunks that a survey met in no container: then nothing goes on the word of outlines.

An outline believes digests that nobody checked. One that came to harm makes garbage of a chunk that
lives, and that a repair could bring back; but then its own digest is met nowhere. So only where one
is missing the frames of what would be emptied are read and checked, and what is damaged stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from ckptlog.blobs.run import KEY_BYTES
from ckptlog.errors import LogCorruptionError
from ckptlog.formats.line import lines_among
from ckptlog.log.sealed import Sealed, reading
from ckptlog.log.segments import Segments
from ckptlog.repository.mover import Source

Damaged = list[tuple[str, LogCorruptionError]]
"""Containers that must stay, and what is wrong with each."""


def keys_in(segments: Segments, sealed: Sealed) -> set[bytes]:
    """Return the keys of the chunks of a segment, going by its outline; none where that is damaged.

    Raises:
        CheckpointStorageError: It cannot be opened.
    """
    found: set[bytes] = set()
    try:
        with reading(segments, sealed) as reader:
            for part in reader.outlines():
                found.update(digest[:KEY_BYTES] for digest, _, _ in lines_among(part.lines, None))
    except LogCorruptionError:
        return set()
    return found


def damaged_among(segments: Segments, sources: Sequence[Source]) -> Damaged:
    """Return those of some containers that may hold what is missing: a frame of them is damaged.

    A pack's digests are covered by the sum of its index, which was checked.

    Cost: every byte of the segments is read.
    """
    found: Damaged = []
    for source in sources:
        if source.sealed is None:
            continue
        try:
            with reading(segments, source.sealed) as reader:
                reader.check()
        except LogCorruptionError as error:
            found.append((source.container, error))
    return found


def error_for(damaged: Damaged) -> LogCorruptionError:
    """Return the error of a collection that left damaged segments alone."""
    names = ", ".join(name for name, _ in damaged[:3]) + (", ..." if len(damaged) > 3 else "")
    return LogCorruptionError(
        f"Chunks that are wanted are missing, and may be what is damaged in {names}: "
        f"{damaged[0][1].message} Nothing of that was collected; the rest was.",
        hint="Run ckptlog verify, then ckptlog repair (with --from, a copy).",
        **damaged[0][1].context,
    )
