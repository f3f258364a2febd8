"""What is seen before the barrier shortens the walk inside it, and changes nothing of what it says."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory import scan as scanning
from ckptlog.capture.directory.ahead import seen
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.scan import Options, scan
from tests.capture.directory.memory import Memory
from tests.capture.directory.picture import FAST
from tests.capture.directory.test_confirmation import edit, told
from tests.repository.nobody import as_nobody, public_directory


@given(st.integers(0, 10**9), st.integers(0, 6))
def test_whatever_changes_behind_the_look_is_captured(seed: int, count: int) -> None:
    draw = random.Random(seed)
    folder = Path(tempfile.mkdtemp(dir=FAST))
    root = folder / "root"
    root.mkdir()
    try:
        for serial in range(2, 14):
            edit(root, draw, serial)
        base = seen(str(root), Options())
        component = DirectoryComponent("directory", root, index=folder / "index")
        component.look_ahead()
        for serial in range(14, 14 + count):
            edit(root, draw, serial)
        plain = scan(root, Options())
        assert told(scan(root, Options(), None, base)) == told(plain)
        memory = Memory()
        captured = memory.capture(component)
        expected = memory.capture(DirectoryComponent("directory", root))
        assert captured.reference == expected.reference
        # The index that it left is as good as that of any capture.
        for serial in range(50, 50 + count):
            edit(root, draw, serial)
        again = memory.capture(component, captured)
        assert again.reference == memory.capture(DirectoryComponent("directory", root)).reference
    finally:
        shutil.rmtree(folder)


def test_the_first_cut_lists_only_what_changed_since(tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "root"
    for number in range(60):
        path = root / f"d{number // 10}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * number)
    listed: list[list[str]] = []
    whole, look = DirectoryComponent.capture, scanning.look

    def counted(self: DirectoryComponent):
        (root / "d3" / "new").write_text("made behind the look")
        listed.append([])
        return whole(self)

    def noted(fd: int, reserved: frozenset[str]):
        if listed:
            listed[-1].append(os.readlink(f"/proc/self/fd/{fd}"))
        return look(fd, reserved)

    monkeypatch.setattr(DirectoryComponent, "capture", counted)
    monkeypatch.setattr(scanning, "look", noted)
    with CheckpointManager(tmp_path / "store") as manager:
        component = DirectoryComponent("work", root)
        capturer = Capturer(manager, "system", [component])
        info = capturer.capture()
        assert info is not None
        assert listed == [[str(root / "d3")]]
        assert capturer.check(info) == []
        target = tmp_path / "again"
        component.restore_paths(capturer.stored(info)["work"], to=target)
    assert (target / "d3" / "new").read_text() == "made behind the look"
    assert len(list(target.rglob("f*"))) == 60


def test_what_cannot_be_walked_is_told_by_the_capture(tmp_path: Path) -> None:
    component = ckptlog.DirectoryComponent("work", tmp_path / "missing")
    component.look_ahead()
    with pytest.raises(ckptlog.CheckpointError, match="missing"):
        component.capture()


@pytest.mark.root
def test_names_that_cannot_be_looked_at_count_only_where_no_rule_leaves_them_out() -> None:
    with public_directory() as root:
        (root / "closed").mkdir()
        (root / "closed" / "x").write_text("x")
        (root / ".gitignore").write_text("/closed/x\n")
        (root / "closed").chmod(0o744)  # may be listed, and not entered

        def work() -> list[object]:
            found = scan(root, Options())
            left = found.left_of("closed")
            try:
                scan(root, Options(has_rules=False))
            except ckptlog.CheckpointError as error:
                return [[list(one) for one in left], error.code]
            return []

        assert as_nobody(work) == [[["x", False]], "storage.denied"]
