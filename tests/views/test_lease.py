"""Leases in the view: what is there is told exactly, and what was changed by hand is not believed."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest
from xxhash import xxh3_64_digest

from ckptlog.model.event import LEASE_CLAIMED, LEASE_RELEASED, LEASE_RENEWED
from ckptlog.model.lease import Grant
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.row import decode_grant, encode
from tests.views.author import BOOT, STORE, Author, assert_agrees


@pytest.fixture
def path(tmp_path):
    return tmp_path / "current.sqlite"


def test_the_newest_event_of_a_task_tells_its_lease(path):
    author = Author()
    view = CurrentView.open(path, STORE, boot=BOOT)
    for kind in (LEASE_CLAIMED, LEASE_RENEWED, LEASE_RELEASED, LEASE_CLAIMED):
        author.lease("t", kind)
        author.lease("u")
        assert view.apply(author.commits, author.meta_of)
        assert_agrees(view, author)
    assert view.leases().keys() == {"t", "u"}
    author.create("u")
    author.delete_task("u")
    author.lease("v", commit=False)
    author.lease("v", LEASE_RELEASED)
    assert view.apply(author.commits, author.meta_of)
    assert_agrees(view, author)
    view.close()


def test_a_rebuild_gives_the_same(path):
    author = Author()
    for number in range(20):
        author.lease(f"t{number % 7}", LEASE_RELEASED if number % 3 == 0 else LEASE_CLAIMED)
        if number == 11:
            author.delete_task("t4")
    view = CurrentView.open(path, STORE, boot=BOOT)
    assert view.rebuild(author.commits, author.meta_of)
    assert_agrees(view, author)
    view.close()


@pytest.mark.parametrize(
    "body", [b"", b"12345678", encode(Grant("u", 1, "a", 2, 3)), encode(Grant("t", 1, "a", 2, 3))[:-1]]
)  # fmt: skip
def test_a_lease_that_somebody_changed_is_not_believed(path, body):
    author = Author()
    author.lease("t")
    view = CurrentView.open(path, STORE, boot=BOOT)
    assert view.apply(author.commits, author.meta_of)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lease SET body = ?", (body,))
    connection.close()
    with pytest.raises(ViewDamagedError):
        view.leases()
    assert view.check()
    view.close()


def test_a_lease_of_a_view_from_before_processes_were_named_is_read():
    old = msgspec.msgpack.encode(["t", 1, "a", 2, 3])
    assert decode_grant(xxh3_64_digest(old) + old) == Grant("t", 1, "a", 2, 3, "")
    grant = Grant("t", 1, "a", 2, 3, "boot:1:2:3:4")
    assert decode_grant(encode(grant)) == grant
