"""What was missing before a recovery is missing again after its undo (specs/recovery.md, section 5).

The undo of a recovery that completed is the recovery of its safety capture.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest

from ckptlog import CheckpointManager, FileComponent, SqliteComponent
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.errors import (
    CaptureFailedError,
    ComponentError,
    RecoveryFailedError,
    RecoveryRefusedError,
)
from ckptlog.recovery.described import everything
from ckptlog.recovery.recovery import Recovery
from tests.capture.directory.picture import picture
from tests.capture.sample import Value
from tests.recovery.world import look_at_database


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store", actor="tester") as manager:
        yield manager


class Session:
    """A component of the user's own: there is a session, or there is none."""

    name = "session"
    stability = "copied"

    def __init__(self):
        self.state = {"user": 1}
        self.fails = ""

    def capture(self):
        if self.state is None:
            raise LookupError("there is no session")
        return dict(self.state)

    def restore(self, payload):
        self.state = dict(payload)
        if self.fails == "restore":
            self.fails = ""
            raise RuntimeError("no")

    def is_absent(self):
        return self.state is None

    def make_absent(self):
        self.state = None
        if self.fails == "make_absent":
            self.fails = ""
            raise RuntimeError("no")


class Last(Value):
    """Comes last, and fails when it is asked to."""

    fails = False

    def restore(self, payload):
        if self.fails:
            self.fails = False
            raise RuntimeError("no")
        self.value = payload


class System:
    def __init__(self, manager, folder):
        self.manager, self.folder = manager, folder
        self.session = Session()
        self.last = Last("last", 1, depends_on=["db", "tree", "settings", "session"])
        folder.mkdir()
        self.fill("old")

    def parts(self):
        return [
            SqliteComponent("db", self.folder / "app.db"),
            DirectoryComponent("tree", self.folder / "tree"),
            FileComponent("settings", self.folder / "settings.json"),
            self.session,
            self.last,
        ]

    def recovery(self):
        return Recovery(Capturer(self.manager, "sys", self.parts()))

    def fill(self, word):
        (self.folder / "tree" / "deep").mkdir(parents=True, exist_ok=True)
        (self.folder / "tree" / "deep" / "a.txt").write_text(word)
        (self.folder / "settings.json").write_text(f'"{word}"')
        self.session.state = {"user": word}
        with closing(sqlite3.connect(self.folder / "app.db")) as database, database:
            database.executescript("create table if not exists t (n, word text); delete from t")
            database.execute("insert into t values (1, ?)", (word,))

    def lose(self, name):
        if name == "db":
            (self.folder / "app.db").unlink()
        elif name == "tree":
            shutil.rmtree(self.folder / "tree")
        elif name == "settings":
            (self.folder / "settings.json").unlink()
        else:
            self.session.state = None

    def look(self):
        """Return exactly what is there: also what should not be."""
        tree, settings = self.folder / "tree", self.folder / "settings.json"
        return {
            "names": sorted(os.listdir(self.folder)),
            "db": look_at_database(self.folder / "app.db"),
            "tree": picture(tree) if tree.exists() else None,
            "settings": settings.read_text() if settings.exists() else None,
            "session": self.session.state,
        }


@pytest.fixture
def system(manager, tmp_path):
    return System(manager, tmp_path / "live")


NAMES = ["db", "tree", "settings", "session"]


@pytest.mark.parametrize("lost", [*[[name] for name in NAMES], NAMES], ids=str)
def test_the_undo_is_exactly_what_was_before(system, lost):
    first = system.recovery().capturer.capture()
    system.fill("new")
    for name in lost:
        system.lose(name)
    before = system.look()
    done = system.recovery().recover(first.id)
    after = system.look()
    assert after["session"] == {"user": "old"}
    undone = system.recovery().recover(done.safety_id)
    assert system.look() == before
    assert undone.errors == ()
    assert undone.unverified == ()
    # And what the undo has saved is what the recovery had made.
    again = system.recovery().recover(undone.safety_id)
    assert system.look() == after
    system.recovery().recover(again.safety_id)
    assert system.look() == before


def test_a_safety_capture_says_what_was_missing(system):
    first = system.recovery().capturer.capture()
    system.lose("db")
    done = system.recovery().recover(first.id)
    assert done.missing == ("db",)
    assert any("'db' is missing" in error for error in done.errors)
    info = system.recovery().capturer.find(done.safety_id)
    assert list(info.components) == list(first.components)
    kinds = {name: one.kind for name, one in info.components.items()}
    assert kinds["db"] == "absent"
    assert info.components["db"].location["kind"] == "sqlite"
    assert system.recovery().capturer.check(info) == []


def test_a_plan_tells_what_would_be_taken_away(system):
    first = system.recovery().capturer.capture()
    for name in NAMES:
        system.lose(name)
    done = system.recovery().recover(first.id)
    before = system.look()
    dry = system.recovery().recover(done.safety_id, dry_run=True)
    assert dry.errors == ()
    found = {name: [one.kind for one in plan.changes] for name, plan in dry.plans.items()}
    assert found == {**{name: ["remove"] for name in NAMES}, "last": []}
    assert system.look() == before
    system.recovery().recover(done.safety_id)
    dry = system.recovery().recover(done.safety_id, dry_run=True)
    assert all(plan.changes == () for plan in dry.plans.values())


def test_what_no_capture_has_stays_beside(system):
    """Rules leave a file out: no safety capture has it, so it is not removed with its directory."""
    first = system.recovery().capturer.capture()
    system.lose("tree")
    done = system.recovery().recover(first.id)
    (system.folder / "tree" / ".gitignore").write_text("secret\n")
    (system.folder / "tree" / "secret").write_text("of nobody else")
    undone = system.recovery().recover(done.safety_id)
    assert not (system.folder / "tree").exists()
    aside = system.folder / f"tree.before-{undone.recovery_id}"
    assert (aside / "secret").read_text() == "of nobody else"
    assert any(str(aside) in error for error in undone.errors)


@pytest.mark.parametrize("fault", ["last", "make_absent"])
def test_an_undo_that_fails_is_undone_itself(system, fault):
    """Also what rules leave out is where it was."""
    first = system.recovery().capturer.capture()
    for name in NAMES:
        system.lose(name)
    done = system.recovery().recover(first.id)
    (system.folder / "tree" / ".gitignore").write_text("secret\n")
    (system.folder / "tree" / "secret").write_text("of nobody else")
    before = system.look()
    if fault == "last":
        system.last.fails = True
    else:
        system.session.fails = fault
    with pytest.raises(RecoveryFailedError) as caught:
        system.recovery().recover(done.safety_id)
    assert caught.value.context["rolled_back"]
    assert system.look() == before
    assert system.recovery().unfinished() is None


@pytest.mark.parametrize("how", ["resume", "roll_back"])
def test_killed_in_the_middle_of_an_undo(system, how, monkeypatch):
    first = system.recovery().capturer.capture()
    for name in NAMES:
        system.lose(name)
    before = system.look()
    done = system.recovery().recover(first.id)
    after = system.look()

    class Gone(BaseException):
        pass

    def gone(*_):
        raise Gone

    monkeypatch.setattr("ckptlog.recovery.run.Run._fail", gone)
    system.last.fails = True
    with pytest.raises(Gone):
        system.recovery().recover(done.safety_id)
    monkeypatch.undo()
    assert system.look()["db"] is None
    assert getattr(system.recovery(), how)().is_finished
    assert system.look() == (before if how == "resume" else after)


def test_without_a_safety_capture_nothing_is_removed(system):
    first = system.recovery().capturer.capture()
    system.lose("db")
    done = system.recovery().recover(first.id)
    undone = system.recovery().recover(done.safety_id, safety=False)
    aside = system.folder / f"app.db.before-{undone.recovery_id}"
    assert look_at_database(aside)[1] == [(1, "old")]
    assert not (system.folder / "app.db").exists()
    assert any(str(aside) in error for error in undone.errors)


def test_what_has_no_notion_of_absence_is_refused_with_its_name(system, manager):
    first = system.recovery().capturer.capture()
    system.lose("session")
    done = system.recovery().recover(first.id)
    system.session.__class__ = type("Plain", (Session,), {"is_absent": None, "make_absent": None})
    before = system.look()
    with pytest.raises(RecoveryRefusedError, match=r"'session': it was missing .* make_absent\(\)"):
        system.recovery().recover(done.safety_id)
    assert system.look() == before
    others = [name for name in (*NAMES, "last") if name != "session"]
    assert system.recovery().recover(done.safety_id, components=others[:-1]).is_finished


def test_one_that_cannot_be_captured_says_how_it_could(system):
    first = system.recovery().capturer.capture()
    system.lose("session")
    system.session.__class__ = type("Plain", (Session,), {"is_absent": None, "make_absent": None})
    with pytest.raises(CaptureFailedError) as caught:
        system.recovery().recover(first.id)
    assert "is_absent()" in caught.value.hint


def test_elsewhere_nothing_is_made_of_what_was_missing(system, tmp_path):
    first = system.recovery().capturer.capture()
    for name in NAMES:
        system.lose(name)
    done = system.recovery().recover(first.id)
    after = system.look()
    out = tmp_path / "out"
    assert system.recovery().recover(done.safety_id, to=out).status == "completed"
    assert os.listdir(out) == ["last.json"]
    assert system.look() == after


def test_without_the_program(system, manager, tmp_path):
    """What a safety capture says of what was missing is enough to make it missing again."""
    parts = system.parts()[:3]
    first = Capturer(manager, "sys", parts).capture()
    for name in NAMES[:3]:
        system.lose(name)
    before = system.look()

    def recover(capture_id):
        info = Capturer(manager, "sys").find(capture_id)
        known = everything(info, tmp_path / "store")
        return Recovery(Capturer(manager, "sys", known)).recover(capture_id)

    done = recover(first.id)
    after = system.look()
    undone = recover(done.safety_id)
    assert system.look() == before
    recover(undone.safety_id)
    assert system.look() == after


def test_an_ordinary_capture_is_of_what_is_there(system):
    """Nobody notices too late that a database is gone: only safety captures take that."""
    system.lose("db")
    with pytest.raises(CaptureFailedError):
        system.recovery().capturer.capture()


def test_a_capture_after_a_safety_capture_of_what_was_missing(system):
    recovery = system.recovery()
    first = recovery.capturer.capture()
    for name in NAMES:
        system.lose(name)
    done = recovery.recover(first.id)
    after = system.look()
    second = recovery.capturer.capture()  # written beside the safety capture, its witness
    system.fill("new")
    recovery.recover(second.id)
    assert system.look() == after
    assert recovery.capturer.find(done.safety_id).components["db"].kind == "absent"


def test_a_safety_capture_that_leaves_out_what_is_missing_is_gone_back_to(system, monkeypatch):
    """As the version before wrote them: a recovery of its may be rolled back by this one."""
    first = system.recovery().capturer.capture()
    for name in ("db", "tree"):
        system.lose(name)
    before = system.look()

    class Gone(BaseException):
        pass

    def gone(*_):
        raise Gone

    def left_out(capturer, missing):
        parts = [part for name, part in capturer.components.items() if name not in missing]
        for part in parts:
            part.depends_on = ()
        return capturer.of(parts)

    monkeypatch.setattr("ckptlog.recovery.safety._standing_in", left_out)
    monkeypatch.setattr("ckptlog.recovery.run.Run._fail", gone)
    system.last.fails = True
    with pytest.raises(Gone):
        system.recovery().recover(first.id)
    monkeypatch.undo()
    found = system.recovery().unfinished()
    assert set(found.missing) == {"db", "tree"}
    assert system.recovery().roll_back().status == "rolled_back"
    after = system.look()
    asides = ["app.db.undone-1", "tree.undone-1"]
    assert after == {**before, "names": sorted([*before["names"], *asides])}


def test_what_appears_just_now_is_no_absence(system, monkeypatch):
    """The safety capture must not say that there was nothing where there is something."""
    first = system.recovery().capturer.capture()
    system.lose("session")
    answers = [True, False]
    monkeypatch.setattr(system.session, "is_absent", lambda: answers.pop(0), raising=False)
    system.session.state = {"user": "back"}
    with pytest.raises(CaptureFailedError, match="is there now"):
        system.recovery().recover(first.id)
    assert system.session.state == {"user": "back"}


def test_an_answer_that_is_none_is_refused(system, monkeypatch):
    async def later():
        return False

    first = system.recovery().capturer.capture()
    before = system.look()
    coroutine = later()
    for answer in (coroutine, None, 0):
        monkeypatch.setattr(system.session, "is_absent", lambda one=answer: one, raising=False)
        with pytest.raises(ComponentError, match="'session' has an is_absent"):
            system.recovery().recover(first.id)
    coroutine.close()
    assert system.look() == before


def test_one_that_hangs_when_asked_again_is_told_by_what_failed_first(manager):
    hold = threading.Event()
    answers = [False]

    class Odd(Session):
        def is_absent(self):
            if answers:
                return answers.pop()
            hold.wait(60)
            return True

        def capture(self):
            if not answers:
                raise OSError("the device is gone")
            return super().capture()

    odd = Odd()
    capturer = Capturer(manager, "odd", [odd])
    info = capturer.capture()
    done: list[BaseException] = []

    def recover():
        try:
            Recovery(capturer, deadline_s=0.5).recover(info.id)
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=recover, daemon=True)
    thread.start()
    thread.join(20)
    is_alive = thread.is_alive()
    hold.set()
    assert not is_alive
    assert isinstance(done[0], CaptureFailedError)
    assert "the device is gone" in str(done[0])
