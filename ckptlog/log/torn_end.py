"""A published end that a power cut has torn: the first words of one record, the rest of another.

`log/end` is made once, durably, and rewritten in place without a sync. So a power cut can leave
words of a newer record among those of an older one; no crash leaves a file that is missing, of
another length, or made of anything else (specs/log.md).

    commits of the two newest segments -> the record of each, compared word by word
      -> one has all first words, one all others: the log that is there has reached both

Then nothing that was published is missing, and recovery goes on from the older of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ckptlog.formats import end as end_format
from ckptlog.formats import segment
from ckptlog.formats.end import End
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.scan import Scan, Window
from ckptlog.log.segments import Segments, container_of

# No medium writes less at once.
_WORD_BYTES: Final = 8
_WORDS: Final = end_format.BYTES // _WORD_BYTES
# An end is on the medium soon after it was written: one roll can lie between two of them.
_SEGMENTS_MAX: Final = 2


class _Match(NamedTuple):
    """How many words of the torn record an end shares. words: 0 where none does."""

    words: int
    end: End


def read_torn_end(data: bytes, segments: Segments, store_id: bytes) -> End | None:
    """Return the older of the two ends that a torn record is made of; None where it is not.

    Args:
        data: The bytes of `log/end`, which are no record.

    Raises:
        LogCorruptionError: The segments do not follow each other.

    Durability: none; it reads. Under the lock.        Cost: reads the two newest segments.
    """
    if len(data) != end_format.BYTES:
        return None
    boot = end_format.boot_in(data)
    front = back = None
    for end in _ends(segments, store_id, boot):
        words = _shared(data, end_format.encode(end))
        if front is None or words[0] > front.words:
            front = _Match(words[0], end)
        if back is None or words[1] > back.words:
            back = _Match(words[1], end)
    if front is None or back is None or front.words + back.words < _WORDS:
        return None
    return min(front.end, back.end, key=lambda one: one.position)


def _shared(data: bytes, record: bytes) -> tuple[int, int]:
    """Return how many words are the same from the beginning on, and how many up to the end."""
    starts = range(0, end_format.BYTES, _WORD_BYTES)
    is_same = [data[at : at + _WORD_BYTES] == record[at : at + _WORD_BYTES] for at in starts]
    if all(is_same):
        return _WORDS, _WORDS
    return is_same.index(False), is_same[::-1].index(False)


def _ends(segments: Segments, store_id: bytes, boot: bytes) -> Iterator[End]:
    """Yield the end of each whole commit, and where each segment begins, the oldest first."""
    for header in segments.refresh()[-_SEGMENTS_MAX:]:
        name = header.first, header.generation
        if not segments.exists(*name):
            continue  # a settled one: nothing is recovered there
        # Those before it met a sync error before their first event.
        for generation in range(header.generation + 1):
            began = header.first, header.first, generation, HEADER_FRAME_BYTES
            yield End(store_id, *began, header.leaf, boot)
        after = segments.successor(header)
        file = segments.open(*name)
        try:
            scan = _scan(header, Window(file), store_id, after)
            for _ in scan:
                yield End(store_id, scan.position, *name, scan.offset, scan.leaf, boot)
        finally:
            file.close()


def _scan(
    header: SegmentHeader, window: Window, store_id: bytes, after: SegmentHeader | None
) -> Scan:
    name = header.first, header.generation
    return Scan(
        window,
        segment.seed(store_id, *name),
        container_of(*name),
        offset=HEADER_FRAME_BYTES,
        position=header.first,
        leaf=header.leaf,
        stop=after.previous_length if after else None,
    )
