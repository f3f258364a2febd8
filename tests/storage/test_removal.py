"""Names go at once, room soon, and nothing is left open (storage/removal.py)."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from ckptlog.storage.removal import Removal


@pytest.fixture
def large(tmp_path):
    files = [tmp_path / f"{number}" for number in range(40)]
    for file in files:
        file.write_bytes(bytes(1000))
    return files


def descriptors():
    """Return what every open descriptor stands for."""
    found = []
    for one in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{one}"))
    return found


def nameless():
    return [name for name in descriptors() if name.endswith("(deleted)")]


def test_the_names_are_gone_before_the_room_is_free(large, tmp_path):
    before = len(nameless())
    removal = Removal()
    removal.remove(large)
    assert not list(tmp_path.iterdir())
    assert len(nameless()) == before + len(large)
    removal.free()
    assert removal.finish()
    assert len(nameless()) == before
    assert not removal.finish()


def test_few_are_held_at_once(large, monkeypatch, tmp_path):
    before = len(nameless())
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    removal = Removal()
    for file in large:
        removal.remove([file])
        assert len(nameless()) <= before + 4
    removal.finish()
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_or_may_not_go_is_passed_over(tmp_path):
    (tmp_path / "folder").mkdir()
    removal = Removal()
    removal.remove([tmp_path / "none", tmp_path / "folder"])
    removal.finish()
    assert (tmp_path / "folder").is_dir()


def test_without_a_descriptor_the_name_goes_still(large, monkeypatch, tmp_path):
    def full(*_arguments, **_options):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        removal = Removal()
        removal.remove(large)
    assert not list(tmp_path.iterdir())
    assert not removal.finish()


def test_without_threads_the_room_is_free_too(large, monkeypatch, tmp_path):
    """As where a process may have no more of them, and while the interpreter ends."""
    before = len(nameless())
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    removal = Removal()
    removal.remove(large)
    removal.finish()
    assert len(nameless()) == before
    assert not list(tmp_path.iterdir())


def test_what_was_handed_over_and_refused_is_closed_once(large, monkeypatch):
    """A pool that cannot start its next thread has taken the work nevertheless."""
    closed = []
    submit, close = ThreadPoolExecutor.submit, os.close

    def take_and_refuse(pool, *work):
        submit(pool, *work)
        raise RuntimeError("can't start new thread")

    def counted(fd):
        closed.append(fd)
        close(fd)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", take_and_refuse)
    removal = Removal()
    removal.remove(large)
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", counted)
        removal.finish()
    assert len(closed) == len(set(closed)) == len(large)
