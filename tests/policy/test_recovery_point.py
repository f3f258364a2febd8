"""The choice of a recovery point, over every mix of states and faults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.model.state import CheckpointState
from ckptlog.policy.recovery_point import Candidate, choose


def candidates(*words: str) -> list[Candidate]:
    """Newest first; a word is a state, with "!" behind it for one that does not verify."""
    return [
        Candidate(
            f"{len(words) - place}",
            word.rstrip("!"),
            len(words) - place,
            "chunk ab is gone" if word.endswith("!") else None,
        )
        for place, word in enumerate(words)
    ]


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], None),
        (["completed"], "1"),
        (["active", "completed"], "2"),
        (["created", "active", "completed"], "3"),
        (["restored", "failed"], "2"),
        (["failed", "completed"], "1"),
        (["failed", "active!", "completed"], "1"),
        (["active!", "completed!", "created"], "1"),
        (["failed", "failed"], "2"),
        (["failed!", "failed"], "1"),
        (["failed", "active!"], "2"),
        (["active!", "failed!"], None),
    ],
)
def test_the_choice(words, chosen):
    assert choose(candidates(*words)).chosen == chosen


def test_the_reasons():
    choice = choose(candidates("failed", "active!", "completed", "completed"))
    assert choice.chosen == "2"
    assert choice.reason == "the latest completed checkpoint whose data verifies"
    assert [reason for _, reason in choice.candidates] == [
        "it failed; only taken if nothing else is left",
        "its bytes do not verify: chunk ab is gone",
        "chosen: the latest completed checkpoint whose data verifies",
    ]
    assert choose([]).reason == "the task has no checkpoint"
    assert choose(candidates("active!")).reason == "no checkpoint of the task verifies"
    assert "nothing else is left" in choose(candidates("failed")).reason


def test_no_more_is_looked_at_than_needed():
    """Verifying reads whole payloads: what stands behind the choice is not read."""
    seen = []

    def newest_first():
        for candidate in candidates("failed", "active", "completed"):
            seen.append(candidate.checkpoint)
            yield candidate

    assert choose(newest_first()).chosen == "2"
    assert seen == ["3", "2"]


@given(
    st.lists(st.tuples(st.sampled_from([state.value for state in CheckpointState]), st.booleans()))
)
def test_against_the_rule_in_one_line(pairs):
    given_ = candidates(*(state + "!" * is_bad for state, is_bad in pairs))
    good = [one for one in given_ if one.fault is None]
    best = [one for one in good if one.state != "failed"] or good
    assert choose(given_).chosen == (best[0].checkpoint if best else None)
