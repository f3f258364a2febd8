"""The file view against a naive fold of the same events; cut off anywhere, and taken up again."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.errors import BlobCorruptionError, CheckpointStorageError
from ckptlog.model.cursor import Cursor
from ckptlog.storage.tree import Tree
from ckptlog.views.document import document, folder_of, name_of
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.files import INDEX, REGISTER, Change, FilesView
from ckptlog.views.register import index_of
from tests.policy.story import Story

STORE, BOOT = bytes(range(16)), bytes(range(16, 32))
KINDS = (
    "created",
    "updated",
    "completed",
    "failed",
    "restored",
    "deleted",
    "task.deleted",
    "other.x",
)


def content(entry):
    """Return a file's bytes; an event that names step 9 stands for a damaged payload."""
    if entry.event.step == 9:
        raise BlobCorruptionError("damaged")
    return document(entry, b'{"n":%d}' % entry.position, None)


def open_view(folder):
    view = FilesView(folder, STORE, BOOT)
    try:
        view.load()
    except ViewDamagedError:
        view.clear()
    return view


def apply(view, entries):
    change = Change(view.register)
    for entry in entries:
        change.add(entry)
    position = entries[-1].position + 1
    view.apply(change, Cursor(position, b"l" * 32, "log/x", position), content)


def built(folder, entries):
    view = open_view(folder)
    if entries:
        apply(view, entries)
    view.finish()
    return view


def on_disk(folder):
    """Return every file that a reader of the folder sees."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.relpath(os.path.join(root, name), folder)
            if not path.startswith("."):
                with open(os.path.join(root, name), "rb") as file:
                    found[path] = file.read()
    return found


def naive(entries):
    """Return the same, folded the slow way from all events."""
    living, gone = {}, set()
    for entry in entries:
        kind, subject = entry.event.type.removeprefix("checkpoint."), entry.event.subject
        if kind == "task.deleted":
            ended = {name for name, one in living.items() if one.event.subject.task == subject.task}
        elif kind == "deleted":
            ended = {subject.checkpoint}
        else:
            ended = set()
        for name in ended:
            living.pop(name, None)
            gone.add(name)
        is_change = kind in ("created", "updated", "completed", "failed", "restored")
        is_there = subject.checkpoint in living or kind == "created"
        if is_change and is_there and subject.checkpoint not in gone:
            living[subject.checkpoint] = entry
    files, index = {}, {"by_task": {}, "by_worker": {}, "by_state": {}, "metadata": {}}
    index["by_state"] = {
        state: [] for state in ("created", "active", "completed", "failed", "restored")
    }
    unreadable = []
    for name, entry in sorted(living.items(), key=lambda pair: pair[1].origin):
        event = entry.event
        index["by_task"].setdefault(event.subject.task, []).append(name)
        index["by_state"][event.state].append(name)
        if event.step == 9:
            unreadable.append(name)
        else:
            files[f"{folder_of(event.state)}/{name_of(name)}"] = content(entry)
    index["metadata"] = {
        "last_updated": entries[-1].event.time if entries else None,
        "total_checkpoints": len(living),
        "position": len(entries),
    }
    if unreadable:
        index["metadata"]["unreadable"] = unreadable
    files[INDEX] = (json.dumps(index, indent=2) + "\n").encode()
    return files


events = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from("abcdef"), st.sampled_from((1, 2, 9))),
    max_size=40,
)


def entries_of(told):
    """Return entries of a log that is legal: ids are created once, and end once."""
    story, origins, ended = Story(), {}, set()
    for kind, name, step in told:
        task = "t" if name in "abc" else "u"
        if kind == "created":
            if name not in origins:
                origins[name] = story.say(kind, name, task=task, step=step).position
        elif kind == "task.deleted":
            story.say(kind, task=task)
            ended |= {one for one in origins if ("t" if one in "abc" else "u") == task}
        elif kind == "other.x":
            story.say(kind, task="")
        elif name in origins and name not in ended:
            story.say(kind, name, task=task, step=step, origin=origins[name])
            ended |= {name} if kind == "deleted" else set()
    return story.entries


@given(events, st.lists(st.integers(1, 10), min_size=1))
def test_files_equal_a_naive_fold(tmp_path_factory, told, sizes):
    """However the events are cut into steps, the files are those of a view built in one."""
    entries = entries_of(told)
    folder = tmp_path_factory.mktemp("v")
    view, at = open_view(folder), 0
    while at < len(entries):
        size = sizes[at % len(sizes)]
        apply(view, entries[at : at + size])
        at += size
        view = open_view(folder)  # only what was written counts
    view.finish()
    assert on_disk(folder) == naive(entries)
    once = tmp_path_factory.mktemp("once")
    built(once, entries)
    assert on_disk(once) == on_disk(folder)
    register = Tree(once).read(REGISTER)
    assert register == Tree(folder).read(REGISTER)


class Killed(BaseException):
    """The process ends here."""


def cut_off_after(monkeypatch, acts):
    """Let the act with this number, of all that change a file, not happen, nor any after it."""
    left = [acts]

    def dying(method):
        def act(self, *arguments):
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            return method(self, *arguments)

        return act

    monkeypatch.setattr(Tree, "put", dying(Tree.put))
    monkeypatch.setattr(Tree, "remove", dying(Tree.remove))


@given(events, st.integers(1, 30), st.lists(st.integers(0, 25), min_size=1, max_size=4), st.data())
@settings(max_examples=80)
def test_cut_off_anywhere_and_taken_up_again(tmp_path_factory, told, first, cuts, data):
    entries = entries_of(told)
    folder = tmp_path_factory.mktemp("v")
    done = min(first, len(entries))
    for cut in cuts:
        with pytest.MonkeyPatch.context() as monkeypatch:
            cut_off_after(monkeypatch, cut)
            try:
                view = open_view(folder)
                if todo := entries[view.register.cursor.position : done]:
                    apply(view, todo)
                view.finish()
            except Killed:
                pass
        files = on_disk(folder)
        if INDEX in files:  # no name in it without its file
            check_index(json.loads(files[INDEX]), files)
        for path, found in files.items():
            assert found.endswith(b"}\n"), path
        done = data.draw(st.integers(done, len(entries)))
    view = open_view(folder)
    if todo := entries[view.register.cursor.position :]:
        apply(view, todo)
    view.finish()
    assert on_disk(folder) == naive(entries)


def check_index(index, files):
    unreadable = index["metadata"].get("unreadable", [])
    named = {name for names in index["by_task"].values() for name in names}
    for name in named - set(unreadable):
        assert any(path.endswith(f"/{name_of(name)}") for path in files), name


# --- what is found when it is opened --------------------------------------------------------------


@pytest.fixture
def story():
    story = Story()
    story.say("created", "a")
    story.say("created", "b")
    story.say("completed", "b", origin=1)
    story.say("created", "c", step=9)
    return story


@pytest.fixture
def view(tmp_path, story):
    return built(tmp_path / "v", story.entries)


def again(view):
    other = FilesView(view.tree.root, STORE, BOOT)
    other.load()
    return other


def test_a_sound_view_has_no_faults(view):
    other = again(view)
    assert other.faults(is_thorough=False) == []
    assert other.faults(is_thorough=True) == ["c"]  # perhaps it can be read by now
    assert not other.has_strangers()
    assert other.is_of_this_boot
    assert other.register.is_whole


@pytest.mark.parametrize("is_thorough", [False, True])
def test_what_is_missing_or_changed_is_found(view, is_thorough):
    tree = view.tree
    tree.put("active/checkpoint_a.json", b"{}\n")
    assert ("a" in again(view).faults(is_thorough=is_thorough)) is is_thorough
    tree.remove("active/checkpoint_a.json")
    tree.put("completed/checkpoint_a.json", b"{}\n")
    assert "a" in again(view).faults(is_thorough=is_thorough)
    assert again(view).has_strangers()
    tree.put("active/checkpoint_c.json", b"{}\n")
    assert "c" in again(view).faults(is_thorough=is_thorough)
    tree.put(INDEX, b"{}\n")
    assert "" in again(view).faults(is_thorough=is_thorough)
    tree.remove(INDEX)
    assert "" in again(view).faults(is_thorough=is_thorough)


def test_repair(view, story):
    wanted = on_disk(view.tree.root)
    view.tree.put("active/checkpoint_a.json", b"")
    view.tree.put("failed/checkpoint_b.json", b"{}\n")
    view.tree.put("failed/checkpoint_stranger.json", b"{}\n")
    view.tree.put("failed/notes.txt", b"mine")
    view.tree.put(".new/left", b"{")
    view.tree.remove(INDEX)
    other = again(view)
    faults = other.faults(is_thorough=True)
    assert set(faults) == {"a", "c", ""}
    other.repair([story.entries[0], story.entries[3]], content)
    assert on_disk(view.tree.root) == {**wanted, "failed/notes.txt": b"mine"}
    assert view.tree.names(".new") == []
    assert again(view).faults(is_thorough=False) == []


def test_registers_that_are_not_believed(view, tmp_path):
    with pytest.raises(ViewDamagedError):
        FilesView(tmp_path / "nothing", STORE, BOOT).load()
    with pytest.raises(ViewDamagedError):
        FilesView(view.tree.root, b"x" * 16, BOOT).load()
    whole = view.tree.read(REGISTER)
    for torn in (b"", whole[:-1], whole[:20], b"\0" * len(whole)):
        view.tree.put(REGISTER, torn)
        with pytest.raises(ViewDamagedError):
            again(view)


def test_another_boot(view):
    other = FilesView(view.tree.root, STORE, b"x" * 16)
    other.load()
    assert not other.is_of_this_boot
    unknown = FilesView(view.tree.root, STORE, bytes(16))
    unknown.load()
    assert not unknown.is_of_this_boot


def test_to_begin_anew_leaves_nothing_of_before(view, story):
    view.clear()
    assert again(view).register.is_whole is False
    assert view.tree.read(INDEX) is None
    apply(view, story.entries[:1])
    view.finish()
    assert on_disk(view.tree.root) == naive(story.entries[:1])


def test_an_empty_view(tmp_path):
    built(tmp_path / "v", [])
    assert on_disk(tmp_path / "v") == naive([])
    content_ = json.dumps(index_of([], "", 0), indent=2) + "\n"
    assert (tmp_path / "v" / INDEX).read_text() == content_


def test_a_failure_is_told_and_changes_nothing_that_counts(view, story, monkeypatch):
    register = view.tree.read(REGISTER)
    later = story.say("completed", "a", origin=0)

    def full(self, path, data):
        raise CheckpointStorageError("full")

    monkeypatch.setattr(Tree, "put", full)
    with pytest.raises(CheckpointStorageError):
        apply(view, [later])
    monkeypatch.undo()
    assert view.tree.read(REGISTER) == register
    other = again(view)
    apply(other, [later])
    assert on_disk(view.tree.root) == naive(story.entries)


def test_illegal_events_after_an_end_bring_nothing_back(tmp_path):
    story = Story()
    story.say("created", "a")
    story.say("deleted", "a", origin=0)
    story.say("updated", "a", origin=0)
    story.say("created", "a")
    story.say("updated", "never there", origin=0)
    view = built(tmp_path / "v", story.entries[:3])
    assert on_disk(tmp_path / "v") == naive(story.entries[:3])
    assert len(view.register) == 0
    change = Change(view.register)
    change.add(story.entries[2])
    change.add(story.entries[4])
    assert (change.last, change.gone) == ({}, set())
