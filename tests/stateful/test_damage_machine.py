"""Damage at any place of a store at any time, then repair: what is lost is told, and nothing else is lost.

The model knows every checkpoint's data and every event's place. After bytes were smashed:
no answer is wrong, verification tells; after the repair every event that was not named as lost
stands where it stood, every checkpoint that was not named as affected is what it was, what was
named cannot be read indeed, the damaged originals lie in quarantine, and work goes on.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ckptlog import CheckpointCorruptionError, CheckpointError, CheckpointManager
from ckptlog.repository.collection import CollectOptions
from ckptlog.repository.repair import repair

EVERYTHING = CollectOptions(seal_bytes_min=0, garbage_min=0.0)
sizes = st.sampled_from([900, 900, 0])


class DamageMachine(RuleBasedStateMachine):
    """One store.

    Attributes:
        model: The data of each living checkpoint.
        saved: All data that were ever saved.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ckptlog-damage-"))
        self.root = self.folder / "store"
        self.model: dict[str, dict[str, object]] = {}
        self.serial = 0
        self.saved: list[dict[str, object]] = []
        self.manager = CheckpointManager(self.root)

    def teardown(self) -> None:
        if hasattr(self, "manager"):
            self.manager.close()
            shutil.rmtree(self.folder)

    def data(self, size: int) -> dict[str, object]:
        self.serial += 1
        noise = random.Random(self.serial).randbytes(size)
        self.saved.append({"serial": self.serial, "noise": noise})
        return self.saved[-1]

    # --- work -------------------------------------------------------------------------------

    @rule(size=sizes, task=st.sampled_from("ab"))
    def create(self, size: int, task: str) -> None:
        data = self.data(size)
        self.model[self.manager.create_checkpoint(task, "T", 1, data=data)] = data

    @rule(pick=st.integers(0, 99))
    def save_again(self, pick: int) -> None:
        """Save what was saved before, and may have been lost since."""
        if self.saved:
            data = self.saved[pick % len(self.saved)]
            self.model[self.manager.create_checkpoint("c", "T", 1, data=data)] = data

    @rule(pick=st.integers(0, 99), size=sizes)
    def update(self, pick: int, size: int) -> None:
        if self.model:
            name = sorted(self.model)[pick % len(self.model)]
            data = self.data(size)
            assert self.manager.update_checkpoint(name, data=data)
            self.model[name] = data

    @rule(pick=st.integers(0, 99))
    def delete(self, pick: int) -> None:
        if self.model:
            name = sorted(self.model)[pick % len(self.model)]
            assert self.manager.delete_checkpoint(name)
            del self.model[name]

    @rule()
    def settle(self) -> None:
        self.manager.store.compact(EVERYTHING)

    # --- damage -----------------------------------------------------------------------------

    @rule(
        where=st.integers(0, 9),
        place=st.integers(0, 999),
        width=st.sampled_from([3, 1, 40, 700]),
        has_copy=st.booleans(),
    )
    def damage(self, where: int, place: int, width: int, has_copy: bool) -> None:
        events = {one.position: (one.event.id, self.about(one)) for one in self.events()}
        self.manager.close()
        copy = self.folder / "copy"
        shutil.copytree(self.root, copy)
        container = self.smash(where, place, width)
        damaged = (self.root / container).read_bytes()
        self.check_nothing_is_wrong(events)
        mending = repair(self.root, is_applied=True, copy=copy if has_copy else None)
        assert mending.ok, mending.problems_after
        assert mending.files, f"{container} was damaged and nobody saw it"
        kept = [one for one in mending.files if one.container == container]
        assert [(self.root / one.quarantine).read_bytes() for one in kept] == [damaged]
        if has_copy:
            assert (mending.lost_positions, mending.lost_chunks) == ((), ())
        shutil.rmtree(copy)
        self.manager = CheckpointManager(self.root)
        self.check_repaired(events, mending)

    def smash(self, where: int, place: int, width: int) -> str:
        """Turn bits in a container; return its name."""
        found = sorted(
            path
            for pattern in ("log/*.seg", "log/*.set", "packs/*.pack")
            for path in self.root.glob(pattern)
        )
        path = found[where % len(found)]
        data = bytearray(path.read_bytes())
        at = place * len(data) // 1000
        for one in range(at, min(at + width, len(data))):
            data[one] ^= 0x55 if width > 1 else 0x04
        path.write_bytes(data)
        return str(path.relative_to(self.root))

    def events(self) -> list[object]:
        return list(self.manager.store.events())

    def about(self, entry) -> str:
        return entry.event.subject.checkpoint

    def check_nothing_is_wrong(self, events: dict[int, tuple[str, str]]) -> None:
        """Before the repair: an answer is right or an error, and verification tells."""
        try:
            with CheckpointManager(self.root) as manager:
                for name, data in self.model.items():
                    try:
                        found = manager.get_checkpoint(name)
                    except CheckpointError:
                        continue
                    assert found is not None, f"{name} looks absent"
                    assert found.data == data
                assert not manager.store.verify().ok
        except CheckpointError:
            pass

    def check_repaired(self, events: dict[int, tuple[str, str]], mending) -> None:
        """After it: exactly what was named is lost."""
        lost = {at for first, last in mending.lost_positions for at in range(first, last + 1)}
        now = {one.position: one.event.id for one in self.events()}
        assert sorted(now) == list(range(len(events) + (mending.position >= 0)))
        for position, (identifier, _) in events.items():
            assert (now[position] == identifier) is (position not in lost)
        unknown = {events[at][1] for at in lost}
        affected = {one.checkpoint for one in mending.affected}
        assert affected <= self.model.keys() | unknown
        for name in sorted(self.model.keys() | unknown - {""}):
            self.check_one(name, is_affected=name in affected, is_unknown=name in unknown)
        assert self.manager.store.verify().ok
        named = {one.checkpoint_id for one in self.manager.iterate()}
        assert named - unknown == self.model.keys() - unknown
        self.forget(unknown | affected)

    def check_one(self, name: str, *, is_affected: bool, is_unknown: bool) -> None:
        if is_affected:
            with pytest.raises(CheckpointCorruptionError):
                self.manager.get_checkpoint(name)
            return
        found = self.manager.get_checkpoint(name)
        if is_unknown:  # an older state, or one that was deleted
            return
        assert found is not None, f"{name} is gone, and nobody said so"
        assert found.data == self.model[name], f"{name} is another, and nobody said so"

    def forget(self, names: set[str]) -> None:
        """Delete what was lost, so that the model goes on with what it knows."""
        for name in names:
            self.model.pop(name, None)
        left = [one.checkpoint_id for one in self.manager.iterate()]
        for name in left:
            if name not in self.model:
                assert self.manager.delete_checkpoint(name)


class TestDamage(DamageMachine.TestCase):
    """A few histories; more with --thorough."""

    settings = settings(max_examples=5, stateful_step_count=8)


@pytest.mark.thorough
@pytest.mark.timeout(7200)
class TestMuchDamage(DamageMachine.TestCase):
    """Many."""

    settings = settings(max_examples=600, stateful_step_count=25)
