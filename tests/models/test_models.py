"""The protocols' models, by spin: what must hold holds, and each rule that is broken is missed."""

from __future__ import annotations

import re

import pytest

from tools import models

RUNS = models.runs()
README = (models.FOLDER / "README.md").read_text(encoding="utf-8")
FLAG = re.compile(r"\bBUG_[A-Z_]+\b")

needs_spin = pytest.mark.skipif(
    bool(models.missing()),
    reason=f"not here: {', '.join(models.missing())} (apt-get install spin gcc, as root)",
)


def case(run):
    marks = [pytest.mark.thorough] if run.is_long else []
    return pytest.param(run, id=run.name, marks=marks)


@needs_spin
@pytest.mark.parametrize("run", [case(run) for run in RUNS])
def test_what_comes_out(run):
    result = models.check(run)
    assert result.fault(run) == ""
    if run.fails:
        return
    assert result.states > 1000
    # A model in which nothing happens holds too: everything that writers and collectors can do
    # was done.
    assert {"Writer", "Collector"}.isdisjoint(result.unreached)


def test_each_flag_that_breaks_a_rule_has_a_run():
    for model in ("collection.pml", "log_slots.pml"):
        text = (models.FOLDER / model).read_text(encoding="utf-8")
        tried = {flag for run in RUNS if run.model == model for flag in run.flags}
        assert set(FLAG.findall(text)) == {flag for flag in tried if flag.startswith("BUG_")}


def test_each_broken_rule_has_a_twin_that_holds():
    holding = {(run.model, frozenset(run.flags)) for run in RUNS if not run.fails}
    for run in RUNS:
        broken = [flag for flag in run.flags if flag.startswith("BUG_")]
        assert len(broken) == bool(run.fails) == bool(run.rule)
        if run.fails:
            assert (run.model, frozenset(run.flags) - set(broken)) in holding, run.name


def test_the_page_tells_of_each_run_and_rule():
    for run in RUNS:
        assert f"`{run.name}`" in README
        for flag in run.flags:
            assert f"`{flag}`" in README or f"`{flag.partition('=')[0]}`" in README, flag
    assert set(FLAG.findall(README)) == {
        flag for run in RUNS for flag in run.flags if flag.startswith("BUG_")
    }
    rules = {run.rule for run in RUNS if run.rule}
    assert all(f"| {rule} |" in README for rule in rules)


# --- the runner itself ---------------------------------------------------------------------------


def test_a_search_that_was_cut_short_is_a_fault(monkeypatch):
    run = models.Run("x", "collection.pml")
    whole = models.Result(10, True, "", {}, 0.0)
    assert whole.fault(run) == ""
    assert "cut short" in models.Result(10, False, "", {}, 0.0).fault(run)
    assert "a counterexample" in models.Result(10, True, "assertion violated", {}, 0.0).fault(run)
    bug = models.Run("x", "collection.pml", fails="sound_")
    assert "no counterexample" in whole.fault(bug)
    assert "another" in models.Result(10, True, "invalid end state", {}, 0.0).fault(bug)
    assert models.Result(10, True, "assertion violated sound_", {}, 0.0).fault(bug) == ""


@needs_spin
def test_a_depth_that_is_too_small_is_noticed(monkeypatch):
    monkeypatch.setattr(models, "_DEPTH", 40)
    (run,) = [run for run in RUNS if run.name == "slots"]
    assert "cut short" in models.check(run).fault(run)


@needs_spin
def test_a_model_that_cannot_be_read_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "x.pml").write_text("init { nonsense }")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    with pytest.raises(models.CheckError, match=r"spin failed|gcc failed"):
        models.check(models.Run("x", "x.pml"))
