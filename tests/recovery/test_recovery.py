"""Recoveries through a real store: what was captured, or what was before; nothing between."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time

import pytest

from ckptlog import CheckpointManager, SqliteComponent
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.errors import (
    ArgumentError,
    CircuitOpenError,
    FullError,
    QuotaError,
    RecoveryBusyError,
    RecoveryCancelledError,
    RecoveryFailedError,
    RecoveryIncompleteError,
    RecoveryRefusedError,
    RecoveryUnfinishedError,
    SourceBusyError,
)
from ckptlog.recovery.breaker import BreakerSettings
from ckptlog.recovery.recovery import Recovery
from ckptlog.recovery.retry import Backoff
from tests.capture.sample import Value


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store", actor="tester") as manager:
        yield manager


class Bad(Value):
    """fault: what its next restore does, once."""

    fault = ""
    gate = threading.Event()

    def restore(self, payload):
        fault, self.fault = self.fault, ""
        if fault == "before":
            raise RuntimeError("before")
        if fault == "wrong":
            self.value = "wrong"
            return
        if fault == "passing":
            self.value = "half"
            raise SourceBusyError("busy")
        if fault == "hang":
            self.value = "half"
            self.gate.wait(20)
            return
        self.value = payload
        if fault == "after":
            raise RuntimeError("after")


def system(manager, **options):
    parts = [Bad("a", {"n": 1}), Bad("b", [1], depends_on=["a"]), Bad("c", "one")]
    capturer = Capturer(manager, "sys", parts)
    info = capturer.capture()
    for one in parts:
        one.value = {"now": one.name}
    quick = Backoff(first_s=0.001)
    return parts, info, Recovery(capturer, backoff=quick, **options)


def values(parts):
    return [one.value for one in parts]


BEFORE = [{"now": "a"}, {"now": "b"}, {"now": "c"}]
CAPTURED = [{"n": 1}, [1], "one"]


def test_a_restore_that_spoils_what_it_is_given_gets_it_anew(manager):
    class Spoils(Value):
        tries = 0

        def restore(self, payload):
            self.tries += 1
            if self.tries == 1:
                payload.clear()
                raise SourceBusyError("busy")
            self.value = payload

    part = Spoils("a", {"n": 1})
    capturer = Capturer(manager, "sys", [part])
    capturer.capture()
    part.value = {}
    assert Recovery(capturer, backoff=Backoff(first_s=0.001)).recover().status == "completed"
    assert (part.value, part.tries) == ({"n": 1}, 2)


def test_values_that_are_not_kept_are_read_again(manager, monkeypatch):
    monkeypatch.setattr("ckptlog.recovery.preflight.KEPT_BYTES_MAX", 10)
    parts, _, recovery = system(manager)
    recovery.recover()
    assert values(parts) == CAPTURED


def test_a_callback_that_always_fails_is_logged_once_and_stops_nothing(manager, caplog):
    parts, _, recovery = system(manager)
    pictures = []

    def fail(picture):
        pictures.append(picture)
        raise RuntimeError("a bar's")

    done = recovery.recover(on_progress=fail)
    assert (done.status, values(parts)) == ("completed", CAPTURED)
    assert len(pictures) > 3
    assert [one.levelname for one in caplog.records].count("ERROR") == 1


def test_all_comes_back_and_every_step_is_an_event(manager):
    parts, info, recovery = system(manager)
    seen = []
    done = recovery.recover(on_progress=seen.append)
    assert values(parts) == CAPTURED
    assert (done.status, done.percent, done.capture_id) == ("completed", 100.0, info.id)
    assert [one.percent for one in seen] == sorted(one.percent for one in seen)
    kinds = [e.event.type for e in manager.store.events() if e.event.type.startswith("recovery.")]
    assert kinds == ["recovery.started", *["recovery.step"] * 6, "recovery.completed"]
    assert recovery.unfinished() is None
    assert recovery.find().id == info.id
    recovery.recover(done.safety_id)
    assert values(parts) == BEFORE


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("fault", ["before", "after", "wrong"])
def test_a_component_that_fails_undoes_all(manager, number, fault):
    parts, info, recovery = system(manager)
    parts[number].fault = fault
    with pytest.raises(RecoveryFailedError) as caught:
        recovery.recover()
    assert caught.value.code == "recovery.failed"
    assert caught.value.context["component"] == parts[number].name
    assert caught.value.context["rolled_back"]
    assert values(parts) == BEFORE
    assert recovery.unfinished() is None
    assert recovery.progress.status == "failed"
    recovery.recover(info.id)
    assert values(parts) == CAPTURED


def test_an_error_that_passes_is_met_again(manager):
    parts, _, recovery = system(manager)
    parts[1].fault = "passing"
    done = recovery.recover()
    assert values(parts) == CAPTURED
    assert "tried again" in done.errors[0]


def test_one_that_hangs_is_left_unfinished_and_rolled_back_later(manager):
    parts, _, recovery = system(manager, deadline_s=0.3)
    parts[2].gate = threading.Event()
    parts[2].fault = "hang"
    with pytest.raises(RecoveryIncompleteError) as caught:
        recovery.recover()
    assert caught.value.context["lacking"] == ["c"]
    assert values(parts)[:2] == BEFORE[:2]
    with pytest.raises(RecoveryRefusedError):
        recovery.recover()
    parts[2].gate.set()
    recovery.guards.hung["c"].join()
    with pytest.raises(RecoveryUnfinishedError):
        recovery.recover()
    assert recovery.roll_back().status == "rolled_back"
    assert values(parts) == BEFORE
    assert recovery.roll_back() is None


def test_a_dry_run_changes_nothing_and_tells_all(manager):
    parts, _, recovery = system(manager)
    position = manager.store.position
    done = recovery.recover(dry_run=True)
    assert (done.status, done.errors, set(done.plans)) == ("planned", (), {"a", "b", "c"})
    assert {one.path for one in done.plans["a"].changes} == {"n", "now"}
    assert values(parts) == BEFORE
    assert manager.store.position == position
    assert recovery.recover(components=["nothing"], dry_run=True).errors
    assert recovery.recover("cp_unknown", dry_run=True).errors


def test_a_part_alone_needs_what_it_depends_on(manager):
    parts, _, recovery = system(manager)
    with pytest.raises(RecoveryRefusedError, match="depends on 'a'"):
        recovery.recover(components=["b"])
    recovery.recover(components=["c"])
    assert values(parts) == [*BEFORE[:2], "one"]
    parts[0].value = {"n": 1}
    recovery.recover(recovery.capturer.captures()[-1].id, components=["b"])
    assert values(parts) == CAPTURED


class After:
    """Set from the nth question on."""

    def __init__(self, count):
        self.count = count
        self.asked = 0

    def is_set(self):
        self.asked += 1
        return self.asked > self.count


def test_cancelled_at_every_step_it_is_as_before(manager):
    parts, info, recovery = system(manager)
    for count in range(100):
        cancel = After(count)
        try:
            recovery.recover(info.id, cancel=cancel)
        except RecoveryCancelledError as error:
            assert error.context["rolled_back"]
            assert values(parts) == BEFORE
            assert recovery.unfinished() is None
        else:
            assert values(parts) == CAPTURED
            break
    assert count > 6


def test_whoever_stops_iterating_cancels(manager):
    parts, _, recovery = system(manager)
    iterator = recovery.iterate()
    next(iterator)
    iterator.close()
    assert values(parts) in (BEFORE, CAPTURED)
    assert recovery.unfinished() is None


def test_a_full_disk_at_the_safety_capture_touches_nothing(manager, monkeypatch):
    parts, _, recovery = system(manager)

    def full(**_):
        raise FullError("full")

    monkeypatch.setattr(recovery.capturer, "capture", full)
    with pytest.raises(FullError):
        recovery.recover()
    assert values(parts) == BEFORE
    assert recovery.unfinished() is None


def test_two_at_once_are_refused(manager):
    _, _, recovery = system(manager)
    with recovery.journal.alone(), pytest.raises(RecoveryBusyError):
        recovery.recover()


def test_what_always_fails_is_left_alone(manager):
    parts, info, recovery = system(manager, breakers=BreakerSettings(failures_max=2, rest_s=60))
    for _ in range(2):
        parts[0].fault = "after"
        with pytest.raises(RecoveryFailedError):
            recovery.recover(info.id)
    for _ in range(2):  # a dry run tells it, and is no trial
        planned = recovery.recover(info.id, dry_run=True)
        assert "left alone" in " ".join(planned.errors)
        assert planned.plans
        with pytest.raises(CircuitOpenError):
            recovery.recover(info.id)
    assert values(parts) == BEFORE


def test_a_dry_run_is_no_trial_of_what_failed(manager):
    parts, info, recovery = system(manager, breakers=BreakerSettings(failures_max=1, rest_s=0))
    parts[0].fault = "after"
    with pytest.raises(RecoveryFailedError):
        recovery.recover(info.id)
    assert recovery.recover(info.id, dry_run=True).errors == ()
    assert recovery.recover(info.id).status == "completed"


class Stop(BaseException):
    """What stops a program, raised out of a callback."""


@pytest.mark.parametrize("is_faulty", [False, True])
def test_no_callback_stops_a_rollback(manager, is_faulty):
    breakers = BreakerSettings(failures_max=1000)
    parts, info, recovery = system(manager, breakers=breakers)
    for count in range(100):
        told = []

        def picture(now, told=told, count=count):
            told.append(now.status)
            if len(told) > count:  # this one, and all that come
                raise Stop

        if is_faulty:
            parts[2].fault = "after"
        try:
            recovery.recover(info.id, on_progress=picture)
        except Stop:
            assert values(parts) == (CAPTURED if "completed" in told else BEFORE), told
        except RecoveryFailedError:
            assert is_faulty
            assert values(parts) == BEFORE
            break
        else:
            assert values(parts) == CAPTURED
            break
        assert recovery.unfinished() is None, told
        parts[2].fault = ""
        for one in parts:
            one.value = {"now": one.name}
    assert count > 10


def test_no_callback_stops_a_rollback_by_hand(manager):
    parts, info, recovery = system(manager)
    parts[0].gate.clear()
    real = Bad.restore
    with pytest.MonkeyPatch.context() as patch:

        def spoilt(one, _payload):
            one.value = "spoilt"
            raise RuntimeError("no")

        patch.setattr(Bad, "restore", spoilt)
        with pytest.raises(RecoveryIncompleteError):
            recovery.recover(info.id)
    assert Bad.restore is real

    def picture(now):
        if now.status == "rolling_back":
            raise Stop

    with pytest.raises(Stop):
        recovery.roll_back(on_progress=picture)
    assert values(parts) == BEFORE
    assert recovery.unfinished() is None


def test_a_rollback_begins_with_what_was_restored_last(manager):
    parts, info, recovery = system(manager)
    order = []
    for one in parts:
        one.restore = lambda payload, one=one: (order.append(one.name), Bad.restore(one, payload))
    parts[1].fault = "after"  # the last one: it depends on the first
    with pytest.raises(RecoveryFailedError):
        recovery.recover(info.id)
    assert order == ["a", "c", "b", "b", "c", "a"]
    assert values(parts) == BEFORE


def test_a_limit_that_leaves_no_room_for_the_state_before_names_the_way_out(manager):
    parts, _, recovery = system(manager)
    for error in (QuotaError("the limit", hint="Raise it."), FullError("full")):
        with pytest.MonkeyPatch.context() as patch:

            def refuse(error=error, **_):
                raise error

            patch.setattr(recovery.capturer, "capture", refuse)
            with pytest.raises(type(error)) as caught:
                recovery.recover()
            assert "safety=False" in caught.value.hint
            assert "--no-safety" in caught.value.hint
            assert recovery.recover(safety=False).status == "completed"
    assert values(parts) == CAPTURED


def test_elsewhere(manager, tmp_path):
    parts, _, recovery = system(manager)
    recovery.recover(to=tmp_path / "out")
    assert (tmp_path / "out" / "b.json").read_text() == "[\n  1\n]\n"
    assert values(parts) == BEFORE
    with pytest.raises(ArgumentError):
        recovery.recover(to=tmp_path / "out")


# --- killed in the middle -----------------------------------------------------------------------


def parts_of(folder):
    return [
        SqliteComponent("db", folder / "app.db"),
        DirectoryComponent("tree", folder / "tree"),
    ]


def fill(folder, word, rows):
    (folder / "tree").mkdir(exist_ok=True)
    for number in range(rows):
        (folder / "tree" / f"{number}.txt").write_text(f"{word} {number}\n" * 50)
    with sqlite3.connect(folder / "app.db") as database:
        database.execute("create table if not exists t (n integer primary key, word text)")
        database.execute("delete from t")
        database.executemany(
            "insert into t values (?, ?)", [(n, word * 40) for n in range(rows * 40)]
        )
    database.close()


def state(folder):
    with sqlite3.connect(folder / "app.db") as database:
        rows = database.execute("select * from t order by n").fetchall()
    database.close()
    files = {p.name: p.read_text() for p in (folder / "tree").iterdir()}
    return rows, files


def recover_in_child(store, folder):
    with CheckpointManager(store) as manager:
        recovery = Recovery(Capturer(manager, "sys", parts_of(folder)))
        recovery.recover()


def killed_run(tmp_path, how, delay):
    folder = tmp_path / "live"
    folder.mkdir()
    store = tmp_path / "store"
    fill(folder, "old", 60)
    with CheckpointManager(store) as manager:
        Capturer(manager, "sys", parts_of(folder)).capture()
    captured = state(folder)
    fill(folder, "new", 45)
    before = state(folder)
    child = multiprocessing.get_context("spawn").Process(
        target=recover_in_child, args=(store, folder)
    )
    child.start()
    while child.is_alive() and not (store / "recovery").exists():
        time.sleep(0.001)
    time.sleep(delay)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    with CheckpointManager(store) as manager:
        recovery = Recovery(Capturer(manager, "sys", parts_of(folder)))
        found = recovery.unfinished()
        if found is None:
            assert state(folder) in (before, captured)
        elif how == "resume":
            assert recovery.resume().status == "completed"
            assert state(folder) == captured
        else:
            assert recovery.roll_back().status == "rolled_back"
            assert state(folder) == before
        assert recovery.unfinished() is None
        recovery.recover()
        assert state(folder) == captured
    return found is not None


@pytest.mark.parametrize("how", ["resume", "roll back"])
@pytest.mark.parametrize("number", range(4))
def test_killed_in_the_middle_it_is_finished_or_undone(tmp_path, how, number):
    killed_run(tmp_path, how, random.Random(number).uniform(0.02, 0.4))
