from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from unittest import mock

import msgspec
import pyfastcdc
import pyfastcdc.py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs import chunker
from ckptlog.blobs.chunker import Chunker, SlowChunkerWarning
from ckptlog.errors import SettingsError
from ckptlog.formats.store import Chunker as Parameters
from tests.blobs.sample import noise, text

DEFAULT = Parameters()
SMALL = Parameters(min=64, mean=256, max=1024)


@pytest.fixture
def slow(monkeypatch):
    """Hide the compiled form of the library."""
    monkeypatch.setattr(pyfastcdc, "FastCDC", pyfastcdc.py.FastCDC)
    chunker._warn_once.cache_clear()
    yield
    chunker._warn_once.cache_clear()


@pytest.mark.parametrize("size", [0, 1, 1023, 1024])
def test_up_to_the_minimum_is_one_chunk_without_the_library(size):
    data = noise(size)
    with mock.patch.object(chunker, "_cutter", side_effect=AssertionError):
        assert Chunker(DEFAULT).cut(data) == [data]


@pytest.mark.parametrize("size", [1025, 2047, 2048, 8191, 8192, 8193, 16384, 100_001])
@pytest.mark.parametrize("data", [noise(100_001), bytes(100_001), text(300)[:100_001]])
def test_sizes_around_the_bounds(size, data):
    pieces = Chunker(DEFAULT).cut(data[:size])
    assert b"".join(pieces) == data[:size]
    assert all(DEFAULT.min - 1 <= len(piece) <= DEFAULT.max for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= DEFAULT.max
    assert all(type(piece) is bytes for piece in pieces)


@given(st.binary(max_size=600), st.integers(0, 40), st.sampled_from([DEFAULT, SMALL]))
def test_nothing_is_lost_or_moved(data, times, parameters):
    whole = data * times
    pieces = Chunker(parameters).cut(whole)
    assert b"".join(pieces) == whole
    assert pieces == Chunker(parameters).cut(bytes(whole))


@pytest.mark.parametrize(
    "parameters",
    [DEFAULT, SMALL, Parameters(min=65, mean=300, max=1025, normalization=3)],
    ids=["default", "small", "odd"],
)
def test_both_forms_of_the_library_cut_alike(slow, parameters):
    data = noise(60_000) + text(200) + bytes(30_000)
    with pytest.warns(SlowChunkerWarning):
        by_python = Chunker(parameters).cut(data)
    with mock.patch.object(pyfastcdc, "FastCDC", compiled()):
        assert Chunker(parameters).cut(data) == by_python


def compiled():
    cython = pytest.importorskip("pyfastcdc.cy")
    return cython.FastCDC


def test_the_slow_form_is_reported_once(slow):
    with pytest.warns(SlowChunkerWarning, match="200 times slower"):
        Chunker(DEFAULT).cut(bytes(2000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Chunker(DEFAULT).cut(bytes(2000))


def test_an_insertion_changes_few_chunks():
    data = noise(200_000)
    before = Chunker(DEFAULT).cut(data)
    after = Chunker(DEFAULT).cut(data[:50_000] + b"inserted" + data[50_000:])
    assert len(set(after) - set(before)) <= 3


def test_each_thread_has_its_own_cutter():
    cut = Chunker(DEFAULT).cut
    cutters: list[int] = []
    data = text(400)
    expected = cut(data)
    results: list[bool] = []
    real = chunker._cutter

    def counted(parameters):
        cutters.append(threading.get_ident())
        return real(parameters)

    def work():
        results.extend(cut(data) == expected for _ in range(20))

    with mock.patch.object(chunker, "_cutter", counted):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [True] * 80
    assert len(cutters) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "buzhash"},
        {"min": 63},
        {"min": 2048},
        {"mean": 255, "min": 64},
        {"max": 2048},
        {"max": 17 * 1024 * 1024},
        {"normalization": 4},
        {"normalization": -1},
    ],
)
def test_parameters_that_cannot_be_are_refused(change):
    with pytest.raises(SettingsError):
        Chunker(msgspec.structs.replace(DEFAULT, **change))


def test_the_library_is_not_loaded_for_short_values():
    code = (
        "import sys\n"
        "from ckptlog.blobs.chunker import Chunker\n"
        "from ckptlog.formats.store import Chunker as Parameters\n"
        "Chunker(Parameters()).cut(b'short')\n"
        "sys.exit('pyfastcdc' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
