"""The script that tries versions of LangGraph: its arguments; the rest of it is a by-hand check."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from tests.architecture.tree import ROOT
from tools import langgraph_probe, langgraph_versions


def test_a_combination_stands_for_requirements():
    assert langgraph_versions.combination("1.2/4.3") == [
        "langgraph==1.2.*",
        "langgraph-checkpoint==4.3.*",
    ]
    assert langgraph_versions.combination("0.6/2.1/0.3")[2] == "langchain-core==0.3.*"


@pytest.mark.parametrize("text", ["", "1.2", "1.2/4", "1.2/4.3/", "1.2.3/4.3", "a/b", "1.2/4.3 -e"])
def test_another_argument_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"such as 1\.2/4\.3"):
        langgraph_versions.combination(text)


def test_without_arguments_it_tries_those_of_the_page():
    assert len(langgraph_versions.arguments_of([])) == len(langgraph_versions.SEEN)
    assert len(langgraph_versions.arguments_of(["1.2/4.3", "0.6/2.1"])) == 2
    page = (ROOT / "specs" / "langgraph.md").read_text(encoding="utf-8")
    for text in langgraph_versions.SEEN:
        langgraph, checkpoint, *_ = text.split("/")
        assert f"\n| {langgraph}." in page
        assert f" | {checkpoint}." in page


def test_each_check_runs_with_the_version_that_is_here():
    checks = ["versions", *langgraph_versions.PARTS]
    done = subprocess.run(
        [sys.executable, langgraph_versions.PROBE, *checks], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_probe_knows_each_check():
    assert {*langgraph_versions.PARTS, "versions"} == langgraph_probe.CHECKS.keys()
    assert langgraph_probe.main(["nothing"]) == 2
    assert langgraph_versions.PACKAGES == langgraph_probe.PACKAGES
    assert langgraph_versions.ABSENT == langgraph_probe.ABSENT
