"""A store with everything in it, damage to it, and what must hold after a repair."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import msgspec

import ckptlog
from ckptlog.errors import CheckpointError
from ckptlog.formats import frame
from ckptlog.log.log import Log
from ckptlog.model.event import CHECKPOINT_TYPES, LOST
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory

NOISE = [random.Random(number).randbytes(400).hex() for number in range(60)]


class Truth(msgspec.Struct):
    """What a store held. states: By checkpoint, repr of it. newest: Position of its last event."""

    states: dict[str, str]
    newest: dict[str, int]
    leaves: list[bytes]


def build(root: Path, *, steps: int = 12, segment_bytes: int = 24_000) -> Truth:
    """Make a store of several segments with differences, trees and packs."""
    from ckptlog.manager import preparation

    defaults = Log.__init__.__kwdefaults__
    assert defaults is not None
    before = defaults["segment_bytes"], preparation.CHUNK_BYTES_IN_LOG_MAX
    defaults["segment_bytes"], preparation.CHUNK_BYTES_IN_LOG_MAX = segment_bytes, 60_000
    try:
        with ckptlog.CheckpointManager(root) as manager:
            names = []
            for step in range(1, steps):
                data = {"step": step, "text": f"step {step} " * 60, "rows": NOISE[: 3 * step]}
                task = f"task {step % 3}"
                name = manager.create_checkpoint(task, f"title {step}", step, data=data)
                names.append(name)
                if step % 2:
                    manager.complete_checkpoint(name, {"done": step, "rows": NOISE[:9]})
                if step % 4 == 0:
                    manager.fail_checkpoint(name, {"message": "no"})
            manager.delete_checkpoint(names[4])
            large = {"rows": [random.Random(n).randbytes(200).hex() for n in range(600)]}
            name = manager.create_checkpoint("large", "large", 1, data=large)
            manager.update_checkpoint(name, data={"rows": [*large["rows"], "more"]})
            large = {"rows": [random.Random(-n).randbytes(200).hex() for n in range(700)]}
            manager.create_checkpoint("large", "larger", 2, data=large)
    finally:
        defaults["segment_bytes"], preparation.CHUNK_BYTES_IN_LOG_MAX = before
    return truth_of(root)


def truth_of(root: Path) -> Truth:
    with ckptlog.CheckpointManager(root) as manager:
        return Truth(states_of(manager), newest_of(manager.store), leaves_of(manager.store))


def states_of(manager) -> dict[str, str]:
    """Return each living checkpoint as it reads; "" where it cannot be read."""
    found = {}
    for name in [one.id for one in rows_of(manager.store)]:
        try:
            found[name] = repr(manager.get_checkpoint(name))
        except CheckpointError:
            found[name] = ""
    return found


def rows_of(store):
    from ckptlog.views.query import Filter

    return store.select(Filter(), after=None, limit=1000)


def newest_of(store) -> dict[str, int]:
    return {
        entry.event.subject.checkpoint: entry.position
        for entry in store.events()
        if entry.event.type in CHECKPOINT_TYPES
    }


def leaves_of(store) -> list[bytes]:
    return [leaf for commit in store.log.reader.commits() for leaf in commit.leaves]


def check_repaired(root: Path, truth: Truth, mending, *, leaves_known: bool = True) -> None:
    """Open, verify and read a mended store; compare with what it held."""
    with ckptlog.CheckpointManager(root) as manager:
        report = manager.store.verify()
        assert report.problems == (), report.problems
        seen, entries = states_of(manager), list(manager.store.events())
        leaves = leaves_of(manager.store)
        manager.create_checkpoint("afterwards", "A", 1)
    assert [entry.position for entry in entries] == list(range(len(entries)))
    lost = {entry.position for entry in entries if entry.event.type == LOST}
    told = {p for first, last in mending.lost_positions for p in range(first, last + 1)}
    assert lost == told
    if leaves_known:
        assert leaves[: len(truth.leaves)] == truth.leaves
    affected = {one.checkpoint for one in mending.affected}
    for name, state in truth.states.items():
        if truth.newest[name] in lost:
            continue
        if name in affected:
            assert seen.get(name) == "", name
        else:
            assert seen.get(name) == state, name
    hit = {name for name, position in truth.newest.items() if position in lost}
    assert affected <= set(truth.states) | hit
    for one in mending.affected:
        assert one.recovery_point != one.checkpoint
        if one.recovery_point:
            assert seen[one.recovery_point] != ""
    # Nothing is left to do, and the next repair says so.
    again = repair(root)
    assert again.is_empty, again
    assert verify_directory(root).problems == ()


def frames_of(path: Path, store_id: bytes) -> list[tuple[int, int, int]]:
    """Return kind, offset and length of each frame in a container."""
    data = path.read_bytes()
    seed = frame.container_seed(store_id, path.name)
    return [(kind, begin, end - begin) for kind, _, begin, end in frame.walk(seed, 0, data)]


def fresh(image: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(image, to)
    return to


def files_of(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for pattern in ("log/*.seg", "packs/*.pack")
        for path in root.glob(pattern)
    )
