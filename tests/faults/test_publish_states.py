"""What a power cut leaves of `audit publish`: whole for who follows the head, and gone on with."""

from __future__ import annotations

import random
import shutil
import sys

import pytest

import ckptlog
from ckptlog.repository.publication import Publication
from tests.repository.attested import house
from tests.repository.test_publication import verified
from tools.crash.medium import Medium, lay_out
from tools.crash.trace import Replay, trace

pytestmark = pytest.mark.strace

# Enough of each of the two runs; every state of a call would be thousands.
STATES = 40


def batch(home, events):
    with ckptlog.CheckpointManager(home.path) as manager, manager.batch() as work:
        for step in range(1, events + 1):
            work.create_checkpoint("many", "Many", step)


def crashes(home, folder):
    """Publish under strace; yield what power cuts may leave of the folder, some of all of it."""
    folder.mkdir(exist_ok=True)
    medium = Medium(folder)
    command = [sys.executable, "-m", "ckptlog", "--store", str(home.path), "audit", "publish"]
    calls, _ = trace([*command, str(folder)])
    found = []
    for call in Replay(medium).steps(calls):
        found += [(call, kind, image) for kind, image in medium.states()]
    assert len(found) > STATES
    chance = random.Random(1)
    # The end, where the head comes, is the smallest part of all and the one that matters.
    yield from found[-STATES // 4 :]
    yield from chance.sample(found, STATES)


def test_every_power_cut_leaves_a_whole_log_or_none(tmp_path, ram):
    home, folder = house(tmp_path), tmp_path / "tiles"
    for events in (300, 600):
        batch(home, events)
        for call, kind, image in crashes(home, folder):
            left = ram / "left"
            left.mkdir()
            lay_out(image, left)
            place = f"{kind}, at {call}"
            if (left / "checkpoint").exists():
                assert verified(left), place
            with home.open() as store:
                Publication(store.notary, left).publish(store.notary.sign())
                assert len(verified(left)) == store.position, place
            shutil.rmtree(left)
