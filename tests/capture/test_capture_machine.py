"""Captures beside a model: a bank whose money lies in several components and is moved by threads
all the time, while components fail, hang and change under the capturer.

After every rule, and in the end once more from disk: the money of each capture adds up; a capture
that was acknowledged is there, whole, with the number that was told; one that failed is not; no
lock is held; and the log holds what the model says.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ckptlog import CaptureFailedError, CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import ChangedError
from tests.capture.sample import Account, Bank, Book

ACCOUNTS = ["a", "b", "c", "d"]
MONEY = 100
STABILITIES = ["live", "copied", "immutable", "fork"]


class Moody(Account):
    """An account that fails or hangs in a step when it is told to."""

    def __init__(self, bank: Bank, name: str, **options: Any) -> None:
        super().__init__(bank, name, **options)
        self.mood: tuple[str, str] | None = None
        self.gate = threading.Event()
        self.open = 0

    def act(self, step: str) -> None:
        mood = self.mood
        if mood is None or mood[1] != step:
            return
        self.mood = None
        if mood[0] == "fail":
            raise ValueError(step)
        self.gate.wait(60)

    def prepare(self) -> None:
        self.act("prepare")
        super().prepare()
        self.open += 1

    def capture(self) -> Any:
        self.act("capture")
        return super().capture()

    def commit(self) -> None:
        self.open -= 1
        super().commit()
        self.act("commit")

    def abort(self) -> None:
        self.open -= 1
        super().abort()


class Movers:
    """Threads that move money until they are told to stop."""

    def __init__(self, bank: Bank, count: int) -> None:
        self.bank = bank
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(seed,)) for seed in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.is_over.wait(0.001):
            source, target = chance.sample(ACCOUNTS, 2)
            self.bank.move(source, target, chance.randint(1, 9), lambda: self.is_over.wait(0.0001))

    def close(self) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


class CaptureMachine(RuleBasedStateMachine):
    """Captures of a bank at work."""

    def __init__(self) -> None:
        super().__init__()
        self.path = tempfile.mkdtemp(prefix="ckptlog-capture-")
        self.bank = Bank(ACCOUNTS, MONEY)
        self.taken: dict[str, int] = {}
        self.hanging: Moody | None = None

    @initialize(
        stabilities=st.lists(st.sampled_from(STABILITIES), min_size=4, max_size=4),
        batch_size=st.integers(1, 5),
        order=st.permutations(ACCOUNTS),
    )
    def open(self, stabilities: list[str], batch_size: int, order: list[str]) -> None:
        self.manager = CheckpointManager(self.path)
        self.accounts = {
            name: Moody(self.bank, name, stability=stability)
            for name, stability in zip(ACCOUNTS, stabilities, strict=True)
        }
        # Locks are taken in one order by all: components depend on each other so.
        for before, after in zip(ACCOUNTS, ACCOUNTS[1:], strict=False):
            self.accounts[after].depends_on = [before]
        self.book = Book("book")
        self.capturer = Capturer(
            self.manager,
            "bank",
            [*(self.accounts[name] for name in order), self.book],
            batch_size=batch_size,
            deadline_s=10.0,
        )
        self.movers = Movers(self.bank, 2)

    def take(self, **options: Any) -> None:
        info = self.capturer.capture(**options)
        if info is not None:
            assert info.number == max(self.taken.values(), default=0) + 1
            self.taken[info.id] = info.number

    @rule()
    def capture(self) -> None:
        if self.hanging is None:
            self.take()
        else:
            with pytest.raises(CaptureFailedError) as caught:
                self.take()
            assert caught.value.context["reason"] == "hung"

    @rule()
    def capture_if_changed(self) -> None:
        if self.hanging is None:
            self.take(skip_unchanged=True)

    @rule(name=st.sampled_from(ACCOUNTS), step=st.sampled_from(["prepare", "capture", "commit"]))
    def fail(self, name: str, step: str) -> None:
        if self.hanging is not None:
            return
        self.accounts[name].mood = ("fail", step)
        with pytest.raises(CaptureFailedError, match=f"'{name}' failed in {step}"):
            self.take()

    @rule(name=st.sampled_from(ACCOUNTS), step=st.sampled_from(["prepare", "capture"]))
    def hang(self, name: str, step: str) -> None:
        if self.hanging is not None:
            return
        self.hanging = self.accounts[name]
        self.hanging.gate.clear()
        self.hanging.mood = ("hang", step)
        self.capturer._deadline_s = 0.05
        with pytest.raises(CaptureFailedError) as caught:
            self.take()
        # With threads that hold the others' locks any of them may be the late one.
        assert caught.value.context["reason"] == "deadline"
        self.release()

    def release(self) -> None:
        """Let what hangs go on, and see that it gives back what it has."""
        assert self.hanging is not None
        self.hanging.mood = None
        self.hanging.gate.set()
        for worker in self.capturer._left:
            worker.join(60)
            assert not worker.is_at_work
        self.capturer._deadline_s = 10.0
        self.hanging = None

    @rule(changes=st.integers(1, 4))
    def change_while_read(self, changes: int) -> None:
        if self.hanging is not None:
            return
        self.book.changes = changes
        if changes <= 2:
            self.take()
        else:
            with pytest.raises(ChangedError, match="'book'"):
                self.take()
        self.book.changes = 0

    @rule()
    def reopen(self) -> None:
        self.manager.close()
        self.manager = CheckpointManager(self.path)
        components = list(self.capturer.components.values())
        self.capturer = Capturer(self.manager, "bank", components, deadline_s=10.0)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if len(self.taken) > 1:
            # Not the newest: its number is what the next one is told by.
            name = data.draw(st.sampled_from(sorted(self.taken, key=self.taken.get)[:-1]))
            self.manager.delete_checkpoint(name)
            del self.taken[name]

    @invariant()
    def no_component_is_held(self) -> None:
        for account in getattr(self, "accounts", {}).values():
            assert account.open == 0

    def check(self, capturer: Capturer) -> None:
        infos = capturer.captures()
        assert {info.id: info.number for info in infos} == self.taken
        for info in infos:
            assert capturer.check(info) == []
            found = {name: one.value() for name, one in capturer.stored(info).items()}
            assert sum(found[name]["money"] for name in ACCOUNTS) == MONEY * len(ACCOUNTS)
            assert found["book"]["text"] == "once"

    def teardown(self) -> None:
        if not hasattr(self, "movers"):
            return
        self.movers.close()
        for account in self.accounts.values():
            account.gate.set()
        assert sum(self.bank.money.values()) == MONEY * len(ACCOUNTS)
        self.check(self.capturer)
        self.manager.close()
        with CheckpointManager(self.path) as manager:
            self.check(Capturer(manager, "bank"))
            assert manager.validate_checkpoint_integrity() == []
        assert self.book.calls.count("close") == self.book.calls.count("capture")
        shutil.rmtree(self.path)


TestCaptureMachine = CaptureMachine.TestCase
TestCaptureMachine.settings = settings(max_examples=8, stateful_step_count=12)
