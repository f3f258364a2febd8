from __future__ import annotations

import pytest

from ckptlog.integrations.langgraph import CkptlogSaver


@pytest.fixture
def saver(tmp_path):
    with CkptlogSaver.open(tmp_path / "store") as opened:
        yield opened
