"""What adapters ask of decisions: lives of a task, one child only, late parents, guarded deletes."""

from __future__ import annotations

import pytest

from ckptlog.errors import ConflictError, CreationRefusedError
from ckptlog.policy.command import Change, Delete, DeleteTask
from ckptlog.policy.decide import Stale
from tests.policy.state_double import Truth, payloads


@pytest.fixture
def truth():
    return Truth()


def delete_task(truth, task="t"):
    command = DeleteTask(actor="me", command=truth.new_id(), task=task, based_on=truth.position)
    return truth.do(command)


def test_an_id_made_for_another_life_of_the_task_is_made_again(truth):
    assert truth.create(checkpoint="a", incarnation=0) == "a"
    delete_task(truth)
    delete_task(truth, "other")
    for stale in (0, 2):
        assert "Stale" in truth.create(checkpoint="b", incarnation=stale)
    assert truth.create(checkpoint="b", incarnation=1) == "b"
    assert truth.create(checkpoint="c") == "c"


def test_one_child_only(truth):
    truth.create(checkpoint="p", is_only_child=True)
    truth.create(checkpoint="c", parent="p", is_only_child=True)
    for options in ({"parent": "p"}, {}):
        with pytest.raises(ConflictError):
            truth.create(checkpoint="d", is_only_child=True, **options)
    # Another namespace, another task, and who does not ask.
    truth.create(checkpoint="e", parent="p", is_only_child=True, namespace="n")
    truth.create("other", checkpoint="f", is_only_child=True)
    truth.create(checkpoint="g", parent="p")


def test_a_child_that_is_deleted_or_not_whole_yet_takes_no_place(truth):
    truth.create(checkpoint="p")
    truth.create(checkpoint="early", parent="p", payloads=payloads(meta=None))
    truth.create(checkpoint="c", parent="p", is_only_child=True)
    truth.do(Delete(actor="me", command=truth.new_id(), checkpoint="c"))
    truth.create(checkpoint="d", parent="p", is_only_child=True)


def test_a_change_may_name_another_parent(truth):
    truth.create(checkpoint="p")
    truth.create(checkpoint="c", payloads=payloads(meta=None))
    truth.change("c", parent="p", payloads=payloads(), is_only_child=True)
    assert truth.events[-1].subject.parent == "p"
    truth.change("c")
    assert truth.events[-1].subject.parent == "p"
    truth.change("c", parent="p", is_only_child=True)  # its own place
    truth.create(checkpoint="d", payloads=payloads(meta=None))
    with pytest.raises(ConflictError):
        truth.change("d", parent="p", payloads=payloads(), is_only_child=True)
    truth.change("d", parent="", payloads=payloads())


def test_a_deleted_parent_may_be_accepted(truth):
    truth.create(checkpoint="p")
    truth.do(Delete(actor="me", command=truth.new_id(), checkpoint="p"))
    with pytest.raises(CreationRefusedError):
        truth.create(checkpoint="c", parent="p")
    assert truth.create(checkpoint="c", parent="p", is_late_accepted=True) == "c"


def test_a_delete_that_was_chosen_too_early_is_chosen_again(truth):
    truth.create(checkpoint="a")
    truth.create("other", checkpoint="b")
    position = truth.position
    truth.change("b")

    def delete(name, based_on):
        return truth.do(
            Delete(actor="me", command=truth.new_id(), checkpoint=name, based_on=based_on)
        )

    assert isinstance(delete("b", position), Stale)
    assert delete("a", position) is True
    assert isinstance(delete("a", truth.position), Stale)  # gone: the choice was of another time
    assert isinstance(
        truth.do(Change(actor="me", command=truth.new_id(), checkpoint="b", based_on=0)), Stale
    )
