"""The kernel's checksum is XXH3, on processors with and without wide registers."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess

import pytest
from xxhash import xxh3_64_intdigest

from tools import build_kernel

LENGTHS = [*range(17, 2300), 64 * 1024, 64 * 1024 + 1, 1_000_003]
SEEDS = [0, 1, 0x0123456789ABCDEF, (1 << 64) - 1]


class Seed(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint64), ("table", ctypes.c_ubyte * 192))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("options", [[], ["-DWITHOUT_AVX512"], ["-DWITHOUT_AVX2"]])
def test_every_length(tmp_path, options):
    library = tmp_path / "checksum.so"
    source = build_kernel.FOLDER / "checksum.c"
    flags = [one for one in build_kernel.FLAGS if one != "-fvisibility=hidden"]
    subprocess.run(["cc", *flags, *options, "-shared", source, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.kernel_checksum.restype = ctypes.c_uint64
    data = random.Random(1).randbytes(max(LENGTHS))
    for number in SEEDS:
        seed = Seed()
        loaded.kernel_prepare_seed(ctypes.byref(seed), ctypes.c_uint64(number))
        for length in LENGTHS:
            found = loaded.kernel_checksum(ctypes.byref(seed), data, ctypes.c_size_t(length))
            assert found == xxh3_64_intdigest(data[:length], number), (number, length)
