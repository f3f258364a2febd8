"""Power cuts under a rewind, on real file systems: every file old or new, and whole when it returned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.power_cut import CANNOT, program_of
from tools.rewind_cut import SYSTEMS

pytestmark = pytest.mark.root

TOOL = str(Path(__file__).parents[2] / "tools" / "rewind_cut.py")


def cut(*arguments):
    command = [sys.executable, TOOL, "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip())
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_rewind_survives_power_cuts(system):
    if program_of(system) is None:
        pytest.skip(f"there is no mkfs.{system}")
    tally = cut("--system", system, "--cuts", "9")
    assert tally["cuts"] == 9
    assert 0 < tally["done"] < 9
    assert tally["wrong"] == []


@pytest.mark.parametrize("bug", ["no_file_sync", "no_end_sync"])
def test_a_rewind_that_does_not_sync_is_found_out(bug):
    assert cut("--cuts", "40", "--bug", bug)["wrong"]


@pytest.mark.thorough
@pytest.mark.parametrize("system", SYSTEMS)
def test_hundreds_of_power_cuts_under_rewinds(system, capsys):
    if program_of(system) is None:
        pytest.skip(f"there is no mkfs.{system}")
    tally = cut("--system", system, "--cuts", "300", "--seed", "7")
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally["wrong"] == []
