from __future__ import annotations

import msgspec
import pytest

from ckptlog.views import audit
from ckptlog.views.current import CurrentView
from ckptlog.views.query import Filter
from ckptlog.views.row import encode
from ckptlog.views.schema import read_standing, write_standing
from tests.views.author import STORE, Author


@pytest.fixture
def author():
    author = Author()
    for n in range(30):
        author.create(f"t{n % 4}", worker="w", parent="p", namespace="n")
    author.delete(next(iter(author.model)))
    return author


@pytest.fixture
def view(author):
    view = CurrentView.open(None, STORE)
    assert view.apply(author.commits, author.meta_of)
    yield view
    view.close()


def test_a_sound_view_has_no_problem(view):
    assert view.check() == []


@pytest.mark.parametrize(
    "column",
    ["key", "task", "namespace", "worker", "parent", "state", "created", "updated", "hour"],
)
def test_a_column_that_is_not_its_rows(view, column):
    value = 5 if column == "key" else "'other'"
    view._database.writer.execute(f"UPDATE checkpoint SET {column} = {value} WHERE origin = 7")
    (problem,) = view.check()
    assert "is not found by what it says" in problem


def test_a_tombstone_under_another_key(view):
    view._database.writer.execute("UPDATE tombstone SET key = 5")
    assert "tombstone" in view.check()[0]


def test_a_row_in_the_wrong_table(view, author):
    row = author.living()[3]
    body = encode(msgspec.structs.replace(row, deleted=True))
    view._database.writer.execute(
        "UPDATE checkpoint SET body = ? WHERE origin = ?", (body, row.origin)
    )
    assert len(view.check()) == 1


def test_a_body_of_noise(view):
    view._database.writer.execute("UPDATE checkpoint SET body = zeroblob(50) WHERE origin = 7")
    assert view.check() == ["A record of the view is damaged."]


def test_sums_that_are_wrong(view):
    writer = view._database.writer
    write_standing(writer, msgspec.structs.replace(read_standing(writer), checkpoints=1))
    assert view.check() == ["The view has 29 checkpoints; by its sums there are 1."]


def test_an_index_that_lost_an_entry(view):
    writer = view._database.writer
    writer.execute("PRAGMA writable_schema = ON")
    writer.execute("UPDATE sqlite_master SET sql = replace(sql, '(task)', '(state)')")
    writer.execute("PRAGMA writable_schema = RESET")
    problems = view.check()
    assert len(problems) == audit.PROBLEMS_MAX
    assert any("by_task" in line for line in problems)


def test_a_check_leaves_no_transaction_behind(view, author):
    view.check()
    author.create()
    assert view.apply(author.commits, author.meta_of)
    assert view.count(Filter()) == 30
