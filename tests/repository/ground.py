"""What a collection must leave, told without its code: a model, and what lies in the files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.blobs.pack import read_index
from ckptlog.blobs.payload import digests_of
from ckptlog.model.event import Event
from ckptlog.repository.collection import Collected, CollectOptions

DELETED, TASK_DELETED = "checkpoint.deleted", "task.deleted"
_POOL = random.Random(99)
TEXTS = [_POOL.randbytes(_POOL.choice([40, 400, 3000])).hex() for _ in range(30)]


class Story:
    """Random use of a store through any of some managers, and what must be there after it.

    Attributes:
        living: Data of each living checkpoint. task: Of each, living or not.
        past: Name, position and data of every state that a checkpoint with data was in.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.living: dict[str, dict[str, Any]] = {}
        self.task: dict[str, str] = {}
        self.past: list[tuple[str, int, dict[str, Any]]] = []
        self.serial = 0
        self.ended: set[str] = set()

    def step(self, manager: CheckpointManager) -> None:
        acts = [self.create] * 4 + [self.grow] * 4 + [self.delete] * 2 + [self.batch, self.end]
        if self.chance.random() < 0.04:
            acts = [self.delete_task]
        self.chance.choice(acts)(manager)

    def steps(self, manager: CheckpointManager, count: int) -> Story:
        for _ in range(count):
            self.step(manager)
        return self

    def data(self) -> dict[str, Any]:
        texts = self.chance.choices(TEXTS, k=self.chance.choice([0, 1, 1, 3, 8]))
        return {"texts": texts, "n": self.chance.randrange(5)}

    def create(self, manager: Any, data: dict[str, Any] | None = None) -> str:
        self.serial += 1
        name, task = f"c{self.serial}", self.chance.choice("abc")
        data = self.data() if data is None else data
        manager.create_checkpoint(task, "T", 1, checkpoint_id=name, data=data)
        self.living[name], self.task[name] = data, task
        self.keep(manager, name)
        return name

    def grow(self, manager: Any) -> None:
        """Change a checkpoint, or go on from one in the same task."""
        if not self.living:
            return
        name = self.chance.choice(sorted(self.living))
        if name in self.ended and isinstance(manager, CheckpointManager):
            assert manager.restore_checkpoint(name).data == self.living[name]
            self.ended.discard(name)
        before = self.living[name]
        data = {**before, "texts": [*before["texts"], *self.data()["texts"]], "more": 1}
        if self.chance.random() < 0.5:
            manager.update_checkpoint(name, data=data)
            self.living[name] = data
            self.keep(manager, name)
        else:
            self.create(manager, data)

    def end(self, manager: Any) -> None:
        if self.living:
            name = self.chance.choice(sorted(self.living))
            if name not in self.ended:
                manager.complete_checkpoint(name)
            self.ended.add(name)
            self.keep(manager, name)

    def delete(self, manager: Any) -> None:
        if self.living:
            name = self.chance.choice(sorted(self.living))
            manager.delete_checkpoint(name)
            del self.living[name]

    def delete_task(self, manager: Any) -> None:
        task = self.chance.choice("abc")
        manager.delete_task(task)
        self.living = {one: it for one, it in self.living.items() if self.task[one] != task}

    def batch(self, manager: CheckpointManager) -> None:
        with manager.batch() as batch:
            made = [self.create(batch) for _ in range(3)]
            self.delete(batch)
        for name in made:
            if name in self.living:
                self.keep(manager, name)

    def keep(self, manager: Any, name: str) -> None:
        if isinstance(manager, CheckpointManager):
            self.past.append((name, manager.get_checkpoint(name).position, self.living[name]))

    # --- what must be there -----------------------------------------------------------------

    def check(self, manager: CheckpointManager) -> None:
        """Read everything that lives."""
        assert {one.checkpoint_id for one in manager.iterate()} == set(self.living)
        for name, data in self.living.items():
            assert manager.get_checkpoint(name).data == data, name

    def check_past(self, manager: CheckpointManager, *, drops: bool = False) -> int:
        """Read the past: right, or gone where it may be gone; return how much is gone."""
        newest = {name: position for name, position, _ in self.past}
        gone = 0
        for name, position, data in self.past:
            try:
                assert manager.get_checkpoint_at(name, position).data == data
            except ckptlog.MissingBlobError as error:
                assert "compaction" in error.hint, error
                is_old = drops and newest[name] != position
                assert name not in self.living or is_old, (name, position)
                gone += 1
        return gone


def quiet(manager: CheckpointManager, **options: Any) -> Collected:
    """Collect all that can be collected."""
    return manager.store.compact(CollectOptions(garbage_min=0, seal_bytes_min=1, **options))


def events_of(path: Path) -> list[Event]:
    with ckptlog.open(path, read_only=True) as store:
        return [entry.event for entry in store.events()]


def kept(events: list[Event], *, drops: bool = False) -> list[Event]:
    """Return the events whose payloads must be kept, by the page's words."""
    dead = {one.origin for one in events if one.type == DELETED}
    newest: dict[int, int] = {}
    ends: dict[str, int] = {}
    for position, one in enumerate(events):
        if one.subject.checkpoint:
            newest[position if one.origin < 0 else one.origin] = position
        elif one.type == TASK_DELETED:
            ends[one.subject.task] = position
    found = []
    for position, one in enumerate(events):
        origin = position if one.origin < 0 else one.origin
        if one.subject.checkpoint and (
            origin in dead
            or ends.get(one.subject.task, -1) > origin
            or (drops and newest[origin] != position)
        ):
            continue
        found.append(one)
    return found


def stored(path: Path) -> dict[str, set[bytes]]:
    """Return the chunks of every container whose file is there."""
    found: dict[str, set[bytes]] = {}
    with ckptlog.open(path, read_only=True) as store:
        for commit in store.log.reader.commits():
            for place in commit.placements:
                found.setdefault(place.container, set()).add(place.digest)
        for file in sorted(path.glob("packs/*.pack")):
            places = read_index(file, store.info.id_bytes)
            found[f"packs/{file.name}"] = {place.digest for place in places}
    return found


def check_files(path: Path, *, drops: bool = False) -> None:
    """Check what a quiet collection leaves: what is wanted, and nothing else."""
    events = events_of(path)
    removed = {name for one in events for name in one.removes}
    registered = {
        f"packs/{pack.base:020d}-{pack.id}.pack" for one in events for pack in one.packs
    } - removed
    assert {f"packs/{file.name}" for file in path.glob("packs/*")} == registered
    assert not [name for name in removed if (path / name).exists()]
    assert len(list(path.glob("log/*.seg"))) == 1
    assert not list(path.glob("log/*.tmp*"))
    wanted: set[bytes] = set()
    with ckptlog.open(path, read_only=True) as store:
        for one in kept(events, drops=drops):
            for reference in (one.data, one.meta):
                if reference is not None:
                    wanted |= digests_of(reference, store.blobs.raw)
        for digest in wanted:
            place = store.index.get(digest)
            assert place is not None
            store.blobs.read_record(place)
    lying = stored(path)
    assert set().union(*lying.values()) == wanted
