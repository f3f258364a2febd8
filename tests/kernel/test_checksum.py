"""The kernel's checksum is XXH3, on processors with and without wide registers."""

from __future__ import annotations

import ctypes
import random

from xxhash import xxh3_64_intdigest

from tests.kernel.compiled import compiled, needs_compiler, registers

LENGTHS = [*range(17, 2300), 64 * 1024, 64 * 1024 + 1, 1_000_003]
SEEDS = [0, 1, 0x0123456789ABCDEF, (1 << 64) - 1]


class Seed(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint64), ("table", ctypes.c_ubyte * 192))


@needs_compiler
@registers
def test_every_length(tmp_path, options):
    loaded = compiled("checksum", tmp_path, options)
    loaded.kernel_checksum.restype = ctypes.c_uint64
    data = random.Random(1).randbytes(max(LENGTHS))
    for number in SEEDS:
        seed = Seed()
        loaded.kernel_prepare_seed(ctypes.byref(seed), ctypes.c_uint64(number))
        for length in LENGTHS:
            found = loaded.kernel_checksum(ctypes.byref(seed), data, ctypes.c_size_t(length))
            assert found == xxh3_64_intdigest(data[:length], number), (number, length)
