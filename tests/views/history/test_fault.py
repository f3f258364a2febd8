from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.views.history.fault import CHARACTERS_MAX, error_class


def wire(info):
    return json.dumps({"title": "t", "description": "", "metadata": {"error_info": info}}).encode()


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"type": "ValueError", "message": "secret"}, "ValueError"),
        ({"error_type": "requests.exceptions.ReadTimeout"}, "ReadTimeout"),
        ({"class": "socket.timeout"}, "timeout"),
        ({"exception": "socket.gaierror"}, "gaierror"),
        ({"exception_type": "HTTPException"}, "HTTPException"),
        ({"error_class": "Cancelled"}, "Cancelled"),
        ({"type": "KeyboardInterrupt"}, "KeyboardInterrupt"),
        ({"type": "ErrorÜber"}, None),
        ({"type": None, "error_type": "OSError"}, "OSError"),
        ({"type": "my words", "class": "KeyError"}, "KeyError"),
        ({"type": "ValueError: my words"}, None),
        ({"type": "hunter2"}, None),
        ({"type": "SECRET"}, None),
        ({"type": "A" + "a" * CHARACTERS_MAX}, None),
        ({"type": "A" + "a" * (CHARACTERS_MAX - 1)}, "A" + "a" * (CHARACTERS_MAX - 1)),
        ({"type": ".".join(["module"] * 100) + ".ValueError"}, None),
        ({"type": 7}, None),
        ({"message": "ValueError"}, None),
        ({"error": "ValueError: my words: more"}, "ValueError"),
        ({"error": "requests.exceptions.ReadTimeout: 30 s"}, "ReadTimeout"),
        ({"error": "TimeoutError"}, "TimeoutError"),
        ({"error": "KeyboardInterrupt:"}, None),
        ({"error": "socket.timeout: timed out"}, "timeout"),
        ({"error": "ValueError: x", "type": "KeyError"}, "KeyError"),
        ({"error": "ValueError: x", "type": "my words"}, "ValueError"),
        ({"error": "Note: the token is hunter2"}, None),
        ({"error": "my ValueError: x"}, None),
        ({"error": "A" * CHARACTERS_MAX + "Error: x"}, None),
        ({"error": {"ValueError: ": 1}}, None),
        ({}, None),
        ("ValueError", None),
        (["ValueError"], None),
        (None, None),
    ],
)
def test_only_the_name_of_a_class_is_taken(info, expected):
    assert error_class(wire(info)) == expected


@pytest.mark.parametrize(
    "other", [b"", b"{", b"[]", b"\xff", b'{"metadata": 3}', b'{"metadata": {}}', b"[" * 5000]
)
def test_other_payloads_have_none(other):
    assert error_class(other) is None


@given(st.text(max_size=80))
def test_what_is_taken_is_an_identifier(text):
    found = error_class(wire({"type": text}))
    assert found is None or (found.isidentifier() and found.isascii() and text.endswith(found))


def test_long_texts_take_no_time():
    assert error_class(wire({"type": "A." * 5_000_000})) is None
