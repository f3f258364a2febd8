"""list, show, log, history, diff, stats, verify, replay: in words and in JSON."""

from __future__ import annotations

import json
import shutil

import pytest

from ckptlog import CheckpointManager
from ckptlog.errors import ReadOnlyError


@pytest.fixture
def call(run, filled):
    return lambda *words: run("--store", filled.path, *words)


def columns(text):
    """Return the first column of a table, without its title."""
    return [line.split()[0] for line in text.splitlines()[1:]]


# --- list -------------------------------------------------------------------------------------


def test_list_shows_what_is_there_in_order(call, filled):
    done = call("list")
    assert (done.status, done.err) == (0, "")
    assert columns(done.out)[:5] == list(filled[1:6])
    assert len(columns(done.out)) == 6
    assert columns(call("list", "--newest").out)[1:] == list(filled[5:0:-1])


def test_list_in_json_has_everything_but_the_data(call, filled):
    fields = call("list", "--json", "--state", "failed").lines
    assert len(fields) == 1
    assert fields[0]["checkpoint_id"] == filled.failed
    assert fields[0]["metadata"]["error_info"] == {"message": "no luck"}
    assert fields[0]["namespace"] == "side"
    assert fields[0]["data_bytes"] > 0
    assert "data" not in fields[0]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--task", "job", "--state", "completed"], ["completed"]),
        (["--worker", "w2"], ["active"]),
        (["--namespace", "side"], ["failed"]),
        (["--since", "1h", "--state", "restored"], ["restored"]),
        (["--until", "2000-01-01"], []),
        (["--task", "unknown"], []),
    ],
)
def test_list_filters(call, filled, words, names):
    done = call("list", *words)
    assert columns(done.out) == [getattr(filled, name) for name in names]


def test_list_children(call, filled):
    assert columns(call("list", "--parent", filled.created).out) == [filled.completed]


def test_list_never_cuts_silently(call):
    done = call("list", "--limit", 2)
    assert len(columns(done.out)) == 2
    assert done.err == "showing 2 of 6 (--limit 2)\n"
    assert call("list", "--limit", 6).err == ""
    assert len(call("list", "--limit", 2, "--json").lines) == 2


def test_list_of_many_pages(run, tmp_path):
    import ckptlog

    with ckptlog.CheckpointManager(tmp_path / "big") as manager, manager.batch() as batch:
        for number in range(1200):
            batch.create_checkpoint("job", "A job", number + 1)
    listed = run("--store", tmp_path / "big", "list", "--json").lines
    assert [fields["step_number"] for fields in listed] == list(range(1, 1201))
    done = run("--store", tmp_path / "big", "list", "--json", "--limit", 700, "--newest")
    assert [fields["step_number"] for fields in done.lines] == list(range(1200, 500, -1))


def test_list_of_large_and_of_damaged_metadata(run, tmp_path):
    import ckptlog

    store = tmp_path / "s"
    with ckptlog.CheckpointManager(store) as manager:
        noise = "".join(map(str, range(50_000)))
        manager.create_checkpoint("t", "Large", 1, "described", metadata={"noise": noise})
    fields = run("--store", store, "list", "--json").document
    assert (fields["task_title"], fields["metadata"]["noise"]) == ("Large", noise)
    assert "described" in run("--store", store, "list").out
    (segment,) = (store / "log").glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 1
    segment.write_bytes(content)
    done = run("--store", store, "list", "--json")
    assert done.status == 5
    assert done.document["task_title"].startswith("(")


# --- show -------------------------------------------------------------------------------------


def test_show(call, filled):
    done = call("show", filled.failed)
    assert (done.status, done.err) == (0, "")
    for word in ("failed", "4/5", "side", "A job", "error_info", "items", "2 items"):
        assert word in done.out


def test_show_in_json(call, filled):
    fields = call("show", filled.completed, "--json").document
    assert (fields["checkpoint_id"], fields["state"]) == (filled.completed, "completed")
    assert fields["parent_checkpoint_id"] == filled.created
    assert "data" not in fields
    fields = call("show", filled.completed, "--json", "--data").document
    assert fields["data"] == {"n": 3, "items": [1, 2], "result": True}


def test_show_data_is_json_that_a_terminal_can_bear(call, filled):
    done = call("show", filled.active, "--data")
    assert "\x1b" not in done.out
    assert json.loads(done.out) == {"n": 2, "items": [1, 2], "more": "\x1b[31mred\x1b[0m"}


def test_show_as_of_a_position(call, filled):
    first = call("history", filled.completed, "--json").lines[0]["position"]
    fields = call("show", filled.completed, "--at", first, "--json", "--data").document
    assert (fields["state"], fields["data"]) == ("created", {"n": 3, "items": [1, 2]})
    done = call("show", filled.completed, "--at", 0)
    assert (done.status, done.out) == (3, "")
    assert "as of position 0" in done.err
    fields = call("show", filled.deleted, "--at", 5 + 1, "--json").document
    assert fields["state"] == "created"


@pytest.mark.parametrize("words", [["show"], ["history"], ["restore"], ["delete"], ["diff", "x"]])
def test_an_unknown_checkpoint(call, words):
    done = call(*words, "cp_none_1_1")
    assert (done.status, done.out) == (3, "")
    assert "[checkpoint.not_found]" in done.err
    done = call(*words, "cp_none_1_1", "--json")
    assert (done.status, done.error["code"]) == (3, "checkpoint.not_found")


def test_a_deleted_checkpoint_is_not_there_but_has_a_history(call, filled):
    assert call("show", filled.deleted).status == 3
    events = call("history", filled.deleted, "--json").lines
    assert [event["type"] for event in events] == ["checkpoint.created", "checkpoint.deleted"]
    assert events[-1]["checkpoint"] is None
    assert "deleted" in call("history", filled.deleted).out


@pytest.mark.parametrize("words", [["show", "x", "--at"], ["replay", "--until"]])
def test_a_position_beyond_the_end(call, words):
    done = call(*words, 1000, "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")
    assert "1000" in done.error["message"]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 600, " x"])
def test_an_id_that_cannot_be_one(call, name):
    done = call("show", name, "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")


# --- log and history --------------------------------------------------------------------------


def test_log_prints_one_line_for_each_event(call, filled):
    done = call("log")
    lines = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    assert [int(line.split()[0]) for line in lines] == list(range(len(lines)))
    assert "created" in lines[0]
    assert filled.created in lines[0]
    assert "step 1/5" in lines[0]
    assert "by tester" in lines[0]
    assert any("deleted" in line and filled.deleted in line for line in lines)


def test_log_in_json_is_the_event_as_stored(call, filled):
    events = call("log", "--json").lines
    assert [event["position"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "checkpoint.created"
    assert events[0]["subject"]["checkpoint"] == filled.created
    assert events[0]["place"]["length"] > 0


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--type", "failed"], 1),
        (["--type", "checkpoint.failed"], 1),
        (["--type", "task.deleted"], 0),
        (["--task", "other"], 1),
        (["--from", "2", "--to", "4"], 3),
        (["--from", "2", "--to", "2"], 1),
        (["--last", "2"], 2),
        (["--task", "other", "--last", "5"], 1),
        (["--actor", "tester", "--from", "0", "--to", "0"], 1),
        (["--actor", "nobody"], 0),
        (["--since", "2000-01-01", "--until", "2000-01-02"], 0),
        (["--since", "1h", "--to", "1"], 2),
        (["--from", "500"], 0),
    ],
)
def test_log_filters(call, words, count):
    assert len(call("log", *words, "--json").lines) == count
    assert len(call("log", *words).out.splitlines()) == count


def test_log_tells_of_tasks_and_of_secrets(run, tmp_path):
    import ckptlog

    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1, data={"password": "hunter2", "token": "abc"})
        manager.delete_task("t")
    lines = run("--store", tmp_path / "s", "log").out.splitlines()
    assert "2 secrets replaced" in lines[0]
    assert "task.deleted" in lines[1]
    assert "task t  checkpoints=1" in lines[1]
    assert "hunter2" not in "".join(lines)


def test_log_of_one_checkpoint_is_its_history(call, filled):
    logged = call("log", "--checkpoint", filled.restored, "--json").lines
    told = call("history", filled.restored, "--json").lines
    assert [e["position"] for e in logged] == [e["position"] for e in told]
    assert [e["type"] for e in told] == [
        "checkpoint.created",
        "checkpoint.completed",
        "checkpoint.restored",
    ]
    assert [e["checkpoint"]["state"] for e in told] == ["created", "completed", "restored"]
    assert len(call("history", filled.restored).out.splitlines()) == 4


def test_a_range_that_is_none(call):
    done = call("log", "--from", 5, "--to", 2, "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")


# --- diff -------------------------------------------------------------------------------------


def test_diff_of_two(call, filled):
    found = {d["path"]: d for d in call("diff", filled.created, filled.completed, "--json").lines}
    assert found["data.n"] == {"path": "data.n", "kind": "changed", "before": 1, "after": 3}
    assert found["data.result"]["kind"] == "added"
    done = call("diff", filled.created, filled.completed)
    assert "~ data.n: 1 -> 3" in done.out
    assert "+ data.result: True" in done.out


def test_diff_of_two_times(call, filled):
    first = call("history", filled.active, "--json").lines[0]["position"]
    then = f"{filled.active}@{first}"
    paths = [d["path"] for d in call("diff", then, filled.active, "--json").lines]
    assert paths == ["state", "data.more"]
    done = call("diff", filled.active, then)
    assert "- data.more" in done.out
    assert "\x1b" not in done.out
    assert call("diff", then, then).out == "No difference.\n"
    assert call("diff", then, then, "--json").out == ""


def test_diff_of_an_id_that_holds_an_at_sign(run, tmp_path):
    import ckptlog

    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1, checkpoint_id="me@1")
        manager.create_checkpoint("t", "T", 2, checkpoint_id="me")
    paths = [
        d["path"] for d in run("--store", tmp_path / "s", "diff", "me@1", "me@1@0", "--json").lines
    ]
    assert paths == []
    found = run("--store", tmp_path / "s", "diff", "me", "me@1", "--json").lines
    assert [d["path"] for d in found] == ["step_number"]


def test_log_of_a_type_that_there_is_not(call):
    done = call("log", "--type", "nope", "--json")
    assert (done.status, done.out) == (2, "")
    assert "completed" in done.error["hint"]
    assert "cleanup.finished" in done.error["hint"]
    for known in ("cleanup.finished", "checkpoint.completed", "task.deleted"):
        assert call("log", "--type", known, "--last", 1).status == 0


# --- stats, verify, replay --------------------------------------------------------------------


def test_stats(call, filled):
    done = call("stats")
    assert (done.status, done.err) == (0, "")
    assert str(filled.path) in done.out
    assert "2 created, 1 active, 1 completed, 1 failed, 1 restored" in done.out
    assert ":1" in done.out
    document = call("stats", "--json").document
    assert (document["store"], document["events"]) == (str(filled.path), 13)
    assert document["logical_bytes"] > 0
    assert document["stored_bytes"] > 0


@pytest.mark.parametrize("level", ["full", "structure"])
def test_verify(call, level):
    done = call("verify", "--level", level)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("ok: ")
    document = call("verify", "--level", level, "--json").document
    assert (document["ok"], document["level"], document["problems"]) == (True, level, [])


def damage(store, *, near):
    """Flip a byte of the first event's frame."""
    (segment,) = sorted((store / "log").glob("*.seg"))
    content = segment.read_bytes()
    offset = content.index(near)
    with segment.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([content[offset] ^ 1]))


def test_verify_of_a_damaged_store(call, filled):
    damage(filled.path, near=filled.active.encode())
    shutil.rmtree(filled.path / "views")
    done = call("verify", "--json")
    assert (done.status, done.error["code"]) == (5, "corruption.detected")
    assert done.document["ok"] is False
    problem = done.document["problems"][0]
    assert problem["code"]
    assert problem["where"]
    done = call("verify")
    assert done.status == 5
    assert problem["code"] in done.out
    assert "problem" in done.err


def test_the_hint_about_a_damaged_store_is_true(call, filled):
    """It once promised that list and show work, whether there were views or not."""
    whole = call("list").out
    damage(filled.path, near=filled.active.encode())
    done = call("verify", "--json")
    assert "with its `views`: while they are there, `ckptlog list`" in done.error["hint"]
    assert (call("list").status, call("list").out) == (0, whole)
    assert call("show", filled.completed).status == 0
    shutil.rmtree(filled.path / "views")
    assert call("list").status == call("show", filled.completed).status == 5
    done = call("verify", "--json")
    assert done.status == 5
    assert "cannot be opened until" in done.error["hint"]
    assert "list" not in done.error["hint"]


def test_replay_rebuilds_the_views(call, filled):
    before = call("list", "--json").lines
    shutil.rmtree(filled.path / "views")
    done = call("replay")
    assert (done.status, done.err) == (0, "")
    assert str(filled.path) in done.out
    assert call("list", "--json").lines == before
    assert call("replay", "--json").document["events"] == 13


def test_replay_until_a_position(call, filled):
    last = call("replay", "--until", 12, "--json").document
    listed = call("list", "--json").lines
    assert [c["checkpoint_id"] for c in last["checkpoints"]] == [f["checkpoint_id"] for f in listed]
    assert [c["state"] for c in last["checkpoints"]] == [fields["state"] for fields in listed]
    first = call("replay", "--until", 0, "--json").document
    assert first["states"] == {"created": 1}
    done = call("replay", "--until", 0)
    assert done.out.startswith("After position 0: 1 checkpoint (1 created).")
    assert filled.created in done.out


def test_replay_until_knows_deleted_tasks(run, tmp_path):
    import ckptlog

    store = tmp_path / "s"
    with ckptlog.CheckpointManager(store) as manager:
        manager.create_checkpoint("a", "A", 1)
        manager.create_checkpoint("b", "B", 1)
        manager.delete_task("a")
        manager.create_checkpoint("a", "A", 2)
    states = [
        [
            (c["task_id"], c["step_number"])
            for c in run("--store", store, "replay", "--until", n, "--json").document["checkpoints"]
        ]
        for n in range(4)
    ]
    assert states == [
        [("a", 1)],
        [("a", 1), ("b", 1)],
        [("b", 1)],
        [("b", 1), ("a", 2)],
    ]


# --- stores that cannot be used ---------------------------------------------------------------


def test_a_directory_that_is_no_store(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("x")
    for path, code, status in (
        (tmp_path / "full", "store.not_a_store", 3),
        (tmp_path / "missing", "store.missing", 3),
        (tmp_path / "full" / "notes.txt", "store.not_a_store", 3),
    ):
        done = run("--store", path, "list", "--json")
        assert (done.status, done.error["code"]) == (status, code)
        assert str(path) in done.error["message"]


def test_a_store_of_a_newer_version(run, filled):
    path = filled.path / "store.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "features": [*fields["features"], "time-travel"]}))
    for command in ("list", "verify", "stats", "doctor"):
        done = run("--store", filled.path, command, "--json")
        assert done.status == 6, command
    assert "time-travel" in run("--store", filled.path, "list").err


def test_a_store_that_nobody_may_write_is_read(run, filled, monkeypatch):
    def refuse(root):
        raise ReadOnlyError(f"{root} cannot be written.")

    monkeypatch.setattr("ckptlog.repository.layout.refuse_read_only", refuse)
    for words in (["list"], ["show", filled.active], ["log"], ["verify"], ["stats"]):
        assert run("--store", filled.path, *words).status == 0, words
    done = run("--store", filled.path, "delete", filled.created, "--json")
    assert (done.status, done.error["code"]) == (6, "store.read_only")


def test_show_a_part(run, tmp_path):
    with CheckpointManager(tmp_path / "parts") as manager:
        data = {"list": [1, {"a/b": "c"}], "~": (5,)}
        name = manager.create_checkpoint("t", "T", 1, data=data)
    for pointer, printed in (("/list/-1/a~1b", '"c"'), ("/~0/0", "5"), ("/list/0", "1")):
        done = run("--store", tmp_path / "parts", "show", name, "--part", pointer)
        assert (done.status, done.out.strip()) == (0, printed)
    for options, status in (
        (("/list/2",), 3),
        (("list",), 2),
        (("/list", "--at", "0"), 2),
    ):
        done = run("--store", tmp_path / "parts", "show", name, "--part", *options)
        assert done.status == status
        assert done.out == ""
