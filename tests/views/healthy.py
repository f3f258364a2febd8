"""Owns a log with a bit of everything, and what must work on any view of it."""

from __future__ import annotations

from pathlib import Path

from ckptlog.model.event import UPDATED
from ckptlog.views.current import CurrentView
from tests.views.author import BOOT, STORE, Author, assert_agrees


def written(events: int = 40) -> Author:
    author = Author()
    names = [author.create(f"t{n % 3}", worker="w") for n in range(events)]
    for name in names[::2]:
        author.change(name, UPDATED, title="new")
    author.delete(names[1])
    author.delete_task("t2")
    return author


AUTHOR = written()


def opened(path: Path, **options) -> CurrentView:
    return CurrentView.open(path, options.pop("store", STORE), boot=BOOT, **options)


def is_usable(view: CurrentView) -> None:
    position = view.mark.position
    commits = [commit for commit in AUTHOR.commits if commit.position_next > position]
    assert view.apply(commits, AUTHOR.meta_of)
    assert_agrees(view, AUTHOR)
