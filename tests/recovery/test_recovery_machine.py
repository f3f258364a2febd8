"""Captures and recoveries beside a model: a system in five components (tests/recovery/world.py)
that moves while it is captured, and whose components fail, hang, lie and are killed.

After every rule: what is there is what the model says, exactly: the captured state or the one
before; every step of a recovery is in the log; nothing is left lying about. In the end each capture
is restored elsewhere and is one moment of the system.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ckptlog import CaptureFailedError, CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import (
    CheckpointNotFoundError,
    RecoveryCancelledError,
    RecoveryFailedError,
    RecoveryIncompleteError,
    RecoveryRefusedError,
    RecoveryUnfinishedError,
)
from ckptlog.manager.fact import is_pinned
from ckptlog.recovery.breaker import BreakerSettings
from ckptlog.recovery.recovery import Recovery
from ckptlog.recovery.retry import Backoff
from ckptlog.recovery.run import Run
from ckptlog.views.query import Filter
from tests.recovery.world import (
    NAMES,
    PLACED,
    Gone,
    Look,
    Moods,
    World,
    components_of,
    look_at_database,
    look_at_file,
    look_at_tree,
)

FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of syncs are made here
LONG_S, SHORT_S = 60.0, 0.15
FAULTS = ["before", "half", "after", "wrong"]
names = st.sampled_from(NAMES)
some = st.lists(names, min_size=1, max_size=4, unique=True)
lost = st.sampled_from([[], [], ["tree"], ["db"], ["settings"], ["db", "settings"], list(PLACED)])

_fail = Run._fail


def _fail_unless_gone(self: Run, error: BaseException, name: str) -> Any:
    """A process that was killed puts nothing back."""
    if isinstance(error, Gone):
        raise error
    _fail(self, error, name)


class After:
    """Cancels from the nth question on."""

    def __init__(self, count: int) -> None:
        self.left = count

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


class RecoveryMachine(RuleBasedStateMachine):
    """One system and its store."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(Run, "_fail", _fail_unless_gone)
        self.folder = Path(tempfile.mkdtemp(prefix="ckptlog-recovery-", dir=FAST))
        self.store = self.folder / "store"
        self.moods = Moods()
        self.taken: dict[str, Look] = {}
        """Captures that are there, and what each was taken of."""
        self.abandoned: list[CheckpointManager] = []
        self.is_open = False

    @initialize(
        is_wal=st.booleans(),
        has_index=st.booleans(),
        links=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=3),
    )
    def open(self, is_wal: bool, has_index: bool, links: list[tuple[int, int]]) -> None:
        self.world = World(self.folder / "live", is_wal=is_wal)
        self.depends: dict[str, list[str]] = {}
        for one, other in links:  # never a circle
            if one != other:
                first, second = NAMES[min(one, other)], NAMES[max(one, other)]
                self.depends.setdefault(second, []).append(first)
        self.index = self.folder / "index" if has_index else None
        self.is_open = True
        self.start()
        self.take()

    def start(self) -> None:
        """Start the program: everything but the world and the store is new."""
        self.manager = CheckpointManager(self.store)
        self.parts = components_of(self.world, self.moods, self.depends, index=self.index)
        self.capturer = Capturer(self.manager, "sys", list(self.parts.values()), deadline_s=LONG_S)
        self.recovery = self.recoverer(LONG_S)

    def recoverer(self, deadline_s: float) -> Recovery:
        never = BreakerSettings(failures_max=1_000_000)
        quick = Backoff(first_s=0.001)
        return Recovery(self.capturer, backoff=quick, breakers=never, deadline_s=deadline_s)

    # --- what the model knows -----------------------------------------------------------------

    def facts(self, position: int) -> list[tuple[str, dict[str, Any]]]:
        """Return the events of recoveries from a position on."""
        found = [entry.event for entry in self.manager.store.events(position)]
        return [
            (one.type.removeprefix("recovery."), dict(one.facts))
            for one in found
            if one.type.startswith("recovery.")
        ]

    def steps(self, position: int) -> list[tuple[str, str]]:
        """Return the events of a recovery as (what, component)."""
        return [
            (facts["action"], facts["component"]) if kind == "step" else (kind, "")
            for kind, facts in self.facts(position)
        ]

    def captured(self, name: str) -> Look:
        return self.taken[name]

    def note_safety(self) -> None:
        """The newest capture may be a recovery's own: it is of what was there before."""
        for info in self.capturer.captures():
            if info.id not in self.taken:
                assert info.reason == "safety"
                self.taken[info.id] = self.before

    def forget_mixtures(self) -> None:
        """Delete what was captured before a recovery was ended: it is of no one moment."""
        for info in self.capturer.captures():
            if info.description.startswith("before the end"):
                self.manager.delete_checkpoint(info.id)

    def expect(self, before: Look, of: Look, names: Any) -> None:
        assert self.world.look() == {**before, **{name: of[name] for name in names}}

    def ordered(self, wanted: Any) -> list[str]:
        return [name for name in self.capturer.components if name in wanted]

    def lacking(self, wanted: list[str], before: Look, of: Look) -> bool:
        """Say whether something that is restored depends on what is not, and is not as captured."""
        needed = {other for name in wanted for other in self.depends.get(name, ())}
        return any(before[name] != of[name] for name in needed - set(wanted))

    # --- captures -----------------------------------------------------------------------------

    def take(self, **options: Any) -> None:
        info = self.capturer.capture(**options)
        if info is None:
            return
        stored = self.capturer.stored(info)
        self.taken[info.id] = self.world.looks[stored["gate"].value()["tick"]]

    @rule(more=st.integers(0, 3))
    def change(self, more: int) -> None:
        def edit(world: World) -> None:
            world.held["memory"][f"key-{more}"] = [world.tick] * more
            with world.connected() as database:
                database.executemany("insert into t (word) values (?)", [("x" * 900,)] * 5 * more)
            extra = world.tree / "extra"
            if more % 2 and not extra.exists():
                extra.mkdir()
                (extra / "in").write_text("in")
            elif not more and extra.is_dir():
                shutil.rmtree(extra)
                extra.symlink_to("first")
            elif extra.is_symlink():
                extra.unlink()
                extra.write_bytes(b"\xff" * 700)

        self.world.move(edit if not (self.world.tree / "extra").is_file() else None)

    @rule(skip=st.booleans())
    def capture(self, skip: bool) -> None:
        self.take(skip_unchanged=skip)

    @rule(count=st.integers(1, 3))
    def capture_while_it_moves(self, count: int) -> None:
        is_over = threading.Event()

        def moves() -> None:
            while not is_over.wait(0.002):
                self.world.move()

        thread = threading.Thread(target=moves)
        thread.start()
        try:
            for _ in range(count):
                self.take()
        finally:
            is_over.set()
            thread.join(60)
        assert not thread.is_alive()

    @rule(name=names, act=st.sampled_from(["fail", "hang"]))
    def capture_that_fails(self, name: str, act: str) -> None:
        before, position = self.world.look(), self.capturer.captures()
        self.moods.left = [(name, "capture", act)]
        self.moods.gate.clear()
        self.capturer._deadline_s = SHORT_S if act == "hang" else LONG_S
        with pytest.raises(CaptureFailedError) as caught:
            self.take()
        self.let_go()
        if act == "fail":  # with a short deadline another one may be late too
            assert caught.value.context["component"] == name
        assert self.capturer.captures() == position
        assert self.world.look() == before

    def let_go(self) -> None:
        """Let what hangs go on to its end."""
        self.moods.gate.set()
        for worker in self.capturer._left:
            worker.join(60)
        for thread in list(self.recovery.guards.hung.values()):
            thread.join(60)
            assert not thread.is_alive()
        assert not self.recovery.guards.still_hung()
        self.capturer._deadline_s = LONG_S
        self.moods.clear()

    @precondition(lambda self: len(self.taken) > 3)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        newest = self.capturer.captures()[0].id
        name = data.draw(st.sampled_from(sorted(set(self.taken) - {newest})))
        self.manager.delete_checkpoint(name)
        del self.taken[name]
        with pytest.raises(CheckpointNotFoundError):
            self.recovery.recover(name)

    @rule()
    def restart(self) -> None:
        self.manager.close()
        self.start()

    # --- recoveries ---------------------------------------------------------------------------

    def choose(
        self, data: st.DataObject, away: Sequence[str] = (), *, may_lack: bool = False
    ) -> tuple[str, Look]:
        """Choose a capture, lose some of what is there, and note what is there then.

        Args:
            may_lack: Whether components may have been missing when it was taken.
        """
        chosen = data.draw(st.sampled_from(sorted(self.taken)))
        assume(may_lack or None not in self.captured(chosen).values())
        for name in away:
            self.world.lose(name)
        self.position = self.manager.store.position
        self.before = self.world.look()
        return chosen, self.before

    @rule(data=st.data(), away=lost, is_newest=st.booleans())
    def recover(self, data: st.DataObject, away: list[str], is_newest: bool) -> None:
        chosen, before = self.choose(data, away, may_lack=True)
        if is_newest:
            wanted = [one.id for one in self.capturer.captures() if one.reason != "safety"]
            assume(wanted)
            chosen = wanted[0]
        of = self.captured(chosen)
        done = self.recovery.recover(None if is_newest else chosen)
        assert (done.status, done.capture_id, done.percent) == ("completed", chosen, 100.0)
        self.expect(before, of, NAMES)
        told = [("restoring", n) for n in self.ordered(NAMES)]
        steps = [step for one in told for step in (one, ("restored", one[1]))]
        assert self.steps(self.position) == [("started", ""), *steps, ("completed", "")]
        self.after_recovery()

    def after_recovery(self) -> None:
        """Note the safety capture, and let the system go on at one tick."""
        self.note_safety()
        assert self.world.litter() == []
        self.world.move()

    @rule(data=st.data(), away=lost)
    def recover_and_undo(self, data: st.DataObject, away: list[str]) -> None:
        """The undo gives exactly what was there before, also of what was missing."""
        chosen, before = self.choose(data, away, may_lack=True)
        done = self.recovery.recover(chosen)
        self.note_safety()
        self.before = self.world.look()
        undone = self.recovery.recover(done.safety_id)
        assert all("there was nothing to save" in error for error in undone.errors)
        assert self.world.look() == before
        self.after_recovery()

    @rule(data=st.data(), wanted=some)
    def recover_a_part(self, data: st.DataObject, wanted: list[str]) -> None:
        chosen, before = self.choose(data, may_lack=True)
        of = self.captured(chosen)
        if self.lacking(wanted, before, of):
            with pytest.raises(RecoveryRefusedError, match="depends on"):
                self.recovery.recover(chosen, components=wanted)
            assert self.world.look() == before
            assert self.facts(self.position) == []
            return
        done = self.recovery.recover(chosen, components=wanted)
        assert done.components == tuple(self.ordered(wanted))
        self.expect(before, of, wanted)
        self.after_recovery()

    @rule(data=st.data(), by_time=st.booleans())
    def recover_a_point_in_time(self, data: st.DataObject, by_time: bool) -> None:
        infos = self.capturer.captures()
        info = data.draw(st.sampled_from(infos))
        _, before = self.choose(data, may_lack=True)
        expected = info.id
        if by_time:  # of those within one microsecond the newest
            expected = next(one.id for one in infos if one.created_at <= info.created_at)
        done = self.recovery.recover(at=info.created_at if by_time else info.position)
        assert done.capture_id == expected
        self.expect(before, self.captured(expected), NAMES)
        self.after_recovery()

    @rule(data=st.data(), wanted=st.one_of(st.none(), some), away=lost)
    def dry_run(self, data: st.DataObject, wanted: list[str] | None, away: list[str]) -> None:
        chosen, before = self.choose(data, away, may_lack=True)
        of, stamps = self.captured(chosen), self.world.stamps()
        done = self.recovery.recover(chosen, components=wanted, dry_run=True)
        assert self.world.stamps() == stamps
        assert self.world.look() == before
        assert self.manager.store.position == self.position
        assert (done.status, done.capture_id) == ("planned", chosen)
        names = wanted or NAMES
        assert bool(done.errors) == self.lacking(list(names), before, of), done.errors
        for name in names:
            assert bool(done.plans[name].changes) == (before[name] != of[name]), done.plans[name]
        self.world.move()

    @rule(data=st.data(), name=names, fault=st.sampled_from(FAULTS), away=lost)
    def recover_in_vain(self, data: st.DataObject, name: str, fault: str, away: list[str]) -> None:
        chosen, before = self.choose(data, away)
        self.moods.left = [(name, "restore", fault)]
        with pytest.raises(RecoveryFailedError) as caught:
            self.recovery.recover(chosen)
        assert self.moods.left == []
        assert caught.value.context["component"] == name
        assert caught.value.context["rolled_back"]
        self.is_as_before(before, away)
        order = self.ordered(NAMES)
        touched = order if fault == "wrong" else order[: order.index(name) + 1]
        steps = self.steps(self.position)
        reverted = [one for action, one in steps if action == "reverted"]
        assert reverted == touched[::-1]
        assert [one for action, one in steps if action == "reverting"] == reverted
        assert [one for action, one in steps if action == "restoring"] == touched
        assert (steps[0], steps[-1]) == (("started", ""), ("failed", ""))
        assert self.facts(self.position)[-1][1]["rolled_back"] == 1
        assert self.recovery.unfinished() is None
        self.after_recovery()

    def is_as_before(self, before: Look, away: list[str]) -> None:
        """See that it is, and remove what a rollback has set aside for what was missing."""
        assert self.world.look() == before
        for name in self.world.litter():
            stem, _, number = name.partition(".undone-")
            assert number == "1"
            place = {"app.db": "db", "settings.json": "settings", "tree": "tree"}[
                stem.removesuffix("-wal").removesuffix("-shm")
            ]
            assert place in away
            path = self.world.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    @rule(data=st.data(), name=names, count=st.integers(1, 2))
    def recover_over_errors_that_pass(self, data: st.DataObject, name: str, count: int) -> None:
        chosen, before = self.choose(data)
        self.moods.left = [(name, "restore", "passing")] * count
        done = self.recovery.recover(chosen)
        assert sum("tried again" in one for one in done.errors) == count
        self.expect(before, self.captured(chosen), NAMES)
        self.after_recovery()

    @rule(data=st.data(), name=names, step=st.sampled_from(["validate", "capture"]))
    def refused(self, data: st.DataObject, name: str, step: str) -> None:
        chosen, before = self.choose(data)
        self.moods.left = [(name, step, "no" if step == "validate" else "fail")]
        error = RecoveryRefusedError if step == "validate" else CaptureFailedError
        with pytest.raises(error, match=name):
            self.recovery.recover(chosen)
        assert self.moods.left == []
        assert self.world.look() == before
        assert self.facts(self.position) == []

    @rule(data=st.data(), count=st.integers(0, 14))
    def cancel(self, data: st.DataObject, count: int) -> None:
        chosen, before = self.choose(data)
        try:
            self.recovery.recover(chosen, cancel=After(count))
        except RecoveryCancelledError as error:
            assert error.context["rolled_back"]
            assert self.world.look() == before
        else:
            self.expect(before, self.captured(chosen), NAMES)
        assert self.recovery.unfinished() is None
        self.after_recovery()

    # --- what ends in the middle --------------------------------------------------------------

    @rule(data=st.data(), name=names, how=st.sampled_from(["resume", "roll_back"]))
    def hang(self, data: st.DataObject, name: str, how: str) -> None:
        chosen, before = self.choose(data)
        self.moods.left = [(name, "restore", "hang")]
        self.moods.gate.clear()
        recovery = self.recoverer(SHORT_S)
        with pytest.raises((RecoveryIncompleteError, RecoveryFailedError)):
            recovery.recover(chosen)
        self.let_go()
        self.settle(chosen, before, how, [])
        self.after_recovery()

    @rule(
        data=st.data(),
        name=names,
        fault=st.sampled_from(["before", "half", "after"]),
        how=st.sampled_from(["resume", "roll_back"]),
    )
    def fails_in_the_rollback_too(
        self, data: st.DataObject, name: str, fault: str, how: str
    ) -> None:
        chosen, before = self.choose(data)
        self.moods.left = [(name, "restore", "half"), (name, "restore", fault)]
        with pytest.raises((RecoveryIncompleteError, RecoveryFailedError)) as caught:
            self.recovery.recover(chosen)
        self.moods.clear()
        if isinstance(caught.value, RecoveryIncompleteError):
            assert caught.value.context["lacking"] == [name]
            assert self.recovery.unfinished() is not None
        else:  # it raised behind a restore that was right
            assert fault == "after"
            assert self.world.look() == before
        self.settle(chosen, before, how, [])
        self.after_recovery()

    @rule(
        data=st.data(),
        places=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=3),
        mood=st.one_of(st.none(), st.tuples(names, st.sampled_from([*FAULTS, "gone"]))),
        hows=st.lists(st.sampled_from(["resume", "roll_back"]), min_size=3, max_size=3),
        away=lost,
    )
    def killed(
        self,
        data: st.DataObject,
        places: list[tuple[int, bool]],
        mood: tuple[str, str] | None,
        hows: list[str],
        away: list[str],
    ) -> None:
        """Kill the process before or behind an event, start it, kill that too, and settle it."""
        chosen, before = self.choose(data, away, may_lack=True)
        self.moods.left = [] if mood is None else [(mood[0], "restore", mood[1])]
        acts: list[Any] = [lambda: self.recovery.recover(chosen)]
        acts += [lambda how=how: getattr(self.recovery, how)() for how in hows[1:]]
        for act, (number, is_behind) in zip(acts, places, strict=False):
            with (
                self.killed_at(number, is_behind=is_behind),
                suppress(Gone, RecoveryFailedError, RecoveryIncompleteError),
            ):
                act()
            self.die()
            self.forget_mixtures()
        self.moods.clear()
        self.settle(chosen, before, hows[0], away)
        self.after_recovery()

    def die(self) -> None:
        """The process is dead: its handles are not closed, and the next one starts."""
        self.abandoned.append(self.manager)
        self.start()

    @contextmanager
    def killed_at(self, number: int, *, is_behind: bool) -> Iterator[None]:
        """Make the nth event of a recovery the last one, or one that is not made any more."""
        left = [number]

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(manager: CheckpointManager, kind: str, *arguments: Any, **more: Any) -> Any:
                if not kind.startswith("recovery."):
                    return real(manager, kind, *arguments, **more)
                left[0] -= 1
                if left[0] < 0 and not is_behind:
                    raise Gone
                answer = real(manager, kind, *arguments, **more)
                if left[0] < 0:
                    raise Gone
                return answer

            return call

        with pytest.MonkeyPatch.context() as patch:
            for name in ("record", "record_pinning", "record_unpinning"):
                patch.setattr(CheckpointManager, name, counted(getattr(CheckpointManager, name)))
            yield

    def settle(self, chosen: str, before: Look, how: str, away: list[str]) -> None:
        """End what is unfinished one way or the other; then all is one of the two states."""
        of = self.captured(chosen)
        found = self.recovery.unfinished()
        if found is None:
            if self.world.look() == before:
                self.is_as_before(before, away)
            else:
                self.expect(before, of, NAMES)
                self.forget_aside(away, of)
            return
        assert found.capture == chosen
        with pytest.raises(RecoveryUnfinishedError):
            self.recovery.recover(chosen)
        assert "ended in the middle" in self.recovery.recover(chosen, dry_run=True).errors[0]
        done = getattr(self.recovery, how)()
        self.forget_mixtures()
        if how == "resume":
            assert done.status == "completed"
            self.expect(before, of, NAMES)
            self.forget_aside(away, of)
        else:
            assert done.status == "rolled_back"
            self.is_as_before(before, away)
        assert self.recovery.unfinished() is None
        assert self.recovery.resume() is None
        assert self.recovery.roll_back() is None

    def forget_aside(self, away: list[str], of: Look) -> None:
        """Remove what was set aside by a rollback, or a recovery, that was killed behind that."""
        for name in self.world.litter():
            assert ".undone-" in name or ".before-" in name
            assert away or None in of.values()
            path = self.world.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    # --- always -------------------------------------------------------------------------------

    @invariant()
    def nothing_lies_about(self) -> None:
        if self.is_open:
            assert self.world.litter() == []
            assert self.moods.left == []

    @invariant()
    def nobody_holds_the_world(self) -> None:
        if self.is_open:
            free = threading.Thread(target=self._take_lock)
            free.start()
            free.join(60)
            assert not free.is_alive()

    def _take_lock(self) -> None:
        with self.world.lock:
            pass

    @invariant()
    def nothing_is_unfinished_or_pinned(self) -> None:
        if self.is_open:
            assert self.recovery.unfinished() is None
            assert self.pinned() == []

    def pinned(self) -> list[str]:
        store = self.manager.store
        rows = store.select(Filter(), after=None, limit=1_000)
        return [row.id for row in rows if is_pinned(store, row)]

    def check(self) -> None:
        """See that each capture is there, sound, and one moment of the system in every component."""
        infos = {info.id: info for info in self.capturer.captures()}
        assert set(infos) == set(self.taken)
        for number, (name, info) in enumerate(infos.items()):
            assert self.capturer.check(info) == []
            out = self.folder / f"out{number}"
            self.recovery.recover(name, to=out)
            stored = self.capturer.stored(info)
            of = self.captured(name)
            assert stored["gate"].value() == of["gate"]
            assert stored["memory"].value() == of["memory"]
            assert look_at_database(out / "db") == of["db"]
            assert look_at_tree(out / "tree") == of["tree"]
            assert look_at_file(out / "settings") == of["settings"]

    def teardown(self) -> None:
        self.patch.undo()
        try:
            if self.is_open:
                self.moods.gate.set()
                self.check()
                for manager in (self.manager, *self.abandoned):
                    manager.close()
                with CheckpointManager(self.store) as manager:
                    assert manager.validate_checkpoint_integrity() == []
        finally:
            shutil.rmtree(self.folder)


TestRecoveryMachine = RecoveryMachine.TestCase
TestRecoveryMachine.settings = settings(max_examples=12, stateful_step_count=12)


class LongRecoveryMachine(RecoveryMachine):
    """The same, for longer."""


@pytest.mark.thorough
class TestRecoveryMachineForLong(LongRecoveryMachine.TestCase):
    settings = settings(max_examples=150, stateful_step_count=30)
