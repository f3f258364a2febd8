"""What a sampled verification says of the leaves that it did not take, by simulation."""

from __future__ import annotations

import random
import shutil

import pytest

import ckptlog
from ckptlog.blobs.pack import PackIndex
from ckptlog.formats import chunk, frame
from ckptlog.repository.depth import Depth
from ckptlog.repository.verify import verify_directory

_RUNS = 2000
_RUNS_REAL = 6


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store whose payloads lie in a pack: most of its chunks are branches."""
    path, made = tmp_path_factory.mktemp("sampling") / "s", random.Random(1)
    with ckptlog.CheckpointManager(path) as manager:
        data = {}
        for step in range(1, 81):
            data[f"k{step}"] = made.randbytes(15_000)
            manager.create_checkpoint("t", "t", step, data=data, checkpoint_id=f"t-{step}")
            if len(data) > 20:
                data.pop(next(iter(data)))
        for step in range(1, 41):
            manager.delete_checkpoint(f"t-{step}")
        manager.compact_checkpoint_storage()
    return path


def chunks_of(path):
    """Return the pack, and (digest, offset, length, domain) of its chunks."""
    with ckptlog.open(path, read_only=True) as store:
        identity = store.info.id_bytes
    (pack,) = (path / "packs").glob("*.pack")
    data = pack.read_bytes()
    lines = [line for part in PackIndex(pack, identity).lines(None, b"") for line in part]
    return pack, [
        (digest, offset, length, chunk.outline(memoryview(data)[offset + frame.HEADER_BYTES :])[0])
        for digest, offset, length in lines
    ]


def damage(pack, picked):
    with pack.open("r+b") as file:
        for _, offset, length, _ in picked:
            file.seek(offset + length - 5)
            byte = file.read(1)[0]
            file.seek(offset + length - 5)
            file.write(bytes([byte ^ 0xFF]))


def test_damage_beyond_the_share_is_missed_in_one_of_twenty(built, tmp_path):
    pack, chunks = chunks_of(built)
    leaves = [one for one in chunks if one[3] == chunk.LEAF]
    depth = Depth("sampled", 0.1, 3)
    report = verify_directory(built, depth)
    taken = {digest for digest, _, _, domain in leaves if depth.takes(digest, domain)}
    assert report.ok
    assert report.leaves_hashed == len(taken) > 0
    assert report.chunks_hashed > 2 * len(taken)
    damaged = int(report.damaged_share_max * len(leaves)) + 1
    chance = random.Random(7)
    missed = sum(
        taken.isdisjoint(one[0] for one in chance.sample(leaves, damaged)) for _ in range(_RUNS)
    )
    assert missed / _RUNS < 0.05 + 0.015  # three standard deviations
    for run in range(_RUNS_REAL):
        picked = chance.sample(leaves, damaged)
        copy = tmp_path / f"{run}"
        shutil.copytree(built, copy)
        damage(copy / "packs" / pack.name, picked)
        assert verify_directory(copy, depth).ok == taken.isdisjoint(one[0] for one in picked)
