"""The way in and the ways out: arguments, statuses, streams that go away, what nobody foresaw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptlog.cli import main as program
from ckptlog.cli import stats

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"rich", "msgspec", "sqlite3", "numpy", "blake3", "zstandard", "shtab", "json", "pyfastcdc"}


def start(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "ckptlog", *map(str, words)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        **{"capture_output": True, **options},
    )


def modules_after(statement):
    script = f"{statement}\nimport sys\nprint('MODULES', *sys.modules)"
    environment = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return set(done.stdout.split("MODULES", 1)[1].split())


def test_help_loads_nothing_heavy():
    loaded = modules_after("from ckptlog.cli.main import main\nassert main(['--help']) == 0")
    assert "ckptlog.cli.stats" in loaded
    assert loaded.isdisjoint(HEAVY)
    rooms = {name for name in loaded if name.startswith(("ckptlog.manager", "ckptlog.repository"))}
    # Where a store may be: standard library only.
    assert rooms <= {"ckptlog.repository", "ckptlog.repository.discovery"}


def test_help_and_version(run):
    assert "exit status" in run("--help").out
    assert run("log", "--help").status == 0
    done = run("--version")
    assert (done.status, done.out.split()[0], done.err) == (0, "ckptlog", "")


def test_python_dash_m():
    done = start("--version")
    assert (done.returncode, done.stderr) == (0, "")


def test_no_command_prints_the_help_as_an_error(run):
    done = run()
    assert (done.status, done.out) == (2, "")
    assert "COMMAND" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["lst"],
        ["list", "--state", "done"],
        ["list", "--limit", "0"],
        ["list", "--since", "soon"],
        ["show"],
        ["show", "x", "--at", "-1"],
        ["import", "zip"],
        ["list", "--stor", "x"],
        ["completion", "cmd"],
        ["init", "a", "b"],
    ],
)
def test_wrong_arguments(run, words):
    done = run(*words)
    assert (done.status, done.out) == (2, "")
    assert "[cli.usage]" in done.err
    assert "--help" in done.err
    done = run("--json", *words)
    assert (done.status, done.out, done.error["code"]) == (2, "", "cli.usage")


def test_the_help_that_tells_more_is_the_command_s(run):
    assert "See `ckptlog recover --help`." in run("recover", "--list").err
    assert "See `ckptlog --help`." in run("--nosuch").err


@pytest.mark.parametrize("is_first", [True, False])
def test_global_options_stand_before_and_after_the_command(run, filled, is_first):
    options = ["--store", filled.path, "--json"]
    done = run(*options, "stats") if is_first else run("stats", *options)
    assert done.status == 0
    assert done.document["store"] == str(filled.path)


def test_a_discovered_store_is_named_on_stderr(run, filled, monkeypatch):
    done = run("--store", filled.path, "stats")
    assert done.err == ""
    monkeypatch.setenv("CKPTLOG_STORE", str(filled.path))
    done = run("stats")
    assert done.err == f"store {filled.path} ($CKPTLOG_STORE)\n"
    assert run("stats", "--json").err == ""
    monkeypatch.delenv("CKPTLOG_STORE")
    assert run("init").status == 0
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert ".ckptlog (found from here upwards)" in run("stats").err


def test_no_store_is_found(run):
    done = run("list")
    assert (done.status, done.out) == (3, "")
    assert "[store.missing]" in done.err
    assert "ckptlog init" in done.err
    assert run("list", "--json").error["code"] == "store.missing"


def test_what_nobody_foresaw_is_one_line_and_a_hint(run, filled, monkeypatch):
    def fail(_context):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(stats, "run_stats", fail)
    done = run("--store", filled.path, "stats")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("ckptlog: Unexpected ZeroDivisionError: by nothing")
    assert "CKPTLOG_DEBUG=1" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("CKPTLOG_DEBUG", "1")
    assert "Traceback" in run("--store", filled.path, "stats").err
    monkeypatch.setenv("CKPTLOG_DEBUG", "0")
    assert "Traceback" not in run("--store", filled.path, "stats").err


def test_an_interrupted_run(run, monkeypatch):
    def interrupt(_context):
        raise KeyboardInterrupt

    monkeypatch.setattr(stats, "run_stats", interrupt)
    done = run("stats", "--json")
    assert (done.status, done.error["code"]) == (130, "cli.interrupted")


def test_an_error_of_the_system_has_the_status_of_storage(run, monkeypatch):
    def refuse(_context):
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr(stats, "run_stats", refuse)
    done = run("stats", "--json")
    assert (done.status, done.error["code"]) == (6, "storage.denied")
    assert "/some/file" in done.error["message"]


def many_events(path):
    import ckptlog

    with ckptlog.CheckpointManager(path) as manager, manager.batch() as batch:
        for number in range(2000):
            batch.create_checkpoint("job", "A job", number + 1)


# Whether an error shows at the write or at the flush depends on the buffer.
BUFFERS = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


@BUFFERS
def test_a_reader_that_goes_away(tmp_path, unbuffered):
    many_events(tmp_path / "store")
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptlog", "--store", str(tmp_path / "store"), "log"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().split()[0] == "0"
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@BUFFERS
def test_a_full_disk_under_stdout_is_told(filled, unbuffered):
    with open("/dev/full", "w") as full:
        done = start(
            *("--store", filled.path, "list", "--json"),
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            capture_output=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 6
    told = json.loads(done.stderr)
    assert told["code"] == "storage.full"
    assert told["message"].startswith("Standard output cannot be written: No space left")
    assert told["context"]["path"] == "<stdout>"
    assert "stays done" in told["hint"]


def test_a_closed_stdout_is_no_reason_to_fail(filled):
    done = subprocess.run(
        f'"{sys.executable}" -m ckptlog --store "{filled.path}" list >&-',
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_of_another_encoding(filled, tmp_path):
    import ckptlog

    with ckptlog.CheckpointManager(filled.path) as manager:
        name = manager.create_checkpoint("jöb", "日本", 1, "größer")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for words in (["list"], ["show", name], ["list", "--json"], ["log"]):
        done = start("--store", filled.path, *words, env=environment)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout.isascii()
    listed = start("--store", filled.path, "list", "--json", "--task", "jöb", env=environment)
    assert json.loads(listed.stdout)["task_id"] == "jöb"


def test_every_command_takes_json():
    parser = program.build_parser()
    words = {"show": ["x"], "history": ["x"], "diff": ["a", "b"], "restore": ["x"]}
    words |= {"delete": ["x"], "delete-task": ["x"], "completion": ["bash"]}
    words |= {"import": ["legacy", "x"], "export": ["history", "x"]}
    words |= {"pin": ["x"], "unpin": ["x"]}
    words |= {"backup": ["x"], "restore-store": ["x", "y"]}
    words |= {"bisect": ["--task", "t", "--expression", "step_number > 1"]}
    (commands,) = (action for action in parser._actions if action.dest == "command")
    assert commands.choices
    for name in commands.choices:
        parsed = parser.parse_args([name, *words.get(name, []), "--json", "--store", "s"])
        assert (parsed.json, parsed.store) == (True, "s"), name


def test_an_error_says_whether_a_retry_can_help(run):
    done = run("--json", "lst")
    assert list(done.error) == ["retryable", "code", "message", "hint", "context"]
    assert done.error["retryable"] is False
    assert run("--json", "--store", "none", "list").error["retryable"] is False


def test_what_follows_two_dashes_is_no_option(run):
    done = run("show", "--", "--json")
    assert done.status == 3
    assert done.err.startswith("ckptlog: ")


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_an_interrupt_during_the_imports(words):
    script = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "ckptlog.cli.diff":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from ckptlog.cli.entry import run
raise SystemExit(run())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, "")
    if words:
        assert json.loads(done.stderr)["code"] == "cli.interrupted"
    else:
        assert done.stderr == "ckptlog: Interrupted. [cli.interrupted]\n"


def test_the_way_in_loads_next_to_nothing():
    loaded = modules_after("import ckptlog.cli.entry")
    own = {name for name in loaded if name.startswith("ckptlog")}
    assert own == {"ckptlog", "ckptlog.cli", "ckptlog.cli.entry"}
    assert "argparse" not in loaded
