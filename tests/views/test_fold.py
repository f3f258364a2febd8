from __future__ import annotations

import pytest

from ckptlog.model.event import DELETED, UPDATED
from ckptlog.views.fold import WAYPOINT_EVENTS, Fold
from tests.views.author import Author


def folded(author: Author) -> Fold:
    fold = Fold()
    for commit in author.commits:
        fold.add(commit)
    return fold


def test_only_the_last_snapshot_counts():
    author = Author()
    name = author.create()
    for _ in range(5):
        author.change(name)
    fold = folded(author)
    assert {origin: entry.position for origin, entry in fold.last.items()} == {0: 5}
    assert fold.born == {0}
    assert len(fold.commands) == 6


@pytest.mark.parametrize("size", [1, 2, 7, 63, 64, 65, 200])
def test_a_commit_that_holds_a_multiple_of_64_is_a_waypoint(size):
    author = Author()
    for _ in range(5):
        for _ in range(size):
            author.note(commit=False)
        author.commit()
    expected = [
        (first.position, first.container, first.offset - first.span)
        for commit in author.commits
        if (first := commit.entries[0])
        and any(entry.position % WAYPOINT_EVENTS == 0 for entry in commit.entries)
    ]
    assert folded(author).waypoints == expected
    assert expected[0][0] == 0


def illegal(author: Author, name: str, late: str) -> None:
    """Write an event of a checkpoint that is deleted by now."""
    row = author.model[name]
    author.change(name, late)
    author.model[name] = row


@pytest.mark.parametrize("late", [UPDATED, DELETED])
def test_a_late_writer_brings_nothing_back(late):
    author = Author()
    deleted, of_task = author.create("a"), author.create("b")
    author.delete(deleted)
    author.delete_task("b")
    ends = dict(folded(author).ended)
    illegal(author, deleted, late)
    illegal(author, of_task, late)
    fold = folded(author)
    assert fold.ended == ends
    assert {entry.position for entry in fold.last.values()} == {0, 1}


def test_the_end_of_a_task_spares_its_next_incarnation():
    author = Author()
    author.create("a")
    author.delete_task("a")
    author.create("a")
    author.delete_task("other")
    author.create("a")
    fold = folded(author)
    assert fold.ended.keys() == {0}
    assert fold.task_ends == {"a": 1, "other": 3}
    author.delete_task("a")
    fold = folded(author)
    assert fold.ended.keys() == {0, 2, 4}
    assert fold.task_ends == {"a": 5, "other": 3}
    assert fold.tasks["a"].position == 1
