from __future__ import annotations

import pytest

from ckptlog.errors import StoreMissingError
from ckptlog.repository.discovery import find_store


def put_store(folder):
    folder.mkdir(parents=True)
    (folder / "store.json").write_text("{}")
    return folder


def test_the_option_wins(tmp_path):
    put_store(tmp_path / ".ckptlog")
    found = find_store("here", {"CKPTLOG_STORE": "there"}, tmp_path)
    assert (str(found.path), found.source, found.note) == ("here", "option", "")


def test_the_environment_is_next(tmp_path):
    put_store(tmp_path / ".ckptlog")
    found = find_store(None, {"CKPTLOG_STORE": "there"}, tmp_path)
    assert (str(found.path), found.source) == ("there", "environment")
    assert found.note == "store there ($CKPTLOG_STORE)"


@pytest.mark.parametrize("place", [".ckptlog", ".taskmaster/checkpoints"])
def test_then_the_nearest_directory_going_up(tmp_path, place):
    store = put_store(tmp_path / "a" / place)
    put_store(tmp_path / ".ckptlog")
    below = tmp_path / "a" / "b" / "c"
    below.mkdir(parents=True)
    found = find_store(None, {"CKPTLOG_STORE": ""}, below)
    assert (found.path, found.source) == (store, "directory")
    assert str(store) in found.note


def test_of_two_in_one_directory_ckptlog_wins(tmp_path):
    put_store(tmp_path / ".taskmaster" / "checkpoints")
    store = put_store(tmp_path / ".ckptlog")
    assert find_store(None, {}, tmp_path).path == store


def test_a_directory_without_a_store_does_not_count(tmp_path):
    (tmp_path / "a" / ".ckptlog").mkdir(parents=True)
    store = put_store(tmp_path / ".ckptlog")
    assert find_store(None, {}, tmp_path / "a").path == store


def test_none(tmp_path):
    with pytest.raises(StoreMissingError) as caught:
        find_store(None, {}, tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "ckptlog init" in caught.value.hint


@pytest.mark.parametrize("name", ["checkpoint_x.json", "active/checkpoint_x.json.gz"])
def test_none_but_the_old_layout(tmp_path, name):
    old = tmp_path / ".taskmaster" / "checkpoints"
    (old / name).parent.mkdir(parents=True)
    (old / name).write_text("{}")
    with pytest.raises(StoreMissingError) as caught:
        find_store(None, {}, tmp_path)
    assert f"import legacy {old}" in caught.value.hint
