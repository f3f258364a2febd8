"""The kernel's hash is BLAKE3, on processors with and without wide registers."""

from __future__ import annotations

import ctypes
import random

from blake3 import blake3

from tests.kernel.compiled import compiled, needs_compiler, registers

KIB = 1024
# Every number of segments up to some rows of sixteen lanes, each whole, a little more, and less.
LENGTHS = [
    *range(2300),
    *(count * KIB + more for count in range(2, 131) for more in (-1, 0, 1, 64, 65, 511)),
    4 * KIB * KIB,
    4 * KIB * KIB + 1,
]


@needs_compiler
@registers
def test_every_length(tmp_path, options):
    loaded = compiled("hash", tmp_path, options)
    loaded.kernel_hash_room.argtypes = [ctypes.c_size_t]
    loaded.kernel_hash_room.restype = ctypes.c_size_t
    assert not (loaded.kernel_hash_is_fast() and options == ["-DWITHOUT_AVX2"])
    data = random.Random(1).randbytes(max(LENGTHS))
    for length in LENGTHS:
        room = loaded.kernel_hash_room(length)
        guarded = ctypes.create_string_buffer(b"\xa5" * (room + 64), room + 64)
        found = ctypes.create_string_buffer(32)
        # The bytes end where they end: what lies behind them must not count.
        part = ctypes.create_string_buffer(data[:length] + b"\xff" * 7, length + 7)
        loaded.kernel_hash(part, ctypes.c_size_t(length), guarded, found)
        assert found.raw == blake3(data[:length]).digest(), length
        assert guarded.raw[room:] == b"\xa5" * 64, length
