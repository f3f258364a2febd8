"""The limit of a service's store is never passed: not by a capture, nor by what the log grows by."""

from __future__ import annotations

import random

import pytest

import ckptlog
from ckptlog import CheckpointConfiguration, CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import QuotaError
from ckptlog.model.configuration import GIBIBYTE
from ckptlog.repository.statistics import measure
from tests.capture.sample import Value
from tests.service.system import settings

MEBIBYTE = 1024 * 1024
# What is never refused: that the limit was met is an event, and views take it in.
BOOKS_BYTES = 64 * 1024


def used_bytes(path):
    sizes = measure(path)
    return sizes.total - sizes.reserve


@pytest.mark.parametrize(
    ("limit", "size", "least"),
    [
        (2 * MEBIBYTE, 60_000, 15),
        (3 * MEBIBYTE, 300_000, 6),
        (8 * MEBIBYTE, 2_500_000, 2),  # in packs
        (8 * MEBIBYTE, 1_000_000, 6),  # in the log
    ],
)
def test_captures_fill_the_store_up_to_its_limit_and_not_beyond(tmp_path, limit, size, least):
    path = tmp_path / "s"
    noise = random.Random(size)
    config = CheckpointConfiguration(max_storage_size_gb=limit / GIBIBYTE, cleanup_interval_hours=0)
    with CheckpointManager(path, config=config) as manager:
        part = Value("noise", b"")
        capturer = Capturer(manager, "sys", [part])
        count = 0
        with pytest.raises(QuotaError) as caught:  # noqa: PT012 - which of them is not fixed
            while count < 10_000:
                part.value = noise.randbytes(size)
                capturer.capture()
                count += 1
                assert used_bytes(path) <= limit, count
        assert used_bytes(path) <= limit + BOOKS_BYTES
        assert caught.value.context["limit_bytes"] == pytest.approx(limit, abs=1)
        assert count >= least
        # Nearly all of the room is used: no more is left than a capture, and what is beside it.
        assert used_bytes(path) + 1.5 * size + 200_000 > limit
        names = [info.id for info in capturer.captures()]
        assert len(names) == count
        # What ends work is not refused, and gives room again.
        for name in names[1:]:
            manager.delete_checkpoint(name)
        manager.compact_checkpoint_storage()
        assert capturer.capture() is not None
        assert used_bytes(path) <= limit
    with ckptlog.open(path) as store:
        assert not store.verify("full").problems


def test_a_service_stays_below_its_limit(tmp_path):
    """As its users see it: refused captures are failures, and the store is no larger."""
    limit = 2 * MEBIBYTE
    noise = random.Random(0)

    class Holder:
        def get_state(self):
            return {"noise": noise.randbytes(50_000)}

        def set_state(self, state):
            raise NotImplementedError

    more = {
        "storage": {"local": {"path": str(tmp_path / "s"), "maxSizeBytes": limit}},
        "maxCheckpoints": 0,
        "compactionIntervalSeconds": 0,
        "intervalSeconds": 60,
    }
    with ckptlog.create_checkpoint_system(
        settings(tmp_path / "s", **more), {"agentManager": Holder()}
    ) as service:
        with pytest.raises(QuotaError):  # noqa: PT012 - which of them is not fixed
            for _ in range(100):
                service.create_checkpoint()
                assert used_bytes(tmp_path / "s") <= limit
        assert used_bytes(tmp_path / "s") <= limit + BOOKS_BYTES
        assert service.list_checkpoints()


def test_a_small_limit_is_not_used_up_by_what_views_take(tmp_path):
    """Their write-ahead log grows up to 16 MiB, whatever they hold."""
    noise = random.Random(1)

    class State:
        def get_state(self):
            return {"noise": noise.randbytes(100_000)}

        def set_state(self, state):
            pass

    config = settings(
        tmp_path / "s", intervalSeconds=3600, maxCheckpoints=3, compactionIntervalSeconds=0.01
    )
    config["storage"]["local"]["maxSizeBytes"] = 4 * MEBIBYTE
    with ckptlog.create_checkpoint_system(config, {"agentManager": State()}) as service:
        for _ in range(80):
            service.create_checkpoint()
            service._engine.keeper._thread and service._engine.keeper._thread.join()
        assert service.get_metrics().total_checkpoints == 3
        assert used_bytes(tmp_path / "s") <= 4 * MEBIBYTE


def test_a_capture_that_is_too_much_is_given_up_before_all_of_it_is_written(tmp_path, monkeypatch):
    limit, size = 4 * MEBIBYTE, 100 * MEBIBYTE
    config = CheckpointConfiguration(max_storage_size_gb=limit / GIBIBYTE, cleanup_interval_hours=0)
    most = 0
    with CheckpointManager(tmp_path / "s", config=config) as manager:
        part = Value("noise", random.Random(1).randbytes(size))
        capturer = Capturer(manager, "sys", [part])
        real = manager.check_room

        def check_room():
            nonlocal most
            most = max(most, used_bytes(tmp_path / "s"))
            real()

        monkeypatch.setattr(manager, "check_room", check_room)
        with pytest.raises(QuotaError):
            capturer.capture()
        assert 0 < most < limit + 32 * MEBIBYTE
        assert used_bytes(tmp_path / "s") <= limit
        part.value = b"small"
        assert capturer.capture() is not None
