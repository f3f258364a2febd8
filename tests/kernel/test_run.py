"""The kernel finds in a run what the search in Python finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs import run as runs
from ckptlog.blobs.run import ENTRY_BYTES, HEAD_BYTES, NOWHERE, Mark
from ckptlog.blobs.run_writer import write_run
from ckptlog.kernel import native
from tests.blobs.sample import STORE_ID, digest, place

LOG = f"log/{0:020d}.0.seg"
UNSURE = -2
pytestmark = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")


def run_of(places):
    return write_run(None, STORE_ID, 5, Mark(9, LOG, 90, digest(9)), places)


def asked(run, key):
    return native.place_in_run(run._data, run._buckets, run._is_checked, run._shift, run.count, key)


@given(st.integers(0, 700), st.data())
def test_every_key(count, data):
    run = run_of([place(n, n + 1, LOG) for n in range(count)])
    near = data.draw(st.binary(min_size=32, max_size=32))
    for key in [digest(n) for n in range(count + 50)] + [near, bytes(32), b"\xff" * 32]:
        first = asked(run, key)
        at = run._place_of(key)  # checks the blocks
        expected = NOWHERE if at < 0 else (at - HEAD_BYTES) // ENTRY_BYTES
        assert first in {UNSURE, expected}
        assert asked(run, key) == expected


def test_a_block_that_nobody_checked_is_left_to_the_long_way():
    run = run_of([place(n, n + 1, LOG) for n in range(300)])
    run._is_checked[:] = bytes(len(run._is_checked))
    assert {asked(run, digest(n)) for n in range(300)} == {UNSURE}


def test_an_unsound_run_is_left_to_the_long_way():
    run = run_of([place(n, n + 1, LOG) for n in range(300)])
    run._is_checked[:] = b"\x01" * len(run._is_checked)
    sound = [run._data, run._buckets, run._is_checked, run._shift, run.count]
    key = next(digest(n) for n in range(300) if asked(run, digest(n)) > 8)
    for number, other in (
        (0, run._data[:HEAD_BYTES]),  # entries are missing
        (1, run._buckets[:1]),
        (1, runs.array("B", b"\x00" * 64)),
        (2, bytearray(0)),
        (3, 0),  # a bucket of all bits: none is there
        (3, 99),
        (4, 1),  # fewer entries than the buckets say
        (4, 1 << 60),
        (4, -1),
    ):
        given = [*sound]
        given[number] = other
        assert native.place_in_run(*given, key) == UNSURE


def test_what_is_no_argument():
    run = run_of([place(1, 2, LOG)])
    sound = [run._data, run._buckets, run._is_checked, run._shift, run.count]
    for arguments in (
        [],
        sound,
        [*sound, b"short"],
        [*sound, "text" * 8],
        [None, *sound[1:], digest(1)],
        [*sound[:3], "x", 1, digest(1)],
        [*sound[:3], -1, 1, digest(1)],
    ):
        with pytest.raises((TypeError, OverflowError)):
            native.place_in_run(*arguments)
