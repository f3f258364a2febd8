"""Two copies of which each has lost something: what is lost afterwards is what both lack."""

from __future__ import annotations

import os
import random
import shutil

import pytest

import ckptlog
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory
from tests.repository.pair import BLOCK_BYTES, grow, leaves_now, lose, sign
from tests.repository.ruin import fresh
from tests.repository.test_repair_later import lost_of

EVENTS = 50
BARE = ("bare", "bare")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Give stores by kind; settled ones as they were written, too."""
    folder = tmp_path_factory.mktemp("halves")
    grow(folder / "bare", "c", EVENTS, has_data=False)
    grow(folder / "written", "c", EVENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptlog.log.settling._BLOCK_BYTES", BLOCK_BYTES)
        fresh(folder / "written", folder / "settled")
        grow(folder / "settled", "c", 0, kind="settled")
    return folder


@pytest.fixture
def lab(images, tmp_path, monkeypatch):
    """Give what makes stores there, with a memory of signed heads of their own."""
    shutil.copytree(os.environ["CKPTLOG_KEYS"], tmp_path / "keys")
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr("ckptlog.log.settling._BLOCK_BYTES", BLOCK_BYTES)
    return lambda kind, name: fresh(images / kind, tmp_path / name)


def lost_now(store):
    with ckptlog.open(store, read_only=True) as opened:
        return lost_of(opened)


def check(lab, kinds, lost, *, is_signed, is_at_once):
    """Repair a store from a copy; both have lost some events."""
    store, copy = (lab(kind, name) for kind, name in zip(kinds, ("store", "copy"), strict=True))
    if is_signed:
        sign(store)
    leaves = leaves_now(store)
    lacked = [set(lose(root, places)) for root, places in zip((store, copy), lost, strict=True)]
    if not is_at_once:
        assert repair(store, is_applied=True).ok
        assert set(lost_now(store)) == lacked[0]
    done = repair(store, is_applied=True, copy=copy)
    assert done.ok, (done.files, done.problems_after)
    assert set(lost_now(store)) == lacked[0] & lacked[1]
    assert leaves_now(store)[: len(leaves)] == leaves
    assert verify_directory(store).problems == ()
    assert repair(store, copy=copy).is_empty


def check_seed(lab, seed):
    chance = random.Random(seed)
    kinds = chance.choice([BARE, ("written",) * 2, ("settled",) * 2, ("settled", "written")])
    lost = [chance.sample(range(EVENTS), chance.choice([1, 4, 20])) for _ in range(2)]
    is_signed, is_at_once = seed % 2 == 0, seed // 2 % 2 == 0
    check(lab, kinds, lost, is_signed=is_signed, is_at_once=is_at_once)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_lost_is_what_both_lack(lab, seed):
    check_seed(lab, seed)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(8, 200))
def test_what_is_lost_is_what_both_lack_whatever_it_is(lab, seed):
    check_seed(lab, seed)


@pytest.mark.parametrize("is_at_once", [True, False])
@pytest.mark.parametrize(
    ("lost", "lacked"), [([15, 16], [15]), ([15, 16], [16]), ([15, 16, 17], [16])]
)
def test_beside_one_that_the_copy_lacks(lab, lost, lacked, *, is_at_once):
    """Its neighbour's frame begins within what stands for the first, and ends within the next."""
    check(lab, BARE, (lost, lacked), is_signed=False, is_at_once=is_at_once)


def test_the_first_event_of_a_written_copy_is_lost(lab):
    """Where the frame of the second began was taken for the end of nothing."""
    check(lab, ("settled", "written"), ([0, 1, 2], [0]), is_signed=False, is_at_once=True)
