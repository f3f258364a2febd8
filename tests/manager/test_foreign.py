"""Arguments of the wrong type, or far out of every range, end in one of our errors."""

from __future__ import annotations

import pytest

import ckptlog
from ckptlog import (
    ArgumentError,
    CheckpointConfiguration,
    CheckpointData,
    CheckpointManager,
    CheckpointState,
    SettingsError,
    TaskCheckpointWrapper,
)
from ckptlog.model.configuration import FIELDS

HUGE = 10**5000


def str_of(value):
    return "object" if type(value) is object else repr(value)


@pytest.fixture
def name(manager):
    return manager.create_checkpoint("t", "T", 1, data={"kept": 1})


def refused(call, words):
    with pytest.raises(ckptlog.CheckpointError, match=words) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 500


class TestAnIntThatPythonWillNotWrite:
    @pytest.mark.parametrize("number", [HUGE, -HUGE], ids=["huge", "minus huge"])
    def test_steps(self, manager, name, number):
        wrapper = TaskCheckpointWrapper(manager, "t", "T")
        for call, argument in (
            (lambda: manager.create_checkpoint("t", "T", number), "step_number"),
            (lambda: manager.create_checkpoint("t", "T", 1, "", number), "total_steps"),
            (lambda: manager.update_checkpoint(name, number), "step_number"),
            (lambda: manager.update_checkpoint(name, total_steps=number), "total_steps"),
            (lambda: wrapper.set_total_steps(number), "total_steps"),
        ):
            refused(call, f"^{argument} is an int of more than")
        with manager.batch() as batch:
            refused(lambda: batch.create_checkpoint("t", "T", number), "^step_number is an int of")

    @pytest.mark.parametrize("number", [HUGE, -HUGE], ids=["huge", "minus huge"])
    def test_expected(self, manager, name, number):
        for call in (
            lambda: manager.update_checkpoint(name, expected=number),
            lambda: manager.complete_checkpoint(name, expected=number),
            lambda: manager.fail_checkpoint(name, expected=number),
            lambda: manager.restore_checkpoint(name, expected=number),
            lambda: manager.delete_checkpoint(name, expected=number),
        ):
            refused(call, "^expected is an int of more than")
        assert manager.get_checkpoint(name).data == {"kept": 1}

    def test_limits_and_ages(self, manager, name):
        assert [one.checkpoint_id for one in manager.iterate(limit=HUGE)] == [name]
        refused(lambda: manager.iterate(limit=-HUGE), "^limit is an int of more than")
        refused(lambda: manager.cleanup_old_checkpoints(HUGE), "^max_age_days is an int of more")
        refused(lambda: manager.cleanup_old_checkpoints(-HUGE), "^max_age_days is an int of more")
        found = manager.get_checkpoint(name)
        assert not found.is_stale(HUGE)
        refused(lambda: found.is_stale(-HUGE), "^max_age_hours is an int of more")

    def test_positions(self, manager, store, name):
        assert manager.get_checkpoint_at(name, HUGE).checkpoint_id == name
        assert manager.get_checkpoint_at(name, -HUGE) is None
        assert store.event_at(HUGE) is None
        assert list(store.events(HUGE)) == []
        assert len(list(store.events(0, HUGE))) == 1
        refused(lambda: store.events(-HUGE), "no range")
        refused(lambda: store.event_at(-HUGE), "no range")

    @pytest.mark.parametrize("setting", sorted(FIELDS))
    def test_settings(self, setting):
        for value in (HUGE, -HUGE, [HUGE]):
            refused(lambda value=value: CheckpointConfiguration(**{setting: value}), setting)
        refused(
            lambda: (
                CheckpointConfiguration.from_env({f"CKPTLOG_{setting.upper()}": "9" * 5000})
                if setting.endswith(("_s", "_mb", "level", "sanitise"))
                else CheckpointConfiguration.from_dict({HUGE: 1})
            ),
            "is|no setting",
        )

    @pytest.mark.parametrize(
        "option",
        ["durability", "interval_s", "timeout_s", "queue_max", "cache_bytes", "compression_level"],
    )
    def test_opening(self, tmp_path, option):
        refused(lambda: ckptlog.open(tmp_path / "a", create=True, **{option: -HUGE}), option)
        assert not (tmp_path / "a").exists()
        refused(lambda: ckptlog.open(tmp_path / "a", create=True, **{option: [HUGE]}), option)
        if option not in {"queue_max", "cache_bytes"}:  # these may be as large as one likes
            words = "level|" + option
            refused(lambda: ckptlog.open(tmp_path / "a", create=True, **{option: HUGE}), words)

    def test_paths_and_levels(self, tmp_path, store):
        refused(lambda: ckptlog.open(HUGE), "is not a path")
        refused(lambda: CheckpointManager(HUGE), "^storage_dir is an int")
        refused(lambda: CheckpointManager(HUGE, store=store), "^storage_dir is an int")
        refused(lambda: CheckpointManager(5, store=store), "^storage_dir is 5")
        refused(lambda: store.verify(HUGE), "There is no level an int")

    def test_a_checkpoint(self, manager, name):
        found = manager.get_checkpoint(name)
        found.step_number = found.total_steps = -HUGE
        found.state = HUGE
        assert len(found.validate()) == 3
        fields = manager.get_checkpoint(name).to_dict()
        for field, words in (("state", "^state is"), ("created_at", "^created_at is")):
            refused(
                lambda field=field: CheckpointData.from_dict({**fields, field: HUGE}),
                f"{words} an int of more than",
            )
        refused(lambda: CheckpointData.from_dict({**fields, HUGE: 1}), "no field an int")


class TestStates:
    def test_a_state_by_its_text(self):
        for state in CheckpointState:
            expected = CheckpointState.valid_transitions(state)
            assert CheckpointState.valid_transitions(state.value) == expected

    @pytest.mark.parametrize(
        "state", ["ACTIVE", "", None, 1, [], HUGE, CheckpointState], ids=range(7)
    )
    def test_what_is_no_state(self, manager, state):
        hint = "The states are: created, active, completed, failed, restored"
        refused(lambda: CheckpointState.valid_transitions(state), hint)
        refused(lambda: manager.get_checkpoints_by_state(state), hint)


ODD = ["x", b"1", [], {}, 1.0, True, object()]


@pytest.mark.parametrize("odd", [None, *ODD], ids=str_of)
def test_positions_of_a_store(store, name, odd):
    if odd is not None:
        refused(lambda: store.events(0, odd), "^end is .*a position")
    refused(lambda: store.events(odd), "^start is .*a position")
    refused(lambda: store.event_at(odd), "^position is .*a position")
    assert len(list(store.events())) == 1


@pytest.mark.parametrize("odd", ["x", b"1", [], {}, None, object()], ids=str_of)
def test_ages_and_times_of_a_checkpoint(manager, name, odd):
    found = manager.get_checkpoint(name)
    refused(lambda: found.is_stale(odd), "^max_age_hours is .*a number, 0 or more")
    if odd is not None:
        refused(lambda: found.is_stale(now=odd), "^now is .*no datetime")
        refused(lambda: found.validate(now=odd), "^now is .*no datetime")


@pytest.mark.parametrize("odd", [[], {}, None, 1, "", "a\nb", object()], ids=str_of)
def test_ids_in_a_batch(manager, store, name, odd):
    with manager.batch() as batch:
        for call in (
            lambda: batch.update_checkpoint(odd, data={"x": 1}),
            lambda: batch.complete_checkpoint(odd),
            lambda: batch.fail_checkpoint(odd),
            lambda: batch.delete_checkpoint(odd),
        ):
            refused(call, "^checkpoint_id ")
        if odd is not None:
            refused(
                lambda: batch.create_checkpoint("t", "T", 1, checkpoint_id=odd), "^checkpoint_id "
            )
        refused(lambda: batch.create_checkpoint(odd, "T", 1), "^task_id ")
        batch.update_checkpoint(name, data={"y": 2})
    assert manager.get_checkpoint(name).data == {"kept": 1, "y": 2}


@pytest.mark.parametrize("odd", ["yes", 1, [], None], ids=str_of)
def test_the_order_of_an_iteration(manager, odd):
    refused(lambda: manager.iterate(newest_first=odd), "^newest_first is .*True or False")


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize(
    "data",
    [{1: 2}, {"a": [{None: 1}]}, {"a": 1, 2: 3}, {HUGE: 1}, {"$object": {1: 2}}],
    ids=range(5),
)
def test_keys_that_json_lacks(manager, name, data, is_plain):
    fields = manager.get_checkpoint(name).to_dict()
    for part in ("data", "metadata"):
        refused(
            lambda part=part: CheckpointData.from_dict({**fields, part: data}, is_plain=is_plain),
            f"^{part} has the key .*; keys must be of type str",
        )


class TestFailAfter:
    @pytest.mark.parametrize("odd", [None, [], 1, ""], ids=str_of)
    def test_no_id(self, manager, odd):
        error = ValueError("mine")
        manager.fail_after(odd, error)
        assert "was not marked as failed: checkpoint_id" in error.__notes__[0]

    @pytest.mark.parametrize("odd", [None, "text", ValueError], ids=str_of)
    def test_no_exception(self, manager, name, odd):
        refused(
            lambda: manager.fail_after(name, odd), "^error is of type .*BaseException is needed"
        )
        assert manager.get_checkpoint(name).state is CheckpointState.CREATED


@pytest.mark.parametrize("odd", [None, "store", object()], ids=str_of)
def test_a_wrapper_needs_a_manager(odd):
    with pytest.raises(
        ArgumentError, match=r"^checkpoint_manager is .*CheckpointManager is needed"
    ):
        TaskCheckpointWrapper(odd, "t", "T")
    assert issubclass(SettingsError, ArgumentError)
