"""What the component promises, case by case; test_machine has the random trees."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ckptlog.capture.directory import draft as drafts
from ckptlog.capture.directory import index_file, stat_index
from ckptlog.capture.directory import restoration as restoring
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.content import OpenFile
from ckptlog.capture.directory.scan import Options, Scan
from ckptlog.capture.directory.stage import STAGING
from ckptlog.errors import (
    ArgumentError,
    BlobCorruptionError,
    ChangedError,
    DeniedError,
    FormatError,
    NoSuchPartError,
    RestoreConflictError,
)
from tests.capture.directory.memory import Memory
from tests.capture.directory.picture import picture
from tests.repository.nobody import NOBODY, public_directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def memory() -> Memory:
    return Memory()


def old(root: Path) -> None:
    """Let the file system's clock go on, so that nothing is racily clean."""
    import time

    time.sleep(0.06)


def plant(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


# --- incremental ---------------------------------------------------------------------------------


def test_unchanged_files_are_not_read(root, memory, tmp_path, monkeypatch) -> None:
    plant(root, {"a": "a" * 1000, "b/c": "c", "b/d": "d" * 1000})
    component = DirectoryComponent("directory", root, index=tmp_path / "index")
    old(root)
    first = memory.capture(component)
    assert component.last.tally.files == 3
    read = []
    whole = OpenFile.read
    monkeypatch.setattr(OpenFile, "read", lambda self, e: read.append(self.size) or whole(self, e))
    second = memory.capture(component, first)
    assert second.reference == first.reference
    assert read == []
    (root / "b/d").write_text("e" * 1001)
    third = memory.capture(component, second)
    assert read == [1001]
    assert third.reference != first.reference
    assert memory.capture(DirectoryComponent("directory", root)).reference == third.reference


def test_a_change_within_one_tick_of_the_clock_is_seen(root, memory, tmp_path) -> None:
    component = DirectoryComponent("directory", root, index=tmp_path / "index")
    before = None
    for number in range(50):
        plant(root, {"a": f"{number:04}"})  # same size, often the same time
        captured = memory.capture(component, before)
        assert captured.entries()["a"].inline() == f"{number:04}".encode()
        before = captured


@pytest.mark.parametrize(
    ("ctime_ns", "read_ns", "is_trusted"),
    [
        (10_000_000_001, 10_000_000_001, False),
        (10_000_000_001, 10_019_000_000, False),  # within a tick of the clock
        (10_000_000_001, 10_021_000_000, True),
        (10_000_000_000, 11_900_000_000, False),  # a file system with whole seconds
        (10_000_000_000, 12_100_000_000, True),
        (10_000_000_001, 9_000_000_000, False),  # changed behind the walk
    ],
)
def test_what_is_racily_clean_is_never_trusted(ctime_ns, read_ns, is_trusted, tmp_path) -> None:
    row = ("a", stat.S_IFREG | 0o644, 1, ctime_ns, ctime_ns, 7)
    found = Scan(directories={"": [row]})
    path = tmp_path / "a.stat"
    draft = drafts.Draft("root", [], ["a"], read_ns, {"": [stat_index.Kept(b"x")]})
    index_file.save(path, Options(), found, draft)
    index = index_file.load(path, Options(), "root")
    assert index.equals(found) is is_trusted
    assert index.kept("", [row]) == ([stat_index.Kept(b"x")] if is_trusted else [None])


def test_a_time_set_back_does_not_hide_a_change(root, memory, tmp_path) -> None:
    plant(root, {"a": "one"})
    component = DirectoryComponent("directory", root, index=tmp_path / "index")
    old(root)
    first = memory.capture(component)
    status = os.stat(root / "a")
    plant(root, {"a": "two"})
    os.utime(root / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert memory.capture(component, first).entries()["a"].inline() == b"two"


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone", "other options", "other root"])
def test_an_index_that_is_not_sound_is_no_index(harm, root, memory, tmp_path) -> None:
    plant(root, {"a": "a" * 1000})
    component = DirectoryComponent("directory", root, index=tmp_path / "index")
    old(root)
    first = memory.capture(component)
    path = tmp_path / "index" / "directory.stat"
    raw = path.read_bytes()
    options = Options()
    if harm == "cut":
        path.write_bytes(raw[:-1])
    elif harm == "flipped":
        path.write_bytes(raw[:50] + bytes((raw[50] ^ 1,)) + raw[51:])
    elif harm == "gone":
        path.unlink()
    elif harm == "other options":
        options = Options(has_git=True)
    wanted = "0" * 64 if harm == "other root" else first.reference.root
    assert index_file.load(path, options, wanted) is None
    assert memory.capture(component, first).reference == first.reference


# --- changes while reading -----------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_is_told(root, memory, monkeypatch) -> None:
    plant(root, {"a": "a" * 1000})
    whole = OpenFile.read

    def read(self, extents):
        yield from whole(self, extents)
        with open(root / "a", "ab") as file:
            file.write(b"more")

    monkeypatch.setattr(OpenFile, "read", read)
    for consistency in ("cut", "file"):
        with pytest.raises(ChangedError, match="a changed while it was read"):
            memory.capture(DirectoryComponent("directory", root, consistency=consistency))
    with pytest.raises(ArgumentError):
        DirectoryComponent("directory", root, consistency="none")


def test_a_file_that_changed_since_the_walk(root, memory) -> None:
    plant(root, {"a": "before"})
    snapshot = DirectoryComponent("directory", root).capture()
    plant(root, {"a": "behind it"})
    with pytest.raises(ChangedError):
        memory.write(snapshot)
    snapshot = DirectoryComponent("directory", root, consistency="file").capture()
    plant(root, {"a": "behind"})
    assert memory.write(snapshot).entries()["a"].inline() == b"behind"


def test_what_is_removed_in_the_middle_is_left_out(root, memory) -> None:
    plant(root, {"a": "1", "b/c": "2", "d/e": "3"})
    snapshot = DirectoryComponent("directory", root).capture()
    (root / "a").unlink()
    shutil.rmtree(root / "b")
    assert list(memory.write(snapshot).entries()) == ["b", "d", "d/e"]


# --- what is left out, and told ------------------------------------------------------------------


def test_git_stores_and_special_files(root, memory) -> None:
    plant(
        root,
        {
            ".git/HEAD": "x",
            "sub/.git": "gitdir: x",
            ".ckptlog/store.json": "{}",
            "deep/store/store.json": "{}",
            "store.json": "mine",
            "kept": "",
        },
    )
    (root / ".ckptlog/log").mkdir()
    (root / "deep/store/log").mkdir()
    os.mkfifo(root / "pipe")
    captured = memory.capture(DirectoryComponent("directory", root))
    assert list(captured.entries()) == ["deep", "kept", "store.json", "sub"]
    assert captured.manifest().skipped == {"pipe": "pipe"}
    with_git = memory.capture(DirectoryComponent("directory", root, options=Options(has_git=True)))
    assert ".git/HEAD" in with_git.entries()
    other = memory.capture(
        DirectoryComponent("directory", root, options=Options(excluded=(str(root / "sub"),)))
    )
    assert "sub" not in other.entries()


def test_a_component_without_git_does_not_restore_it(root, memory) -> None:
    plant(root, {".git/hooks/post-checkout": "evil"})
    captured = memory.capture(DirectoryComponent("directory", root, options=Options(has_git=True)))
    component = DirectoryComponent("directory", root)
    with pytest.raises(FormatError, match="no restore writes"):
        component.restore(captured)
    assert component.validate(captured)


def test_a_directory_that_is_missing(tmp_path, memory) -> None:
    with pytest.raises(Exception, match="Cannot open the directory"):
        DirectoryComponent("directory", tmp_path / "none").capture()


def test_deep_trees_are_refused_by_name(root, memory) -> None:
    fd = os.open(root, os.O_RDONLY)
    for _ in range(410):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(DeniedError, match="deeper than 400"):
        DirectoryComponent("directory", root).capture()
    captured = memory.capture(
        DirectoryComponent("directory", root, options=Options(unreadable="report"))
    )
    assert any("deeper" in reason for reason in captured.manifest().skipped.values())
    subprocess.run(["rm", "-rf", root / "d"], check=True)


# --- restore -------------------------------------------------------------------------------------


def test_types_that_changed_places(root, memory) -> None:
    plant(root, {"file": "f" * 600, "dir/in": "i", "dir/sub/deep": "d"})
    os.symlink("file", root / "link")
    captured, expected = memory.capture(DirectoryComponent("directory", root)), picture(root)
    for one, other in (("file", "dir"), ("dir", "link"), ("link", "file"), ("file", "link")):
        _swap(root, one, other)
        assert picture(root) != expected
        component = DirectoryComponent("directory", root)
        assert component.plan(captured).changes
        component.restore(captured)
        assert picture(root) == expected
        assert component.plan(captured).changes == ()


def _swap(root: Path, one: str, other: str) -> None:
    os.rename(root / one, root / "x")
    os.rename(root / other, root / one)
    os.rename(root / "x", root / other)


def test_what_rules_leave_out_stays_and_is_never_overwritten_unseen(root, memory) -> None:
    plant(root, {".gitignore": "build/\n*.log\n", "src": "1", "build/out": "o", "a.log": "l"})
    captured = memory.capture(DirectoryComponent("directory", root))
    plant(root, {".gitignore": "", "new": "n"})  # the rules are gone, what they left out is there
    component = DirectoryComponent("directory", root)
    assert [(one.kind, one.path) for one in component.plan(captured).changes] == [
        ("change", ".gitignore"),
        ("remove", "new"),
    ]
    component.restore(captured)
    assert sorted(os.listdir(root)) == [".gitignore", "a.log", "build", "src"]
    assert (root / "build/out").read_text() == "o"


def test_a_conflict_changes_nothing(root, memory) -> None:
    plant(root, {".ckptlogignore": "*.o\n", "x": "file", "a": "1"})
    captured = memory.capture(DirectoryComponent("directory", root))
    (root / "x").unlink()
    plant(root, {"x/keep.o": "precious", "a": "2"})
    with pytest.raises(RestoreConflictError, match=r"x/keep\.o in it is in no capture"):
        DirectoryComponent("directory", root).restore(captured)
    assert (root / "x/keep.o").read_text() == "precious"
    assert (root / "a").read_text() == "2"
    assert not (root / STAGING).exists()


def test_unknown_files_can_be_kept(root, memory) -> None:
    plant(root, {"a": "1"})
    captured = memory.capture(DirectoryComponent("directory", root))
    plant(root, {"a": "2", "new": "n"})
    DirectoryComponent("directory", root, keeps_unknown=True).restore(captured)
    assert ((root / "a").read_text(), (root / "new").read_text()) == ("1", "n")


def test_single_paths(root, memory) -> None:
    plant(root, {"a/b/c": "1", "a/b/d": "1", "e": "1"})
    captured = memory.capture(DirectoryComponent("directory", root))
    shutil.rmtree(root / "a")
    plant(root, {"e": "2", "f": "2"})
    component = DirectoryComponent("directory", root)
    component.restore_paths(captured, ["./a/b/c"])
    assert sorted(picture(root)) == [b"a", b"a/b", b"a/b/c", b"e", b"f"]
    component.restore_paths(captured, ["f"])
    assert sorted(picture(root)) == [b"a", b"a/b", b"a/b/c", b"e"]
    with pytest.raises(NoSuchPartError, match="nowhere is neither"):
        component.restore_paths(captured, ["nowhere"])
    for path in ("../e", "a/../../e", ".", "", "/", "a\0b"):
        with pytest.raises(ArgumentError, match="names nothing below"):
            component.restore_paths(captured, [path])


def test_elsewhere(root, memory, tmp_path) -> None:
    plant(root, {"a": "1"})
    os.chmod(root, 0o750)
    captured = memory.capture(DirectoryComponent("directory", root))
    component = DirectoryComponent("directory", root)
    component.restore_paths(captured, to=tmp_path / "new/er")
    assert picture(tmp_path / "new/er") == picture(root)
    assert stat.S_IMODE(os.stat(tmp_path / "new/er").st_mode) == 0o750
    with pytest.raises(ArgumentError, match="not an empty directory"):
        component.restore_paths(captured, to=tmp_path / "new/er")
    with pytest.raises(ArgumentError, match="not an empty directory"):
        component.restore_paths(captured, to=root / "a")


def test_a_file_written_during_the_restore_is_not_overwritten(root, memory, monkeypatch) -> None:
    plant(root, {"a": "1", "b": "1"})
    captured = memory.capture(DirectoryComponent("directory", root))
    plant(root, {"a": "22", "b": "22"})
    staged = restoring.Restoration._staged

    def then_write(self, steps):
        made = staged(self, steps)
        plant(root, {"b": "by somebody"})
        return made

    monkeypatch.setattr(restoring.Restoration, "_staged", then_write)
    with pytest.raises(ChangedError, match="b was changed by another program"):
        DirectoryComponent("directory", root).restore(captured)
    assert (root / "b").read_text() == "by somebody"
    monkeypatch.undo()
    component = DirectoryComponent("directory", root)
    assert (root / "a").read_text() == "22"  # that one was taken back
    assert component.verify_restored() == []
    component.restore(captured)
    assert (root / "b").read_text() == "1"
    assert component.verify_restored() == []


def test_sparse_files_stay_sparse(root, memory) -> None:
    with open(root / "big", "wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
    component = DirectoryComponent("directory", root)
    captured, expected = memory.capture(component), (root / "big").stat()
    assert memory.size < 100_000
    (root / "big").unlink()
    component.restore(captured)
    found = (root / "big").stat()
    assert (found.st_size, found.st_blocks) == (expected.st_size, expected.st_blocks)
    with open(root / "big", "rb") as file:
        file.seek(1 << 30)
        assert file.read() == b"end"


def test_attributes(root, memory) -> None:
    plant(root, {"a": "1"})
    try:
        os.setxattr(root / "a", "user.note", b"\xff1")
    except OSError:
        pytest.skip("this file system has no attributes")
    component = DirectoryComponent("directory", root, options=Options(has_attributes=True))
    captured = memory.capture(component)
    os.setxattr(root / "a", "user.note", b"2")
    assert component.plan(captured).summary == "1 to change"
    component.restore(captured)
    assert os.getxattr(root / "a", "user.note") == b"\xff1"


def test_hard_links_become_files_of_their_own(root, memory) -> None:
    plant(root, {"a": "x" * 600})
    os.link(root / "a", root / "b")
    component = DirectoryComponent("directory", root)
    captured = memory.capture(component)
    assert component.last.tally.hard_links == 2
    (root / "b").unlink()
    component.restore(captured)
    assert (root / "b").read_text() == "x" * 600
    assert (root / "a").stat().st_ino != (root / "b").stat().st_ino


def test_all_names_of_one_file_are_restored_in_one_run(root, memory) -> None:
    """Each name that is taken away renews the ctime of those that are left."""
    plant(root, {"a": "x" * 600, "turned": "x" * 600})
    for name in ("b", "c", "d"):
        os.link(root / "a", root / name)
    component = DirectoryComponent("directory", root)
    captured, expected = memory.capture(component), picture(root)
    with open(root / "a", "r+") as file:
        file.write("changed in all")
    os.link(root / "a", root / "new")
    (root / "turned").unlink()
    (root / "turned").mkdir()
    os.link(root / "a", root / "turned/in")
    component.restore(captured)
    assert picture(root) == expected
    assert component.plan(captured).changes == ()


def test_a_mode_is_not_given_to_the_other_names_of_a_file(root, memory, tmp_path) -> None:
    plant(root, {"a": "x" * 600, "b": "x" * 600})
    os.chmod(root / "b", 0o600)
    component = DirectoryComponent("directory", root)
    captured, expected = memory.capture(component), picture(root)
    (root / "b").unlink()
    os.link(root / "a", root / "b")
    os.link(root / "a", tmp_path / "outside")
    component.restore(captured)
    assert picture(root) == expected
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o644


def test_the_preview(root, memory) -> None:
    plant(root, {"text": "one\ntwo\n", "bin": b"\0\1", "gone": "g"})
    os.symlink("a", root / "link")
    captured = memory.capture(DirectoryComponent("directory", root))
    plant(root, {"text": "one\n2", "bin": b"\0\2", "new": "n\n"})
    os.chmod(root / "text", 0o600)
    (root / "gone").unlink()
    (root / "link").unlink()
    os.symlink("b", root / "link")
    lines = list(DirectoryComponent("directory", root).diff(captured))
    for line in (
        "old mode 0600",
        "new mode 0644",
        "+two",
        "-2 (no line feed at the end)",
        "Binary files differ: 2 bytes here, 2 in the capture",
        "new file",
        "removed",
        "-n",
        "+++ /dev/null",
        "--- /dev/null",
        "+a (no line feed at the end)",
    ):
        assert line in lines, lines


# --- hostile payloads ----------------------------------------------------------------------------

BAD_ENTRIES = {
    "out": '{"../evil":{"type":"file","mode":420,"mtime":0,"size":1,"content":"x"}}',
    "absolute": '{"/evil":{"type":"file","mode":420,"mtime":0,"size":1,"content":"x"}}',
    "hidden dots": '{"%2E%2E/evil":{"type":"file","mode":420,"mtime":0,"size":1,"content":"x"}}',
    "through a link": '{"a":{"type":"link","mtime":0,"target":"/tmp"},'
    '"a/evil":{"type":"file","mode":420,"mtime":0,"size":1,"content":"x"}}',
    "through a file": '{"a":{"type":"file","mode":420,"mtime":0,"size":0,"content":""},'
    '"a/evil":{"type":"file","mode":420,"mtime":0,"size":1,"content":"x"}}',
    "no parent": '{"a/evil":{"type":"file","mode":420,"mtime":0,"size":1,"content":"x"}}',
    "ours": '{".ckptlog-rewind":{"type":"directory","mode":493}}',
    "git": '{".git":{"type":"directory","mode":493}}',
    "mode": '{"a":{"type":"file","mode":65535,"mtime":0,"size":0,"content":""}}',
    "time": '{"a":{"type":"file","mode":420,"mtime":9223372036854775808,"size":0,"content":""}}',
    "type": '{"a":{"type":"device","mode":420}}',
    "no target": '{"a":{"type":"link","mtime":0,"target":""}}',
    "NUL in a target": '{"a":{"type":"link","mtime":0,"target":"a\\u0000b"}}',
    "extents": '{"a":{"type":"file","mode":420,"mtime":0,"size":4,"extents":[[2,2],[0,2]],"content":"abcd"}}',
    "behind the end": '{"a":{"type":"file","mode":420,"mtime":0,"size":4,"extents":[[2,4]],"content":"abcd"}}',
    "a list": "[1]",
    "an odd field": '{"a":{"type":"directory","mode":420,"owner":1}}',
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_hostile_payloads_change_nothing(name, root, memory) -> None:
    plant(root, {"mine": "1"})
    before = picture(root)
    component = DirectoryComponent("directory", root)
    hostile = memory.payload(
        b'{"format":1,"kind":"directory","mode":493,"entries":%b,"skipped":{}}'
        % BAD_ENTRIES[name].encode()
    )
    assert component.validate(hostile)
    with pytest.raises(FormatError):
        component.restore(hostile)
    assert picture(root) == before
    assert sorted(os.listdir(root.parent)) == ["root"]


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ('"size":5,"content":"x"', FormatError),
        ('"size":1,"blake3":"00","content":"x"', BlobCorruptionError),
        ('"size":1,"content":{"$bytes":"#7"}', FormatError),
        ('"size":1,"content":{"$bytes":"#-1"}', FormatError),
        ('"size":1,"content":{"$bytes":"!"}', FormatError),
    ],
)
def test_content_that_is_not_its_entrys_is_never_put_in_place(entry, error, root, memory) -> None:
    plant(root, {"a": "1", "b": "1"})
    before = picture(root)
    hostile = memory.payload(
        b'{"format":1,"kind":"directory","mode":493,"entries":{"a":{"type":"file","mode":420,'
        b'"mtime":0,%b}},"skipped":{}}' % entry.encode()
    )
    with pytest.raises(error):
        DirectoryComponent("directory", root).restore(hostile)
    assert picture(root) == before


def test_newer_formats_are_refused(root, memory) -> None:
    newer = memory.payload(b'{"format":2,"kind":"directory","mode":493,"entries":{},"skipped":{}}')
    with pytest.raises(FormatError, match="format 2"):
        DirectoryComponent("directory", root).restore(newer)
    other = memory.payload(b'{"tables":[]}')
    assert "not that of a directory" in DirectoryComponent("directory", root).validate(other)[0]


def test_a_directory_swapped_for_a_link_leads_nowhere(root, memory, tmp_path, monkeypatch) -> None:
    plant(root, {"d/a": "1"})
    captured = memory.capture(DirectoryComponent("directory", root))
    plant(root, {"d/a": "22"})
    outside = tmp_path / "outside"
    plant(outside, {"a": "precious"})
    staged = restoring.Restoration._staged

    def then_swap(self, steps):
        made = staged(self, steps)
        shutil.rmtree(root / "d")
        os.symlink(outside, root / "d")
        return made

    monkeypatch.setattr(restoring.Restoration, "_staged", then_swap)
    with pytest.raises(ChangedError):
        DirectoryComponent("directory", root).restore(captured)
    assert (outside / "a").read_text() == "precious"


def test_a_new_file_is_not_made_through_a_link(root, memory, tmp_path, monkeypatch) -> None:
    plant(root, {"d/a": "1"})
    captured = memory.capture(DirectoryComponent("directory", root))
    (root / "d/a").unlink()
    outside = tmp_path / "outside"
    outside.mkdir()
    staged = restoring.Restoration._staged

    def then_swap(self, steps):
        made = staged(self, steps)
        (root / "d").rmdir()
        os.symlink(outside, root / "d")
        return made

    monkeypatch.setattr(restoring.Restoration, "_staged", then_swap)
    with pytest.raises(ChangedError):
        DirectoryComponent("directory", root).restore(captured)
    assert os.listdir(outside) == []


def test_a_root_swapped_for_a_link_leads_nowhere(root, memory, tmp_path, monkeypatch) -> None:
    plant(root, {"a": "1", "d/b": "2"})
    captured = memory.capture(DirectoryComponent("directory", root))
    (root / "a").unlink()
    outside = tmp_path / "outside"
    outside.mkdir()
    whole = restoring.Restoration.run

    def then_swap(self, *arguments):
        root.rename(tmp_path / "aside")
        root.symlink_to(outside)
        whole(self, *arguments)

    monkeypatch.setattr(restoring.Restoration, "run", then_swap)
    with pytest.raises(ChangedError):
        DirectoryComponent("directory", root).restore(captured)
    assert os.listdir(outside) == []


# --- another user --------------------------------------------------------------------------------

OTHER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.capture.directory.memory import Memory
from tests.capture.directory.picture import picture
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.scan import Options, Scan
from ckptlog.errors import DeniedError
import shutil, stat, difflib, base64
os.setgid(65534); os.setuid(65534)
root = Path(sys.argv[1]); memory = Memory(); component = DirectoryComponent("directory", root)
(root / "locked/in").mkdir(parents=True); (root / "locked/in/a").write_text("1")
(root / "b").write_text("1"); os.chmod(root / "b", 0o444)
os.chmod(root / "locked/in", 0o555); os.chmod(root / "locked", 0o555)
first, expected = memory.capture(component), picture(root)
os.chmod(root / "locked", 0o755); os.chmod(root / "locked/in", 0o755)
(root / "locked/in/a").write_text("2"); (root / "locked/in/new").write_text("2")
os.chmod(root / "locked/in", 0o555)
(root / "b").unlink(); (root / "b").write_text("2")
component.restore(first)
assert picture(root) == expected
os.chmod(root / "locked", 0o755); os.chmod(root / "locked/in", 0o755)
shutil.rmtree(root / "locked")
component.restore(first)
assert picture(root) == expected
os.chmod(root / "locked", 0)
try: memory.capture(component)
except DeniedError as error: assert "locked" in error.message and ".ckptlogignore" in error.hint
else: raise AssertionError
reported = memory.capture(DirectoryComponent("directory", root, options=Options(unreadable="report")))
assert reported.manifest().skipped == {"locked": "cannot be opened: Permission denied"}
os.chmod(root / "locked", 0o700)
open_again = picture(root)
assert component.plan(reported).changes  # the mode
component.restore(reported)
os.chmod(root / "locked", 0o700)
assert picture(root) == open_again  # what nobody could read then is in no capture, and stays
component.restore(first)
assert picture(root) == expected
os.chmod(root / "b", 0)
reported = memory.capture(DirectoryComponent("directory", root, options=Options(unreadable="report")))
os.chmod(root / "b", 0o444)
component.restore(reported)
assert picture(root) == expected
os.chmod(root / "b", 0)
try: memory.capture(component)
except DeniedError as error: assert error.message.endswith("b cannot be read: Permission denied.")
else: raise AssertionError
print("done")
"""


@pytest.mark.root
def test_without_rights_of_the_superuser() -> None:
    here = Path(__file__).parents[3]
    with public_directory() as folder:
        root = folder / "theirs"
        root.mkdir()
        os.chown(root, NOBODY, NOBODY)
        done = subprocess.run(
            [sys.executable, "-c", OTHER, root, here], capture_output=True, text=True, check=False
        )
    assert done.stdout == "done\n", done.stderr
