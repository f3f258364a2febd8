"""Processes that capture are killed at random moments: the next start is clean, every capture that
was acknowledged is there and whole, and no number was given twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import numpy
import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from tests.capture.sample import Account, Bank, Value

SPAWN = multiprocessing.get_context("spawn")
NAMES = ["a", "b", "c"]


def capture_forever(root: str, told: str, seed: int) -> None:
    """Move money between captures; tell each capture once it is acknowledged."""
    chance = random.Random(seed)
    generator = numpy.random.default_rng(seed)
    bank = Bank(NAMES)
    arrays = {"w": generator.random(60_000)}
    manager = CheckpointManager(root)
    accounts = [
        Account(bank, name, depends_on=NAMES[:number], stability=chance.choice(["live", "fork"]))
        for number, name in enumerate(NAMES)
    ]
    capturer = Capturer(manager, "bank", [*accounts, Value("arrays", arrays, stability="copied")])
    fd = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        bank.move(*chance.sample(NAMES, 2), chance.randint(1, 9))
        first = chance.randrange(50_000)
        arrays["w"][first : first + 300] = generator.random(300)
        info = capturer.capture()
        os.write(fd, f"{info.number} {info.id} {info.digest}\n".encode())


def check(root: Path, told: Path) -> int:
    acknowledged = [line.split() for line in told.read_text().splitlines()] if told.exists() else []
    with CheckpointManager(root) as manager:
        capturer = Capturer(manager, "bank")
        infos = {info.id: info for info in capturer.captures()}
        for number, name, digest in acknowledged:
            assert (infos[name].number, infos[name].digest) == (int(number), digest)
        numbers = [info.number for info in infos.values()]
        assert numbers == sorted(set(numbers), reverse=True)
        for info in list(infos.values())[:20]:
            assert capturer.check(info) == []
            found = {name: one.value() for name, one in capturer.stored(info).items()}
            assert sum(found[name]["money"] for name in NAMES) == 300
            assert found["arrays"]["w"].shape == (60_000,)
        sound(manager, root)
    return len(acknowledged)


def sound(manager: CheckpointManager, root: Path) -> None:
    """Fail with every problem's text, and with a copy of the store that stays."""
    problems = manager.validate_checkpoint_integrity()
    if problems:
        kept = Path(tempfile.mkdtemp(prefix="ckptlog-unsound-")) / "store"
        shutil.copytree(root, kept, symlinks=True)
        again = manager.validate_checkpoint_integrity()
        text = "\n".join(problems)
        pytest.fail(f"{text}\n--- asked again: {again}\n--- the store is kept: {kept}")


def run(tmp_path: Path, kills: int, writers: int) -> int:
    root, told = tmp_path / "store", tmp_path / "told"
    CheckpointManager(root).close()
    chance = random.Random(writers)
    known = 0
    for kill in range(kills):
        processes = [
            SPAWN.Process(target=capture_forever, args=(str(root), str(told), kill * 10 + one))
            for one in range(writers)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + 120
        wanted = known + chance.choice([1, 2, 5])
        while not told.exists() or told.read_text().count("\n") < wanted:
            assert time.monotonic() < deadline
            assert any(process.is_alive() for process in processes)
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            process.join()
        known = check(root, told)
    return known


@pytest.mark.parametrize("writers", [1, 2])
def test_a_killed_capture_leaves_nothing_half_done(tmp_path, writers):
    assert run(tmp_path, 3, writers) >= 3


@pytest.mark.thorough
@pytest.mark.parametrize("writers", [1, 2, 3])
def test_many_kills(tmp_path, writers):
    run(tmp_path, 60, writers)
