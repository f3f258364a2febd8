"""Many gaps in one segment: what a later copy brings back takes few walks through it."""

from __future__ import annotations

import ckptlog
from ckptlog.repository.reclaim import Reclaim
from ckptlog.repository.repair import repair
from tests.repository.ruin import fresh
from tests.repository.test_repair_later import EVENT, lost_of, smash

GAPS = 40


def test_one_gap_that_does_not_fit_costs_a_few_walks(tmp_path, monkeypatch):
    """Each was tried by itself: as many walks as gaps."""
    store = tmp_path / "store"
    with ckptlog.CheckpointManager(store) as manager:
        for number in range(2 * GAPS + 1):
            manager.create_checkpoint("t", "T", 1, checkpoint_id=f"c{number:03}")
    copy = fresh(store, tmp_path / "copy")
    smash(store, kind=EVENT, every=2)
    repair(store, is_applied=True)
    with ckptlog.open(store, read_only=True) as opened:
        misfit = lost_of(opened)[GAPS // 3]
    walks = []
    taken = Reclaim._taken

    def counted(self, data, parts, groups):
        walks.append(len(groups))
        at = {one.offset for one in parts if one.position == misfit}
        is_in = any(at & group for group in groups)
        return None if is_in else taken(self, data, parts, groups)

    monkeypatch.setattr(Reclaim, "_taken", counted)
    done = repair(store, copy=copy)
    back = sum(last - first + 1 for first, last in done.positions_back)
    assert back == GAPS - 1
    assert walks[0] == GAPS
    assert len(walks) <= 2 * (1 + GAPS.bit_length())
