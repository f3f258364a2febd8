"""Policies as they are written: what is understood, and the name of the key that is wrong."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given

from ckptlog import CheckpointState
from ckptlog.errors import ArgumentError
from ckptlog.policy.retention import Best, Policy, Rule
from ckptlog.policy.retention_form import TEXT_BYTES_MAX, best_of, form_of, policy_of, text_of
from tests.policy.test_retention import POLICIES


def test_one_rule_and_several():
    short = policy_of({"keep_last": 5, "tasks": "x*", "keep_best": "loss:min:3"})
    (rule,) = short.rules
    assert rule == Rule(tasks=("x*",), keep_last=5, keep_best=(Best("loss", "min", 3),))
    assert short == policy_of({"rules": [form_of(short)["rules"][0]]})
    several = tomllib.loads(
        'keep_pinned = false\n[[rules]]\ntasks = ["a", "b*"]\nkeep_days = 1.5\n'
        '[[rules]]\nkeep_states = ["failed"]\n[[rules.keep_best]]\nmetric = "f1"\norder = "max"\n'
    )
    policy = policy_of(several)
    assert policy.rules[0] == Rule(tasks=("a", "b*"), keep_days=1.5)
    assert policy.rules[1].keep_best == (Best("f1", "max", 1),)
    assert (policy.keep_pinned, policy.keep_recovery_points) == (False, True)
    assert policy_of({"keep_states": CheckpointState.FAILED}).rules[0].keep_states == ("failed",)
    assert policy_of({"keep_last": 0}).rules[0].keep_last == 0


WRONG = [
    (None, "retention"),
    ([], "retention"),
    ({}, "retention"),
    ({"tasks": ["x"]}, "retention"),
    ({"rules": []}, "rules"),
    ({"rules": {}}, "rules"),
    ({"rules": [{"keep_last": 1}, 3]}, "rules[1]"),
    ({"rules": [{"keep_last": 1}, {}]}, "rules[1]"),
    ({"rules": [{"keep_last": 1, "kep_days": 1}]}, "rules[0].kep_days"),
    ({"rules": [{"keep_last": 1}], "keep_last": 1}, "keep_last"),
    ({"keep_lst": 1}, "keep_lst"),
    ({"keep_last": -1}, "keep_last"),
    ({"keep_last": True}, "keep_last"),
    ({"keep_last": 1.0}, "keep_last"),
    ({"keep_last": 10**400}, "keep_last"),
    ({"keep_every": 0}, "keep_every"),
    ({"keep_days": -0.1}, "keep_days"),
    ({"keep_days": float("nan")}, "keep_days"),
    ({"keep_days": 10**400}, "keep_days"),
    ({"keep_days": "3"}, "keep_days"),
    ({"keep_states": []}, "keep_states"),
    ({"keep_states": ["failed", "gone"]}, "keep_states[1]"),
    ({"keep_states": [["failed"]]}, "keep_states[0]"),
    ({"keep_best": []}, "keep_best"),
    ({"keep_best": ["loss"]}, "keep_best[0]"),
    ({"keep_best": "loss:up"}, "keep_best[0]"),
    ({"keep_best": {"metric": "loss", "order": "min", "k": 1}}, "keep_best[0].k"),
    ({"keep_best": {"metric": "", "order": "min"}}, "keep_best[0].metric"),
    ({"keep_best": {"metric": "a", "order": "down"}}, "keep_best[0].order"),
    ({"keep_best": {"metric": "a", "order": "max", "n": 0}}, "keep_best[0].n"),
    ({"keep_last": 1, "tasks": []}, "tasks"),
    ({"keep_last": 1, "tasks": ["a", 3]}, "tasks[1]"),
    ({"keep_last": 1, "tasks": ["\ud800"]}, "tasks[0]"),
    ({"keep_last": 1, "except_tasks": ["", "a"]}, "except_tasks[0]"),
    ({"keep_last": 1, "keep_pinned": 0}, "keep_pinned"),
    ({"keep_last": 1, "keep_recovery_points": None}, "keep_recovery_points"),
    ({3: 1}, "retention"),
    ({"keep_last": 1, "tasks": ["x" * TEXT_BYTES_MAX]}, "retention"),
    (Policy(rules=(Rule(),)), "rules[0]"),
]


@pytest.mark.parametrize(("given_", "argument"), WRONG)
def test_what_is_wrong_is_named(given_, argument):
    with pytest.raises(ArgumentError) as caught:
        policy_of(given_)
    assert caught.value.context["argument"] == argument
    assert argument in caught.value.message or argument == "retention"


def test_a_slip_of_the_pen_is_recognised():
    with pytest.raises(ArgumentError) as caught:
        policy_of({"keep_bset": "loss:min"})
    assert "keep_best" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("loss:min", ("loss", "min", 1)),
        ("loss:max:3", ("loss", "max", 3)),
        ("a:b:min:10", ("a:b", "min", 10)),
        ("a:7:max", ("a:7", "max", 1)),
    ],
)
def test_best_as_text(text, found):
    assert tuple(best_of(text)[key] for key in ("metric", "order", "n")) == found


@pytest.mark.parametrize("text", ["", "min", ":min", "loss", "loss:3", "loss:min:x", "loss:MIN"])
def test_best_as_text_that_says_nothing(text):
    with pytest.raises(ArgumentError):
        best_of(text)


@given(POLICIES)
def test_forms_lead_back(policy):
    if any(form.keys() <= {"tasks"} for form in form_of(policy)["rules"]):
        with pytest.raises(ArgumentError):
            policy_of(policy)
        return
    again = policy_of(json.loads(text_of(policy)))
    assert again == policy
    assert text_of(again) == text_of(policy)
