"""What of its descriptors a process lends to one task (storage/descriptor.py)."""

from __future__ import annotations

import resource

import pytest

from ckptlog.storage import descriptor


@pytest.mark.parametrize(
    ("soft", "share"), [(256, 32), (1024, 128), (10**6, 200), (3, 1), (resource.RLIM_INFINITY, 200)]
)
def test_the_share(monkeypatch, soft, share):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert descriptor.share(200, 8) == share
