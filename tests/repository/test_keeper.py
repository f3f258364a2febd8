"""Views of every kind of brokenness: the answers are always right, and nothing ever fails."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import copy
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import contextmanager
from unittest.mock import patch

import msgspec
import pytest

import ckptlog
from ckptlog import CheckpointManager, CheckpointState
from ckptlog.errors import CheckpointError
from ckptlog.log.log import Log
from ckptlog.repository import keeper as keeper_module
from ckptlog.views.query import Filter
from ckptlog.views.row import decode_row, decode_standing, encode
from tests.repository.nobody import as_nobody, give_away, public_directory

VIEW = "views/current.sqlite"
FILES = (VIEW, f"{VIEW}-wal", f"{VIEW}-shm")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def build(path):
    """Fill a store with a bit of everything, over several waypoints and segments; return the ids."""
    with (
        patch.dict(Log.__init__.__kwdefaults__, segment_bytes=6_000),
        CheckpointManager(path, actor="tester") as manager,
    ):
        return fill(manager)


def fill(manager):
    names = [
        manager.create_checkpoint(
            f"t{number % 4}",
            "T",
            number + 1,
            data={"n": number},
            worker_id=f"w{number % 3}",
            namespace="n" * (number % 2),
            parent_checkpoint_id="p" if number % 5 == 0 else None,
            command_id=f"create-{number}",
        )
        for number in range(40)
    ]
    for name in names[::2]:
        manager.update_checkpoint(name, data={"more": name}, command_id=f"update-{name}")
    for name in names[::3]:
        manager.complete_checkpoint(name)
    for name in names[::7]:
        manager.delete_checkpoint(name)
    manager.delete_task("t3")
    names.append(manager.create_checkpoint("t3", "T", 1, data={"n": 99}))
    for _ in range(70):
        manager.update_checkpoint(names[-1], step_number=2)
    return names


def answers(manager, names):
    """Return whatever can be asked, in one value that can be compared."""

    def ids(**wanted):
        return [one.checkpoint_id for one in manager.iterate(**wanted)]

    def told(call: Callable, *args):
        try:
            return call(*args)
        except CheckpointError as error:
            return error.code

    return {
        "each": [manager.get_checkpoint(name) for name in names],
        "all": ids(),
        "backwards": ids(newest_first=True),
        "tasks": [ids(task_id=f"t{number}") for number in range(4)],
        "states": [ids(state=state) for state in CheckpointState],
        "workers": [ids(worker_id=f"w{number}") for number in range(3)],
        "namespaces": [ids(namespace=name) for name in ("", "n")],
        "children": ids(parent_checkpoint_id="p"),
        "latest": [manager.get_latest_checkpoint(f"t{number}") for number in range(4)],
        "recovery": [manager.get_recovery_point(f"t{number}") for number in range(4)],
        "lives": [
            [(one.position, one.type, one.state) for one in manager.history(name)]
            for name in names[::6]
        ],
        "page": ids(after=names[7], limit=5),
        "events": [entry.event.id for entry in manager.store.events()],
        "some": [entry.event.id for entry in manager.store.events(65, 75)],
        "one": manager.store.event_at(100).event.id,
        "count": manager.store.view().counts_by_state(),
        "retry": told(
            lambda: manager.update_checkpoint(
                names[0], data={"more": names[0]}, command_id=f"update-{names[0]}"
            )
        ),
        "create": told(
            lambda: manager.create_checkpoint(
                "t2",
                "T",
                3,
                data={"n": 2},
                worker_id="w2",
                command_id="create-2",
            )
        ),
        "used": told(lambda: manager.create_checkpoint("t0", "T", 1, checkpoint_id=names[7])),
        "gone": told(lambda: manager.update_checkpoint(names[3], data={})),
        "deleted": told(lambda: manager.delete_checkpoint(names[7])),
    }


def check_all(path, expected, names, *, manager=None):
    """All answers are right, now, after more was written, and after reopening.

    What harms no answer may stay in a view; then a verification tells.
    """
    owned = manager is None
    manager = manager or CheckpointManager(path, actor="tester")
    try:
        assert answers(manager, names) == expected
        before = manager.get_checkpoint(names[2])
        manager.update_checkpoint(names[2], step_number=77)
        later = manager.create_checkpoint("later", "L", 1, data={"n": 1})
        assert manager.get_latest_checkpoint("later").checkpoint_id == later
        after = manager.get_checkpoint(names[2])
        assert (after.step_number, after.data) == (77, before.data)
        assert [one.checkpoint_id for one in manager.iterate()] == [*expected["all"], later]
        assert manager.history(names[2])[-2].position == before.position
        # Another process's events are read on from where the view says that it stands.
        with CheckpointManager(path) as other:
            other.update_checkpoint(later, data={"n": 2})
        assert manager.get_checkpoint(later).data == {"n": 2}
        assert all("view.differs" in one for one in manager.validate_checkpoint_integrity())
    finally:
        if owned:
            manager.close()
    with CheckpointManager(path) as again:
        assert again.get_checkpoint(names[2]).step_number == 77
        assert again.get_checkpoint(later).data == {"n": 2}
        again.store.rebuild_views()
        assert again.validate_checkpoint_integrity() == []


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A closed store without views, its ids, and the right answers, from a twin."""
    folder = tmp_path_factory.mktemp("original")
    names = build(folder / "s")
    shutil.rmtree(folder / "s" / "views")
    (folder / "s" / "views").mkdir()
    shutil.copytree(folder / "s", folder / "twin")
    with CheckpointManager(folder / "twin", actor="tester") as manager:
        expected = answers(manager, names)
    assert expected["retry"] is True
    assert (expected["used"], expected["gone"]) == ("create.duplicate_id", "checkpoint.not_found")
    return folder / "s", names, expected


@pytest.fixture
def filled(path, original):
    """A closed store with views; returns its ids and the right answers."""
    source, names, expected = original
    shutil.copytree(source, path)
    with CheckpointManager(path) as manager:
        manager.get_task_checkpoints("t0")
    return names, copy.deepcopy(expected)


# --- files ----------------------------------------------------------------------------------------


def remove(path):
    shutil.rmtree(path / "views")


def remove_file(path):
    (path / VIEW).unlink()


def remove_log(path):
    (path / FILES[1]).unlink()


def empty(path):
    (path / VIEW).write_bytes(b"")


def text(path):
    (path / VIEW).write_text("This is no database. " * 500)


def cut(path):
    os.truncate(path / VIEW, (path / VIEW).stat().st_size // 3)


def noise(path):
    with (path / VIEW).open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(16384))


def other_database(path):
    (path / VIEW).unlink()
    with sqlite3.connect(path / VIEW) as connection:
        connection.execute("CREATE TABLE checkpoint (x)")
    connection.close()


def directory(path):
    for name in FILES:
        (path / name).unlink(missing_ok=True)
    (path / VIEW / "deep").mkdir(parents=True)


def views_is_a_file(path):
    shutil.rmtree(path / "views")
    (path / "views").write_text("no folder")


def link(path):
    (path / VIEW).unlink()
    (path.parent / "precious").write_text("mine")
    os.symlink(path.parent / "precious", path / VIEW)


FILE_ACTS = [
    remove,
    remove_file,
    remove_log,
    empty,
    text,
    cut,
    noise,
    other_database,
    directory,
    views_is_a_file,
    link,
]


@pytest.mark.parametrize("act", FILE_ACTS, ids=lambda act: act.__name__)
def test_a_view_spoilt_while_closed(path, filled, act):
    names, expected = filled
    act(path)
    check_all(path, expected, names)
    if act is link:
        assert (path.parent / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    "act",
    [act for act in FILE_ACTS if act not in (cut, noise, text, empty)],
    ids=lambda act: act.__name__,
)
def test_a_view_that_goes_while_open(path, filled, act):
    """Bytes changed under an open database are another matter: SQLite maps them."""
    names, expected = filled
    with CheckpointManager(path, actor="tester") as manager:
        manager.get_task_checkpoints("t0")
        act(path)
        assert answers(manager, names) == expected
        with manager.batch() as batch:  # more than waits in memory, so the view is written
            for _ in range(600):
                batch.update_checkpoint(names[-1], step_number=3)
        expected["each"][-1] = manager.get_checkpoint(names[-1])
        assert expected["each"][-1].step_number == 3
        assert manager.get_task_checkpoints("t3") == [expected["each"][-1]]
    with CheckpointManager(path) as manager:
        assert manager.get_task_checkpoints("t3") == [expected["each"][-1]]
        assert manager.validate_checkpoint_integrity() == []


def test_another_process_builds_the_views_anew(path, filled):
    names, expected = filled
    with CheckpointManager(path, actor="tester") as manager, CheckpointManager(path) as other:
        manager.get_task_checkpoints("t0")
        other.store.rebuild_views()
        assert answers(manager, names) == expected
        check_all(path, expected, names, manager=manager)


# --- foreign, stale, and from the future ----------------------------------------------------------


@contextmanager
def believed(path):
    """Keep the views' files as they are, so that only what stands in them can be doubted."""
    connection = sqlite3.connect(path / VIEW, isolation_level=None)
    connection.execute("SELECT count(*) FROM standing").fetchone()
    yield connection
    connection.close()


def test_a_view_of_another_store(path, filled, tmp_path):
    names, expected = filled
    build(tmp_path / "other")
    remove(path)
    shutil.copytree(tmp_path / "other" / "views", path / "views")
    check_all(path, expected, names)


def swap_log(path, log):
    for name in ("log", "packs"):
        shutil.rmtree(path / name)
        shutil.copytree(log / name, path / name)


@pytest.mark.parametrize("grows", [0, 3, 200])
def test_an_older_log_under_a_newer_view(path, filled, tmp_path, grows):
    """A log restored from a backup, and written on: shorter, as long, longer than the view."""
    names, expected = filled
    shutil.copytree(path, tmp_path / "backup")
    with CheckpointManager(path) as manager:
        for _ in range(5):
            manager.create_checkpoint("t0", "never was", 1, worker_id="w0")
        manager.delete_checkpoint(names[1])
    shutil.rmtree(tmp_path / "backup" / "views")
    (tmp_path / "backup" / "views").mkdir()
    if grows:
        with CheckpointManager(tmp_path / "backup") as manager:
            for _ in range(grows):
                manager.update_checkpoint(names[-1], step_number=3)
    with CheckpointManager(tmp_path / "backup", actor="tester") as manager:
        expected = answers(manager, names)
    with believed(path):
        swap_log(path, tmp_path / "backup")
        check_all(path, expected, names)


def test_another_log_that_ends_at_the_same_place(path, filled, tmp_path):
    """As long to the byte, and another story: only the leaf hash tells."""
    names, _ = filled
    shutil.copytree(path, tmp_path / "backup")
    ends = []
    for root, step in ((path, 4), (tmp_path / "backup", 5)):
        with CheckpointManager(root, actor="tester") as manager:
            store = manager.store
            store.environment.now_us = lambda: 1_800_000_000_000_000
            manager.update_checkpoint(names[-1], step_number=step, command_id="same")
            manager.get_task_checkpoints("t3")
            ends.append((store.position, store.log.published.read().offset))
    assert ends[0] == ends[1]
    with believed(path):
        swap_log(path, tmp_path / "backup")
        with CheckpointManager(path, actor="tester") as manager:
            assert manager.store._keeper.ledger.view.notes != ()
            assert manager.get_checkpoint(names[-1]).step_number == 5
            assert manager.validate_checkpoint_integrity() == []


def test_an_older_view_under_a_newer_log(path, filled, tmp_path):
    """Nothing is wrong with it: it only has to catch up."""
    names, _ = filled
    with believed(path):
        shutil.copytree(path, tmp_path / "newer")
        shutil.rmtree(tmp_path / "newer" / "views")
        (tmp_path / "newer" / "views").mkdir()
        with CheckpointManager(tmp_path / "newer", actor="tester") as manager:
            manager.create_checkpoint("t0", "T", 1)
            manager.delete_checkpoint(names[1])
            manager.delete_task("t1")
            expected = answers(manager, names)
        swap_log(path, tmp_path / "newer")
        with CheckpointManager(path, actor="tester") as manager:
            assert manager.store._keeper.ledger.view.notes == ()
            check_all(path, expected, names, manager=manager)


# --- rows changed by hand -----------------------------------------------------------------------


def change_row(connection, name, **fields):
    """Change fields of a checkpoint's row, with a right checksum."""
    for origin, body in connection.execute("SELECT origin, body FROM checkpoint").fetchall():
        row = decode_row(body)
        if row.id == name:
            changed = encode(msgspec.structs.replace(row, **fields))
            connection.execute("UPDATE checkpoint SET body = ? WHERE origin = ?", (changed, origin))
            return row
    raise AssertionError(name)


def wrong_offset(connection, names):
    change_row(connection, names[1], offset=108)


def wrong_container(connection, names):
    change_row(connection, names[1], container="log/00000000000000000099.0.seg")


def wrong_length(connection, names):
    change_row(connection, names[1], length=5)


def wrong_span(connection, names):
    change_row(connection, names[1], span=7)


def escaping_container(connection, names):
    change_row(connection, names[1], container="../../../../etc/passwd")


def wrong_position(connection, names):
    change_row(connection, names[1], position=5)


def wrong_state(connection, names):
    change_row(connection, names[1], state="completed")


def wrong_state_everywhere(connection, names):
    change_row(connection, names[1], state="completed")
    connection.execute("UPDATE checkpoint SET state = 'completed' WHERE origin = 1")


def wrong_task(connection, names):
    change_row(connection, names[1], task="t0")


def wrong_worker(connection, names):
    change_row(connection, names[1], worker="w0")


def wrong_origin(connection, names):
    change_row(connection, names[1], origin=0)


def anothers_place(connection, names):
    other = change_row(connection, names[5])
    change_row(
        connection,
        names[1],
        position=other.position,
        offset=other.offset,
        length=other.length,
        span=other.span,
    )


def damaged_body(connection, names):
    connection.execute("UPDATE checkpoint SET body = substr(body, 1, 40) WHERE origin = 1")


def body_of_a_wrong_type(connection, names):
    connection.execute("UPDATE checkpoint SET body = 5 WHERE origin = 1")


def wrong_waypoint_offset(connection, names):
    connection.execute('UPDATE waypoint SET "offset" = "offset" + 1')


def wrong_waypoint_position(connection, names):
    connection.execute("UPDATE waypoint SET position = position - 1 WHERE position > 0")


def wrong_waypoint_container(connection, names):
    connection.execute("UPDATE waypoint SET container = 'log/00000000000000000077.0.seg'")


def waypoint_of_a_wrong_type(connection, names):
    connection.execute("UPDATE waypoint SET container = x'00', \"offset\" = 'x'")


def swapped_commands(connection, names):
    connection.execute("UPDATE command SET position = position + 1 WHERE id NOT LIKE 'create%'")
    connection.execute("UPDATE command SET position = 0 WHERE id LIKE 'create%'")


def command_of_a_wrong_type(connection, names):
    connection.execute("UPDATE command SET position = 'x'")


def wrong_tombstone(connection, names):
    for origin, body in connection.execute("SELECT origin, body FROM tombstone").fetchall():
        changed = encode(msgspec.structs.replace(decode_row(body), offset=108))
        connection.execute("UPDATE tombstone SET body = ? WHERE origin = ?", (changed, origin))


def change_standing(connection, **fields):
    (body,) = connection.execute("SELECT body FROM standing").fetchone()
    changed = encode(msgspec.structs.replace(decode_standing(body), **fields))
    connection.execute("UPDATE standing SET body = ?", (changed,))


def mark_too_low(connection, names):
    change_standing(connection, position=0, leaf=bytes(32), container="", offset=0)


def mark_too_high(connection, names):
    change_standing(connection, position=10_000)


def wrong_leaf(connection, names):
    change_standing(connection, leaf=bytes(range(32)))


def mark_at_a_wrong_place(connection, names):
    change_standing(connection, container="log/00000000000000000000.0.seg", offset=108)


def mark_in_a_container_that_is_not_there(connection, names):
    change_standing(connection, container="log/00000000000000000042.0.seg")


def wrong_place_and_far_position(connection, names):
    change_row(connection, names[1], offset=108, position=10**9)


def standing_of_another_store(connection, names):
    change_standing(connection, store=bytes(16))


def standing_gone(connection, names):
    connection.execute("DELETE FROM standing")


def table_gone(connection, names):
    connection.execute("DROP TABLE waypoint")


def trigger(connection, names):
    connection.execute(
        "CREATE TRIGGER evil AFTER UPDATE ON checkpoint BEGIN DELETE FROM checkpoint; END"
    )


SQL_ACTS = [
    wrong_offset,
    wrong_container,
    wrong_length,
    wrong_span,
    escaping_container,
    wrong_position,
    wrong_state,
    wrong_state_everywhere,
    wrong_task,
    wrong_worker,
    wrong_origin,
    anothers_place,
    damaged_body,
    body_of_a_wrong_type,
    wrong_waypoint_offset,
    wrong_waypoint_position,
    wrong_waypoint_container,
    waypoint_of_a_wrong_type,
    swapped_commands,
    command_of_a_wrong_type,
    wrong_tombstone,
    mark_too_low,
    mark_too_high,
    wrong_leaf,
    mark_at_a_wrong_place,
    mark_in_a_container_that_is_not_there,
    wrong_place_and_far_position,
    standing_of_another_store,
    standing_gone,
    table_gone,
    trigger,
]


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("act", SQL_ACTS, ids=lambda act: act.__name__)
def test_rows_changed_by_hand(path, filled, act, is_open):
    names, expected = filled
    with believed(path) as connection:
        if not is_open:
            act(connection, names)
            check_all(path, expected, names)
            return
        if act is trigger:
            pytest.skip("what is put into an open database runs until the next opening")
        with CheckpointManager(path, actor="tester") as manager:
            assert manager.store._keeper.ledger.view.notes == ()
            act(connection, names)
            check_all(path, expected, names, manager=manager)


def test_a_row_under_a_wrong_key(path, filled):
    names, expected = filled
    with believed(path) as connection:
        change_row(connection, names[1], id=names[5])
        with CheckpointManager(path) as manager:
            assert manager.get_checkpoint(names[1]) == expected["each"][1]


def test_a_row_in_a_wrong_list(path, filled):
    """An index that leads to other rows is noticed by the list that it spoils."""
    _, expected = filled
    for column, wanted in (("state", "failed"), ("task", "t9"), ("worker", "w9"), ("parent", "q")):
        with believed(path) as connection, CheckpointManager(path) as manager:
            connection.execute(f"UPDATE checkpoint SET {column} = ? WHERE origin = 1", (wanted,))
            word = {"task": "task_id", "worker": "worker_id", "parent": "parent_checkpoint_id"}
            found = manager.iterate(**{word.get(column, column): wanted})
            assert [one.checkpoint_id for one in found] == []
            assert [one.checkpoint_id for one in manager.iterate()] == expected["all"]


# --- views that cannot be written -----------------------------------------------------------------


@pytest.mark.parametrize("is_wrong", [False, True], ids=["right", "wrong"])
@pytest.mark.root
def test_a_folder_of_views_that_cannot_be_written(is_wrong):
    """Neither a right nor a wrong view in it is a reason to fail; a wrong one is not believed."""
    with public_directory() as public:
        path = public / "s"
        names = build(path)
        with CheckpointManager(path, actor="tester") as manager:
            expected = answers(manager, names)
        with believed(path) as connection:
            if is_wrong:
                anothers_place(connection, names)
                change_standing(connection, leaf=bytes(range(32)))
            give_away(path, but="views")

            def work():
                with CheckpointManager(path, actor="tester") as manager:
                    same = answers(manager, names) == expected
                    name = manager.create_checkpoint("t0", "T", 1, data={"n": 1})
                    data = manager.get_latest_checkpoint("t0").data
                    found = [one.checkpoint_id for one in manager.iterate()]
                    problems = manager.validate_checkpoint_integrity()
                    return [same, data, found == [*expected["all"], name], problems]

            assert as_nobody(work) == [True, {"n": 1}, True, []]


def test_a_view_that_another_process_writes_for_long(path, filled, monkeypatch):
    """After a while the answers come from a view of one's own."""
    monkeypatch.setattr(keeper_module, "_VIEW_WAITS", 2)
    names, expected = filled
    with believed(path) as connection, CheckpointManager(path, actor="tester") as manager:
        connection.execute("BEGIN IMMEDIATE")
        later = manager.create_checkpoint("later", "L", 1)
        assert [one.checkpoint_id for one in manager.get_task_checkpoints("later")] == [later]
        connection.execute("ROLLBACK")
        manager.delete_checkpoint(later)
        assert answers(manager, names) | {"events": [], "count": {}} == expected | {
            "events": [],
            "count": {},
        }


# --- following ----------------------------------------------------------------------------------


def test_more_than_memory_holds(path):
    """A process that catches up with thousands of events at once knows them all."""
    with CheckpointManager(path) as writer, CheckpointManager(path) as reader:
        reader.get_task_checkpoints("t")
        names = []
        for _ in range(5):
            with writer.batch() as batch:
                names += [batch.create_checkpoint("t", "T", 1) for _ in range(1000)]
        writer.delete_task("u")
        writer.delete_checkpoint(names[10])
        writer.complete_checkpoint(names[11])
        assert reader.get_checkpoint(names[10]) is None
        assert reader.get_checkpoint(names[11]).state is CheckpointState.COMPLETED
        assert reader.get_latest_checkpoint("t").checkpoint_id == names[-1]
        assert reader.store.count(Filter(task="t")) == 4999
        assert reader.store._keeper.ledger.pending_events < 5000


def test_a_task_deleted_in_a_large_store_costs_no_rebuild(path):
    """What ended with its task is found by its tombstone, in a view that stays."""
    with CheckpointManager(path) as manager:
        with manager.batch() as batch:
            old = [batch.create_checkpoint("t", "T", 1) for _ in range(10)]
        manager.delete_task("t")
        with manager.batch() as batch:
            for _ in range(5000):
                batch.create_checkpoint("u", "U", 1)
    with CheckpointManager(path) as manager:
        view = manager.store.view()
        assert manager.get_checkpoint(old[0]) is None
        assert manager.delete_checkpoint(old[1]) is False
        with pytest.raises(ckptlog.DuplicateIdError):
            manager.create_checkpoint("t", "T", 1, checkpoint_id=old[2])
        with pytest.raises(ckptlog.CheckpointNotFoundError):
            manager.update_checkpoint(old[3], data={})
        assert [one.type for one in manager.history(old[4])] == [
            "checkpoint.created",
            "task.deleted",
        ]
        assert manager.store.view() is view
