"""A capture whose metadata is damaged hides no other one, and is named."""

from __future__ import annotations

import os

import pytest

from ckptlog import CheckpointManager, create_checkpoint_system
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.catalogue import systems
from ckptlog.capture.directory.workspace import Workspace
from ckptlog.capture.roll import Roll
from ckptlog.cli.main import main
from ckptlog.errors import ArgumentError, CheckpointCorruptionError, CheckpointError
from ckptlog.recovery.recovery import Recovery
from tests.capture.sample import Value
from tests.service.system import Agents, settings


def spoil(store, take, count=3, which=1):
    """Take captures with large descriptions, and flip a bit in the pack that has one of them."""
    before = set((store / "packs").iterdir()) if (store / "packs").exists() else set()
    made = [take(os.urandom(1_500_000).hex()) for _ in range(count)]
    fresh = sorted(
        set((store / "packs").iterdir()) - before, key=lambda one: one.stat().st_mtime_ns
    )
    assert len(fresh) == count
    content = bytearray(fresh[which].read_bytes())
    content[len(content) // 2] ^= 0xFF
    fresh[which].write_bytes(content)
    return made


def counting(part, capturer):
    """Return what counts on and captures."""

    def take(text):
        part.value = {"n": part.value["n"] + 1}
        return capturer.capture(description=text).id

    return take


@pytest.fixture
def spoilt(tmp_path):
    part = Value("a", {"n": 0})
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "sys", [part])
        made = spoil(tmp_path / "store", counting(part, capturer))
    with CheckpointManager(tmp_path / "store") as manager:
        yield Capturer(manager, "sys", [part]), made


def test_the_others_are_listed(spoilt):
    capturer, made = spoilt
    with pytest.raises(CheckpointCorruptionError):
        capturer.captures()
    told = []
    found = capturer.captures(on_damage=lambda name, error: told.append((name, error.code)))
    assert [one.id for one in found] == [made[2], made[0]]
    assert [name for name, _ in told] == [made[1]]
    assert [one.id for one in capturer.each(on_damage=lambda *_: None)] == [made[2], made[0]]
    assert systems(capturer.manager.store) == ["sys"]


def test_what_cannot_be_called_is_refused_before_something_is_damaged(spoilt):
    capturer, made = spoilt

    async def never_run(_name, _error):
        pass

    for wrong in (5, never_run):
        for call in (capturer.captures, capturer.each):
            with pytest.raises(ArgumentError, match="on_damage"):
                call(on_damage=wrong)
    assert len(capturer.captures(10**30, on_damage=lambda *_: None)) == len(made) - 1


def test_what_is_older_is_not_taken_for_what_is_damaged(spoilt):
    capturer, made = spoilt
    first, last = capturer.find(made[0]), capturer.find(made[2])
    assert capturer.find(at=first.created_at).id == made[0]
    assert capturer.find(at=first.position).id == made[0]
    assert capturer.find(at=last.created_at).id == made[2]
    with pytest.raises(CheckpointCorruptionError):
        capturer.find(at=last.position - 1)
    with pytest.raises(CheckpointCorruptionError):
        capturer.find(made[1])


def test_the_roll_keeps_its_line(spoilt):
    capturer, made = spoilt
    roll = Roll(capturer.manager.store, "sys")
    assert roll.count() == 3
    assert set(roll.loose) == {made[0], made[2]}  # and no retention deletes the damaged one


def test_captures_and_recoveries_go_on(tmp_path):
    part = Value("a", {"n": 0})
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "sys", [part])
        made = spoil(tmp_path / "store", counting(part, capturer), which=2)
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "sys", [part])
        with pytest.raises(CheckpointCorruptionError):  # nobody asked for an older one
            Recovery(capturer).recover()
        info = capturer.capture()
        assert info.number == 4
        assert capturer.capture(skip_unchanged=True) is None
        assert Recovery(capturer).recover(made[1]).status == "completed"
        assert part.value == {"n": 2}


def test_a_service_starts_captures_and_cleans_up(tmp_path):
    path = tmp_path / "store"

    def service():
        config = settings(path, intervalSeconds=600, maxCheckpoints=2)
        return create_checkpoint_system(config, {"agentManager": Agents()})

    with service() as one:
        made = spoil(path, lambda text: one.create_checkpoint(text).id, count=2, which=0)
    with service() as one:
        more = [one.create_checkpoint("more").id for _ in range(2)]
        told = []
        found = one.list_checkpoints(on_damage=lambda name, error: told.append(name))
        assert [each.id for each in found] == more[::-1]
        assert told == [made[0]]


def test_the_program_lists_the_good_names_the_damaged_and_fails(tmp_path, capsys):
    tree = tmp_path / "tree"
    tree.mkdir()
    store = tree / ".ckptlog"
    assert main(["capture", str(tree)]) == 0
    with CheckpointManager(store) as manager:
        workspace = Workspace(manager, tree)

        def take(text):
            (tree / "file").write_text(text[:40])
            return workspace.capture(description=text).id

        made = spoil(store, take)
    capsys.readouterr()
    for words in (["rewind", str(tree), "--list"], ["list", "--store", str(store)]):
        for more in ([], ["--json"]):
            assert main([*words, *more]) == 1, words
            out, err = capsys.readouterr()
            assert made[0] in out
            assert made[2] in out
            assert f"{made[1]} cannot be read" in err
            assert "cli.partial" in err
    assert main(["list", "--task", "none", "--store", str(store)]) == 0
    with CheckpointManager(store) as manager:
        workspace = Workspace(manager, tree)
        assert workspace.find("#4").id == made[2]
        assert workspace.find("#2").id == made[0]
        assert workspace.find(0).id == made[2]
        assert workspace.find(workspace.find("#2").created_at).id == made[0]
        for wrong in ("#3", 1, "#9"):
            with pytest.raises(CheckpointError):
                workspace.find(wrong)
    assert main(["rewind", str(tree), "--to", "#2", "--yes"]) == 0
    assert (tree / "file").exists()
