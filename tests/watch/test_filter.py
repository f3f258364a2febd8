from __future__ import annotations

import pytest

from ckptlog.errors import ArgumentError
from ckptlog.model.entry import Entry
from ckptlog.model.event import Event, Subject
from ckptlog.watch.filter import EventFilter, predicate


def entry(kind="checkpoint.created", *, actor="ada", state="created", **subject):
    event = Event(
        actor=actor, id="i", schema=1, state=state, subject=Subject(**subject), time="t", type=kind
    )
    return Entry(event, 1, "log/x", 100, 10, 0)


@pytest.mark.parametrize(
    ("wanted", "yes", "no"),
    [
        ({"types": "checkpoint.created"}, entry(), entry("checkpoint.updated")),
        ({"types": "created"}, entry(), entry("task.deleted")),
        ({"types": ["completed", "task.deleted"]}, entry("task.deleted"), entry()),
        ({"types": "checkpoint.*"}, entry("checkpoint.deleted"), entry("task.deleted")),
        ({"types": ("clean*", "failed")}, entry("cleanup.later"), entry("checkpoint.completed")),
        ({"types": []}, None, entry()),
        ({"types": "*"}, entry("anything.at.all"), None),
        ({"types": "deleted"}, entry("checkpoint.deleted"), entry("task.deleted")),
        ({"tasks": "t"}, entry(task="t"), entry(task="tt")),
        ({"tasks": {"a", "b"}}, entry(task="b"), entry(task="")),
        ({"checkpoints": ["c"]}, entry(checkpoint="c"), entry(checkpoint="C")),
        ({"workers": "w"}, entry(worker="w"), entry()),
        ({"namespaces": ["", "n"]}, entry(), entry(namespace="m")),
        ({"actors": "ada"}, entry(), entry(actor="bob")),
        ({"states": ["failed"]}, entry(state="failed"), entry()),
        ({"where": lambda one: one.event.subject.task == "t"}, entry(task="t"), entry()),
        ({"tasks": "t", "types": "created"}, entry(task="t"), entry("task.deleted", task="t")),
        ({"tasks": [], "types": "created"}, None, entry(task="t")),
    ],
)  # fmt: skip
def test_accepts(wanted, yes, no):
    accepts = predicate(EventFilter(**wanted))
    assert yes is None or accepts(yes)
    assert no is None or not accepts(no)


def test_without_words_there_is_no_question():
    assert predicate(EventFilter()) is None


async def never_awaited(entry):
    return False


@pytest.mark.parametrize(
    "wanted",
    [
        {"types": 7},
        {"tasks": [1]},
        {"states": [None]},
        {"where": "x"},
        {"where": never_awaited},
        {"actors": b"a"},
    ],
)
def test_wrong_words_are_refused(wanted):
    with pytest.raises(ArgumentError) as caught:
        predicate(EventFilter(**wanted))
    assert caught.value.context["argument"] == next(iter(wanted))


@pytest.mark.parametrize("word", ["checkpoint.craeted", "chekpoint.*", "craeted", "", "created*"])
def test_a_type_that_is_not_known_is_refused(word):
    with pytest.raises(ArgumentError, match="no event of the type") as caught:
        predicate(EventFilter(types=["created", word]))
    assert caught.value.context["argument"] == "types"
