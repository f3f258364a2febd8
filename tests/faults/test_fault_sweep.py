"""A fault at the system calls of every workload: a sample, and all of them with --thorough."""

from __future__ import annotations

import pytest

from tools.crash.workload import WORKLOADS
from tools.fault_sweep import FAULTS, sweep

pytestmark = pytest.mark.strace


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_some_calls(fault):
    tally = sweep(["commit", "cleanup-command", "compact"], [fault], stride=61, seed=7, jobs=1)
    assert tally.points
    assert not tally.wrong
    assert tally.told["killed"] == (tally.points if fault == "kill" else 0)


@pytest.mark.thorough
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_fault_at_every_call(workload, capsys):
    tally = sweep([workload], FAULTS)
    with capsys.disabled():
        print(f"\n{tally}")
    assert not tally.wrong
