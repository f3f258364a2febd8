"""One file of the kernel, compiled by itself, for what no function of the module shows."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import build_kernel

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
# With the registers that the machine has, and with fewer of them.
registers = pytest.mark.parametrize("options", [[], ["-DWITHOUT_AVX512"], ["-DWITHOUT_AVX2"]])


def compiled(name: str, folder: Path, options: list[str]) -> ctypes.CDLL:
    """Return the library that a source file of the kernel becomes."""
    library = folder / f"{name}.so"
    source = build_kernel.FOLDER / f"{name}.c"
    flags = [one for one in build_kernel.FLAGS if one != "-fvisibility=hidden"]
    subprocess.run(["cc", *flags, *options, "-shared", source, "-o", library], check=True)
    return ctypes.CDLL(str(library))
