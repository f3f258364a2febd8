"""What crashes of real processes leave: a sample of the enumeration, and bugs that it must find."""

from __future__ import annotations

import pytest

from tools.crash.workload import WORKLOADS
from tools.crash_states import RECOVER, Draw, explore

pytestmark = pytest.mark.strace

EVERY_WORKLOAD = ["prepare", *WORKLOADS, RECOVER]
# Found in the states of a few workloads; the simulation finds the others (test_simulation).
BUGS = [("no_sync", "commit"), ("no_folder_sync", "packs"), ("early_pack_name", "packs")]


@pytest.mark.parametrize("workload", EVERY_WORKLOAD)
def test_a_sample_of_crash_states(workload):
    stride = 20 if workload == RECOVER else 9
    tally = explore([workload], Draw(each=1, stride=stride, seed=1))
    assert tally.states > 5
    assert not tally.faults


@pytest.mark.parametrize(("bug", "workload"), BUGS)
def test_a_planted_bug_is_found(bug, workload):
    assert explore([workload], Draw(each=2, stride=4), bug=bug).faults


@pytest.mark.thorough
@pytest.mark.timeout(7200)
def test_ten_thousand_crash_states(capsys):
    tally = explore(EVERY_WORKLOAD, Draw(), jobs=2)
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally.states >= 10_000
    assert not tally.faults
