"""The example runs, says what it promises, and goes on when it is killed anywhere."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import ckptlog
from ckptlog.integrations.langgraph import CkptlogSaver
from tests.architecture.tree import ROOT

STORY = ROOT / "tools" / "examples" / "newsletter.py"


def start(folder, *words):
    command = [sys.executable, str(STORY), "--dir", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tell(folder):
    process = start(folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def test_it_tells_its_story(tmp_path):
    out = tell(tmp_path / "store")
    assert "killed while it drafted (status -9)" in out
    assert "Recovered: 4 notes are there; next is desk." in out
    assert "Printed: Checkpoints: Fact 0 about the log" in out
    assert "A correction: nothing is ever lost\n" in out
    assert "The first edition is still there: Checkpoints" in out
    assert "with its hashes: 0 problems" in out
    saved = int(out.partition("(1/")[2].partition(")")[0])
    assert saved >= 4
    with ckptlog.open(tmp_path / "store") as store:
        spaces = {
            found.config["configurable"]["checkpoint_ns"]
            for found in CkptlogSaver(store).list(None)
        }
    assert len(spaces) > 1  # the subgraph's too


def test_killed_anywhere_it_goes_on(tmp_path):
    chance, folder = random.Random(5), tmp_path / "store"
    for _ in range(4):
        process = start(folder)
        lines = chance.randrange(0, 5)
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        process.communicate()
    out = tell(folder)
    assert "A correction: nothing is ever lost\n" in out
    assert "with its hashes: 0 problems" in out


def test_readme_names_it():
    assert "tools/examples/newsletter.py" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert os.path.exists(STORY)
