"""The kernel is compiled where that can be done, and left out, never left over, where not."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.architecture.tree import ROOT
from tools import build_kernel


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for source in build_kernel.FOLDER.glob("*.[ch]"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(build_kernel, "FOLDER", tmp_path)
    return tmp_path


def names(folder):
    """Return what is there beside the sources."""
    return sorted(path.name for path in folder.iterdir() if path.suffix not in {".c", ".h"})


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_without_a_warning(folder, monkeypatch):
    monkeypatch.setattr(build_kernel, "FLAGS", (*build_kernel.FLAGS, "-Werror"))
    assert build_kernel.compile_kernel() == ""
    assert names(folder) == [build_kernel.target().name]


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_no_compiler(folder, monkeypatch, compiler):
    build_kernel.target().write_text("of an older source")
    monkeypatch.setenv("CC", compiler)
    fault = build_kernel.compile_kernel()
    assert compiler in fault
    assert "\n" not in fault
    assert names(folder) == []


def test_an_error_in_the_source(folder):
    for source in folder.glob("*.c"):
        source.unlink()
    (folder / "kernel.c").write_text("int main(void) { return }")
    assert build_kernel.compile_kernel() != ""
    assert names(folder) == []


def test_by_hand(tmp_path):
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "ckptlog" / "kernel").mkdir(parents=True)
    command = [sys.executable, str(tmp_path / "tools" / "build_kernel.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, "there is no source"
    assert done.stdout.strip()
