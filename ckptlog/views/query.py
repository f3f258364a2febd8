"""Turns a filter into SQL: which index to walk, what to check beside it, in which order.

One index serves a query, the one that is likely the most selective; SQLite has no statistics of
a view this young, so the choice is made here and written into the statement (`INDEXED BY`).
Every index ends in the origin, so a walk over equal values is in list order and a page costs its
own rows, however long the list.

Times are another matter: a range of times is not in list order. The first page collects the
origins of the range from the index and sorts them; the pages after it walk on in list order
and check each row, so that a whole list costs one walk and not one sort per page.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from ckptlog.views.entry import Entry
from ckptlog.views.schema import HOUR_CHARACTERS

_INTEGER_MAX: Final = 2**63 - 1

# Asked for, perhaps equal, or not indexed (views.entry). Once as what a query walks along, once as
# a question to each row: a common entry must not be gathered whole for every page.
_HAS_FIRST: Final = (
    "origin IN (SELECT origin FROM entry WHERE name = ? AND value IN (?, '?') "
    "UNION ALL SELECT origin FROM entry WHERE name = '' AND value = '')"
)
_HAS_ENTRY: Final = (
    "(EXISTS (SELECT 1 FROM entry WHERE name = ? AND value IN (?, '?') "
    "AND entry.origin = checkpoint.origin) OR EXISTS "
    "(SELECT 1 FROM entry WHERE name = '' AND value = '' AND entry.origin = checkpoint.origin))"
)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What checkpoints to list; None means any. Deleted ones are never listed.

    task, worker, parent, namespace: Equal to this; "" means: those that have none.
    state: In this state.
    states: In one of these; with `state`, in both; empty means any.
    entries: With these entries of metadata (views.entry), or perhaps with them: whoever asks
        compares the values himself.
    created_since: Created at this time or later.
    created_until: Created before this time.
    updated_before: Last changed before this time.
    """

    task: str | None = None
    worker: str | None = None
    state: str | None = None
    parent: str | None = None
    namespace: str | None = None
    created_since: str | None = None
    created_until: str | None = None
    updated_before: str | None = None
    states: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """What checkpoints with ranked ids (model.rank) to list; None means any.

    task, namespace, rank: Equal to this. before: Of a rank below this one.
    entries: As in `Filter`.
    """

    task: str | None = None
    namespace: str | None = None
    rank: str | None = None
    before: str | None = None
    entries: tuple[Entry, ...] = ()


class Statement(NamedTuple):
    """A statement and its arguments."""

    sql: str
    arguments: tuple[object, ...]


class _Term(NamedTuple):
    sql: str
    arguments: tuple[object, ...]


class _Branch(NamedTuple):
    """One walk: along an index ("" for the table itself), and its conditions."""

    path: str
    terms: tuple[_Term, ...]


def select(
    wanted: Filter, *, after: int | None, limit: int, newest_first: bool
) -> Statement | None:
    """Return the statement for one page of bodies in list order; None when nothing can match."""
    terms = _terms(wanted)
    if terms is None or limit <= 0:
        return None
    branches = _branches(wanted, terms, may_sort=after is None)
    bound = () if after is None else (max(-1, min(after, _INTEGER_MAX)),)
    arguments: list[object] = []
    limit = min(limit, _INTEGER_MAX)
    for branch in branches:
        arguments += [value for term in branch.terms for value in term.arguments]
        arguments += [*bound, limit]
    shape = tuple((branch.path, tuple(term.sql for term in branch.terms)) for branch in branches)
    is_direct = len(shape) == 1 and shape[0][0] != "by_created"  # one walk, in list order
    if not is_direct:
        arguments.append(limit)
    sql = _page(shape, is_bound=bool(bound), newest_first=newest_first, is_direct=is_direct)
    return Statement(sql, tuple(arguments))


def count(wanted: Filter) -> Statement | None:
    """Return the statement that counts what matches; None when nothing can match."""
    terms = _terms(wanted)
    if terms is None:
        return None
    branches = _branches(wanted, terms, may_sort=True)
    parts = [f"(SELECT count(*) {_from(b.path, [t.sql for t in b.terms])})" for b in branches]
    arguments = [value for b in branches for term in b.terms for value in term.arguments]
    return Statement("SELECT " + " + ".join(parts), tuple(arguments))


def ranked(wanted: Ranked, *, after: tuple[str, int] | None, limit: int) -> Statement | None:
    """Return the statement for one page of bodies by rank, the greatest first.

    In one task and namespace a page is a walk along the index; otherwise the index is read whole,
    or what has the first entry is, and sorted.
    """
    if limit <= 0:
        return None
    names = [name for name in ("task", "namespace", "rank") if getattr(wanted, name) is not None]
    terms = [_Term(f"{name} = ?", (getattr(wanted, name),)) for name in names]
    entries = wanted.entries
    source = "checkpoint INDEXED BY by_rank"
    if wanted.task is None and entries:
        source = "checkpoint NOT INDEXED"
        terms.append(_Term(_HAS_FIRST, entries[0]))
        entries = entries[1:]
    terms.append(_Term("rank <> ''", ()))
    if wanted.before is not None:
        terms.append(_Term("rank < ?", (wanted.before,)))
    if after is not None:
        rank, origin = after
        terms.append(_Term("rank <= ? AND (rank < ? OR origin < ?)", (rank, rank, origin)))
    terms += [_Term(_HAS_ENTRY, entry) for entry in entries]
    conditions = " AND ".join(term.sql for term in terms)
    order = "ORDER BY rank DESC, origin DESC"
    # Names of indexes and columns are ours; what the caller gave stands in the arguments.
    inner = f"SELECT origin FROM {source} WHERE {conditions} {order} LIMIT ?"  # noqa: S608
    sql = f"SELECT body FROM checkpoint NOT INDEXED WHERE origin IN ({inner}) {order}"  # noqa: S608
    arguments = [value for term in terms for value in term.arguments]
    return Statement(sql, (*arguments, min(limit, _INTEGER_MAX)))


def _terms(wanted: Filter) -> dict[str, _Term] | None:
    """Return the conditions by the field they come from, the most selective first."""
    terms = {
        name: _Term(f"{name} = ?", (value,))
        for name in ("parent", "task", "worker", "namespace")
        if (value := getattr(wanted, name)) is not None
    }
    states = _states(wanted)
    if states is not None:
        if not states:
            return None
        marks = ", ".join("?" * len(states))
        terms["state"] = _Term(f"state IN ({marks})", states)
    for number, entry in enumerate(wanted.entries):
        # The first one may be what is walked along; the others are asked of each row.
        is_first = number == 0 and _is_led_by_entry(wanted)
        terms[f"entry {number}"] = _Term(_HAS_FIRST if is_first else _HAS_ENTRY, entry)
    if wanted.updated_before is not None:
        terms["updated"] = _Term("updated < ?", (wanted.updated_before,))
    if wanted.created_since is not None:
        terms["since"] = _Term("created >= ?", (wanted.created_since,))
    if wanted.created_until is not None:
        terms["until"] = _Term("created < ?", (wanted.created_until,))
    return terms


def _states(wanted: Filter) -> tuple[str, ...] | None:
    if wanted.state is None:
        return tuple(dict.fromkeys(wanted.states)) or None
    return (wanted.state,) if not wanted.states or wanted.state in wanted.states else ()


def _branches(wanted: Filter, terms: dict[str, _Term], *, may_sort: bool) -> list[_Branch]:
    for name in ("parent", "task", "worker", "namespace"):
        if name in terms and getattr(wanted, name):
            chosen = _Term(terms[name].sql, terms[name].arguments)
            if name != "task":  # its index leaves the empty ones out, and must be told
                chosen = _Term(f"{chosen.sql} AND {name} <> ''", chosen.arguments)
            return [_Branch(f"by_{name}", (chosen, *_others(terms, name)))]
    if _is_led_by_entry(wanted):
        return [_Branch("", tuple(terms.values()))]
    if "state" in terms:
        rest = _others(terms, "state")
        return [
            _Branch("by_state", (_Term("state = ?", (state,)), *rest))
            for state in terms["state"].arguments
        ]
    if may_sort and "updated" in terms:
        return _updated_branches(str(terms["updated"].arguments[0]), terms)
    if may_sort and ("since" in terms or "until" in terms):
        created = tuple(terms[name] for name in ("since", "until") if name in terms)
        return [_Branch("by_created", (*created, *_others(terms, "since", "until")))]
    return [_Branch("", tuple(terms.values()))]


def _is_led_by_entry(wanted: Filter) -> bool:
    names = ("parent", "task", "worker", "namespace")
    return bool(wanted.entries) and not any(getattr(wanted, name) for name in names)


def _updated_branches(before: str, terms: dict[str, _Term]) -> list[_Branch]:
    # Whole hours from the index alone; of the last hour each row.
    hour, rest = before[:HOUR_CHARACTERS], _others(terms, "updated")
    return [
        _Branch("by_hour", (_Term("hour < ?", (hour,)), *rest)),
        _Branch("by_hour", (_Term("hour = ? AND updated < ?", (hour, before)), *rest)),
    ]


def _others(terms: dict[str, _Term], *names: str) -> tuple[_Term, ...]:
    return tuple(term for name, term in terms.items() if name not in names)


def _from(index: str, terms: list[str] | tuple[str, ...]) -> str:
    source = f"FROM checkpoint {f'INDEXED BY {index}' if index else 'NOT INDEXED'}"
    return f"{source} WHERE {' AND '.join(terms)}" if terms else source


@lru_cache(maxsize=512)
def _page(
    shape: tuple[tuple[str, tuple[str, ...]], ...],
    *,
    is_bound: bool,
    newest_first: bool,
    is_direct: bool,
) -> str:
    order = f"ORDER BY origin {'DESC' if newest_first else 'ASC'} LIMIT ?"
    bound = (f"origin {'<' if newest_first else '>'} ?",) if is_bound else ()
    walks = [f"{_from(index, (*terms, *bound))} {order}" for index, terms in shape]
    # Names of indexes and columns are ours; what the caller gave stands in the arguments.
    if is_direct:
        return f"SELECT body {walks[0]}"
    union = " UNION ALL ".join(f"SELECT origin FROM (SELECT origin {walk})" for walk in walks)  # noqa: S608
    return f"SELECT body FROM checkpoint WHERE origin IN ({union}) {order}"  # noqa: S608
