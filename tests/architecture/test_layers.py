"""The rooms import downwards only, and the checker that says so finds every kind of breach."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tools import layer_check

SETTINGS = """
[tool.layers]
package = "house"
order = [["errors"], ["cellar"], ["left", "right"], ["roof"]]
"""


def house(folder: Path, **modules: str) -> Path:
    """Make a small package with one room per level and some modules of the test's own."""
    (folder / "pyproject.toml").write_text(SETTINGS)
    files = {"__init__": "", "errors": "", "cellar/__init__": "", "cellar/wine": ""}
    files |= {"left/__init__": "", "right/__init__": "", "roof": ""}
    files |= {name.replace("__in__", "/"): text for name, text in modules.items()}
    for name, text in files.items():
        path = folder / "house" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_project_has_no_breach():
    assert [str(breach) for breach in layer_check.check_project(ROOT)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import house.errors",
        "from house.cellar import wine",
        "from house.cellar.wine import bottle",
        "from ..cellar import wine",
        "from . import neighbour",
        "import json, os.path",
        "from household import roof",
    ],
)
def test_allowed(tmp_path, text):
    assert layer_check.check_project(house(tmp_path, left__in__door=text)) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import house.roof", "upwards"),
        ("import json, house.roof as r", "upwards"),
        ("from house import roof", "upwards"),
        ("from house.roof import tile", "upwards"),
        ("from ..roof import tile", "upwards"),
        ("from .. import roof", "upwards"),
        ("from house.right import x", "sideways"),
        ("def f():\n    import house.right", "sideways"),
        ("if TYPE_CHECKING:\n    from house.roof import Tile", "upwards"),
        ("try:\n    import house.roof\nexcept ImportError:\n    pass", "upwards"),
        ("import importlib\nimportlib.import_module('house.roof')", "upwards"),
        ("__import__('house.right.x')", "sideways"),
        ("import house.attic", "attic"),
        ("import house", "front door"),
        ("from house import Everything", "front door"),
    ],
)
def test_breaches_are_found(tmp_path, text, reason):
    found = layer_check.check_project(house(tmp_path, left__in__door=text))
    assert len(found) == 1
    assert reason in found[0].reason
    assert found[0].path.name == "door.py"
    marks = [n for n, line in enumerate(text.splitlines(), 1) if "house" in line or ".." in line]
    assert [found[0].line] == marks


def test_a_room_inside_its_init_counts(tmp_path):
    found = layer_check.check_project(house(tmp_path, left__in____init__="from ..roof import x"))
    assert [breach.path.parent.name for breach in found] == ["left"]


def test_an_unlisted_room_is_a_breach(tmp_path):
    found = layer_check.check_project(house(tmp_path, attic="x = 1"))
    assert "'attic' is not listed" in str(found[0])


def test_the_front_door_sees_everything(tmp_path):
    project = house(tmp_path)
    (project / "house" / "__init__.py").write_text("from house import roof, left, right")
    assert layer_check.check_project(project) == []


def test_the_top_comes_in_through_the_front_door(tmp_path):
    project = house(tmp_path, roof="import house\nfrom house import Everything")
    assert layer_check.check_project(project) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "needs `package` and `order`"),
        ("[tool.layers]\npackage = 'house'\norder = 3", "needs `package` and `order`"),
        ("[tool.layers]\npackage = 'house'\norder = [['a'], ['a']]", "names a twice"),
        ("[tool.layers]\npackage = 'home'\norder = [['a']]", "not there"),
    ],
)
def test_bad_settings_say_so(tmp_path, capsys, settings, message):
    house(tmp_path)
    (tmp_path / "pyproject.toml").write_text(settings)
    assert layer_check.main([str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_the_exit_status_tells(tmp_path, capsys):
    assert layer_check.main([str(house(tmp_path))]) == 0
    assert layer_check.main([str(house(tmp_path, errors="import house.roof"))]) == 1
    assert "errors imports roof (upwards: house.roof)" in capsys.readouterr().out
