"""What a component says of itself, checked when a capturer is made."""

from __future__ import annotations

import pytest

from ckptlog import CheckpointManager, Component, ComponentError
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import ArgumentError
from ckptlog.model.component import faults_of, faults_restored, in_order, migrated, traits_of
from tests.capture.sample import Value


def test_what_is_not_said_has_its_default():
    traits = traits_of(Value("a"))
    assert (traits.kind, traits.schema_version, traits.depends_on) == ("value", 1, ())
    assert (traits.reads_parts, traits.stability, traits.location) == (False, "live", {})
    assert isinstance(Value("a"), Component)


def test_what_is_said_is_taken_over():
    one = Value(
        "a.b-C_1",
        kind="sqlite",
        schema_version=7,
        depends_on={"y", "x"},
        reads_parts=True,
        stability="fork",
        location={"path": "/x"},
    )
    traits = traits_of(one)
    assert (traits.name, traits.kind, traits.schema_version) == ("a.b-C_1", "sqlite", 7)
    assert traits.depends_on == ("x", "y")
    assert (traits.reads_parts, traits.stability) == (True, "fork")
    assert traits.location == {"path": "/x"}


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, None, 3, "a/b", "a\n"])
def test_a_bad_name_is_refused(name):
    with pytest.raises(ComponentError, match="name"):
        traits_of(Value(name))


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("kind", ""),
        ("kind", 3),
        ("kind", "absent"),  # what a safety capture says of a component that is missing
        ("schema_version", 0),
        ("schema_version", True),
        ("schema_version", "1"),
        ("depends_on", "xy"),
        ("depends_on", [1]),
        ("reads_parts", 1),
        ("stability", "steady"),
        ("location", {"path": 3}),
        ("location", {"path": "x" * 5000}),
        ("prepare", 3),
        ("validate", "x"),
        ("is_absent", 1),
        ("make_absent", lambda: None),  # without the other
        ("is_absent", lambda: False),
    ],
)
def test_what_is_wrong_is_named(option, bad):
    with pytest.raises(ComponentError, match=option) as caught:
        traits_of(Value("a", **{option: bad}))
    assert caught.value.context["component"] == "a"
    assert caught.value.code == "component.invalid"


def test_capture_and_restore_are_needed():
    class Half:
        name = "half"

        def capture(self):
            return 1

    with pytest.raises(ComponentError, match=r"no method restore\(\)"):
        traits_of(Half())


def test_a_class_is_no_component():
    with pytest.raises(ComponentError, match="is a class"):
        traits_of(Value)


def names(*components):
    return [one.name for one in in_order([traits_of(one) for one in components])]


def test_each_stands_behind_what_it_depends_on_and_else_as_given():
    assert names(Value("c", depends_on=["a"]), Value("b"), Value("a")) == ["b", "a", "c"]
    assert names(Value("b"), Value("a")) == ["b", "a"]


def test_a_name_twice_is_refused():
    with pytest.raises(ComponentError, match="Two components"):
        names(Value("a"), Value("a"))


def test_an_unknown_dependency_is_refused():
    with pytest.raises(ComponentError, match="'a' depends on 'z'"):
        names(Value("a", depends_on=["z"]), Value("b"))


def test_a_circle_is_told():
    with pytest.raises(ComponentError, match="b -> c -> b"):
        names(
            Value("a", depends_on=["b"]), Value("b", depends_on=["c"]), Value("c", depends_on=["b"])
        )
    with pytest.raises(ComponentError, match="a -> a"):
        names(Value("a", depends_on=["a"]))


def test_there_must_be_one_and_not_too_many():
    with pytest.raises(ComponentError, match="0 components"):
        names()
    with pytest.raises(ComponentError, match="1001 components"):
        names(*(Value(f"c{number}") for number in range(1001)))


def test_an_old_payload_is_migrated_and_a_newer_one_refused():
    one = Value("a", schema_version=3, migrate=lambda payload, version: (payload, version))
    assert migrated(one, "old", 1) == ("old", 1)
    assert migrated(one, "same", 3) == "same"
    with pytest.raises(ComponentError, match="newer program"):
        migrated(one, "new", 4)
    with pytest.raises(ComponentError, match="migrate"):
        migrated(Value("a", schema_version=2), "old", 1)


def test_faults_are_lists_of_texts():
    assert faults_of(Value("a"), 1) == []
    assert faults_of(Value("a", validate=lambda payload: [f"bad {payload}"]), 1) == ["bad 1"]
    assert faults_of(Value("a", validate=lambda _: None), 1) == []
    assert faults_of(Value("a", validate=lambda _: True), 1) == []
    assert faults_of(Value("a", validate=lambda _: False), 1) == ["validate() says no."]
    assert faults_restored(Value("a", verify_restored=lambda: ["half"])) == ["half"]
    with pytest.raises(ComponentError, match="list of texts"):
        faults_of(Value("a", validate=lambda _: "bad"), 1)


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("deadline_s", 0),
        ("deadline_s", "1"),
        ("write_deadline_s", -1),
        ("attempts", 0),
    ],
)
def test_a_capturers_settings_are_checked(tmp_path, option, bad):
    with CheckpointManager(tmp_path) as manager, pytest.raises(ArgumentError, match=option):
        Capturer(manager, "s", [Value("a")], **{option: bad})
