"""Stores whose history is signed, and what can happen to them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import ckptlog
from ckptlog.formats import note
from ckptlog.repository.head_shelf import SignedHead


class House(NamedTuple):
    """A store, a folder for what is kept elsewhere."""

    path: Path
    elsewhere: Path

    def open(self, **options):
        return ckptlog.open(self.path, **options)

    def write(self, events=10, task="task"):
        """Append, in several commits."""
        with ckptlog.CheckpointManager(self.path, actor="tester") as manager:
            for step in range(1, events + 1):
                manager.create_checkpoint(task, "Task", step, data={"n": step})

    def sign(self) -> SignedHead:
        with self.open() as store:
            return store.notary.sign()

    def keep(self, name="kept") -> Path:
        """Sign, and copy the head to where no attacker writes."""
        path = self.elsewhere / name
        path.write_bytes(note.encode(self.sign().note))
        return path

    def back_up(self, name="backup") -> Path:
        copy = self.elsewhere / name
        shutil.copytree(self.path, copy)
        return copy

    def restore(self, copy: Path) -> None:
        shutil.rmtree(self.path)
        shutil.copytree(copy, self.path)

    @property
    def keys(self) -> Path:
        with self.open(read_only=True) as store:
            return Path(os.environ["CKPTLOG_KEYS"]) / store.id

    def verify(self, **kept):
        from ckptlog.repository.head_check import KeptHeads

        with self.open() as store:
            return store.verify(kept=KeptHeads(**kept))


def codes(report):
    return [one.code for one in report.problems]


def house(folder: Path) -> House:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    made = House(folder / "store", elsewhere)
    made.write()
    return made


def rewritten(made: House, events: int = 10) -> None:
    """Let an attacker who can write the store's files make another past, sound in itself.

    Same store, another first event; `heads/` stays.
    """
    heads = made.elsewhere / "heads-of-before"
    shutil.copytree(made.path / "heads", heads)
    identity = (made.path / "store.json").read_bytes()
    with made.open() as store:
        store_id = store.info.id_bytes
    shutil.rmtree(made.path)

    class Same(ckptlog.storage.environment.Environment):
        given = False

        def random_bytes(self, count):
            if not self.given:
                self.given = True
                return store_id
            return super().random_bytes(count)

    ckptlog.open(made.path, create=True, environment=Same()).close()
    (made.path / "store.json").write_bytes(identity)
    made.write(events, task="another")
    shutil.copytree(heads, made.path / "heads")
