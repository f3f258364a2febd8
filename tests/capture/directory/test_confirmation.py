"""A walk over what is remembered finds what a walk without any memory finds, in C and in Python."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.capture.directory import confirmation, folder, index_file, stat_index, table
from ckptlog.capture.directory.draft import Draft
from ckptlog.capture.directory.listing import NOTHING, Listing
from ckptlog.capture.directory.scan import Options, Scan, scan
from ckptlog.kernel import native
from tests.capture.directory.picture import FAST

RESERVED = frozenset({".git", ".ckptlog-rewind"})
NAMES = ["a", "b", "log", "store.json", ".gitignore", ".ckptlogignore", ".git", "%", "\udcff", "x"]
RULES = ["b\n", "x/\n", "*\n!a\n", ".gitignore\n", "", "/a/b\n", "b/\n"]
LATER_NS = 1 << 62  # nothing is racy: the edits below always change a size, or an inode


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir=FAST))
    yield made / "root"
    shutil.rmtree(made)


def remembered(root: Path, found: Scan) -> stat_index.StatIndex:
    """Return the index of a walk whose files were all read."""
    listing = Listing(found, None if found.base is None else found.base)
    added = {
        place: (listing.entry(place)[1], NOTHING)
        for place in range(len(listing.keys))
        if listing.entry(place)[2] is None
    }
    contents = listing.finish(added)
    draft = Draft("root", [], listing.keys, LATER_NS, contents)
    path = root.parent / "index"
    index_file.save(path, Options(), found, draft)
    index = index_file.load(path, Options())
    assert index is not None
    assert index.keys == Listing(found, None).keys
    return index


def told(found: Scan) -> dict[str, object]:
    """Return all that a walk says."""
    left = {folder: sorted(found.left_of(folder)) for folder in found.folders()}
    return {
        "paths": list(found.paths()),
        "left": {folder: names for folder, names in left.items() if names},
        "skipped": found.skipped,
        "mode": found.root_mode,
    }


def both(root: Path, index: stat_index.StatIndex) -> list[str]:
    """Return the directories that are not confirmed; C and Python say the same."""
    fd = os.open(root, os.O_RDONLY)
    try:
        expected = confirmation._confirm(fd, index.blob, index.records, RESERVED)
        if native is not None:
            names = b"".join(os.fsencode(name) + b"\0" for name in sorted(RESERVED))
            assert native.confirm(fd, index.blob, 0, len(index.blob), names) == expected
            found = confirmation._natively(native, fd, index.blob, index.records * 1, RESERVED)
            assert found == expected
        return [one.path for one, flag in zip(index.records, expected, strict=True) if not flag]
    finally:
        os.close(fd)


def edit(root: Path, draw: random.Random, serial: int) -> None:
    """Make one change of any kind; a file's size tells it from all that were there before."""
    place = root.joinpath(*draw.choices(NAMES[:4] + NAMES[7:], k=draw.randint(0, 2)))
    path = place / draw.choice(NAMES)
    what = draw.choice(["write", "write", "remove", "folder", "link", "chmod", "pipe", "rules"])
    try:
        place.mkdir(parents=True, exist_ok=True)
        if what == "rules":
            path = place / draw.choice([".gitignore", ".ckptlogignore"])
        if what in {"write", "rules"}:
            text = draw.choice(RULES) + "#" * serial
            path.unlink(missing_ok=True)  # one may be a pipe, or a link to one
            path.write_text(text)
        elif what == "remove":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif what == "folder":
            path.mkdir()
        elif what == "link":
            path.symlink_to("a" * (serial % 200 + 1))
        elif what == "chmod":
            path.chmod(draw.choice([0o700, 0o755]))
        else:
            os.mkfifo(path)
    except OSError:
        pass


@given(st.integers(0, 10**9), st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_every_edit_is_seen(seed: int, counts: list[int]) -> None:
    draw = random.Random(seed)
    folder = Path(tempfile.mkdtemp(dir=FAST))
    root = folder / "root"
    root.mkdir()
    try:
        serial = 1
        for _ in range(12):
            serial += 1
            edit(root, draw, serial)
        index = remembered(root, scan(root, Options()))
        for count in counts:
            for _ in range(count):
                serial += 1
                edit(root, draw, serial)
            both(root, index)
            found, plain = scan(root, Options(), None, index), scan(root, Options())
            assert told(found) == told(plain)
            assert index.equals(found) == index.equals(plain)
            tracked = {path for path, _ in plain.paths() if draw.random() < 0.5}
            tracked |= {f"{path}/b" for path in plain.folders() if path} | {"b", "x"}
            forced = scan(root, Options(), lambda tracked=tracked: tracked, index)
            assert told(forced) == told(scan(root, Options(), lambda tracked=tracked: tracked))
            index = remembered(root, found)
    finally:
        shutil.rmtree(folder)


def test_what_is_as_it_was_is_taken_over(root: Path) -> None:
    for path in ("a/b/c", "a/d", "e/f", "g"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    index = remembered(root, scan(root, Options()))
    assert both(root, index) == []
    assert scan(root, Options(), None, index).directories == {}
    (root / "a/b/c").write_text("other")
    assert both(root, index) == ["a/b"]
    found = scan(root, Options(), None, index)
    assert set(found.directories) == {"a/b"}
    assert not index.equals(found)
    (root / "e/new").write_text("")
    (root / "a/d").unlink()
    assert both(root, index) == ["a", "a/b", "e"]


@pytest.mark.parametrize("change", ["size", "time", "mode", "inode", "type"])
def test_each_field_counts(change: str, root: Path) -> None:
    root.mkdir()
    path = root / "a"
    path.write_text("a")
    index = remembered(root, scan(root, Options()))
    status = path.stat()
    if change == "size":
        path.write_text("ab")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "mode":
        path.chmod(0o600)
    elif change == "inode":
        (root / "b").write_text("b")
        os.utime(root / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
        (root / "b").replace(path)
    else:
        path.unlink()
        path.mkdir()
    assert both(root, index) == [""]


def test_rules_outside_the_tree_count(root: Path) -> None:
    (root / ".git/info").mkdir(parents=True)
    (root / "a").mkdir()
    (root / "a/x").write_text("")
    index = remembered(root, scan(root, Options()))
    (root / ".git/info/exclude").write_text("x\n")
    assert both(root, index) == []
    found = scan(root, Options(), None, index)
    assert [path for path, _ in found.paths()] == ["a"]


def test_a_store_in_the_tree_is_asked_for_each_time(root: Path) -> None:
    (root / "s/log").mkdir(parents=True)
    (root / "s/store.json").write_text("")
    index = remembered(root, scan(root, Options()))
    assert [path for path, _ in scan(root, Options(), None, index).paths()] == []
    (root / "s/store.json").unlink()
    found = scan(root, Options(), None, index)
    assert [path for path, _ in found.paths()] == ["s", "s/log"]


@pytest.mark.skipif(native is None, reason="the kernel was not compiled here")
def test_bytes_that_are_no_records() -> None:
    one = table.record("", table.encoded([], []), flags=0, directories=1, entries=0, begin=0)
    fd = os.open("/", os.O_RDONLY)
    try:
        for cut in range(1, len(one)):
            with pytest.raises(ValueError, match="cut"):
                native.confirm(fd, one[:cut], 0, cut, b"")
        for start, stop in ((-1, 1), (1, 0), (0, len(one) + 1)):
            with pytest.raises(ValueError, match="range"):
                native.confirm(fd, one, start, stop, b"")
        draw = random.Random(1)
        whole = table.record(
            "", table.encoded([("a", 1, 2, 3, 4, 5)], [("b", True)]), flags=0, directories=1,
            entries=1, begin=0,
        )  # fmt: skip
        for _ in range(3_000):
            harmed = bytearray(whole)
            for _ in range(draw.randint(1, 3)):
                harmed[draw.randrange(len(harmed))] = draw.randrange(256)
            with contextlib.suppress(ValueError):
                assert set(native.confirm(fd, bytes(harmed), 0, len(harmed), b"")) <= {0, 1}
    finally:
        os.close(fd)


@pytest.mark.skipif(native is None, reason="the kernel was not compiled here")
def test_a_folder_is_listed_alike_in_c_and_in_python(root: Path) -> None:
    root.mkdir()
    for number in range(300):
        (root / f"f{number}").write_text("x" * number)
    (root / os.fsdecode(b"odd\xff")).write_text("")
    (root / "folder").mkdir()
    (root / "folder").chmod(0o2701)
    (root / "link").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("")
    os.utime(root / "f1", ns=(-1_000_000_001, -1_000_000_001))
    fd = os.open(root, os.O_RDONLY)
    try:
        for _ in range(2):  # it begins at the beginning each time
            found = folder.look(fd, RESERVED)
            assert list(map(sorted, found[:3])) == list(map(sorted, folder._look(fd, RESERVED)[:3]))
        assert len(found.rows) == 304
        assert [name for name, _ in found.special] == ["pipe"]
        assert [name for name, *_ in found.folders] == ["folder"]
        with pytest.raises(ValueError, match="without its end"):
            native.look(fd, b".git")
    finally:
        os.close(fd)
    assert native.look(fd, b"") is None
    with pytest.raises(OSError, match=r"."):
        folder.look(fd, RESERVED)


rows = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=9).filter(lambda name: not {0, 47} & set(name)),
        st.integers(1, 1 << 32),
        st.integers(0, 1 << 62),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.integers(0, (1 << 64) - 1),
    ),
    unique_by=lambda row: row[0],
)


@given(rows, st.sets(st.integers(0, 99)))
def test_tables_come_back(given_rows: list, left: set[int]) -> None:
    expected = sorted((os.fsdecode(name), *rest) for name, *rest in given_rows)
    names = [(f"{number}\n", number % 2 == 0) for number in left]
    found, gone = table.decoded(table.encoded(expected, names))
    assert found == expected
    assert sorted(gone) == sorted(names)
