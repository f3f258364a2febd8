"""CheckpointData is a plain record: it travels through JSON exactly and judges itself."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import ArgumentError, CheckpointError, FormatError, UnstorableError
from ckptlog.model.checkpoint import CheckpointData, as_utc, time_text
from ckptlog.model.state import CheckpointState
from tests.model.value_cases import fingerprint, values

NOON = datetime.datetime(2024, 5, 6, 12, tzinfo=datetime.UTC)
LATER = NOON + datetime.timedelta(hours=1)
EAST = datetime.timezone(datetime.timedelta(hours=2))


def checkpoint(**changes: Any) -> CheckpointData:
    fields: dict[str, Any] = {
        "checkpoint_id": "cp_t_1_1",
        "task_id": "t",
        "task_title": "Title",
        "state": CheckpointState.ACTIVE,
        "step_number": 1,
        "created_at": NOON,
        "updated_at": LATER,
    }
    return CheckpointData(**(fields | changes))


OLD_FILE = """{
    "checkpoint_id": "cp_task1_1_1672531200", "task_id": "task1", "task_title": "Old",
    "state": "failed", "step_number": 1, "total_steps": null, "step_description": "",
    "data": {"$bytes": "no tag here"}, "metadata": {"error_info": {"error": "x"}},
    "created_at": "2023-01-01T00:00:00", "updated_at": "2023-01-01T00:01:00.5Z",
    "worker_id": null, "parent_checkpoint_id": null
}"""


class TestRecord:
    def test_the_fields_are_the_specifications_in_its_order(self):
        assert [field.name for field in dataclasses.fields(CheckpointData)] == [
            *("checkpoint_id", "task_id", "task_title", "state", "step_number", "total_steps"),
            *("step_description", "data", "metadata", "created_at", "updated_at", "worker_id"),
            *("parent_checkpoint_id", "position", "namespace"),
        ]

    def test_little_is_needed(self):
        one = CheckpointData("cp", "t", "T", CheckpointState.CREATED, 1)
        assert (one.data, one.metadata, one.position, one.namespace) == ({}, {}, -1, "")
        assert one.updated_at >= one.created_at
        assert one.created_at.tzinfo is datetime.UTC
        assert one.validate() == []
        assert one.data is not CheckpointData("cp", "t", "T", CheckpointState.CREATED, 1).data

    def test_equality_is_by_value(self):
        assert checkpoint(data={"a": 1}) == checkpoint(data={"a": 1})
        assert checkpoint(data={"a": 1}) != checkpoint(data={"a": 2})
        assert checkpoint(position=1) != checkpoint(position=2)

    def test_an_unknown_attribute_is_refused(self):
        with pytest.raises(AttributeError):
            checkpoint().stepnumber = 2  # type: ignore[attr-defined]

    def test_error_info(self):
        assert checkpoint().error_info is None
        assert checkpoint(metadata={"error_info": {"error": "x"}}).error_info == {"error": "x"}


class TestDictionary:
    @given(
        st.dictionaries(st.text(max_size=4), values, max_size=3),
        st.sampled_from(CheckpointState),
        st.datetimes(timezones=st.sampled_from([datetime.UTC, EAST])).filter(
            lambda time: 1 < time.year < 9999
        ),
        st.none() | st.integers(1, 9),
    )
    def test_it_comes_back_through_json(self, data, state, time, total):
        before = checkpoint(
            data=data, metadata={"m": data}, state=state, created_at=time, total_steps=total
        )
        after = CheckpointData.from_dict(json.loads(json.dumps(before.to_dict())))
        assert fingerprint(after.data) == fingerprint(before.data)
        assert fingerprint(after.metadata) == fingerprint(before.metadata)
        assert dataclasses.replace(after, data={}, metadata={}) == dataclasses.replace(
            before, data={}, metadata={}
        )

    def test_the_form(self):
        facts = checkpoint(data={"when": NOON.date()}, created_at=NOON.astimezone(EAST)).to_dict()
        assert facts == {
            "checkpoint_id": "cp_t_1_1",
            "task_id": "t",
            "task_title": "Title",
            "state": "active",
            "step_number": 1,
            "total_steps": None,
            "step_description": "",
            "data": {"when": {"$date": "2024-05-06"}},
            "metadata": {},
            "created_at": "2024-05-06T12:00:00.000000Z",
            "updated_at": "2024-05-06T13:00:00.000000Z",
            "worker_id": None,
            "parent_checkpoint_id": None,
            "position": -1,
            "namespace": "",
        }

    def test_nothing_is_shared(self):
        inner = {"list": [1]}
        one = checkpoint(data=inner, metadata=inner)
        facts = one.to_dict()
        facts["data"]["list"].append(2)
        assert one.data == {"list": [1]}
        facts = json.loads(json.dumps(one.to_dict()))
        for is_plain in (False, True):
            again = CheckpointData.from_dict(facts, is_plain=is_plain)
            again.data["new"] = again.metadata["new"] = 1
            again.data["list"].append(2)
            assert facts["data"] == {"list": [1]}

    def test_unstorable_values_name_their_field(self):
        with pytest.raises(UnstorableError, match=r"^data\.a is"):
            checkpoint(data={"a": object()}).to_dict()
        with pytest.raises(UnstorableError, match=r"^metadata\.a is"):
            checkpoint(metadata={"a": object()}).to_dict()

    def test_a_file_of_the_old_layout(self):
        one = CheckpointData.from_dict(json.loads(OLD_FILE), is_plain=True)
        assert one.state is CheckpointState.FAILED
        assert one.created_at == datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC)
        assert one.updated_at - one.created_at == datetime.timedelta(seconds=60.5)
        assert one.data == {"$bytes": "no tag here"}
        assert one.error_info == {"error": "x"}
        assert (one.position, one.namespace, one.total_steps) == (-1, "", None)
        assert one.validate() == []

    def test_what_may_be_absent(self):
        facts = {
            "checkpoint_id": "cp",
            "task_id": "t",
            "state": CheckpointState.CREATED,
            "step_number": 1,
            "created_at": NOON,
        }
        one = CheckpointData.from_dict(facts)
        assert (one.task_title, one.updated_at, one.data) == ("", NOON, {})
        for name in facts:
            for changed in ({**facts, name: None}, {k: v for k, v in facts.items() if k != name}):
                with pytest.raises(ArgumentError, match=f"'{name}' is missing"):
                    CheckpointData.from_dict(changed)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("state", "deleted", "state is 'deleted'; it must be one of created, active"),
            ("state", 1, "state is 1"),
            ("state", [], "state is"),
            ("step_number", "1", "step_number is of type str, not int"),
            ("step_number", True, "step_number is of type bool, not int"),
            ("total_steps", 1.0, "total_steps is of type float"),
            ("task_id", 1, "task_id is of type int, not str"),
            ("worker_id", [], "worker_id is of type list"),
            ("created_at", "yesterday", "created_at is 'yesterday', which is no ISO 8601 time"),
            ("created_at", 1672531200, "created_at is 1672531200"),
            ("updated_at", "9999-12-31T23:59:59-23:00", "updated_at is '9999"),
            ("data", [], "data is of type list, not dict"),
            ("data", {"$tuple": []}, "data is of type tuple, not dict"),
            ("metadata", "x", "metadata is of type str, not dict"),
            ("taskid", "t", "A checkpoint has no field 'taskid'"),
            (1, "t", "A checkpoint has no field 1"),
        ],
    )
    def test_what_cannot_be_read(self, name, value, message):
        with pytest.raises(ArgumentError) as caught:
            CheckpointData.from_dict({**checkpoint().to_dict(), name: value})
        assert message in caught.value.message

    @pytest.mark.parametrize("facts", [None, [], "{}", 1])
    def test_what_is_no_dict(self, facts):
        with pytest.raises(ArgumentError, match="A checkpoint is made of a dict, not of type"):
            CheckpointData.from_dict(facts)

    def test_a_malformed_tag(self):
        with pytest.raises(FormatError):
            CheckpointData.from_dict({**checkpoint().to_dict(), "data": {"a": {"$no": 1}}})

    @given(
        st.dictionaries(
            st.sampled_from([field.name for field in dataclasses.fields(CheckpointData)]),
            st.none() | st.text(max_size=5) | st.integers() | st.just({}) | st.just("active"),
        )
    )
    def test_any_facts_end_in_our_errors(self, facts):
        with contextlib.suppress(CheckpointError):
            CheckpointData.from_dict({**checkpoint().to_dict(), **facts}).validate()


class TestValidate:
    def test_a_sound_one(self):
        assert checkpoint(total_steps=1, worker_id="w", parent_checkpoint_id="p").validate() == []

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"checkpoint_id": ""}, "checkpoint_id is empty."),
            ({"checkpoint_id": "x" * 513}, "checkpoint_id has 513 characters; at most 512"),
            ({"task_id": "x" * 201}, "task_id has 201 characters; at most 200"),
            ({"task_id": None}, "task_id is of type NoneType"),
            ({"task_id": "a\nb"}, "task_id has a control character"),
            ({"worker_id": " w"}, "worker_id begins or ends with a blank."),
            ({"worker_id": ""}, "worker_id is empty."),
            ({"parent_checkpoint_id": ""}, "parent_checkpoint_id is empty."),
            ({"namespace": "\x00"}, "namespace has a control character"),
            ({"state": "active"}, "state is 'active', which is no CheckpointState."),
            ({"step_number": 0}, "step_number is 0; it must be an int from 1."),
            ({"step_number": True}, "step_number is True;"),
            ({"step_number": "1"}, "step_number is '1';"),
            ({"total_steps": 0}, "total_steps is 0; it must be an int from 1."),
            ({"step_number": 3, "total_steps": 2}, "step_number 3 is greater than total_steps 2."),
            ({"updated_at": NOON - (LATER - NOON)}, "updated_at is before created_at."),
            ({"created_at": NOON.replace(tzinfo=None)}, "created_at has no time zone; UTC is"),
            ({"created_at": "noon"}, "created_at is of type str, not a datetime."),
            ({"updated_at": NOON.replace(year=9999, tzinfo=None)}, "updated_at has no time zone"),
            ({"data": {"a": [object()]}}, "data.a[0] is of type object"),
            ({"metadata": {"a": {1: 2}}}, "metadata.a has a key of type int"),
            ({"data": None}, "data is of type NoneType, not dict."),
            ({"data": [1]}, "data is of type list, not dict."),
        ],
    )
    def test_problems(self, changes, problem):
        found = checkpoint(**changes).validate()
        assert any(line.startswith(problem) for line in found), found

    def test_all_problems_are_listed(self):
        assert len(checkpoint(task_id="", step_number=0, data=None).validate()) == 3

    def test_the_future(self):
        one = checkpoint()
        assert one.validate(now=LATER) == []
        assert one.validate(now=LATER - datetime.timedelta(seconds=59)) == []
        assert one.validate(now=NOON) == [
            "updated_at (2024-05-06T13:00:00+00:00) is in the future."
        ]
        end = datetime.datetime.max.replace(tzinfo=datetime.timezone(-datetime.timedelta(hours=9)))
        assert len(checkpoint(updated_at=end).validate()) == 1

    def test_the_size(self):
        one = checkpoint(data={"a": "x" * 700_000}, metadata={"a": "x" * 700_000})
        assert one.validate() == []
        assert one.validate(size_mb_max=1) == [
            "data and metadata have 1,400,016 bytes; the limit is 1 MiB."
        ]


class TestStale:
    def test_it_counts_from_the_last_update(self):
        one = checkpoint()
        day = datetime.timedelta(hours=24)
        assert not one.is_stale(now=LATER + day)
        assert one.is_stale(now=LATER + day + datetime.timedelta(microseconds=1))
        assert one.is_stale(1, now=LATER + datetime.timedelta(hours=2))
        assert not one.is_stale(0, now=LATER)
        assert one.is_stale()

    def test_times_without_a_zone_are_utc(self):
        one = checkpoint(updated_at=LATER.replace(tzinfo=None))
        assert not one.is_stale(now=LATER + datetime.timedelta(hours=24))
        assert one.is_stale(now=LATER.replace(tzinfo=None) + datetime.timedelta(hours=25))

    @pytest.mark.parametrize("hours", [-1, float("nan")])
    def test_an_impossible_age(self, hours):
        with pytest.raises(ArgumentError, match="max_age_hours"):
            checkpoint().is_stale(hours)


def test_times():
    assert as_utc(NOON.replace(tzinfo=None)) == NOON
    assert as_utc(NOON.astimezone(EAST)).tzinfo is datetime.UTC
    assert time_text(NOON.astimezone(EAST)) == "2024-05-06T12:00:00.000000Z"
