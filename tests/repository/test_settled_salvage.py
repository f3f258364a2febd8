"""Repair of settled segments: events keep their places; what is lost is said (specs/repair.md)."""

from __future__ import annotations

import random
import shutil

import pytest

import ckptlog
from ckptlog.formats import frame, settled
from ckptlog.model.event import LOST
from ckptlog.repository.layout import read_info
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory
from tests.repository.ground import Story, quiet
from tests.repository.pair import grow, leaves_now, segments_of
from tests.repository.ruin import check_repaired, fresh, leaves_of, newest_of, states_of, truth_of

STEPS = 100


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("ckptlog.log.settling._BLOCK_BYTES", 600)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Give a store after two compactions, with one of its written segments put aside."""
    folder = tmp_path_factory.mktemp("settled")
    path = folder / "image"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptlog.log.settling._BLOCK_BYTES", 600)
        with ckptlog.CheckpointManager(path, actor="tester") as manager:
            manager.store.log._segment_bytes = 60_000
            story = Story(7)
            # Lost, it would leave checkpoints whose chunks are gone for good reason.
            story.delete_task = lambda _manager: None
            story.steps(manager, STEPS)
            quiet(manager)
            story.steps(manager, STEPS // 2)
        shutil.copytree(path, folder / "between")
        with ckptlog.CheckpointManager(path, actor="tester") as manager:
            manager.store.log._segment_bytes = 60_000
            quiet(manager)
            story.steps(manager, 5)
    return path, truth_of(path), folder / "between"


@pytest.fixture
def root(image, tmp_path):
    return fresh(image[0], tmp_path / "store")


def settled_of(root):
    return sorted(root.glob("log/*.set"))


def blocks_of(path, root):
    """Return offset and length of each block's frame."""
    place = settled.seed(read_info(root).id_bytes, *settled.parse_name(path.name))
    found = []
    for kind, _, begin, end in frame.walk(place, 0, path.read_bytes()):
        if kind == frame.BLOCK:
            found.append((begin, end - begin))
    return found


def longest(root):
    """Return the settled segment with the most blocks."""
    return max(settled_of(root), key=lambda path: len(blocks_of(path, root)))


def spoil(path, offset, length):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(random.Random(offset).randbytes(length))


def mended(root, truth, **options):
    before = verify_directory(root)
    assert before.problems
    planned = repair(root, **options)
    assert not [one for one in planned.files if one.action == "refused"], planned.files
    done = repair(root, is_applied=True, **options)
    assert (planned.lost_positions, planned.affected) == (done.lost_positions, done.affected)
    check_repaired(root, truth, done)
    return done


def test_the_image_is_what_it_should_be(image):
    assert len(settled_of(image[0])) >= 3
    assert len(blocks_of(longest(image[0]), image[0])) >= 3
    assert verify_directory(image[0]).problems == ()


@pytest.mark.parametrize("where", ["block", "header", "index", "trailer"])
def test_a_turned_bit_is_turned_back(image, root, where):
    path = longest(root)
    whole = path.read_bytes()
    at = {
        "block": blocks_of(path, root)[1][0] + 90,
        "header": 30,
        "index": len(whole) - 48 - 20,
        "trailer": len(whole) - 10,
    }[where]
    data = bytearray(whole)
    data[at] ^= 4
    path.write_bytes(data)
    done = mended(root, image[1])
    assert not done.lost_positions
    assert not done.lost_chunks
    if where != "header":  # its time of creation is made anew
        assert path.read_bytes() == whole
    (kept,) = root.glob(f"quarantine/*/log/{path.name}")
    assert kept.read_bytes() == bytes(data)


@pytest.mark.parametrize(("which", "count"), [(0, 2), (1, 1), (-1, 1)])
def test_a_lost_block_gives_way_to_tombstones(image, root, which, count):
    path = longest(root)
    blocks = blocks_of(path, root)
    for at, length in (blocks[which:] or blocks)[:count]:
        spoil(path, at, length)
    done = mended(root, image[1])
    (stretch,) = done.lost_positions
    with ckptlog.open(root, read_only=True) as store:
        places = {one.position: one.offset for one in store.events()}
        lost = [one.position for one in store.events() if one.event.type == LOST]
    assert lost == list(range(stretch[0], stretch[1] + 1))
    with ckptlog.open(image[0], read_only=True) as store:
        for one in store.events():
            assert one.position in lost or places[one.position] == one.offset


def test_blocks_apart_are_lost_apart(image, root):
    path = longest(root)
    blocks = blocks_of(path, root)
    for at, length in (blocks[0], blocks[2]):
        spoil(path, at + 20, length - 20)
    assert len(mended(root, image[1]).lost_positions) == 2


@pytest.mark.parametrize("end", ["header", "trailer"])
def test_blocks_before_a_damaged_segment(image, root, end):
    """Whoever only reads is told by nothing how long the first one is."""
    first, after = settled_of(root)[:2]
    for at, length in blocks_of(first, root):
        spoil(first, at, length)
    spoil(after, 0 if end == "header" else after.stat().st_size - 40, 40)
    done = mended(root, image[1])
    assert done.lost_positions == ((0, int(after.name[:20]) - 1),)


@pytest.mark.parametrize("what", ["gone", "empty", "cut", "tail", "noise"])
def test_of_a_whole_file(image, root, what):
    path = longest(root)
    data = path.read_bytes()
    path.write_bytes(
        {
            "gone": b"",
            "empty": b"",
            "cut": data[: len(data) // 2],
            "tail": data[:-60],
            "noise": random.Random(1).randbytes(len(data)),
        }[what]
    )
    if what == "gone":
        path.unlink()
    done = mended(root, image[1])
    assert bool(done.lost_positions) == (what != "tail")


@pytest.mark.parametrize("damage", ["block", "gone", "header", "all"])
@pytest.mark.parametrize("has", ["settled", "written", "both"])
def test_a_second_copy_brings_it_back(image, root, tmp_path, has, damage):
    copy = fresh(image[2] if has == "written" else image[0], tmp_path / "copy")
    if has == "both":  # the written ones come to harm
        for file in image[2].glob("log/*.seg"):
            data = file.read_bytes()
            (copy / "log" / file.name).write_bytes(data[:108] + bytes(len(data) - 108))
    names = [path.name for path in settled_of(root)]
    if has == "written":
        names = [name for name in names if (copy / "log" / name.replace(".set", ".seg")).exists()]
    path = root / "log" / names[0]
    whole = path.read_bytes()
    if damage == "block":
        spoil(path, *blocks_of(path, root)[0])
    elif damage == "header":
        spoil(path, 0, 40)
    elif damage == "all":
        for name in names:
            spoil(root / "log" / name, *blocks_of(root / "log" / name, root)[0])
    else:
        path.unlink()
    done = mended(root, image[1], copy=copy)
    assert not done.lost_positions
    assert path.read_bytes() == whole
    with ckptlog.CheckpointManager(root) as manager:
        assert states_of(manager).items() >= image[1].states.items()


def test_a_settled_form_gives_events_to_its_written_segment(image, root):
    """Killed between the two: the written one is there still, and damaged."""
    between = image[2]
    written = sorted(between.glob("log/*.seg"))[-2]
    path = root / "log" / written.name
    shutil.copy(written, path)
    assert path.with_suffix(".set").exists()
    assert verify_directory(root).problems == ()
    spoil(path, 400, path.stat().st_size - 2000)
    done = mended(root, image[1])
    assert not done.lost_positions
    with ckptlog.CheckpointManager(root, actor="tester") as manager:
        quiet(manager)
        assert not path.exists()
        assert leaves_of(manager.store)[: len(image[1].leaves)] == image[1].leaves
        assert newest_of(manager.store).items() >= image[1].newest.items()
    assert verify_directory(root).problems == ()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_damaged(image, root, seed):
    chance = random.Random(seed)
    names = [*settled_of(root), *root.glob("packs/*.pack")]
    for path in chance.sample(sorted(names), 2):
        data = bytearray(path.read_bytes())
        at, length = chance.randrange(len(data)), chance.choice([1, 30, 3000])
        data[at : at + length] = chance.randbytes(len(data[at : at + length]))
        path.write_bytes(data)
    mended(root, image[1])


@pytest.mark.parametrize("is_there", [True, False])
def test_a_copy_that_went_on_has_settled_what_is_the_newest_segment_here(tmp_path, is_there):
    """It is mended as a written one: nothing can be appended to another."""
    root, other = tmp_path / "store", tmp_path / "other"
    grow(root, "one", 20)
    fresh(root, other)
    leaves = leaves_now(root)
    grow(other, "two", 30, kind="settled")
    newest = segments_of(root)[-1]
    assert (other / "log" / newest.with_suffix(".set").name).exists()
    assert not (other / "log" / newest.name).exists()
    if is_there:
        newest.write_bytes(bytes(newest.stat().st_size))
    else:
        newest.unlink()
    done = repair(root, is_applied=True, copy=other)
    assert (done.ok, done.lost_positions, done.lost_chunks) == (True, (), ())
    assert newest.exists()
    assert leaves_now(root)[: len(leaves)] == leaves
    with ckptlog.CheckpointManager(root) as manager:
        manager.create_checkpoint("t", "T", 1)
    assert verify_directory(root).problems == ()


def test_two_segments_that_are_gone_are_told_lost_behind_a_settled_one(tmp_path):
    """Nothing tells that there were two: their events stand where what is left ends."""
    root = tmp_path / "store"
    grow(root, "one", 40, kind="settled")
    leaves = leaves_now(root)
    for path in segments_of(root)[-2:]:
        path.unlink()
    last = segments_of(root)[-1]
    done = repair(root, is_applied=True)
    assert (done.ok, done.refused) == (True, ())
    ((begin, end),) = done.lost_positions
    assert int(last.name[:20]) < begin
    assert end == len(leaves) - 1
    assert leaves_now(root)[: len(leaves)] == leaves
    assert verify_directory(root).problems == ()
