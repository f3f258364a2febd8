"""Data alone on stdout, whatever the terminal, the encoding and the text."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime
from enum import Enum

import pytest

from ckptlog.cli.output import Column, Output, open_output, table_lines, wants_colour


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def make(**options):
    return Output(Terminal(), Terminal(), **options)


def said(output):
    """Return what stands on stdout and on stderr."""
    return output.stdout.getvalue(), output.stderr.getvalue()


COLUMNS = (Column("name"), Column("size", is_number=True))


def test_a_plain_table_is_aligned():
    lines = list(table_lines(COLUMNS, [("a", "1"), ("日本語", "1,000")]))
    assert lines == ["NAME     SIZE", "a           1", "日本語  1,000"]


def test_a_table_without_rows_has_its_titles():
    assert list(table_lines(COLUMNS, [])) == ["NAME  SIZE"]


def test_cells_are_escaped():
    output = make()
    output.table(COLUMNS, [("\x1b[31mred\nred", 1)])
    assert "\x1b" not in said(output)[0]
    assert "\\u001b[31mred\\nred" in said(output)[0]


def test_a_rich_table_has_colours_but_no_markup_of_the_data():
    output = make(has_colour=True)
    output.table((Column("state"), Column("text")), [("completed", "[red]x[/red]\x1b[2J")])
    shown = said(output)[0]
    assert "\x1b[32mcompleted" in shown
    assert "[red]x[/red]" in shown
    assert "\x1b[2J" not in shown


def test_a_narrow_terminal_breaks_prose_but_no_id(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    output = make(has_colour=True)
    columns = (Column("id"), Column("size", is_number=True), Column("words", is_prose=True))
    output.table(columns, [("x" * 50, "1234567", "one two three four five six")])
    shown = said(output)[0]
    assert "x" * 50 in shown
    assert "1234567" in shown
    assert "two three four five six" not in shown


def test_paint():
    assert make().paint("x", "ok") == "x"
    assert make(has_colour=True).paint("x", "ok") == "\x1b[32mx\x1b[0m"
    assert make(has_colour=True).paint("x", "no such style") == "x"
    assert make(has_colour=True, is_json=True).paint("x", "ok") == "x"


def test_details_are_aligned():
    output = make()
    output.details({"a": "x\n", "longer": None})
    assert said(output)[0] == "a       x\\n\nlonger  -\n"


def test_json_is_one_document_or_one_line_each():
    output = make(is_json=True)
    output.item({"a": [1, 2]})
    output.item({"a": "\n\x9b"})
    lines = said(output)[0].splitlines()
    assert [json.loads(line) for line in lines] == [{"a": [1, 2]}, {"a": "\n\x9b"}]
    output = make(is_json=True)
    output.document({"a": [1, 2]})
    assert json.loads(said(output)[0]) == {"a": [1, 2]}


class Colour(Enum):
    RED = "red"


def test_json_of_values_of_ours():
    class Report:
        def to_dict(self):
            return {"x": 1}

    output = make(is_json=True)
    output.item([datetime(2026, 1, 2, tzinfo=UTC), Colour.RED, Report(), 1j])
    assert json.loads(said(output)[0]) == [
        "2026-01-02T00:00:00+00:00",
        "red",
        {"x": 1},
        "1j",
    ]


FAULT = {"code": "x.y", "message": "It broke\x07.", "hint": "Mend it.", "context": {"n": 1}}


def test_a_fault_in_words():
    output = make()
    output.fault(FAULT)
    assert said(output)[1] == "ckptlog: It broke\\u0007. [x.y]\n  Mend it.\n"
    assert said(output)[0] == ""


def test_a_fault_in_json_is_one_object():
    output = make(is_json=True)
    output.note("not this")
    output.fault(FAULT)
    assert json.loads(said(output)[1]) == {**FAULT, "retryable": False}
    assert said(output)[0] == ""


@pytest.mark.parametrize("is_json", [True, False])
def test_other_encodings_get_what_they_can_take(is_json, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    output = open_output({}, is_json=is_json)
    if is_json:
        output.item({"schön": "\ud800"})
    else:
        output.line("schön")
    output.flush()
    shown = raw.getvalue().decode("ascii")
    assert json.loads(shown) == {"schön": "\ud800"} if is_json else shown == "sch\\xf6n\n"


def test_a_closed_stdout_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    output = open_output({}, is_json=False)
    output.line("x")
    output.flush()
    output.stdout.close()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_wanted_on_a_terminal_only(environ, wanted):
    assert wants_colour(Terminal(), environ) is wanted
    assert wants_colour(io.StringIO(), environ) is False
