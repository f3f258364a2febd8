"""Objects of registered types through everything that prepares or reads a checkpoint's values."""

from __future__ import annotations

import json

import pytest

import ckptlog
from ckptlog import CheckpointManager, CheckpointState, TypeCodec, Typed
from ckptlog.cli.main import main
from ckptlog.errors import (
    InvalidCreationError,
    SettingsError,
    UnregisteredTypeError,
    UnstorableError,
)
from ckptlog.manager.storage import FileSystemCheckpointStorage
from ckptlog.model.codec import OPAQUE
from tests.model.codec_cases import CODECS, Colour, Message, Pair, Point, shape

STATE = {"messages": [Message(text="a"), Message(text="b", n=Pair(1))], "colour": Colour.RED}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def stored(path):
    with CheckpointManager(path, codecs=CODECS) as manager:
        return manager.create_checkpoint("t", "T", 1, data=STATE, metadata={"at": Point(1)})


def test_a_manager_gives_back_what_it_was_given(path, stored):
    with CheckpointManager(path, codecs=list(CODECS)) as manager:
        found = manager.get_checkpoint(stored)
        assert shape(found.data) == shape(STATE)
        assert found.metadata == {"at": Point(1)}
        assert shape(manager.restore_checkpoint(stored).data) == shape(STATE)
        assert shape(manager.store.value(next(iter(manager.store.events())).event.data)) == shape(
            STATE
        )


def test_a_change_keeps_the_others(path, stored):
    with ckptlog.open(path, codecs=CODECS) as store, CheckpointManager(store=store) as manager:
        assert store.codecs is CODECS
        manager.update_checkpoint(stored, data={"more": [Point(Colour.ONE)]})
        found = manager.get_checkpoint(stored)
        assert shape(found.data) == shape({**STATE, "more": [Point(Colour.ONE)]})
        with manager.batch() as batch:
            batch.update_checkpoint(stored, data={"more": Point(2)})
            batch.update_checkpoint(stored, metadata={"at": Pair(1)})
            batch.update_checkpoint(stored, data={"again": Pair(3)})
        found = manager.get_checkpoint(stored)
        assert shape(found.data) == shape({**STATE, "more": Point(2), "again": Pair(3)})
        assert found.metadata == {"at": Pair(1)}
        other = manager.create_checkpoint("t", "T", 2, data={**STATE, "colour": Colour.ONE})
        paths = {one.path for one in manager.diff(stored, other)}
        assert paths == {
            "state",
            "step_number",
            "data.colour",
            "data.more",
            "data.again",
            "metadata.at",
        }


def test_dicts_of_fields_go_both_ways(path, stored):
    with CheckpointManager(path, codecs=CODECS) as manager:
        found = manager.get_checkpoint(stored)
        with pytest.raises(UnstorableError):
            found.to_dict()
        fields = json.loads(json.dumps(found.to_dict(codecs=CODECS)))
        back = ckptlog.CheckpointData.from_dict(fields, codecs=CODECS)
        assert shape(back.data) == shape(STATE)
        assert found.validate(codecs=CODECS) == []
        assert len(found.validate()) == 2
        with pytest.raises(UnregisteredTypeError):
            ckptlog.CheckpointData.from_dict(fields)


def test_a_storage_saves_and_loads(path):
    with CheckpointManager(path, codecs=CODECS) as manager:
        storage = FileSystemCheckpointStorage(manager=manager, follow=False)
        name = manager.create_checkpoint("t", "T", 1, data=STATE)
        loaded = storage.load_checkpoint(name)
        assert shape(loaded.data) == shape(STATE)
        loaded.data["colour"] = Colour.BLUE
        loaded.state = CheckpointState.ACTIVE
        storage.save_checkpoint(loaded)
        assert storage.load_checkpoint(name).data["colour"] is Colour.BLUE
        storage.close()


def test_without_codecs_it_says_which_is_missing(path, stored):
    with CheckpointManager(path) as manager:
        with pytest.raises(UnregisteredTypeError, match="'test:message'"):
            manager.get_checkpoint(stored)
        assert manager.store.verify().ok
        with pytest.raises(UnregisteredTypeError):
            manager.update_checkpoint(stored, data={"x": 1})
        with pytest.raises(InvalidCreationError, match=r"data\.x"):
            manager.create_checkpoint("t", "T", 1, data={"x": Point(1)})


def test_codecs_beside_an_open_store_are_refused(path, stored):
    with ckptlog.open(path) as store:
        with pytest.raises(SettingsError, match="beside an open store"):
            CheckpointManager(store=store, codecs=CODECS)
        with pytest.raises(SettingsError, match="codecs cannot be used"):
            ckptlog.open(path, codecs=[Point])
        assert len(store.codecs) == 0


def test_an_opaque_store_shows_and_keeps_them(path, stored):
    with CheckpointManager(path, codecs=OPAQUE) as manager:
        found = manager.get_checkpoint(stored)
        assert type(found.data["colour"]) is Typed
        manager.update_checkpoint(stored, data={"more": 1})
    with CheckpointManager(path, codecs=CODECS) as manager:
        assert shape(manager.get_checkpoint(stored).data) == shape({**STATE, "more": 1})


def test_the_command_line_needs_no_codecs(path, stored, capsys, tmp_path):
    with CheckpointManager(path, codecs=CODECS) as manager:
        other = manager.create_checkpoint("t", "T", 2, data={**STATE, "colour": Point(1)})

    def run(*words):
        assert main(["--store", str(path), *words]) == 0
        return capsys.readouterr().out

    assert "object of the type Colour" in run("show", stored)
    shown = json.loads(run("show", stored, "--data"))
    assert shown["colour"] == {"$type": ["Colour", "red"]}
    assert "data.colour" in run("diff", stored, other)
    lines = [json.loads(line) for line in run("--json", "diff", stored, other).splitlines()]
    assert lines[-2]["after"] == {"$type": ["Point", [1, 0]]} or lines[-1]["after"]
    run("verify")
    run("restore", stored, "--out", str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text()) == shown
    for words in (["list"], ["log"], ["history", stored], ["audit"]):
        run(*words)
    with CheckpointManager(path, codecs=[TypeCodec.of(Colour), *list(CODECS)[1:]]) as manager:
        assert shape(manager.get_checkpoint(stored).data) == shape(STATE)
