"""Rounds of group commit: what is refused disturbs nobody, what is in one commit is all or none."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import ckptlog
from ckptlog import (
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointState,
    FullError,
    IllegalTransitionError,
    OutcomeUnknownError,
    StoreClosedError,
)
from ckptlog.model.event import Reference
from ckptlog.policy.command import Change, Create, Delete, Payloads, Record, Witness
from ckptlog.policy.decide import Stale
from ckptlog.repository import layout
from ckptlog.repository.intent import Intent, Step
from ckptlog.storage.disk import Disk
from ckptlog.storage.environment import Environment
from ckptlog.views.errors import ViewDamagedError


class FragileDisk(Disk):
    """A disk whose next writes or syncs fail with the errors that a test puts in."""

    def __init__(self):
        self.writes: list[Exception] = []
        self.syncs: list[Exception] = []

    def write(self, fd, data, offset):
        if self.writes:
            raise self.writes.pop(0)
        super().write(fd, data, offset)

    def sync(self, fd):
        if self.syncs:
            raise self.syncs.pop(0)
        super().sync(fd)


@pytest.fixture
def disk():
    return FragileDisk()


@pytest.fixture
def store(tmp_path, disk):
    with ckptlog.open(tmp_path / "s", create=True, environment=Environment(disk)) as store:
        yield store


@pytest.fixture
def manager(store):
    return CheckpointManager(store=store)


@contextmanager
def one_round(store, count):
    """Let what is submitted inside wait until `count` of them are queued, then go as one round."""
    committer = store._writer._committer
    real = committer._run
    entered, leave = threading.Event(), threading.Event()

    def hold(jobs):
        if not entered.is_set():
            entered.set()
            leave.wait(30)
        real(jobs)

    committer._run = hold
    blocker = threading.Thread(
        target=lambda: store.submit(
            Intent((Step(Record(actor="a", command="blocker", type="test.blocks", facts={})),))
        )
    )
    blocker.start()
    assert entered.wait(30)

    def release():
        while len(committer._queue) < count and not leave.is_set():
            threading.Event().wait(0.001)
        leave.set()

    releaser = threading.Thread(target=release)
    releaser.start()
    try:
        yield
    finally:
        leave.set()
        blocker.join()
        releaser.join()
        committer._run = real


def together(store, *calls):
    """Run calls in threads, decided in one round; return each one's result or error, in order."""

    def attempt(call):
        try:
            return call()
        except Exception as error:
            return error

    with one_round(store, len(calls)), ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(attempt, calls))


def types(store):
    return [entry.event.type.removeprefix("checkpoint.") for entry in store.events()]


# --- refusals are isolated ------------------------------------------------------------------------


def test_one_refused_command_does_not_disturb_the_others(manager, store):
    ended = manager.create_checkpoint("t", "T", 1)
    manager.complete_checkpoint(ended)
    open_ = manager.create_checkpoint("t", "T", 1, data={"a": 1})
    results = together(
        store,
        lambda: manager.create_checkpoint("t", "T", 2, checkpoint_id="first"),
        lambda: manager.update_checkpoint(ended, data={"late": 1}),
        lambda: manager.update_checkpoint(open_, data={"b": 1}),
        lambda: manager.create_checkpoint("t", "T", 2, checkpoint_id=open_),
        lambda: manager.delete_checkpoint("nobody"),
        lambda: manager.complete_checkpoint(ended),
        lambda: manager.create_checkpoint("t", "T", 2, checkpoint_id="last"),
    )
    kinds = [type(result) for result in results]
    assert kinds == [
        str,
        IllegalTransitionError,
        bool,
        ckptlog.DuplicateIdError,
        CheckpointNotFoundError,
        bool,
        str,
    ]
    assert manager.get_checkpoint(open_).data == {"a": 1, "b": 1}
    assert {"first", "last"} <= {one.checkpoint_id for one in manager.get_task_checkpoints("t")}
    assert [entry.position for entry in store.events()] == list(range(store.position))
    assert manager.validate_checkpoint_integrity() == []


def test_a_round_sees_what_it_has_decided_before(manager, store):
    """Of the commands of one round, too, only one can win."""
    name = manager.create_checkpoint("t", "T", 1)
    results = together(
        store,
        *[lambda n=n: manager.complete_checkpoint(name, {"winner": n}) for n in range(5)],
    )
    assert [result for result in results if result is True] == [True]
    assert sum(isinstance(result, IllegalTransitionError) for result in results) == 4
    assert types(store) == ["created", "test.blocks", "completed"]


def test_updates_of_one_round_are_merged(manager, store):
    name = manager.create_checkpoint("t", "T", 1)
    results = together(
        store, *[lambda n=n: manager.update_checkpoint(name, data={f"k{n}": n}) for n in range(6)]
    )
    assert results == [True] * 6
    assert manager.get_checkpoint(name).data == {f"k{n}": n for n in range(6)}


def test_ids_of_one_round_are_different(manager, store):
    environment = store.environment
    environment.now_us = lambda: 1_700_000_000_000_000
    names = together(store, *[lambda: manager.create_checkpoint("t", "T", 1) for _ in range(6)])
    assert sorted(names) == [f"cp_t_1_{1_700_000_000_000_000 + bump}" for bump in range(6)]


def test_one_command_id_in_one_round(manager, store):
    create = lambda: manager.create_checkpoint("t", "T", 1, command_id="id")  # noqa: E731
    other = lambda: manager.create_checkpoint("t", "T", 2, command_id="id")  # noqa: E731
    results = together(store, create, create, other)
    errors = [result for result in results if isinstance(result, Exception)]
    names = {result for result in results if isinstance(result, str)}
    assert len(names) == 1
    assert {type(error) for error in errors} == {ckptlog.CommandReusedError}
    assert types(store).count("created") == 1


def test_a_task_deleted_in_the_middle_of_a_round(manager, store):
    name = manager.create_checkpoint("t", "T", 1)
    calls = [
        lambda: manager.delete_task("t"),
        lambda: manager.update_checkpoint(name, data={"a": 1}),
        lambda: manager.create_checkpoint("t", "T", 2),
    ]
    results = together(store, *calls)
    events = types(store)
    assert events.count("task.deleted") == 1
    assert manager.get_checkpoint(name) is None
    is_refused = isinstance(results[1], CheckpointNotFoundError)
    assert is_refused is ("updated" not in events)
    is_alive = manager.get_checkpoint(results[2]) is not None
    assert is_alive is (
        events.index("task.deleted") < len(events) - 1 - events[::-1].index("created")
    )


# --- all or nothing -------------------------------------------------------------------------------


def create(name="", **options):
    options.setdefault("payloads", Payloads())
    return Step(
        Create(actor="a", command=f"c-{name}", task="t", step=1, checkpoint=name, **options)
    )


def test_one_refused_step_refuses_the_commit(store):
    with pytest.raises(CheckpointNotFoundError):
        store.submit(Intent((create("a"), Step(Delete(actor="a", command="d", checkpoint="x")))))
    assert store.position == 0
    assert store.newest_ever("a") is None


def test_a_commit_sees_its_own_steps(store):
    results = store.submit(
        Intent(
            (
                create("a"),
                Step(Change(actor="a", command="1", checkpoint="a")),
                Step(Change(actor="a", command="2", checkpoint="a", state=CheckpointState.FAILED)),
                Step(Delete(actor="a", command="3", checkpoint="a")),
                Step(Delete(actor="a", command="4", checkpoint="a")),
                create("b", is_active=True),
            )
        )
    )
    assert results == ("a", True, True, True, False, "b")
    assert types(store) == ["created", "updated", "failed", "deleted", "created", "updated"]
    (commit,) = store.log.reader.commits()
    assert [entry.event.previous for entry in commit.entries] == [-1, 0, 1, 2, -1, 4]


def test_one_stale_step_makes_the_commit_stale(store):
    relying = Payloads(witnesses=(Witness("nobody", "0" * 64),))
    outcome = store.submit(Intent((create("a"), create("b", payloads=relying))))
    assert isinstance(outcome, Stale)
    assert store.position == 0


def test_a_stale_commit_in_a_round_of_others(manager, store):
    relying = Payloads(witnesses=(Witness("nobody", "0" * 64),))
    results = together(
        store,
        lambda: store.submit(Intent((create("a", payloads=relying),))),
        lambda: manager.create_checkpoint("t", "T", 1, checkpoint_id="b"),
        lambda: store.submit(Intent((create("c"), create("d")))),
    )
    assert isinstance(results[0], Stale)
    assert results[1:] == ["b", ("c", "d")]


def test_a_commit_of_many_steps_in_a_round_of_others(manager, store):
    """What it decides is seen by those that come after it in the round."""
    name = manager.create_checkpoint("t", "T", 1)
    end = Step(Change(actor="a", command="e", checkpoint=name, state=CheckpointState.FAILED))
    results = together(
        store,
        *[lambda: store.submit(Intent((create("mine"), end))) for _ in range(2)],
        lambda: manager.create_checkpoint("t", "T", 1, checkpoint_id="mine"),
        lambda: manager.complete_checkpoint(name),
    )
    assert types(store).count("created") == 2
    assert sum(types(store).count(end) for end in ("failed", "completed")) == 1
    assert sum(isinstance(result, Exception) for result in results) in {2, 3}
    assert [entry.position for entry in store.events()] == list(range(store.position))
    assert manager.validate_checkpoint_integrity() == []


# --- the storage fails ----------------------------------------------------------------------------


def test_a_full_disk_refuses_the_round_and_goes_on(manager, store, disk):
    name = manager.create_checkpoint("t", "T", 1)
    disk.writes.append(FullError("No space left."))
    with pytest.raises(FullError):
        manager.update_checkpoint(name, data={"a": 1})
    assert manager.get_checkpoint(name).data == {}
    assert manager.update_checkpoint(name, data={"b": 1}) is True
    assert manager.get_checkpoint(name).data == {"b": 1}
    assert types(store) == ["created", "updated"]


def test_a_full_disk_still_takes_a_delete(manager, store, disk):
    """The reserve is given up for it but for what a collection needs, then the views."""
    first, second, third = (manager.create_checkpoint("t", "T", 1) for _ in range(3))
    disk.writes.append(FullError("No space left."))
    assert manager.delete_checkpoint(first) is True
    assert (store.path / "reserve").stat().st_size == layout.RESERVE_LAST_BYTES
    assert (store.path / "views" / "current.sqlite").exists()
    disk.writes.append(FullError("No space left."))
    assert manager.delete_checkpoint(second) is True
    assert not (store.path / "views" / "current.sqlite").exists()
    disk.writes.append(FullError("No space left."))
    with pytest.raises(FullError):
        manager.delete_checkpoint(third)
    disk.writes.clear()
    assert manager.delete_task("t") == 1


@pytest.mark.parametrize("kind", ["writes", "syncs"])
def test_what_the_medium_reports_is_told_to_all_of_the_round(manager, store, disk, kind):
    """The outcome is unknown; a retry with the same id is carried out once at most."""
    manager.create_checkpoint("t", "T", 1)
    error = ckptlog.InputOutputError("The medium is ill.")
    calls = [
        lambda n=n: manager.create_checkpoint("t", "T", 1, data={"n": n}, command_id=f"id{n}")
        for n in range(3)
    ]
    armed = threading.Event()
    real = store._writer._append

    def append(decided, position, tail):
        if len(decided) == 3 and not armed.is_set():
            armed.set()
            getattr(disk, kind).append(error)
        real(decided, position, tail)

    store._writer._append = append
    results = together(store, *calls)
    assert {type(result) for result in results} == {OutcomeUnknownError}
    assert sorted(result.context["command_id"] for result in results) == ["id0", "id1", "id2"]
    assert all(repr(result.context["command_id"]) in result.hint for result in results)
    names = [call() for call in calls]
    assert len(set(names)) == 3
    assert types(store).count("created") == 4
    assert [call() for call in calls] == names
    assert manager.validate_checkpoint_integrity() == []


def test_an_unexpected_error_of_the_leader_reaches_all(manager, store, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    name = manager.create_checkpoint("t", "T", 1)
    with monkeypatch.context() as patch:
        patch.setattr(store._writer, "_append", broken)
        with pytest.raises(ZeroDivisionError):
            manager.update_checkpoint(name, data={"a": 1})
    assert manager.update_checkpoint(name, data={"b": 1}) is True
    assert manager.get_checkpoint(name).data == {"b": 1}


# --- views and closing ----------------------------------------------------------------------------


def test_a_view_that_breaks_while_deciding_is_built_anew(manager, store):
    name = manager.create_checkpoint("t", "T", 1)
    real = store._keeper.ledger.find
    failures = [ViewDamagedError("broken")]

    def find(checkpoint):
        if failures:
            raise failures.pop()
        return real(checkpoint)

    store._keeper.ledger.find = find
    assert manager.update_checkpoint(name, data={"a": 1}) is True
    assert failures == []
    assert manager.get_checkpoint(name).data == {"a": 1}


def test_nothing_is_written_after_closing(tmp_path):
    store = ckptlog.open(tmp_path / "s", create=True)
    store.close()
    for late in (
        lambda: store.submit(Intent((create("a"),))),
        lambda: store._writer.submit(Intent((create("a"),))),
    ):
        with pytest.raises(StoreClosedError):
            late()
    with ckptlog.open(tmp_path / "s") as again:
        assert again.position == 0


def test_time_is_the_rounds(manager, store):
    """All events of a commit have one time; the text is the microsecond's."""
    store.environment.now_us = lambda: 1_700_000_000_000_042
    with manager.batch() as batch:
        names = [batch.create_checkpoint("t", "T", 1) for _ in range(3)]
    times = {entry.event.time for entry in store.events()}
    assert times == {"2023-11-14T22:13:20.000042Z"}
    assert len(set(names)) == 3


def test_the_chunks_of_a_step_lie_before_its_first_event(manager, store):
    with manager.batch() as batch:
        batch.create_checkpoint("t", "T", 1, data={"x": "y" * 3000}, activate=True)
        batch.create_checkpoint("u", "U", 1, data={"x": "z" * 3000}, activate=True)
    (commit,) = store.log.reader.commits()
    assert [entry.span > 0 for entry in commit.entries] == [True, False, True, False]
    assert isinstance(commit.entries[1].event.data, Reference)
