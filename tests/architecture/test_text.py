"""No file of the project tells where it was made, or where its packages come from."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.architecture.tree import ROOT, text_files

# Put together from parts, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile("|".join(rf"(?<![\w.])/{name}/" for name in ("work", "root", "opt")))
INDEX_ADDRESSES = re.compile(
    "|".join(
        [
            "index" + "[-_]url",
            "find" + "-links",
            "trusted" + "-host",
            "PIP" + "_INDEX",
            "/sim" + "ple/",
        ]
    )
)


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, INDEX_ADDRESSES], ids=["path", "index"])
def test_no_file_names_this_machine(pattern):
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_the_patterns_find_what_they_look_for():
    assert MACHINE_PATHS.search("cd /" + "work/main")
    assert MACHINE_PATHS.search('"/' + 'root/x"')
    assert not MACHINE_PATHS.search("task/" + "work/1")
    assert INDEX_ADDRESSES.search("--extra-index" + "-url=https://example.org/")


def test_every_constraint_is_exact():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    assert pins == sorted(pins, key=str.lower)


def test_every_direct_dependency_is_pinned():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    wanted += settings["build-system"]["requires"]
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in wanted}
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {line.split("==")[0].lower() for line in text.splitlines() if "==" in line}
    assert names - pinned == set()
