"""Episodes of several simulated processes, drawn by Hypothesis; old ones replayed; bugs planted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog import CheckpointManager
from ckptlog.manager.draft import Drafter
from tools.crash.bug import BUGS
from tools.crash.scenario import ACTS, CALLS, FAULTS, Scenario
from tools.crash.simulation import simulate

SEEDS = [
    line
    for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
PLANTED = dict(
    line.split(" ", 1)
    for line in (Path(__file__).parent / "planted.txt").read_text().splitlines()
    if not line.startswith("#")
)

scripts = st.lists(st.sampled_from(sorted(set(ACTS))), min_size=1, max_size=8).map(tuple)
calls = st.sampled_from(["", *sorted(set(CALLS))])
faults = st.lists(
    st.tuples(st.integers(1, 400), st.sampled_from(sorted(set(FAULTS))), calls).map(
        lambda fault: (fault[0], f"{fault[1]} {fault[2]}".strip())
    ),
    max_size=5,
)
scenarios = st.builds(
    Scenario,
    st.integers(0, 2**32),
    st.lists(scripts, min_size=1, max_size=3).map(tuple),
    faults.map(lambda some: tuple(sorted(some))),
)


@settings(max_examples=10)
@given(scenarios)
def test_an_episode(scenario):
    assert simulate(scenario).wrong == ""


@pytest.mark.thorough
@pytest.mark.timeout(36_000)
@settings(max_examples=3000)
@given(scenarios)
def test_many_episodes(scenario):
    assert simulate(scenario).wrong == ""


@pytest.mark.parametrize("line", SEEDS)
def test_an_episode_that_was_wrong_once(line):
    assert simulate(Scenario.of(line)).wrong == ""


def test_an_episode_is_the_same_each_time():
    first, second = (simulate(Scenario.drawn(11)) for _ in range(2))
    assert (first.turns, first.struck, first.acts) == (second.turns, second.struck, second.acts)
    assert first.turns > 50


def test_a_scenario_is_read_as_it_is_written():
    for number in range(20):
        scenario = Scenario.drawn(number)
        assert Scenario.of(str(scenario)) == scenario


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug):
    scenario = Scenario.of(PLANTED[bug])
    assert simulate(scenario, bug=bug).wrong
    assert simulate(scenario).wrong == ""


def test_a_change_that_did_not_find_its_checkpoint_is_not_half_done(tmp_path, monkeypatch):
    """Another process makes the checkpoint after it was looked for, and before the lock."""
    with CheckpointManager(tmp_path / "store") as one, CheckpointManager(tmp_path / "store") as two:
        late = Drafter.late

        def created_meanwhile(self, request):
            one.create_checkpoint("task", "title", 1, data={"value": 1}, checkpoint_id="c")
            return late(self, request)

        monkeypatch.setattr(Drafter, "late", created_meanwhile)
        assert two.complete_checkpoint("c", final_data={"value": 2}, command_id="id")
        found = two.get_checkpoint("c")
        assert (found.state.value, found.data) == ("completed", {"value": 2})
