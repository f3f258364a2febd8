"""Levels of verification, what each finds, and going on after an interruption."""

from __future__ import annotations

import json
import os

import msgspec
import pytest

import ckptlog
from ckptlog.errors import ArgumentError, InputOutputError
from ckptlog.formats import chunk, frame
from ckptlog.formats.segment import segment_name
from ckptlog.repository.depth import Depth, damaged_share_max
from ckptlog.repository.verify import verify_directory
from ckptlog.storage.disk import Disk
from ckptlog.storage.environment import Environment
from tests.repository.damage import codes, only
from tests.repository.ruin import build, files_of, frames_of, fresh


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("levels") / "s"
    build(path)
    return path


@pytest.fixture
def store(built, tmp_path):
    return fresh(built, tmp_path / "s")


@pytest.mark.parametrize("level", ["structure", "existence", "sampled", "full"])
def test_every_level_finds_a_sound_store_sound(store, level):
    report = verify_directory(store, level)
    assert report.ok
    assert (report.problems_total, report.losses) == (0, ())
    hashed = {"structure": 0, "full": report.chunks}
    assert report.chunks_hashed == hashed.get(level, report.chunks_hashed)
    assert (report.share is not None) == (level == "sampled")
    assert json.loads(json.dumps(report.to_dict()))["level"] == level


def pack_of(store):
    return only(store, "packs/*.pack")


def store_id(store):
    with ckptlog.open(store, read_only=True) as opened:
        return opened.info.id_bytes


def leaves_in(path, identity):
    """Return (offset, length) of frames of leaves in a pack."""
    data = path.read_bytes()
    return [
        (begin, length)
        for kind, begin, length in frames_of(path, identity)
        if kind == frame.CHUNK and data[begin + 16 + 35] == chunk.LEAF
    ]


def test_what_each_level_finds(store):
    path = pack_of(store)
    data = path.read_bytes()
    offset, length = leaves_in(path, store_id(store))[3]
    levels = ("structure", "existence", "full")
    damaged = bytearray(data)
    damaged[offset + length - 1] ^= 1  # the chunk's last byte
    path.write_bytes(bytes(damaged))
    assert [verify_directory(store, level).ok for level in levels] == [True, True, False]
    damaged = bytearray(data)
    damaged[offset : offset + 40] = bytes(40)  # its frame's head
    path.write_bytes(bytes(damaged))
    assert [verify_directory(store, level).ok for level in levels] == [True, False, False]
    path.write_bytes(data[:-1])
    assert [verify_directory(store, level).ok for level in levels] == [False, False, False]


def test_a_sample_is_chosen_by_its_seed(store):
    path = pack_of(store)
    offset, length = leaves_in(path, store_id(store))[3]
    damaged = bytearray(path.read_bytes())
    damaged[offset + length - 1] ^= 1
    path.write_bytes(bytes(damaged))
    found = [
        verify_directory(store, Depth("sampled", 0.5, seed)).ok for seed in range(8) for _ in "ab"
    ]
    assert found[::2] == found[1::2]
    assert len(set(found)) == 2
    assert not verify_directory(store, Depth("sampled", 1.0)).ok


def test_confidence():
    assert damaged_share_max(0) == 1.0
    assert damaged_share_max(1) == pytest.approx(0.95)
    assert damaged_share_max(299) == pytest.approx(0.01, rel=0.01)
    assert (1 - damaged_share_max(50)) ** 50 == pytest.approx(0.05)


@pytest.mark.parametrize(
    "depth",
    [
        Depth("deep"),  # type: ignore[arg-type]
        Depth("sampled", 0.0),
        Depth("sampled", 1.1),
        Depth("sampled", float("nan")),
        Depth("sampled", 0.1, -1),
        Depth("structure", is_resuming=True),
    ],
)
def test_what_makes_no_sense(store, depth):
    with pytest.raises(ArgumentError):
        verify_directory(store, depth)


def test_a_problem_says_where(store):
    path = pack_of(store)
    offset, length = leaves_in(path, store_id(store))[3]
    damaged = bytearray(path.read_bytes())
    damaged[offset + length - 1] ^= 1
    path.write_bytes(bytes(damaged))
    report = verify_directory(store)
    first, *rest = report.to_dict()["problems"]
    assert (first["file"], first["offset"]) == (f"packs/{path.name}", offset)
    assert any(one["checkpoints"] and one["position"] is not None for one in rest)
    assert report.problems_total == len(report.problems)


# --- payload trees ----------------------------------------------------------------------------


def test_sizes_and_kinds_of_trees_are_checked(tmp_path):
    from ckptlog.blobs.codec import Codec
    from ckptlog.formats import branch
    from ckptlog.model.event import Reference
    from tests.repository.damage import append, created

    codec = Codec()
    leaf, leaf_record = codec.record(chunk.LEAF, b'{"a":"' + b"x" * 50 + b'"}')
    for size, kind in ((58, branch.LEAF), (57, branch.LEAF), (58, branch.BRANCH)):
        root = branch.encode([branch.Link(kind, leaf, size)])
        digest, record = codec.record(chunk.BRANCH, root)
        path = tmp_path / f"{size} {kind}"
        with ckptlog.open(path, create=True) as store:
            reference = Reference("tree", digest.hex(), size)
            append(store, created(data=reference), records=[leaf_record, record])
            report = store.verify()
            is_right = (size, kind) == (58, branch.LEAF)
            assert report.ok == is_right, (size, kind)
            if not is_right:
                assert set(codes(report)) == {"blob.corrupt"}
                assert report.problems[-1].checkpoints == ("cp",)
                assert store.verify("existence").problems_total == 1


def test_facts_and_claims_that_do_not_fit_into_memory(store, monkeypatch):
    whole = verify_directory(store)
    monkeypatch.setattr("ckptlog.repository.claim._KEPT_BYTES", 1000)
    spilt = verify_directory(store)
    assert (spilt.ok, spilt.chunks, spilt.payloads) == (True, whole.chunks, whole.payloads)
    path = pack_of(store)
    offset, length = leaves_in(path, store_id(store))[3]
    data = bytearray(path.read_bytes())
    data[offset + length - 1] ^= 1
    path.write_bytes(bytes(data))
    found = [one.checkpoints for one in verify_directory(store).problems]
    monkeypatch.undo()
    assert found == [one.checkpoints for one in verify_directory(store).problems]
    assert any(found)


class SpottyDisk(Disk):
    """A disk with one file that cannot be read from some place on. inode: Of that file."""

    def __init__(self, path, begin):
        self.inode = path.stat().st_ino
        self.begin = begin

    def read_into(self, fd, buffer, offset):
        if os.fstat(fd).st_ino == self.inode and offset + len(buffer) > self.begin:
            raise InputOutputError("Reading failed.")
        return super().read_into(fd, buffer, offset)


def test_packs_behind_one_that_the_medium_does_not_give_are_read(path, monkeypatch):
    monkeypatch.setattr("ckptlog.repository.inspection.READ_BYTES", 4000)
    packs = sorted((path / "packs").glob("*.pack"))
    whole = verify_directory(path)
    for number in (0, len(packs) // 2, len(packs) - 1):
        disk = SpottyDisk(packs[number], packs[number].stat().st_size // 2)
        report = verify_directory(path, environment=Environment(disk=disk))
        about = [one for one in report.problems if one.code == "storage.io"]
        assert [one.where for one in about] == [f"packs/{packs[number].name}"]
        assert 0 < whole.chunks_hashed - report.chunks_hashed < whole.chunks_hashed / len(packs)
        assert {name for one in report.problems for name in one.checkpoints}


def test_a_difference_from_a_damaged_chunk_says_so(tmp_path):
    path, made = tmp_path / "s", []
    with ckptlog.CheckpointManager(path) as manager:
        for step in range(1, 40):
            data = {"n": step, "log": ["line"] * (1000 + step)}
            made.append(manager.create_checkpoint("t", "T", step, data=data))
        for one in made[:20]:
            manager.delete_checkpoint(one)
        manager.compact_checkpoint_storage()
        assert manager.store.verify().ok
    (pack,) = (path / "packs").glob("*.pack")
    data = pack.read_bytes()
    seed = frame.container_seed(store_id(path), pack.name)
    bases = {chunk.base_in(bytes(data[begin + 16 : end])) for begin, end, _ in framed(data, seed)}
    begin = next(at for at, _, digest in framed(data, seed) if digest in bases)
    damaged = bytearray(data)
    damaged[begin + 100] ^= 1
    pack.write_bytes(bytes(damaged))
    report = verify_directory(path)
    assert set(codes(report)) == {"blob.corrupt"}
    assert any("from which it is a difference" in one.message for one in report.problems)


def framed(data, seed):
    """Yield where the chunks of a pack begin and end, and their digests."""
    for kind, _, begin, end in frame.walk(seed, 0, data):
        if kind == frame.CHUNK:
            yield begin, end, data[begin + 16 : begin + 48]


# --- going on ---------------------------------------------------------------------------------


class Stop(BaseException):
    """What an interrupt is."""


def interrupting(at: float):
    def stop(done, total):
        if done >= at * total:
            raise Stop

    return stop


def interrupted(store, at: float):
    with pytest.raises(Stop):
        verify_directory(store, "full", interrupting(at))


@pytest.fixture
def path(tmp_path, small_packs, monkeypatch):
    """A store of some packs; progress is told at every step."""
    monkeypatch.setattr("ckptlog.repository.report._PROGRESS_BYTES", 1)
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        for step in range(1, 9):
            manager.create_checkpoint("t", "T", step, data={"x": os.urandom(20_000).hex()})
    return path


def test_a_run_goes_on_where_it_was_stopped(path):
    whole = verify_directory(path)
    assert not (path / "views" / "verify.json").exists()
    interrupted(path, 0.7)
    assert (path / "views" / "verify.json").exists()
    report = verify_directory(path, Depth(is_resuming=True))
    assert report.ok
    assert report.resumed > 2
    assert report.relies_on_note
    assert report.to_dict()["relies_on_note"]
    assert report.level_read == "full, resumed"
    assert (whole.relies_on_note, whole.level_read) == (False, "full")
    assert report.chunks_hashed < whole.chunks_hashed
    assert (report.chunks, report.payloads) == (whole.chunks, whole.payloads)
    assert not (path / "views" / "verify.json").exists()


def test_a_killed_run_is_gone_on_with(path, monkeypatch):
    monkeypatch.setattr("ckptlog.repository.bookmark._INTERVAL_S", 0.0)
    child = os.fork()
    if not child:
        try:
            verify_directory(path, "full", lambda done, total: done < 0.7 * total or os._exit(7))
        finally:
            os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    report = verify_directory(path, Depth(is_resuming=True))
    assert report.ok
    assert report.resumed > 2


def test_a_store_that_is_open_for_reading_gets_no_file(path):
    with ckptlog.open(path, read_only=True) as store:
        stop = interrupting(0.7)
        with pytest.raises(Stop):
            store.verify("full", stop)
    assert not (path / "views" / "verify.json").exists()


def test_what_changed_since_is_read_again(path):
    interrupted(path, 0.7)
    page = json.loads((path / "views" / "verify.json").read_text())
    done = [name for name in page["done"] if name.startswith("packs/")]
    damaged = path / done[0]
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(bytes(data))
    report = verify_directory(path, Depth(is_resuming=True))
    assert not report.ok
    assert damaged.name in report.problems[0].where


def test_what_was_changed_and_given_its_old_time_is_read_again(path):
    interrupted(path, 0.7)
    page = json.loads((path / "views" / "verify.json").read_text())
    damaged = path / next(name for name in page["done"] if name.startswith("packs/"))
    before = damaged.stat()
    with damaged.open("r+b") as file:
        file.seek(200)
        byte = file.read(1)[0]
        file.seek(200)
        file.write(bytes([byte ^ 1]))
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    report = verify_directory(path, Depth(is_resuming=True))
    assert not report.ok
    assert damaged.name in report.problems[0].where


@pytest.mark.parametrize("change", ["leaf", "store", "position", "version", "junk"])
def test_a_bookmark_of_something_else_is_thrown_away(path, change):
    interrupted(path, 0.7)
    mark = path / "views" / "verify.json"
    page = msgspec.json.decode(mark.read_bytes())
    assert page["done"]
    other = {"leaf": "ab" * 32, "store": "00" * 16, "position": 10**6, "version": 99}
    if change == "junk":
        mark.write_bytes(b"[")
    else:
        mark.write_bytes(msgspec.json.encode({**page, change: other[change]}))
    report = verify_directory(path, Depth(is_resuming=True))
    assert report.ok
    assert report.resumed == 0


def test_every_flip_in_a_small_store_is_found_or_harmless(store, request):
    """One bit of each sampled byte of every file of the log and of packs, by the full level."""
    import random

    chance = random.Random(5)
    is_thorough = request.config.getoption("--thorough")
    for name in files_of(store):
        path = store / name
        data = path.read_bytes()
        places = range(len(data)) if is_thorough else sorted(chance.sample(range(len(data)), 10))
        for at in places:
            damaged = bytearray(data)
            damaged[at] ^= 1 << chance.randrange(8)
            path.write_bytes(bytes(damaged))
            report = verify_directory(store)
            assert not report.ok, (name, at)
            assert path.name in report.problems[0].where or path.name in str(report.problems)
        path.write_bytes(data)


# --- what was read ----------------------------------------------------------------------------


@pytest.fixture
def settled(tmp_path):
    """A store whose first segments are settled, much shorter than what they stand for."""
    from tests.repository.ground import quiet

    path = tmp_path / "settled"
    with ckptlog.CheckpointManager(path) as manager:
        manager.store.log._segment_bytes = 20_000
        for step in range(1, 30):
            name = manager.create_checkpoint("t", "T", step, data={"x": os.urandom(2000).hex()})
            if step % 3:
                manager.delete_checkpoint(name)
        quiet(manager)
    assert list(path.glob("log/*.set"))
    assert list(path.glob("packs/*.pack"))
    return path


def bytes_of(path, *patterns):
    """Return the bytes of files, without what the newest segment has preallocated."""
    total = 0
    for pattern in patterns:
        for file in path.glob(pattern):
            total += file.stat().st_size
    return total


def test_bytes_read_are_those_of_the_files(settled):
    with ckptlog.open(settled, read_only=True) as store:
        end = store.log.published.read()
        newest = settled / "log" / segment_name(end.first, end.generation)
    zeros = newest.stat().st_size - end.offset
    log, packs = bytes_of(settled, "log/*.seg", "log/*.set") - zeros, bytes_of(settled, "packs/*")
    assert verify_directory(settled, "full").bytes_read == log + packs
    structure = verify_directory(settled, "structure").bytes_read
    existence = verify_directory(settled, "existence").bytes_read
    sampled = verify_directory(settled, Depth("sampled", 0.5, 1)).bytes_read
    assert log < structure < existence < sampled < log + packs
    assert verify_directory(settled, Depth("sampled", 1.0)).bytes_read == log + packs


@pytest.mark.parametrize("level", ["structure", "existence", "sampled", "full"])
def test_progress_goes_to_the_end_and_no_further(settled, level, monkeypatch):
    monkeypatch.setattr("ckptlog.repository.report._PROGRESS_BYTES", 1)
    told = []
    verify_directory(settled, level, lambda done, total: told.append((done, total)))
    (total,) = {total for _, total in told}
    assert total == bytes_of(
        settled, "log/*.seg", "log/*.set", *(["packs/*"] if level != "structure" else [])
    )
    # The last step but one is where the reading came to: no leap to the end.
    newest = max(settled.glob("log/*.seg")).stat().st_size
    assert total - newest < told[-2][0] <= total
    assert [done for done, _ in told] == sorted(done for done, _ in told)
