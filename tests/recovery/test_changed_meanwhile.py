"""What others make or change while a recovery is at work is in no capture: it is never let go."""

from __future__ import annotations

import errno

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.restoration import Restoration
from ckptlog.capture.directory.trail import Trail
from ckptlog.errors import InputOutputError, RecoveryFailedError, RestoreConflictError
from ckptlog.recovery.call import called
from ckptlog.recovery.recovery import Recovery
from ckptlog.recovery.retry import Backoff
from tests.capture.sample import Value

WORK = {"a": "edited meanwhile", "work": "an hour of work"}


class Other(Value):
    """Somebody works in the directory while it is restored; then it fails, or does not."""

    tree = None
    is_failing = False

    def restore(self, payload):
        if self.tree is not None:
            self.tree.mkdir(exist_ok=True)
            for name, text in WORK.items():
                (self.tree / name).write_text(text)
            self.tree = None
        if self.is_failing:
            self.is_failing = False
            raise RuntimeError("no")
        self.value = payload


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store", actor="tester") as manager:
        yield manager


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("old")
    (tree / "b").write_text("old")
    return tree


def recovery(manager, tree, other, **options):
    """Return a recovery of both, after a capture and a change of the directory."""
    capturer = Capturer(manager, "sys", [DirectoryComponent("tree", tree, **options), other])
    capturer.capture()
    (tree / "a").write_text("newer")
    (tree / "b").write_text("newer")
    return Recovery(capturer, backoff=Backoff(attempts=1))


def look(tree):
    return {one.name: one.read_text() for one in tree.iterdir()}


def test_what_was_made_since_the_safety_capture_refuses_the_restore(manager, tree):
    other = Other("other", 1)
    one = recovery(manager, tree, other, depends_on=["other"])
    other.tree = tree
    with pytest.raises(RecoveryFailedError, match="made or changed after") as caught:
        one.recover()
    assert caught.value.context["component"] == "tree"
    assert look(tree) == {"b": "newer", **WORK}
    assert one.unfinished() is None
    # At rest, it is recovered, and what was there can be had back
    done = one.recover()
    assert look(tree) == {"a": "old", "b": "old"}
    one.recover(done.safety_id)
    assert look(tree) == {"b": "newer", **WORK}


def test_a_rollback_leaves_what_was_made_since_the_restore_and_tells(manager, tree):
    other = Other("other", 1, depends_on=["tree"])
    one = recovery(manager, tree, other)
    other.tree, other.is_failing = tree, True
    with pytest.raises(RecoveryFailedError):
        one.recover()
    assert look(tree) == {"b": "newer", **WORK}
    assert one.unfinished() is None
    assert any("stays as it is: a, work." in error for error in one.progress.errors)


def test_what_appears_where_nothing_was_refuses_the_restore(manager, tree):
    other = Other("other", 1)
    one = recovery(manager, tree, other, depends_on=["other"])
    (tree / "a").unlink()
    (tree / "b").unlink()
    tree.rmdir()
    other.tree = tree
    with pytest.raises(RecoveryFailedError, match="made or changed after"):
        one.recover()
    aside = tree.with_name("tree.undone-1")  # its rollback makes it missing again
    assert not tree.exists()
    assert look(aside) == WORK


def test_without_a_safety_capture_it_goes_as_the_caller_wants(manager, tree):
    other = Other("other", 1)
    one = recovery(manager, tree, other, depends_on=["other"])
    other.tree = tree
    one.recover(safety=False)
    assert look(tree) == {"a": "old", "b": "old"}


@pytest.mark.parametrize("attempts", [1, 3])
def test_what_was_made_before_a_restore_failed_and_took_all_back_stays(
    manager, tree, monkeypatch, attempts
):
    one = recovery(manager, tree, Other("other", 1))
    one = Recovery(one.capturer, backoff=Backoff(attempts=attempts, first_s=0.001))
    put, calls = Trail.put, []

    def failing(self, path, *rest):
        calls.append(path)
        if len(calls) == 2:
            (tree / "work").write_text("an hour of work")
            raise OSError(errno.EBUSY, "busy")
        return put(self, path, *rest)

    monkeypatch.setattr(Trail, "put", failing)
    with pytest.raises(RecoveryFailedError):
        one.recover()
    assert look(tree) == {"a": "newer", "b": "newer", "work": "an hour of work"}
    assert one.unfinished() is None


def test_what_a_restore_could_not_take_back_is_put_back_from_what_was_saved(
    manager, tree, monkeypatch
):
    one = recovery(manager, tree, Other("other", 1))
    put = Trail.put

    def failing(self, path, *rest):
        put(self, path, *rest)
        if path == "b":
            monkeypatch.undo()
            monkeypatch.setattr(Trail, "_put_back", refuse)
            raise OSError(errno.EIO, "no")

    def refuse(*_):
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(Trail, "put", failing)
    with pytest.raises(RecoveryFailedError):
        one.recover()
    assert look(tree) == {"a": "newer", "b": "newer"}


def test_what_was_made_before_a_restore_was_refused_stays(manager, tree, monkeypatch):
    one = recovery(manager, tree, Other("other", 1))
    check, calls = Restoration._check_conflicts, []

    def refuse(self, steps):
        calls.append(steps)
        if len(calls) > 1:  # the rollback's
            return check(self, steps)
        (tree / "work").write_text("an hour of work")
        raise RestoreConflictError("In the way.")

    monkeypatch.setattr(Restoration, "_check_conflicts", refuse)
    with pytest.raises(RecoveryFailedError):
        one.recover()
    assert look(tree) == {"a": "newer", "b": "newer", "work": "an hour of work"}
    assert one.unfinished() is None


def test_what_was_made_before_a_directory_could_not_be_walked_stays(manager, tree, monkeypatch):
    one = recovery(manager, tree, Other("other", 1))
    compared, calls = DirectoryComponent._compared_over, []

    def failing(self, *arguments):
        calls.append(arguments)
        if len(calls) == 1:
            (tree / "work").write_text("an hour of work")
            raise InputOutputError("Reading failed.")
        return compared(self, *arguments)

    monkeypatch.setattr(DirectoryComponent, "_compared_over", failing)
    with pytest.raises(RecoveryFailedError):
        one.recover()
    assert look(tree) == {"a": "newer", "b": "newer", "work": "an hour of work"}


def test_what_was_made_before_an_interruption_behind_a_restore_stays(manager, tree, monkeypatch):
    one = recovery(manager, tree, Other("other", 1))

    def interrupted(name, step, job, deadline_s):
        found = called(name, step, job, deadline_s)
        if (name, step) == ("tree", "restore") and not (tree / "work").exists():
            assert look(tree) == {"a": "old", "b": "old"}
            (tree / "work").write_text("an hour of work")
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr("ckptlog.recovery.restorer.called", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.recover()
    assert look(tree) == {"a": "newer", "b": "newer", "work": "an hour of work"}
    assert one.unfinished() is None
