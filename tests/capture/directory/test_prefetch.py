"""Pieces that another thread reads come as they would without it."""

from __future__ import annotations

import threading

import pytest

from ckptlog.capture.directory.prefetch import prefetched
from tests.threadless import threadless


def threads():
    return [one for one in threading.enumerate() if one.name == "ckptlog-prefetch"]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 500])
def test_all_come_in_their_order(count):
    pieces = [b"%d" % number for number in range(count)]
    assert list(prefetched(iter(pieces))) == pieces
    assert not threads()


def test_a_failure_comes_in_its_place():
    def made():
        yield b"one"
        yield b"two"
        raise ZeroDivisionError("third")

    got = []
    with pytest.raises(ZeroDivisionError, match="third"):
        got.extend(prefetched(made()))  # extend keeps what came before
    assert got == [b"one", b"two"]
    assert not threads()


@pytest.mark.parametrize("taken", [0, 1, 40])
def test_who_stops_early_leaves_no_thread(taken):
    made = []

    def endless():
        while True:
            made.append(None)
            yield b"x"

    pieces = prefetched(endless())
    for _ in range(taken):
        next(pieces)
    pieces.close()
    assert not threads()
    assert len(made) <= taken + 18  # a few at a time, and no more


def test_bytes_that_are_empty_are_pieces_too():
    assert list(prefetched([b"", b"x", b""])) == [b"", b"x", b""]


def test_without_a_thread_they_come_too():
    pieces = [b"%d" % number for number in range(40)]
    with threadless():
        assert list(prefetched(iter(pieces))) == pieces
