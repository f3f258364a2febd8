"""`ckptlog run` with real commands, real signals, and kills."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptlog import CheckpointManager, CheckpointState
from ckptlog.capture.capturer import Capturer
from ckptlog.service.command.process import is_running
from ckptlog.service.command.record import Record
from tests.tmpfs import mounted

PROGRAM = [sys.executable, "-m", "ckptlog", "run"]
WAIT_S = 60.0
_running: list[subprocess.Popen] = []


@pytest.fixture
def place(tmp_path):
    """Return a working directory with a file, and the environment of a command."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "kept.txt").write_text("as it was\n")
    return folder


def _environ(place):
    found = {key: value for key, value in os.environ.items() if not key.startswith("CKPTLOG_")}
    root = str(Path(__file__).resolve().parents[2])
    return {**found, "PYTHONPATH": root, "CKPTLOG_STORE": str(place.parent / "store")}


def _start(place, *words, program=PROGRAM, **options):
    """Start the program in a session of its own: it has no terminal."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    given = {"stdin": subprocess.DEVNULL, "start_new_session": True, **pipes, **options}
    words = [str(word) for word in words]
    running = subprocess.Popen([*program, *words], cwd=place, env=_environ(place), **given)
    _running.append(running)
    return running


def _run(place, *words):
    running = _start(place, "--name", "job", *words)
    out, err = running.communicate(timeout=WAIT_S)
    return subprocess.CompletedProcess(words, running.returncode, out, err.decode())


def _init(place):
    CheckpointManager(place.parent / "store").close()


def _manager(place):
    return CheckpointManager(place.parent / "store")


def _last(place):
    with _manager(place) as manager:
        return Record(manager, "job").last()


def _captures(place):
    with _manager(place) as manager:
        return Capturer(manager, "job/files").captures()


def _until(condition):
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to be")


def _shell(script):
    return ("--", "sh", "-c", script)


@pytest.fixture(autouse=True)
def _store(place):
    """Make the store; end, after the test, what it has started and not ended."""
    _init(place)
    yield
    for running in _running:
        if running.poll() is None:
            running.terminate()
            running.communicate()
    _running.clear()


# --- the end of a command -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "code", "name"),
    [
        ("exit 0", 0, 0, None),
        ("exit 3", 3, 3, None),
        ("kill -KILL $$", 137, None, "SIGKILL"),
        ("kill -TERM $$", 143, None, "SIGTERM"),
    ],
)
def test_the_status_is_the_commands(place, script, status, code, name):
    assert _run(place, *_shell(script)).returncode == status
    last = _last(place)
    assert (last.data["exit_code"], last.data["signal"]) == (code, name)
    assert last.state is (CheckpointState.FAILED if status else CheckpointState.COMPLETED)
    if status:
        assert last.metadata["error_info"]["message"].startswith("The command")
    assert last.data["resources"].keys() == {"user_s", "system_s", "max_rss_bytes"}
    assert last.data["started_at"] <= last.data["ended_at"]


def test_output_goes_on_unchanged_and_its_end_is_kept(place):
    code = "import os; os.write(1, b'a\\xff\\r\\nb'); os.write(2, b'err\\x00')"
    ran = _run(place, "--", sys.executable, "-c", code)
    assert ran.stdout == b"a\xff\r\nb"
    assert "err\x00" in ran.stderr
    output = _last(place).data["output"]
    assert "a\ufffd\r\nb" in output
    assert "err\x00" in output


def test_huge_output(place):
    code = "import sys\nfor n in range(300_000): print(n, 'é')\nsys.stderr.write('end')"
    ran = _run(place, "--", sys.executable, "-c", code)
    expected = "".join(f"{n} é\n" for n in range(300_000)).encode()
    assert ran.stdout == expected
    data = _last(place).data
    assert data["output_bytes"] == len(expected) + 3
    assert len(data["output"].encode()) <= 65536
    assert "299999 é\n" in data["output"]
    assert "\ufffd" not in data["output"]


def test_secrets_of_the_command_line_are_not_stored(place):
    ran = _run(place, *_shell("echo token=$1 >/dev/null"), "--password", "hunter22", "--api-key=k9")
    assert ran.returncode == 0
    last = _last(place)
    assert last.data["command"][-3:] == ["--password", "[redacted]", "--api-key=[redacted]"]
    assert "hunter22" not in last.task_title


def test_what_cannot_be_started(place):
    (place / "no_program").write_text("")
    assert _run(place, "--", "./nowhere").returncode == 127
    assert _last(place).metadata["error_info"]["type"] == "NotStarted"
    ran = _run(place, "--", "./no_program")
    assert ran.returncode == 126
    assert "cannot be started" in ran.stderr
    assert _last(place).state is CheckpointState.FAILED


def test_our_own_failures_have_their_status(place):
    assert _run(place).returncode == 125
    assert "There is no command" in _run(place, "--", "").stderr
    assert "[cli.usage]" in _run(place, "--nonsense", "--", "true").stderr
    assert _run(place, "--nonsense", "--", "true").returncode == 125
    assert _run(place, "--interval", "0", "--", "true").returncode == 125
    nowhere = place / "kept.txt"
    ran = _run(place, "--store", nowhere, "--", "touch", "started")
    assert ran.returncode == 125
    assert not (place / "started").exists()


def test_json_is_alone_on_stdout(place):
    ran = _run(place, "--json", *_shell("echo shown; exit 4"))
    document = json.loads(ran.stdout)
    assert (document["status"], document["state"], ran.returncode) == (4, "failed", 4)
    assert "shown" in ran.stderr
    assert document["data"]["output"] == "shown\n"


def test_words_after_the_dashes_are_the_commands(place):
    ran = _run(place, "--", sys.executable, "-c", "import sys; print(sys.argv[1:])", "--", "--json")
    assert ran.stdout == b"['--', '--json']\n"


def test_a_reader_that_goes_away_ends_the_command(place):
    running = _start(place, "--name", "job", "--", "yes")
    assert running.stdout.read(2) == b"y\n"
    running.stdout.close()
    running.stderr.read()
    running.stderr.close()
    assert running.wait(WAIT_S) == 141


# --- who keeps the pipes --------------------------------------------------------------------------


def test_a_child_in_the_background_does_not_hold_us(place):
    running = _start(place, "--name", "job", *_shell("sleep 60 & echo $! > child; echo done"))
    out, _ = running.communicate(timeout=WAIT_S)
    os.kill(int((place / "child").read_text()), signal.SIGKILL)
    assert (running.returncode, out) == (0, b"done\n")
    assert _last(place).state is CheckpointState.COMPLETED


@pytest.mark.parametrize("where", ["2>/dev/null", ">/dev/null", ">&2", ""])
@pytest.mark.parametrize("printer", ["yes", "sh -c 'while :; do echo y; sleep 0.01; done'"])
def test_a_child_that_prints_on_and_on_does_not_hold_us(place, where, printer):
    """What the command itself has printed is passed on; a child's endless rest is not."""
    sink = place.parent / "sink"
    # Where there is no end a test must not fill the disk.
    target = os.devnull if printer == "yes" else sink
    script = f"echo begin; {printer} {where} & echo $! > child; echo end"
    bounded = (
        f"ulimit -f 4000; exec {shlex.join(PROGRAM)} --name job -- sh -c {shlex.quote(script)}"
    )
    with open(target, "wb") as out:
        running = _start(place, stdout=out, stderr=out, program=["sh", "-c", bounded])
    try:
        status = running.wait(WAIT_S)
    finally:
        os.kill(int((place / "child").read_text()), signal.SIGKILL)
    assert status == 0
    if target == sink:
        assert {b"begin", b"end"} <= set(sink.read_bytes().split(b"\n"))
    assert _last(place).state is CheckpointState.COMPLETED


# --- signals --------------------------------------------------------------------------------------

_TRAPS = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import signal, sys, time
def end(number, frame):
    open("grandchild", "w").write(str(number)); sys.exit()
signal.signal(signal.SIGTERM, end)
open("ready", "w").write("")
time.sleep(60)
'''])
def end(number, frame):
    child.wait()
    open("saved", "w").write("at the last moment")
    sys.exit(CODE)
signal.signal(signal.SIGTERM, end)
time.sleep(60)
"""


@pytest.mark.parametrize("code", [0, 9])
def test_a_signal_goes_to_the_whole_group_and_what_it_saves_is_captured(place, code):
    script = _TRAPS.replace("CODE", str(code))
    running = _start(place, "--name", "job", "--", sys.executable, "-c", script)
    _until((place / "ready").exists)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=WAIT_S)
    assert running.returncode == code
    assert (place / "grandchild").read_text() == str(int(signal.SIGTERM))
    data = _last(place).data
    assert (data["exit_code"], data["stopped_by"]) == (code, "SIGTERM")
    newest = _captures(place)[0]
    assert (newest.id, newest.reason) == (data["capture"], "signal")
    (place / "saved").unlink()
    assert _run(place, "--resume", "--", "cat", "saved").stdout == b"at the last moment"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_command_that_a_signal_ends(place, number):
    # A shell without job control lets SIGINT be ignored in the background; python does not.
    code = "import signal, time; signal.signal(2, signal.SIG_DFL); open('r', 'w'); time.sleep(60)"
    running = _start(place, "--name", "job", "--", sys.executable, "-c", code)
    _until((place / "r").exists)
    running.send_signal(number)
    running.communicate(timeout=WAIT_S)
    assert running.returncode == 128 + number
    assert _last(place).data["signal"] == number.name


def test_on_a_terminal_the_command_has_it(place):
    code = "import sys; print(sys.stdin.readline()); open('r', 'w'); import time; time.sleep(60)"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place)
        os.execve(
            sys.executable,
            [*PROGRAM, "--name", "job", "--", sys.executable, "-c", code],
            _environ(place),
        )
    os.write(terminal, b"typed\n")
    _until((place / "r").exists)
    os.write(terminal, b"\x03")
    shown = b""
    while True:
        try:
            raw = os.read(terminal, 65536)
        except OSError:  # all have closed it
            break
        if not raw:
            break
        shown += raw
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130, shown
    assert _last(place).data["signal"] == "SIGINT"


# --- captures, kills, resuming --------------------------------------------------------------------

_STEPS = """
import os, time
if os.environ["CKPTLOG_ATTEMPT"] == "1":
    open("progress", "w").write("step 1")
    print("working", flush=True)
    while not os.path.exists("../go"):
        time.sleep(0.02)
    open("progress", "w").write("half of ste")
    open("rubbish", "w").write("")
    os.unlink("kept.txt")
    open("../spoilt", "w").write("")
    time.sleep(60)
print(os.environ["CKPTLOG_TASK"], open("progress").read(), open("kept.txt").read(), end="")
print(os.environ["CKPTLOG_RESUMED_FROM"], os.path.exists("rubbish"))
"""


def _killed(place):
    """Let a run be killed in the middle; return its good capture and what its command is known by."""
    interval = ("--interval", "0.1")
    running = _start(place, "--name", "job", *interval, "--", sys.executable, "-c", _STEPS)

    def captured():
        last = _last(place)
        found = _captures(place)
        is_known = last is not None and last.data.get("output") == "working\n"
        return found[0] if is_known and len(found) > 1 else None

    good = _until(captured)
    last = _last(place)
    running.send_signal(signal.SIGSTOP)  # no capture of what is spoilt
    (place.parent / "go").touch()
    _until((place.parent / "spoilt").exists)
    running.kill()
    running.wait(WAIT_S)
    running.stdout.close()
    running.stderr.close()
    return good, last.data["process"]


def test_killed_in_the_middle_and_resumed(place):
    good, command = _killed(place)
    assert good.reason == "interval"
    interrupted = _last(place)
    assert interrupted.state is CheckpointState.ACTIVE
    refused = _run(place, "--", "true")
    assert refused.returncode == 125
    assert "still runs" in refused.stderr
    ran = _run(place, "--resume", "--", sys.executable, "-c", _STEPS)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.decode() == f"job step 1 as it was\n{good.id} False\n"
    assert not is_running(command)
    last = _last(place)
    assert (last.data["attempt"], last.data["resumed_from"]) == (2, good.id)
    assert last.parent_checkpoint_id == interrupted.checkpoint_id
    with _manager(place) as manager:
        before = manager.get_checkpoint(interrupted.checkpoint_id)
        safety = Capturer(manager, "job/files").find(last.data["safety"])
    assert before.metadata["error_info"]["type"] == "Interrupted"
    assert safety.reason == "safety"
    assert last.data["safety"] in ran.stderr
    again = _run(place, "--resume", "--", "touch", "again")
    assert again.returncode == 0
    assert "complete already" in again.stderr
    assert not (place / "again").exists()


def test_resumed_without_a_rewind(place):
    _killed(place)
    script = 'cat progress; echo "$CKPTLOG_ATTEMPT ${CKPTLOG_RESUMED_FROM-none}"'
    ran = _run(place, "--resume", "--no-rewind", *_shell(script))
    assert ran.stdout == b"half of ste2 none\n"


def test_a_task_does_not_run_twice(place):
    running = _start(place, "--name", "job", *_shell("touch r; sleep 60"))
    _until((place / "r").exists)
    second = _run(place, "--resume", "--", "touch", "second")
    assert second.returncode == 125
    assert "[lease.held]" in second.stderr
    running.terminate()
    running.communicate(timeout=WAIT_S)
    assert not (place / "second").exists()


def test_the_first_resume_begins(place):
    ran = _run(place, "--resume", *_shell("echo $CKPTLOG_ATTEMPT; exit 1"))
    assert ran.stdout == b"1\n"
    assert _run(place, "--resume", *_shell("echo $CKPTLOG_ATTEMPT")).stdout == b"2\n"
    assert _run(place, *_shell("echo $CKPTLOG_ATTEMPT")).stdout == b"1\n"


def test_a_command_may_write_its_own_checkpoints(place):
    code = (
        "import os, msgspec\n"
        "from ckptlog import CheckpointManager\n"
        "from ckptlog.model.lease import Grant\n"
        "with CheckpointManager(os.environ['CKPTLOG_STORE']) as manager:\n"
        "    grant = msgspec.json.decode(os.environ['CKPTLOG_LEASE'], type=Grant)\n"
        "    lease = manager.adopt_lease(grant)\n"
        "    manager.create_checkpoint(os.environ['CKPTLOG_TASK'], 'Own', 7, lease=lease)\n"
    )
    ran = _run(place, "--", sys.executable, "-c", code)
    assert ran.returncode == 0, ran.stderr
    with _manager(place) as manager:
        steps = [one.step_number for one in manager.get_task_checkpoints("job")]
    assert sorted(steps) == [1, 7]
    assert _last(place).step_number == 1


def test_named_files_and_databases(place):
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect('data.db')\n"
        "db.execute('pragma journal_mode=wal')\n"
        "db.execute('create table t (n)'); db.execute('insert into t values (1)'); db.commit()\n"
        "open('note', 'w').write('first')\n"
        "sys.exit(5)\n"
    )
    named = ("--dir", ".", "--file", "note", "--sqlite", "data.db")
    refused = _run(place, *named, "--", sys.executable, "-c", code)
    assert refused.returncode == 125
    assert "data.db, " in refused.stderr
    assert "/note are not there" in refused.stderr
    ran = _run(place, "--may-appear", *named, "--", sys.executable, "-c", code)
    assert ran.returncode == 5
    names = {"directory", "file-note", "sqlite-data.db"}
    assert set(_captures(place)[0].components) == names
    with sqlite3.connect(place / "data.db") as database:
        database.execute("update t set n = 2")
    database.close()
    (place / "note").write_text("second")
    read = "import sqlite3; print(list(sqlite3.connect('data.db').execute('select * from t')))"
    ran = _run(place, "--resume", *named, "--", sys.executable, "-c", read)
    assert ran.stdout == b"[(1,)]\n", ran.stderr
    assert (place / "note").read_text() == "first"


def test_a_database_that_is_gone_comes_back(place):
    with sqlite3.connect(place / "data.db") as database:
        database.execute("create table t (n)")
    database.close()
    assert _run(place, "--sqlite", "data.db", "--", "false").returncode == 1
    (place / "data.db").unlink()
    code = "import sqlite3; print(list(sqlite3.connect('data.db').execute('select * from t')))"
    ran = _run(place, "--resume", "--sqlite", "data.db", "--", sys.executable, "-c", code)
    assert ran.stdout == b"[]\n", ran.stderr


def test_wrong_words_say_what_is_right_and_make_no_store(run, tmp_path):
    ran = run("run")
    assert (ran.status, "There is no command to run" in ran.err) == (125, True)
    assert "making a store" not in ran.err
    ran = run("run", "ls", "-la")
    assert ran.status == 125
    assert "Put -- before the command: ckptlog run -- COMMAND" in ran.err
    ran = run("run", "--interval=-1", "--", "true")
    assert "'-1' is not a number of seconds above 0" in ran.err
    for typed in ("0", "0.0", "x"):
        ran = run("run", "--interval", typed, "--", "true")
        assert ran.status == 125
        assert f"{typed!r} is not a number of seconds above 0" in ran.err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_output_of_a_command_is_not_mixed_with_json(place):
    ran = _run(place, "--json", *_shell("echo hi"))
    assert json.loads(ran.stdout)["state"] == "completed"
    assert "hi" in ran.stderr.splitlines()


def test_a_path_that_is_not_there_is_told(place):
    for name in ("--dir", "--sqlite", "--file"):
        ran = _run(place, name, "nope", *_shell("touch ran"))
        assert (ran.returncode, (place / "ran").exists()) == (125, False), name
        assert "nope is not there" in ran.stderr
        assert "the command was not started" in ran.stderr
    ran = _run(place, "--dir", "kept.txt", *_shell("touch ran"))
    assert (ran.returncode, (place / "ran").exists()) == (125, False)
    assert "kept.txt is no directory" in ran.stderr
    ran = _run(place, "--may-appear", "--dir", "nope", "--file", "kept.txt", *_shell("true"))
    assert ran.returncode == 0
    assert "nope was never there; nothing of it is saved" in ran.stderr
    assert "1 never there" in ran.stderr
    ran = _run(place, "--may-appear", "--json", "--dir", "nope", *_shell("true"))
    assert json.loads(ran.stdout)["absent"] == [str(place / "nope")]
    ran = _run(place, "--may-appear", "--dir", "made", *_shell("mkdir made; touch made/f"))
    assert "never there" not in ran.stderr
    assert set(_captures(place)[0].components) == {"directory"}


def test_a_mount_point_is_told_and_brought_back_as_a_directory_of_its_own(place):
    with mounted(place / "disk", 1 << 20) as disk:
        (disk / "f").write_text("as it was")
        ran = _run(place, *_shell("false"))
        assert f"warning: {disk} is another file system or mount" in ran.stderr
        (disk / "f").write_text("later")
        ran = _run(place, "--resume", "--", "true")
        assert (ran.returncode, (disk / "f").read_text()) == (125, "later")
        (place / ".ckptlogignore").write_text("/disk\n")
        (disk / "f").write_text("as it was")
        both = ("--name", "both", "--dir", ".", "--dir", "disk")
        ran = _run(place, *both, *_shell("echo later > disk/f; echo later > kept.txt; exit 1"))
        assert "another file system" not in ran.stderr
        for lost in (disk / "f", place / "kept.txt"):
            lost.write_text("lost\n")
        ran = _run(place, *both, "--resume", *_shell("cat disk/f kept.txt"))
        assert (ran.returncode, ran.stdout) == (0, b"later\nlater\n")


def test_only_the_newest_captures_are_kept(place):
    for number in range(4):
        _run(place, "--keep", "2", *_shell(f"echo {number} > f"))
    assert len(_captures(place)) == 2


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("exit 0", 125)])
def test_a_capture_that_fails_does_not_stop_the_command(place, script, status):
    ran = _run(place, "--file", ".", *_shell(f"touch ran; {script}"))  # no file
    assert ran.returncode == status
    assert (place / "ran").exists()
    assert "warning: a capture failed" in ran.stderr
    assert ("the status is 125, because" in ran.stderr) is (status == 125)
    last = _last(place)
    assert last.data["exit_code"] == int(script[-1])
    assert last.data["capture_fault"].startswith("a capture failed: ")
    assert "the command was not started" not in ran.stderr
    again = _run(place, "--resume", *_shell("touch again"))
    assert (again.returncode, (place / "again").exists()) == (0, True)
    assert "not captured at its end" in again.stderr
    assert _last(place).data["attempt"] == 2
    assert _run(place, "--resume", "--", "false").returncode == 0  # now it is complete


def test_a_file_that_is_written_all_the_time_is_captured(place):
    code = (
        "import os\n"
        "with open('log', 'w') as log:\n"
        "    for _ in range(20_000):\n"
        "        if os.path.exists('../go'): break\n"
        "        log.write('x' * 1000); log.flush()\n"
        "        if log.tell() > 30_000_000: log.seek(0)\n"
    )
    words = ("--interval", "0.2", "--", sys.executable, "-c", code)
    running = _start(place, "--name", "job", *words)
    _until(lambda: len(_captures(place)) > 1 or running.poll() is not None)
    (place.parent / "go").touch()
    running.communicate(timeout=WAIT_S)
    assert running.returncode == 0


# --- another place --------------------------------------------------------------------------------


def _elsewhere(place):
    other = place.parent / "other"
    other.mkdir()
    (other / "precious.txt").write_text("never captured\n")
    return other


@pytest.mark.parametrize("named", [(), ("--file", "kept.txt"), ("--dir", "sub")])
def test_what_was_captured_elsewhere_is_not_put_here(place, named):
    other = _elsewhere(place)
    for folder in (place, other):
        (folder / "sub").mkdir()
    (other / "kept.txt").write_text("the other one\n")
    (other / "sub" / "own").touch()
    assert _run(place, *named, *_shell("exit 1")).returncode == 1
    before = {one: one.is_file() and one.read_text() for one in other.rglob("*")}
    ran = _run(other, "--resume", *named, "--", "true")
    assert ran.returncode == 125
    word = named[-1] if named else ""
    assert str(place / word) in ran.stderr
    assert str(other / word) in ran.stderr
    assert "--moved" in ran.stderr
    assert {one: one.is_file() and one.read_text() for one in other.rglob("*")} == before
    assert _run(place, "--resume", *named, "--", "true").returncode == 0


def test_what_was_moved_is_told_to_be(place):
    assert _run(place, *_shell("exit 1")).returncode == 1
    other = _elsewhere(place)
    ran = _run(other, "--resume", "--moved", *_shell("cat kept.txt"))
    assert (ran.returncode, ran.stdout) == (0, b"as it was\n")
    assert not (other / "precious.txt").exists()
    safety = _last(other).data["safety"]
    with _manager(place) as manager:
        info = Capturer(manager, "job/files").find(safety)
    assert [one.location["path"] for one in info.components.values()] == [str(other)]


def test_another_path_to_the_same_place_is_that_place(place):
    assert _run(place, *_shell("exit 1")).returncode == 1
    link = place.parent / "link"
    link.symlink_to(place)
    running = _start(place, "--name", "job", "--resume", "--dir", link, *_shell("exit 0"))
    err = running.communicate(timeout=WAIT_S)[1]
    assert running.returncode == 0, err
