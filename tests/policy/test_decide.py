"""Every acceptance and every refusal, on a log in memory: decide needs nothing else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CommandReusedError,
    ConflictError,
    CreationRefusedError,
    DuplicateIdError,
    IllegalTransitionError,
)
from ckptlog.model.event import IMPORTED
from ckptlog.model.state import TRANSITIONS, CheckpointState, is_legal
from ckptlog.policy.command import Change, Create, Delete, DeleteTask, Moment, Record, Witness
from ckptlog.policy.decide import Decision, Stale, decide
from tests.policy.state_double import NOW, Truth, payloads, reference

ACTIVE, COMPLETED = CheckpointState.ACTIVE, CheckpointState.COMPLETED
FAILED, RESTORED = CheckpointState.FAILED, CheckpointState.RESTORED


@pytest.fixture
def truth() -> Truth:
    return Truth()


def put_into(truth: Truth, state: CheckpointState) -> str:
    """Make a checkpoint in a state."""
    name = truth.create()
    if state is not CheckpointState.CREATED:
        assert truth.change(name, state) is True
    return name


# --- creating -------------------------------------------------------------------------------------


def test_a_create_says_everything(truth):
    command = Create(
        actor="me",
        command="c",
        task="t",
        step=3,
        total=7,
        worker="w",
        parent="never seen",
        namespace="n",
        payloads=payloads("a", "b", new=12, sanitised=2),
    )
    decision = decide(truth, command, NOW)
    assert isinstance(decision, Decision)
    (event,) = decision.events
    assert decision.result == "cp_t_3_1700000000000000"
    assert (event.type, event.state, event.id) == ("checkpoint.created", "created", "c")
    assert (event.step, event.total, event.new, event.sanitised) == (3, 7, 12, 2)
    assert (event.data, event.meta) == (reference("a"), reference("b"))
    assert (event.subject.worker, event.subject.parent) == ("w", "never seen")
    assert (event.subject.task, event.subject.namespace) == ("t", "n")
    assert (event.time, event.created, event.origin, event.previous) == (NOW.iso, "", -1, -1)


def test_a_create_that_is_active_at_once(truth):
    truth.create("other")
    name = truth.create(is_active=True)
    created, updated = truth.events[-2:]
    assert (created.state, updated.state) == ("created", "active")
    assert (updated.origin, updated.previous, updated.created) == (1, 1, created.time)
    assert (updated.id, updated.new, updated.sanitised) == (f"{created.id} ", 0, 0)
    assert truth.living(name).event == updated


def test_generated_ids_are_bumped_past_used_ones(truth):
    names = [truth.create() for _ in range(3)]
    assert names == [f"cp_t_1_{NOW.us + bump}" for bump in range(3)]
    truth.do(Delete(actor="me", command="d", checkpoint=names[2]))
    assert truth.create() == f"cp_t_1_{NOW.us + 3}"


def test_above_every_timestamp_nothing_is_looked_up(truth):
    truth.create()
    truth.asked.clear()
    truth.do(
        Create(actor="me", command="x", task="t", step=1, payloads=payloads()),
        Moment(NOW.us + 1, NOW.iso),
    )
    assert truth.asked == []


def test_a_far_future_id_and_a_clock_gone_back(truth):
    future = f"cp_t_1_{10**17}"
    truth.create(checkpoint=future)
    assert truth.create() == f"cp_t_1_{NOW.us}"
    earlier = Moment(NOW.us - 1, NOW.iso)
    command = Create(actor="me", command="x", task="t", step=1, payloads=payloads())
    assert truth.do(command, earlier) == f"cp_t_1_{NOW.us - 1}"
    again = Create(actor="me", command="y", task="t", step=1, payloads=payloads())
    assert truth.do(again, earlier) == f"cp_t_1_{NOW.us + 1}"


def test_an_explicit_id_is_never_used_twice(truth):
    assert truth.create(checkpoint="mine") == "mine"
    with pytest.raises(DuplicateIdError, match="'mine' is already used"):
        truth.create(checkpoint="mine")
    truth.do(Delete(actor="me", command="d", checkpoint="mine"))
    with pytest.raises(DuplicateIdError, match="not even after a delete"):
        truth.create("other", checkpoint="mine")


def test_a_deleted_parent_is_refused_and_an_unknown_one_is_not(truth):
    parent = truth.create()
    assert truth.create(parent=parent)
    truth.do(Delete(actor="me", command="d", checkpoint=parent))
    with pytest.raises(CreationRefusedError, match=f"'{parent}' was deleted") as caught:
        truth.create(parent=parent)
    assert caught.value.context["parent_checkpoint_id"] == parent
    assert truth.create(parent="elsewhere")


# --- changing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"), [*itertools.product(CheckpointState, CheckpointState)], ids=str
)
def test_every_transition(truth, before, after):
    name = put_into(truth, before)
    written = len(truth.events)
    if after in TRANSITIONS[before]:
        assert truth.change(name, after, payloads=payloads("c", "d")) is True
        assert truth.events[-1].state == after.value
        return
    with pytest.raises(IllegalTransitionError) as caught:
        truth.change(name, after, payloads=payloads("c", "d"))
    assert len(truth.events) == written
    error = caught.value
    assert f"is {before.value} and cannot become {after.value}" in error.message
    assert all(state.value in error.hint for state in TRANSITIONS[before])
    assert error.context == {
        "checkpoint_id": name,
        "state": before.value,
        "target": after.value,
    }


@pytest.mark.parametrize("state", [COMPLETED, FAILED])
def test_ended_ones_say_what_to_do(truth, state):
    with pytest.raises(IllegalTransitionError, match="Restore it first"):
        truth.change(put_into(truth, state), ACTIVE)


def test_without_a_state_a_change_makes_active(truth):
    name = put_into(truth, RESTORED)
    truth.change(name)
    assert truth.events[-1].state == "active"


def test_a_change_keeps_what_it_does_not_name(truth):
    name = truth.create(step=2, total=5, worker="w", namespace="n", parent="p")
    first = truth.events[-1]
    truth.change(name, payloads=payloads("c", None))
    second = truth.events[-1]
    assert (second.data, second.meta) == (reference("c"), first.meta)
    assert (second.step, second.total, second.subject) == (2, 5, first.subject)
    truth.change(name, step=1, total=4)
    third = truth.events[-1]
    assert (third.data, third.step, third.total) == (second.data, 1, 4)
    assert (third.origin, third.previous, third.created) == (0, 1, first.time)


@pytest.mark.parametrize("state", [COMPLETED, FAILED])
def test_ending_again_with_nothing_new(truth, state):
    name = put_into(truth, state)
    written = len(truth.events)
    assert truth.change(name, state) is True
    assert truth.change(name, state, payloads=payloads("a", "b")) is True
    assert truth.change(name, state, step=1, total=0) is True
    assert len(truth.events) == written
    for news in (
        {"payloads": payloads("z", None)},
        {"payloads": payloads(None, "z")},
        {"step": 9},
        {"total": 9},
    ):
        with pytest.raises(IllegalTransitionError):
            truth.change(name, state, **news)


def test_a_stale_change_is_prepared_again(truth):
    name = truth.create()
    truth.change(name)
    answer = truth.change(name, based_on=0, payloads=payloads("c", None))
    assert isinstance(answer, Stale)
    assert "came first" in answer.why
    assert truth.change(name, based_on=1, payloads=payloads("c", None)) is True


def test_whether_a_stale_change_repeats_is_not_guessed(truth):
    """The same end, prepared before another change: only a new look can tell what it would be."""
    name = truth.create()
    truth.change(name, payloads=payloads("c", None))
    truth.change(name, COMPLETED)
    assert isinstance(truth.change(name, COMPLETED, based_on=0, payloads=payloads("x")), Stale)
    with pytest.raises(IllegalTransitionError):
        truth.change(name, FAILED, based_on=0, payloads=payloads("x"))


@pytest.mark.parametrize("command", [Change, Delete])
def test_expected(truth, command):
    name = truth.create()
    truth.change(name)
    with pytest.raises(ConflictError, match="at position 1; 0 was expected") as caught:
        truth.do(command(actor="me", command="x", checkpoint=name, expected=0))
    assert (caught.value.context["position"], caught.value.context["expected"]) == (1, 0)
    assert truth.do(command(actor="me", command="x", checkpoint=name, expected=1)) is True


@pytest.mark.parametrize("command", [Change, Delete])
def test_what_never_was(truth, command):
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint 'nobody'"):
        truth.do(command(actor="me", command="x", checkpoint="nobody"))


# --- deleting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", CheckpointState, ids=str)
def test_delete_is_legal_from_every_state(truth, state):
    name = put_into(truth, state)
    assert truth.do(Delete(actor="me", command="d", checkpoint=name, cause="k")) is True
    event = truth.events[-1]
    assert (event.type, event.state, event.cause) == ("checkpoint.deleted", state.value, "k")
    assert event.previous == truth.position - 2
    assert truth.do(Delete(actor="me", command="e", checkpoint=name)) is False
    for late in (ACTIVE, COMPLETED, FAILED, RESTORED):
        with pytest.raises(CheckpointNotFoundError):
            truth.change(name, late)


def test_a_task_is_deleted_and_begins_anew(truth):
    old = truth.create()
    other = truth.create("other")
    assert (
        truth.do(DeleteTask(actor="me", command="d", task="t", based_on=truth.position, count=1))
        == 1
    )
    assert truth.events[-1].facts == {"checkpoints": 1}
    with pytest.raises(CheckpointNotFoundError):
        truth.change(old)
    new = truth.create()
    assert new != old
    assert truth.change(new) is True
    assert truth.change(other) is True


def test_a_record(truth):
    facts: dict[str, int | str] = {"b": 1, "a": "x"}
    assert truth.do(Record(actor="me", command="r", type=IMPORTED, facts=facts, task="t")) is True
    event = truth.events[-1]
    assert (event.type, event.subject.task) == (IMPORTED, "t")
    assert list(event.facts) == ["a", "b"]


# --- witnesses ------------------------------------------------------------------------------------


def relying(checkpoint: str, letter: str):
    return payloads("c", "d", witnesses=(Witness(checkpoint, reference(letter).root),))


def test_a_witness_must_still_hold_what_is_relied_on(truth):
    old = truth.create()
    assert truth.create(payloads=relying(old, "a"))
    assert truth.create(payloads=relying(old, "b"))  # the root of its meta
    truth.change(old, payloads=payloads("x", None))
    answer = truth.do(Create(actor="me", command="n", task="t", step=1, payloads=relying(old, "a")))
    assert isinstance(answer, Stale)
    assert old in answer.why
    assert truth.create(payloads=relying(old, "b"))


def test_a_deleted_or_unknown_witness(truth):
    old, own = truth.create(), truth.create()
    truth.do(Delete(actor="me", command="d", checkpoint=old))
    for name in (old, "never"):
        assert isinstance(truth.change(own, payloads=relying(name, "a")), Stale)
    truth.do(DeleteTask(actor="me", command="e", task="t", based_on=truth.position))
    new = Create(actor="me", command="n", task="t", step=1, payloads=relying(own, "a"))
    assert isinstance(truth.do(new), Stale)


def test_a_task_deletion_that_counted_too_early_is_stale(truth):
    truth.create()
    early = DeleteTask(actor="me", command="d", task="t", based_on=truth.position, count=1)
    truth.create()
    assert isinstance(truth.do(early), Stale)
    other = DeleteTask(actor="me", command="e", task="another", based_on=0)
    assert truth.do(other) == 0


# --- command ids ----------------------------------------------------------------------------------


def given_id(kind, **options):
    return kind(actor="me", command="id", fingerprint="f" * 32, **options)


def test_a_retry_gets_the_first_answer(truth):
    create = given_id(Create, task="t", step=1, payloads=payloads())
    name = truth.do(create)
    truth.create()
    assert truth.do(create) == name
    truth.do(Delete(actor="me", command="d", checkpoint=name))
    assert truth.do(create) == name
    assert truth.position == 3


@pytest.mark.parametrize("kind", [Change, Delete])
def test_a_retry_comes_before_every_other_check(truth, kind):
    name = truth.create()
    command = given_id(kind, checkpoint=name, expected=0)
    assert truth.do(command) is True
    if kind is Change:
        truth.change(name, COMPLETED)
        truth.do(Delete(actor="me", command="d", checkpoint=name))
    position = truth.position
    assert truth.do(command) is True
    assert truth.position == position


def test_a_retried_task_deletion_tells_the_first_count(truth):
    truth.create()
    command = given_id(DeleteTask, based_on=1, task="t", count=1)
    assert truth.do(command) == 1
    again = given_id(DeleteTask, based_on=0, task="t", count=0)
    assert truth.do(again) == 1
    assert truth.position == 2


def test_the_same_id_for_something_else(truth):
    name, other = truth.create(), truth.create()
    truth.do(given_id(Change, checkpoint=name))
    wrong = [
        Change(actor="me", command="id", fingerprint="0" * 32, checkpoint=name),
        given_id(Change, checkpoint=other),
        given_id(Delete, checkpoint=other),
        given_id(Create, task="t", step=1, payloads=payloads()),
        given_id(DeleteTask, based_on=0, task="t2"),
    ]
    for command in wrong:
        with pytest.raises(CommandReusedError, match="'id' was already used") as caught:
            truth.do(command)
        assert caught.value.context == {"command_id": "id", "checkpoint_id": name}
    assert truth.position == 3


# --- legality, hunted -----------------------------------------------------------------------------

TARGETS = st.none() | st.sampled_from(CheckpointState)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "change", "delete", "delete_task"]),
        st.integers(0, 3),
        TARGETS,
        st.sampled_from("abc"),
    ),
    max_size=30,
)


@given(STEPS)
def test_no_sequence_of_commands_writes_an_illegal_history(steps):
    """Whatever is asked, in whatever order: each prefix of each checkpoint's events is legal."""
    truth = Truth()
    names: list[str] = []
    for kind, which, target, letter in steps:
        name = names[which % len(names)] if names else "nobody"
        try:
            if kind == "create":
                names.append(truth.create(payloads=payloads(letter), is_active=bool(which % 2)))
            elif kind == "change":
                truth.change(name, target, payloads=payloads(letter, None))
            elif kind == "delete":
                truth.do(Delete(actor="me", command=truth.new_id(), checkpoint=name))
            else:
                truth.do(
                    DeleteTask(
                        actor="me", command=truth.new_id(), task="t", based_on=truth.position
                    )
                )
        except CheckpointError:
            continue
    check_histories(truth)


def check_histories(truth: Truth) -> None:
    states: dict[str, str | None] = {}
    last: dict[str, int] = {}
    for position, event in enumerate(truth.events):
        name = event.subject.checkpoint
        if event.type == "task.deleted":
            states = dict.fromkeys(states, "over")
        elif event.type == "checkpoint.deleted":
            assert states[name] != "over"
            states[name] = "over"
        else:
            assert states.get(name) != "over"
            assert is_legal(states.get(name), event.state)
            assert event.previous == last.get(name, -1)
            states[name] = event.state
            last[name] = position
