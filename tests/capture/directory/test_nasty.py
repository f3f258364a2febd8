"""One tree with everything that a file system can hold: captured, spoilt in every way, and back."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
from pathlib import Path

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.directory.workspace import Workspace
from tests.capture.directory.picture import picture

NAMES = [
    b"new\nline",
    b"\xff\xfe not utf-8",
    b"-rf",
    b"--",
    b"x" * 255,
    ("é" * 127).encode(),  # 254 bytes
    b" ",
    b"\t",
    b"\x01\x1b[31m",
    b"*?[",
    b"%00",
    b"$HOME",
    b"...",
    b"\\",
    b"'\"`",
    b"CON",
    b"#!",
    b"!a",
    b".hidden",
    "\u202egpj.exe".encode(),
    b"e\xcc\x81",
    b"\xc3\xa9",
]
SPARSE_BYTES = 5 << 30
DEPTH = 300


def put(path: bytes, content: bytes = b"x") -> None:
    with open(path, "wb") as file:
        file.write(content)


def build(root: bytes) -> None:
    chance = random.Random(7)
    for kind in (b"names", b"folders", b"links", b"modes", b"sizes", b"empty", b"deep", b"linked"):
        os.mkdir(os.path.join(root, kind))
    for name in NAMES:
        put(os.path.join(root, b"names", name), name)
        os.makedirs(os.path.join(root, b"folders", name, name))
        os.symlink(name, os.path.join(root, b"links", name))
    links = os.path.join(root, b"links")
    for name, leads in {
        b"dangling": b"nowhere/at/all",
        b"self": b"self",
        b"ping": b"pong",
        b"pong": b"ping",
        b"up": b"..",
        b"root": b"/",
        b"long": b"y/" * 2_000 + b"y",
        b"bytes": b"\xff\n\xfe",
        b"out": b"/etc/passwd",
    }.items():
        os.symlink(leads, os.path.join(links, name))
    for mode in (0o000, 0o001, 0o200, 0o400, 0o777, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777):
        path = os.path.join(root, b"modes", b"file-%o" % mode)
        put(path, b"%o" % mode)
        os.chmod(path, mode)
        os.mkdir(os.path.join(root, b"modes", b"dir-%o" % mode))
        put(os.path.join(root, b"modes", b"dir-%o" % mode, b"in"))
        os.chmod(os.path.join(root, b"modes", b"dir-%o" % mode), mode)
    for size in (0, 1, 511, 512, 513, 16_383, 16_384, 16_385, 1 << 20, (4 << 20) + 1):
        put(os.path.join(root, b"sizes", b"%d" % size), chance.randbytes(size))
    with open(os.path.join(root, b"sizes", b"sparse"), "wb") as file:
        for offset in (0, 1 << 30, SPARSE_BYTES - 3):
            file.seek(offset)
            file.write(b"end")
    with open(os.path.join(root, b"sizes", b"hole"), "wb") as file:
        file.truncate(3 << 30)
    folder = os.open(os.path.join(root, b"deep"), os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    put(os.path.join(root, b"linked", b"one"), b"same" * 500)
    os.link(os.path.join(root, b"linked", b"one"), os.path.join(root, b"linked", b"two"))
    for path, time in ((b"old", 0), (b"ancient", -(10**9)), (b"future", 4 * 10**9)):
        put(os.path.join(root, path))
        os.utime(os.path.join(root, path), ns=(time * 10**9 + 1, time * 10**9 + 1))


def seen(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Picture all but the giants' bytes; what is special is no part of a picture."""
    giants = {}
    for name in (b"sizes/sparse", b"sizes/hole"):
        path = os.path.join(os.fsencode(root), name)
        if os.path.exists(path) and os.stat(path).st_size > 1 << 30:
            found = os.stat(path)
            giants[name] = (found.st_size, found.st_mode, found.st_mtime_ns, _ends(path))
            os.rename(path, os.fsencode(root.parent) + b"/" + os.path.basename(name))
    try:
        return {**picture(root), **giants}
    finally:
        for name in giants:
            path = os.fsencode(root.parent) + b"/" + os.path.basename(name)
            os.rename(path, os.path.join(os.fsencode(root), name))


def _ends(path: bytes) -> bytes:
    with open(path, "rb") as file:
        found = file.read(3)
        for offset in (1 << 30, os.stat(path).st_size - 3):
            file.seek(offset)
            found += file.read(3)
    return found


def spoil(root: bytes) -> None:
    """Change, remove and turn into something else."""
    for number, name in enumerate(NAMES):
        path = os.path.join(root, b"names", name)
        if number % 3 == 0:
            os.unlink(path)
        elif number % 3 == 1:
            put(path, b"changed")
        else:
            os.unlink(path)
            os.mkdir(path)
            put(os.path.join(path, name), b"in")
        shutil.rmtree(os.path.join(root, b"folders", name))
        put(os.path.join(root, b"folders", name), b"a file now")
        link = os.path.join(root, b"links", name)
        os.unlink(link)
        if number % 2:
            os.symlink(b"/elsewhere", link)
    for name in os.listdir(os.path.join(root, b"modes")):
        os.chmod(os.path.join(root, b"modes", name), 0o755)
    os.truncate(os.path.join(root, b"sizes", b"sparse"), 10)
    os.unlink(os.path.join(root, b"sizes", b"hole"))
    put(os.path.join(root, b"sizes", b"513"), b"")
    shutil.rmtree(os.path.join(root, b"empty"))
    put(os.path.join(root, b"linked", b"one"), b"both change")
    os.rename(os.path.join(root, b"deep", b"d"), os.path.join(root, b"shallow"))


@pytest.mark.root
def test_everything_comes_back(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    raw = os.fsencode(root)
    build(raw)
    special = root / "special"
    special.mkdir()
    os.mkfifo(special / "pipe")
    os.mknod(special / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    folder = os.open(special, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{folder}/socket")  # a path of a socket must be short
    os.close(folder)
    expected = seen(root)
    with CheckpointManager(tmp_path / "store") as manager:
        workspace = Workspace(manager, root)
        first = workspace.capture()
        assert seen(root) == expected
        payload = workspace.capturer.stored(first)
        skipped = next(iter(payload.values())).get("skipped").value()
        assert sorted(skipped) == ["special/null", "special/pipe", "special/socket"]
        assert first.bytes_new < 40 << 20
        for _ in range(2):
            spoil(raw)
            assert seen(root) != expected
            workspace.rewind(workspace.find(first.id))
            assert seen(root) == expected
            assert sorted(os.listdir(special)) == ["null", "pipe", "socket"]
        put(os.path.join(raw, b"linked", b"one"), b"mine alone")  # no names of one file any more
        assert (root / "linked" / "two").read_bytes() == b"same" * 500
        workspace.rewind(workspace.find(first.id))
        sparse = os.stat(root / "sizes" / "sparse")
        assert sparse.st_size == SPARSE_BYTES
        assert sparse.st_blocks * 512 < 1 << 20
        other = tmp_path / "other"
        workspace.rewind(first, to=other)
        assert seen(other) == expected
        assert os.listdir(other / "special") == []
        assert manager.validate_checkpoint_integrity() == []
        assert workspace.plan(first).changes == ()
