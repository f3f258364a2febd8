"""Nothing is deleted for the sake of a capture that nothing could be recovered from."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

import ckptlog
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import FullError
from ckptlog.service.keeping import DIGEST, FULL, SAMPLE, Keeper
from tests.capture.sample import Value
from tests.service.system import serve, settings, until

NOW = datetime(2030, 1, 1, tzinfo=UTC)
STRIDE = 16 * 1024


@pytest.fixture
def three(tmp_path):
    """A manager, and three captures of 2 MB that have nothing in common."""
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        for _ in range(3):
            component = Value("blob", {"bytes": os.urandom(2_000_000)})
            Capturer(manager, "sys", [component]).capture()
        yield manager, Capturer(manager, "sys")


def harm(manager, capturer, number, *, stride=None):
    """Flip a byte, or one in each stride, of what a capture holds."""
    info = next(one for one in capturer.captures() if one.number == number)
    raw = b"".join(capturer.stored(info)["blob"].get("bytes").raw())
    for path in (manager.store.path / "packs").iterdir():
        data = bytearray(path.read_bytes())
        at = data.find(raw[1_000_000:1_000_100])
        if at < 0:
            continue
        for place in range(at % stride, len(data) - 4096, stride) if stride else (at,):
            data[place] ^= 1
        path.write_bytes(data)
        manager.store.blobs.close()
        return
    raise AssertionError(f"capture {number} is in no pack")


def keep(capturer, check, told):
    keeper = Keeper(
        capturer,
        count_max=1,
        age_days_max=0,
        interval_s=0,
        check=check,
        on_fault=lambda info, fault: told.append((info.number, fault)),
    )
    keeper.keep(None, NOW)
    left = [one.number for one in capturer.captures()]
    keeper.keep(None, NOW)  # what is known is not told again
    assert [one.number for one in capturer.captures()] == left
    return left


@pytest.mark.parametrize("check", [DIGEST, SAMPLE, FULL])
def test_of_sound_captures_the_newest_stays(three, check):
    told = []
    assert keep(three[1], check, told) == [3]
    assert told == []


@pytest.mark.parametrize(
    ("check", "stride", "left"),
    [(DIGEST, STRIDE, [3]), (SAMPLE, STRIDE, [3, 2]), (FULL, None, [3, 2])],
)
def test_one_whose_bytes_are_damaged_is_not_the_good_one(three, check, stride, left):
    manager, capturer = three
    harm(manager, capturer, 3, stride=stride)
    told = []
    assert keep(capturer, check, told) == left
    assert [number for number, _ in told] == [3] * (len(left) - 1)
    assert all("'blob'" in fault for _, fault in told)


def test_where_none_is_good_none_goes(three):
    manager, capturer = three
    for number in (1, 2, 3):
        harm(manager, capturer, number, stride=STRIDE)
    told = []
    assert keep(capturer, SAMPLE, told) == [3, 2, 1]
    assert [number for number, _ in told] == [3, 2, 1]


class Blob:
    def __init__(self):
        self.value = b""

    def get_state(self):
        return {"value": self.value}

    def set_state(self, state):
        self.value = state["value"]


def test_a_service_tells_what_is_damaged_and_keeps_what_is_older(tmp_path):
    blob, failed = Blob(), []
    more = {"intervalSeconds": 60, "maxCheckpoints": 2, "retentionCheck": "full"}
    service = ckptlog.create_checkpoint_system(
        settings(tmp_path / "s", **more), {"agentManager": blob}
    )
    with service:
        service.on("operationFailed", failed.append)
        for _ in range(2):
            blob.value = os.urandom(2_000_000)
            service.create_checkpoint()
        until(lambda: len(service.list_checkpoints()) >= 2, "captures")
        newest = service.list_checkpoints()[0]
        assert service.validate_checkpoint() == service.validate_checkpoint(newest.id) == []
        service._engine.keeper._count_max = 1
        for path in (tmp_path / "s" / "packs").iterdir():
            data = bytearray(path.read_bytes())
            at = data.find(blob.value[1_000_000:1_000_100])
            if at >= 0:
                data[at] ^= 1
                path.write_bytes(data)
        service.store.blobs.close()
        assert service.validate_checkpoint() != []
        before = [one.number for one in service.list_checkpoints()]
        gone = service._engine.clean_up()
        until(lambda: failed, "being told")
        assert failed[0].checkpoint_id == newest.id
        assert failed[0].to_dict()["error"]["code"] == "corruption.detected"
        left = [one.number for one in service.list_checkpoints()]
        assert left[:2] == before[:2]
        assert len(gone) == len(before) - 2


def test_recoveries_do_not_push_out_what_they_go_back_to(tmp_path):
    state = {"step": 0}
    config = settings(tmp_path / "s", intervalSeconds=600, maxCheckpoints=4)
    with ckptlog.create_checkpoint_system(config, {"agents": state}) as service:
        until(service.list_checkpoints, "the first capture")
        first = service.create_checkpoint("to go back to")
        for step in range(8):
            state["step"] = step + 1
            service.recover_from_checkpoint(first.id)
            assert state["step"] == 0
        service.create_checkpoint("after")
        found = service.list_checkpoints()
        assert first.id in [one.id for one in found]
        assert [one.reason for one in found].count("safety") == 3
        assert len(found) == 6
        assert service.get_metrics().total_checkpoints == 6


def test_what_was_deleted_before_a_failure_is_told_and_its_room_comes_back(tmp_path, monkeypatch):
    gone, failed = [], []
    service = serve(tmp_path / "s", intervalSeconds=3600, maxCheckpoints=1)
    service.initialize()
    engine = service._engine
    service.on("checkpointsDeleted", gone.append)
    service.on("operationFailed", failed.append)
    made = [engine.capture("manual").id for _ in range(4)]
    delete = engine.manager.delete_checkpoint

    def failing(name, **options):
        if name == made[2]:
            raise FullError("no room")
        return delete(name, **options)

    monkeypatch.setattr(engine.manager, "delete_checkpoint", failing)
    assert engine.clean_up() == made[:2]
    until(lambda: gone and failed, "being told")
    assert gone == [made[:2]]
    assert engine.keeper._deleted == 2
    service.close()


def test_a_service_pins_what_is_to_stay(tmp_path):
    value = Value("blob", {"n": 0})
    config = settings(tmp_path / "s", intervalSeconds=600, maxCheckpoints=1)
    service = ckptlog.create_checkpoint_system(config, [value]).initialize()
    with service:
        first = service.create_checkpoint()
        assert service.pin_checkpoint(first.id)
        assert not service.pin_checkpoint(first.id)
        for number in (1, 2):
            value.value = {"n": number}
            service.create_checkpoint()
        kept = [one.id for one in service.list_checkpoints()]
        assert first.id in kept
        assert len(kept) == 2
        assert service.unpin_checkpoint(first.id)
        service.create_checkpoint()
        assert first.id not in [one.id for one in service.list_checkpoints()]
        with pytest.raises(ckptlog.CheckpointNotFoundError):
            service.pin_checkpoint("cp_none")
