"""The program inside this process, and a small store for it to work on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ckptlog.cli.main import main


class Ran(NamedTuple):
    """What a call of the program left."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        return json.loads(self.err)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Return a function that runs the program; the working directory is an empty one."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    monkeypatch.chdir(directory)

    def call(*words: object) -> Ran:
        capsys.readouterr()
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return call


class Filled(NamedTuple):
    """A store with checkpoints in every state, and their ids."""

    path: Path
    created: str
    active: str
    completed: str
    failed: str
    restored: str
    deleted: str


@pytest.fixture
def filled(tmp_path):
    """Make a store with a checkpoint in each state and a deleted one."""
    import ckptlog

    path = tmp_path / "store"
    with ckptlog.CheckpointManager(path, actor="tester") as manager:

        def create(step: int, **options: Any) -> str:
            return manager.create_checkpoint(
                "job", "A job", step, f"Step {step}", 5, {"n": step, "items": [1, 2]}, **options
            )

        created = create(1, worker_id="w1")
        active, completed = create(2, worker_id="w2"), create(3, parent_checkpoint_id=created)
        failed, restored, deleted = create(4, namespace="side"), create(5), create(5)
        manager.update_checkpoint(active, data={"more": "\x1b[31mred\x1b[0m"})
        manager.complete_checkpoint(completed, {"result": True})
        manager.fail_checkpoint(failed, {"message": "no luck"})
        manager.complete_checkpoint(restored)
        manager.restore_checkpoint(restored)
        manager.delete_checkpoint(deleted)
        manager.create_checkpoint("other", "Other", 1, metadata={"tag": "x"})
    return Filled(path, created, active, completed, failed, restored, deleted)
