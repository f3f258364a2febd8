"""Commands that take a second path say what is wrong with it, and what would be right."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture
def places(tmp_path, filled):
    (tmp_path / "plain").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    shutil.copytree(filled.path, tmp_path / "copy")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["repair", "--from", "none"], (3, "store.missing", "backup of it")),
        (["repair", "--from", "empty"], (3, "store.missing", "backup of it")),
        (["repair", "--from", "plain"], (3, "store.not_a_store", "backup of it")),
        (["repair", "--from", "other"], (3, "store.not_a_store", "backup of it")),
        (["restore-store", "none", "r"], (3, "store.missing", "Correct the path")),
        (["restore-store", "empty", "r"], (4, "backup.foreign", "`ckptlog backup` made")),
        (["restore-store", "plain", "r"], (4, "backup.foreign", "`ckptlog backup` made")),
        (["restore-store", "copy", "r"], (4, "backup.foreign", "copy backup DEST")),
        (["restore-store", "b", "plain"], (4, "restore.conflict", "new or an empty directory")),
        (["restore-store", "b", "other"], (4, "restore.conflict", "new or an empty directory")),
        (["backup", "plain"], (4, "backup.foreign", "new or an empty directory")),
        (["backup", "other"], (4, "backup.foreign", "new or an empty directory")),
    ],
)
def test_a_wrong_second_path(run, places, filled, words, answer):
    status, code, hint = answer
    assert run("--store", filled.path, "backup", places / "b").status == 0
    paths = [
        places / word if (places / word).exists() or word in ("none", "r") else word
        for word in words
    ]
    paths[0] = words[0]
    done = run("--store", filled.path, "--json", *paths)
    assert (done.status, done.error["code"]) == (status, code)
    assert hint in done.error["hint"]
    assert "ckptlog init" not in done.error["hint"]
    assert (places / "plain").read_text() == "text"


@pytest.mark.parametrize(
    "words",
    [
        ["repair", "--from", ""], ["backup", ""], ["restore-store", "", "r"], ["restore-store", "b", " "],
        ["import", "archive", ""], ["import", "legacy", ""], ["import", "transcript", ""],
        ["export", "history", ""], ["export", "archive", "t", "--to", ""], ["audit", "publish", ""],
        ["audit", "head", "--out", ""],
    ],
)  # fmt: skip
def test_an_empty_path_names_nothing(run, filled, words):
    assert run("--store", filled.path, *words).status == 2


def test_a_device_in_the_place_of_a_new_store(run, filled, tmp_path):
    """Told as what it is, and not by the file system that devices lie on."""
    run("--store", filled.path, "backup", tmp_path / "b")
    done = run("--json", "restore-store", tmp_path / "b", os.devnull)
    assert (done.status, done.error["code"]) == (4, "restore.conflict")
    assert "new or an empty directory" in done.error["hint"]
