from __future__ import annotations

import msgspec
import pytest

from ckptlog.model.entry import Commit
from ckptlog.model.event import COMPLETED, UPDATED, Event
from ckptlog.views import current, database, projection, schema
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewDamagedError, ViewGapError
from ckptlog.views.query import Filter
from ckptlog.views.row import Row, Totals, encode
from tests.views.author import BOOT, STORE, Author, assert_agrees, long_log


@pytest.fixture
def author():
    return Author()


@pytest.fixture(params=["file", "memory"])
def view(request, tmp_path):
    path = tmp_path / "current.sqlite" if request.param == "file" else None
    view = CurrentView.open(path, STORE, boot=BOOT)
    assert view.kind == request.param
    yield view
    view.close()


def apply(view: CurrentView, author: Author) -> None:
    assert view.apply(author.commits, author.meta_of)


# --- applying -----------------------------------------------------------------------------------


def test_an_empty_view(view):
    mark = view.mark
    assert (mark.position, mark.leaf, mark.container, mark.offset) == (0, bytes(32), "", 0)
    assert view.totals() == Totals(0, 0, 0, 0, 0)
    assert view.row("x") is view.latest_of_task("x") is view.command("x") is None
    assert view.waypoint(0) is view.waypoint(10**30) is None
    assert view.select(Filter()) == view.tasks() == view.check() == []
    assert (view.counts_by_state(), view.count(Filter()), view.id_time_max) == ({}, 0, 0)
    assert view.at_least(0)
    assert not view.at_least(1)
    assert view.apply([], lambda entry: None)
    assert view.rebuild([], lambda entry: None)


def test_events_of_other_kinds_move_the_mark(view, author):
    author.note()
    apply(view, author)
    assert_agrees(view, author)
    assert view.at_least(1)


def test_meta_is_asked_for_only_where_its_root_is_new(view, author):
    name = author.create(title="one")
    bare = author.create(title=None)
    apply(view, author)
    assert [entry.position for entry in author.asked] == [0]
    author.change(name)
    author.change(bare)
    apply(view, author)
    assert len(author.asked) == 1
    author.change(name, title="two")
    author.change(name, title="three")
    author.change(name, COMPLETED)
    apply(view, author)
    assert [entry.position for entry in author.asked] == [0, 6]  # once, for the last of them
    assert_agrees(view, author)


def test_a_checkpoint_may_change_hands(view, author):
    name = author.create(worker="w1")
    apply(view, author)
    author.tick += 100  # in another hour
    author.change(name, COMPLETED, worker="w2")
    apply(view, author)
    assert view.count(Filter(worker="w1")) == 0
    assert view.select(Filter(worker="w2")) == [author.model[name]]
    author.change(name, UPDATED, worker="")
    apply(view, author)
    assert view.select(Filter(worker="")) == [author.model[name]]
    assert_agrees(view, author)


def test_each_kind_of_update(view, author):
    """The state changes, the hour, both, none: each is its own statement."""
    names = [author.create() for _ in range(5)]
    for name in names[:3]:
        author.change(name)
    apply(view, author)
    author.change(names[0])
    author.change(names[3], COMPLETED)
    author.tick += 100
    author.change(names[1])
    author.change(names[4], COMPLETED)
    apply(view, author)
    assert_agrees(view, author)


def test_meta_is_not_asked_for_what_is_deleted(view, author):
    author.delete(author.create())
    author.create("task")
    author.delete_task("task")
    apply(view, author)
    assert author.asked == []
    assert_agrees(view, author)


def test_large_meta_stays_out(view, author):
    limit = projection.META_BYTES_MAX
    names = [author.create(title="x" * size) for size in (limit, limit + 1)]
    for _ in range(2):
        apply(view, author)
        rows = [view.row(name) for name in names]
        assert [None if row is None or row.meta is None else len(row.meta) for row in rows] == [
            limit,
            None,
        ]
        assert rows[1] is not None
        assert (rows[1].meta_size, len(rows[1].meta_root)) == (limit + 1, 64)
        author.change(names[1])
    assert len(author.asked) == 1


def test_an_error_of_meta_of_passes_and_nothing_is_applied(view, author):
    author.create()
    author.note()

    def fail(entry):
        raise LookupError("no such chunk")

    with pytest.raises(LookupError, match="no such chunk"):
        view.apply(author.commits, fail)
    with pytest.raises(LookupError, match="no such chunk"):
        view.rebuild(author.commits, fail)
    assert view.mark.position == 0
    assert view.check() == []
    apply(view, author)
    assert_agrees(view, author)


def test_meta_of_may_return_none(view, author):
    name = author.create()
    assert view.apply(author.commits, lambda entry: None)
    row = view.row(name)
    assert row is not None
    assert row.meta is None
    assert row.meta_root == author.model[name].meta_root


def test_a_gap_is_refused(view, author):
    for _ in range(4):
        author.create()
    assert view.apply(author.commits[:1], author.meta_of)
    for commits in (author.commits[2:], [author.commits[1], author.commits[3]]):
        with pytest.raises(ViewGapError):
            view.apply(commits, author.meta_of)
        with pytest.raises(ViewGapError):
            view.rebuild(commits, author.meta_of)
    assert view.mark.position == 1
    apply(view, author)
    assert_agrees(view, author)


def test_a_mark_inside_a_commit_is_refused(view, author):
    """Marks stand between commits, so one of the two is not of this log."""
    for _ in range(3):
        author.create(commit=False)
    commit = author.commit()
    front = msgspec.structs.replace(commit, entries=commit.entries[:2])
    assert view.apply([front], author.meta_of)
    with pytest.raises(ViewGapError):
        view.apply([commit], author.meta_of)


def test_a_checkpoint_that_the_view_lost_is_noticed(view, author):
    name = author.create()
    author.create()
    apply(view, author)
    view._database.writer.execute("DELETE FROM checkpoint WHERE origin = 0")
    author.change(name)
    with pytest.raises(ViewDamagedError, match="created at 0"):
        view.apply(author.commits, author.meta_of)


def test_another_checkpoint_at_the_same_place_is_noticed(view, author):
    name = author.create()
    apply(view, author)
    other = encode(msgspec.structs.replace(author.model[name], id="other"))
    view._database.writer.execute("UPDATE checkpoint SET body = ?", (other,))
    author.change(name)
    with pytest.raises(ViewDamagedError, match="another checkpoint"):
        view.apply(author.commits, author.meta_of)


def test_a_creation_that_names_another_one_is_refused(view, author):
    author.note()
    author.create()
    commit = author.commits[1]
    entry = commit.entries[0]
    event = msgspec.structs.replace(entry.event, origin=0)
    entries = (msgspec.structs.replace(entry, event=event),)
    with pytest.raises(ViewDamagedError, match="names another"):
        view.apply(
            [author.commits[0], msgspec.structs.replace(commit, entries=entries)], author.meta_of
        )


def test_an_event_after_the_end_changes_nothing(view, author):
    """Not legal, so never decided; but a log that has one must not stop the view."""
    name = author.create()
    author.delete(name)
    apply(view, author)
    tombstone = author.model[name]
    author.change(name, UPDATED)
    author.model[name] = tombstone
    author.delete(name)
    author.model[name] = tombstone
    apply(view, author)
    assert view.row(name) == tombstone
    assert view.check() == []
    assert view.totals().checkpoints == 0


def test_a_number_that_sqlite_cannot_hold_is_refused(view, author):
    author.create()
    commit = author.commits[0]
    entry = commit.entries[0]
    huge: Event = msgspec.structs.replace(entry.event, step=2**80)
    entries = (msgspec.structs.replace(entry, event=huge),)
    with pytest.raises(ViewDamagedError):
        view.apply([msgspec.structs.replace(commit, entries=entries)], author.meta_of)
    assert view.mark.position == 0


def test_the_first_event_with_an_id_counts(view, author):
    author.note()
    author.note()
    commit = author.commits[1]
    entry = commit.entries[0]
    event = msgspec.structs.replace(entry.event, id=author.commits[0].entries[0].event.id)
    entries = (msgspec.structs.replace(entry, event=event),)
    commits = [author.commits[0], msgspec.structs.replace(commit, entries=entries)]
    assert view.apply(commits, author.meta_of)
    assert view.command(event.id) == 0


def test_a_task_may_be_used_again(view, author):
    author.create("t")
    author.delete_task("t")
    apply(view, author)
    second = author.create("t")
    assert view.task_deleted_at("t") == 1
    apply(view, author)
    row = view.latest_of_task("t")
    assert row is not None
    assert row.id == second
    author.create("t")
    author.delete_task("t")
    author.delete_task("t")
    apply(view, author)
    assert view.latest_of_task("t") is None
    assert view.task_deleted_at("t") == 5
    assert_agrees(view, author)


def test_the_greatest_time_of_an_id_outlives_its_checkpoint(view, author):
    assert view.id_time_max == 0
    author.create(id="cp_a_1_500")
    author.create(id="other_900")
    apply(view, author)
    assert view.id_time_max == 500
    late = author.create(id="cp_b_1_" + "9" * 18)
    author.delete(late)
    author.create(id="cp_c_1_3")
    apply(view, author)
    assert view.id_time_max == 10**18 - 1


def test_waypoints_are_commit_boundaries(view, author):
    sizes = [1, 70, 3, 64, 1, 1, 200, 5]
    for size in sizes:
        for _ in range(size):
            author.note(commit=False)
        author.commit()
    apply(view, author)
    starts = {
        commit.entries[0].position: (
            commit.container,
            commit.entries[0].offset - commit.entries[0].span,
        )
        for commit in author.commits
    }
    for position in range(author.position + 5):
        found = view.waypoint(position)
        assert found is not None
        container, offset, start = found
        assert starts[start] == (container, offset)
        assert start <= position
        between = [at for at in starts if start < at <= position]
        assert all(position - at < 64 for at in between)
    assert view.waypoint(-1) is None


def test_a_damaged_waypoint_or_position_is_noticed(view, author):
    author.delete_task("t")
    apply(view, author)
    writer = view._database.writer
    writer.execute("UPDATE waypoint SET container = 5.5, offset = 'x'")
    with pytest.raises(ViewDamagedError):
        view.waypoint(0)
    writer.execute("UPDATE command SET position = 'x'")
    with pytest.raises(ViewDamagedError):
        view.command(f"{0:032x}")
    writer.execute("UPDATE task_end SET position = -1")
    with pytest.raises(ViewDamagedError):
        view.task_deleted_at("t")


def test_damaged_columns_are_noticed(view, author):
    author.create("t")
    other = author.create("u")
    apply(view, author)
    writer = view._database.writer
    row = author.model[other]
    writer.execute("UPDATE checkpoint SET body = ? WHERE origin = 0", (encode(row),))
    with pytest.raises(ViewDamagedError, match="another task"):
        view.latest_of_task("t")
    writer.execute("UPDATE checkpoint SET task = x'00', state = x'00'")
    with pytest.raises(ViewDamagedError):
        view.tasks()
    with pytest.raises(ViewDamagedError):
        view.counts_by_state()
    writer.execute("UPDATE checkpoint SET task = CAST(x'ff' AS TEXT)")
    with pytest.raises(ViewDamagedError):
        view.tasks()


# --- rebuilding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 7, 64, 10**6])
def test_a_rebuild_equals_applying(view, author, monkeypatch, window):
    monkeypatch.setattr(current, "_REBUILD_EVENTS", window)
    long_log(author, 400)
    assert view.rebuild(iter(author.commits), author.meta_of)
    assert_agrees(view, author)
    for _ in range(3):
        author.create()
    assert view.rebuild(iter(author.commits), author.meta_of)  # from the mark on
    assert_agrees(view, author)


def test_applying_in_runs_of_any_length(view, author):
    long_log(author, 400)
    start = 0
    for length in (1, 2, 3, 50, 300, 1000):
        assert view.apply(author.commits[start : start + length], author.meta_of)
        start += length
    assert_agrees(view, author)


@pytest.mark.thorough
def test_a_hundred_thousand_rows(view, author):
    long_log(author, 250_000)
    for start in range(0, len(author.commits), 5000):
        assert view.apply(author.commits[start : start + 5000], author.meta_of)
    assert sum(not row.deleted for row in author.model.values()) > 60_000
    for name in list(author.model)[::97]:
        assert view.row(name) == author.model[name]
    found: list[Row] = []
    while page := view.select(Filter(), after=found[-1].origin if found else None, limit=1000):
        found += page
    assert found == author.living()
    for wanted in (Filter(task="t5"), Filter(worker="w1", state="created"), Filter(state="active")):
        expected = author.living(wanted)
        assert view.count(wanted) == len(expected)
        assert view.select(wanted, limit=10**6) == expected
    assert view.check() == []


# --- what is kept ------------------------------------------------------------------------------


def test_the_machines_boot_is_the_default(tmp_path, author):
    path = tmp_path / "current.sqlite"
    author.create()
    for _ in range(2):
        view = CurrentView.open(path, STORE)
        apply(view, author)
        view.close()
    assert view.kind == "file"
    assert view.notes == ()


def test_data_never_enters_the_view(tmp_path, author):
    """Only roots and sizes of data are kept, and nothing that was deleted stays readable."""
    path = tmp_path / "current.sqlite"
    view = CurrentView.open(path, STORE, boot=BOOT)
    name = author.create(title="an unusual title")
    apply(view, author)
    assert any(b"an unusual title" in each.read_bytes() for each in tmp_path.iterdir())
    author.delete(name)
    apply(view, author)
    view.close()
    assert b"an unusual title" not in path.read_bytes()


def test_every_commit_of_a_log_is_a_legal_place_to_stop(author):
    long_log(author, 60)
    for stop in range(len(author.commits) + 1):
        view = CurrentView.open(None, STORE)
        shorter: list[Commit] = author.commits[:stop]
        assert view.apply(shorter, author.meta_of)
        assert view.apply(author.commits, author.meta_of)
        assert_agrees(view, author)
        view.close()


def test_the_schema_is_what_a_new_file_has(tmp_path):
    view = CurrentView.open(tmp_path / "current.sqlite", STORE, boot=BOOT)
    schema.check(view._database.reader)
    view.close()
    assert database.WAIT_WRITE_S < database.WAIT_READ_S


def test_the_room_of_the_write_ahead_log_is_given_back(tmp_path):
    author, path = Author(), tmp_path / "current.sqlite"
    view = CurrentView.open(path, STORE, boot=BOOT)
    for _ in range(3):
        author.create()
        assert view.apply(author.commits, author.meta_of)
    assert (tmp_path / "current.sqlite-wal").stat().st_size > 0
    view.trim()
    assert (tmp_path / "current.sqlite-wal").stat().st_size == 0
    author.create()
    assert view.apply(author.commits, author.meta_of)
    assert_agrees(view, author)
    view.close()
