"""Owns the file that the tests of the database's life begin with."""

from __future__ import annotations

import pytest

from tests.views.healthy import AUTHOR, opened


@pytest.fixture
def path(tmp_path):
    """A healthy file that was closed."""
    path = tmp_path / "views" / "current.sqlite"
    view = opened(path)
    assert view.apply(AUTHOR.commits, AUTHOR.meta_of)
    view.close()
    return path
