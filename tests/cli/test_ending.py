"""A signal in the middle of a rewind or a recovery: what was changed is put back."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from ckptlog.capture.directory.stage import STAGING, Stage
from ckptlog.recovery.ending import SignalledError, interruptible

_NAMES = "abcd"

# The first time that `c` has been put in place, the process gets a signal. nohup ignores SIGHUP, and
# a shell's background job SIGINT: here they are as in a terminal.
_PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from ckptlog.capture.directory.stage import Stage
from ckptlog.cli.main import main
put, sent = Stage.put, []
def end(self, staged, name, folder):
    placed = put(self, staged, name, folder)
    if name == "c" and not sent:
        sent.append(name)
        if "TERMINAL" in os.environ:
            os.close(int(os.environ["TERMINAL"]))
        os.kill(os.getpid(), int(sys.argv[1]))
    return placed
Stage.put = end
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def tree(tmp_path, run):
    """Return a directory that is not as it was captured."""
    root = tmp_path / "tree"
    root.mkdir()
    for name in _NAMES:
        (root / name).write_text("old")
    run("capture", root)
    for name in _NAMES:
        (root / name).write_text("newer")
    return root


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["rewind", "recover"])
def test_what_was_changed_is_put_back(run, tree, command, number):
    which = ["rewind", tree] if command == "rewind" else ["recover", "--store", tree / ".ckptlog"]
    words = [sys.executable, "-c", _PROGRAM, int(number), *which, "--yes"]
    done = subprocess.run([str(word) for word in words], capture_output=True, timeout=60)
    assert done.returncode == 128 + number, done.stderr
    assert b"Interrupted. [cli.interrupted]" in done.stderr
    assert {(tree / name).read_text() for name in _NAMES} == {"newer"}
    assert not (tree / STAGING).exists()
    again = run("recover", "--store", tree / ".ckptlog", "--resume", "--yes", "--json")
    assert again.document["status"] == "none"
    assert run("rewind", tree, "--to", "#1", "--yes").status == 0
    assert {(tree / name).read_text() for name in _NAMES} == {"old"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_resumed_command_was_to_find_is_put_back(run, tree, number):
    store = ["--store", tree / ".ckptlog"]
    named = ["run", *store, "--name", "job", "--dir", tree]
    for name in _NAMES:
        (tree / name).write_text("old")
    assert run(*named, "--", "false").status == 1
    for name in _NAMES:
        (tree / name).write_text("newer")
    words = [sys.executable, "-c", _PROGRAM, int(number), *named, "--resume"]
    words = [str(word) for word in (*words, "--", "touch", tree / "started")]
    done = subprocess.run(words, capture_output=True, timeout=60)
    assert done.returncode == 128 + number, done.stderr
    assert b"the command was not started" in done.stderr
    assert {(tree / name).read_text() for name in _NAMES} == {"newer"}
    assert not (tree / STAGING).exists()
    assert not (tree / "started").exists()
    assert run(*named, "--resume", "--", "true").status == 0
    assert {(tree / name).read_text() for name in _NAMES} == {"old"}


def test_so_it_is_where_the_terminal_is_gone(run, tree):
    """The bar that was drawn there cannot be wiped; nor can anything be told."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-c", _PROGRAM, int(signal.SIGHUP), "recover", "--store"]
    words = [str(word) for word in (*words, tree / ".ckptlog", "--yes")]
    environ = {**os.environ, "TERMINAL": str(ours), "TERM": "xterm"}
    pipes = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "pass_fds": [ours]}
    with subprocess.Popen(words, env=environ, **pipes) as running:
        os.close(theirs)
        os.close(ours)
        status = running.wait(timeout=60)
    assert status == 128 + signal.SIGHUP
    assert {(tree / name).read_text() for name in _NAMES} == {"newer"}


def test_handlers_are_as_before():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    others = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
        with pytest.raises(SignalledError) as caught, interruptible():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one does not wait
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, others)
    assert caught.value.status == 143


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_another_signal_at_once_does_not_stop_what_is_put_back(first, second):
    """Ctrl-C twice; a Ctrl-C that the program between the terminal and us passes on, too."""
    others = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    put_back = []

    def work():
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(second)
            put_back.append(True)

    try:
        with pytest.raises(SignalledError) as caught, interruptible():
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, others)
    assert (caught.value.status, put_back) == (128 + first, [True])


# The process gets a signal behind the N-th act of those that it does when the tree is as it shall
# be: the staging directory is emptied and removed, then the root has its mode.
_AT_THE_END = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from ckptlog.capture.directory import stage
from ckptlog.cli.main import main
left = [int(sys.argv[1])]
def counted(act):
    def counting(*given, **named):
        done = act(*given, **named)
        if os.path.exists("at the end"):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGTERM)
        return done
    return counting
for one in ("unlink", "rmdir", "fchmod", "chmod"):
    setattr(os, one, counted(getattr(os, one)))
close = stage.Stage.close
def closing(self, *, is_done):
    open("at the end", "w").close()
    close(self, is_done=is_done)
stage.Stage.close = closing
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [1, 2, 5, 6, 7])
def test_what_is_done_already_stays_done(run, tree, tmp_path, number):
    tree.chmod(0o700)
    assert run("capture", tree).status == 0
    for name in _NAMES:
        (tree / name).write_text("newest")
    tree.chmod(0o755)
    words = [sys.executable, "-c", _AT_THE_END, str(number), "rewind", str(tree), "--yes"]
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run(words, cwd=place, capture_output=True, timeout=60)
    assert done.returncode == 143, done.stderr
    assert {(tree / name).read_text() for name in _NAMES} == {"newer"}
    assert not (tree / STAGING).exists()
    assert tree.stat().st_mode & 0o777 == 0o700


def test_a_signal_before_anything_is_staged_leaves_nothing(tmp_path, monkeypatch):
    mkdir = os.mkdir

    def interrupted(*given, **named):
        mkdir(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "mkdir", interrupted)
    root = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(KeyboardInterrupt):
        Stage(root)
    os.close(root)
    assert not (tmp_path / STAGING).exists()


def test_a_later_signal_does_not_wait():
    program = """
import signal
from ckptlog.recovery import ending
ending._AT_ONCE_S = 0
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with ending.interruptible():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.raise_signal(signal.SIGTERM)
        print("still there", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


def test_a_thread_sets_no_handlers():
    before, found = signal.getsignal(signal.SIGTERM), []

    def look():
        with interruptible():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
