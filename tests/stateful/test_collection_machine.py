"""Two managers and two collectors in any order, stopped at any step, against a dictionary.

After each step everything that lives reads as the model says, through both managers; at the end a
quiet collection leaves exactly the chunks that are wanted, and no file that nobody registered.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ckptlog import CheckpointManager, CollectionBusyError
from ckptlog.repository import choice, collection, disposal, emptier
from ckptlog.repository.collection import CollectOptions
from ckptlog.repository.store import Store
from ckptlog.storage import files
from tests.repository.ground import TEXTS, Story, check_files

WHO = st.sampled_from(["one", "two"])
STOPS = {
    "settled": (emptier.settling.Written, "publish"),
    "packs": (collection.Mover, "move"),
    "event": (Store, "submit_with_reserve"),
    "durable": (disposal.Disposal, "make_durable"),
    "file": (files, "remove"),
    "batch": (disposal.Disposal, "remove"),
    "orphans": (collection._Collection, "_remove_orphans"),
    "index": (Store, "renew_index"),
}


class Stop(BaseException):
    """The collector ends here."""


class CollectionMachine(RuleBasedStateMachine):
    """Drives two open stores of one folder."""

    @initialize(seed=st.integers(0, 10**6), packs=st.sampled_from([300, 4000, 10**9]))
    def begin(self, seed: int, packs: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", packs)
        self.patch.setattr(choice, "_CONTAINERS", 2)
        self.patch.setattr(collection, "workplace", self.workplace)
        self.root = Path(tempfile.mkdtemp())
        self.count = 0
        self.path = self.root / "store"
        self.story = Story(seed)
        self.drops = False
        self.managers = {name: self.open() for name in ("one", "two")}

    def open(self) -> CheckpointManager:
        manager = CheckpointManager(self.path)
        manager.store.log._segment_bytes = 15_000
        return manager

    @contextmanager
    def workplace(self, _store: Any) -> Any:
        """Give each collection a folder of its own: nothing keeps two apart."""
        self.count += 1
        folder = self.root / f"work-{self.count}"
        folder.mkdir()
        yield folder

    def collect(self, who: str, *, drops: bool = False) -> None:
        self.drops |= drops
        options = CollectOptions(garbage_min=0, seal_bytes_min=1, drop_superseded=drops)
        self.managers[who].store.compact(options)

    @rule(who=WHO, count=st.integers(1, 12))
    def use(self, who: str, count: int) -> None:
        """Create, change, delete."""
        self.story.steps(self.managers[who], count)

    @rule(who=WHO, drops=st.booleans())
    def compact(self, who: str, drops: bool) -> None:
        """Collect with nobody beside."""
        self.collect(who, drops=drops)

    @rule(who=WHO, where=st.sampled_from(sorted(STOPS)), at=st.integers(1, 4), drops=st.booleans())
    def stopped(self, who: str, where: str, at: int, drops: bool) -> None:
        """Collect, and end in the middle."""

        def stop(number: int) -> None:
            if number == at:
                raise Stop

        with self.watched(where, stop), suppress(Stop):
            self.collect(who, drops=drops)

    @rule(
        who=WHO,
        where=st.sampled_from(sorted(STOPS)),
        at=st.integers(1, 3),
        writes=st.integers(0, 4),
        collects=st.booleans(),
        drops=st.booleans(),
    )
    def beside(self, *, who, where, at, writes, collects, drops):
        """Collect, while the other one writes and collects in the middle."""
        other = "two" if who == "one" else "one"

        def act(number: int) -> None:
            if number == at:
                self.story.steps(self.managers[other], writes)
                if collects:
                    self.collect(other, drops=drops)

        with self.watched(where, act):
            try:
                self.collect(who)
            except CollectionBusyError:
                assert collects

    @contextmanager
    def watched(self, where: str, act: Callable[[int], None]) -> Any:
        """Do something before each call of a step of the collection."""
        owner, name = STOPS[where]
        real, calls = getattr(owner, name), []

        def watching(*args: Any, **options: Any) -> Any:
            calls.append(1)
            number = len(calls)
            if not inside:
                inside.append(1)
                try:
                    act(number)
                finally:
                    inside.clear()
            return real(*args, **options)

        inside: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, watching)
            yield

    @rule(who=WHO, how=st.sampled_from(["delete", "delete_task", "grow", "compact"]))
    def between(self, who: str, how: str) -> None:
        """Change a checkpoint; between its preparation and its commit the other one acts."""
        mine, other = self.managers[who], self.managers["two" if who == "one" else "one"]
        open_ones = sorted(set(self.story.living) - self.story.ended)
        if not open_ones:
            return
        name = self.story.chance.choice(open_ones)
        before = self.story.living[name]
        real, done = mine.store.submit, []

        def submit(intent: Any) -> Any:
            if not done:
                done.append(1)
                if how == "delete":
                    other.delete_checkpoint(name)
                elif how == "delete_task":
                    other.delete_task(self.story.task[name])
                elif how == "grow":
                    other.update_checkpoint(name, data={"texts": [TEXTS[3]]})
                self.collect("two" if who == "one" else "one", drops=how == "grow")
            return real(intent)

        data = {**before, "texts": [*before["texts"], *TEXTS[:6]]}
        mine.store.submit = submit  # type: ignore[method-assign]
        try:
            new = self.story.serial = self.story.serial + 1
            task = self.story.task[name]
            mine.create_checkpoint(task, "T", 1, checkpoint_id=f"c{new}", data=data)
        finally:
            del mine.store.submit
        if how == "delete":
            del self.story.living[name]
        elif how == "delete_task":
            living, tasks = self.story.living, self.story.task
            self.story.living = {one: it for one, it in living.items() if tasks[one] != task}
        elif how == "grow":
            self.story.living[name] = {**before, "texts": [TEXTS[3]]}
            self.story.keep(other, name)
        self.story.living[f"c{new}"], self.story.task[f"c{new}"] = data, task
        self.story.keep(mine, f"c{new}")

    @rule(who=WHO)
    def reopen(self, who: str) -> None:
        """Close and open again."""
        self.managers[who].close()
        self.managers[who] = self.open()

    @rule(who=WHO)
    def forget(self, who: str) -> None:
        """Let everything in memory go, but the index: its places may be stale."""
        self.managers[who].store.blobs.close()

    @precondition(lambda self: hasattr(self, "story"))
    @rule()
    def lose_views(self) -> None:
        """Make all views anew."""
        for manager in self.managers.values():
            manager.close()
        shutil.rmtree(self.path / "views")
        self.managers = {name: self.open() for name in ("one", "two")}

    @invariant()
    def everything_that_lives_is_there(self) -> None:
        """Read it all, through both."""
        if hasattr(self, "managers"):
            for manager in self.managers.values():
                self.story.check(manager)

    def teardown(self) -> None:
        """Collect once more, and compare what is left."""
        if not hasattr(self, "managers"):
            return
        try:
            self.collect("one", drops=self.drops)
            for manager in self.managers.values():
                manager.store.blobs.close()
                self.story.check(manager)
                self.story.check_past(manager, drops=self.drops)
                manager.close()
            check_files(self.path, drops=self.drops)
        finally:
            self.patch.undo()
            shutil.rmtree(self.root)


_profile = settings()
CollectionMachine.TestCase.settings = settings(
    max_examples=max(5, _profile.max_examples // 5), stateful_step_count=12, deadline=None
)
TestCollectionMachine = CollectionMachine.TestCase
