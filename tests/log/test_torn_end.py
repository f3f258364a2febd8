"""A published end that a power cut has torn is read where the log proves both of its two."""

from __future__ import annotations

import os

import pytest

from ckptlog.errors import LogCorruptionError
from ckptlog.formats import end as end_format
from ckptlog.formats.event import LEAF_EMPTY
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.log.segments import Segments
from ckptlog.log.torn_end import read_torn_end
from ckptlog.storage.disk import Disk
from tests.log.sample import (
    STORE_ID,
    create_log,
    fill,
    open_log,
    published_ids,
    segment_paths,
)

# Behind the magic and the store's id, which all records share.
CUTS = range(32, 128, 8)


@pytest.fixture
def root(tmp_path):
    """Two segments, closed: a, b, c and d, e."""
    root = tmp_path / "store"
    log = create_log(root, segment_bytes=20_000)
    fill(log, "abcde", record_bytes=6000)
    log.close()
    assert len(segment_paths(root)) == 2
    return root


@pytest.fixture
def ends(root):
    """The end behind each commit, and first that of the empty log, as they were published."""
    boot = end_format.decode((root / "log" / "end").read_bytes(), STORE_ID).boot
    log = open_log(root, read_only=True)
    found = [end_format.End(STORE_ID, 0, 0, 0, HEADER_FRAME_BYTES, LEAF_EMPTY, boot)]
    for commit in log.reader.commits():
        first = int(commit.container[4:24])
        place = commit.position_next, first, 0, commit.offset_end
        found.append(end_format.End(STORE_ID, *place, commit.leaf, boot))
    log.close()
    return found


def torn(one, other, cut):
    return end_format.encode(one)[:cut] + end_format.encode(other)[cut:]


def read(root, data):
    return read_torn_end(data, Segments(root / "log", STORE_ID, Disk()), STORE_ID)


@pytest.mark.parametrize(("old", "new"), [(0, 1), (1, 2), (3, 4), (1, 5), (4, 5)])
def test_a_torn_end_is_read_for_the_older_of_its_two(root, ends, old, new):
    for one, other in ((old, new), (new, old)):
        for cut in CUTS:
            data = torn(ends[one], ends[other], cut)
            if data not in (end_format.encode(ends[old]), end_format.encode(ends[new])):
                found = read(root, data)
                assert found is not None
                assert found.position <= ends[old].position
            (root / "log" / "end").write_bytes(data)
            log = open_log(root)
            assert log.recover_if_free()
            assert published_ids(log) == [*"abcde"]
            log.close()
            reader = open_log(root, read_only=True)
            assert reader.end().position == 5
            reader.close()


@pytest.mark.parametrize("is_new_first", [False, True])
def test_a_torn_end_of_which_one_is_gone_is_damage(root, ends, is_new_first):
    """The log lost its last segment, too: nothing but the torn end tells that there was more."""
    os.unlink(segment_paths(root)[-1])
    one, other = (ends[5], ends[3]) if is_new_first else (ends[3], ends[5])
    for cut in CUTS:
        data = torn(one, other, cut)
        assert read(root, data) is None
        (root / "log" / "end").write_bytes(data)
        log = open_log(root)
        with pytest.raises(LogCorruptionError):
            log.recover_if_free()
        log.close()
        assert (root / "log" / "end").read_bytes() == data


def test_where_a_boot_lies_between_nobody_can_be_sure(root, ends):
    """All but the checksum is of one, and of the other nothing but that is left."""
    other = end_format.End(*(getattr(ends[5], name) for name in ends[5].__struct_fields__[:-1]),
                           bytes(16))  # fmt: skip
    assert read(root, torn(ends[4], other, 120)) is None


def test_an_empty_log_whose_end_is_torn(tmp_path):
    root = tmp_path / "store"
    create_log(root).close()
    data = bytearray((root / "log" / "end").read_bytes())
    data[88] ^= 1  # the boot before
    assert read(root, bytes(data)) is None


def test_nothing_else_is_read(root, ends):
    whole = end_format.encode(ends[5])
    for data in (b"", whole[:-1], whole + b"\0", bytes(128), whole[::-1]):
        assert read(root, data) is None
