"""The chunker: cuts a value's wire form where its content says so (specs/chunking.md).

Equal bytes give equal cuts wherever they stand, so an insertion changes few chunks. The cut points
are part of the format in one sense only: a reader never needs them, but two writers that cut
differently share nothing. That is why the parameters stand in store.json and why golden vectors
watch the library.

The library is loaded when the first long value comes: most values are one chunk, and a program
that only reads needs no chunker. Its compiled and its pure-Python form cut alike, but the latter
is some 200 times slower, so it is reported once.
"""

from __future__ import annotations

import threading
import warnings
from functools import cache
from typing import TYPE_CHECKING, Final

from ckptlog.errors import SettingsError
from ckptlog.formats.store import Chunker as Parameters

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

# What pyfastcdc accepts.
_MIN_BYTES: Final = (64, 1024 * 1024)
_MEAN_BYTES: Final = (256, 4 * 1024 * 1024)
_MAX_BYTES: Final = (1024, 16 * 1024 * 1024)


class SlowChunkerWarning(RuntimeWarning):
    """Only the pure-Python form of pyfastcdc is there; long values are cut about 200x slower."""


class Chunker:
    """Cuts values by content with fixed parameters.

    Threads: safe; each thread has a cutter of its own.
    """

    def __init__(self, params: Parameters) -> None:
        _check(params)
        self.params = params
        self._min = params.min
        self._local = threading.local()

    def cut(self, data: bytes) -> list[bytes]:
        """Return data in chunks, in order; their concatenation is data.

        Every chunk but the last has between params.min - 1 and params.max bytes. Empty data is
        one empty chunk.
        """
        if len(data) <= self._min:
            return [data]
        return [bytes(chunk.data) for chunk in self._cutter().cut_buf(data)]

    def stretches(self, data: memoryview) -> list[memoryview]:
        """Return the same cuts of data as views of it; nothing is copied."""
        if len(data) <= self._min:
            return [data]
        return [data[cut.offset : cut.offset + cut.length] for cut in self._cutter().cut_buf(data)]

    def _cutter(self) -> FastCDC:
        cutter: FastCDC | None = getattr(self._local, "cutter", None)
        if cutter is None:
            cutter = self._local.cutter = _cutter(self.params)
        return cutter


def _cutter(params: Parameters) -> FastCDC:
    with warnings.catch_warnings():  # the library's own words on a missing extension
        warnings.filterwarnings("ignore", module="pyfastcdc")
        import pyfastcdc
    if not pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy"):
        _warn_once()
    return pyfastcdc.FastCDC(
        params.mean,
        min_size=params.min,
        max_size=params.max,
        normalized_chunking=params.normalization,  # type: ignore[arg-type]
    )


@cache
def _warn_once() -> None:
    warnings.warn(
        "pyfastcdc has no compiled extension here; values over a few kilobytes are cut about "
        "200 times slower. Install a binary wheel of pyfastcdc, or a C compiler and reinstall it.",
        SlowChunkerWarning,
        stacklevel=4,
    )


def _check(params: Parameters) -> None:
    if params.algorithm != "fastcdc2020":
        raise SettingsError(f"The chunker {params.algorithm!r} does not exist; use fastcdc2020.")
    bounds = (("min", params.min, _MIN_BYTES), ("mean", params.mean, _MEAN_BYTES))
    for name, value, (low, high) in (*bounds, ("max", params.max, _MAX_BYTES)):
        if not low <= value <= high:
            raise SettingsError(f"Chunk {name} of {value} bytes is outside of {low} to {high}.")
    if not params.min < params.mean < params.max or not 0 <= params.normalization <= 3:
        raise SettingsError(
            f"Chunk sizes must rise (min {params.min}, mean {params.mean}, max {params.max}) "
            f"and the normalization ({params.normalization}) be 0 to 3."
        )
