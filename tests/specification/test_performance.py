"""The specification's performance tests, by its names: correct under load; times are not judged.

Times are measured in tools/bench.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ckptlog import CheckpointManager, CheckpointPerformanceRequirements, CheckpointState

MANY = 300


class TestCheckpointPerformance:
    """Correctness under load."""

    def test_checkpoint_creation_performance(self, tmp_path: Path) -> None:
        """Many creates: every id its own, every checkpoint there."""
        with CheckpointManager(tmp_path / "store") as manager:
            names = [
                manager.create_checkpoint("t", "T", step, data={"step": step})
                for step in range(1, MANY + 1)
            ]
            assert len(set(names)) == MANY
            found = manager.get_task_checkpoints("t")
            assert [one.checkpoint_id for one in found] == names
            assert [one.data["step"] for one in found] == list(range(1, MANY + 1))

    def test_checkpoint_query_performance(self, tmp_path: Path) -> None:
        """Queries agree with each other, page by page."""
        with CheckpointManager(tmp_path / "store") as manager:
            with manager.batch() as batch:
                names = [
                    batch.create_checkpoint(f"t{number % 7}", "T", 1, worker_id=f"w{number % 3}")
                    for number in range(MANY)
                ]
            paged, after = [], None
            while page := manager.get_checkpoints_by_state(
                CheckpointState.CREATED, after=after, limit=64
            ):
                paged += [one.checkpoint_id for one in page]
                after = paged[-1]
            assert paged == names
            by_worker = [manager.get_checkpoints_by_worker(f"w{number}") for number in range(3)]
            assert sorted(one.checkpoint_id for page in by_worker for one in page) == sorted(names)
            by_task = [manager.get_task_checkpoints(f"t{number}") for number in range(7)]
            assert sum(map(len, by_task)) == MANY

    def test_storage_performance(self, tmp_path: Path) -> None:
        """Saving a growing state again and again stores what changed, not whole copies."""
        messages: list[str] = []
        with CheckpointManager(tmp_path / "store") as manager:
            for step in range(1, 101):
                messages.append(f"message {step}: " + f"{step * 7919 % 10007} " * 40)
                manager.create_checkpoint("t", "T", step, data={"messages": messages})
            stats = manager.store.stats()
            assert stats["logical_bytes"] > 5 * stats["new_bytes"]
            assert manager.validate_checkpoint_integrity() == []

    def test_concurrent_operations(self, tmp_path: Path) -> None:
        """The specification's 1,000 open checkpoints, updated by 16 threads; none is lost."""
        count = CheckpointPerformanceRequirements.MAX_CONCURRENT_CHECKPOINTS
        with CheckpointManager(tmp_path / "store") as manager:
            with manager.batch() as batch:
                names = [batch.create_checkpoint(f"t{n}", "T", 1) for n in range(count)]
            with ThreadPoolExecutor(16) as pool:
                updates = pool.map(
                    lambda name: manager.update_checkpoint(name, data={"n": name}), names
                )
                assert all(updates)
            active = manager.get_checkpoints_by_state(CheckpointState.ACTIVE)
            assert [one.checkpoint_id for one in active] == names
            assert all(one.data == {"n": one.checkpoint_id} for one in active)
