"""Power cuts on real file systems; and that nothing stays mounted, whatever happens to the cutter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.power_cut import CANNOT, program_of

pytestmark = pytest.mark.root

TOOL = str(Path(__file__).parents[2] / "tools" / "power_cut.py")
SYSTEMS = ["ext4", "xfs", "btrfs"]


def cut(*arguments):
    command = [sys.executable, TOOL, "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip())
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def loops():
    """What is attached to loop devices, and mounted from them."""
    attached = subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    mounted = [
        line for line in Path("/proc/mounts").read_text().splitlines() if "/dev/loop" in line
    ]
    return sorted(attached.splitlines()), mounted


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_was_acknowledged_survives_power_cuts(system):
    if program_of(system) is None:
        pytest.skip(f"there is no mkfs.{system}")
    tally = cut("--system", system, "--cuts", "14")
    assert tally["cuts"] == 14
    assert tally["acknowledged"] > 14
    assert tally["wrong"] == []


def test_a_process_that_does_not_sync_is_found_out():
    assert cut("--cuts", "40", "--bug", "no_sync", "--workload", "roll")["wrong"]


def test_nothing_stays_mounted_after_a_kill():
    before = loops()
    process = subprocess.Popen(
        [sys.executable, TOOL, "--cuts", "10000"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    line = process.stderr.readline()
    if line != b"ready\n":
        process.communicate()
        pytest.skip(line.decode().strip())
    assert loops()[0] != before[0] or wait_for(lambda: loops()[0] != before[0])
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert wait_for(lambda: loops() == before)


def wait_for(is_so):
    deadline_s = time.monotonic() + 30
    while not is_so():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.002)
    return True


@pytest.mark.thorough
@pytest.mark.parametrize("system", SYSTEMS)
def test_hundreds_of_power_cuts(system, capsys):
    if program_of(system) is None:
        pytest.skip(f"there is no mkfs.{system}")
    tally = cut("--system", system, "--cuts", "400", "--seed", "7")
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally["wrong"] == []
