"""A recovery is killed, somebody works on, and it is finished or undone: his work is captured."""

from __future__ import annotations

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.errors import CaptureFailedError
from ckptlog.recovery.recovery import Recovery
from tests.capture.sample import Value


class Killed(BaseException):
    """Stands for a kill: nothing is put back."""


class Part(Value):
    """Kills the recovery at its restore, once; can it be captured?"""

    is_killing = False
    is_broken = False

    def capture(self):
        if self.is_broken:
            raise RuntimeError("no")
        return super().capture()

    def verify_restored(self):
        return []

    def restore(self, payload):
        super().restore(payload)
        if self.is_killing:
            self.is_killing = False
            raise Killed


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A directory and a part, both restored when the recovery is killed; and the work since."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("old")
    part = Part("part", 1, depends_on=["tree"])
    with CheckpointManager(tmp_path / "store", actor="tester") as manager:
        capturer = Capturer(manager, "sys", [DirectoryComponent("tree", tree), part])
        first = capturer.capture()
        (tree / "a").write_text("newer")
        part.value, part.is_killing = 2, True
        with monkeypatch.context() as patched:
            patched.setattr("ckptlog.recovery.run.Run._fail", lambda _, error, name: _raise(error))
            with pytest.raises(Killed):
                Recovery(capturer).recover()
        (tree / "a").write_text("edited the next day")
        (tree / "work").write_text("an hour of work")
        yield tree, part, capturer, first


def _raise(error):
    raise error


def look(tree):
    return {one.name: one.read_text() for one in tree.iterdir()}


WORK = {"a": "edited the next day", "work": "an hour of work"}


@pytest.mark.parametrize(
    ("act", "ends"), [("resume", ({"a": "old"}, 1)), ("roll_back", ({"a": "newer"}, 2))]
)
def test_it_is_captured_before_anything_is_touched(world, act, ends):
    tree, part, capturer, _ = world
    recovery = Recovery(capturer)
    seen = []
    done = getattr(recovery, act)(on_progress=seen.append)
    assert (look(tree), part.value) == ends
    newest = capturer.find()
    assert (newest.reason, newest.tags) == ("safety", ("safety",))
    assert newest.id in done.warnings[0]
    assert done.safety_id != newest.id  # that is what it undoes
    assert recovery.unfinished() is None
    recovery.recover(newest.id)
    assert (look(tree), part.value) == (WORK, 1)


@pytest.mark.parametrize("act", ["resume", "roll_back"])
def test_where_it_cannot_be_captured_the_recovery_stays_unfinished(world, act):
    tree, part, capturer, _ = world
    recovery = Recovery(capturer)
    part.is_broken = True
    begun = recovery.unfinished()
    with pytest.raises(CaptureFailedError) as caught:
        getattr(recovery, act)()
    assert caught.value.hint.startswith(f"The recovery {begun.id} stays unfinished.")
    assert "safety=False" in caught.value.hint
    assert look(tree) == WORK
    assert recovery.unfinished() == begun
    assert getattr(recovery, act)(safety=False) is not None
    assert "work" not in look(tree)
    assert recovery.unfinished() is None


def test_what_is_captured_already_is_not_captured_again(world):
    tree, _, capturer, _ = world
    saved = capturer.capture(reason="mixture")
    done = Recovery(capturer).resume()
    assert done.warnings == ()
    assert capturer.find().id == saved.id
    assert look(tree) == {"a": "old"}
