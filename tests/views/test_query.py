from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from ckptlog.model.event import COMPLETED, UPDATED
from ckptlog.views import current, query
from ckptlog.views.current import CurrentView
from ckptlog.views.query import Filter, Ranked
from tests.views.author import STORE, Author, instant

NOW = instant(500)

SINGLE = {
    "task": (Filter(task="t"), "by_task"),
    "worker": (Filter(worker="w"), "by_worker"),
    "state": (Filter(state="active"), "by_state"),
    "states": (Filter(states=("active", "created")), "by_state"),
    "parent": (Filter(parent="p"), "by_parent"),
    "namespace": (Filter(namespace="n"), "by_namespace"),
    "created_since": (Filter(created_since=NOW), "by_created"),
    "created_until": (Filter(created_until=NOW), "by_created"),
    "updated_before": (Filter(updated_before=NOW), "by_hour"),
}


@pytest.fixture(scope="module")
def author():
    author = Author()
    names = [
        author.create(f"t{n % 7}", worker=f"w{n % 3}", namespace=f"n{n % 2}", parent=f"p{n % 5}")
        for n in range(300)
    ]
    for name in names[::3]:
        author.change(name, UPDATED)
    for name in names[::6]:
        author.change(name, COMPLETED)
    return author


@pytest.fixture(scope="module")
def view(author):
    view = CurrentView.open(None, STORE)
    assert view.rebuild(author.commits, author.meta_of)
    yield view
    view.close()


# Ticks 320 to 359 are one hour: all of it, its edges, and a part of it.
TIMES = [instant(tick) for tick in (0, 1, 320, 321, 340, 359, 360, 9999)]
PARTS: list[dict[str, Any]] = [
    *({"task": task} for task in ("t1", "none")),
    *({"worker": worker} for worker in ("w2", "")),
    {"parent": "p4"},
    {"namespace": "n1"},
    {"state": "completed"},
    {"states": ("active", "created")},
    {"state": "active", "states": ("active", "created")},
    *({name: time} for name in ("created_since", "created_until") for time in TIMES),
    *({"updated_before": time} for time in TIMES),
    {"created_since": TIMES[2], "created_until": TIMES[4]},
]


@pytest.mark.parametrize("newest_first", [False, True])
def test_any_two_filters_find_what_the_model_finds(view, author, newest_first):
    for one, two in itertools.combinations_with_replacement(PARTS, 2):
        wanted = Filter(**(one | two))
        expected = author.living(wanted)[:: -1 if newest_first else 1]
        assert view.count(wanted) == len(expected)
        found, after = [], None
        while page := view.select(wanted, after=after, limit=90, newest_first=newest_first):
            found += page
            after = page[-1].origin
            assert len(found) <= len(expected)
        assert found == expected, wanted


def plan(view: CurrentView, statement: query.Statement | None) -> list[str]:
    assert statement is not None
    rows = view._database.reader.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.arguments)
    return [str(row[-1]) for row in rows.fetchall()]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("after", [None, 17])
@pytest.mark.parametrize(("wanted", "index"), SINGLE.values(), ids=SINGLE)
def test_each_filter_is_served_by_its_index(view, wanted, index, after, newest_first):
    lines = plan(view, query.select(wanted, after=after, limit=10, newest_first=newest_first))
    text = "\n".join(lines)
    is_time = index in ("by_created", "by_hour")
    if is_time and after is not None:  # goes on in list order
        assert re.search(r"USING INTEGER PRIMARY KEY \(rowid[<>]\?\)", text)
        assert index not in text
    else:
        assert re.search(rf"USING (COVERING )?INDEX {index} \(", text)
    scans = [line for line in lines if line.startswith("SCAN checkpoint")]
    assert scans == []


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("name", ["task", "worker", "state", "parent", "namespace"])
def test_a_page_over_equal_values_is_not_sorted(view, name, newest_first):
    wanted, _ = SINGLE[name]
    for after in (None, 17):
        statement = query.select(wanted, after=after, limit=10, newest_first=newest_first)
        assert not [line for line in plan(view, statement) if "TEMP B-TREE" in line]


@pytest.mark.parametrize(("wanted", "index"), SINGLE.values(), ids=SINGLE)
def test_each_count_is_served_by_its_index(view, wanted, index):
    assert index in "\n".join(plan(view, query.count(wanted)))


def test_no_filter_walks_the_table_in_order(view):
    for after in (None, 3):
        lines = plan(view, query.select(Filter(), after=after, limit=5, newest_first=True))
        assert not [line for line in lines if "TEMP B-TREE" in line]


ONE = [
    (current._ROW, (1,)),
    (current._LATEST, ("t",)),
    (current._COMMAND, ("x",)),
    (current._WAYPOINT, (9,)),
    (current._TASK_END, ("t",)),
    (current._TASK_ENDS, ("t",)),
    (current._TASKS, ("t", 5)),
]


@pytest.mark.parametrize(("sql", "arguments"), ONE)
def test_a_look_up_searches(view, sql, arguments):
    lines = plan(view, query.Statement(sql, arguments))
    frame = {"COMPOUND QUERY", "LEFT-MOST SUBQUERY", "UNION ALL"}
    assert [line for line in lines if not line.startswith("SEARCH") and line not in frame] == []


ENTRY = ("run", "sr1")
RANKED = {
    "one namespace": (Ranked(task="t", namespace="n"), "by_rank (task=? AND namespace=?"),
    "one rank": (Ranked(task="t", namespace="", rank="5"), "AND rank=?)"),
    "before": (Ranked(task="t", namespace="", before="5"), "AND rank<?)"),
    "with an entry": (Ranked(task="t", namespace="", entries=(ENTRY,)), "by_rank (task=? AND"),
    "by an entry": (Ranked(entries=(ENTRY, ENTRY)), "entry USING PRIMARY KEY (name=? AND value=?)"),
    "all": (Ranked(), "SCAN checkpoint USING COVERING INDEX by_rank"),
}


@pytest.mark.parametrize(("wanted", "index"), RANKED.values(), ids=RANKED)
def test_ranks_are_found_by_an_index(view, wanted, index):
    lines = plan(view, query.ranked(wanted, after=None, limit=5))
    assert any(index in line for line in lines), lines
    if wanted.namespace is not None:  # what is sorted is one page
        assert sum("TEMP B-TREE FOR" in line for line in lines) <= 1
        assert not [line for line in lines if line.startswith("SCAN checkpoint")]


def test_metadata_is_found_by_an_index(view):
    lines = plan(
        view, query.select(Filter(entries=(ENTRY,)), after=None, limit=5, newest_first=True)
    )
    assert any("entry USING PRIMARY KEY (name=? AND value=?)" in line for line in lines), lines
    assert not [line for line in lines if line.startswith("SCAN checkpoint")]


@pytest.mark.parametrize("limit", [0, -1, -(2**70)])
def test_no_rows_below_a_limit_of_one(view, limit):
    assert view.select(Filter(), limit=limit) == []
    assert view.tasks(limit=min(limit, 0)) == []


def test_huge_limits_and_bounds(view):
    everything = view.select(Filter(), limit=2**70)
    assert len(everything) == 300
    assert view.select(Filter(), after=2**70, limit=2**70) == []
    assert view.select(Filter(), after=2**70, limit=400, newest_first=True) == everything[::-1]
    assert view.select(Filter(), after=-(2**70), limit=400) == everything
    assert view.select(Filter(), after=-(2**70), newest_first=True) == []


def test_states_that_contradict_each_other_match_nothing(view):
    wanted = Filter(state="active", states=("created",))
    assert view.select(wanted) == []
    assert view.count(wanted) == 0


def test_a_repeated_state_counts_once(view):
    wanted = Filter(states=("active", "active", "created", "no such state"))
    assert view.count(wanted) == view.count(Filter(states=("active", "created")))
    found = [row.id for row in view.select(wanted, limit=1000)]
    assert len(found) == len(set(found)) == view.count(wanted)


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE checkpoint; --", "\x00", "\ud800", "x" * 10**6, "%"]
)
def test_any_text_is_only_looked_for(view, text):
    for name in ("task", "worker", "state", "parent", "namespace"):
        assert view.select(Filter(**{name: text})) == []
        assert view.count(Filter(**{name: text})) == 0
    assert view.row(text) is None
    assert view.latest_of_task(text) is None
    assert view.command(text) is None
    assert view.task_deleted_at(text) is None
    assert view.count(Filter()) == 300


def test_tasks_in_pages(view):
    found, after = [], None
    while page := view.tasks(after, 3):
        found += page
        after = page[-1][0]
    assert [task for task, _, _ in found] == [f"t{n}" for n in range(7)]
    assert sum(count for _, count, _ in found) == 300
    assert [latest for _, _, latest in found] == [294, 295, 296, 297, 298, 299, 293]
