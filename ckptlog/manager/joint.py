"""The joint commit: several prepared operations that happen together, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from ckptlog.formats.chunk import DIGEST_BYTES
from ckptlog.log.batch import CHUNK_BYTES_IN_LOG_MAX
from ckptlog.manager.preparation import Content
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.store import Store


def joined(store: Store, steps: Sequence[Step], contents: Sequence[Content]) -> Intent:
    """Return one commit of all steps, in order.

    Args:
        steps: No two of them bring the same chunk.
        contents: What they were prepared as.

    Durability: chunks that are too many for the log are in packs, durably, when it returns.
    """
    packs = tuple(pack for content in contents for pack in content.packs)
    placements = tuple(place for content in contents for place in content.placements)
    # Each operation may be small, and all of them too much for the log.
    fresh = [(record[:DIGEST_BYTES], record) for step in steps for record in step.records]
    if sum(len(record) for _, record in fresh) > CHUNK_BYTES_IN_LOG_MAX:
        fresh = store.blobs.whole(fresh)
        more, places = store.write_packs(fresh)
        steps = tuple(Step(step.command) for step in steps)
        packs, placements = packs + more, placements + places
    return Intent(tuple(steps), packs, placements)
