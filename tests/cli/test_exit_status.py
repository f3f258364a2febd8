from __future__ import annotations

import pytest

from ckptlog import errors
from ckptlog.cli import exit_status
from ckptlog.cli.exit_status import status_of

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.CheckpointError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_code_has_a_status_of_its_own(kind):
    assert kind.code in exit_status.BY_CODE
    assert status_of(kind("x")) == exit_status.BY_CODE[kind.code]
    assert status_of(kind("x")) != 0


def test_no_code_is_left_over():
    assert set(exit_status.BY_CODE) == {kind.code for kind in KINDS}


def test_a_new_code_has_the_status_of_its_branch():
    class StrangeError(errors.BlobCorruptionError):
        code = "blob.strange"

    assert status_of(StrangeError("x")) == exit_status.CORRUPTION


def test_anything_else_is_unforeseen():
    assert status_of(ZeroDivisionError()) == exit_status.PARTIAL
