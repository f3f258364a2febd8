"""The index beside a dict: whatever is done to it or to its files, it heals and agrees."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.blobs.run import Mark
from ckptlog.model.entry import Commit, Placement
from tests.blobs.sample import commit, digest, flip, place, run_files, small

ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(0, 40), max_size=12)),
    st.tuples(st.sampled_from(["flush", "force", "reopen", "close", "clear"]), st.none()),
    st.tuples(st.just("rival"), st.integers(0, 30)),
    st.tuples(st.just("damage"), st.tuples(st.integers(0, 9), st.floats(0, 0.999))),
    st.tuples(st.just("lose"), st.integers(0, 9)),
)


class Twin:
    """An index beside a dict and the log that both were fed from."""

    def __init__(self, folder):
        self.folder = folder
        self.log: list[Commit] = []
        self.truth: dict[bytes, Placement] = {}
        self.index = small(folder)

    def do(self, action, detail):
        if action == "add":
            self.add(detail)
        elif action == "flush":
            self.index.flush()
        elif action == "force":
            self.index.flush(force=True)
        elif action == "reopen":
            self.index = small(self.folder)
        elif action == "close":
            self.index.close()
            self.index = small(self.folder)
        elif action == "clear":
            self.index.clear()
        elif action == "rival":
            rival = small(self.folder)
            for old in self.log[rival.position : detail]:
                rival.add(old)
            rival.close()
        else:
            self.damage(action, detail)

    def add(self, numbers):
        position = len(self.log)
        places = [place(number, offset=position + 1) for number in numbers]
        self.log.append(commit(position, places))
        self.truth.update({place.digest: place for place in places})
        self.index.add(self.log[-1])

    def damage(self, action, detail):
        which, where = detail if action == "damage" else (detail, 0)
        paths = run_files(self.folder) if self.folder.exists() else []
        if not paths:
            return
        path = paths[which % len(paths)]
        if action == "lose":
            path.unlink()
        else:
            flip(path, int(path.stat().st_size * where))

    def heal(self):
        while self.index.position < len(self.log):
            assert self.index.add(self.log[self.index.position])

    def check(self):
        """Whatever happened, an answer is right or none; after a scan it is right."""
        for number in range(41):
            before = self.index.get(digest(number))
            assert before is None or before.digest == digest(number)
        for _ in range(20):
            self.heal()
            if {name: self.index.get(name) for name in self.truth} == self.truth:
                break
        assert {name: self.index.get(name) for name in self.truth} == self.truth
        assert self.index.get(digest(41)) is None
        persisted = self.index.persisted
        if persisted is not None:
            last = self.log[persisted.position - 1]
            assert persisted == Mark(last.position_next, last.container, last.offset_end, last.leaf)


@settings(max_examples=60)
@given(st.lists(ACTIONS, max_size=40), st.booleans())
def test_the_index_and_a_dict_agree_whatever_happens(tmp_path_factory, actions, check_always):
    twin = Twin(tmp_path_factory.mktemp("index") / "chunks")
    for action, detail in actions:
        twin.do(action, detail)
        if check_always:
            twin.check()
    twin.check()
    twin.index.close()
    twin.index = small(twin.folder)
    twin.check()


@pytest.mark.thorough
@settings(max_examples=2000)
@given(st.lists(ACTIONS, max_size=120))
def test_the_index_and_a_dict_agree_for_longer(tmp_path_factory, actions):
    twin = Twin(tmp_path_factory.mktemp("index") / "chunks")
    for action, detail in actions:
        twin.do(action, detail)
        twin.check()
