"""Bad input gets a clear error that says what, where, and what to do next; and loses nothing."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, defaultdict
from decimal import Decimal
from enum import Enum

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlog import (
    ArgumentError,
    CheckpointError,
    CheckpointState,
    InvalidCreationError,
    InvalidUpdateError,
)

BAD_IDS = [
    ("", "is empty"),
    ("x" * 201, "has 201 characters; at most 200 are allowed"),
    ("x" * 10_000_000, "has 10000000 characters"),
    ("a\nb", "has a control character or surrogate U+000A at 1"),
    ("\0", "has a control character or surrogate U+0000 at 0"),
    ("a\x7f", "U+007F at 1"),
    ("a\x85b", "U+0085 at 1"),
    ("a\u2028b", "U+2028 at 1"),
    ("a\ud800", "has a control character or surrogate U+D800 at 1"),
    (" a", "begins or ends with a blank"),
    ("a\u00a0", "begins or ends with a blank"),
    (None, "is of type NoneType; text (str) is needed"),
    (5, "is of type int"),
    (b"t", "is of type bytes"),
    (["t"], "is of type list"),
]
GOOD_IDS = [
    "../../etc/passwd",
    "a/b\\c",
    "..",
    "~",
    "%2e%2e",
    "x" * 200,
    "задача",
    "任務",
    "👩‍🚀",
    "a'b\"c",
]


def create(manager, **wrong):
    options = {"task_id": "t", "task_title": "T", "step_number": 1, **wrong}
    return manager.create_checkpoint(**options)


@pytest.fixture
def name(manager):
    return create(manager, data={"kept": 1})


@pytest.fixture(autouse=True)
def _nothing_is_lost(store, name, manager):
    """After every refusal the store is as it was, and takes the next checkpoint."""
    yield
    if not store._is_closed:
        assert next(store.events()).event.type == "checkpoint.created"
        assert manager.get_checkpoint(name).data["kept"] == 1
        assert manager.get_checkpoint(create(manager)) is not None
        assert manager.validate_checkpoint_integrity() == []


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bad", "message"), BAD_IDS, ids=range(len(BAD_IDS)))
def test_bad_ids(manager, store, bad, message):
    def refused(error, call, argument):
        with pytest.raises(error) as caught:
            call()
        assert caught.value.message.startswith(argument)
        assert message in caught.value.message
        assert caught.value.hint
        assert caught.value.context["argument"] == argument
        assert len(str(caught.value)) < 500

    refused(InvalidCreationError, lambda: create(manager, task_id=bad), "task_id")
    for argument in ("worker_id", "parent_checkpoint_id", "checkpoint_id", "command_id", "actor"):
        long = argument in {"parent_checkpoint_id", "checkpoint_id"} and bad == "x" * 201
        if bad is not None and not long:  # None leaves them out, and these may be longer
            refused(
                InvalidCreationError,
                lambda argument=argument: create(manager, **{argument: bad}),
                argument,
            )
    if bad not in ("", None):
        refused(InvalidCreationError, lambda: create(manager, namespace=bad), "namespace")
    if bad != "x" * 201:
        refused(InvalidUpdateError, lambda: manager.update_checkpoint(bad), "checkpoint_id")
        refused(InvalidUpdateError, lambda: manager.complete_checkpoint(bad), "checkpoint_id")
        refused(InvalidUpdateError, lambda: manager.fail_checkpoint(bad), "checkpoint_id")
        refused(ArgumentError, lambda: manager.get_checkpoint(bad), "checkpoint_id")
        refused(ArgumentError, lambda: manager.delete_checkpoint(bad), "checkpoint_id")
    refused(ArgumentError, lambda: manager.delete_task(bad), "task_id")
    assert store.position == 1


@pytest.mark.parametrize("good", GOOD_IDS)
def test_good_ids(manager, good):
    found = manager.get_checkpoint(
        create(manager, task_id=good, worker_id=good, namespace=good, actor=good)
    )
    assert (found.task_id, found.worker_id, found.namespace) == (good, good, good)
    assert manager.get_latest_checkpoint(good) == found
    assert manager.get_checkpoints_by_worker(good) == [found]
    assert found.checkpoint_id.startswith(f"cp_{good}_1_")
    assert manager.delete_task(good) == 1


@pytest.mark.parametrize("falsy", [0, 0.0, False, [], {}, (), b"", None, set()], ids=repr)
def test_what_is_false_is_not_left_out(manager, store, falsy):
    """Each of these once passed for "none given", and some went into the log as they were."""
    for argument in ("namespace", "worker_id", "checkpoint_id", "command_id", "actor"):
        if falsy is None:
            assert create(manager, **{argument: falsy})
            continue
        with pytest.raises(InvalidCreationError, match=argument):
            create(manager, **{argument: falsy})
    if falsy is not None:
        for call in (
            lambda: manager.delete_checkpoint("x", actor=falsy),
            lambda: manager.delete_task("t", actor=falsy),
            lambda: manager.batch(actor=falsy).__enter__(),
        ):
            with pytest.raises(ArgumentError, match="actor"):
                call()
        assert store.position == 1


# --- steps, states, texts -------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, -1, 2**31 + 1, 10**400, 1.0, math.nan, "1", True, None])
def test_bad_steps(manager, name, step):
    with pytest.raises(InvalidCreationError, match=r"step_number is .*a whole number from 1"):
        create(manager, step_number=step)
    if step is None:
        return
    with pytest.raises(InvalidCreationError, match=r"total_steps is .*a whole number from 1"):
        create(manager, total_steps=step)
    with pytest.raises(InvalidUpdateError, match="step_number is"):
        manager.update_checkpoint(name, step_number=step)
    with pytest.raises(InvalidUpdateError, match="total_steps is"):
        manager.update_checkpoint(name, total_steps=step)


class OtherState(Enum):
    ACTIVE = "active"


@pytest.mark.parametrize("state", ["active", 1, OtherState.ACTIVE, CheckpointState])
def test_bad_states(manager, name, state):
    with pytest.raises(InvalidUpdateError, match=r"no CheckpointState.*CheckpointState\.ACTIVE"):
        manager.update_checkpoint(name, state=state)


@pytest.mark.parametrize("text", [5, b"x", ["x"], {"a": 1}])
def test_bad_texts(manager, name, text):
    for argument in ("task_title", "step_description"):
        with pytest.raises(InvalidCreationError, match=rf"{argument} is of type \w+; text \(str\)"):
            create(manager, **{argument: text})
    with pytest.raises(InvalidUpdateError, match="step_description is of type"):
        manager.update_checkpoint(name, step_description=text)
    with pytest.raises(InvalidCreationError, match="task_title is of type NoneType"):
        create(manager, task_title=None)


def test_texts_may_be_anything_else(manager):
    for text in ("", "\0\n\u2028", "x" * 100_000, " "):
        found = manager.get_checkpoint(create(manager, task_title=text, step_description=text))
        assert (found.task_title, found.step_description) == (text, text)
    with pytest.raises(InvalidCreationError, match="title holds a lone surrogate"):
        create(manager, task_title="\ud800")


# --- data -----------------------------------------------------------------------------------------


class Strange:
    pass


class SubclassedInt(int):
    pass


def looped():
    value: dict = {"a": {}}
    value["a"]["b"] = value
    return value


def deep(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (Strange(), "", "is of type .*Strange, which is not storable"),
        ([1, {"k": (Strange(),)}], r"\[1\]\.k\[0\]", "Strange"),
        ({"a b": {"c": Strange()}}, r'\["a b"\]\.c', "Strange"),
        ({1: 2}, "", "has a key of type int; keys must be of type str"),
        ({"k": {None: 1}}, r"\.k", "has a key of type NoneType"),
        ({"k": [SubclassedInt(1)]}, r"\.k\[0\]", "SubclassedInt"),
        (OrderedDict(a=1), "", "OrderedDict"),
        (defaultdict(list), "", "defaultdict"),
        (OtherState.ACTIVE, "", "OtherState"),
        (threading.Lock(), "", "lock"),
        (lambda: 1, "", "function"),
        ("a\ud800", "", "holds a lone surrogate"),
        ({"k": ["\udfff"]}, r"\.k\[0\]", "holds a lone surrogate"),
        ({"\ud800": 1}, r'\["\\ud800"\]', "holds a lone surrogate"),
        (10**5000, "", "is an int of more than 4299 digits"),
        ([-(10**4300)], r"\[0\]", "is an int of more than 4299 digits"),
        (looped(), "", r"contains itself, at \w+(\.error_info)?\.x\.a\.b"),
        (deep(300), r"(\[0\])+", "is nested deeper than 200 containers"),
        (range(3), "", "range"),
        (memoryview(b"x"), "", "memoryview"),
    ],
    ids=range(20),
)
def test_what_cannot_be_stored_is_named_by_its_path(manager, store, name, *, value, path, reason):
    calls = [
        ("data", InvalidCreationError, lambda: create(manager, data={"x": value})),
        ("metadata", InvalidCreationError, lambda: create(manager, metadata={"x": value})),
        ("data", InvalidUpdateError, lambda: manager.update_checkpoint(name, data={"x": value})),
        (
            "data",
            InvalidUpdateError,
            lambda: manager.update_checkpoint(name, data={"x": value}, replace_data=True),
        ),
        (
            "metadata",
            InvalidUpdateError,
            lambda: manager.update_checkpoint(name, metadata={"x": value}),
        ),
        ("data", InvalidUpdateError, lambda: manager.complete_checkpoint(name, {"x": value})),
        (
            r"metadata\.error_info",
            InvalidUpdateError,
            lambda: manager.fail_checkpoint(name, {"x": value}),
        ),
        (
            "data",
            InvalidUpdateError,
            lambda: manager.update_checkpoint(name, data={"x": value}, command_id="c"),
        ),
    ]
    for root, error, call in calls:
        with pytest.raises(error, match=rf"(?s)^{root}\.x{path} .*{reason}") as caught:
            call()
        assert caught.value.context["path"].startswith(root.replace("\\", ""))
    assert store.position == 1


@pytest.mark.parametrize("value", [None, [1], "text", 5, OrderedDict(a=1), ((1, 2),)], ids=repr)
def test_data_must_be_a_dictionary(manager, name, value):
    calls = [
        (create, InvalidCreationError, {"data": value}, "data"),
        (create, InvalidCreationError, {"metadata": value}, "metadata"),
    ]
    changes = [
        (manager.update_checkpoint, {"data": value}, "data"),
        (manager.update_checkpoint, {"metadata": value}, "metadata"),
        (manager.complete_checkpoint, {"final_data": value}, "data"),
        (manager.fail_checkpoint, {"error_info": value}, "error_info"),
    ]
    if value is None:
        return
    for call, error, options, argument in calls:
        with pytest.raises(error, match=rf"^{argument} is of type \w+; a dictionary .dict. is"):
            call(manager, **options)
    for change, options, argument in changes:
        with pytest.raises(InvalidUpdateError, match=rf"^{argument} is .*a dictionary \(dict\)"):
            change(name, **options)


def test_numbers_at_the_edges_come_back_as_they_were(manager):
    values = {
        "nan": math.nan,
        "inf": [math.inf, -math.inf],
        "zero": [-0.0, 0.0, 0, False],
        "one": [1, 1.0, True, Decimal("1.00")],
        "huge": [2**53, -(2**53) - 1, 2**64, -(2**200), 10**4298],
        "tiny": 5e-324,
    }
    found = manager.get_checkpoint(create(manager, data=values)).data
    assert repr(found) == repr(values)


def test_a_value_that_another_thread_changes_is_stored_as_it_was_at_one_moment(manager):
    data = {"list": list(range(1000))}
    stop = threading.Event()

    def change():
        while not stop.is_set():
            data["list"].append(len(data["list"]))
            data["list"].pop()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(30):
            found = manager.get_checkpoint(create(manager, data=data)).data["list"]
            assert found[:1000] == list(range(1000))
    finally:
        stop.set()
        thread.join()


def test_too_large_is_told_before_anything_is_written(manager, store):
    size = sum(path.stat().st_size for path in store.path.rglob("*"))
    with pytest.raises(InvalidCreationError, match=r"have 11\.0 MB together; the limit is 10\.5"):
        create(manager, data={"x": "y" * 11_000_000})
    assert store.position == 1
    assert sum(path.stat().st_size for path in store.path.rglob("*")) < size + 500_000
    assert not list((store.path / "packs").iterdir())


# --- whatever else --------------------------------------------------------------------------------

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([CheckpointState.ACTIVE, OtherState.ACTIVE, object(), int]),
)
ARGUMENTS = [
    "task_id",
    "task_title",
    "step_number",
    "step_description",
    "total_steps",
    "data",
    "metadata",
    "worker_id",
    "parent_checkpoint_id",
    "namespace",
    "actor",
    "command_id",
    "checkpoint_id",
]
CHANGES = [
    "step_number",
    "step_description",
    "data",
    "metadata",
    "state",
    "total_steps",
    "replace_data",
    "actor",
    "command_id",
    "expected",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(ARGUMENTS), ANYTHING, max_size=3),
    st.dictionaries(st.sampled_from(CHANGES), ANYTHING, max_size=3),
)
def test_no_argument_ends_in_a_foreign_error_or_a_log_that_cannot_be_read(
    manager, store, arguments, changes
):
    """Whatever comes in: it is stored and read back, or it is one of our errors."""
    try:
        name = create(manager, **arguments)
        assert manager.get_checkpoint(name) is not None
        manager.update_checkpoint(name, **changes)
        assert manager.get_checkpoint(name) is not None
    except CheckpointError as error:
        assert error.message
    assert sum(1 for _ in store.events()) == store.position
