"""Rules over facts, against a brute-force reading of what each rule says."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ckptlog.policy import retention
from ckptlog.policy.retention import GOES, HEAD, PINNED, Best, Fact, Policy, Rule

NOW = datetime(2026, 1, 31, tzinfo=UTC)
STATES = ("created", "active", "completed", "failed", "restored")


def ago(days):
    return (NOW - timedelta(days=days)).isoformat()


def fact(origin, **fields):
    given = {
        "id": f"c{origin}",
        "order": ("", origin),
        "state": "active",
        "step": origin + 1,
        "total": 0,
        "updated": ago(10),
        **fields,
    }
    return Fact(**given)


def stays(policy, facts, task="t"):
    why = retention.reasons(policy, policy.rules_for(task), facts, ago)
    return {one.id for one, reason in zip(facts, why, strict=True) if reason != GOES}


def one_rule(**fields):
    return Policy(rules=(Rule(**fields),))


def test_each_rule_alone():
    facts = [fact(n) for n in range(10)]
    assert stays(one_rule(keep_last=3), facts) == {"c7", "c8", "c9"}
    assert stays(one_rule(keep_last=0), facts) == set()
    assert stays(one_rule(keep_last=100), facts) == {one.id for one in facts}
    assert stays(one_rule(keep_every=4), facts) == {"c3", "c7"}
    aged = [fact(n, updated=ago(n)) for n in range(5)]
    assert stays(one_rule(keep_days=2), aged) == {"c0", "c1", "c2"}
    mixed = [fact(n, state=state) for n, state in enumerate(STATES)]
    assert stays(one_rule(keep_states=("failed", "created")), mixed) == {"c0", "c3"}
    valued = [fact(n, metrics={"loss": value}) for n, value in enumerate((3.0, 1.0, 2.0, 1.0))]
    assert stays(one_rule(keep_best=(Best("loss", "min", 1),)), valued) == {"c3"}  # the newer
    assert stays(one_rule(keep_best=(Best("loss", "max", 2),)), valued) == {"c0", "c2"}


def test_what_is_no_number_is_never_best():
    facts = [
        fact(0),
        fact(1, metrics={"loss": float("nan")}),
        fact(2, metrics={"loss": float("inf")}),
        fact(3, metrics={"gain": 1.0}),
    ]
    assert stays(one_rule(keep_best=(Best("loss", "min", 5),)), facts) == {"c2"}


def test_rules_add_up_and_patterns_choose():
    policy = Policy(
        rules=(
            Rule(tasks=("train-*", "eval"), except_tasks=("train-old",), keep_last=1),
            Rule(tasks=("train-[ab]",), keep_every=5),
        )
    )
    facts = [fact(n) for n in range(10)]
    assert stays(policy, facts, "train-a") == {"c4", "c9"}
    assert stays(policy, facts, "train-x") == {"c9"}
    assert policy.rules_for("train-old") == ()
    assert policy.rules_for("Train-a") == ()  # case matters
    assert policy.rules_for("evaluation") == ()


def test_each_namespace_counts_by_itself():
    facts = [fact(n, namespace="ab"[n % 2]) for n in range(6)]
    assert stays(one_rule(keep_last=1), facts) == {"c4", "c5"}


def test_guards():
    pinned = fact(0, is_pinned=True)
    policy = one_rule(keep_last=0)
    assert retention.reasons(policy, policy.rules, [pinned], ago) == [PINNED]
    assert stays(Policy(rules=policy.rules, keep_pinned=False), [pinned]) == set()
    assert stays(policy, [fact(0, is_whole=False), fact(1, is_read=False), fact(2)]) == {"c0", "c1"}
    # The newest of a thread is that of the greatest rank, not the one that came last.
    thread = [fact(0, order=("1f-b", 0)), fact(1, order=("1f-a", 1))]
    assert retention.reasons(policy, policy.rules, thread, ago) == [HEAD, GOES]
    free = Policy(rules=policy.rules, keep_recovery_points=False)
    assert stays(free, thread) == set()
    assert stays(one_rule(keep_last=1), thread) == {"c0"}


def test_what_a_task_resumes_from():
    done = fact(3, state="completed", step=4, total=4)
    assert retention.is_finished([fact(0), done])
    assert not retention.is_finished([fact(0), fact(3, state="completed", step=3, total=4)])
    assert not retention.is_finished([done, fact(4)])
    assert retention.is_finished([fact(1, state="completed", total=0)])
    assert retention.is_finished([])
    facts = [fact(0, state="failed"), fact(1), fact(2, state="failed"), fact(3, state="restored")]
    assert [one.id for one in retention.resume_order(facts)] == ["c3", "c1", "c2", "c0"]


# --- against brute force -----------------------------------------------------------------------

VALUES = st.one_of(st.integers(0, 4).map(float), st.sampled_from((float("nan"), float("inf"))))
FACTS = st.lists(
    st.fixed_dictionaries(
        {
            "state": st.sampled_from(STATES),
            "step": st.integers(1, 12),
            "updated": st.integers(0, 20).map(ago),
            "namespace": st.sampled_from(("", "n")),
            "metrics": st.dictionaries(st.sampled_from(("loss", "gain")), VALUES),
            "is_pinned": st.booleans(),
            "rank": st.sampled_from(("", "", "1", "2", "3")),
        }
    ),
    max_size=9,
)
BESTS = st.builds(
    Best, st.sampled_from(("loss", "gain")), st.sampled_from(("min", "max")), st.integers(1, 3)
)
RULES = st.builds(
    Rule,
    keep_last=st.none() | st.integers(0, 4),
    keep_every=st.none() | st.integers(1, 5),
    keep_days=st.none() | st.integers(0, 20),
    keep_states=st.lists(st.sampled_from(STATES), max_size=2, unique=True).map(tuple),
    keep_best=st.lists(BESTS, max_size=2).map(tuple),
)
POLICIES = st.builds(
    Policy,
    rules=st.lists(RULES, min_size=1, max_size=3).map(tuple),
    keep_recovery_points=st.booleans(),
    keep_pinned=st.booleans(),
)


def beats(best, one, other):
    """Say whether one is better than other, or as good and newer."""
    ours, theirs = one.metrics.get(best.metric), other.metrics.get(best.metric)
    if ours is None or math.isnan(ours) or theirs is None:
        return False
    if ours == theirs:
        return one.order > other.order
    return ours < theirs if best.order == "min" else ours > theirs


def brute(policy, facts):
    """Return what stays, from what each rule says in words."""
    found = set()
    for one in facts:
        others = [other for other in facts if other.namespace == one.namespace]
        newer = sum(other.order > one.order for other in others)
        keeps = [one.is_pinned and policy.keep_pinned]
        keeps.append(policy.keep_recovery_points and one.order[0] != "" and newer == 0)
        for rule in policy.rules:
            keeps.append(rule.keep_last is not None and newer < rule.keep_last)
            keeps.append(rule.keep_every is not None and one.step % rule.keep_every == 0)
            keeps.append(rule.keep_days is not None and one.updated >= ago(rule.keep_days))
            keeps.append(one.state in rule.keep_states)
            for best in rule.keep_best:
                value = one.metrics.get(best.metric)
                is_value = value is not None and not math.isnan(value)
                better = sum(beats(best, other, one) for other in others)
                keeps.append(is_value and better < best.n)
        if any(keeps):
            found.add(one.id)
    return found


@given(POLICIES, FACTS)
def test_the_same_as_by_brute_force_and_asking_again_changes_nothing(policy, drawn):
    facts = [
        fact(number, order=(fields.pop("rank"), number), **fields)
        for number, fields in enumerate(dict(one) for one in drawn)
    ]
    kept = stays(policy, facts)
    assert kept == brute(policy, facts)
    left = [one for one in facts if one.id in kept]
    assert stays(policy, left) == kept
    assert stays(policy, facts[::-1]) == kept  # the order they come in says nothing
