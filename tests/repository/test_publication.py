from __future__ import annotations

import errno
import os
import stat

import pytest

import ckptlog
from ckptlog.errors import (
    ArgumentError,
    CheckpointStorageError,
    ForkedError,
    RewrittenError,
)
from ckptlog.formats import note, tile
from ckptlog.formats.merkle import Frontier
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.publication import Publication
from tests.repository.attested import house


@pytest.fixture
def home(tmp_path):
    return house(tmp_path)


def publish(home, folder, progress=None):
    with home.open() as store:
        return Publication(store.notary, folder, progress).publish(store.notary.sign())


def batch(home, events):
    with ckptlog.CheckpointManager(home.path) as manager, manager.batch() as work:
        for step in range(1, events + 1):
            work.create_checkpoint("many", "Many", step)


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def verified(folder):
    """Return the events that are published, having compared them with tiles and head."""
    text = note.decode((folder / "checkpoint").read_bytes()).text
    size = int(text.splitlines()[1])
    entries = []
    for number in range(-(-size // 256)):
        width = min(256, size - 256 * number)
        data = (folder / tile.tile_path("entries", number, width)).read_bytes()
        entries += tile.decode_entries(data)
    row = [leaf_hash(entry) for entry in entries]
    root = root_of(row)
    for level, count in tile.levels(size):
        assert len(row) == count
        for number in range(-(-count // 256)):
            part = row[number * 256 : number * 256 + 256]
            data = (folder / tile.tile_path(level, number, len(part))).read_bytes()
            assert tile.decode_hashes(data) == part
        row = [root_of(row[at : at + 256]) for at in range(0, count // 256 * 256, 256)]
    assert note.decode_base64(text.splitlines()[2]) == root
    return entries


def root_of(hashes):
    frontier = Frontier()
    for one in hashes:
        frontier.add(one)
    return frontier.root


def test_published_anew_only_what_is_new(home, tmp_path):
    folder = tmp_path / "tiles"
    first = publish(home, folder)
    assert (first.former, first.head.size, first.files) == (0, 10, 3)
    batch(home, 300)
    before = files(folder)
    second = publish(home, folder)
    assert (second.former, second.head.size) == (10, 310)
    # entries 0 and 1.p, hashes 0 and 1.p, level 1 0.p, checkpoint
    assert second.files == 6
    after = files(folder)
    assert len(verified(folder)) == 310
    assert "tile/0/000.p/10" in before
    assert "tile/0/000.p/10" not in after
    assert {path for path in before if after.get(path) != before[path]} == {
        "checkpoint",
        "tile/0/000.p/10",
        "tile/entries/000.p/10",
    }
    third = publish(home, folder)
    assert (third.files, third.bytes, files(folder)) == (0, 0, after)


@pytest.mark.parametrize("steps", [[1, 1, 1], [245, 1], [246, 1], [246, 256, 1], [600, 700]])
def test_whatever_the_steps_the_files_are_right(home, tmp_path, steps):
    folder, size = tmp_path / "tiles", 10
    publish(home, folder)
    for step in steps:
        batch(home, step)
        size += step
        assert publish(home, folder).head.size == size
        assert len(verified(folder)) == size
    fresh = tmp_path / "fresh"
    publish(home, fresh)
    whole = files(fresh)
    assert {name: files(folder)[name] for name in whole} == whole


def test_an_empty_log(tmp_path):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        done = Publication(store.notary, tmp_path / "tiles").publish(store.notary.sign())
    assert (done.head.size, done.files) == (0, 1)


def test_a_publication_that_was_killed_is_gone_on_with(home, tmp_path, monkeypatch):
    folder = tmp_path / "tiles"
    publish(home, folder)
    batch(home, 600)
    head = (folder / "checkpoint").read_bytes()
    put, calls = Publication._put, []

    def killed(self, name, data, **options):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        put(self, name, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Publication, "_put", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(home, folder)
    assert (folder / "checkpoint").read_bytes() == head  # what it signs is all there
    publish(home, folder)
    assert len(verified(folder)) == 610


def test_the_head_is_written_last(home, tmp_path, monkeypatch):
    folder, order = tmp_path / "tiles", []
    write = ckptlog.storage.files.write_atomically

    def noted(path, data, **options):
        order.append(path.name)
        write(path, data, **options)

    monkeypatch.setattr("ckptlog.repository.publication.files.write_atomically", noted)
    publish(home, folder)
    assert order[-1] == "checkpoint"
    assert order.count("checkpoint") == 1


def test_a_folder_of_another_log_is_refused(home, tmp_path):
    (tmp_path / "b").mkdir()
    publish(house(tmp_path / "b"), tmp_path / "tiles")
    before = files(tmp_path / "tiles")
    with pytest.raises(ForkedError):
        publish(home, tmp_path / "tiles")
    with home.open() as store:
        store.notary.fork()
    assert files(tmp_path / "tiles") == before


def test_a_folder_of_another_past_is_refused(home, tmp_path):
    copy = home.back_up()
    home.write(5)
    publish(home, tmp_path / "tiles")
    before = files(tmp_path / "tiles")
    other = home._replace(path=copy)
    other.write(9, task="other")
    with other.open() as store:
        # The memory of what was signed is lost, and so only the folder tells.
        (home.keys / "head").unlink()
        signed = store.notary.sign()
        with pytest.raises(RewrittenError):
            Publication(store.notary, tmp_path / "tiles").publish(signed)
    assert files(tmp_path / "tiles") == before


def test_a_published_file_that_was_changed_is_not_written_over(home, tmp_path):
    folder = tmp_path / "tiles"
    publish(home, folder)
    for name in ("tile/0/000.p/10", "tile/entries/000.p/10"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(b"something else")
        with pytest.raises(RewrittenError, match="something else"):
            publish(home, folder)
        assert (folder / name).read_bytes() == b"something else"
        (folder / name).write_bytes(whole)
    publish(home, folder)


@pytest.mark.parametrize("former", [0, 10, 310])
@pytest.mark.parametrize("again", [0, 300])
def test_what_a_power_cut_has_emptied_is_written_again(home, tmp_path, former, again):
    """Names of tiles may be on the medium without their bytes, as long as no head covers them."""
    folder = tmp_path / "tiles"
    if former > 10:
        batch(home, former - 10)
    if former:
        publish(home, folder)
    published = files(folder)
    batch(home, 600)
    publish(home, folder)
    # As if it had been cut before `checkpoint`: all that is new is there by name only.
    for name in files(folder):
        if name not in published:
            (folder / name).write_bytes(b"")
    for name, data in published.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    if not former:
        (folder / "checkpoint").unlink()
    if again:
        batch(home, again)
    done = publish(home, folder)
    assert done.former == former
    assert len(verified(folder)) == done.head.size
    assert publish(home, folder).files == 0


def synced(monkeypatch, fail=None):
    """Note what is synced; return the inodes, in order."""
    done = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def noted(fd, real=real):
            found = os.fstat(fd)
            if fail is not None and fail(found):
                raise OSError(errno.EIO, "the medium is bad")
            real(fd)
            done.append(found.st_ino)

        monkeypatch.setattr(os, name, noted)
    return done


@pytest.mark.parametrize("is_killed", [False, True])
def test_all_is_on_the_medium_before_the_head_is(home, tmp_path, monkeypatch, is_killed):
    """Also what a killed call has left: right, and perhaps in memory only."""
    folder = tmp_path / "new" / "tiles"
    batch(home, 600)
    if is_killed:
        publish(home, folder)
        (folder / "checkpoint").unlink()
    checkpoint, seen = Publication._checkpoint, []
    with monkeypatch.context() as patch:
        done = synced(patch)

        def noted(self, signed):
            seen.extend(done)
            checkpoint(self, signed)

        patch.setattr(Publication, "_checkpoint", noted)
        publish(home, folder)
    wanted = [path for path in folder.rglob("*") if path.name != "checkpoint"]
    assert len([path for path in wanted if path.is_file()]) == 7
    above = [folder, *([] if is_killed else [folder.parent, tmp_path])]
    assert {path.stat().st_ino for path in [*wanted, *above]} <= set(seen)


@pytest.mark.parametrize("kind", [stat.S_ISREG, stat.S_ISDIR])
def test_a_sync_that_fails_keeps_the_head_back(home, tmp_path, monkeypatch, kind):
    folder = tmp_path / "tiles"
    publish(home, folder)
    batch(home, 600)
    head = (folder / "checkpoint").read_bytes()
    with home.open() as store:
        signed = store.notary.sign()
        with monkeypatch.context() as patch:
            synced(patch, lambda found: kind(found.st_mode))
            with pytest.raises(CheckpointStorageError):
                Publication(store.notary, folder).publish(signed)
    assert (folder / "checkpoint").read_bytes() == head
    publish(home, folder)
    assert len(verified(folder)) == 610


def test_progress_is_told(home, tmp_path):
    batch(home, 600)
    told = []
    publish(home, tmp_path / "tiles", lambda done, total: told.append((done, total)))
    assert told == [(256, 610), (512, 610), (610, 610)]


@pytest.mark.parametrize("place", [".", "heads/tiles", "views", ".."])
def test_a_folder_in_the_store_or_around_it_is_refused(home, place):
    before = files(home.path)
    with home.open() as store, pytest.raises(ArgumentError, match="lie in one another"):
        Publication(store.notary, home.path / place)
    assert files(home.path).keys() <= before.keys() | {"log/end"}


def test_a_folder_in_another_store_or_a_backup_is_refused(home, tmp_path):
    (tmp_path / "other").mkdir()
    other = house(tmp_path / "other")
    with home.open() as store:
        store.backup(tmp_path / "b")
        (tmp_path / "link").symlink_to(tmp_path / "b")
        for place in (other.path / "tiles", tmp_path / "b", tmp_path / "link" / "tiles"):
            with pytest.raises(ArgumentError, match="a store or a backup"):
                Publication(store.notary, place)


@pytest.mark.parametrize("place", ["plain", "plain/tiles", "pipe"])
def test_a_folder_that_is_a_file(home, tmp_path, place):
    (tmp_path / "plain").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    with home.open() as store, pytest.raises(ArgumentError, match="is not a directory"):
        Publication(store.notary, tmp_path / place)
    assert (tmp_path / "plain").read_text() == "mine"
