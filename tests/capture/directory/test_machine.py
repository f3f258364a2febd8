"""Random trees and edits beside pictures of them: every capture comes back exactly."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.errors import RestoreConflictError
from tests.capture.directory.memory import Memory
from tests.capture.directory.picture import FAST, LEFT_OUT, left_out, picture, without_shells

NAMES = [
    b"a",
    b"b",
    b"c",
    b"d e",
    b"%41",
    b"$x",
    b"\xff\xfe",
    b"new\nline",
    b"\xc3\xa9",
    b"-rf",
    b"A",
    b"'\"\\",
    b"x" * 255,
    b"\x01",
    b"ign",
    b"ignored",
    b" ",
    b"*",
    b"~",
    b"\xed\xa0\x80",
    b"e\xcc\x81",
]
names = st.sampled_from(NAMES)
places = st.lists(names, min_size=1, max_size=3).map(b"/".join)
contents = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"", b"x" * 512, b"x" * 513, b"text\n" * 2_000, bytes(range(256)) * 700]),
)
modes = st.sampled_from([0o644, 0o600, 0o755, 0o444, 0o4755, 0o000])
times = st.integers(-(10**9), 4 * 10**9).map(lambda seconds: seconds * 1_000_000_007 // 1)


class DirectoryMachine(RuleBasedStateMachine):
    captures = Bundle("captures")

    @initialize(has_index=st.booleans())
    def begin(self, has_index: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=FAST))
        self.root = self.folder / "root"
        self.root.mkdir()
        (self.root / ".ckptlogignore").write_text(f"{LEFT_OUT}*\n")
        self.memory = Memory()
        self.component = DirectoryComponent(
            "directory", self.root, index=self.folder / "index" if has_index else None
        )
        self.last = None

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def at(self, place: bytes) -> bytes:
        return os.path.join(os.fsencode(self.root), place)

    def leads_out(self, place: bytes) -> bool:
        """Say whether a link lies on the way to a place: what is there is not ours to change."""
        parts = place.split(b"/")
        return any(
            os.path.islink(self.at(b"/".join(parts[:number]))) for number in range(1, len(parts))
        )

    def is_file(self, place: bytes) -> bool:
        path = self.at(place)
        return not self.leads_out(place) and os.path.isfile(path) and not os.path.islink(path)

    def is_directory(self, place: bytes) -> bool:
        path = self.at(place)
        return not self.leads_out(place) and os.path.isdir(path) and not os.path.islink(path)

    def has_room(self, place: bytes) -> bool:
        """Make the folder of a place; say whether something may be put there."""
        path = self.at(place)
        if self.leads_out(place):
            return False
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            return False
        return not os.path.isdir(path) or os.path.islink(path)

    @rule(place=places, content=contents, mode=modes)
    def write(self, place: bytes, content: bytes, mode: int) -> None:
        if self.has_room(place):
            if os.path.lexists(self.at(place)):
                os.unlink(self.at(place))
            with open(self.at(place), "wb") as file:
                file.write(content)
            os.chmod(self.at(place), mode)

    @rule(place=places, content=contents)
    def write_without_a_trace_in_size_and_time(self, place: bytes, content: bytes) -> None:
        path = self.at(place)
        if self.is_file(place):
            status = os.stat(path)
            new = (content * (status.st_size + 1))[: status.st_size] if content else b""
            with open(path, "r+b") as file:
                file.write(new)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    @rule(place=places, time=times, mode=modes)
    def touch(self, place: bytes, time: int, mode: int) -> None:
        path = self.at(place)
        if self.is_file(place):
            os.utime(path, ns=(time, time))
            os.chmod(path, mode)

    @rule(place=places)
    def hole(self, place: bytes) -> None:
        if self.has_room(place):
            if os.path.lexists(self.at(place)):
                os.unlink(self.at(place))
            with open(self.at(place), "wb") as file:
                file.seek(200_000)
                file.write(b"data" * 2_000)
                file.truncate(500_000)

    @rule(place=places, mode=st.sampled_from([0o755, 0o700, 0o555, 0o1777]))
    def make_directory(self, place: bytes, mode: int) -> None:
        if self.has_room(place) and not os.path.lexists(self.at(place)):
            os.mkdir(self.at(place))
        if self.is_directory(place):
            os.chmod(self.at(place), mode)

    @rule(
        place=places,
        leads=st.sampled_from([b"a", b"/", b"..", b"/etc/passwd", b"\xff", b"%", b"$"]),
    )
    def link(self, place: bytes, leads: bytes) -> None:
        if self.has_room(place) and not os.path.lexists(self.at(place)):
            os.symlink(leads, self.at(place))

    @rule(place=places, other=places)
    def second_name(self, place: bytes, other: bytes) -> None:
        path = self.at(place)
        if self.is_file(place) and self.has_room(other) and not os.path.lexists(self.at(other)):
            os.link(path, self.at(other))

    @rule(place=places)
    def pipe(self, place: bytes) -> None:
        if self.has_room(place) and not os.path.lexists(self.at(place)):
            os.mkfifo(self.at(place))

    @rule(place=places, other=places)
    def move(self, place: bytes, other: bytes) -> None:
        if os.path.lexists(self.at(place)) and not self.leads_out(place) and self.has_room(other):
            with contextlib.suppress(OSError):
                os.rename(self.at(place), self.at(other))

    @rule(place=places)
    def remove(self, place: bytes) -> None:
        path = self.at(place)
        if self.is_directory(place):
            shutil.rmtree(path)
        elif os.path.lexists(path) and not self.leads_out(place):
            os.unlink(path)

    @rule(target=captures)
    def capture(self):
        self.last = self.memory.capture(self.component, self.last)
        return self.last, picture(self.root)

    @rule(captured=captures)
    def rewind(self, captured, saved=None) -> None:
        stored, expected = captured
        before, kept = picture(self.root), left_out(self.root)
        try:
            self.component.restore_paths(stored, saved=saved)
        except RestoreConflictError:
            assert kept
            assert picture(self.root) == before
        else:
            found = picture(self.root)
            assert without_shells(found, self.root) == without_shells(expected, self.root)
            assert {path: found.get(path) for path in expected} == expected
        assert left_out(self.root) == kept
        assert self.component.verify_restored() == []

    @rule(captured=captures)
    def rewind_after_a_safety_capture(self, captured) -> None:
        with self.component.tracking(captured[0]):
            now = self.capture()
        self.rewind(captured, self.component.last)
        self.rewind(now)

    @rule(captured=captures)
    def restore_elsewhere(self, captured) -> None:
        stored, expected = captured
        before = picture(self.root)
        other = self.folder / "other"
        self.component.restore_paths(stored, to=other)
        assert picture(other) == expected
        shutil.rmtree(other)
        assert picture(self.root) == before

    @rule(captured=captures, place=names)
    def restore_one_path(self, captured, place: bytes) -> None:
        stored, expected = captured
        before = picture(self.root)
        if place not in expected and place not in before:
            return
        try:
            self.component.restore_paths(stored, [os.fsdecode(place)])
        except RestoreConflictError:
            return
        found = picture(self.root)
        rest = {p: w for p, w in found.items() if p.split(b"/")[0] != place}
        assert rest == {p: w for p, w in before.items() if p.split(b"/")[0] != place}
        own = {p: w for p, w in expected.items() if p.split(b"/")[0] == place}
        assert {path: found.get(path) for path in own} == own

    @invariant()
    def nothing_is_left_in_the_way(self) -> None:
        if hasattr(self, "root"):
            assert not (self.root / ".ckptlog-rewind").exists()


DirectoryMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None
)
TestDirectoryMachine = DirectoryMachine.TestCase
