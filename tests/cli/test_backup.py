from __future__ import annotations

import json

import ckptlog
from ckptlog import CheckpointManager


def test_backup_and_restore(run, filled, tmp_path):
    done = run("--store", filled.path, "backup", tmp_path / "b", "--verify")
    assert done.status == 0
    assert "events (" in done.out
    assert "verified" in done.out
    told = run("--store", filled.path, "--json", "backup", tmp_path / "b").document
    assert (told["bytes_copied"], told["files_copied"], told["verified"]) == (0, 0, False)
    assert told["position"] == told["previous"] > 0
    done = run("restore-store", tmp_path / "b", tmp_path / "r")
    assert done.status == 0
    assert "only one of the two may go on" in done.err
    with CheckpointManager(tmp_path / "r") as manager:
        assert manager.get_checkpoint(filled.completed).data["result"] is True
    assert run("--store", tmp_path / "b", "list").status == 0
    assert (
        run("--store", tmp_path / "b", "--json", "delete", filled.active).error["code"]
        == "store.read_only"
    )


def test_what_goes_wrong_has_its_status(run, filled, tmp_path):
    run("--store", filled.path, "backup", tmp_path / "b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for words, status, code in (
        (["--store", filled.path, "backup", tmp_path / "full"], 4, "backup.foreign"),
        (["--store", filled.path, "backup", filled.path / "b"], 2, "argument.invalid"),
        (["restore-store", tmp_path / "b", tmp_path / "full"], 4, "restore.conflict"),
        (["restore-store", tmp_path / "b", tmp_path / "b" / "re"], 2, "argument.invalid"),
        (["restore-store", tmp_path / "none", tmp_path / "r"], 3, "store.missing"),
        (["restore-store", filled.path, tmp_path / "r"], 4, "backup.foreign"),
    ):
        done = run("--json", *words)
        assert (done.status, done.error["code"], done.out) == (status, code, "")
    (tmp_path / "b/backup.json").write_text("{}")
    done = run("--json", "restore-store", tmp_path / "b", tmp_path / "r")
    assert (done.status, done.error["code"]) == (5, "backup.damaged")
    done = run("--json", "--store", filled.path, "backup", tmp_path / "b")
    assert (done.status, done.error["code"]) == (5, "backup.damaged")


def test_an_archive_goes_to_another_store(run, filled, tmp_path):
    file = tmp_path / "a.ckpt"
    done = run("--store", filled.path, "export", "archive", "job", "other", "--to", file)
    assert done.status == 0
    assert "2 tasks" in done.out
    assert "root " in done.out
    assert run("--store", filled.path, "export", "archive", "job", "--to", file).status == 2
    told = run(
        "--store", filled.path, "--json", "export", "archive", "job", "--to", file, "--force"
    ).document
    checked = run("--json", "import", "archive", file, "--verify-only").document
    assert (checked["root"], checked["size"]) == (told["root"], told["size"])
    assert "imported" not in checked
    assert "verified" in run("import", "archive", file, "--verify-only").out
    with ckptlog.open(tmp_path / "t", create=True):
        pass
    first = run("--store", tmp_path / "t", "import", "archive", file)
    assert first.status == 0
    assert "1 checkpoint deleted" in first.err
    again = run("--store", tmp_path / "t", "--json", "import", "archive", file).document
    assert (again["imported"], again["deleted"]) == (0, 1)
    data = run("--store", tmp_path / "t", "--json", "show", filled.completed, "--data").document[
        "data"
    ]
    assert data == {"items": [1, 2], "n": 3, "result": True}
    done = run("--store", filled.path, "--json", "import", "archive", file)
    assert (done.status, done.error["code"]) == (4, "import.conflict")
    file.write_bytes(file.read_bytes()[:-3])
    done = run("--store", tmp_path / "t", "--json", "import", "archive", file)
    assert (done.status, done.error["code"]) == (5, "format.malformed")
    done = run(
        "--store", filled.path, "--json", "export", "archive", "nobody", "--to", tmp_path / "n"
    )
    assert (done.status, done.error["code"]) == (3, "checkpoint.not_found")


def test_doctor_names_who_reads_as_a_consumer(run, filled):
    with ckptlog.open(filled.path) as store, store.watch("mine"):
        findings = run("--store", filled.path, "--json", "doctor").document["findings"]
    (finding,) = [one for one in findings if one["code"] == "doctor.locks"]
    assert "consumers/mine.lock: process " in finding["message"]
    assert json.dumps(finding)


def test_who_writes_to_a_backup_is_told_to_restore_it(filled, run, tmp_path):
    assert run("--store", filled.path, "backup", tmp_path / "b").status == 0
    done = run("--json", "--store", tmp_path / "b", "compact")
    assert done.status == 6
    assert f"ckptlog restore-store {tmp_path / 'b'} DIR" in done.error["hint"]
    assert " backup " not in done.error["hint"].partition("ckptlog ")[2]
