"""A process ends anywhere in an update: the next one leaves what a whole update would have left.

Once at every act on the file system, by an exception after which nothing more is done; and by
SIGKILL at random moments, in real processes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import ckptlog
from ckptlog.views.history import shelf
from tests.architecture.tree import ROOT
from tests.views.history.scribe import contents

ACTS = ("create_temporary", "write_all", "publish", "write_atomically", "remove")


class Killed(BaseException):
    """The process ends here."""


class Countdown:
    """Lets so many acts happen, and no more."""

    def __init__(self, monkeypatch, acts):
        self.done = 0
        self._acts = acts
        for name in ACTS:
            monkeypatch.setattr(shelf, name, self._counted(getattr(shelf, name)))

    def _counted(self, act):
        def counted(*arguments, **options):
            if self.done >= self._acts:
                raise Killed
            self.done += 1
            return act(*arguments, **options)

        return counted


def write(scribe, events):
    while scribe.position < events:
        name = scribe.create(f"t{scribe.position % 3}")
        scribe.tick(2500)
        scribe.change(name)
        scribe.commit()


def acts_of(monkeypatch, update):
    with monkeypatch.context() as patch:
        countdown = Countdown(patch, 10**9)
        update()
    return countdown.done


@pytest.mark.parametrize("before", [0, 60, 100])
def test_killed_at_any_act_of_an_update(scribe, monkeypatch, tmp_path, before):
    folder = tmp_path / "history"
    write(scribe, before)
    if before:
        scribe.view(folder).update()
    old = contents(folder) if before else {}
    write(scribe, before + 70)
    scribe.view(tmp_path / "new").update()
    new = contents(tmp_path / "new")
    steps = {"step_events": 64, "window_events": 9}
    whole = acts_of(monkeypatch, scribe.view(folder, **steps).update)
    assert contents(folder) == new
    assert whole > 10
    for acts in range(whole):
        put(folder, old)
        with monkeypatch.context() as patch:
            Countdown(patch, acts)
            with pytest.raises(Killed):
                scribe.view(folder, **steps).update()
        found = scribe.view(folder).update()
        assert contents(folder) == new, acts
        assert found.count_rows() == before + 70


@pytest.mark.parametrize("acts", range(12))
def test_killed_while_it_is_mended(scribe, monkeypatch, tmp_path, acts):
    folder = tmp_path / "history"
    write(scribe, 150)
    scribe.view(folder).update()
    whole = contents(folder)
    for path in sorted(folder.rglob("*.parquet"))[:2]:
        path.write_bytes(b"broken")
    with monkeypatch.context() as patch:
        Countdown(patch, acts)
        with suppress(Killed):  # there are not as many acts
            scribe.view(folder).update()
    scribe.view(folder).update()
    assert contents(folder) == whole


def put(folder, files):
    """Put a history there as it was."""
    for path in sorted(folder.parent.rglob(f"{folder.name}*/**/*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for name, data in files.items():
        path = folder.with_name("history.json") if name == "manifest" else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if not files:
        folder.with_name("history.json").unlink(missing_ok=True)


CHILD = """
import sys
from pathlib import Path
from ckptlog.log.bulk import BulkReader
from ckptlog.log.log import Log
from ckptlog.repository import layout
from ckptlog.storage.environment import Environment
from ckptlog.views.history import span
from ckptlog.views.history.view import HistoryView, Source

span.SIZES = (64, 16, 4)
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
info, environment = layout.read_info(root), Environment()
log = Log(root, info.id_bytes, environment, read_only=True)
bulk = BulkReader(log.segments, info.id_bytes)
source = Source(root, info.id, log.reader, bulk, log.published, lambda _: None)
print("begin", flush=True)
while True:
    HistoryView(folder, source, step_events=64, window_events=8).update()
    folder.with_name("history.json").unlink()  # all of it again
"""


def test_sigkill_at_random_moments(scribe, tmp_path, pytestconfig):
    chance = random.Random(11)
    write(scribe, 400)
    scribe.view(tmp_path / "new").update()
    new = contents(tmp_path / "new")
    folder = tmp_path / "history"
    command = [sys.executable, "-c", CHILD, str(scribe.root), str(folder)]
    for _ in range(60 if pytestconfig.getoption("--thorough") else 5):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"begin\n"
            time.sleep(chance.uniform(0.3, 0.9))
            os.kill(child.pid, signal.SIGKILL)
        scribe.view(folder).update()
        assert contents(folder) == new


WRITER = """
import sys
import ckptlog
from ckptlog.views.history import span

span.SIZES = (64, 16, 4)
with ckptlog.open(sys.argv[1]) as store:
    print("begin", flush=True)
    for _ in range(30):
        store.history()
"""


def test_several_processes_share_one_history(tmp_path):
    path = tmp_path / "store"
    with ckptlog.CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1)
        command = [sys.executable, "-c", WRITER, str(path)]
        children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(3)]
        assert [child.stdout.readline() for child in children] == [b"begin\n"] * 3
        number = 1
        while any(child.poll() is None for child in children):
            number += 1
            manager.create_checkpoint("t", "T", number)
            assert manager.store.history().count_rows() == number
        for child in children:
            with child:
                assert child.wait() == 0
        folder = path / "views" / "history"
        found = contents(folder)
        manager.store.history(tmp_path / "new")
        assert contents(tmp_path / "new") == found
