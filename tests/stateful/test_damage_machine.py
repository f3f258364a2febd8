"""Damage to what a store needs, at any time, then repair: what is lost is told, nothing else is.

The model knows every checkpoint's data and every event's place. Bytes are smashed in frames that
living checkpoints need, which the store's own reading finds, or anywhere. Then: no answer is wrong,
verification tells; after the repair every event that was not named as lost stands where it stood,
every checkpoint that was not named as affected is what it was, what was named cannot be read
indeed and was hit indeed, the damaged originals lie in quarantine, no leaf hash is another, and
work goes on. A copy that was kept at some time may turn up at any later one: what it has comes back.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ckptlog import CheckpointCorruptionError, CheckpointError, CheckpointManager
from ckptlog.errors import MissingBlobError
from ckptlog.formats import chunk
from ckptlog.model.event import LOST
from ckptlog.repository.collection import CollectOptions
from ckptlog.repository.repair import repair
from tests.repository.ruin import rows_of

EVERYTHING = CollectOptions(seal_bytes_min=0, garbage_min=0.0)
CHUNK, EVENT, ANYWHERE = "chunk", "event", "anywhere"
# It takes minutes here.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
sizes = st.sampled_from([900, 900, 0, 9000])
hits = st.lists(
    st.tuples(
        st.sampled_from([CHUNK, CHUNK, EVENT, ANYWHERE]),
        st.integers(0, 99),  # which frame, or file
        st.integers(0, 999),  # where in it
        st.sampled_from([40, 3, 700, 1]),  # bytes; of one a bit
    ),
    min_size=1,
    max_size=3,
)


class Span(NamedTuple):
    """Bytes of a container."""

    container: str
    begin: int
    end: int

    def touches(self, other: Span) -> bool:
        is_near = self.begin < other.end and other.begin < self.end
        return self.container == other.container and is_near


class Seen(NamedTuple):
    """An event as it was before it was ever lost."""

    id: str
    checkpoint: str


class Kept(NamedTuple):
    """A copy. whole: Data of the checkpoints that it can give. lost: Of its events."""

    path: Path
    events: int
    lost: frozenset[int]
    whole: dict[str, dict[str, object]]


class DamageMachine(RuleBasedStateMachine):
    """One store.

    Attributes:
        model: The data of each living checkpoint. broken: Those that cannot be read.
        seen: Every event by position. lost: Positions of tombstones.
        saved: All data that were ever saved.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ckptlog-damage-"))
        self.root = self.folder / "store"
        self.model: dict[str, dict[str, object]] = {}
        self.broken: set[str] = set()
        self.seen: dict[int, Seen] = {}
        self.lost: set[int] = set()
        self.copies: list[Kept] = []
        self.serial = 0
        self.saved: list[dict[str, object]] = []
        self.manager = CheckpointManager(self.root)
        for _ in range(3):  # so that the first damage hits something
            self.create(900, "a")

    def teardown(self) -> None:
        if hasattr(self, "manager"):
            self.manager.close()
            shutil.rmtree(self.folder)

    def data(self, size: int) -> dict[str, object]:
        self.serial += 1
        noise = random.Random(self.serial).randbytes(size)
        self.saved.append({"serial": self.serial, "noise": noise})
        return self.saved[-1]

    @property
    def unknown(self) -> set[str]:
        """Names of which events are lost: what they are now nobody can know."""
        return {self.seen[at].checkpoint for at in self.lost} - {""}

    def pick(self, number: int) -> str | None:
        """Return a living checkpoint of which everything is known."""
        names = sorted(self.model.keys() - self.unknown)
        return names[number % len(names)] if names else None

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
        name = self.pick(pick)
        if name is not None and name not in self.broken:
            data = self.data(size)
            assert self.manager.update_checkpoint(name, data=data)
            self.model[name] = data

    @rule(pick=st.integers(0, 99))
    def delete(self, pick: int) -> None:
        name = self.pick(pick)
        if name is not None:
            assert self.manager.delete_checkpoint(name)
            del self.model[name]
            self.broken.discard(name)

    @rule()
    def settle(self) -> None:
        self.manager.store.compact(EVERYTHING)

    @precondition(lambda self: len(self.copies) < 3)
    @rule()
    def keep_copy(self) -> None:
        """Put a copy away, which may turn up after a repair."""
        events = len(self.events())
        self.manager.close()
        path = self.folder / f"kept-{len(self.copies)}"
        shutil.copytree(self.root, path)
        hidden = self.unknown | self.broken
        whole = {name: data for name, data in self.model.items() if name not in hidden}
        self.copies.append(Kept(path, events, frozenset(self.lost), whole))
        self.manager = CheckpointManager(self.root)

    # --- what a store needs -----------------------------------------------------------------

    def needs(self) -> dict[str, list[Span]]:
        """Return where the chunks of each living checkpoint lie, what they differ from too."""
        store, found = self.manager.store, {}
        for entry in self.events():
            name = entry.event.subject.checkpoint
            if name in self.model and entry.event.data is not None:
                roots = [one for one in (entry.event.data, entry.event.meta) if one is not None]
                found[name] = roots
        return {name: self.spans(store, roots) for name, roots in found.items()}

    def spans(self, store, roots) -> list[Span]:
        spans = []
        for root in roots:
            try:
                waiting = sorted(store.blobs.digests(root))
            except CheckpointError:  # lost before
                continue
            while waiting:
                place = store.index.get(waiting.pop())
                if place is not None:
                    end = place.offset + place.length
                    spans.append(Span(place.container, place.offset, end))
                    base = chunk.base_in(store.blobs.read_record(place))
                    waiting += [base] if base else []
        return spans

    def needed_events(self) -> list[Span]:
        return [
            Span(one.container, one.offset, one.offset + one.length)
            for one in self.events()
            if one.event.subject.checkpoint in self.model and (self.root / one.container).exists()
        ]

    def events(self) -> list:
        return list(self.manager.store.events())

    def leaves(self) -> list[bytes]:
        return [leaf for one in self.manager.store.log.reader.commits() for leaf in one.leaves]

    # --- damage -----------------------------------------------------------------------------

    @rule(hits=hits, has_copy=st.sampled_from([False, False, True]))
    def damage(self, hits: list[tuple[str, int, int, int]], has_copy: bool) -> None:
        needs, leaves = self.needs(), self.leaves()
        aims = {CHUNK: [one for spans in needs.values() for one in spans]}
        aims[EVENT] = self.needed_events()
        for one in self.events():
            if one.event.type != LOST:
                self.seen[one.position] = Seen(one.event.id, one.event.subject.checkpoint)
        self.manager.close()
        copy = self.folder / "copy"
        shutil.copytree(self.root, copy)
        before = self.contents()
        spans = [self.smash(aims.get(kind, []), *where) for kind, *where in hits]
        damaged = self.contents()
        self.check_nothing_is_wrong(is_changed=damaged != before)
        mending = repair(self.root, is_applied=True, copy=copy if has_copy else None)
        assert mending.ok, mending.problems_after
        assert mending.files or damaged == before, f"{spans} was damaged and nobody saw it"
        for one in mending.files:
            if one.container in damaged:
                kept = (self.root / one.quarantine).read_bytes()
                assert kept == damaged[one.container], one.container
        shutil.rmtree(copy)
        self.manager = CheckpointManager(self.root)
        if has_copy:
            assert set(self.positions(mending.lost_positions)) <= self.lost
            assert mending.lost_chunks == ()
        self.check_repaired(mending, leaves)
        if all(self.seen[at].checkpoint for at in self.lost):
            hit = {
                name for name, own in needs.items() if any(a.touches(b) for a in own for b in spans)
            }
            new = {one.checkpoint for one in mending.affected} - self.broken - self.unknown
            assert new <= hit, f"{new - hit} were told to be lost, and nothing of them was hit"
        self.broken = {one.checkpoint for one in mending.affected} & self.model.keys()

    def contents(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for pattern in ("log/*.seg", "log/*.set", "packs/*.pack")
            for path in sorted(self.root.glob(pattern))
        }

    def smash(self, aims: list[Span], which: int, place: int, width: int) -> Span:
        """Turn bits in a frame, or anywhere in a file; return where."""
        if not aims:
            aims = [Span(name, 0, len(data)) for name, data in self.contents().items()]
        aim = aims[which % len(aims)]
        path = self.root / aim.container
        data = bytearray(path.read_bytes())
        at = aim.begin + place * (aim.end - aim.begin) // 1000
        span = Span(aim.container, at, min(at + width, aim.end, len(data)))
        for one in range(span.begin, span.end):
            data[one] ^= 0x55 if width > 1 else 0x04
        path.write_bytes(data)
        return span

    @precondition(lambda self: self.copies)
    @rule(pick=st.integers(0, 2))
    def repair_later(self, pick: int) -> None:
        """Repair with a copy of some time ago: what it has of the losses comes back."""
        kept, leaves = self.copies[pick % len(self.copies)], self.leaves()
        known = {
            one.position
            for one in self.events()
            if one.event.type == LOST and "leaf" in one.event.facts
        }
        lost, broken = self.lost, self.broken | self.unknown
        self.manager.close()
        mending = repair(self.root, is_applied=True, copy=kept.path)
        self.manager = CheckpointManager(self.root)
        assert mending.ok, mending.problems_after
        assert (mending.lost_positions, mending.lost_chunks) == ((), ())
        back = {at for at in lost & known if at < kept.events and at not in kept.lost}
        assert set(self.positions(mending.positions_back)) == back
        self.check_repaired(mending, leaves)
        assert self.lost == lost - back
        self.broken = {one.checkpoint for one in mending.affected} & self.model.keys()
        for name in (broken & kept.whole.keys()) - self.unknown:
            if kept.whole[name] == self.model[name]:
                assert name not in self.broken, f"the copy has {name}, and it did not come back"
        assert self.broken <= broken

    def positions(self, stretches) -> list[int]:
        return [at for first, last in stretches for at in range(first, last + 1)]

    def check_nothing_is_wrong(self, *, is_changed: bool) -> None:
        """Before the repair: an answer is right or an error, and verification tells."""
        unknown = self.unknown
        try:
            with CheckpointManager(self.root) as manager:
                for name in self.model.keys() - unknown:
                    try:
                        found = manager.get_checkpoint(name)
                    except CheckpointError:
                        continue
                    assert found is not None, f"{name} looks absent"
                    assert found.data == self.model[name]
                assert manager.store.verify().ok is not is_changed
        except CheckpointError:
            assert is_changed

    def check_repaired(self, mending, leaves: list[bytes]) -> None:
        """After it: exactly what was named is lost, now or before."""
        entries = self.events()
        assert [one.position for one in entries] == list(range(len(entries)))
        assert len(entries) == len(leaves) + (mending.position >= 0)
        told = self.lost - set(self.positions(mending.positions_back))
        told |= set(self.positions(mending.lost_positions))
        for one in entries[: len(leaves)]:
            assert (one.event.type == LOST) is (one.position in told), one.position
            if one.position not in told and one.position in self.seen:
                assert one.event.id == self.seen[one.position].id
        self.lost = told
        for one, (before, now) in zip(
            entries, zip(leaves, self.leaves(), strict=False), strict=False
        ):
            is_known = one.event.type != LOST or "leaf" in one.event.facts
            assert before == now or not is_known, f"leaf {one.position} is another"
        affected = {one.checkpoint for one in mending.affected}
        unknown = self.unknown
        assert affected <= self.model.keys() | unknown
        for name in sorted(self.model.keys() | unknown):
            self.check_one(name, is_affected=name in affected, is_unknown=name in unknown)
        report = self.manager.store.verify()
        assert report.ok, report.problems
        named = {row.id for row in rows_of(self.manager.store)}
        assert named - unknown == self.model.keys() - unknown

    def check_one(self, name: str, *, is_affected: bool, is_unknown: bool) -> None:
        if is_affected:
            with pytest.raises((CheckpointCorruptionError, MissingBlobError)):
                self.manager.get_checkpoint(name)
            return
        found = self.manager.get_checkpoint(name)
        if is_unknown:  # an older state, or one that was deleted
            return
        assert found is not None, f"{name} is gone, and nobody said so"
        assert found.data == self.model[name], f"{name} is another, and nobody said so"


class TestDamage(DamageMachine.TestCase):
    """Some histories; more with --thorough."""

    settings = settings(max_examples=15, stateful_step_count=10, phases=NO_SHRINKING)


@pytest.mark.thorough
class TestMuchDamage(DamageMachine.TestCase):
    """Many."""

    settings = settings(max_examples=600, stateful_step_count=25, phases=NO_SHRINKING)


@pytest.fixture
def machine():
    one = DamageMachine()
    one.begin()
    yield one
    one.teardown()


def test_two_lost_chunks_are_both_told(machine):
    """A walk that always loses something, so that the machine cannot pass by seeing nothing."""
    machine.keep_copy()
    machine.damage([(CHUNK, 0, 500, 40), (CHUNK, 2, 500, 40)], has_copy=False)
    assert len(machine.broken) == 2
    machine.create(0, "b")
    machine.repair_later(0)
    assert machine.broken == set()


def test_two_lost_events_are_both_told(machine):
    machine.keep_copy()
    machine.damage([(EVENT, 0, 500, 40), (EVENT, 1, 500, 40)], has_copy=False)
    assert len(machine.lost) == 2
    machine.settle()
    machine.create(0, "b")
    machine.repair_later(0)
    assert machine.lost == set()
