"""A process that works on a store and tells what it does: what crashes are studied on.

Usage: python -m tools.crash.workload NAME ROOT [BUG]

A workload is a list of acts, each a name in `ACTS`; one that begins with `prepare` makes the store.
A new kind of upkeep is one line in `ACTS` and one in `WORKLOADS`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ckptlog
from ckptlog import CheckpointError, CheckpointManager
from ckptlog.errors import OutcomeUnknownError
from ckptlog.log import log as log_module
from ckptlog.manager import joint, preparation
from ckptlog.repository.collection import CollectOptions
from ckptlog.storage.environment import Environment
from tools.crash.bug import planted
from tools.crash.diary import data_of

# Small, so that some acts roll, and each image of the store is small.
SEGMENT_BYTES = 24_000
PREALLOCATION_BYTES = 8_192
# What brings more new bytes than this puts them into packs.
LOG_BYTES = 20_000
SMALL, PACKED = 600, 60_000
_SECONDS_A_DAY = 86_400


class AgedEnvironment(Environment):
    """The real world some days ago, so that a clean-up finds something."""

    def __init__(self, age_days: int = 0) -> None:
        super().__init__()
        self._age_us = age_days * _SECONDS_A_DAY * 1_000_000

    def now_us(self) -> int:
        """Return the time, set back."""
        return super().now_us() - self._age_us


class Scene:
    """One store at work, and what was told of it.

    Attributes:
        values: What each living checkpoint holds now.
        doing: The name of the act that is under way.
    """

    def __init__(self, root: Path, *, say: Callable[[str], None], age_days: int = 0) -> None:
        self.root = root
        self._say = say
        self._serial = 0
        self.doing = ""
        self.values: dict[str, str] = {}
        self.store = ckptlog.open(root, create=True, environment=AgedEnvironment(age_days))
        self.manager = CheckpointManager(store=self.store)
        for checkpoint in self.manager.iterate():
            self.values[checkpoint.checkpoint_id] = str(checkpoint.data["value"])
        # What was there before: old enough for a clean-up, unless it is changed.
        self._old = dict(self.values)
        self._serial = self.store.position * 100

    def value(self, size: int, state: str) -> str:
        """Return a value that no checkpoint has had."""
        self._serial += 1
        return f"{self._serial}/{size}/{state}"

    @contextmanager
    def act(self, wanted: dict[str, str | None], *, whole: bool = True) -> Iterator[None]:
        """Tell what the block will do, and then what became of it."""
        self._say(json.dumps({"try": wanted, "whole": whole, "act": self.doing}))
        try:
            yield
        except OutcomeUnknownError as error:
            self._say(json.dumps({"unknown": True, "why": error.message}))
        except CheckpointError as error:
            # A creation that was killed half-way is taken up by the next one.
            self._say(json.dumps({"refused" if whole else "unknown": True, "why": error.message}))
        else:
            self._say(json.dumps({"ack": True}))
            for name, value in wanted.items():
                self.values.pop(name, None)
                if value is not None:
                    self.values[name] = value

    def oldest(self, *states: str) -> str:
        """Return the checkpoint that was made first of those in these states."""
        return next(name for name, value in self.values.items() if value.endswith(states))

    def finished(self) -> list[str]:
        """Return what a clean-up takes: those that were completed long ago."""
        return [
            name
            for name, value in self.values.items()
            if value == self._old.get(name) and value.endswith("completed")
        ]

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def create(scene: Scene, size: int = SMALL, task: str = "task") -> None:
    """Make a checkpoint."""
    value = scene.value(size, "created")
    name = f"c{value.split('/')[0]}"
    with scene.act({name: value}):
        scene.manager.create_checkpoint(task, "title", 1, data=data_of(value), checkpoint_id=name)


def update(scene: Scene) -> None:
    """Change the oldest one."""
    name, value = scene.oldest("created", "active"), scene.value(SMALL * 3, "active")
    with scene.act({name: value}):
        scene.manager.update_checkpoint(name, data=data_of(value))


def complete(scene: Scene) -> None:
    """Complete the oldest one."""
    name, value = scene.oldest("created", "active"), scene.value(SMALL, "completed")
    with scene.act({name: value}):
        scene.manager.complete_checkpoint(name, final_data=data_of(value))


def delete(scene: Scene) -> None:
    """Delete the oldest one."""
    name = scene.oldest("created", "active", "completed")
    with scene.act({name: None}):
        scene.manager.delete_checkpoint(name)


def discard(scene: Scene) -> None:
    """Delete the newest one: after `pack` all of a pack is garbage."""
    name = next(reversed(scene.values))
    with scene.act({name: None}):
        scene.manager.delete_checkpoint(name)


def batch(scene: Scene, size: int = SMALL) -> None:
    """Make three at once."""
    values = [scene.value(size, "created") for _ in range(3)]
    wanted: dict[str, str | None] = {f"b{value.split('/')[0]}": value for value in values}
    with scene.act(wanted), scene.manager.batch() as work:
        for (name, _), value in zip(wanted.items(), values, strict=True):
            work.create_checkpoint("batch", "title", 1, data=data_of(value), checkpoint_id=name)


def pack(scene: Scene) -> None:
    """Make one that is too large for the log."""
    create(scene, PACKED, "large")


def rebuild(scene: Scene) -> None:
    """Throw the views away and build them anew."""
    with scene.act({}):
        scene.store.rebuild_views()


def view(scene: Scene) -> None:
    """Ask the view, which brings it up to date."""
    with scene.act({}):
        list(scene.manager.iterate())


def history(scene: Scene) -> None:
    """Write the history's Parquet files."""
    with scene.act({}):
        scene.store.history()


def consume(scene: Scene) -> None:
    """Let a named consumer acknowledge what it has not seen."""
    with scene.act({}), scene.store.watch("reader", follow=False, watcher=False) as events:
        for event in events:
            events.ack(event)


def cleanup(scene: Scene) -> None:
    """Do what `ckptlog cleanup` does."""
    gone: dict[str, str | None] = dict.fromkeys(scene.finished())
    with scene.act(gone, whole=False):
        scene.manager.cleanup_old_checkpoints(1)


def cleanup_command(scene: Scene) -> None:
    """Run `ckptlog cleanup` beside the open store; a status of 0 says that all of it was done."""
    from ckptlog.cli.main import main as command

    gone: dict[str, str | None] = dict.fromkeys(scene.finished())
    with scene.act(gone, whole=False):
        status = command(["--store", str(scene.root), "cleanup", "--max-age-days", "1", "--json"])
        if status:
            raise OutcomeUnknownError(f"It ended with status {status}.", hint="")


def reopen(scene: Scene) -> None:
    """Close the store and open it again."""
    with scene.act({}):
        scene.close()
        scene.__init__(scene.root, say=scene._say)  # type: ignore[misc]  # noqa: SLF001


def lose(scene: Scene) -> None:
    """Close the store, remove all of its views, and open it again: they are made from the log."""
    with scene.act({}):
        scene.close()
        with suppress(FileNotFoundError):  # a medium that makes no folder has none to lose
            shutil.rmtree(scene.root / "views")
        scene.__init__(scene.root, say=scene._say)  # type: ignore[misc]  # noqa: SLF001
        list(scene.manager.iterate())


def compact(scene: Scene) -> None:
    """Settle what is dead, and give its bytes back."""
    with scene.act({}):
        scene.manager.compact_checkpoint_storage()


def settle(scene: Scene) -> None:
    """Compact whatever can be, so that segments are settled."""
    with scene.act({}):
        scene.store.compact(CollectOptions(garbage_min=0, seal_bytes_min=1))


def sign(scene: Scene) -> None:
    """Sign the log as it is."""
    with scene.act({}):
        scene.store.notary.sign()


ACTS: dict[str, Callable[[Scene], None]] = {
    act.__name__: act
    for act in (create, update, complete, delete, discard, batch, pack, rebuild, view, history,
                consume, cleanup, cleanup_command, reopen, lose, compact, settle, sign)
}  # fmt: skip

PHASES: dict[str, tuple[str, ...]] = {
    "writing": ("", "create", "update", "complete", "delete", "discard", "batch", "pack", "reopen",
                "consume", "sign"),
    "settling": ("compact", "settle"),
    "cleaning": ("cleanup", "cleanup_command"),
    "rebuilding": ("view", "rebuild", "history", "lose"),
}  # fmt: skip


def phase_of(act: str) -> str:
    """Return what kind of work an act is, for counts."""
    return next(phase for phase, acts in PHASES.items() if act in acts)


WORKLOADS: dict[str, str] = {
    "commit": "create update complete create delete batch view",
    "roll": "batch batch update batch batch batch batch batch batch",
    "packs": "pack create pack batch delete",
    "upkeep": "create view rebuild history consume reopen create consume history",
    "cleanup": "create complete cleanup create",
    "cleanup-command": "cleanup_command create",
    "compact": "create delete compact create compact",
    "settle": "pack discard create delete settle batch pack settle update discard settle",
    "clean": "cleanup settle cleanup_command create settle",
    "rebuild": "batch lose create rebuild settle lose history view",
}
# What stands in a store before its workload begins; made long ago.
PREPARED = "create create complete create complete batch pack update view"


def prepare(root: Path, say: Callable[[str], None]) -> None:
    """Make the store that each workload begins with."""
    run(root, PREPARED.split(), say, age_days=90)


def run(root: Path, acts: Iterable[str], say: Callable[[str], None], *, age_days: int = 0) -> None:
    """Do acts on a store and close it."""
    make_small()
    scene = Scene(root, say=say, age_days=age_days)
    for act in acts:
        scene.doing = act
        ACTS[act](scene)
    scene.close()


def make_small() -> None:
    """Let this process begin a new segment often."""
    defaults = log_module.Log.__init__.__kwdefaults__ or {}
    defaults["segment_bytes"] = SEGMENT_BYTES
    log_module.PREALLOCATION_BYTES = PREALLOCATION_BYTES
    for module in (preparation, joint):
        vars(module)["CHUNK_BYTES_IN_LOG_MAX"] = LOG_BYTES


def main(name: str, root: str, bug: str = "") -> None:
    """Tell on stdout, one write for each line; bug: one of tools/crash/bug.py, or none."""

    def say(line: str) -> None:
        os.write(1, f"{line}\n".encode())

    with planted(bug), suppress(CheckpointError):  # opening failed: there was nothing to tell
        if name == "prepare":
            prepare(Path(root), say)
        else:
            run(Path(root), WORKLOADS.get(name, name).split(), say)


if __name__ == "__main__":
    main(*sys.argv[1:])
