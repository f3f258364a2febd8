"""A copy of a store without its views, with damage in its log: what opens, what is told, what mends."""

from __future__ import annotations

import json
import random
import shutil

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.cli.main import main
from ckptlog.errors import BlobCorruptionError, LogCorruptionError, MissingBlobError
from ckptlog.formats import frame, segment
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory

SEGMENT = "log/00000000000000000000.0.seg"


def data_of(step: int) -> dict[str, object]:
    return {"step": step, "noise": random.Random(step).randbytes(3000)}


@pytest.fixture
def copy(tmp_path):
    """A store, and a copy of it without views; the last checkpoints are of the copy alone."""
    with CheckpointManager(tmp_path / "store") as manager:
        for step in range(1, 6):
            manager.create_checkpoint("t", "T", step, data=data_of(step), checkpoint_id=f"c{step}")
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "views")
    return tmp_path / "copy"


def frames(copy, kind):
    with ckptlog.open(copy, read_only=True) as store:
        seed = segment.seed(store.info.id_bytes, 0, 0)
    walked = frame.walk(seed, 0, (copy / SEGMENT).read_bytes())
    return [(begin, end) for one, _, begin, end in walked if one == kind]


def spoil(copy, begin, length):
    data = bytearray((copy / SEGMENT).read_bytes())
    data[begin : begin + length] = bytes(byte ^ 0x5A for byte in data[begin : begin + length])
    (copy / SEGMENT).write_bytes(data)


@pytest.mark.parametrize(
    ("at", "length", "error"),
    [(300, 5, BlobCorruptionError), (20, 4, MissingBlobError), (0, 60, MissingBlobError)],
)
def test_a_damaged_chunk_keeps_nothing_else_from_being_read(copy, at, length, error):
    big = [span for span in frames(copy, frame.CHUNK) if span[1] - span[0] > 3000]
    spoil(copy, big[2][0] + at, length)
    with CheckpointManager(copy) as manager:
        for step in (1, 2, 4, 5):
            assert manager.get_checkpoint(f"c{step}").data == data_of(step)
        with pytest.raises(error, match="ckptlog verify"):
            manager.get_checkpoint("c3")
        manager.create_checkpoint("t", "T", 6, data=data_of(6), checkpoint_id="c6")
        manager.store.rebuild_views()
        with pytest.raises(error):
            manager.get_checkpoint("c3")
        found = manager.store.verify()
        assert {one.code for one in found.problems} == {"log.corrupt", "blob.missing"}
        assert [one.checkpoints for one in found.problems if one.code == "blob.missing"] == [
            ("c3",)
        ]
    with pytest.raises(LogCorruptionError), ckptlog.open(copy) as store:
        store.backup(copy.with_name("backup"))
    done = repair(copy, is_applied=True, copy=copy.with_name("store"))
    assert done.lost_chunks == ()
    with CheckpointManager(copy) as manager:
        assert manager.get_checkpoint("c3").data == data_of(3)
        assert manager.get_checkpoint("c6").data == data_of(6)
        assert manager.store.verify().ok


def test_a_damaged_event_keeps_it_closed_until_it_is_repaired(copy, capsys):
    begin, _end = frames(copy, frame.EVENT)[2]
    spoil(copy, begin + 60, 5)
    assert main(["--store", str(copy), "--json", "list"]) == 5
    said = json.loads(capsys.readouterr().err)
    assert said["code"] == "log.corrupt"
    assert "ckptlog repair" in said["hint"]
    assert main(["--store", str(copy), "repair", "--apply"]) == 1, "an event is lost, and told"
    assert main(["--store", str(copy), "--json", "list"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    shown = [json.loads(line)["checkpoint_id"] for line in lines]
    assert {"c1", "c2", "c4", "c5"} <= set(shown)
    assert verify_directory(copy).ok
