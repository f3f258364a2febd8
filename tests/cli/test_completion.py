from __future__ import annotations

import shutil
import subprocess

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_knows_the_commands_and_is_accepted_by_the_shell(run, shell):
    done = run("completion", shell)
    assert (done.status, done.err) == (0, "")
    for word in ("verify", "delete-task", "--kill-after", "transcript"):
        assert word in done.out
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.out, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_files_and_folders_complete_as_such(run):
    script = run("completion", "bash").out
    assert "_ckptlog_restore___out_COMPGEN=_shtab_compgen_files" in script
    assert "__store_COMPGEN=_shtab_compgen_dirs" in script


def test_json(run):
    document = run("completion", "zsh", "--json").document
    assert document["shell"] == "zsh"
    assert "#compdef ckptlog" in document["script"]
