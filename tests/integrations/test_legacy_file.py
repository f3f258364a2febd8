"""Reading the old layout: which files count, and what is wrong with a bad one."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlog.errors import ArgumentError, CheckpointError
from ckptlog.integrations import legacy
from ckptlog.integrations.legacy import find_files, read_file
from ckptlog.model.state import CheckpointState

GOOD = {
    "checkpoint_id": "cp_a_1_1",
    "task_id": "a",
    "state": "active",
    "step_number": 1,
    "created_at": "2024-01-01T00:00:00",
}


def test_files_of_all_folders_are_found_and_the_index_is_not(tmp_path):
    wanted = ["checkpoint_a.json", "active/checkpoint_b.json", "failed/checkpoint_c.json.gz"]
    for name in [*wanted, "index.json", "active/notes.json", "other/checkpoint_d.json"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert [str(path.relative_to(tmp_path)) for path in find_files(tmp_path)] == wanted


def test_no_folder_and_no_files(tmp_path):
    with pytest.raises(ArgumentError, match="There is no folder"):
        find_files(tmp_path / "no")
    with pytest.raises(ArgumentError, match=r"holds no checkpoint_\*\.json"):
        find_files(tmp_path)


def test_a_good_file(tmp_path):
    path = tmp_path / "checkpoint_x.json"
    path.write_text(json.dumps(GOOD))
    old = read_file(path)
    assert (old.identifier, old.state) == ("cp_a_1_1", CheckpointState.ACTIVE)
    assert old.order == (1704067200.0, 1, "cp_a_1_1")
    packed = tmp_path / "checkpoint_x.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert read_file(packed).digest == old.digest


def test_the_name_serves_where_the_id_is_missing(tmp_path):
    path = tmp_path / "checkpoint_cp_b_2_9.json"
    path.write_text(json.dumps({**GOOD, "checkpoint_id": "x"} | {"task_id": "b"}))
    assert read_file(path).identifier == "x"
    fields = dict(GOOD)
    del fields["checkpoint_id"]
    path.write_text(json.dumps(fields))
    assert read_file(path).identifier == "cp_b_2_9"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "It is empty"),
        (b"\0\0\0", "It is empty"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "a JSON list"),
        (b"{}", "no task_id"),
        ({**GOOD, "state": "done"}, "state 'done' is unknown"),
        ({**GOOD, "state": 3}, "no state"),
        ({**GOOD, "task_id": None}, "no task_id"),
        ({**GOOD, "step_number": "1"}, "step_number is not a whole number"),
        ({**GOOD, "step_number": True}, "step_number is not a whole number"),
        ({**GOOD, "total_steps": 1.5}, "total_steps is not a whole number"),
        ({**GOOD, "data": []}, "data is not an object"),
        ({**GOOD, "metadata": "x"}, "metadata is not an object"),
        ({**GOOD, "worker_id": 7}, "worker_id is not text"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "checkpoint_x.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ArgumentError) as caught:
        read_file(path)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "damage", [b"", b"\x1f\x8b", b"no gzip", gzip.compress(b"{}", mtime=0)[:-9]]
)
def test_a_bad_gzip_file(tmp_path, damage):
    path = tmp_path / "checkpoint_x.json.gz"
    path.write_bytes(damage)
    with pytest.raises(ArgumentError):
        read_file(path)


def test_a_packed_file_cannot_grow_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(legacy, "SIZE_BYTES_MAX", 1000)
    path = tmp_path / "checkpoint_x.json.gz"
    path.write_bytes(gzip.compress(b" " * 100_000, mtime=0))
    with pytest.raises(ArgumentError, match="more than 1000 bytes"):
        read_file(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), is_packed=st.booleans())
def test_any_bytes_end_in_an_error_of_ours(tmp_path, content, is_packed):
    path = tmp_path / ("checkpoint_x.json.gz" if is_packed else "checkpoint_x.json")
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_file(path)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2024-01-01T00:00:00Z", 1704067200.0),
        ("2024-01-01T02:00:00+02:00", 1704067200.0),
        (1704067200, 1704067200.0),
        ("soon", 0.0),
        (None, 0.0),
        (True, 0.0),
    ],
)
def test_times_of_any_writing_sort(tmp_path, value, seconds):
    path = tmp_path / "checkpoint_x.json"
    path.write_text(json.dumps({**GOOD, "created_at": value}))
    assert read_file(path).order[0] == seconds
