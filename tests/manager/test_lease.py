"""Leases through the manager: who gets one, who may write, what survives."""

from __future__ import annotations

import os
import pickle
import threading
from datetime import timedelta

import pytest

import ckptlog
from ckptlog import (
    CheckpointManager,
    CheckpointState,
    Lease,
    TaskCheckpointWrapper,
)
from ckptlog.errors import (
    ArgumentError,
    CommandReusedError,
    IllegalTransitionError,
    LeaseHeldError,
    LeaseLostError,
    LeaseRequiredError,
    UnsupportedError,
)
from ckptlog.formats.store import LEASES
from ckptlog.repository import layout
from ckptlog.storage import files
from tests.manager.clock import SettableEnvironment, open_at


def kinds(store):
    return [entry.event.type for entry in store.events()]


def test_a_lease_is_acquired_renewed_and_released(manager, store, environment):
    lease = manager.acquire_lease("t", ttl_s=60, holder="w1")
    assert isinstance(lease, Lease)
    assert (lease.task, lease.holder, lease.token) == ("t", "w1", 0)
    assert lease.is_valid
    before = lease.expires_at
    environment.advance(seconds=30)
    assert lease.renew() - before >= timedelta(seconds=30)
    assert lease.renew(ttl_s=600) - before >= timedelta(seconds=569)
    assert lease.release() is True
    assert lease.release() is False
    assert not lease.is_valid
    assert kinds(store) == ["lease.claimed", "lease.renewed", "lease.renewed", "lease.released"]
    with pytest.raises(LeaseLostError):
        lease.renew()
    assert lease.is_lost


def test_a_block_releases_it_also_on_an_exception(manager):
    with manager.acquire_lease("t") as lease:
        assert lease.is_valid
    with pytest.raises(RuntimeError), manager.acquire_lease("t"):
        raise RuntimeError
    assert manager.list_leases() == []


def test_a_holder_that_is_not_named_is_this_process(manager):
    assert manager.acquire_lease("t").holder == f"tester#{os.getpid()}"


def test_who_comes_second_is_told_who_has_it(manager):
    manager.acquire_lease("t", holder="w1")
    with pytest.raises(LeaseHeldError, match="'w1'") as caught:
        manager.acquire_lease("t", holder="w2")
    assert caught.value.retryable
    assert caught.value.context["task_id"] == "t"


def test_waiting_ends_when_it_is_released(manager):
    lease = manager.acquire_lease("t")
    threading.Timer(0.05, lease.release).start()
    assert manager.acquire_lease("t", wait_s=30).token > lease.token


def test_waiting_ends_with_the_time(manager):
    manager.acquire_lease("t")
    with pytest.raises(LeaseHeldError):
        manager.acquire_lease("t", wait_s=0.05)


def test_every_call_takes_the_lease(manager, store):
    own = {"lease": manager.acquire_lease("t")}
    name = manager.create_checkpoint("t", "T", 1, **own)
    assert manager.update_checkpoint(name, data={"a": 1}, **own)
    assert manager.fail_checkpoint(name, {"why": "x"}, **own)
    assert manager.restore_checkpoint(name, **own).state is CheckpointState.RESTORED
    assert manager.complete_checkpoint(name, **own)
    assert manager.delete_checkpoint(name, **own)
    with manager.checkpoint_context("t", "T", 2, **own) as other:
        pass
    assert manager.get_checkpoint(other).state is CheckpointState.COMPLETED
    with pytest.raises(RuntimeError), manager.checkpoint_context("t", "T", 3, **own) as third:
        raise RuntimeError
    assert manager.get_checkpoint(third).state is CheckpointState.FAILED
    with manager.batch(**own) as batch:
        fourth = batch.create_checkpoint("t", "T", 4, activate=True)
        batch.complete_checkpoint(fourth)
        batch.delete_checkpoint(third)
    assert manager.delete_task("t", **own) == 2
    assert manager.list_leases() == []


CALLS = {
    "create": lambda manager, name, **o: manager.create_checkpoint("t", "T", 2, **o),
    "update": lambda manager, name, **o: manager.update_checkpoint(name, data={"b": 1}, **o),
    "complete": lambda manager, name, **o: manager.complete_checkpoint(name, **o),
    "fail": lambda manager, name, **o: manager.fail_checkpoint(name, **o),
    "restore": lambda manager, name, **o: manager.restore_checkpoint(name, **o),
    "delete": lambda manager, name, **o: manager.delete_checkpoint(name, **o),
    "delete task": lambda manager, name, **o: manager.delete_task("t", **o),
}


def in_a_batch(manager, name, **options):
    with manager.batch(**options) as batch:
        batch.create_checkpoint("free", "Free", 1)
        batch.update_checkpoint(name, data={"c": 1})


@pytest.mark.parametrize("call", [*CALLS, "batch"])
def test_whoever_was_overtaken_writes_nothing(manager, store, environment, call):
    act = CALLS.get(call, in_a_batch)
    name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
    lost = manager.acquire_lease("t", ttl_s=10)
    environment.advance(seconds=11)
    new = manager.acquire_lease("t", ttl_s=10, holder="w2")
    before = store.position
    with pytest.raises(LeaseLostError):
        act(manager, name, lease=lost)
    with pytest.raises(LeaseRequiredError, match="'w2'"):
        act(manager, name)
    assert store.position == before
    act(manager, name, lease=new)
    assert store.position > before
    assert "cp_free" not in str(lost)


def test_an_expired_lease_that_nobody_took_is_good(manager, environment):
    lease = manager.acquire_lease("t", ttl_s=10)
    environment.advance(days=3)
    assert not lease.is_valid
    assert manager.create_checkpoint("t", "T", 1, lease=lease)
    assert manager.create_checkpoint("t", "T", 2)  # binds nobody else
    lease.renew()
    with pytest.raises(LeaseRequiredError):
        manager.create_checkpoint("t", "T", 3)
    environment.advance(days=-30)  # back beyond anything that could have been given
    assert manager.create_checkpoint("t", "T", 3)


def test_a_batch_over_several_tasks_shows_several_leases(manager):
    leases = [manager.acquire_lease(task) for task in ("t", "u")]
    with manager.batch(lease=leases) as batch:
        for task in ("t", "u", "free"):
            batch.create_checkpoint(task, "T", 1)
    with manager.batch(lease=leases[:1]) as batch:
        batch.create_checkpoint("t", "T", 2)
    with pytest.raises(LeaseRequiredError), manager.batch(lease=leases[:1]) as batch:
        batch.create_checkpoint("u", "U", 2)
    assert [len(manager.get_task_checkpoints(task)) for task in ("t", "u")] == [2, 1]


def test_a_wrapper_under_a_lease(manager, environment):
    lease = manager.acquire_lease("t", ttl_s=10)
    wrapper = TaskCheckpointWrapper(manager, "t", "T", lease=lease)
    wrapper.checkpoint("one")
    wrapper.update_progress({"a": 1})
    environment.advance(seconds=11)
    other = manager.acquire_lease("t")
    for act in (
        lambda: wrapper.checkpoint("two"),
        lambda: wrapper.update_progress({"a": 2}),
        wrapper.complete_task,
        wrapper.fail_task,
    ):
        with pytest.raises(LeaseLostError):
            act()
    second = TaskCheckpointWrapper(manager, "t", "T", recover=True, lease=other)
    assert second.recovered.data == {"a": 1}
    second.complete_task()


def test_a_retry_of_a_write_and_of_a_claim(manager, store, environment):
    lease = manager.acquire_lease("t", ttl_s=10, command_id="claim")
    again = manager.acquire_lease("t", ttl_s=10, command_id="claim")
    assert again.grant == lease.grant
    name = manager.create_checkpoint("t", "T", 1, command_id="create", lease=lease)
    environment.advance(seconds=11)
    other = manager.acquire_lease("t")
    before = store.position
    assert manager.create_checkpoint("t", "T", 1, command_id="create", lease=lease) == name
    assert manager.acquire_lease("t", command_id="claim").token == lease.token
    assert store.position == before
    with pytest.raises(CommandReusedError):
        manager.acquire_lease("u", command_id="claim")
    assert other.is_valid


def test_leases_survive_reopening_and_a_rebuild(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        kept, gone = manager.acquire_lease("t"), manager.acquire_lease("u")
        manager.create_checkpoint("t", "T", 1, lease=kept)
        gone.release()
    with CheckpointManager(path) as manager:
        (one,) = manager.list_leases()
        assert (one.task, one.token, one.is_live) == ("t", kept.token, True)
        with pytest.raises(LeaseRequiredError):
            manager.create_checkpoint("t", "T", 2)
        manager.store.rebuild_views()
        with pytest.raises(LeaseHeldError):
            manager.acquire_lease("t")
        assert manager.create_checkpoint("t", "T", 2, lease=kept.grant)
        assert manager.validate_checkpoint_integrity() == []


def test_an_old_view_is_made_anew(tmp_path):
    import sqlite3

    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        manager.acquire_lease("t")
    with sqlite3.connect(path / "views" / "current.sqlite") as connection:
        connection.execute("DROP TABLE lease")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with CheckpointManager(path) as manager, pytest.raises(LeaseHeldError):
        manager.acquire_lease("t")


def test_a_damaged_lease_in_the_view_is_read_from_the_log(tmp_path):
    import sqlite3

    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        manager.acquire_lease("t")
    with sqlite3.connect(path / "views" / "current.sqlite") as connection:
        connection.execute("UPDATE lease SET body = x'00'")
    connection.close()
    with CheckpointManager(path) as manager:
        with pytest.raises(LeaseRequiredError):  # met under the log's lock
            manager.create_checkpoint("t", "T", 1)
        assert [one.task for one in manager.list_leases()] == ["t"]


def test_two_handles_on_one_store_agree(store, environment):
    first = CheckpointManager(store=store)
    with open_at(store.path, environment) as other:
        second = CheckpointManager(store=other)
        lease = first.acquire_lease("t", ttl_s=10)
        with pytest.raises(LeaseHeldError):
            second.acquire_lease("t")
        second.create_checkpoint("t", "T", 1, lease=second.adopt_lease(lease.grant))
        environment.advance(seconds=11)
        assert second.acquire_lease("t").token > lease.token
        with pytest.raises(LeaseLostError):
            first.create_checkpoint("t", "T", 2, lease=lease)


def test_a_grant_is_handed_to_another_process(manager):
    lease = manager.acquire_lease("t")
    handed = manager.adopt_lease(pickle.loads(pickle.dumps(lease.grant)))
    assert handed.is_valid
    assert manager.create_checkpoint("t", "T", 1, lease=handed)
    with pytest.raises(ArgumentError, match="grant"):
        manager.adopt_lease(lease)


def test_an_operator_ends_a_lease(manager, environment):
    lease = manager.acquire_lease("t", ttl_s=10)
    with pytest.raises(LeaseHeldError):
        manager.release_lease("t")
    assert manager.release_lease("t", force=True) is True
    assert manager.release_lease("t", force=True) is False
    with pytest.raises(LeaseLostError):
        manager.create_checkpoint("t", "T", 1, lease=lease)
    manager.acquire_lease("t", ttl_s=10)
    environment.advance(seconds=11)
    assert manager.release_lease("t") is True


def test_clean_ups_and_pins_go_on_beside_a_lease(manager, environment):
    name = manager.create_checkpoint("t", "T", 1)
    manager.complete_checkpoint(name)
    latest = manager.create_checkpoint("t", "T", 2)
    environment.advance(days=40)
    manager.acquire_lease("t")
    assert manager.pin_checkpoint(latest)
    assert manager.cleanup_old_checkpoints() == 1


def test_a_refusal_of_the_state_machine_stays_what_it_was(manager):
    own = {"lease": manager.acquire_lease("t")}
    name = manager.create_checkpoint("t", "T", 1, **own)
    manager.complete_checkpoint(name, **own)
    with pytest.raises(IllegalTransitionError):
        manager.update_checkpoint(name, **own)


@pytest.mark.parametrize("ttl_s", [0, -1, 1e-9, 32 * 86400, float("nan"), "60", True, None])
def test_a_senseless_ttl_is_refused(manager, ttl_s):
    with pytest.raises(ArgumentError, match="ttl_s"):
        manager.acquire_lease("t", ttl_s=ttl_s)


@pytest.mark.parametrize(
    "options", [{"wait_s": -1}, {"wait_s": "1"}, {"holder": ""}, {"holder": "a\nb"}]
)
def test_other_senseless_arguments_are_refused(manager, options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        manager.acquire_lease("t", **options)
    with pytest.raises(ArgumentError):
        manager.acquire_lease("")


@pytest.mark.parametrize("lease", [7, "t", [7], ("t", 1), object()])
def test_what_is_no_lease_is_refused(manager, lease):
    with pytest.raises(ValueError, match="lease"):
        manager.create_checkpoint("t", "T", 1, lease=lease)


# --- renewal in the background --------------------------------------------------------------------


def wait_for(is_true):
    import time

    for _ in range(2000):
        if is_true():
            return
        time.sleep(0.005)
    raise AssertionError


def test_renewal_in_the_background(manager, store):
    before = set(threading.enumerate())
    with manager.acquire_lease("t", ttl_s=0.15, background=True):
        (thread,) = set(threading.enumerate()) - before
        wait_for(lambda: kinds(store).count("lease.renewed") >= 3)
    count = store.position
    assert kinds(store)[-1] == "lease.released"
    thread.join(10)
    assert not thread.is_alive()
    assert store.position == count


@pytest.mark.parametrize("owner", ["manager", "store"])
def test_who_closes_renews_no_more(tmp_path, owner):
    before = set(threading.enumerate())
    store = ckptlog.open(tmp_path / "store", create=True)
    manager = CheckpointManager(store=store)
    manager.acquire_lease("t", ttl_s=0.15, background=True)
    (thread,) = {one for one in set(threading.enumerate()) - before if "lease" in one.name}
    (manager if owner == "manager" else store).close()
    thread.join(10)
    assert not thread.is_alive()
    store.close()
    with CheckpointManager(tmp_path / "store") as other:
        assert [one.task for one in other.list_leases()] == ["t"]


def test_who_renews_in_the_background_is_told_of_the_loss(manager, environment):
    lost = []
    lease = manager.acquire_lease("t", ttl_s=0.15, background=True, on_lost=lost.append)
    manager.release_lease("t", force=True)
    wait_for(lambda: lost)
    assert isinstance(lost[0], LeaseLostError)
    assert lease.is_lost


def test_a_callback_that_fails_harms_nobody(manager):
    lease = manager.acquire_lease("t", ttl_s=0.15, background=True, on_lost=lambda _: 1 / 0)
    manager.release_lease("t", force=True)
    wait_for(lambda: lease.is_lost)
    assert manager.create_checkpoint("t", "T", 1)


def test_a_forked_child_neither_renews_nor_releases(manager, store):
    with manager.acquire_lease("t", ttl_s=600) as lease:
        pid = os.fork()
        if pid == 0:
            lease.__exit__(None, None, None)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert lease.is_valid


# --- old stores -----------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    """A store from before there were leases."""
    path = tmp_path / "store"
    ckptlog.open(path, create=True).close()
    info = layout.read_info(path)
    import msgspec

    from ckptlog.formats import store as store_format

    features = tuple(name for name in info.features if name != LEASES)
    old = msgspec.structs.replace(info, features=features)
    (path / "store.json").write_bytes(store_format.encode(old))
    return path


def test_an_old_store_has_no_leases_until_somebody_says_so(old):
    with CheckpointManager(old) as manager, CheckpointManager(old) as other:
        with pytest.raises(UnsupportedError, match="leases enable"):
            manager.acquire_lease("t")
        assert manager.create_checkpoint("t", "T", 1)
        assert manager.enable_leases() is True
        assert manager.enable_leases() is False
        assert manager.acquire_lease("t").is_valid
        with pytest.raises(LeaseHeldError):  # opened before
            other.acquire_lease("t")
    assert LEASES in layout.read_info(old).features


def test_a_store_open_for_reading_tells_leases(manager, store):
    manager.acquire_lease("t")
    with ckptlog.open(store.path, read_only=True) as reader:
        assert [one.task for one in CheckpointManager(store=reader).list_leases()] == ["t"]


def test_a_claim_is_durable_where_others_are_not(tmp_path):
    environment = SettableEnvironment()
    with ckptlog.open(
        tmp_path / "store", create=True, environment=environment, durability="interval",
        interval_s=3600,
    ) as store:  # fmt: skip
        manager = CheckpointManager(store=store)
        manager.create_checkpoint("t", "T", 1)
        assert store.log.is_lagging
        manager.acquire_lease("t")
        assert not store.log.is_lagging


@pytest.mark.parametrize("command_id", [None, "claim-1"])
@pytest.mark.parametrize("is_written", [False, True])
def test_a_claim_that_is_interrupted_leaves_no_lease(manager, monkeypatch, is_written, command_id):
    """Ctrl-C comes before the commit is durable, or behind that and before it is published."""
    sync, calls = files.sync_file, []

    def pressed(fd):
        calls.append(fd)
        if len(calls) > 1:
            return sync(fd)
        if is_written:
            sync(fd)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "sync_file", pressed)
    with pytest.raises(KeyboardInterrupt):
        manager.acquire_lease("t", command_id=command_id)
    if command_id is None:
        assert manager.list_leases() == []
        assert manager.acquire_lease("t", holder="other").is_valid
    else:  # whoever named it asks again
        assert manager.acquire_lease("t", command_id=command_id).is_valid
