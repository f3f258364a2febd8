"""A file of settings: bytes come back exactly, what they say is told beside them."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog import CallableComponent, Capturer, CheckpointManager, Recovery
from ckptlog.capture import file
from ckptlog.capture.draft import draft_of
from ckptlog.capture.file import FileComponent, parsed
from ckptlog.errors import ComponentError, DeniedError, SourceBusyError, SourceError


@pytest.mark.parametrize(
    ("name", "content", "value"),
    [
        ("a.json", b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("a.JSON", b"\xef\xbb\xbf[]", []),
        ("a.toml", b"a = 1\n[b]\nc = 'd'\n", {"a": 1, "b": {"c": "d"}}),
        ("a.yaml", b"a: [1, x]\nb: 2.5\n", {"a": [1, "x"], "b": 2.5}),
        ("a.yml", b"", None),
        ("a.conf", b"\0\xff", None),
    ],
)
def test_what_a_file_says_is_told(tmp_path, name, content, value):
    path = tmp_path / name
    path.write_bytes(content)
    payload = FileComponent("f", path).capture()
    assert payload["value"] == value
    assert payload["content"] == content
    assert payload["unparsed"] == ("bytes" if name == "a.conf" else "")


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("json", b"{", "line 1"),
        ("json", b"\xff", "utf-8"),
        ("json", b"[" * 100_000, ""),
        ("toml", b"a = = 1", "line 1"),
        ("yaml", b"a: [1", "line"),
        ("yaml", b"1: x", "key"),
        ("yaml", b"!!python/object/apply:os.system ['x']", "tag"),
        ("yaml", b"a: &a [*a]", ""),
        ("json", b'"\\ud800"', "surrogate"),
    ],
)
def test_what_cannot_be_told_says_why(kind, content, words):
    value, fault = parsed(content, kind)
    assert value is None
    assert fault
    assert words in fault


def test_without_pyyaml_bytes_alone_are_captured(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert parsed(b"a: 1", "yaml") == (None, "pyyaml is not installed")


def test_yaml_that_takes_seconds_is_bytes_alone():
    value, fault = parsed(b"- x\n" * 300_000, "yaml")
    assert (value, fault) == (None, "YAML of more than 1048576 characters is not parsed")


def test_a_file_is_parsed_before_the_barrier_and_once(tmp_path, monkeypatch):
    path, steps = tmp_path / "a.json", []

    def watched(content, kind):
        steps.append("parsed")
        return parsed(content, kind)

    def held():
        steps.append("held")
        return 1

    monkeypatch.setattr(file, "parsed", watched)
    path.write_text('{"a": 1}')
    parts = [FileComponent("file", path), CallableComponent("other", held, print, prepare=held)]
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "system", parts)
        capturer.capture()
        capturer.capture()
        path.write_text('{"a": 2}')
        info = capturer.capture()
        assert capturer.stored(info)["file"].value()["value"] == {"a": 2}
        assert steps == ["parsed", *["held"] * 4, "parsed", *["held"] * 2]
        Recovery(capturer).recover(info.id)
    assert steps.count("parsed") == 2


def test_a_file_whose_writer_is_stopped_at_the_barrier_is_captured(tmp_path, monkeypatch):
    is_held = []
    read = FileComponent._read_once
    monkeypatch.setattr(FileComponent, "_read_once", lambda part: (is_held and read(part)) or None)

    class Held(FileComponent):
        def prepare(self):
            is_held.append(True)

    (tmp_path / "a.json").write_text("[1]")
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "system", [Held("file", tmp_path / "a.json")])
        assert capturer.stored(capturer.capture())["file"].value()["value"] == [1]


def test_what_a_large_file_says_is_not_kept(tmp_path):
    path = tmp_path / "a.json"
    part = FileComponent("file", path)
    for size, is_kept in ((10, True), (2 << 20, False), (10, True)):
        path.write_text(json.dumps("x" * size))
        part.look_ahead()
        assert part.capture()["value"] == "x" * size
        assert (part._said is not None) is is_kept


@given(content=st.binary(max_size=200), kind=st.sampled_from(["json", "toml", "yaml", "bytes"]))
def test_no_bytes_break_the_parsers(content, kind):
    value, fault = parsed(content, kind)
    assert value is None or fault == ""


def test_a_file_that_was_not_there_is_removed_again(tmp_path):
    part = FileComponent("f", tmp_path / "a.json")
    payload = part.capture()
    assert not payload["exists"]
    (tmp_path / "a.json").write_text("{}")
    part.restore(payload)
    assert os.listdir(tmp_path) == []
    part.restore(payload)


def test_a_file_comes_back_with_its_folder_and_mode(tmp_path):
    path = tmp_path / "deep" / "a.json"
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o4640)
    part = FileComponent("f", path)
    payload = part.capture()
    path.unlink()
    path.parent.rmdir()
    part.restore(payload)
    assert path.read_text() == "{}"
    assert path.stat().st_mode & 0o7777 == 0o4640
    assert os.listdir(path.parent) == ["a.json"]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path):
    (tmp_path / "real.json").write_text("[1]")
    (tmp_path / "a.json").symlink_to("real.json")
    part = FileComponent("f", tmp_path / "a.json")
    payload = part.capture()
    (tmp_path / "real.json").write_text("[2]")
    part.restore(payload)
    assert (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "[1]"


def test_readers_see_the_old_or_the_new_content(tmp_path):
    path = tmp_path / "a.bin"
    part = FileComponent("f", path)
    payloads = []
    for letter in (b"a", b"b"):
        path.write_bytes(letter * 300_000)
        payloads.append(part.capture())
    stop, seen = threading.Event(), set()

    def read():
        while not stop.is_set():
            seen.add(path.read_bytes())

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(30):
        part.restore(payloads[number % 2])
    stop.set()
    thread.join()
    assert seen <= {b"a" * 300_000, b"b" * 300_000}


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"1")
    reads, real = [], os.read

    def read(fd, size):
        reads.append(size)
        if len(reads) == 1:
            with path.open("ab") as file:
                file.write(b"2")
        return real(fd, size)

    monkeypatch.setattr(os, "read", read)
    assert FileComponent("f", path).capture()["content"] == b"12"


def test_a_file_that_always_changes_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"1")
    real = os.read

    def read(fd, size):
        with path.open("ab") as file:
            file.write(b"2")
        return real(fd, size)

    monkeypatch.setattr(os, "read", read)
    with pytest.raises(SourceBusyError, match="changed each time"):
        FileComponent("f", path).capture()


def test_what_is_no_small_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(SourceError, match="no regular file"):
            FileComponent("f", tmp_path / name).capture()
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(SourceError, match="at most 10"):
        FileComponent("f", tmp_path / "large", size_max=10).capture()


def test_an_unknown_format_is_told(tmp_path):
    with pytest.raises(ComponentError, match="ini"):
        FileComponent("f", tmp_path / "a", format="ini")


def test_a_failed_restore_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    part = FileComponent("f", path)
    payload = part.capture()
    path.write_text("[2]")

    def refuse(*_):
        raise PermissionError(1, "no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DeniedError):
        part.restore(payload)
    assert path.read_text() == "[2]"
    assert os.listdir(tmp_path) == ["a.json"]


def test_it_goes_elsewhere_too(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    part = FileComponent("f", path)
    other = part.at(tmp_path / "b")
    other.restore(part.capture())
    assert Path(other.location["path"]).read_text() == "[1]"
    assert other.verify_restored() == []
    (tmp_path / "b").write_text("[3]")
    assert other.verify_restored()


@pytest.mark.parametrize(
    ("change", "kind", "summary"),
    [
        (lambda path: None, None, "nothing to change"),
        (lambda path: path.write_bytes(b"new"), "change", "content to change"),
        (lambda path: path.chmod(0o600), "change", "mode to change"),
        (lambda path: (path.write_bytes(b""), path.chmod(0o600)), "change", "content and mode"),
        (lambda path: path.unlink(), "add", "the file to add"),
    ],
)
def test_a_plan_says_what_changes(tmp_path, change, kind, summary):
    path = tmp_path / "a.conf"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with CheckpointManager(tmp_path / "store") as manager:
        recovery = Recovery(Capturer(manager, "sys", [FileComponent("a", path)]))
        info = recovery.capturer.capture()
        change(path)
        plan = recovery.recover(info.id, dry_run=True).plans["a"]
        assert [(one.kind, one.path) for one in plan.changes] == (
            [(kind, str(path))] if kind else []
        )
        assert plan.summary.startswith(summary)
        assert str(path) not in plan.summary


def test_a_name_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("n" * 255)
    path.write_bytes(b"captured")
    component = FileComponent("long", path)
    payload = component.capture()
    path.write_bytes(b"changed")
    component.restore(payload)
    assert path.read_bytes() == b"captured"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_what_a_killed_restore_left_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"{}")
    component = FileComponent("a", path)
    payload = component.capture()
    with draft_of(path) as left, draft_of(tmp_path / "b.json") as other:
        kept = left.path.with_name(left.path.name.replace(".tmp", "9.tmp"))
        kept.write_bytes(b"somebody writes it still")
        held = os.open(kept, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        os.close(left.fd)  # as if its maker had died
        left.fd = -1
        component.restore(payload)
        assert not left.path.exists()
        assert other.path.exists()
        assert kept.exists()
        os.close(held)
    component.restore(payload)
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_restoring_that_there_was_no_file_removes_what_a_killed_restore_left(tmp_path):
    path = tmp_path / "a.json"
    component = FileComponent("a", path)
    payload = component.capture()
    with draft_of(path) as left:
        os.close(left.fd)  # as if its maker had died
        left.fd = -1
        component.restore(payload)
        assert list(tmp_path.iterdir()) == []
