"""Clean-ups by rules: what goes, what is told, beside writers, after kills; pins."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from decimal import Decimal

import msgspec
import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import (
    ArgumentError,
    CheckpointNotFoundError,
    CheckpointUpdateError,
    FullError,
    ReadOnlyError,
)
from ckptlog.manager import sweep as sweep_module
from ckptlog.manager.retention import sweep
from ckptlog.manager.weight import Scale
from ckptlog.model.event import CLEANED, CLEANUP_STARTED, DELETED, PINNED, UNPINNED
from ckptlog.policy.retention_form import policy_of, text_of
from ckptlog.repository.layout import RESERVE_LAST_BYTES


def many(manager, count, task="t", **options):
    """Create checkpoints of steps 1 to count; return their ids."""
    with manager.batch() as batch:
        return [
            batch.create_checkpoint(task, "T", step, data={"step": step}, **options)
            for step in range(1, count + 1)
        ]


def steps(manager, task="t"):
    return [one.step_number for one in manager.get_task_checkpoints(task)]


def events(manager, *kinds):
    return [entry.event for entry in manager.store.events() if entry.event.type in kinds]


def clean(manager, **policy):
    """Clean up after a dry run, which must have said the same."""
    plan = manager.plan_cleanup(retention=policy)
    there = {one.checkpoint_id for one in manager.iterate()}
    assert manager.cleanup_old_checkpoints(retention=policy, dry_run=True) == len(plan.checkpoints)
    assert manager.cleanup_old_checkpoints(retention=policy) == len(plan.checkpoints)
    left = {one.checkpoint_id for one in manager.iterate()}
    assert there - left == set(plan.checkpoints)
    assert sum(plan.kept.values()) == len(left)
    return plan


# --- what goes ----------------------------------------------------------------------------------


def test_rules_keep_and_the_rest_goes(manager):
    many(manager, 25)
    many(manager, 4, "other")
    plan = clean(manager, tasks=["t*"], keep_last=3, keep_every=10)
    assert steps(manager) == [10, 20, 23, 24, 25]
    assert steps(manager, "other") == [1, 2, 3, 4]
    assert plan.kept == {"every": 2, "last": 3, "no rule": 4}
    assert manager.store.verify().ok


def test_best_of_values_in_metadata_whatever_number_they_are(manager):
    numpy = pytest.importorskip("numpy")
    values = [3, 0.5, Decimal("0.25"), numpy.float32(0.125), True, "0", None, [0], float("nan")]
    for step, value in enumerate(values, 1):
        manager.create_checkpoint("t", "T", step, metadata={"loss": value})
    manager.create_checkpoint("t", "T", 10)
    clean(manager, keep_best="loss:min:3", keep_recovery_points=False)
    assert steps(manager) == [2, 3, 4]


def test_age_counts_from_the_last_update(manager, environment):
    ids = many(manager, 3)
    environment.advance(days=5)
    manager.update_checkpoint(ids[0], data={"x": 1})
    clean(manager, keep_days=4.5, keep_recovery_points=False)
    assert steps(manager) == [1]


def test_what_a_task_can_be_resumed_from_stays(manager):
    ids = many(manager, 5, total_steps=9)
    manager.complete_checkpoint(ids[2])
    for name in ids[3:]:
        manager.fail_checkpoint(name)
    point = manager.get_recovery_point("t")
    plan = clean(manager, keep_last=1)
    assert point.checkpoint_id == ids[2]
    assert manager.get_recovery_point("t").data == point.data
    assert plan.kept == {"last": 1, "recovery point": 1}
    clean(manager, keep_last=0)
    assert steps(manager) == [3]
    clean(manager, keep_last=0, keep_recovery_points=False)
    assert steps(manager) == []


def test_a_complete_task_has_nothing_to_be_resumed_from(manager):
    ids = many(manager, 3, total_steps=3)
    manager.complete_checkpoint(ids[-1])
    clean(manager, keep_last=0)
    assert steps(manager) == []


def test_a_damaged_checkpoint_is_not_what_a_task_resumes_from(manager, monkeypatch):
    ids = many(manager, 3, metadata={"big": "x" * 3000})
    data = manager.store.newest(ids[2]).event.data
    wire = manager.store.wire

    def damaged(reference):
        if reference.root == data.root:
            raise ckptlog.errors.BlobCorruptionError("It is damaged.")
        return wire(reference)

    monkeypatch.setattr(manager.store, "wire", damaged)
    plan = manager.plan_cleanup(retention={"keep_last": 0})
    assert plan.checkpoints == (ids[0], ids[2])
    # One that stays by a rule does not stand in for it.
    plan = manager.plan_cleanup(retention={"keep_last": 1})
    assert plan.checkpoints == (ids[0],)
    assert plan.kept == {"last": 1, "recovery point": 1}


def test_metadata_that_cannot_be_read_keeps_its_checkpoint(manager, monkeypatch):
    ids = many(manager, 2, metadata={"big": "x" * 100_000})
    manager.create_checkpoint("t", "T", 3)

    def damaged(_):
        raise ckptlog.errors.BlobCorruptionError("It is damaged.")

    monkeypatch.setattr(manager.store, "wire", damaged)
    policy = {"keep_last": 0, "keep_recovery_points": False}
    plan = manager.plan_cleanup(retention=policy)
    assert plan.kept == {"metadata cannot be read": 2}
    assert set(plan.checkpoints).isdisjoint(ids)


# --- what is told -------------------------------------------------------------------------------


def test_each_deletion_names_the_policy(manager, monkeypatch):
    monkeypatch.setattr(sweep_module, "DELETES_MAX", 4)
    many(manager, 11)
    policy = policy_of({"keep_last": 1})
    done = sweep(manager, policy)
    (started,) = events(manager, CLEANUP_STARTED)
    (finished,) = events(manager, CLEANED)
    assert started.facts == {"policy": text_of(policy)}
    assert finished.facts == {"deleted": 10, "run": started.id, "spared": 0}
    assert {one.cause for one in events(manager, DELETED)} == {started.id}
    assert (done.deleted, done.spared, dict(done.kept)) == (10, 0, {"last": 1})


def test_nothing_to_do_leaves_no_event(manager):
    many(manager, 2)
    before = manager.store.position
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 2}) == 0
    assert manager.store.position == before


def test_commits_are_bounded_and_hold_several_tasks(manager, monkeypatch):
    monkeypatch.setattr(sweep_module, "DELETES_MAX", 5)
    for task in "abcd":
        many(manager, 3, task)
    many(manager, 14, "e")
    sizes = []
    submit = manager.store.submit_with_reserve

    def counted(intent):
        sizes.append(len(intent.steps))
        return submit(intent)

    manager.store.submit_with_reserve = counted
    clean(manager, keep_last=1)
    assert max(sizes) == 5
    assert sum(sizes) == 4 * 2 + 13 + 2  # and the events at both ends


def test_progress_comes_to_its_end(manager):
    many(manager, 30)
    many(manager, 5, "u")
    seen = []
    policy = {"keep_last": 1}
    manager.plan_cleanup(retention=policy, progress=lambda *pair: seen.append(pair))
    assert seen[-1] == (70, 70)
    seen.clear()
    manager.cleanup_old_checkpoints(retention=policy, progress=lambda *pair: seen.append(pair))
    assert seen[-1] == (35, 35)
    assert sorted(seen) == seen


def test_the_old_call_and_its_plan_are_the_same(manager, environment):
    ids = many(manager, 6)
    for name in ids[:4]:
        manager.complete_checkpoint(name)
    manager.pin_checkpoint(ids[1])
    environment.advance(days=31)
    manager.fail_checkpoint(ids[4])
    plan = manager.plan_cleanup()
    assert plan.checkpoints == (ids[0], ids[2], ids[3])
    assert manager.cleanup_old_checkpoints(dry_run=True) == 3
    assert manager.cleanup_old_checkpoints() == 3
    assert steps(manager) == [2, 5, 6]


def test_both_ways_of_saying_it_are_refused(manager):
    with pytest.raises(ArgumentError, match="both given"):
        manager.cleanup_old_checkpoints(3, retention={"keep_last": 1})
    with pytest.raises(ArgumentError, match="keep_lst"):
        manager.plan_cleanup(retention={"keep_lst": 1})


# --- bytes --------------------------------------------------------------------------------------


def chunks_of(manager, identifiers):
    """Return the digests of checkpoints' chunks, from the payloads themselves."""
    found = set()
    for name in identifiers:
        event = manager.store.newest(name).event
        for reference in (event.data, event.meta):
            found |= manager.store.blobs.digests(reference)
    return found


@pytest.mark.parametrize("sample", [10_000, 20])
def test_bytes_are_those_of_chunks_that_nothing_else_has(manager, monkeypatch, sample):
    messages = []
    for step in range(1, 30):
        messages.append({"role": "user", "content": f"{step} " * 300})
        manager.create_checkpoint("t", "T", step, data={"messages": messages})
    manager.create_checkpoint("u", "U", 1, data={"messages": messages[:10]})
    monkeypatch.setattr(Scale.__init__, "__kwdefaults__", {"digests_max": sample})
    plan = manager.plan_cleanup(retention={"tasks": "t", "keep_last": 2})
    left = {one.checkpoint_id for one in manager.iterate()} - set(plan.checkpoints)
    only = chunks_of(manager, plan.checkpoints) - chunks_of(manager, left)
    index = manager.store.blobs.index
    exact = sum(index.get(digest).length for digest in only)
    assert only
    assert exact
    if sample == 10_000:
        assert (plan.bytes, plan.chunks) == (exact, len(only))
        assert (plan.is_estimate, plan.sample) == (False, 1)
    else:
        assert plan.is_estimate
        assert plan.sample > 1
        assert exact / 5 < plan.bytes < exact * 5
    assert plan.to_dict()["note"]


def test_bytes_of_what_cannot_be_read_are_an_estimate(manager, monkeypatch):
    ids = many(manager, 3, metadata={"x": "y" * 5000})
    raw = manager.store.blobs.raw
    for name in ids[:1]:
        event = manager.store.newest(name).event
        assert event.data.kind == "leaf"
    manager.create_checkpoint("t", "T", 9, data={"list": [str(n) * 50 for n in range(500)]})
    manager.create_checkpoint("t", "T", 10)

    def damaged(*arguments, **options):
        raise ckptlog.errors.BlobCorruptionError("It is damaged.")

    monkeypatch.setattr(manager.store.blobs, "raw", damaged)
    plan = manager.plan_cleanup(retention={"keep_last": 1, "keep_recovery_points": False})
    monkeypatch.setattr(manager.store.blobs, "raw", raw)
    assert (plan.is_estimate, plan.unread) == (True, 1)


def test_a_plan_of_a_read_only_store(manager, tmp_path):
    many(manager, 3)
    manager.store.close()
    with ckptlog.open(tmp_path / "store", read_only=True) as store:
        reader = CheckpointManager(store=store)
        assert len(reader.plan_cleanup(retention={"keep_last": 1}).checkpoints) == 2
        with pytest.raises(ReadOnlyError):
            reader.cleanup_old_checkpoints(retention={"keep_last": 1})


# --- beside others ------------------------------------------------------------------------------


def meanwhile(manager, *acts):
    """Let something happen between a plan and each of the first commits of deletions."""
    submit = manager.store.submit_with_reserve
    left = iter(acts)

    def hurried(intent):
        if getattr(intent.steps[0].command, "cause", "") and (act := next(left, None)):
            manager.store.submit_with_reserve = submit
            act()
            manager.store.submit_with_reserve = hurried
        return submit(intent)

    manager.store.submit_with_reserve = hurried


def test_what_others_delete_meanwhile_makes_the_plan_anew(manager):
    ids = many(manager, 6)
    # The last two stay; both are deleted by somebody else, one after the other.
    meanwhile(
        manager,
        lambda: manager.delete_checkpoint(ids[5]),
        lambda: manager.delete_checkpoint(ids[4]),
    )
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 2}) == 2
    assert steps(manager) == [3, 4]


def test_one_that_fails_meanwhile_does_not_cost_what_the_task_resumes_from(manager):
    ids = many(manager, 3)
    manager.complete_checkpoint(ids[1])
    meanwhile(manager, lambda: manager.fail_checkpoint(ids[2]))
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 1}) == 1
    assert steps(manager) == [2, 3]
    assert manager.get_recovery_point("t").step_number == 2


def test_a_pin_comes_in_time(manager):
    ids = many(manager, 3)
    meanwhile(manager, lambda: manager.pin_checkpoint(ids[0]))
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 1}) == 1
    assert steps(manager) == [1, 3]


def test_a_task_that_changes_all_the_time_is_left(manager):
    ids = many(manager, 3)
    many(manager, 3, "calm")

    def change(number):
        return lambda: manager.update_checkpoint(ids[2], data={"n": number})

    meanwhile(manager, *map(change, range(10_000)))
    done = sweep(manager, policy_of({"keep_last": 1}))
    assert (done.deleted, done.spared) == (2, 2)
    assert steps(manager) == [1, 2, 3]
    assert steps(manager, "calm") == [3]
    (finished,) = events(manager, CLEANED)
    assert finished.facts["spared"] == 2


def test_new_checkpoints_do_not_hold_it_up(manager):
    many(manager, 10)

    def create(step):
        return lambda: manager.create_checkpoint("t", "T", step)

    meanwhile(manager, *map(create, range(11, 16)))
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 2}) == 8
    assert steps(manager) == [9, 10, 11, 12, 13, 14, 15]


def test_a_task_that_is_deleted_meanwhile(manager):
    many(manager, 4)
    meanwhile(manager, lambda: (manager.delete_task("t"), many(manager, 1)))
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 1}) == 0
    assert steps(manager) == [1]


def test_writers_and_two_clean_ups_at_once(manager, monkeypatch):
    monkeypatch.setattr(sweep_module, "DELETES_MAX", 7)
    many(manager, 60, "a")
    many(manager, 60, "b")
    errors = []

    def guarded(act):
        def run():
            try:
                act()
            except Exception as error:
                errors.append(error)

        return threading.Thread(target=run)

    def write():
        for step in range(61, 101):
            manager.create_checkpoint("a", "T", step)

    def tidy():
        manager.cleanup_old_checkpoints(retention={"keep_last": 5, "keep_every": 20})

    threads = [guarded(write), guarded(tidy), guarded(tidy)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    tidy()
    assert steps(manager, "a") == [20, 40, 60, 80, 96, 97, 98, 99, 100]
    assert steps(manager, "b") == [20, 40, 56, 57, 58, 59, 60]
    deleted = [one.subject.checkpoint for one in events(manager, DELETED)]
    assert len(deleted) == len(set(deleted)) == 100 + 60 - 16
    assert manager.store.verify().ok


def test_it_can_be_stopped_and_done_again(manager, monkeypatch):
    monkeypatch.setattr(sweep_module, "DELETES_MAX", 3)
    many(manager, 20)
    answers = iter([False, False, False, True, True, True, True])
    done = sweep(manager, policy_of({"keep_last": 2}), is_stopping=lambda: next(answers, True))
    assert 0 < done.deleted < 18
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 2}) == 18 - done.deleted
    assert steps(manager) == [19, 20]


def test_a_full_disk_uses_the_reserve(manager):
    many(manager, 4)
    append = manager.store.log.append_held
    calls = []

    def full(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise FullError("No space.")
        return append(*arguments, **options)

    manager.store.log.append_held = full
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 1}) == 3
    assert (manager.store.path / "reserve").stat().st_size == RESERVE_LAST_BYTES


def test_with_interval_durability(tmp_path, environment):
    with ckptlog.open(
        tmp_path / "s", create=True, durability="interval", interval_s=60, environment=environment
    ) as store:
        manager = CheckpointManager(store=store)
        many(manager, 5)
        assert manager.cleanup_old_checkpoints(retention={"keep_last": 2}) == 3
        assert steps(manager) == [4, 5]


# --- pins ---------------------------------------------------------------------------------------


def test_a_pin_is_an_event_and_leaves_everything_else(manager):
    name = manager.create_checkpoint("t", "Título", 1, "d", data={"a": 1}, metadata={"x": (1, 2)})
    manager.complete_checkpoint(name)
    before = manager.get_checkpoint(name)
    assert manager.pin_checkpoint(name, actor="auditor") is True
    assert manager.pin_checkpoint(name) is False
    after = manager.get_checkpoint(name)
    assert after.metadata == {"x": (1, 2), "pinned": True}
    assert (after.state, after.data, after.task_title) == (before.state, {"a": 1}, "Título")
    assert manager.cleanup_old_checkpoints(0) == 0
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 0}) == 0
    (event,) = events(manager, PINNED)
    assert (event.actor, event.state, event.subject.checkpoint) == ("auditor", "completed", name)
    assert [one.type for one in manager.history(name)][-1] == PINNED
    assert manager.unpin_checkpoint(name) is True
    assert manager.unpin_checkpoint(name) is False
    assert manager.get_checkpoint(name).metadata == {"x": (1, 2)}
    assert len(events(manager, UNPINNED)) == 1
    assert manager.store.verify().ok
    position = manager.store.position
    manager.store.rebuild_views()
    assert manager.get_checkpoint(name).metadata == {"x": (1, 2)}
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 0}) == 1
    assert manager.store.position > position


@pytest.mark.parametrize(
    "metadata",
    [{}, {"$bytes": 1}, {"$a": {"b": b"c"}}, {'é\n"': 1}, {"k": "v" * 100_000}, {"pinned": "no"}],
)
def test_metadata_of_any_kind_can_hold_a_pin(manager, metadata):
    name = manager.create_checkpoint("t", "T", 1, metadata=metadata)
    assert manager.pin_checkpoint(name)
    assert manager.get_checkpoint(name).metadata == {**metadata, "pinned": True}
    assert manager.plan_cleanup(retention={"keep_last": 0, "keep_recovery_points": False}).kept == {
        "pinned": 1
    }
    assert manager.unpin_checkpoint(name)
    rest = {key: value for key, value in metadata.items() if key != "pinned"}
    assert manager.get_checkpoint(name).metadata == rest
    # The same as if it had been stored that way: one wire for one value.
    twin = manager.create_checkpoint("t", "T", 1, metadata=rest)
    assert manager.store.newest(twin).event.meta == manager.store.newest(name).event.meta
    assert manager.store.verify().ok


def test_true_alone_pins_and_metadata_can_say_it(manager):
    for step, value in enumerate([True, "true", 1, None, [True]], 1):
        manager.create_checkpoint("t", "T", step, metadata={"pinned": value})
    policy = {"keep_last": 0, "keep_recovery_points": False}
    assert manager.cleanup_old_checkpoints(retention=policy) == 4
    assert steps(manager) == [1]
    assert manager.cleanup_old_checkpoints(retention={**policy, "keep_pinned": False}) == 1


def test_what_cannot_be_pinned(manager):
    with pytest.raises(CheckpointNotFoundError):
        manager.pin_checkpoint("nobody")
    (name,) = many(manager, 1)
    manager.delete_checkpoint(name)
    with pytest.raises(CheckpointNotFoundError):
        manager.unpin_checkpoint(name)


def test_a_change_that_comes_first_makes_the_pin_anew(manager, monkeypatch):
    (name,) = many(manager, 1, metadata={"n": 0})
    submit = manager.store.submit
    hits = []

    def hurried(intent):
        if intent.steps[0].command.__class__.__name__ == "Pin" and not hits:
            hits.append(1)
            manager.update_checkpoint(name, metadata={"n": 1})
        return submit(intent)

    monkeypatch.setattr(manager.store, "submit", hurried)
    assert manager.pin_checkpoint(name)
    assert manager.get_checkpoint(name).metadata == {"n": 1, "pinned": True}


def test_a_checkpoint_that_is_not_whole_has_no_place_for_a_pin(manager, monkeypatch):
    (name,) = many(manager, 1)
    entry = manager.store.newest(name)
    bare = msgspec.structs.replace(entry, event=msgspec.structs.replace(entry.event, meta=None))
    monkeypatch.setattr(manager.store, "newest", lambda _: bare)
    with pytest.raises(CheckpointUpdateError, match="no place"):
        manager.pin_checkpoint(name)


# --- killed ---------------------------------------------------------------------------------------

CLEANING = """
import sys
from ckptlog import CheckpointManager
from ckptlog.manager import sweep

sweep.DELETES_MAX = 2
with CheckpointManager(sys.argv[1]) as manager:
    submit = manager.store.submit_with_reserve

    def told(intent):
        outcome = submit(intent)
        print("commit", flush=True)
        return outcome

    manager.store.submit_with_reserve = told
    manager.cleanup_old_checkpoints(retention={"keep_last": 3})
"""


@pytest.mark.parametrize("commits", [1, 2, 5])
def test_a_killed_clean_up_is_done_again(tmp_path, commits):
    path = tmp_path / "killed"
    with CheckpointManager(path) as manager:
        many(manager, 20)
    command = [sys.executable, "-c", CLEANING, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(commits):
            assert process.stdout.readline() == "commit\n"
        process.send_signal(signal.SIGKILL)
    with CheckpointManager(path) as manager:
        left = steps(manager)
        # The event that holds the policy came first; whole commits, the oldest first.
        assert len(left) <= 20 - 2 * (commits - 1)
        assert left == list(range(21 - len(left), 21))
        (started,) = events(manager, CLEANUP_STARTED)
        assert {one.cause for one in events(manager, DELETED)} <= {started.id}
        manager.cleanup_old_checkpoints(retention={"keep_last": 3})
        assert steps(manager) == [18, 19, 20]
        assert manager.store.verify().ok


def test_a_task_that_failed_after_a_completed_step_stays_recoverable(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        for step in (1, 2, 3):
            manager.create_checkpoint("job", "J", step, data={"a": step}, checkpoint_id=f"s{step}")
            manager.complete_checkpoint(f"s{step}")
        manager.create_checkpoint("job", "J", 4, data={"a": 4}, checkpoint_id="s4")
        manager.fail_checkpoint("s4", {"message": "boom"})
        for left in (2, 0):
            assert manager.cleanup_old_checkpoints(retention={"keep_last": 0}) == left
            assert manager.can_recover_task("job")
            assert manager.get_recovery_point("job").checkpoint_id == "s3"
        assert [one.checkpoint_id for one in manager.iterate()] == ["s3", "s4"]
