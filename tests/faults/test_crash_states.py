"""What crashes of real processes leave: a sample of the enumeration, and bugs that it must find."""

from __future__ import annotations

import pytest

from tools.crash.workload import ACTS, PHASES, WORKLOADS, phase_of
from tools.crash_states import RECOVER, RECOVERING, Draw, explore

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


def test_every_act_is_of_one_phase_and_every_phase_is_crashed():
    named = [act for acts in PHASES.values() for act in acts]
    assert sorted(named) == sorted(["", *ACTS])
    done = {phase_of(act) for acts in WORKLOADS.values() for act in acts.split()}
    assert done == set(PHASES)


@pytest.mark.thorough
@pytest.mark.timeout(14_400)
def test_ten_thousand_crash_states(capsys):
    tally = explore(EVERY_WORKLOAD, Draw(), jobs=2)
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally.states >= 10_000
    assert set(tally.phases) == {*PHASES, RECOVERING}
    assert tally.phases.total() - tally.phases[RECOVERING] >= 10_000
    assert min(tally.phases.values()) >= 1_000
    assert not tally.faults
