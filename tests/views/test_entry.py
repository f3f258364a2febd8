from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.model import value as values
from ckptlog.views.current import CurrentView
from ckptlog.views.entry import (
    ANY,
    CHARACTERS_MAX,
    ENTRIES_MAX,
    UNINDEXED,
    entries_of,
    entry_of,
    key_of,
)
from ckptlog.views.query import Filter, Ranked
from tests.views.author import STORE, Author

scalars = st.one_of(
    st.text(max_size=3), st.integers(-5, 5), st.booleans(), st.floats(allow_nan=False), st.none()
)


class Told(Author):
    """An author whose titles are whole meta payloads."""

    def tell(self, metadata, **options):
        whole = {"title": "t", "description": "", "metadata": metadata}
        return self.create(title=values.encode(values.lower(whole)).decode(), **options)


def view_of(author):
    view = CurrentView.open(None, STORE)
    assert view.apply(author.commits, author.meta_of)
    return view


def row_of(metadata):
    author = Told()
    name = author.tell(metadata)
    return view_of(author).row(name)


@given(scalars, scalars)
def test_two_scalars_share_a_key_exactly_when_they_are_equal(one, other):
    if None in (one, other):
        assert key_of(None) is None
    else:
        assert (key_of(one) == key_of(other)) is (one == other)


@given(st.dictionaries(st.text(max_size=3), scalars, max_size=4), st.text(max_size=3), scalars)
def test_what_has_a_value_has_its_entry(metadata, name, value):
    found = entries_of(row_of(metadata))
    for key, item in metadata.items():
        wanted = entry_of(key, item)
        if wanted is not None:
            assert wanted in found or (wanted[0], ANY) in found
    wanted = entry_of(name, value)
    if wanted in found:
        assert metadata[name] == value


def test_long_texts_are_told_apart_by_a_digest():
    long = "x" * (CHARACTERS_MAX + 1)
    found = entries_of(row_of({"a": long, long: 1}))
    assert found == {entry_of("a", long), entry_of(long, 1)}
    assert all(len(name) <= CHARACTERS_MAX and len(key) < CHARACTERS_MAX for name, key in found)
    assert entry_of("a", long + "x") not in found


def test_what_may_equal_a_scalar_is_marked():
    found = entries_of(row_of({"d": Decimal(1), "t": (1,), "l": [1], "o": {"$x": 1}, "m": {}}))
    assert found == {("d", ANY)}


def test_metadata_that_cannot_be_indexed_whole_is_marked():
    assert entries_of(row_of({f"{n}": n for n in range(ENTRIES_MAX + 1)})) == {UNINDEXED}
    assert entries_of(row_of({})) == set()
    author = Author()
    name = author.create(title="no JSON")
    assert entries_of(view_of(author).row(name)) == {UNINDEXED}


@pytest.fixture
def author():
    told = Told()
    for number in range(6):
        told.tell(
            {"run": f"r{number % 2}", "n": number % 3, "d": Decimal(number)},
            id=f"{number}~abcdefghijkl" if number % 2 else None,
            worker="w1" if number < 3 else "",
            task="a" if number < 4 else "b",
        )
    told.tell({f"{n}": n for n in range(100)}, id="6~abcdefghijkl", task="a")
    return told


def steps(rows):
    return [row.step - 1 for row in rows]


def test_lists_find_by_metadata(author):
    view = view_of(author)

    def found(*pairs, **more):
        wanted = Filter(entries=tuple(entry_of(*pair) for pair in pairs), **more)
        rows = view.select(wanted)
        assert view.count(wanted) == len(rows)
        return steps(rows)

    assert found(("run", "r1")) == [1, 3, 5, 6]  # the last is not indexed: perhaps
    assert found(("run", "r1"), ("n", 0)) == [3, 6]
    assert found(("run", "r1"), task="a") == [1, 3, 6]
    assert found(("run", "r1"), worker="w1") == [1]
    assert found(("run", "r1"), state="failed") == []
    assert found(("d", 7)) == [0, 1, 2, 3, 4, 5, 6]  # a Decimal may equal it
    assert found(("absent", 1)) == [6]


def test_ranks_are_walked_from_the_greatest(author):
    view = view_of(author)
    assert steps(view.ranked(Ranked())) == [6, 5, 3, 1]
    assert steps(view.ranked(Ranked(task="a"))) == [6, 3, 1]
    assert steps(view.ranked(Ranked(task="a", namespace=""))) == [6, 3, 1]
    assert view.ranked(Ranked(task="a", namespace="other")) == []
    assert steps(view.ranked(Ranked(task="a", namespace="", before="6"))) == [3, 1]
    assert steps(view.ranked(Ranked(rank="3"))) == [3]
    assert steps(view.ranked(Ranked(), limit=2)) == [6, 5]
    assert steps(view.ranked(Ranked(), after=("5", 5))) == [3, 1]
    entries = (entry_of("run", "r1"), entry_of("n", 0))
    assert steps(view.ranked(Ranked(entries=entries))) == [6, 3]
    assert steps(view.ranked(Ranked(task="a", entries=entries[:1]))) == [6, 3, 1]
    assert view.ranked(Ranked(), limit=0) == []


def test_pages_of_equal_ranks_lose_nothing():
    author = Told()
    for number in range(10):
        author.tell({}, id=f"same~{number:012}", task=f"t{number % 3}")
    view, after, seen = view_of(author), None, []
    while rows := view.ranked(Ranked(), after=after, limit=3):
        seen += steps(rows)
        after = ("same", rows[-1].origin)
    assert seen == list(range(9, -1, -1))


def test_entries_follow_their_checkpoint(author):
    view = view_of(author)
    names = [row.id for row in view.select(Filter())]
    whole = {"title": "t", "description": "", "metadata": {"run": "new"}}
    author.change(names[1], title=json.dumps(whole))
    author.delete(names[3])
    author.delete_task("b")
    assert view.apply(author.commits, author.meta_of)
    assert steps(view.select(Filter(entries=(entry_of("run", "r1"),)))) == [6]
    assert [row.id for row in view.select(Filter(entries=(entry_of("run", "new"),)))][:1] == [
        names[1]
    ]
    assert view.check() == []


def test_a_check_finds_entries_that_are_wrong(author):
    view = view_of(author)
    writer = view._database.writer
    writer.execute("DELETE FROM entry WHERE value = 'sr1' AND origin = 1")
    assert "metadata of" in view.check()[0]
    writer.execute("INSERT INTO entry VALUES ('x', 'y', 1), ('x', 'z', 1)")
    assert any("entries of metadata" in line for line in view.check())


def test_deletions_of_a_task_are_counted():
    author = Author()
    view = CurrentView.open(None, STORE)
    assert view.task_deletions("t") == (0, -1)
    for life in range(1, 4):
        author.create("t", id=f"c{life}")
        author.delete_task("t")
        if life != 2:
            assert view.apply(author.commits, author.meta_of)
            assert view.task_deletions("t") == (life, 2 * life - 1)
