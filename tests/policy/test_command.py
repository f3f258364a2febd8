"""Commands are values: what they say by default keeps things as they are."""

from __future__ import annotations

import pytest

from ckptlog.policy.command import Change, Create, Delete, Payloads


def test_a_bare_change_keeps_everything():
    change = Change(actor="me", command="c", checkpoint="x")
    assert change.payloads == Payloads()
    assert (change.payloads.data, change.payloads.meta) == (None, None)
    unset = (change.state, change.step, change.total, change.based_on, change.expected)
    assert unset == (None,) * 5
    assert change.fingerprint == ""


def test_commands_are_frozen_and_comparable():
    create = Create(actor="me", command="c", task="t", step=1, payloads=Payloads())
    assert create == Create(actor="me", command="c", task="t", step=1, payloads=Payloads())
    delete = Delete(actor="me", command="c", checkpoint="x")
    assert delete != Delete(actor="me", command="c", checkpoint="y")
    with pytest.raises(AttributeError):
        create.step = 2  # type: ignore[misc]
