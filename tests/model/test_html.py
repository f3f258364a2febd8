"""Whatever a text holds, it is shown and does nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptlog
from ckptlog import CheckpointData, CheckpointManager, CheckpointState
from ckptlog.model import html
from ckptlog.repository.replay import Replay
from ckptlog.repository.report import Problem, Report

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[2J\ud800\n"
TAGS = {"div", "b", "i", "p", "table", "tbody", "thead", "tr", "th", "td"}


class Reader(HTMLParser):
    """Collects tags and attributes, and the text between them."""

    def __init__(self):
        super().__init__()
        self.tags = set()
        self.attributes = set()
        self.open = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert reader.tags <= TAGS
    assert reader.attributes <= {"style"}
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", page)
    return reader.text


class Stranger:
    """An object whose every text is a trap."""

    def __repr__(self):
        raise AssertionError

    __str__ = __repr__

    def __len__(self):
        raise AssertionError


@given(st.text(), st.text(), st.text(max_size=500))
def test_any_text_is_only_text(title, name, value):
    page = html.card(title, {name: value}, html.table((name,), [(value,)], total=1))
    read(page)


def test_hostile_texts_are_shown_as_they_are_written():
    text = read(html.card(HOSTILE, {HOSTILE: HOSTILE}))
    assert text.count("<script>alert(1)</script>") == 3
    assert "\\u202e" in text
    assert "\\ud800" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"),
        (True, "True"),
        (7, "7"),
        ("text", "text"),
        ([1, 2, 3], "list, 3 items"),
        ({"a": 1}, "dict, 1 item"),
        (b"abc", "bytes, 3 bytes"),
        ((), "tuple, 0 items"),
        (CheckpointState.ACTIVE, "active"),
        (np.zeros(3), "ndarray"),
        (Stranger(), "Stranger"),
        (type("<b>", (str,), {})("x"), "<b>"),
        ("x" * 1000, "x" * html.CHARACTERS_MAX + "\u2026"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01 00:00:00+00:00"),
    ],
)
def test_an_outline_says_what_there_is_and_runs_nothing(value, shown):
    assert read(html.outline(value)) == shown


def test_of_many_rows_the_first_are_shown():
    text = read(html.table(("n",), ((n,) for n in range(1000)), total=1000))
    assert "showing 50 of 1,000" in text
    assert "showing" not in read(html.table(("n",), [(1,)], total=1))


def test_a_checkpoint_of_a_hostile_user():
    checkpoint = CheckpointData(
        HOSTILE, HOSTILE, HOSTILE, CheckpointState.FAILED, 1, step_description=HOSTILE,
        data={HOSTILE: HOSTILE, "odd": Stranger()}, metadata={"error_info": {HOSTILE: HOSTILE}},
        worker_id=HOSTILE, parent_checkpoint_id=HOSTILE,
    )  # fmt: skip
    text = read(checkpoint._repr_html_())
    assert "failed" in text
    assert "Stranger" in text
    read(CheckpointData("a", "b", "c", "odd", 1, data=7, metadata=None)._repr_html_())


def test_a_report_of_a_damaged_store():
    problem = Problem("log.corrupt", HOSTILE, HOSTILE)
    counts = dict.fromkeys(
        ("events", "commits", "chunks", "payloads", "checkpoints", "bytes_read"), 1000
    )
    report = Report(
        level="full", problems=(problem,) * 60, problems_total=60, notes=(HOSTILE,), **counts
    )
    text = read(report._repr_html_())
    assert "60 problems" in text
    assert "showing 50 of 60" in text
    assert "sound" in read(Report(level="full", problems=(), notes=(), **counts)._repr_html_())


def test_a_store_and_its_manager(tmp_path):
    path = tmp_path / "<b>store</b>"
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("<i>t</i>", HOSTILE.replace("\ud800", ""), 1)
        manager.complete_checkpoint(name)
        text = read(manager._repr_html_())
        assert "<b>store</b>" in text
        assert "1 (1 completed)" in text
        assert manager._repr_html_() == manager.store._repr_html_()
        assert "completed" in read(manager.get_checkpoint(name)._repr_html_())
    assert "closed" in read(manager.store._repr_html_())


def test_a_store_that_cannot_tell_is_shown_all_the_same(tmp_path, monkeypatch):
    with ckptlog.open(tmp_path / "store", create=True) as store:

        def fail(*_):
            raise ckptlog.CheckpointStorageError("<view>")

        monkeypatch.setattr("ckptlog.repository.statistics.ask", fail)
        assert "storage.failed: <view>" in read(store._repr_html_())


def test_replays_subscriptions_and_consumers(tmp_path):
    with CheckpointManager(tmp_path / "s", actor="ada") as manager:
        store = manager.store
        assert "Consumers (0)" in read(store.consumers()._repr_html_())
        for number in range(html.ROWS_MAX + 1):
            manager.create_checkpoint("<b>t", "T", 1, checkpoint_id=f"<i>{number}")
        past = store.replay(html.ROWS_MAX - 1)
        text = read(past._repr_html_())
        assert "<b>t" in text
        assert f"created{html.ROWS_MAX}" in text
        assert "showing" not in text
        assert f"showing {html.ROWS_MAX} of {html.ROWS_MAX + 1}" in read(
            store.replay()._repr_html_()
        )
        assert "Replay" in read(
            Replay(position=None, time=None, leaf=b"", entries=())._repr_html_()
        )
        with store.watch("<script>", watcher=False) as events:
            next(events)
            text = read(events._repr_html_())
            assert "<script>" in text
            assert f"lag{html.ROWS_MAX + 1}" in text
            text = read(store.consumers()._repr_html_())
            assert "Consumers (1)" in text
            assert "<script>" in text
        assert "closed" in read(events._repr_html_())
        assert store.consumers() == list(store.consumers())


def test_a_subscription_to_what_is_gone_shows_that(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1)
        with manager.store.watch(watcher=False) as events:
            (tmp_path / "s" / "log" / "end").write_bytes(b"")
            assert "position" in read(events._repr_html_())
