"""A service is never overtaken by itself; where another overtakes it, it lets go of its lease."""

from __future__ import annotations

import threading

import pytest

from ckptlog import CheckpointManager
from ckptlog.errors import LeaseLostError, LeaseRequiredError
from tests.service.system import serve, until
from tests.service.test_stopping import WAIT_S, Work, begun, system


def keepers():
    """Return the threads that renew leases."""
    return {one for one in threading.enumerate() if one.name.startswith("ckptlog-lease")}


@pytest.mark.parametrize("what", ["capture", "restore"])
@pytest.mark.parametrize("state", ["ready", "stopped"])
def test_a_start_waits_for_what_is_done_by_hand(tmp_path, state, what):
    service, parts = system(tmp_path / "s", leaseSeconds=0.5)
    service.initialize()
    first = service.create_checkpoint()
    if state == "stopped":
        service.start(signals=False)
        service.stop()
    parts[1].held = what
    work = begun(service, what, first)
    assert parts[1].is_called.wait(WAIT_S)
    starting = Work(lambda: service.start(signals=False))
    starting.join(0.3)
    assert starting.is_alive(), "it claimed the system beside its own work"
    parts[1].may_go_on.set()
    assert starting.ended().error is None
    assert work.ended().error is None
    parts[1].held = ""
    assert service.state == "running"
    assert service.create_checkpoint().number > first.number
    assert not service.alerts
    service.close()


def test_a_standby_that_claims_waits_for_what_is_done_by_hand(tmp_path):
    service, parts = system(tmp_path / "s", standby=True, leaseSeconds=0.5)
    owner = CheckpointManager(tmp_path / "s")
    lease = owner.acquire_lease("system", ttl_s=600)
    service.start(signals=False)
    assert service.state == "standby"
    parts[1].held = "capture"
    work = Work(service.create_checkpoint)
    assert parts[1].is_called.wait(WAIT_S)
    lease.release()
    owner.close()
    threading.Event().wait(1)  # two of its looks
    assert service.state == "standby"
    parts[1].may_go_on.set()
    assert work.ended().error is None
    parts[1].held = ""
    until(lambda: service.state == "running" and not service.alerts, "the claim")
    service.close()


@pytest.mark.parametrize("error", [LeaseLostError, LeaseRequiredError])
def test_a_refusal_that_the_log_does_not_bear_out_loses_nothing(tmp_path, monkeypatch, error):
    service, _ = system(tmp_path / "s")
    with service:
        until(service.list_checkpoints, "the first capture")
        lease = service._engine.lease

        def refuse(**_):
            raise error("for an earlier lease")

        with monkeypatch.context() as patch:
            patch.setattr(service._engine.capturer, "capture", refuse)
            with pytest.raises(error):
                service.create_checkpoint()
        assert service.state == "running"
        assert service._engine.lease is lease
        assert not service.alerts
        assert service.create_checkpoint().number == 2


def test_the_keeper_of_a_lost_lease_ends(tmp_path):
    before = keepers()
    with serve(tmp_path / "s", intervalSeconds=600, leaseSeconds=3600) as service:
        (keeper,) = keepers() - before
        until(service.list_checkpoints, "the first capture")  # else it is that which loses it
        with CheckpointManager(tmp_path / "s") as manager:
            manager.release_lease("system", force=True)
            lease = manager.acquire_lease("system", ttl_s=600)
            with pytest.raises(LeaseLostError):
                service.create_checkpoint()
            assert service.state == "standby"
            assert [one.name for one in service.alerts] == ["lease"]
            keeper.join(WAIT_S)
            assert not keeper.is_alive()
            lease.release()
        until(lambda: service.state == "running" and not service.alerts, "the claim")
