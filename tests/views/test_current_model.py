"""Random legal logs, several views of one file, and the plain-dict model beside them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ckptlog.model.event import COMPLETED, FAILED, RESTORED, UPDATED
from ckptlog.views import current
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewGapError
from ckptlog.views.query import Filter
from tests.views.author import BOOT, STORE, Author, assert_agrees, instant

VIEWS = 2
tasks = st.sampled_from(["a", "b", "ü", "task with blanks"])
workers = st.sampled_from(["", "w1", "w2"])
spaces = st.sampled_from(["", "n1"])
titles = st.sampled_from([None, "", "one", "two"])
picks = st.integers(0, 1000)
times = st.integers(0, 120).map(instant)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "task": tasks,
    "worker": workers,
    "namespace": spaces,
    "parent": st.sampled_from(["", "explicit 0"]),
    "state": st.sampled_from(["created", "active", "failed"]),
    "created_since": times,
    "created_until": times,
    "updated_before": times,
    "states": st.lists(st.sampled_from(["created", "active", "completed"])).map(tuple),
}
filters = (
    st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names}))
    .map(lambda fields: Filter(**fields))
)


class Views(RuleBasedStateMachine):
    """A log that grows, and views of it that follow at their own pace."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.author = Author()
        self.is_open_commit = False

    @initialize(boot=st.sampled_from([BOOT, bytes(16)]))
    def start(self, boot: bytes) -> None:
        self.boot = boot
        self.views = [self.open() for _ in range(VIEWS)]
        self.memory = CurrentView.open(None, STORE)

    def open(self) -> CurrentView:
        return CurrentView.open(self.folder / "current.sqlite", STORE, boot=self.boot)

    def teardown(self) -> None:
        for view in [*self.views, self.memory]:
            view.close()
        shutil.rmtree(self.folder)

    def living(self, pick: int) -> str | None:
        rows = self.author.living()
        return rows[pick % len(rows)].id if rows else None

    # --- the log ----------------------------------------------------------------------------

    @rule(
        task=tasks,
        facts=st.fixed_dictionaries({"worker": workers, "namespace": spaces, "title": titles}),
        pick=picks,
        explicit=st.booleans(),
    )
    def create(self, task, facts, pick, explicit):
        name = f"explicit {len(self.author.model)}" if explicit else None
        parent = self.living(pick) or "" if pick % 3 == 0 else ""
        self.author.create(task, id=name, parent=parent, commit=False, **facts)
        self.is_open_commit = True

    @rule(
        pick=picks,
        type=st.sampled_from([UPDATED, UPDATED, COMPLETED, FAILED, RESTORED]),
        title=titles,
        worker=st.none() | workers,
    )
    def change(self, pick, type, title, worker):
        if name := self.living(pick):
            self.author.change(name, type, title=title, worker=worker, commit=False)
            self.is_open_commit = True

    @rule(pick=picks)
    def delete(self, pick):
        if name := self.living(pick):
            self.author.delete(name, commit=False)
            self.is_open_commit = True

    @rule(task=tasks)
    def delete_task(self, task):
        self.author.delete_task(task, commit=False)
        self.is_open_commit = True

    @rule(ticks=st.integers(1, 60))
    def time_passes(self, ticks):
        self.author.tick += ticks
        self.author.note(commit=False)
        self.is_open_commit = True

    @precondition(lambda self: self.is_open_commit)
    @rule()
    def commit(self):
        self.author.commit()
        self.is_open_commit = False

    # --- the views --------------------------------------------------------------------------

    @rule(which=st.integers(0, VIEWS), overlap=st.integers(0, 5))
    def apply(self, which, overlap):
        """What is applied already, here or by another view, may be given again."""
        view = [*self.views, self.memory][which]
        position = view.mark.position
        done = sum(commit.position_next <= position for commit in self.author.commits)
        assert view.apply(self.author.commits[max(0, done - overlap) :], self.author.meta_of)
        assert view.mark.position == self.author.position

    @rule(which=st.integers(0, VIEWS))
    def skip(self, which):
        view = [*self.views, self.memory][which]
        position = view.mark.position
        ahead = [commit for commit in self.author.commits if commit.position_next > position]
        if len(ahead) > 1:
            with pytest.raises(ViewGapError):
                view.apply(ahead[1:], self.author.meta_of)
            assert view.mark.position == position

    @rule(which=st.integers(0, VIEWS - 1), is_clean=st.booleans())
    def reopen(self, which, is_clean):
        if is_clean:
            self.views[which].close()
        else:
            self.views[which].abandon()
        self.views[which] = self.open()
        assert self.views[which].kind == "file"
        assert self.views[which].notes == ()

    @rule()
    def rebuild(self):
        self.memory.close()
        self.memory = CurrentView.open(None, STORE)
        assert self.memory.rebuild(iter(self.author.commits), self.author.meta_of)

    @rule(
        which=st.integers(0, VIEWS), wanted=filters, newest=st.booleans(), limit=st.integers(1, 9)
    )
    def list_in_pages(self, which, wanted, newest, limit):
        if self.is_open_commit:
            self.commit()
        self.apply(which, 0)
        view = [*self.views, self.memory][which]
        expected = self.author.living(wanted)
        assert view.count(wanted) == len(expected)
        found, after = [], None
        while page := view.select(wanted, after=after, limit=limit, newest_first=newest):
            assert len(page) <= limit
            found += page
            assert len(found) <= len(expected)
            after = page[-1].origin
        assert found == (expected[::-1] if newest else expected)

    @invariant()
    def agree(self):
        if self.is_open_commit:
            return
        for view in [*self.views, self.memory]:
            if view.at_least(self.author.position):
                assert_agrees(view, self.author)


class SealedViews(Views):
    """The same with files that are sealed at every close."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(current, "SEAL_EVENTS_MIN", 0)

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()


class LongViews(Views):
    pass


class LongSealedViews(SealedViews):
    pass


TestViews = Views.TestCase
TestViews.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestSealedViews = SealedViews.TestCase
TestSealedViews.settings = settings(TestViews.settings, max_examples=8)
TestLongViews = pytest.mark.thorough(LongViews.TestCase)
TestLongViews.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestLongSealedViews = pytest.mark.thorough(LongSealedViews.TestCase)
TestLongSealedViews.settings = TestLongViews.settings
