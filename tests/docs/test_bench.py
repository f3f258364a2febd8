"""The measuring scripts can be started, and count right; no time is ever judged here."""

from __future__ import annotations

import os
import re
import subprocess
from importlib import import_module

import pytest

from tests.architecture.tree import ROOT
from tools.bench import measure, workload
from tools.bench.measure import Contestant, Round

SCRIPTS = (
    *("create", "read", "size", "startup", "requirements", "growth", "hot"),
    *("follow", "past", "history", "backup", "compact", "transparency", "verify", "sqlite"),
    *("loop", "scale"),
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_say_how_they_are_started(name, monkeypatch, capsys):
    module = import_module(f"tools.bench.{name}")
    about = module.__doc__ or ""
    assert f"tools/bench/run {name}" in about
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as leaving:
        module.main()
    assert leaving.value.code == 0
    told = set(re.findall(r"--[a-z]+", about))
    assert told <= set(re.findall(r"--[a-z]+", capsys.readouterr().out))


def test_the_starter_names_every_script():
    starter = ROOT / "tools" / "bench" / "run"
    assert os.access(starter, os.X_OK)
    found = subprocess.run([starter], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert set(SCRIPTS) <= set(found.stderr.partition("names: ")[2].split())


def test_percentiles():
    values = [float(number) for number in range(100, 0, -1)]
    assert measure.percentile(values, 0.5) == 51
    assert measure.percentile(values, 0.99) == 100
    assert measure.percentile([3.0], 0.99) == 3


def test_ratios_are_those_of_each_round():
    slow = Contestant("slow", lambda: Round(10, 2.0, 2.0, [0.2] * 10))
    fast = Contestant("fast", lambda: Round(10, 1.0, 1.0, [0.1] * 10))
    measure.alternate([slow, fast], 3)
    assert measure.rate_ratios(fast, slow) == [2, 2, 2]
    assert measure.time_ratios(fast, slow) == [0.5, 0.5, 0.5]
    assert fast.per_second == 10


def test_every_contestant_begins_in_turn():
    order: list[str] = []

    def contestant(name):
        def run():
            order.append(name)
            return Round(1, 1.0, 1.0, [1.0])

        return Contestant(name, run)

    measure.alternate([contestant(name) for name in "abc"], 3)
    assert "".join(order) == "abcbcacab"


def test_threads_share_the_work_and_tell_of_faults():
    done: list[int] = []
    found = measure.timed_in_threads(done.append, list(range(50)), 4)
    assert sorted(done) == list(range(50))
    assert (found.operations, len(found.durations_s)) == (50, 50)
    with pytest.raises(ZeroDivisionError):
        measure.timed_in_threads(lambda number: 1 // number, [1, 0], 2)


@pytest.mark.parametrize(
    ("figure", "bounds", "word"),
    [
        (2.0, {"least": 1.6}, "met"),
        (1.0, {"least": 1.6}, "MISSED"),
        (-0.1, {"most": 100}, "met"),
        (101.0, {"most": 100}, "MISSED"),
        (5.0, {}, ""),
    ],
)
def test_a_figure_is_judged_by_its_target(figure, bounds, word, capsys):
    measure.judge("it", figure, **bounds)
    assert capsys.readouterr().out.split()[-1] == word or not word


def test_workloads_are_the_same_each_time():
    first, second = (workload.SmallWorkload().take(3) for _ in range(2))
    assert first == second
    sizes = [len(workload.as_text(one.state)) for one in first]
    assert all(900 < size < 1100 for size in sizes)
    states = list(workload.growing(3, last_bytes=300_000))
    assert states == list(workload.growing(3, last_bytes=300_000))
    assert len(workload.as_text(states[-1])) > 280_000
