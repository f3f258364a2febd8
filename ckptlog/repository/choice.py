"""What a collection empties, and how much of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ckptlog.repository.mover import Source, Survey
from ckptlog.storage import descriptor

# What one settle copies at most, but for a single large container: bounds memory, and the room that
# is needed before any is given back.
_BYTES: Final = 64 * 1024 * 1024
_CONTAINERS: Final = 200
# Each has its settled form open until all are published: the share of what a process may have.
_SHARE: Final = 8
_CHUNKS: Final = 200_000
# Share of a segment that its events take, above which compressing them is worth a copy of the rest.
_EVENTS_MIN: Final = 0.1


def is_worth_it(source: Source, survey: Survey, garbage_min: float) -> bool:
    """Say whether a container is to be emptied: for its garbage, or for its events' sake."""
    if survey.chunk_bytes - survey.live_bytes > garbage_min * survey.chunk_bytes:
        return True
    if source.sealed is None:
        return not survey.chunks
    events_bytes = source.sealed.length - survey.chunk_bytes
    return not garbage_min or events_bytes > _EVENTS_MIN * source.sealed.length


def batches(
    chosen: list[tuple[Source, Survey]],
) -> Iterator[list[tuple[Source, Survey]]]:
    """Yield what is emptied at once; nothing that must be copied is with what is only garbage."""
    batch: list[tuple[Source, Survey]] = []
    batch_max = descriptor.share(_CONTAINERS, _SHARE)
    size = chunks = 0
    for source, survey in chosen:
        is_full = size + survey.live_bytes > _BYTES or len(batch) >= batch_max
        is_full |= chunks + survey.live_chunks > _CHUNKS
        is_full |= not size and survey.live_bytes > 0
        if batch and is_full:
            yield batch
            batch, size, chunks = [], 0, 0
        batch.append((source, survey))
        size += survey.live_bytes
        chunks += survey.live_chunks
    if batch:
        yield batch
