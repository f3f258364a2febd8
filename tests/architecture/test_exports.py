"""The public face is a list: sorted, complete, and everything on it is there."""

from __future__ import annotations

import builtins
import importlib

import pytest

from ckptlog import errors
from tests.architecture.tree import PACKAGE

if not (PACKAGE / "__init__.py").exists():
    pytest.skip("the public face is not there yet", allow_module_level=True)

# By name: its exports are made when asked for, so a type checker cannot know them.
ckptlog = importlib.import_module("ckptlog")


def test_the_list_is_sorted_and_without_repeats():
    assert list(ckptlog.__all__) == sorted(set(ckptlog.__all__))


@pytest.mark.parametrize("name", ckptlog.__all__)
def test_everything_listed_is_there(name):
    assert getattr(ckptlog, name) is not None
    assert name in dir(ckptlog)


def test_no_underscore_name_is_public():
    assert [
        name for name in ckptlog.__all__ if name.startswith("_") and name != "__version__"
    ] == []


def test_every_error_is_public():
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.CheckpointError)
    }
    assert tree <= set(ckptlog.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ckptlog.no_such_name


def test_the_names_of_the_specification_are_public():
    wanted = {
        "CheckpointConfiguration",
        "CheckpointData",
        "CheckpointErrorRecovery",
        "CheckpointIndex",
        "CheckpointManager",
        "CheckpointPerformanceRequirements",
        "CheckpointState",
        "FileSystemCheckpointStorage",
        "TaskCheckpointWrapper",
    }
    assert wanted <= set(ckptlog.__all__)


def test_a_star_import_hides_nothing_of_pythons_own():
    assert not set(ckptlog.__all__) & set(vars(builtins))
    names: dict[str, object] = {}
    exec("from ckptlog import *\nwith open('/dev/null') as file: pass", names)
    assert "CheckpointManager" in names
    assert "open" in dir(ckptlog)
    assert ckptlog.open.__name__ == "open_store"
